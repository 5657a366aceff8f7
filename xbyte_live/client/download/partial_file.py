"""Adapter: a file put together from pieces in any order, resumed after a kill."""

import asyncio
import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from xbyte_live.client.http.journal import PieceRecord
from xbyte_live.errors import StoreError

_CHUNK = 1024 * 1024


class PartialFile:
    """``out`` while it is not whole yet: ``part`` beside it, renamed at the end.

    Raises ``StoreError`` for what the disk refuses.
    """

    def __init__(self, out: Path, part: Path) -> None:
        self._out = out
        self._part = part
        try:
            self._file = os.open(self._part, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise StoreError(f"{out} cannot be written: {error.strerror}") from None

    def require_room(self, size: int) -> None:
        """Raise ``StoreError`` unless ``size`` bytes fit on the disk."""
        free = shutil.disk_usage(self._part).free
        if size > free:
            raise StoreError(f"{size} bytes are wanted and the disk has {free} left")

    async def damaged(self, records: Iterable[PieceRecord]) -> list[PieceRecord]:
        """The recorded pieces that do not lie in the file as recorded."""
        return await asyncio.to_thread(
            lambda: [record for record in records if self._digest(record) != record.sha256]
        )

    def write(self, data: bytes, offset: int) -> None:
        """Put ``data`` where it belongs."""
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(self._file, view, offset)
                view, offset = view[written:], offset + written
        except OSError as error:
            raise StoreError(f"{self._out} cannot be written: {error.strerror}") from None

    def finish(self, size: int) -> None:
        """Make it ``out``, of ``size`` bytes and safely on disk."""
        try:
            os.ftruncate(self._file, size)
            os.fsync(self._file)
            self._part.rename(self._out)
        except OSError as error:
            raise StoreError(f"{self._out} cannot be written: {error.strerror}") from None

    def remove(self) -> None:
        """Nothing of it is worth keeping."""
        self._part.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def _digest(self, record: PieceRecord) -> str:
        digest = hashlib.sha256()
        position, stop = record.offset, record.offset + record.size
        while position < stop:
            data = os.pread(self._file, min(_CHUNK, stop - position), position)
            if not data:
                break
            digest.update(data)
            position += len(data)
        return digest.hexdigest()
