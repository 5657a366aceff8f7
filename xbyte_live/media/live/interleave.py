"""Pure: merges the packets of several tracks in decoding order."""

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Generic, TypeVar

HOLD_S = 10.0  # of one track held back for another; MP4 fragments may be as long
_JUMP_S = 10.0
_MAX_BYTES = 64 << 20

T = TypeVar("T")


class Interleave(Generic[T]):
    """Takes packets of each track and returns them in the order of their times.

    Fragmented MP4 has seconds of video before their audio; a live packager needs them mixed.
    """

    def __init__(self, tracks: int) -> None:
        self._tracks = tracks
        self._heap: list[tuple[float, int, int, T]] = []
        self._last: dict[int, float] = {}
        self._count = self._bytes = 0

    def take(self, track: int, at: float, size: int, packet: T) -> Iterator[T]:
        """Take a packet of ``size`` bytes due at ``at`` seconds; yield the packets now in order."""
        last = self._last.get(track)
        if last is not None and abs(at - last) > _JUMP_S:
            yield from self.rest()  # another clock
        self._last[track] = at
        self._count += 1
        self._bytes += size
        heappush(self._heap, (at, self._count, size, packet))
        while self._heap and self._is_due():
            yield self._pop()

    def rest(self) -> Iterator[T]:
        """Yield every packet held back."""
        while self._heap:
            yield self._pop()
        self._last.clear()

    def _is_due(self) -> bool:
        first = self._heap[0][0]
        if len(self._last) == self._tracks and first <= min(self._last.values()):
            return True
        return max(self._last.values()) - first > HOLD_S or self._bytes > _MAX_BYTES

    def _pop(self) -> T:
        _, _, size, packet = heappop(self._heap)
        self._bytes -= size
        return packet
