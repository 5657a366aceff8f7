"""Pure: when a feed's next keyframe is due, and how long its tags may be gathered until then.

A segment ends when the keyframe after it is there, and the sound that is due before it. Until
then nobody waits for tags, and being woken for each one is most of what a feed costs.
"""

LONG, SHORT = 0.15, 0.02  # seconds
_EARLY = 0.06  # how much before its time a keyframe may come
_SOUND = 0.06  # how much behind a keyframe the sound may come that belongs before it
_OVERDUE = 0.5


class KeyframeTimer:
    """The keyframes of a feed, by the seconds of a steady clock at which they came."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._interval: float | None = None

    @property
    def last(self) -> float | None:
        """When the last keyframe came."""
        return self._last

    def keyframe(self, now: float) -> None:
        """One came."""
        if self._last is not None:
            self._interval = now - self._last
        self._last = now

    def patience(self, now: float) -> float:
        """Seconds for which nothing that comes is urgent."""
        if self._last is None:
            return LONG  # sound alone is cut by its clock
        if self._interval is None:
            return SHORT
        if now - self._last < _SOUND:
            return SHORT
        due = self._last + self._interval - now
        if due > _EARLY + SHORT:
            return min(LONG, due - _EARLY)
        return SHORT if due > -_OVERDUE else LONG / 3
