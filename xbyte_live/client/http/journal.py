"""Adapter: the open payments, in memory or in a download's state file."""

import asyncio
import fcntl
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from xbyte_live.client.payer.signing import IssuedPayment
from xbyte_live.errors import ConfigError, StoreError

# Where the plan puts them; one after the other as listed; the same with what is gone left out.
Layout = Literal["placed", "listed", "live"]


class Journal(Protocol):
    """Signed payments whose bytes have not arrived whole; a retry presents the same one again."""

    def find(self, resource: str) -> Sequence[IssuedPayment]:
        """The open payments for a resource, oldest first."""

    async def keep(self, payment: IssuedPayment) -> None:
        """Note a payment before it is presented; durable, where that is meant, on return."""

    def drop(self, payment: IssuedPayment, *, lost: bool = False) -> None:
        """A payment has done its work, or never will; ``lost`` when its bytes never came."""


class MemoryJournal:
    """Open payments of this process; what nobody can use any more is dropped."""

    def __init__(self) -> None:
        self._open: dict[str, list[IssuedPayment]] = {}

    def find(self, resource: str) -> Sequence[IssuedPayment]:
        """The open payments for a resource, oldest first."""
        return tuple(self._open.get(resource, ()))

    async def keep(self, payment: IssuedPayment) -> None:
        """Note a payment before it is presented."""
        self.hold(payment)

    def hold(self, payment: IssuedPayment) -> None:
        """Note a payment."""
        self._open.setdefault(payment.resource, []).append(payment)

    def drop(self, payment: IssuedPayment, *, lost: bool = False) -> None:
        """A payment has done its work, or never will."""
        left = [p for p in self._open.pop(payment.resource, ()) if p.identity != payment.identity]
        if left:
            self._open[payment.resource] = left


@dataclass(frozen=True, slots=True)
class PieceRecord:
    """Bytes that lie in the partial file: where, how many, their SHA-256, and what they cost.

    ``etag`` names the version of the object they are of, if the server said.
    """

    resource: str
    offset: int
    size: int
    sha256: str
    amount: int
    etag: str | None = None


class FileJournal:
    """The state of one download: JSON lines beside its partial file, for one process at a time.

    ``source`` says what is downloaded and ``layout`` how its pieces lie in the file; an earlier
    run's layout stays. A payment is on disk before it is presented. ``signed`` is what was
    signed for so far, ``cost`` what of it paid for recorded pieces; ``earlier`` are the payments
    of earlier runs.

    Raises ``ConfigError`` for a file in use or of another download, ``StoreError`` for the disk.
    """

    def __init__(self, path: Path, source: str, layout: Layout) -> None:
        self.layout = layout
        self.signed = 0
        self.pieces: dict[str, PieceRecord] = {}
        self.earlier: list[IssuedPayment] = []
        self._spent: set[str] = set()
        self._path = path
        self._open = MemoryJournal()
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error.strerror}") from None
        try:
            self._lock()
            self._load(source)
        except BaseException:
            os.close(self._file)
            raise

    @property
    def cost(self) -> int:
        """What the recorded pieces were paid with."""
        return sum(piece.amount for piece in self.pieces.values())

    def find(self, resource: str) -> Sequence[IssuedPayment]:
        """The open payments for a resource, oldest first."""
        return self._open.find(resource)

    async def keep(self, payment: IssuedPayment) -> None:
        """Note a payment before it is presented; on disk on return."""
        self._open.hold(payment)
        self.signed += payment.at_stake
        await asyncio.to_thread(self._append, {"signed": asdict(payment)}, sync=True)

    def drop(self, payment: IssuedPayment, *, lost: bool = False) -> None:
        """Do not present it again in this process; a restart judges by the pieces it finds.

        What is ``lost`` is not presented after a restart either.
        """
        self._open.drop(payment)
        if lost:
            self._append({"spent": payment.identity})

    def record(self, piece: PieceRecord) -> None:
        """Note that a piece lies whole in the partial file."""
        self.pieces[piece.resource] = piece
        self._append({"piece": asdict(piece)})

    def forget(self, piece: PieceRecord) -> None:
        """Drop a piece that is not in the partial file after all."""
        self.pieces.pop(piece.resource, None)
        self._append({"lost": piece.resource})

    def reopen(self) -> None:
        """Have every earlier payment presented again whose piece is not in the partial file."""
        for payment in self.earlier:
            if payment.resource not in self.pieces and payment.identity not in self._spent:
                self._open.hold(payment)

    def remove(self) -> None:
        """The download is whole: its state is no longer needed."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"another download is writing {self._path}; choose another file"
            ) from None

    def _load(self, source: str) -> None:
        text = os.pread(self._file, os.fstat(self._file).st_size, 0)
        whole, _, torn = text.rpartition(b"\n")
        if torn:  # the last line was being written when the process ended
            os.ftruncate(self._file, len(text) - len(torn))
        lines = whole.splitlines()
        if not lines:
            self._append({"source": source, "layout": self.layout}, sync=True)
            return
        try:
            head, *entries = [json.loads(line) for line in lines]
            known, self.layout = head["source"], head["layout"]
            for entry in entries:
                self._replay(entry)
            if self.layout not in get_args(Layout):
                raise ValueError
        except (ValueError, TypeError, KeyError):
            raise ConfigError(f"{self._path} is not the state of a download; remove it") from None
        if known != source:
            raise ConfigError(f"{self._path} belongs to the download of {known}; remove it")

    def _replay(self, entry: dict[str, Any]) -> None:
        if "signed" in entry:
            payment = IssuedPayment(**entry["signed"])
            self.earlier.append(payment)
            self.signed += payment.at_stake
        elif "spent" in entry:
            self._spent.add(entry["spent"])
        elif "piece" in entry:
            piece = PieceRecord(**entry["piece"])
            self.pieces[piece.resource] = piece
        else:
            self.pieces.pop(entry["lost"], None)

    def _append(self, entry: dict[str, Any], *, sync: bool = False) -> None:
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        try:
            os.write(self._file, line)
            if sync:
                os.fsync(self._file)
        except OSError as error:
            raise StoreError(f"{self._path} cannot be written: {error.strerror}") from None
