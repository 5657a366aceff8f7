"""Pure: counts what playback has cost so far."""

from collections import deque
from dataclasses import dataclass

MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class Spent:
    """What was paid, in atomic units: in all, and in the last ``minute``; ``cap`` is the limit."""

    paid: int
    minute: int
    cap: int
    bytes: int
    segments: int
    ahead: int = 0


class Meter:
    """Counts what was paid and what came of it; ``now`` is in seconds."""

    def __init__(self, cap: int) -> None:
        self.paid = 0
        self.bytes = 0
        self.segments = 0
        self._cap = cap
        self._latest: deque[tuple[float, int]] = deque()

    def bought(self, amount: int, now: float) -> None:
        """A segment was handed over for ``amount``."""
        self.segments += 1
        self.paid += amount
        if amount:
            self._latest.append((now, amount))

    def received(self, size: int) -> None:
        """So many more bytes are here."""
        self.bytes += size

    def read(self, now: float, ahead: int = 0) -> Spent:
        """How it stands."""
        while self._latest and self._latest[0][0] <= now - MINUTE:
            self._latest.popleft()
        minute = sum(amount for _, amount in self._latest)
        return Spent(self.paid, minute, self._cap, self.bytes, self.segments, ahead)
