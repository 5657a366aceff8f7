"""Pure: names of codecs in a playlist (RFC 6381), and which of them MPEG-TS players play."""

from collections.abc import Iterator
from dataclasses import dataclass

from xbyte_live.errors import MediaError

_H264_IDR, _H264_SPS, _H264_DELIMITER, _HEVC_SPS = 5, 7, 9, 33

# decoded in hardware by Apple and Android devices and every MSE browser
_PLAYABLE_PIXELS = {
    "h264": frozenset({"yuv420p", "yuvj420p"}),
    "hevc": frozenset({"yuv420p", "yuvj420p", "yuv420p10le"}),
}
_AUDIO_NAMES = {"mp3": "mp4a.40.34", "ac3": "ac-3", "eac3": "ec-3"}
_AAC_PROFILES = {"Main": 1, "LC": 2, "SSR": 3, "LTP": 4, "HE-AAC": 5, "HE-AACv2": 29}

PLAYABLE_VIDEO = frozenset(_PLAYABLE_PIXELS)
PLAYABLE_AUDIO = frozenset({"aac", *_AUDIO_NAMES})


def playable_pixels(codec: str, pixel_format: str | None) -> bool:
    """Whether players decode this codec with these pixels (no 4:4:4, no 10 bit H.264)."""
    return pixel_format in _PLAYABLE_PIXELS.get(codec, ())


def video_codec_string(codec: str, extradata: bytes) -> str:
    """``avc1.PPCCLL`` or ``hvc1.…`` from decoder configuration or Annex B parameter sets.

    Raises ``MediaError`` when there is no sequence parameter set in ``extradata``.
    """
    if codec == "hevc":
        return _hevc_string(_hevc_profile_tier_level(extradata))
    if extradata[:1] == b"\x01" and len(extradata) >= 4:
        return f"avc1.{extradata[1:4].hex().upper()}"
    sps = _annex_b_unit(extradata, _H264_SPS, mask=0x1F, shift=0)
    if len(sps) < 4:
        raise MediaError("its H.264 video has no parameter sets")
    return f"avc1.{sps[1:4].hex().upper()}"


def audio_codec_string(codec: str, extradata: bytes, profile: str | None) -> str:
    """``mp4a.40.2`` and its like, ``ac-3`` or ``ec-3``; ``profile`` as FFmpeg names it."""
    if codec != "aac":
        return _AUDIO_NAMES[codec]
    configured = audio_config(extradata)
    kind = _AAC_PROFILES.get(profile or "") or (configured.object_type if configured else 2)
    return f"mp4a.40.{kind}"


@dataclass(frozen=True, slots=True)
class AudioConfig:
    """An MPEG-4 ``AudioSpecificConfig`` (ISO/IEC 14496-3 1.6.2.1), as far as ADTS is concerned."""

    object_type: int
    core_type: int
    rate_index: int
    short_frames: bool

    @property
    def fits_adts(self) -> bool:
        """Whether ADTS, the form of AAC in MPEG-TS, can carry it."""
        return 1 <= self.core_type <= 4 and self.rate_index < 13 and not self.short_frames


def audio_config(extradata: bytes) -> AudioConfig | None:
    """Read an ``AudioSpecificConfig``; ``None`` when there is none (AAC that is ADTS already)."""
    if len(extradata) < 2:
        return None
    bits = _Bits(extradata)
    kind = core = bits.object_type()
    rate = bits.rate_index()
    bits.take(4)  # channel configuration
    if kind in (5, 29):  # SBR, PS: the core codec follows
        bits.rate_index()
        core = bits.object_type()
    return AudioConfig(kind, core, rate, short_frames=bool(bits.take(1)))


def with_parameter_sets(configuration: bytes, sample: "bytes | memoryview") -> bytes | None:
    """An H.264 sample of an MP4 with its parameter sets put in, ``None`` if it needs none.

    FFmpeg puts them before IDR pictures only, but an open group of pictures begins with another
    kind, and a segment beginning with it could not be decoded. ``configuration`` is ``avcC``.
    """
    if configuration[:1] != b"\x01" or len(configuration) < 7:
        return None
    prefix = (configuration[4] & 3) + 1
    at, behind_delimiter = 0, 0
    while at + prefix < len(sample):
        kind = sample[at + prefix] & 0x1F
        if kind in (_H264_IDR, _H264_SPS):
            return None
        at += prefix + int.from_bytes(sample[at : at + prefix], "big")
        if kind == _H264_DELIMITER:
            behind_delimiter = at
    sets = b"".join(
        len(unit).to_bytes(prefix, "big") + unit for unit in _parameter_sets(configuration)
    )
    return bytes(sample[:behind_delimiter]) + sets + bytes(sample[behind_delimiter:])


def _parameter_sets(configuration: bytes) -> Iterator[bytes]:
    at = 5
    for mask in (0x1F, 0xFF):  # SPS, then PPS
        count, at = int.from_bytes(configuration[at : at + 1], "big") & mask, at + 1
        for _ in range(count):
            length = int.from_bytes(configuration[at : at + 2], "big")
            yield configuration[at + 2 : at + 2 + length]
            at += 2 + length


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data[:16].ljust(16, b"\0"), "big")
        self._left = 128

    def take(self, count: int) -> int:
        self._left -= count
        return self._value >> self._left & (1 << count) - 1

    def object_type(self) -> int:
        kind = self.take(5)
        return 32 + self.take(6) if kind == 31 else kind

    def rate_index(self) -> int:
        index = self.take(4)
        if index == 15:
            self.take(24)
        return index


def _hevc_profile_tier_level(extradata: bytes) -> bytes:
    """The twelve bytes general_profile_space … general_level_idc (H.265 7.3.3)."""
    if extradata[:1] == b"\x01" and len(extradata) >= 13:
        return extradata[1:13]
    sps = _annex_b_unit(extradata, _HEVC_SPS, mask=0x3F, shift=1)
    plain = sps.replace(b"\x00\x00\x03", b"\x00\x00")  # emulation prevention
    if len(plain) < 15:
        raise MediaError("its HEVC video has no parameter sets")
    return plain[3:15]


def _hevc_string(levels: bytes) -> str:
    """ISO/IEC 14496-15 E.3: space and profile, reversed flags, tier and level, constraints."""
    space = ("", "A", "B", "C")[levels[0] >> 6]
    tier = "H" if levels[0] & 0x20 else "L"
    flags = int(f"{int.from_bytes(levels[1:5], 'big'):032b}"[::-1], 2)
    constraints = levels[5:11].rstrip(b"\0")
    parts = [f"hvc1.{space}{levels[0] & 0x1F}", f"{flags:X}", f"{tier}{levels[11]}"]
    return ".".join(parts + [f"{byte:X}" for byte in constraints])


def _annex_b_unit(data: bytes, kind: int, *, mask: int, shift: int) -> bytes:
    """The first NAL unit of a kind, header included; empty when there is none."""
    for unit in data.split(b"\x00\x00\x01")[1:]:
        if unit and unit[0] >> shift & mask == kind:
            return unit.rstrip(b"\0")
    return b""
