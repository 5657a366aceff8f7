"""Adapter: reads the head of a media file for the formats and start times of its streams."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from xbyte_live.errors import MediaError
from xbyte_live.media.formats.mpegts import CLOCK
from xbyte_live.media.formats.timeline import Stamp, Timeline
from xbyte_live.media.formats.tracks import AudioFacts, VideoFacts, usual_rate
from xbyte_live.media.vod.probe import MediaFile

_MAX_HEAD_PACKETS = 4000
_MAX_HEAD_BYTES = 48 << 20
_REORDERED = 32  # packets of a stream within which presentation order settles
_PREROLL = CLOCK // 10  # a decoder wants a frame of sound before the start, not a second of it
_SEALED_TAGS = frozenset({"encv", "enca", "drms", "drmi"})


@dataclass(slots=True)
class Head:
    """The first packets of a media file, and the first picture and sound decoded from them."""

    packets: "list[Packet[Any]]" = field(default_factory=list)
    picture: VideoFrame | None = None
    sound: AudioFrame | None = None


class TrackClock:
    """Reads the times of one stream's packets as 90 kHz ticks."""

    def __init__(self, stream: Stream) -> None:
        base = stream.time_base or Fraction(1, CLOCK)
        self._scale, self._half = 2 * CLOCK * base.numerator, base.denominator
        self._rate = stream.codec_context.sample_rate if isinstance(stream, AudioStream) else 0

    def stamp(self, packet: "Packet[Any]") -> Stamp:
        """The times of a packet."""
        # as ``ticks``, spelt out since this runs for every packet of a title
        scale, half, whole = self._scale, self._half, 2 * self._half
        pts, dts, duration = packet.pts, packet.dts, packet.duration
        return Stamp(
            None if pts is None else (pts * scale + half) // whole,
            None if dts is None else (dts * scale + half) // whole,
            (duration * scale + half) // whole if duration else 0,
        )

    def skipped(self, packet: "Packet[Any]") -> tuple[int, int]:
        """Ticks of sound a decoder drops at the start and at the end of a packet."""
        if not self._rate or not packet.has_sidedata("skip_samples"):
            return 0, 0
        data = bytes(packet.get_sidedata("skip_samples"))
        start, end = int.from_bytes(data[:4], "little"), int.from_bytes(data[4:8], "little")
        return start * CLOCK // self._rate, end * CLOCK // self._rate


@dataclass(frozen=True, slots=True)
class Layout:
    """The times of the streams of a media file.

    ``origin`` is the raw tick where the presentation starts, ``lead`` the ticks that decoding
    begins before it.
    """

    origin: int
    splices: bool
    first: dict[int, tuple[Stamp, ...]]
    steps: dict[int, int]
    lead: int = 0

    def timeline(self) -> Timeline:
        """A timeline for reading the source from its beginning."""
        timeline = Timeline(self.origin, splices=self.splices)
        for index, stamps in self.first.items():
            timeline.add_track(index, first=stamps, step=self.steps[index])
        return timeline


def is_surplus(packet: "Packet[Any]", pts: int) -> bool:
    """Whether a packet of sound, shown nowhere, is also too early to help a decoder start."""
    return pts < -_PREROLL and packet.is_discard and isinstance(packet.stream, AudioStream)


def read_head(source: MediaFile) -> Head:
    """Read on until a picture and some sound are decoded and the order of frames has settled.

    A stream that sends nothing in the first 48 MB is dropped from the source. Raises
    ``MediaError`` for encrypted media and for streams that cannot be decoded.
    """
    head, size, counts = Head(), 0, Counter[int]()
    undecoded: list[Stream] = list(source.chosen)
    for packet in source.packets():
        head.packets.append(packet)
        size += packet.size
        counts[packet.stream.index] += 1
        if _is_sealed(packet):
            raise MediaError("it is encrypted; only unprotected media can be packaged")
        if packet.stream in undecoded and _decode(packet.stream, packet, head):
            undecoded.remove(packet.stream)
        settled = source.video is None or counts[source.video.index] >= _REORDERED
        if settled and not undecoded:
            break
        if len(head.packets) >= _MAX_HEAD_PACKETS or size >= _MAX_HEAD_BYTES:
            break
    for stream in source.chosen:
        if not counts[stream.index]:
            source.drop(stream)
        elif stream in undecoded:
            raise MediaError(f"its {stream.type} cannot be decoded")
    if not source.chosen:
        raise MediaError("there is no video and no sound in it")
    return head


def layout_of(source: MediaFile, head: Head) -> Layout:
    """Find where the presentation starts and how far before it decoding begins."""
    first: dict[int, tuple[Stamp, ...]] = {}
    steps: dict[int, int] = {}
    starts: list[int] = []
    clocks = {stream.index: TrackClock(stream) for stream in source.chosen}
    for index, clock in clocks.items():
        packets = [p for p in head.packets if p.stream.index == index][:_REORDERED]
        first[index] = tuple(map(clock.stamp, packets))
        steps[index] = _step(packets[0].stream, first[index])
        starts += [
            stamp.pts + clock.skipped(packet)[0]
            for packet, stamp in zip(packets, first[index], strict=True)
            if stamp.pts is not None and not packet.is_discard
        ]
    layout = Layout(min(starts, default=0), source.splices, first, steps)
    timeline = layout.timeline()
    earliest = 0
    for packet in head.packets:
        index = packet.stream.index
        pts, dts = timeline.place(index, clocks[index].stamp(packet))
        if not is_surplus(packet, pts):
            earliest = min(earliest, dts)
    return replace(layout, lead=-earliest)


def video_facts(source: MediaFile, head: Head) -> VideoFacts | None:
    """Describe the video by its container and first picture, if there is one."""
    stream, picture = source.video, head.picture
    if stream is None or picture is None:
        return None
    packets = [packet for packet in head.packets if packet.stream is stream][:_REORDERED]
    context = stream.codec_context
    return VideoFacts(
        codec=context.codec.canonical_name,
        extradata=context.extradata or b"",
        width=picture.width,
        height=picture.height,
        rate=usual_rate(stream.average_rate) or usual_rate(stream.guessed_rate),
        pixel_format=picture.format.name,
        rotation=round(-picture.rotation / 90) * 90 % 360,
        aspect=context.sample_aspect_ratio or Fraction(1),
        colors=(picture.colorspace, picture.color_primaries, picture.color_trc),
        interlaced=picture.interlaced_frame,
        preroll=packets[0].is_discard,
        timed=not source.untimed and all(packet.pts is not None for packet in packets),
    )


def audio_facts(source: MediaFile, head: Head) -> AudioFacts | None:
    """Describe the audio by its container and first samples, if there is any."""
    stream = source.audio
    if stream is None or head.sound is None:
        return None
    context = stream.codec_context
    return AudioFacts(
        codec=context.codec.canonical_name,
        extradata=context.extradata or b"",
        profile=context.profile,
        sample_rate=head.sound.sample_rate,
        channels=len(head.sound.layout.channels),
    )


def _is_sealed(packet: "Packet[Any]") -> bool:
    stream = packet.stream
    return (
        stream.codec_context.codec_tag in _SEALED_TAGS
        or "enc_key_id" in stream.metadata
        or packet.has_sidedata("encryption_info")
        or packet.has_sidedata("encryption_init_info")
    )


def _decode(stream: Any, packet: "Packet[Any]", head: Head) -> bool:
    """Try to decode a first frame; a damaged packet is for the next to make good."""
    context = stream.codec_context
    try:
        if stream.type == "video":
            # alone and flushed, as a decoder would hold it back until it has seen others
            frames = context.decode(packet) + context.decode(None) if packet.is_keyframe else []
            context.flush_buffers()
        else:
            frames = context.decode(packet)
    except (av.FFmpegError, ValueError):
        return False
    for frame in frames[:1]:
        if isinstance(frame, VideoFrame):
            head.picture = frame
        else:
            head.sound = frame
    return bool(frames)


def _step(stream: Stream, stamps: Sequence[Stamp]) -> int:
    """The usual duration of a packet without one, in ticks."""
    for stamp in stamps:
        if stamp.duration > 0:
            return stamp.duration
    if isinstance(stream, VideoStream):
        rate = usual_rate(stream.average_rate) or usual_rate(stream.guessed_rate)
        if rate:
            return round(CLOCK / rate)
    known = sorted({stamp.pts for stamp in stamps if stamp.pts is not None})
    return (known[-1] - known[0]) // (len(known) - 1) if len(known) > 1 else 0
