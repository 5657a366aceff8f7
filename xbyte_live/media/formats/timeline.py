"""Pure: places the packets of all tracks on one timeline, in 90 kHz ticks.

Zero is where the presentation starts; a decoder's preroll may lie before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from xbyte_live.errors import MediaError
from xbyte_live.media.formats.mpegts import CLOCK

MAX_TICKS = 26 * 3600 * CLOCK  # the 33-bit timestamps of MPEG-TS turn over after 26.5 hours
_BACKWARD, _FORWARD = -CLOCK, 10 * CLOCK  # a jump beyond these is a splice, not a pause
_LONGEST_PAUSE = 3600 * CLOCK
_REORDERED, _FRAMES_REORDERED = 10 * CLOCK, 32
_SAME_SPLICE = CLOCK // 2


def ticks(value: int, time_base: Fraction) -> int:
    """A timestamp in ``time_base`` as the nearest 90 kHz tick."""
    scaled, whole = value * time_base.numerator * CLOCK, time_base.denominator
    return (2 * scaled + whole) // (2 * whole)


def from_ticks(value: int, time_base: Fraction) -> int:
    """90 kHz ticks as the nearest timestamp in ``time_base``."""
    scaled, whole = value * time_base.denominator, time_base.numerator * CLOCK
    return (2 * scaled + whole) // (2 * whole)


def micros(value: int) -> int:
    """90 kHz ticks as the nearest microsecond."""
    return (value * 100 + 4) // 9


class Stamp(NamedTuple):
    """The raw times of one packet in 90 kHz ticks, ``None`` where its container has none."""

    pts: int | None
    dts: int | None
    duration: int = 0


@dataclass(slots=True)
class _Track:
    step: int
    last: int | None
    offset: int
    end: int = 0


@dataclass(slots=True)
class Timeline:
    """Places packets, track by track and in decoding order.

    ``origin`` is the raw tick that becomes zero. With ``splices`` (broadcast streams), a clock
    that jumps goes on where it stood, and every track follows the same jump.
    """

    origin: int
    splices: bool = False
    _tracks: dict[int, _Track] = field(default_factory=dict)
    _offsets: list[int] = field(default_factory=list)

    def add_track(self, index: int, *, first: Sequence[Stamp], step: int) -> None:
        """Announce a track; ``first`` are its leading packets, ``step`` ticks a packet lasts.

        Containers without decoding times (Matroska) leave out the first few of a video with
        B-frames, as they lie before the first presentation; they are counted back from the
        first one known.
        """
        step, last = max(step, 1), None
        for unknown, stamp in enumerate(first):
            if stamp.dts is not None:
                if unknown:
                    last = stamp.dts - self.origin - (unknown + 1) * step
                break
        self._tracks[index] = _Track(step, last, offset=-self.origin)

    @property
    def end(self) -> int:
        """The tick where the last packet placed so far ends."""
        return max((track.end for track in self._tracks.values()), default=0)

    def trim(self, index: int, surplus: int) -> None:
        """Take back ``surplus`` ticks of the last packet of a track, which decoders drop."""
        self._tracks[index].end -= surplus

    def place(self, index: int, stamp: Stamp, *, shown: bool = True) -> tuple[int, int]:
        """(presentation, decoding) ticks of the next packet of a track.

        Decoding times strictly rise and never exceed presentation times. A packet that is not
        ``shown`` does not lengthen the presentation. Raises ``MediaError`` for a pause of more
        than an hour, and beyond 26 hours.
        """
        track = self._tracks[index]
        pts, dts, duration = stamp
        offset, last = track.offset, track.last
        if pts is not None and dts is not None and last is not None:
            # nearly every packet of every title comes this way
            pts, dts = pts + offset, dts + offset
            if 0 < dts - last < CLOCK and dts <= pts < dts + _REORDERED and pts < MAX_TICKS:
                track.step, track.last = dts - last, dts
                end = pts + (duration if 0 < duration < MAX_TICKS else track.step)
                if shown and end > track.end:
                    track.end = end
                return pts, dts
        return self._place_oddly(track, stamp, shown=shown)

    def _place_oddly(self, track: _Track, stamp: Stamp, *, shown: bool) -> tuple[int, int]:
        last = track.last
        dts = self._decoding_time(track, stamp)
        pts = dts if stamp.pts is None else stamp.pts + track.offset
        if last is not None and dts <= last:
            dts = last + 1
        if not 0 <= pts - dts < _REORDERED + _FRAMES_REORDERED * track.step:
            pts = dts
        if dts - (last or 0) > _LONGEST_PAUSE:
            raise MediaError("its timestamps jump by more than an hour")
        if not -MAX_TICKS < dts <= pts < MAX_TICKS:
            raise MediaError("its timestamps span more than 26 hours")
        track.last = dts
        end = pts + (stamp.duration if 0 < stamp.duration < MAX_TICKS else track.step)
        if shown and end > track.end:
            track.end = end
        return pts, dts

    def _decoding_time(self, track: _Track, stamp: Stamp) -> int:
        last = track.last
        if stamp.dts is None:
            shown_at = None if stamp.pts is None else stamp.pts + track.offset
            if last is None:
                return shown_at or 0
            return last + track.step if shown_at is None else min(last + track.step, shown_at)
        dts = stamp.dts + track.offset
        if last is None:
            if self.splices and not -_FORWARD < dts < _FORWARD:
                return dts + self._splice(track, -dts)
            return dts
        gap = dts - last
        if self.splices and not _BACKWARD < gap < _FORWARD:
            return dts + self._splice(track, track.step - gap)
        return dts

    def _splice(self, track: _Track, wanted: int) -> int:
        """Move a track's clock, by the jump another track has just made if that fits."""
        moved = next(
            (
                offset - track.offset
                for offset in self._offsets
                if abs(offset - track.offset - wanted) < _SAME_SPLICE
            ),
            wanted,
        )
        track.offset += moved
        self._offsets = [track.offset, *self._offsets[:3]]
        return moved
