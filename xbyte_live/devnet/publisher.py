"""Adapter: a live broadcast made on the spot, sent over RTMP in real time until somebody ends it.

Its picture shows the time of day, so that a viewer can read the delay off the screen; a bar
crosses it, and a tone sounds, once a second.
"""

import os
import signal
import sys
import time
from array import array
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from math import pi, sin

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.filter import Graph
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from xbyte_live.devnet.samples import burn
from xbyte_live.errors import DevnetError

URL_VARIABLE = "XBYTE_PUBLISH_URL"  # the URL holds the stream key, which argv would show

WIDTH, HEIGHT, FPS = 640, 360, 30
RATE, CHUNK = 48_000, 1024
_GROUP = 2 * FPS
_LOOP = 100  # pictures until the background repeats
_BEHIND_S = 0.5  # later than this, it is hurried after with every third picture
_HURRIED = 2  # pictures left out before each of these: no gap that anybody would call one
_LOST_S = 10.0  # later than this, as after a sleep, all that was missed is left out
_STALLED_S = 20
_DOT = 8
_CLOCK_WIDTH = (6 * len("00:00:00.0") + 1) * _DOT
_BAR = 40

_FLV = {"flvflags": "no_duration_filesize"}
_X264 = {
    "preset": "ultrafast",
    "tune": "zerolatency",
    "threads": "1",
    "b": "900k",
    "maxrate": "900k",
    "bufsize": "900k",
    "g": str(_GROUP),
    "keyint_min": str(_GROUP),
    "sc_threshold": "0",
    "forced-idr": "1",
}


def publish(url: str) -> None:
    """Broadcast to ``url`` (``rtmp://host/app/key``), for ever; an interrupt ends it well.

    H.264 640x360 at 30 frames a second with a keyframe every 2 s, and AAC; about 1 Mb/s. Raises
    ``DevnetError`` when the server cannot be reached, refuses, or ends the connection. It keeps
    other threads waiting while it connects, so the server must be another process.
    """
    failed = "the server did not take the broadcast"
    signal.alarm(_STALLED_S)
    try:
        with av.open(url, "w", format="flv", container_options=_FLV) as output:
            picture, sound = _tracks(output)
            output.start_encoding()
            failed = "the server ended the broadcast"
            _broadcast(output, picture, sound)
    except (av.FFmpegError, OSError) as error:
        # only what the system calls it: the rest of the message is the URL, with the key in it
        raise DevnetError(f"{failed} ({error.strerror or type(error).__name__})") from None


def _tracks(output: OutputContainer) -> tuple[VideoStream, AudioStream]:
    picture = output.add_stream("libx264", rate=FPS, options=_X264)
    picture.width, picture.height, picture.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    sound = output.add_stream("aac", rate=RATE, options={"b": "96k"})
    sound.codec_context.layout = "mono"
    return picture, sound


def _broadcast(output: OutputContainer, picture: VideoStream, sound: AudioStream) -> None:
    background = _background()
    start, began_at = time.monotonic(), time.time()
    chunks = _sound(began_at)
    heard = next(chunks)
    number, group = 0, -1
    while True:
        signal.alarm(_STALLED_S)  # ends the process, for FFmpeg waits for a silent server for ever
        number += _wait_for(start, number)
        seen = next(background)
        _draw(seen, time.time())
        seen.pts, seen.time_base = number, Fraction(1, FPS)
        # by the clock: the encoder counts pictures, and those left out are time all the same
        seen.pict_type = PictureType.NONE if number // _GROUP == group else PictureType.I
        group = number // _GROUP
        output.mux(picture.encode(seen))
        number += 1
        while heard.pts is not None and heard.pts * FPS < number * RATE:
            output.mux(sound.encode(heard))
            heard = next(chunks)


def _wait_for(start: float, number: int) -> int:
    """Wait until picture ``number`` is due; how many to leave out because it is past."""
    late = time.monotonic() - start - number / FPS
    if late < 0:
        time.sleep(-late)
    if late > _LOST_S:
        return int(late * FPS)
    return _HURRIED if late > _BEHIND_S else 0


def _background() -> Iterator[VideoFrame]:
    """Slow clouds of colour, drawn small and once, made large by FFmpeg each time."""
    turn = f"(2*PI*N/{_LOOP})"
    light = f"sin(X/W*5+{turn})*cos(Y/H*4-{turn})"
    graph = Graph()
    last = None
    for name, arguments in (
        ("color", f"c=black:s=64x36:r={FPS}:d={_LOOP / FPS}"),
        ("format", "yuv420p"),
        ("geq", f"lum='90+50*{light}':cb='140+40*{light}':cr='118+30*sin(X/W*3-{turn})'"),
        ("loop", f"loop=-1:size={_LOOP}"),
        ("scale", f"{WIDTH}:{HEIGHT}:flags=fast_bilinear"),
        ("noise", "c0s=6:c0f=t"),  # without grain there would be next to nothing to encode
        ("buffersink", ""),
    ):
        step = graph.add(name, arguments) if arguments else graph.add(name)
        if last is not None:
            last.link_to(step)
        last = step
    graph.configure()
    while True:
        yield graph.vpull()


def _draw(frame: VideoFrame, now: float) -> None:
    """Burn in the time of day with its tenths, and a bar that crosses the picture in a second."""
    tenths = int(now * 10) % 10
    clock = time.strftime("%H:%M:%S", time.localtime(now)) + f".{tenths}"
    burn(frame, clock, left=(WIDTH - _CLOCK_WIDTH) // 2, top=48, dot=_DOT)
    plane = frame.planes[0]
    pixels = memoryview(plane).cast("B")
    at = int(now % 1 * (WIDTH - _BAR))
    for y in range(HEIGHT - 48, HEIGHT - 24):
        row = y * plane.line_size
        pixels[row + at : row + at + _BAR] = b"\xeb" * _BAR


def _sound(began_at: float) -> Iterator[AudioFrame]:
    """A quiet hum and, when a second of the clock begins, a tenth of a second of a tone."""
    second = array("f", (_wave(n) for n in range(RATE))).tobytes()
    second += second[: 4 * CHUNK]
    at, ahead = 0, int(began_at % 1 * RATE)
    while True:
        frame = AudioFrame(format="fltp", layout="mono", samples=CHUNK)
        where = 4 * ((at + ahead) % RATE)
        frame.planes[0].update(second[where : where + 4 * CHUNK])
        frame.sample_rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
        at += CHUNK
        yield frame


def _wave(sample: int) -> float:
    hum = 0.03 * sin(2 * pi * 110 * sample / RATE)
    return hum + (0.2 * sin(2 * pi * 880 * sample / RATE) if sample < RATE // 10 else 0)


def main() -> int:
    """Broadcast to the URL in the environment, or else in the arguments; the exit status."""
    url = os.environ.get(URL_VARIABLE) or next(iter(sys.argv[1:]), "")
    if not url.startswith(("rtmp://", "rtmps://")):
        print(f"set {URL_VARIABLE} to rtmp://host/live/KEY", file=sys.stderr)  # noqa: T201
        return 2
    with suppress(KeyboardInterrupt):
        try:
            publish(url)
        except DevnetError as error:
            print(error, file=sys.stderr)  # noqa: T201
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
