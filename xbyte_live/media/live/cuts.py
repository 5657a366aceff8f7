"""Pure: decides where a live feed is cut into segments, and dates each segment."""

from dataclasses import dataclass
from enum import Enum

from xbyte_live.media.formats.mpegts import CLOCK
from xbyte_live.media.formats.timeline import micros

MAX_SEGMENT_BYTES = 48 << 20

_SLACK = CLOCK // 10  # a keyframe this much before the target is good enough
_ROUNDING = CLOCK * 45 // 100  # EXTINF is rounded before it is compared (RFC 8216bis 4.4.3.1)
_FRAME = CLOCK // 5


class Cut(Enum):
    """Whether a segment ends before a packet."""

    NONE = "none"
    KEYFRAME = "keyframe"
    POLICY = "policy"  # no keyframe, but the segment may not grow further
    OVER = "over"  # even a cut here makes the segment too long: the run has a hole


def whole_seconds(ticks: int) -> int:
    """A duration in 90 kHz ticks, rounded as for the target duration."""
    return (ticks + CLOCK // 2) // CLOCK


@dataclass(slots=True)
class TargetDuration:
    """The target duration of a broadcast, which never changes once declared."""

    target: int
    longest: int
    declared_s: int = 0

    @property
    def limit(self) -> int:
        """The most ticks a segment may last."""
        if self.declared_s:
            return self.declared_s * CLOCK + _ROUNDING
        return max(self.target, self.longest) + _ROUNDING

    @property
    def wanted(self) -> int:
        """The ticks a segment should last."""
        return min(self.target, (self.declared_s or whole_seconds(self.target) or 1) * CLOCK)

    def declare(self, first: int) -> int:
        """Declare it by the ticks of the first segment, unless declared; return whole seconds."""
        if not self.declared_s:
            self.declared_s = max(whole_seconds(self.target), whole_seconds(first), 1)
        return self.declared_s


class SegmentCutter:
    """Decides the cuts of one run from each of its frames, in decoding order.

    Times are 90 kHz ticks. Cuts lie at frames of the leading track: video, else sound. Sound
    alone is cut at the first frame at or after each multiple of ``every_us``, as the muxer does
    by itself, since to FFmpeg every frame of most sound is a keyframe.
    """

    def __init__(self, target: TargetDuration, *, video: bool) -> None:
        self._target, self._video = target, video
        self._delay = self._size = self._first = self._cuts = 0
        self.start: int | None = None
        self.every_us = micros(target.wanted)

    def leading(self, pts: int, dts: int, step: int, size: int, *, key: bool) -> Cut:
        """Judge a frame of the leading track, ``size`` bytes long, ``step`` after the last."""
        if self.start is None:
            self._delay = min(pts - dts, CLOCK)
            self.start, self._first, self._size = pts, pts, size
            return Cut.NONE
        # a frame that is no keyframe may be shown after some that are decoded later
        begins = pts if key or not self._video else dts + self._delay
        if self._video:
            cut = self._judge(begins - self.start, step, size, key=key)
        else:
            cut = self._judge_sound(pts)
        if cut in (Cut.KEYFRAME, Cut.POLICY):
            self.start, self._size = begins, 0
        self._size += size
        return cut

    def other(self, pts: int, step: int, size: int) -> Cut:
        """Judge a frame of sound beside video: ``NONE`` or ``OVER``."""
        self._size += size
        if self.start is None or pts + step - self.start <= self._target.limit:
            return Cut.NONE if self._size <= 2 * MAX_SEGMENT_BYTES else Cut.OVER
        return Cut.OVER

    def last(self, end: int) -> int:
        """The ticks the last segment lasts in a run that ends at ``end``."""
        return max(1, min(end - (self.start or 0), self._target.limit))

    def _judge(self, elapsed: int, step: int, size: int, *, key: bool) -> Cut:
        if elapsed > self._target.limit:
            return Cut.OVER
        if elapsed <= 0:
            return Cut.NONE
        if key and elapsed >= self._target.wanted - _SLACK:
            return Cut.KEYFRAME
        full = self._size + size > MAX_SEGMENT_BYTES
        if full or elapsed + max(step, _FRAME) > self._target.limit:
            return Cut.KEYFRAME if key else Cut.POLICY
        return Cut.NONE

    def _judge_sound(self, pts: int) -> Cut:
        assert self.start is not None
        if pts - self.start > self._target.limit or self._size > MAX_SEGMENT_BYTES:
            return Cut.OVER
        if (pts - self._first) * 100 < self.every_us * (self._cuts + 1) * 9:
            return Cut.NONE
        self._cuts += 1
        return Cut.KEYFRAME


class ProgramClock:
    """The PROGRAM-DATE-TIME of segments, in Unix microseconds; it never goes back."""

    def __init__(self, not_before_us: int) -> None:
        self._floor = not_before_us
        self._anchor = 0

    def begin(self, now_us: int) -> None:
        """Begin a run whose first frame arrived now."""
        self._anchor = max(now_us, self._floor)

    def stamp(self, offset_us: int, duration_us: int) -> int:
        """The time of a segment ``offset_us`` into the run."""
        at = max(self._anchor + offset_us, self._floor)
        self._floor = at + duration_us
        return at
