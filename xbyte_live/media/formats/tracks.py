"""Pure: describes video and audio, says whether MPEG-TS can carry it, and how to encode it."""

from dataclasses import dataclass
from fractions import Fraction

from xbyte_live.media.formats.codecs import (
    PLAYABLE_AUDIO,
    PLAYABLE_VIDEO,
    audio_config,
    playable_pixels,
)

_NAMES = {
    "h264": "H.264", "hevc": "HEVC", "av1": "AV1", "mpeg2video": "MPEG-2", "mpeg4": "MPEG-4",
    "opus": "Opus", "vorbis": "Vorbis", "flac": "FLAC", "alac": "ALAC", "aac": "AAC",
    "dts": "DTS", "mp2": "MP2", "mjpeg": "Motion JPEG", "prores": "ProRes",
}  # fmt: skip
_RATES = tuple(
    Fraction(rate, unit)
    for rate in (24000, 25000, 30000, 48000, 50000, 60000, 100000, 120000)
    for unit in (1000, 1001)
    if not (unit == 1001 and rate % 24000 and rate % 30000)
)


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """A video stream, described by its container and its first picture.

    ``rotation`` is in degrees clockwise; ``aspect`` the shape of a pixel; ``preroll`` whether its
    first pictures are not to be shown; ``timed`` whether its frames have presentation times;
    ``colors`` the H.273 matrix, primaries and transfer.
    """

    codec: str
    extradata: bytes
    width: int
    height: int
    rate: Fraction | None
    pixel_format: str
    rotation: int = 0
    aspect: Fraction = Fraction(1)
    colors: tuple[int, int, int] = (2, 2, 2)
    interlaced: bool = False
    preroll: bool = False
    timed: bool = True


@dataclass(frozen=True, slots=True)
class AudioFacts:
    """An audio stream, described by its container and its first samples."""

    codec: str
    extradata: bytes
    profile: str | None
    sample_rate: int
    channels: int


def video_obstacle(facts: VideoFacts) -> str | None:
    """Why a video stream cannot be copied, as the end of a sentence; ``None`` if it can."""
    if facts.codec not in PLAYABLE_VIDEO:
        return f"its video is {codec_name(facts.codec)}, which MPEG-TS players do not play"
    if not playable_pixels(facts.codec, facts.pixel_format):
        return (
            f"its {codec_name(facts.codec)} video is {facts.pixel_format}, "
            "which most players do not decode"
        )
    if facts.rotation:
        return "its picture is stored turned, which MPEG-TS cannot say"
    if facts.preroll:
        return "it is trimmed to start between two keyframes"
    if not facts.timed:
        return "its frames carry no presentation times"
    return None


def audio_obstacle(facts: AudioFacts) -> str | None:
    """Why an audio stream cannot be copied, as the end of a sentence; ``None`` if it can."""
    if facts.codec not in PLAYABLE_AUDIO:
        return f"its sound is {codec_name(facts.codec)}, which MPEG-TS players do not play"
    if facts.codec == "aac":
        config = audio_config(facts.extradata)
        if config is not None and not config.fits_adts:
            return "its AAC is of a kind MPEG-TS does not carry"
    return None


def encoded_rate(facts: VideoFacts) -> Fraction:
    """The constant frame rate a video is encoded at: between 10 and 60 frames a second."""
    if facts.rate is None:
        return Fraction(25)
    rate = max(facts.rate, Fraction(10))
    while rate > 60:
        rate /= 2
    return rate


def encoded_group(rate: Fraction, target_us: int, group_us: int = 2_000_000) -> tuple[int, int]:
    """(frames from keyframe to keyframe, groups in a segment) for a segment near the target.

    ``group_us`` is the longest a group should last: who joins or seeks waits for a keyframe.
    """
    groups = max(1, -(-target_us // group_us))
    return max(1, round(rate * target_us / (1_000_000 * groups))), groups


def encoded_size(facts: VideoFacts) -> tuple[int, int]:
    """Width and height a video is encoded at: upright, even, at most 3840 by 2160 or upright."""
    width, height = facts.width, facts.height
    if facts.rotation in (90, 270):
        width, height = height, width
    long, short = max(width, height), min(width, height)
    shrink = max(Fraction(1), Fraction(long, 3840), Fraction(short, 2160))
    return max(2, round(width / shrink / 2) * 2), max(2, round(height / shrink / 2) * 2)


def codec_name(codec: str) -> str:
    """The usual spelling of a codec's name."""
    return _NAMES.get(codec, codec.upper())


def usual_rate(rate: Fraction | None) -> Fraction | None:
    """The common frame rate within 0.1 %, else ``rate`` itself; ``None`` if out of range."""
    if rate is None or not 0 < rate <= 1000:
        return None
    near = min(_RATES, key=lambda usual: abs(usual - rate))
    return near if abs(near - rate) * 1000 <= rate else rate.limit_denominator(1001)
