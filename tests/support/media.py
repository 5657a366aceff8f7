"""Small media files of every kind, made by PyAV's encoders alone: no ``ffmpeg`` is needed."""

import random
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from math import pi, sin
from pathlib import Path
from typing import Any

import av
from av.audio.frame import AudioFrame
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame

WIDTH, HEIGHT = 160, 120
_STEADY = {"keyint_min": "1", "sc_threshold": "0", "threads": "1"}


@dataclass(frozen=True, slots=True)
class Video:
    """A track of pictures; ``times`` in milliseconds where the rate is not constant."""

    codec: str = "libx264"
    rate: Fraction = Fraction(25)
    group: int = 50
    b_frames: int = 0
    bit_rate: int = 0
    options: dict[str, str] = field(default_factory=dict)
    times: Sequence[int] = ()
    width: int = WIDTH
    height: int = HEIGHT


@dataclass(frozen=True, slots=True)
class Audio:
    """A track of sound: a tone with enough noise in it to need its bit rate."""

    codec: str = "aac"
    rate: int = 48000
    bit_rate: int = 128_000


@dataclass(frozen=True, slots=True)
class Recipe:
    """A media file: its tracks, its container (FFmpeg's name) and how long it lasts."""

    suffix: str
    container: str
    video: Video | None = Video()
    audio: Audio | None = Audio()
    seconds: int = 9

    def make(self, path: Path) -> Path:
        """Encode it to ``path``."""
        with av.open(str(path), "w", format=self.container) as output:
            tracks = []
            if self.video:
                tracks.append(_pictures(output, self.video, self.seconds))
            if self.audio:
                tracks.append(_sounds(output, self.audio, self.seconds))
            _interleave(output, tracks)
        return path


_X264 = {"preset": "ultrafast", "crf": "30"}
_X265 = {"preset": "ultrafast", "x265-params": "log-level=none:pools=1:frame-threads=1"}
_VP9 = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}


def h264(**changes: Any) -> Video:
    """H.264 as quickly as it can be made, with a keyframe every two seconds."""
    options = _X264 | changes.pop("options", {})
    return Video(options=options, **changes)


def uneven_times(seconds: int) -> list[int]:
    """Milliseconds of frames 20, 40 and 60 ms apart in turn, the last one 40."""
    times, at = [], 0
    while at < seconds * 1000 - 40:
        times.append(at)
        at += (20, 40, 60)[len(times) % 3]
    return [*(time for time in times if time < seconds * 1000 - 40), seconds * 1000 - 40]


RECIPES = {
    "mp4": Recipe(".mp4", "mp4", h264(b_frames=2), seconds=13),
    "mov": Recipe(".mov", "mov", h264(), Audio(rate=44100)),
    "mkv": Recipe(".mkv", "matroska", h264(b_frames=2)),
    "flv": Recipe(".flv", "flv", h264(b_frames=2), Audio(rate=44100)),
    "ts": Recipe(".ts", "mpegts", h264(b_frames=2), seconds=13),
    "webm": Recipe(
        ".webm", "webm", Video("libvpx-vp9", options=_VP9), Audio("libopus", bit_rate=64_000)
    ),
    "hevc": Recipe(".mp4", "mp4", Video("libx265", options=_X265), seconds=7),
    "ac3": Recipe(".mkv", "matroska", h264(), Audio("ac3", bit_rate=192_000)),
    "ntsc": Recipe(".mp4", "mp4", h264(rate=Fraction(30000, 1001), group=60, b_frames=2)),
    "vfr": Recipe(".mkv", "matroska", h264(times=uneven_times(9))),
    "silent": Recipe(".mp4", "mp4", h264(), None, seconds=6),
    "mp3": Recipe(".mp3", "mp3", None, Audio("libmp3lame", 44100), seconds=13),
    "m4a": Recipe(".m4a", "ipod", None, seconds=13),
    "flac": Recipe(".flac", "flac", None, Audio("flac", 44100)),
    "ogg": Recipe(".ogg", "ogg", None, Audio("libopus", bit_rate=64_000)),
    "long-group": Recipe(".mp4", "mp4", h264(group=1000), seconds=13),
    "two-megabit": Recipe(".mp4", "mp4", h264(bit_rate=2_000_000), seconds=13),
}


def _interleave(output: OutputContainer, tracks: "list[Iterator[tuple[float, Any]]]") -> None:
    """Write the tracks in step, as any other writer does."""
    waiting = [(next(track), track) for track in tracks]
    while waiting:
        waiting.sort(key=lambda pair: pair[0][0])
        (_, packets), track = waiting.pop(0)
        output.mux(packets)
        following = next(track, None)
        if following is not None:
            waiting.append((following, track))


def _pictures(
    output: OutputContainer, video: Video, seconds: int
) -> "Iterator[tuple[float, list[Packet[Any]]]]":
    base = Fraction(1, 1000) if video.times else 1 / video.rate
    stream = output.add_stream(video.codec, rate=video.rate, options=_STEADY | video.options)
    context = stream.codec_context
    stream.width, stream.height, stream.pix_fmt = video.width, video.height, "yuv420p"  # type: ignore[attr-defined]
    context.time_base, context.gop_size = base, video.group  # type: ignore[attr-defined]
    context.max_b_frames = video.b_frames  # type: ignore[attr-defined]
    if video.bit_rate:
        context.bit_rate = video.bit_rate
        context.options = {**context.options, "crf": "-1"}
    return _encoded_pictures(stream, video, base, seconds)


def _encoded_pictures(
    stream: Any, video: Video, base: Fraction, seconds: int
) -> "Iterator[tuple[float, list[Packet[Any]]]]":
    area = video.width * video.height
    noise = random.Random(1).randbytes(4 * area) if video.bit_rate else b""
    times = video.times or range(round(seconds * video.rate))
    for number, at in enumerate(times):
        frame = _picture(number, noise, video)
        frame.pts, frame.time_base = at, base
        yield float(at * base), stream.encode(frame)
    yield float(seconds), stream.encode(None)


def _picture(number: int, noise: bytes, video: Video) -> VideoFrame:
    """A gradient that moves, or a new part of the noise."""
    frame = VideoFrame(video.width, video.height, "yuv420p")
    ramp = bytes(range(256)) * (2 + -(-video.width // 256))
    for index, plane in enumerate(frame.planes):
        if noise and index == 0:
            start = number * 7919 % (3 * video.width * video.height)
            plane.update(noise[start : start + plane.buffer_size].ljust(plane.buffer_size, b"\x80"))
            continue
        lines = (
            ramp[(start := (3 * number + line + 60 * index) % 256) : start + plane.line_size]
            for line in range(plane.height)
        )
        plane.update(b"".join(lines).ljust(plane.buffer_size, b"\x80"))
    return frame


def _sounds(
    output: OutputContainer, audio: Audio, seconds: int
) -> "Iterator[tuple[float, list[Packet[Any]]]]":
    quick = {"aac_coder": "fast"} if audio.codec == "aac" else {}
    stream: Any = output.add_stream(audio.codec, rate=audio.rate, options=quick)
    stream.codec_context.layout = "stereo"
    if audio.codec != "flac":
        stream.codec_context.bit_rate = audio.bit_rate
    return _encoded_sounds(stream, audio.rate, seconds)


def _encoded_sounds(
    stream: Any, rate: int, seconds: int
) -> "Iterator[tuple[float, list[Packet[Any]]]]":
    second = _second_of_sound(rate)
    step = rate // 50
    for start in range(0, seconds * rate, step):
        frame = AudioFrame("s16", "stereo", step)
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        at = start % rate * 4
        frame.planes[0].update(second[at : at + step * 4].ljust(frame.planes[0].buffer_size, b"\0"))
        yield start / rate, stream.encode(frame)
    yield float(seconds), stream.encode(None)


@cache
def _second_of_sound(rate: int) -> bytes:
    noise = random.Random(2).randbytes(2 * rate)
    samples = array("h")
    for number in range(rate):
        tone = int(8000 * sin(2 * pi * 440 * number / rate))
        left, right = noise[2 * number], noise[2 * number + 1]
        samples.extend((tone + 24 * (left - 128), tone + 24 * (right - 128)))
    return samples.tobytes()
