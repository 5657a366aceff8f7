"""Names of codecs as RFC 6381 has them, from the bytes a container carries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbyte_live.errors import MediaError
from xbyte_live.media.formats.codecs import (
    AudioConfig,
    audio_codec_string,
    audio_config,
    playable_pixels,
    video_codec_string,
    with_parameter_sets,
)

SPS, PPS = bytes.fromhex("6764001facd94050"), bytes.fromhex("68ebe3cb22c0")
AVCC = b"\x01\x64\x00\x1f\xff\xe1\x00\x08" + SPS + b"\x01\x00\x06" + PPS
HVCC = bytes.fromhex("0101600000009000000000005d")
HEVC_SPS = bytes.fromhex("420101016000000300900000030000030 05d a0".replace(" ", ""))


def sample(*kinds: int) -> bytes:
    """Length-prefixed units of given kinds, three bytes each."""
    return b"".join(b"\0\0\0\3" + bytes([kind, 1, 2]) for kind in kinds)


@pytest.mark.parametrize(
    ("codec", "extradata", "name"),
    [
        ("h264", AVCC, "avc1.64001F"),
        ("h264", b"\0\0\0\1" + SPS + b"\0\0\1" + PPS, "avc1.64001F"),
        ("h264", b"\0\0\1\x09\xf0\0\0\0\1\x67\x42\xc0\x0d\xff", "avc1.42C00D"),
        ("hevc", HVCC, "hvc1.1.6.L93.90"),
        ("hevc", b"\0\0\0\1" + HEVC_SPS, "hvc1.1.6.L93.90"),
        ("hevc", bytes.fromhex("01222000000090000000000078"), "hvc1.2.4.H120.90"),
        ("hevc", bytes.fromhex("01416000000000000000000099"), "hvc1.A1.6.L153"),
    ],
)
def test_video(codec: str, extradata: bytes, name: str) -> None:
    assert video_codec_string(codec, extradata) == name


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@given(extradata=st.binary(max_size=40))
def test_video_without_parameter_sets_says_so(codec: str, extradata: bytes) -> None:
    try:
        assert video_codec_string(codec, extradata)[:5] in ("avc1.", "hvc1.")
    except MediaError as error:
        assert "parameter sets" in str(error)


@pytest.mark.parametrize(
    ("codec", "extradata", "profile", "name"),
    [
        ("aac", "1190", "LC", "mp4a.40.2"),
        ("aac", "", "LC", "mp4a.40.2"),
        ("aac", "", "HE-AACv2", "mp4a.40.29"),
        ("aac", "2b920800", None, "mp4a.40.5"),
        ("aac", "", None, "mp4a.40.2"),
        ("mp3", "", None, "mp4a.40.34"),
        ("ac3", "", None, "ac-3"),
        ("eac3", "", None, "ec-3"),
    ],
)
def test_audio(codec: str, extradata: str, profile: str | None, name: str) -> None:
    assert audio_codec_string(codec, bytes.fromhex(extradata), profile) == name


@pytest.mark.parametrize(
    ("extradata", "config", "fits"),
    [
        ("1190", AudioConfig(2, 2, 3, short_frames=False), True),
        ("2b920800", AudioConfig(5, 2, 7, short_frames=False), True),
        ("1194", AudioConfig(2, 2, 3, short_frames=True), False),
        ("f94b4200", AudioConfig(42, 42, 5, short_frames=False), False),
        ("178000be", AudioConfig(2, 2, 15, short_frames=False), False),
    ],
)
def test_what_adts_can_carry(extradata: str, config: AudioConfig, fits: bool) -> None:
    assert audio_config(bytes.fromhex(extradata)) == config
    assert config.fits_adts == fits


@given(st.binary(max_size=64))
def test_any_configuration_is_read(extradata: bytes) -> None:
    assert (audio_config(extradata) is None) == (len(extradata) < 2)


@pytest.mark.parametrize(
    ("codec", "pixels", "playable"),
    [
        ("h264", "yuv420p", True),
        ("h264", "yuv444p", False),
        ("h264", "yuv420p10le", False),
        ("h264", None, False),
        ("hevc", "yuv420p10le", True),
        ("hevc", "yuv422p10le", False),
        ("vp9", "yuv420p", False),
    ],
)
def test_pixels_players_can_show(codec: str, pixels: str | None, playable: bool) -> None:
    assert playable_pixels(codec, pixels) == playable


def test_an_open_group_gets_its_parameter_sets() -> None:
    sets = b"\0\0\0\x08" + SPS + b"\0\0\0\x06" + PPS
    assert with_parameter_sets(AVCC, sample(6, 1)) == sets + sample(6, 1)
    assert with_parameter_sets(AVCC, sample(9, 6, 1)) == sample(9) + sets + sample(6, 1)


def test_a_sample_that_ffmpeg_completes_is_left_alone() -> None:
    assert with_parameter_sets(AVCC, sample(6, 5)) is None
    assert with_parameter_sets(AVCC, sample(7, 8, 1)) is None
    assert with_parameter_sets(b"\0\0\0\1" + SPS, sample(1)) is None


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_damaged_samples_do_no_harm(configuration: bytes, data: bytes) -> None:
    whole = with_parameter_sets(b"\x01" + configuration, data)
    assert whole is None or len(whole) >= len(data)
