"""Pure: writes HLS playlists with prices in them, and reads untrusted ones (RFC 8216bis 4)."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import m3u8
from m3u8.model import ServerControl, SessionData
from m3u8.parser import save_segment_custom_value

from xbyte_live.errors import MediaError
from xbyte_live.models import Rendition, Segment
from xbyte_live.money import MAX_AMOUNT

PRICING_DATA_ID = "live.xbyte.pricing"
MAX_PLAYLIST_BYTES = 16 << 20
MAX_SEGMENTS = 50_000
MAX_VARIANTS = 200
MAX_LINE = 4096

_VERSION = 3  # the first with fractions of a second in EXTINF
_SEGMENT_TAG = "#EXT-X-XBYTE-SEGMENT"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_SECONDS = 86_400
_MAX_SIZE = 2**53

# only these lines of an untrusted playlist reach the parser
_MEDIA_TAGS = frozenset(
    {
        "#EXTM3U", "#EXTINF", "#EXT-X-VERSION", "#EXT-X-TARGETDURATION", "#EXT-X-MEDIA-SEQUENCE",
        "#EXT-X-PLAYLIST-TYPE", "#EXT-X-ENDLIST", "#EXT-X-DISCONTINUITY", "#EXT-X-GAP",
        _SEGMENT_TAG,
    }
)  # fmt: skip
_MULTIVARIANT_TAGS = frozenset({"#EXTM3U", "#EXT-X-VERSION", "#EXT-X-STREAM-INF"})
_UNREADABLE_TAGS = frozenset(
    {
        "#EXT-X-KEY", "#EXT-X-MAP", "#EXT-X-BYTERANGE", "#EXT-X-SKIP", "#EXT-X-DEFINE",
        "#EXT-X-I-FRAMES-ONLY",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ListedSegment:
    """A segment as a playlist lists it; ``amount`` is in atomic units, ``size`` in bytes.

    Both are ``None`` where the playlist names no price.
    """

    uri: str
    duration_us: int
    size: int | None
    amount: int | None


@dataclass(frozen=True, slots=True)
class MediaPlaylist:
    """A parsed media playlist; ``ended`` says that no segment will follow."""

    segments: tuple[ListedSegment, ...]
    target_duration_s: int
    media_sequence: int
    ended: bool


@dataclass(frozen=True, slots=True)
class Variant:
    """One rendition a multivariant playlist offers; bandwidths in bits a second."""

    uri: str
    bandwidth: int
    average_bandwidth: int | None
    codecs: str | None
    width: int | None
    height: int | None


class _PricedSegment(m3u8.Segment):  # type: ignore[misc]
    """A segment whose price stands before it.

    ``m3u8`` keeps custom tags it has read but writes none, so the tag is put in front here.
    """

    price_tag = ""

    def dumps(self, *args: Any, **kwargs: Any) -> str:
        return f"{self.price_tag}\n{super().dumps(*args, **kwargs)}"


def media_playlist(rendition: Rendition, amounts: Sequence[int], *, ended: bool = True) -> str:
    """The media playlist of a title's rendition (8216bis 4.4.3).

    ``amounts[i]`` is what ``rendition.segments[i]`` costs in atomic units, 0 for a free one.
    """
    playlist = _head(rendition)
    if ended:
        playlist.playlist_type = "VOD"
        playlist.is_endlist = True
    for segment, amount in zip(rendition.segments, amounts, strict=True):
        playlist.segments.append(_priced_segment(segment, amount))
    return str(playlist.dumps(infspec="microseconds"))


def live_playlist(rendition: Rendition, lines: Sequence[str], *, event: bool, ended: bool) -> str:
    """The media playlist of a stream's rendition as it is now (8216bis 4.4.3, 6.2.5.2).

    ``lines`` are the ``segment_lines`` of its segments, which never change once listed. An
    ``event`` keeps all of them, so that only its end is ever added to.
    """
    playlist = _head(rendition)
    playlist.discontinuity_sequence = rendition.discontinuity_sequence
    playlist.playlist_type = "EVENT" if event else None
    playlist.server_control = ServerControl(can_block_reload="YES")
    head = str(playlist.dumps())
    return "\n".join((head.rstrip("\n"), *lines, *(("#EXT-X-ENDLIST",) if ended else ()), ""))


def segment_lines(segment: Segment, amount: int) -> str:
    """The lines of one segment in a media playlist, its price first (8216bis 4.4.4)."""
    return _priced_segment(segment, amount).dumps(None, infspec="microseconds")


def _head(rendition: Rendition) -> m3u8.M3U8:
    playlist = m3u8.M3U8()
    playlist.version = _VERSION
    playlist.target_duration = rendition.target_duration_s
    # as text, since m3u8 leaves out a number that is zero
    playlist.media_sequence = str(rendition.segments[0].msn if rendition.segments else 0)
    playlist.is_independent_segments = rendition.independent_segments
    return playlist


def multivariant_playlist(
    renditions: Sequence[Rendition], *, pricing_uri: str = "pricing.json"
) -> str:
    """The multivariant playlist of an item, with the URI of its prices (8216bis 4.4.6)."""
    playlist = m3u8.M3U8()
    playlist.version = _VERSION
    playlist.is_independent_segments = bool(renditions) and all(
        rendition.independent_segments for rendition in renditions
    )
    playlist.session_data.append(SessionData(PRICING_DATA_ID, uri=pricing_uri))
    playlist.is_variant = True
    for rendition in renditions:
        playlist.add_playlist(_variant(rendition))
    return str(playlist.dumps())


def is_multivariant(text: str) -> bool:
    """Whether a playlist lists renditions rather than segments."""
    return re.search(r"^#EXT-X-STREAM-INF:", text, re.MULTILINE) is not None


def read_media_playlist(text: str) -> MediaPlaylist:
    """Read an untrusted media playlist.

    Raises ``MediaError`` for one that is invalid, too large, or needs more than whole plain
    MPEG-TS files (encryption, initialization sections, byte ranges, skipped updates).
    """
    parsed = _parse(_known_lines(text, _MEDIA_TAGS))
    listed = (segment for segment in parsed.segments if segment.uri and not segment.gap_tag)
    segments = tuple(_listed(segment) for segment in listed)
    target, sequence = parsed.target_duration, parsed.media_sequence or 0
    if target is None or not 0 < target <= _MAX_SECONDS or not 0 <= sequence < 2**63:
        raise MediaError("the playlist says no sensible target duration or sequence number")
    return MediaPlaylist(segments, target, sequence, bool(parsed.is_endlist))


def read_multivariant_playlist(text: str) -> tuple[Variant, ...]:
    """Read an untrusted multivariant playlist; raises ``MediaError`` if it is invalid."""
    parsed = _parse(_known_lines(text, _MULTIVARIANT_TAGS))
    variants = tuple(_offered(playlist) for playlist in parsed.playlists)
    if not variants or len(variants) > MAX_VARIANTS:
        raise MediaError(f"the playlist lists no renditions, or more than {MAX_VARIANTS}")
    return variants


def _priced_segment(segment: Segment, amount: int) -> _PricedSegment:
    listed = _PricedSegment(uri=f"{segment.msn}.ts", duration=segment.duration_us / 1_000_000)
    listed.price_tag = f"{_SEGMENT_TAG}:BYTES={segment.size},AMOUNT={amount}"
    listed.discontinuity = segment.discontinuity
    if segment.program_date_time_us is not None:
        listed.program_date_time = _EPOCH + timedelta(microseconds=segment.program_date_time_us)
    return listed


def _variant(rendition: Rendition) -> m3u8.Playlist:
    info: dict[str, object] = {
        "bandwidth": rendition.bandwidth,
        "average_bandwidth": rendition.average_bandwidth,
        "codecs": rendition.codecs,
    }
    if rendition.width and rendition.height:
        info["resolution"] = f"{rendition.width}x{rendition.height}"
    if rendition.frame_rate:
        info["frame_rate"] = float(rendition.frame_rate)
    return m3u8.Playlist(f"{rendition.name}/index.m3u8", info, None, None)


def _known_lines(text: str, tags: frozenset[str]) -> Iterator[str]:
    """The lines with known tags, each short and printable; ``MediaError`` for unsupported ones."""
    if len(text) > MAX_PLAYLIST_BYTES:
        raise MediaError(f"the playlist is larger than {MAX_PLAYLIST_BYTES >> 20} MB")
    if not text.removeprefix("\ufeff").startswith("#EXTM3U"):
        raise MediaError("this is no HLS playlist")
    resources = 0
    for line in map(str.strip, text.removeprefix("\ufeff").split("\n")):
        if line.startswith("#"):
            tag = line.partition(":")[0]
            if tag in _UNREADABLE_TAGS and line != "#EXT-X-KEY:METHOD=NONE":
                raise MediaError(f"the playlist uses {tag[1:]}, which is not supported")
            if tag not in tags:
                continue
        elif line:
            resources += 1
        if len(line) > MAX_LINE or not line.isprintable():
            raise MediaError("the playlist has a line that is too long or not text")
        if resources > MAX_SEGMENTS:
            raise MediaError(f"the playlist lists more than {MAX_SEGMENTS} segments")
        yield line


def _parse(lines: Iterator[str]) -> m3u8.M3U8:
    text = "\n".join(lines)
    try:
        return m3u8.loads(text, custom_tags_parser=_read_price)
    except MediaError:
        raise
    except Exception:  # m3u8 lets escape whatever a malformed value happens to raise
        raise MediaError("the playlist is malformed") from None


def _read_price(line: str, lineno: int, data: object, state: dict[str, Any]) -> bool:
    """Keep the price of the next segment; true for the tag that has it (see ``m3u8``)."""
    tag, _, attributes = line.partition(":")
    if tag != _SEGMENT_TAG:
        return False
    values = dict(attribute.partition("=")[::2] for attribute in attributes.split(","))
    save_segment_custom_value(state, "size", _whole(values.get("BYTES", ""), _MAX_SIZE))
    save_segment_custom_value(state, "amount", _whole(values.get("AMOUNT", ""), MAX_AMOUNT))
    return True


def _whole(digits: str, most: int) -> int:
    if re.fullmatch(r"[0-9]{1,19}", digits) is None or int(digits) > most:
        raise MediaError(f"the playlist has a {_SEGMENT_TAG[1:]} that cannot be read")
    return int(digits)


def _listed(segment: m3u8.Segment) -> ListedSegment:
    duration = segment.duration
    if duration is None or not math.isfinite(duration) or not 0 <= duration <= _MAX_SECONDS:
        raise MediaError("the playlist has a segment without a sensible duration")
    price = segment.custom_parser_values
    micros = round(duration * 1_000_000)
    return ListedSegment(segment.uri, micros, price.get("size"), price.get("amount"))


def _offered(playlist: m3u8.Playlist) -> Variant:
    info = playlist.stream_info
    width, height = info.resolution or (None, None)
    for value in (info.bandwidth, info.average_bandwidth, width, height):
        if value is not None and not 0 < value <= _MAX_SIZE:
            raise MediaError("the playlist has a rendition without sensible figures")
    average, codecs = info.average_bandwidth, info.codecs
    return Variant(playlist.uri, info.bandwidth, average, codecs, width, height)
