"""Pure: playlists with prices in them, written and read (RFC 8216bis)."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import m3u8
from m3u8.model import M3U8, Segment, SessionData

from xbyte_live.errors import MediaError
from xbyte_live.models import Rendition

VERSION = 6
PRICING_DATA_ID = "live.xbyte.pricing"
SEGMENT_TAG = "#EXT-X-XBYTE-SEGMENT"
MAX_PLAYLIST = 8 * 2**20  # characters
MAX_SEGMENTS = 100_000

_PRICED = re.compile(r"BYTES=([0-9]{1,19}),AMOUNT=([0-9]{1,19})")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ListedSegment:
    """One segment as a playlist lists it; ``size`` and ``amount`` where our tag stands."""

    uri: str
    duration_us: int
    size: int | None
    amount: int | None


@dataclass(frozen=True, slots=True)
class MediaPlaylist:
    """What a media playlist says; ``ended`` when no more segments will come."""

    segments: tuple[ListedSegment, ...]
    target_duration_s: int
    media_sequence: int
    ended: bool


@dataclass(frozen=True, slots=True)
class Variant:
    """One entry of a multivariant playlist; bandwidths in bits/s."""

    uri: str
    bandwidth: int
    average_bandwidth: int | None
    codecs: str | None
    width: int | None
    height: int | None


class _PricedSegment(Segment):  # type: ignore[misc]
    """The library writes no tags of its users' own, so this one puts ours before the rest."""

    def __init__(self, tag: str, **fields: Any) -> None:
        super().__init__(**fields)
        self._tag = tag

    def dumps(self, *args: Any, **kwargs: Any) -> str:
        return f"{self._tag}\n{super().dumps(*args, **kwargs)}"


def media_playlist(rendition: Rendition, amounts: Sequence[int], *, ended: bool = True) -> str:
    """The media playlist of a rendition; ``amounts`` are atomic units, one for each segment.

    Each segment stands behind ``#EXT-X-XBYTE-SEGMENT:BYTES=…,AMOUNT=…``, 0 for a free one.
    """
    playlist = M3U8()
    playlist.version = VERSION
    playlist.target_duration = rendition.target_duration_s
    playlist.media_sequence = rendition.segments[0].msn if rendition.segments else 0
    playlist.playlist_type = "vod" if ended else None
    playlist.is_independent_segments = rendition.independent_segments
    playlist.is_endlist = ended
    for segment, amount in zip(rendition.segments, amounts, strict=True):
        playlist.segments.append(
            _PricedSegment(
                f"{SEGMENT_TAG}:BYTES={segment.size},AMOUNT={amount}",
                uri=f"{segment.msn}.ts",
                duration=segment.duration_us / 1_000_000,
                discontinuity=segment.discontinuity,
                program_date_time=_date(segment.program_date_time_us),
            )
        )
    return str(playlist.dumps(infspec="microseconds"))


def multivariant_playlist(
    renditions: Sequence[Rendition], *, pricing_uri: str = "pricing.json"
) -> str:
    """The multivariant playlist, the best rendition first, with where the prices are."""
    playlist = M3U8()
    playlist.version = VERSION
    playlist.is_variant = True
    playlist.is_independent_segments = all(r.independent_segments for r in renditions)
    playlist.session_data.append(SessionData(data_id=PRICING_DATA_ID, uri=pricing_uri))
    for rendition in sorted(renditions, key=lambda r: r.bandwidth, reverse=True):
        info: dict[str, Any] = {
            "bandwidth": rendition.bandwidth,
            "average_bandwidth": rendition.average_bandwidth,
            "codecs": rendition.codecs,
        }
        if rendition.has_video:
            info["resolution"] = f"{rendition.width}x{rendition.height}"
        if rendition.frame_rate is not None:
            info["frame_rate"] = float(rendition.frame_rate)
        playlist.add_playlist(
            m3u8.Playlist(f"{rendition.name}/index.m3u8", info, media=[], base_uri=None)
        )
    return str(playlist.dumps())


def is_multivariant(text: str) -> bool:
    """Whether a playlist lists variants rather than segments."""
    return "#EXT-X-STREAM-INF" in text


def read_media_playlist(text: str) -> MediaPlaylist:
    """Read a foreign media playlist; raises ``MediaError`` if it is none or out of bounds."""
    playlist = _load(text)
    if playlist.is_variant or playlist.target_duration is None:
        raise MediaError("this is no media playlist")
    if len(playlist.segments) > MAX_SEGMENTS:
        raise MediaError(f"this playlist lists more than {MAX_SEGMENTS} segments")
    return MediaPlaylist(
        segments=tuple(_listed(segment) for segment in playlist.segments),
        target_duration_s=math.ceil(_seconds(playlist.target_duration)),
        media_sequence=playlist.media_sequence or 0,
        ended=bool(playlist.is_endlist),
    )


def read_multivariant_playlist(text: str) -> tuple[Variant, ...]:
    """Read a foreign multivariant playlist; raises ``MediaError`` if it is none."""
    playlist = _load(text)
    if not playlist.is_variant:
        raise MediaError("this is no multivariant playlist")
    variants = []
    for entry in playlist.playlists:
        info = entry.stream_info
        width, height = info.resolution or (None, None)
        variants.append(
            Variant(
                uri=str(entry.uri),
                bandwidth=int(info.bandwidth or 0),
                average_bandwidth=info.average_bandwidth,
                codecs=info.codecs,
                width=width,
                height=height,
            )
        )
    return tuple(variants)


def _load(text: str) -> M3U8:
    if len(text) > MAX_PLAYLIST:
        raise MediaError("this playlist is too long")
    if not text.lstrip("\ufeff").startswith("#EXTM3U"):
        raise MediaError("this is no HLS playlist")
    try:
        return m3u8.loads(text, custom_tags_parser=_read_tag)
    except Exception:
        raise MediaError("this playlist cannot be read") from None


def _read_tag(line: str, _: int, __: Any, state: dict[str, Any]) -> bool:
    """Keep what our tag says for the segment that follows it."""
    if not line.startswith(SEGMENT_TAG + ":"):
        return False
    match = _PRICED.fullmatch(line.removeprefix(SEGMENT_TAG + ":").strip())
    if match is not None:
        sold = {"size": int(match[1]), "amount": int(match[2])}
        state.setdefault("segment", {}).setdefault("custom_parser_values", {}).update(sold)
    return True


def _listed(segment: Any) -> ListedSegment:
    sold = segment.custom_parser_values
    return ListedSegment(
        uri=str(segment.uri),
        duration_us=round(_seconds(segment.duration or 0) * 1_000_000),
        size=sold.get("size"),
        amount=sold.get("amount"),
    )


def _seconds(value: float) -> float:
    if not 0 <= value < 10**6:
        raise MediaError("this playlist has an impossible duration")
    return float(value)


def _date(unix_us: int | None) -> datetime | None:
    return None if unix_us is None else _EPOCH + timedelta(microseconds=unix_us)
