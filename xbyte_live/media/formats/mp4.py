"""Pure: refuses an MP4 that claims too many samples (ISO/IEC 14496-12), before FFmpeg opens it.

FFmpeg allocates memory for every sample a file claims, and a claim takes four bytes, so a small
file can exhaust the memory.
"""

from collections.abc import Iterator
from typing import BinaryIO

from xbyte_live.errors import MediaError

MAX_SAMPLES = 12_000_000  # 26 hours of 60 frames a second and its sound

_MAX_BOXES = 400_000
_MAX_DEPTH = 8
_CONTAINERS = frozenset(
    {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"mvex", b"edts", b"udta"}
)


def check_sample_count(file: BinaryIO, size: int) -> None:
    """Raise ``MediaError`` if ``file``, an MP4 of ``size`` bytes, claims too many samples.

    Any other file passes. The position in ``file`` is at its start afterwards.
    """
    _Walk(file).check(0, size, depth=0)
    file.seek(0)


class _Walk:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._boxes = 0
        self._samples = 0
        self._handler = b""

    def check(self, start: int, end: int, *, depth: int) -> None:
        """Check the boxes from ``start`` to ``end``."""
        table, one_tick_each = 0, False
        for kind, body, stop in self._boxes_in(start, end):
            if kind == b"cmov":
                raise MediaError("its index is compressed in a way long out of use")
            if kind == b"hdlr":
                self._handler = self._read(body + 8, 4)
            elif kind in (b"stsz", b"stz2"):
                table = max(table, self._number(body + 8))
            elif kind == b"stts":
                one_tick_each = self._number(body + 4) == 1 == self._number(body + 12)
            elif kind == b"trun":
                self._count(self._number(body + 4))
            elif kind in _CONTAINERS and depth < _MAX_DEPTH:
                self.check(body, stop, depth=depth + 1)
        if not (one_tick_each and self._handler == b"soun"):  # plain PCM has no entry a sample
            self._count(table)

    def _count(self, samples: int) -> None:
        self._samples += samples
        if self._samples > MAX_SAMPLES:
            raise MediaError("it claims more frames than 26 hours could have")

    def _boxes_in(self, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
        """(type, where its body starts, where it stops) of each box."""
        while start + 8 <= end:
            self._boxes += 1
            if self._boxes > _MAX_BOXES:
                raise MediaError("it is cut into more pieces than any player could read")
            header = self._read(start, 16)
            length, body = int.from_bytes(header[:4], "big"), start + 8
            if length == 1:
                length, body = int.from_bytes(header[8:16], "big"), start + 16
            elif length == 0:
                length = end - start
            if start + length < body:
                return
            stop = min(start + length, end)
            yield header[4:8], body, stop
            start = stop

    def _read(self, at: int, count: int) -> bytes:
        self._file.seek(at)
        return self._file.read(count)

    def _number(self, at: int) -> int:
        return int.from_bytes(self._read(at, 4), "big")
