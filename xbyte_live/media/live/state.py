"""Pure: what of a live feed outlives its runs: its clock, its target duration, its counts."""

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
_SHORT = CLOCK
_MAKES_GOOD = 10 * CLOCK  # of media without a fault, for one run too short to watch
_MOST_TROUBLE = 10 * _MAKES_GOOD


class Out(Protocol):
    """Where the events of a feed go."""

    def put(self, event: FeedEvent) -> None:
        """Take an event; waits while the reader is slow."""

    def wanted(self) -> bool:
        """Whether there may be more; also says that work is being done. Cheap, for each packet."""


@dataclass(slots=True)
class LiveState:
    """``now_us`` is Unix time that never jumps; ``late`` and ``dropped`` count packets."""

    options: FeedOptions
    out: Out
    now_us: Callable[[], int]
    target: TargetDuration = field(init=False)
    clock: ProgramClock = field(init=False)
    segments: int = 0
    late: int = 0
    dropped: int = 0
    _trouble: int = 0
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
        """Tell the streamer, once for each code."""
        if code not in self._warned:
            self._warned.add(code)
            self.out.put(FeedWarning(code=code, text=text))

    def keyframe_after(self, interval: int, *, missing: bool = False) -> None:
        """Note the ticks from keyframe to keyframe, or how long there has been none."""
        seconds = (interval + CLOCK // 2) // CLOCK
        if interval * 2 <= self.target.target * 3 and not missing:
            return
        if seconds <= self._keyframe_s:
            return  # it was said, and worse
        self._keyframe_s = 1 << 30 if missing else seconds
        wanted = f"{self.target.target / CLOCK:g} s"
        seen = f"no keyframe for {seconds} s" if missing else f"keyframe every {seconds} s"
        text = f"{seen}: set the keyframe interval to {wanted} in OBS"
        self.out.put(FeedWarning(code="keyframes", text=text))

    def run_ended(self, lasted: int) -> None:
        """Count runs too short to watch; ``MediaError`` when there is hardly anything else."""
        self._trouble = max(0, self._trouble - lasted)
        if lasted < _SHORT:
            self._trouble += _MAKES_GOOD
        if self._trouble > _MOST_TROUBLE:
            raise MediaError("its timestamps or its media are damaged: restart the encoder")
