"""Pure: the state of a live feed across its runs: clock, target duration, counts, warnings."""

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol

from xbyte_live.errors import MediaError
from xbyte_live.media.formats.mpegts import CLOCK
from xbyte_live.media.formats.timeline import ticks
from xbyte_live.media.live.cuts import ProgramClock, TargetDuration
from xbyte_live.media.live.messages import FeedEvent, FeedOptions, FeedWarning

_MICROSECOND = Fraction(1, 1_000_000)
_SHORT_RUN = CLOCK
_PENALTY = 10 * CLOCK  # ticks of good media that make up for a run too short to watch
_MAX_PENALTY = 10 * _PENALTY


class FeedOutput(Protocol):
    """The receiver of a feed's events."""

    def put(self, event: FeedEvent) -> None:
        """Send an event, waiting while the reader is slow."""

    def wanted(self) -> bool:
        """Whether more media is wanted; cheap enough to ask for every packet."""


@dataclass(slots=True)
class LiveState:
    """The state of one feed; ``now_us`` is Unix time that never jumps, counts are of packets."""

    options: FeedOptions
    out: FeedOutput
    now_us: Callable[[], int]
    target: TargetDuration = field(init=False)
    clock: ProgramClock = field(init=False)
    segments: int = 0
    late: int = 0
    dropped: int = 0
    _penalty: int = 0
    _keyframe_s: int = 0
    _warned: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        options = self.options
        self.target = TargetDuration(
            ticks(options.segment_target_us, _MICROSECOND),
            ticks(options.longest_segment_us, _MICROSECOND),
            options.target_duration_s,
        )
        self.clock = ProgramClock(options.not_before_us)

    def warn(self, code: str, text: str) -> None:
        """Send a warning to the streamer, once a feed for each code."""
        if code not in self._warned:
            self._warned.add(code)
            self.out.put(FeedWarning(code=code, text=text))

    def keyframe_after(self, interval: int, *, missing: bool = False) -> None:
        """Note the ticks between keyframes, or since the last, and warn if they are too many."""
        seconds = (interval + CLOCK // 2) // CLOCK
        if interval * 2 <= self.target.target * 3 and not missing:
            return
        if seconds <= self._keyframe_s:
            return  # a longer interval was warned of already
        self._keyframe_s = 1 << 30 if missing else seconds
        wanted = f"{self.target.target / CLOCK:g} s"
        seen = f"no keyframe for {seconds} s" if missing else f"keyframe every {seconds} s"
        text = f"{seen}: set the keyframe interval to {wanted} in OBS"
        self.out.put(FeedWarning(code="keyframes", text=text))

    def run_ended(self, lasted: int) -> None:
        """Count runs too short to watch; raises ``MediaError`` when most are."""
        self._penalty = max(0, self._penalty - lasted)
        if lasted < _SHORT_RUN:
            self._penalty += _PENALTY
        if self._penalty > _MAX_PENALTY:
            raise MediaError("its timestamps or its media are damaged: restart the encoder")
