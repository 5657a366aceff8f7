"""Pure: chooses where a title is cut into segments, and computes its playlist's figures."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from xbyte_live.models import Segment


def plan_cuts(keyframes_us: Sequence[int], end_us: int, target_us: int) -> tuple[int, ...]:
    """The keyframes to cut at, each the nearest to ``target_us`` after the cut before.

    ``keyframes_us`` rise. As long as no two neighbours (start and end included) are more than
    twice the target apart, no segment lasts longer than that. A first keyframe soon after the
    start, behind the first sound, opens no segment of its own.
    """
    late = bool(keyframes_us) and keyframes_us[0] * 2 >= target_us
    cuts: list[int] = []
    start, best = 0, None
    for keyframe in (*keyframes_us[0 if late else 1 :], end_us):
        if keyframe <= start:
            continue
        if best is not None and abs(keyframe - start - target_us) >= abs(best - start - target_us):
            cuts.append(best)
            start = best
        best = keyframe
    return tuple(cuts)


def thinned(times_us: Iterable[int], spacing_us: int) -> Iterator[int]:
    """Those of ``times_us`` that come at least ``spacing_us`` after the one kept before."""
    last: int | None = None
    for time in times_us:
        if last is None or time >= last + spacing_us:
            last = time
            yield time


def widest_gap(times_us: Sequence[int], end_us: int) -> int:
    """The longest stretch between neighbours, the start (0) and the end included."""
    return max((b - a for a, b in pairwise((0, *times_us, end_us))), default=0)


def even_length(total_us: int, target_us: int) -> int:
    """The length that divides ``total_us`` evenly with no segment noticeably over the target.

    Keeps a few stray samples at the end from becoming a segment of their own.
    """
    count = max(1, -(-(total_us * 20 - target_us) // (target_us * 20)))
    return -(-total_us // count)


def target_duration(segments: Sequence[Segment]) -> int:
    """Whole seconds no rounded segment duration exceeds (RFC 8216bis 4.4.3.1)."""
    longest = max((segment.duration_us for segment in segments), default=0)
    return max(1, (longest + 500_000) // 1_000_000)


def average_bit_rate(segments: Sequence[Segment]) -> int:
    """Bits a second over all segments, rounded up (RFC 8216bis 4.1)."""
    total = sum(segment.duration_us for segment in segments)
    return -(-sum(segment.size for segment in segments) * 8_000_000 // max(total, 1))


def peak_bit_rate(segments: Sequence[Segment], target_s: int) -> int:
    """The largest bit rate of any run of segments that lasts 0.5 to 1.5 targets (8216bis 4.1).

    The average, where no run is that long.
    """
    least, most = target_s * 500_000, target_s * 1_500_000
    peak = 0
    for first in range(len(segments)):
        size = lasts = 0
        for segment in segments[first:]:
            size += segment.size
            lasts += segment.duration_us
            if lasts > most:
                break
            if lasts >= least:
                peak = max(peak, -(-size * 8_000_000 // lasts))
    return peak or average_bit_rate(segments)
