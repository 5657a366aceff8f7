"""Adapter: finds the keyframes of a media file, from its index or else by reading it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from xbyte_live.errors import MediaError
from xbyte_live.media.formats.timeline import micros, ticks
from xbyte_live.media.vod.cuts import thinned, widest_gap
from xbyte_live.media.vod.probe import MediaFile
from xbyte_live.media.vod.stream_info import Layout, TrackClock, layout_of, read_head

_WITHOUT_GAPS = frozenset({"mp3", "ac3", "eac3", "flac", "wav", "aiff"})
_STATE_LENGTH = ("mp4", "matroska", "flv", "flac", "wav", "aiff")
_MISSING_US = 1_000_000
_SPACING = 12  # keyframes nearer than a twelfth of the target count as one


@dataclass(frozen=True, slots=True)
class CutPoints:
    """Keyframe times and the end of a media file, in microseconds from its start.

    ``gap_us`` is the longest time without a keyframe. Sound can be cut anywhere, so its
    ``keyframes_us`` are empty.
    """

    keyframes_us: tuple[int, ...]
    end_us: int
    gap_us: int


def find_cut_points(path: Path, source: MediaFile, layout: Layout, target_us: int) -> CutPoints:
    """Find where ``source``, the open file at ``path``, can be cut; its position stays.

    Raises ``MediaError`` for a file whose index points behind its end.
    """
    if source.format in _WITHOUT_GAPS and source.duration_us:
        return CutPoints((), source.duration_us, 0)
    indexed = None
    if "mp4" in source.format:
        _refuse_index_beyond_end(source)
        indexed = _from_index(source, layout, target_us)
    elif "matroska" in source.format and source.video:
        with MediaFile(path) as aside:  # since loading the index moves its position
            aside.load_index()
            indexed = _from_index(aside, layout, target_us)
    if indexed and indexed.gap_us <= 2 * target_us:
        return indexed
    with MediaFile(path) as again:
        return _by_reading(again, target_us)


def _from_index(source: MediaFile, layout: Layout, target_us: int) -> CutPoints | None:
    stream, stated = source.chosen[0], source.duration_us
    if stream.time_base is None or stated is None:
        return None
    end_us = max(stated - micros(layout.origin), 1)
    base, entries = stream.time_base, stream.index_entries
    first = layout.first[stream.index][0]
    # an MP4's index says when to decode a keyframe, Matroska's when to show it
    lag = (first.pts or 0) - (first.dts or 0) if "mp4" in source.format else 0
    # of sound only the gaps matter, so a few entries for each segment are enough
    stride = 1 if source.video else max(1, len(entries) * target_us // (8 * end_us))
    keyframes = (
        micros(ticks(entry.timestamp, base) + lag - layout.origin)
        for entry in map(entries.__getitem__, range(0, len(entries), stride))
        if entry.is_keyframe and not entry.is_discard
    )
    return _cut_points(source, keyframes, target_us, end_us)


def _by_reading(source: MediaFile, target_us: int) -> CutPoints:
    head = read_head(source)
    timeline = layout_of(source, head).timeline()
    clocks = {stream.index: TrackClock(stream) for stream in source.chosen}
    leading = source.chosen[0].index

    def keyframes() -> Iterator[int]:
        for packet in chain(head.packets, source.packets()):
            index = packet.stream.index
            stamp = clocks[index].stamp(packet)
            pts, _ = timeline.place(index, stamp, shown=not packet.is_discard)
            if index == leading and packet.is_keyframe:
                yield micros(pts)

    times = tuple(thinned(keyframes(), target_us // _SPACING))
    refuse_truncated(source, micros(timeline.origin + timeline.end))
    return _cut_points(source, times, target_us, micros(timeline.end))


def _cut_points(
    source: MediaFile, keyframes: Iterable[int], target_us: int, end_us: int
) -> CutPoints:
    times = tuple(thinned(keyframes, target_us // _SPACING))
    gap_us = widest_gap(times, end_us)
    return CutPoints(times if source.video else (), end_us, gap_us)


def refuse_truncated(source: MediaFile, end_us: int) -> None:
    """Raise ``MediaError`` if a file read to its end is much shorter than it states.

    Only containers that state a duration are checked, and only without other streams it could
    be the duration of. ``end_us`` is on the container's clock.
    """
    stated = source.duration_us or 0
    if source.has_others or not any(form in source.format for form in _STATE_LENGTH):
        return
    missing = stated - end_us
    if missing > _MISSING_US and missing * 20 > stated:
        raise MediaError(
            f"it is cut off: it says it lasts {stated / 1_000_000:.0f} s, "
            f"but ends after {end_us / 1_000_000:.0f} s"
        )


def _refuse_index_beyond_end(source: MediaFile) -> None:
    for stream in source.chosen:
        entries = stream.index_entries
        if len(entries) and entries[-1].pos + entries[-1].size > source.size:
            raise MediaError("it is cut off: its index points behind its end")
