"""Adapter: the metrics that the processes of one server share: a file of each, in one folder."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory


@dataclass(frozen=True, slots=True)
class SharedMetrics:
    """The metrics of one process, for the others to read.

    ``slot`` is 0 in the main process; a worker process that replaces another has its slot.
    """

    folder: Path
    slot: int

    def own(self) -> bytes | None:
        """The metrics last posted in this slot, by this process or the one it replaces."""
        return _read(self._path)

    def others(self) -> list[bytes]:
        """The metrics last posted in each other slot."""
        found = (_read(path) for path in self.folder.glob("*.json") if path != self._path)
        return [posted for posted in found if posted is not None]

    def post(self, metrics: bytes) -> None:
        """Replace this slot's metrics."""
        scratch = self._path.with_suffix(".new")
        with suppress(OSError):  # the disk is full, or the folder is gone as all processes end
            scratch.write_bytes(metrics)
            scratch.replace(self._path)

    @property
    def _path(self) -> Path:
        return self.folder / f"{self.slot}.json"


@contextmanager
def shared_metrics(workers: int) -> Iterator[list[SharedMetrics | None]]:
    """A slot for the main process and each of ``workers``; ``[None]`` where there are none."""
    if not workers:
        yield [None]
        return
    with TemporaryDirectory(prefix="xbyte-", ignore_cleanup_errors=True) as folder:
        yield [SharedMetrics(Path(folder), slot) for slot in range(workers + 1)]


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
