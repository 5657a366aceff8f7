"""Pure: predicts a feed's next keyframe, and how long its tags may be gathered until then.

A segment ends with the arrival of the next keyframe and of the sound before it. Tags that arrive
earlier are not urgent, and waking for each of them is most of what a feed costs.
"""

LONG, SHORT = 0.15, 0.02  # seconds
_EARLY = 0.06  # seconds a keyframe may come before it is due
_SOUND = 0.06  # seconds the sound before a keyframe may come after it
_OVERDUE = 0.5


class KeyframeTimer:
    """The arrival times of a feed's keyframes, in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._interval: float | None = None

    @property
    def last(self) -> float | None:
        """When the last keyframe arrived, ``None`` before the first."""
        return self._last

    def keyframe(self, now: float) -> None:
        """Note a keyframe that arrives now."""
        if self._last is not None:
            self._interval = now - self._last
        self._last = now

    def gather_seconds(self, now: float) -> float:
        """How many seconds from now no tag is urgent."""
        if self._last is None:
            return LONG  # sound alone is cut by its timestamps
        if self._interval is None:
            return SHORT
        if now - self._last < _SOUND:
            return SHORT
        due = self._last + self._interval - now
        if due > _EARLY + SHORT:
            return min(LONG, due - _EARLY)
        return SHORT if due > -_OVERDUE else LONG / 3
