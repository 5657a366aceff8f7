"""Pure: builds a rendition from its finished segments."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from xbyte_live.errors import MediaError
from xbyte_live.media.formats.timeline import micros
from xbyte_live.media.vod.cuts import average_bit_rate, peak_bit_rate, target_duration
from xbyte_live.models import Rendition, Segment

_WRAP = 1 << 33  # timestamps of MPEG-TS have 33 bits


@dataclass(frozen=True, slots=True)
class WrittenSegment:
    """The size and SHA-256 of one finished segment, and how it begins.

    ``pts`` is the 90 kHz timestamp of the first frame of the leading track (video, else audio);
    ``clean`` says whether decoding can begin there.
    """

    size: int
    sha256: str
    pts: int | None
    clean: bool


@dataclass(frozen=True, slots=True)
class Track:
    """The tracks of a rendition as a multivariant playlist describes them."""

    name: str
    codecs: str
    width: int | None = None
    height: int | None = None
    frame_rate: Fraction | None = None


def segments_of(written: Sequence[WrittenSegment], *, start: int, end: int) -> tuple[Segment, ...]:
    """The segments of a title, ``msn`` from 0.

    ``start`` is where on the timeline (90 kHz, zero at the start of the presentation) the
    leading track begins, ``end`` where the presentation does. Raises ``MediaError`` when it
    has no length or its segments are not in order.
    """
    base = next((segment.pts for segment in written if segment.pts is not None), None)
    if base is None or end <= 0:
        raise MediaError("it lasts no time at all")
    begins = [0]
    for segment in written[1:]:
        if segment.pts is None:
            raise MediaError("its timestamps are damaged")
        begins.append(start + (segment.pts - base) % _WRAP)
    if any(after <= before for before, after in pairwise((*begins, end))):
        raise MediaError("its timestamps are damaged")
    times = [micros(at) for at in (*begins, end)]
    return tuple(
        Segment(
            msn=msn,
            size=segment.size,
            start_us=times[msn],
            duration_us=times[msn + 1] - times[msn],
            sha256=segment.sha256,
        )
        for msn, segment in enumerate(written)
    )


def rendition_of(track: Track, segments: tuple[Segment, ...], *, independent: bool) -> Rendition:
    """Build a rendition with the bandwidths and target duration of its segments."""
    target_s = target_duration(segments)
    return Rendition(
        name=track.name,
        codecs=track.codecs,
        bandwidth=peak_bit_rate(segments, target_s),
        average_bandwidth=average_bit_rate(segments),
        target_duration_s=target_s,
        independent_segments=independent,
        segments=segments,
        width=track.width,
        height=track.height,
        frame_rate=track.frame_rate,
    )
