"""Adapter: finds one good picture of a title or a segment and encodes it as a JPEG.

    python -m xbyte_live.media.poster CODEC < segment.ts > picture.jpg

As a program, of its own because decoding a stranger's video may crash, it ends with status 1
where the segment holds no picture.
"""

import resource
import sys
from fractions import Fraction

import av
from av.codec import CodecContext
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from xbyte_live.media.formats.mpegts import first_access_unit
from xbyte_live.media.formats.timeline import micros

_LONG_SIDE = 960
_LIVELY = 24.0  # standard deviation of brightness; below it a picture is a blank or a fade
_SAMPLE = 32
_WANTED_AT = (Fraction(1, 10), Fraction(3, 10), Fraction(1, 2))
_MAX_KEYFRAME = 8 << 20  # bytes
_MAX_MEMORY = 512 << 20  # bytes, of the program
_MAX_CPU_S = 5


class PosterSearch:
    """Chooses a poster from the keyframes that begin segments, from a tenth of the title on.

    The first lively picture is taken; without one, the liveliest of those compared, of which the
    first of the title is one. ``expected_us`` is the expected duration of the title.
    """

    def __init__(self, codec: str, expected_us: int) -> None:
        self._codec = codec
        self._wanted_at = [part * expected_us for part in _WANTED_AT]
        self._first_pts: int | None = None
        self._first_keyframe = b""
        self._best: VideoFrame | None = None
        self._best_liveliness = -1.0

    def consider(self, pts: int, segment: bytes) -> None:
        """Look at a segment whose first picture is shown at ``pts`` (90 kHz ticks)."""
        if self._first_pts is None:
            self._first_pts = pts
            self._first_keyframe = _keyframe(segment)
        elif self._wanted_at and micros(pts - self._first_pts) >= self._wanted_at[0]:
            self._wanted_at.pop(0)
            self._compare(_keyframe(segment))
            if self._best_liveliness >= _LIVELY:
                self._wanted_at.clear()

    def result(self) -> bytes | None:
        """The picture found as a JPEG, if any could be decoded."""
        if self._best_liveliness < _LIVELY:
            self._compare(self._first_keyframe)
        return jpeg(self._best) if self._best else None

    def _compare(self, keyframe: bytes) -> None:
        picture = _decoded(self._codec, keyframe)
        if picture is None:
            return
        liveliness = _liveliness(picture)
        if liveliness > self._best_liveliness:
            self._best, self._best_liveliness = picture, liveliness


def jpeg(picture: VideoFrame) -> bytes | None:
    """A picture as a JPEG of at most 960 pixels a side, or ``None`` if it cannot be made."""
    sides = picture.width, picture.height
    shrink = max(1.0, max(sides) / _LONG_SIDE)
    width, height = (max(2, round(side / shrink / 2) * 2) for side in sides)
    context = CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt = width, height, "yuvj420p"
    context.time_base = Fraction(1, 25)
    context.options = {"qmin": "3", "qmax": "5", "threads": "1"}
    try:
        frame = picture.reformat(width, height, "yuvj420p")
        frame.pict_type = 0
        packets = context.encode(frame) + context.encode(None)
    except (av.FFmpegError, ValueError):
        return None
    return b"".join(bytes(packet) for packet in packets) or None


def _keyframe(segment: bytes) -> bytes:
    unit = first_access_unit(segment, video=True, limit=_MAX_KEYFRAME)
    return unit.head if unit else b""


def _decoded(codec: str, keyframe: bytes) -> VideoFrame | None:
    """Decode an H.264 or HEVC keyframe that comes with its parameter sets."""
    if not keyframe:
        return None
    context = CodecContext.create(codec, "r")
    assert isinstance(context, VideoCodecContext)
    context.options = {"threads": "1"}
    try:
        frames = context.decode(Packet(keyframe)) + context.decode(None)
    except (av.FFmpegError, ValueError):
        return None
    return frames[0] if frames else None


def _liveliness(picture: VideoFrame) -> float:
    plane = picture.reformat(_SAMPLE, _SAMPLE, "gray", interpolation="POINT").planes[0]
    data, width = bytes(plane), plane.line_size
    values = [value for y in range(_SAMPLE) for value in data[y * width : y * width + _SAMPLE]]
    mean = sum(values) / len(values)
    return float((sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5)


def first_picture(codec: str, segment: bytes) -> bytes | None:
    """The first picture of a segment as a JPEG, or ``None`` if it cannot be decoded."""
    search = PosterSearch(codec, 0)
    search.consider(0, segment)
    return search.result()


def main() -> int:
    """Read a segment from stdin and write its first picture to stdout; return the exit status."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (_MAX_CPU_S, _MAX_CPU_S))
    resource.setrlimit(resource.RLIMIT_DATA, (_MAX_MEMORY, _MAX_MEMORY))
    picture = first_picture(sys.argv[1], sys.stdin.buffer.read())
    if picture is None:
        return 1
    sys.stdout.buffer.write(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
