"""Adapter: where the processes of one server tell each other their figures: a file for each."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory


@dataclass(frozen=True, slots=True)
class Board:
    """``slot`` is ours: 0 for the process that leads, the same for a helper and its successor."""

    folder: Path
    slot: int

    def own(self) -> bytes | None:
        """What was last posted in our slot, by us or by who was there before."""
        return _read(self._path)

    def others(self) -> list[bytes]:
        """What was last posted in each other slot."""
        found = (_read(path) for path in self.folder.glob("*.json") if path != self._path)
        return [posted for posted in found if posted is not None]

    def post(self, figures: bytes) -> None:
        """Put up figures in place of our last ones."""
        scratch = self._path.with_suffix(".new")
        with suppress(OSError):  # there is no room now, or the folder is gone as all end
            scratch.write_bytes(figures)
            scratch.replace(self._path)

    @property
    def _path(self) -> Path:
        return self.folder / f"{self.slot}.json"


@contextmanager
def boards(helpers: int) -> Iterator[list[Board | None]]:
    """A board for the process that leads and for each helper; ``None`` where nobody helps."""
    if not helpers:
        yield [None]
        return
    with TemporaryDirectory(prefix="xbyte-", ignore_cleanup_errors=True) as folder:
        yield [Board(Path(folder), slot) for slot in range(helpers + 1)]


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
