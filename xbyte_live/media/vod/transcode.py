"""Adapter: re-encodes tracks that MPEG-TS players cannot play as H.264 or AAC.

Packets go in with times that count from the start of the presentation in the time base of
their source, and come out in 90 kHz ticks, ``lead`` later.
"""

from contextlib import suppress
from fractions import Fraction
from typing import Any

import av
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.filter import Graph
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from xbyte_live.errors import MediaError
from xbyte_live.media.formats.mpegts import CLOCK
from xbyte_live.media.formats.segment_muxer import TIME_BASE, SegmentMuxer
from xbyte_live.media.formats.timeline import ticks
from xbyte_live.media.formats.tracks import AudioFacts, VideoFacts, encoded_rate, encoded_size

_X264 = {"preset": "veryfast", "crf": "21", "sc_threshold": "0"}
_RGB = 0  # the matrix of H.273 that means "not YCbCr at all"
_BT709 = 1
_SOUND_RATES = (44100, 48000)
_BITS_PER_CHANNEL = 80_000
_DRIFT = Fraction(1, 20)  # seconds sound may be off before silence or a cut puts it right
_TURNS = {
    90: [("transpose", "clock")],
    180: [("hflip", ""), ("vflip", "")],
    270: [("transpose", "cclock")],
}


class VideoEncoder:
    """Encodes the video of a media file as H.264, upright and at a constant frame rate.

    It starts at zero and has a keyframe every ``group`` frames. A gap repeats the picture before
    it, so that a slide show has keyframes too.
    """

    def __init__(
        self, source: VideoStream, facts: VideoFacts, muxer: SegmentMuxer, group: int, lead: int
    ) -> None:
        self.rate = encoded_rate(facts)
        self.width, self.height = encoded_size(facts)
        self.track = muxer.video_track(self.rate, _X264 | {"keyint_min": str(group)})
        context = self.track.codec_context
        context.width, context.height, context.pix_fmt = self.width, self.height, "yuv420p"
        context.time_base, context.gop_size = 1 / self.rate, group
        matrix, primaries, transfer = facts.colors
        context.colorspace = _BT709 if matrix == _RGB else matrix
        context.color_primaries, context.color_trc = primaries, transfer
        turned = facts.rotation in (90, 270)
        context.sample_aspect_ratio = 1 / facts.aspect if turned else facts.aspect
        self._facts, self._lead = facts, lead
        self._decoder, self._time_base = source.codec_context, source.time_base or TIME_BASE
        self._graph: Graph | None = None
        self._shape: tuple[int, int, str] | None = None
        self._held: VideoFrame | None = None
        self._next = 0

    def feed(self, packet: "Packet[Any]") -> "list[Packet[Any]]":
        """Encode a packet of the source; return the finished packets."""
        return self._encode(self._upright(self._decode(packet)))

    def finish(self, end: int) -> "list[Packet[Any]]":
        """Flush, showing the last picture until ``end`` ticks; ``MediaError`` if there was none."""
        packets = self._encode(self._upright(self._decode(None)))
        packets += self._encode(self._drained())
        if self._held is None:
            raise MediaError("its video cannot be decoded")
        packets += self._hold_until(max(self._next + 1, round(end * self.rate / CLOCK)))
        return packets + self._stamped(self.track.encode(None))

    def _decode(self, packet: "Packet[Any] | None") -> list[VideoFrame]:
        try:
            return self._decoder.decode(packet)
        except (av.FFmpegError, ValueError):
            return []  # damaged; the picture before it stays on the screen

    def _encode(self, frames: list[VideoFrame]) -> "list[Packet[Any]]":
        packets: list[Packet[Any]] = []
        for frame in frames:
            at = self._next + 1
            if frame.pts is not None:
                at = round(frame.pts * (frame.time_base or self._time_base) * self.rate)
            self._held = self._held or frame
            packets += self._hold_until(at)
            self._held = frame
        return packets

    def _hold_until(self, end: int) -> "list[Packet[Any]]":
        packets: list[Packet[Any]] = []
        while self._held is not None and self._next < end:
            self._held.pts, self._held.time_base = self._next, 1 / self.rate
            self._next += 1
            packets += self._stamped(self.track.encode(self._held))
        return packets

    def _stamped(self, packets: "list[Packet[Any]]") -> "list[Packet[Any]]":
        return [_stamp(packet, self.track, self._lead) for packet in packets]

    def _upright(self, frames: list[VideoFrame]) -> list[VideoFrame]:
        upright: list[VideoFrame] = []
        for frame in frames:
            shape = frame.width, frame.height, frame.format.name
            if shape != self._shape:
                upright += self._drained()
                self._graph, self._shape = self._graph_for(frame), shape
            assert self._graph is not None
            self._graph.vpush(frame)
            upright += self._pulled(self._graph)
        return upright

    def _drained(self) -> list[VideoFrame]:
        if self._graph is None:
            return []
        self._graph.vpush(None)
        return self._pulled(self._graph)

    def _pulled(self, graph: Graph) -> list[VideoFrame]:
        pulled: list[VideoFrame] = []
        with suppress(BlockingIOError, EOFError):
            while True:
                frame = graph.vpull()
                frame.pict_type = 0  # the encoder decides, not the source
                pulled.append(frame)
        return pulled

    def _graph_for(self, frame: VideoFrame) -> Graph:
        steps = list(_TURNS.get(self._facts.rotation, []))
        if self._facts.interlaced:
            steps.insert(0, ("yadif", "mode=send_frame:deint=interlaced"))
        matrix = ":out_color_matrix=bt709" if self._facts.colors[0] == _RGB else ""
        steps += [
            ("scale", f"{self.width}:{self.height}:flags=bicubic:out_range=tv{matrix}"),
            ("format", "yuv420p"),
            ("buffersink", ""),
        ]
        graph = Graph()
        last = graph.add(
            "buffer",
            video_size=f"{frame.width}x{frame.height}",
            pix_fmt=frame.format.name,
            time_base=str(self._time_base),
            colorspace=str(frame.colorspace),
            range=str(frame.color_range),
        )
        for name, arguments in steps:
            following = graph.add(name, arguments or None)
            last.link_to(following)
            last = following
        graph.configure()
        return graph


class AudioEncoder:
    """Encodes the audio of a media file as AAC, mono or stereo, without gaps.

    Missing sound becomes silence, and repeated sound is dropped.
    """

    def __init__(
        self, source: AudioStream, facts: AudioFacts, muxer: SegmentMuxer, lead: int
    ) -> None:
        self._rate = facts.sample_rate if facts.sample_rate in _SOUND_RATES else 48000
        self._layout = "mono" if facts.channels == 1 else "stereo"
        bit_rate = _BITS_PER_CHANNEL * (1 if facts.channels == 1 else 2)
        self.track = muxer.audio_track(self._rate, self._layout, bit_rate)
        self._decoder, self._time_base = source.codec_context, source.time_base or TIME_BASE
        self._lead = lead
        self._resampler: AudioResampler | None = None
        self._shape: tuple[str, str, int] | None = None
        self._at: Fraction | None = None
        self._written = 0

    def feed(self, packet: "Packet[Any]") -> "list[Packet[Any]]":
        """Encode a packet of the source; return the finished packets."""
        return self._encode(self._decode(packet))

    def finish(self) -> "list[Packet[Any]]":
        """Flush; raises ``MediaError`` if there was no sound at all."""
        packets = self._encode(self._decode(None))
        if self._resampler is None:
            raise MediaError("its sound cannot be decoded")
        packets += self._write(self._resampler.resample(None))
        return packets + [
            _stamp(packet, self.track, self._lead) for packet in self.track.encode(None)
        ]

    def _decode(self, packet: "Packet[Any] | None") -> list[AudioFrame]:
        try:
            return self._decoder.decode(packet)
        except (av.FFmpegError, ValueError):
            return []  # damaged; the gap is filled when sound comes again

    def _encode(self, frames: list[AudioFrame]) -> "list[Packet[Any]]":
        packets: list[Packet[Any]] = []
        for frame in frames:
            if not frame.samples or not frame.sample_rate:
                continue
            lasts = Fraction(frame.samples, frame.sample_rate)
            at = self._at if frame.pts is None else frame.pts * self._time_base
            if self._at is None:
                self._at = at or Fraction(0)
                self._written = round(self._at * self._rate)
            late = (at or self._at) - self._at
            if late < -_DRIFT:
                continue
            if late > _DRIFT:
                packets += self._silence(round(late * self._rate))
                self._at += late
            frame.pts = None
            packets += self._write(self._resampler_for(frame).resample(frame))
            self._at += lasts
        return packets

    def _silence(self, samples: int) -> "list[Packet[Any]]":
        packets: list[Packet[Any]] = []
        while samples > 0:
            frame = AudioFrame("fltp", self._layout, min(samples, self._rate))
            frame.sample_rate = self._rate
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            packets += self._write([frame])
            samples -= frame.samples
        return packets

    def _write(self, frames: list[AudioFrame]) -> "list[Packet[Any]]":
        packets: list[Packet[Any]] = []
        for frame in frames:
            frame.pts, frame.time_base = self._written, Fraction(1, self._rate)
            self._written += frame.samples
            packets += [
                _stamp(packet, self.track, self._lead) for packet in self.track.encode(frame)
            ]
        return packets

    def _resampler_for(self, frame: AudioFrame) -> AudioResampler:
        shape = frame.format.name, frame.layout.name, frame.sample_rate
        if self._resampler is None or shape != self._shape:
            self._resampler = AudioResampler("fltp", self._layout, self._rate)
            self._shape = shape
        return self._resampler


def _stamp(packet: "Packet[Any]", track: VideoStream | AudioStream, lead: int) -> "Packet[Any]":
    base = packet.time_base
    packet.pts = ticks(packet.pts or 0, base) + lead
    packet.dts = ticks(packet.dts or 0, base) + lead
    packet.duration = ticks(packet.duration or 0, base)
    packet.time_base = TIME_BASE
    packet.stream = track
    return packet
