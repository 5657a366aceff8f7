"""Adapter: turns a publisher's FLV tags into the frames of a live feed."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

import av

from xbyte_live.errors import MediaError
from xbyte_live.media.formats.flv import (
    AUDIO,
    VIDEO,
    Tag,
    TagFacts,
    describe,
    encode_tag,
    file_header,
)
from xbyte_live.media.formats.timeline import Stamp
from xbyte_live.media.formats.tracks import codec_name
from xbyte_live.media.live.packager import FeedPackager, Frame
from xbyte_live.media.live.runs import Unit
from xbyte_live.media.live.state import LiveState
from xbyte_live.media.live.tracks import AnyStream, refuse_codec
from xbyte_live.media.vod.probe import MAX_PIXELS

_NEEDS_CONFIG = frozenset({"h264", "hevc", "aac"})
_PATIENCE = 300
_TICKS = 90  # a millisecond
_CONTAINER_OPTIONS = {"format_whitelist": "flv", "protocol_whitelist": "none", "max_streams": "8"}


@dataclass(frozen=True, slots=True)
class _Config:
    """The codec of a track and its decoder configuration."""

    codec: str
    data: bytes


class FlvDemuxer:
    """Takes tags in order; raises ``MediaError``, a sentence for the streamer, if unsupported."""

    def __init__(self, state: LiveState) -> None:
        self._state = state
        self._feed = FeedPackager(state, self._open_tracks)
        self._configs: dict[int, _Config] = {}
        self._unconfigured = 0

    def take(self, tag: Tag) -> None:
        """Take the next tag; script tags and unknown ones are skipped."""
        facts = describe(tag)
        if facts.codec is None:
            return
        refuse_codec(facts.codec, video=tag.kind == VIDEO)
        if facts.is_config:
            self._configs[tag.kind] = _Config(facts.codec, tag.payload[facts.body :])
        elif facts.is_frame and len(tag.payload) > facts.body:
            self._take_frame(tag, facts, facts.codec)

    def finish(self) -> None:
        """Package what is left at the end of the feed."""
        self._feed.finish()

    def abandon(self) -> None:
        """Release the muxer after a failure."""
        self._feed.abandon()

    def _take_frame(self, tag: Tag, facts: TagFacts, codec: str) -> None:
        config = self._configs.get(tag.kind)
        if config is None or config.codec != codec:
            if codec in _NEEDS_CONFIG:
                self._miss(codec)
                return
            config = self._configs[tag.kind] = _Config(codec, b"")
        dts = tag.timestamp * _TICKS
        self._feed.take(
            Frame(
                Unit(tag.kind == VIDEO, tag.timestamp, facts.is_keyframe, config),
                tag.payload[facts.body :],
                Stamp(dts + facts.composition_ms * _TICKS, dts),
                self._state.now_us(),
            )
        )

    def _miss(self, codec: str) -> None:
        self._state.dropped += 1
        self._unconfigured += 1
        if self._unconfigured > _PATIENCE:
            raise MediaError(
                f"its {codec_name(codec)} comes without parameter sets: restart the encoder"
            )

    @contextmanager
    def _open_tracks(self, head: Sequence[Frame]) -> Iterator[Sequence[AnyStream]]:
        """Streams that FFmpeg reads from an FLV file with the first frame of each track."""
        firsts = [next((f for f in head if f.video is kind), None) for kind in (True, False)]
        found = [frame for frame in firsts if frame]
        file = BytesIO(_small_file(found))
        with av.open(
            file,
            "r",
            format="flv",
            options={"max_pixels": str(MAX_PIXELS), "threads": "1"},
            container_options=_CONTAINER_OPTIONS,
            metadata_errors="replace",
        ) as container:
            streams = (container.streams.video[:1], container.streams.audio[:1])
            tracks: list[AnyStream] = [stream for kind in streams for stream in kind]
            readable = all(t.type == "audio" or t.codec_context.pix_fmt for t in tracks)
            if len(tracks) != len(found) or not readable:
                raise av.InvalidDataError(errno.EINVAL, "a track cannot be decoded")
            yield tracks


def _small_file(frames: Sequence[Frame]) -> bytes:
    parts = [file_header(audio=True, video=True)]
    for frame in frames:
        config = frame.unit.config
        assert isinstance(config, _Config) and isinstance(frame.data, bytes)
        kind = VIDEO if frame.video else AUDIO
        if config.data:
            parts.append(encode_tag(Tag(kind, 0, _prefix(config.codec, True) + config.data)))
        parts.append(encode_tag(Tag(kind, 0, _prefix(config.codec, False) + frame.data)))
    return b"".join(parts)


def _prefix(codec: str, config: bool) -> bytes:
    """The FLV header bytes of a tag, in the enhanced form for codecs without a plain one."""
    return {
        "h264": b"\x17\0\0\0\0" if config else b"\x17\x01\0\0\0",
        "hevc": b"\x90hvc1" if config else b"\x93hvc1",
        "aac": b"\xaf\0" if config else b"\xaf\x01",
        "mp3": b"\x2f",
        "ac3": b"\x90ac-3" if config else b"\x91ac-3",
        "eac3": b"\x90ec-3" if config else b"\x91ec-3",
    }[codec]
