"""What stands in the way of copying a stream, and how it is encoded then."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbyte_live.media.formats.tracks import (
    AudioFacts,
    VideoFacts,
    audio_obstacle,
    encoded_group,
    encoded_rate,
    encoded_size,
    usual_rate,
    video_obstacle,
)


def video(**changes: object) -> VideoFacts:
    values: dict[str, object] = {
        "codec": "h264", "extradata": b"", "width": 1920, "height": 1080, "rate": Fraction(25),
        "pixel_format": "yuv420p",
    }  # fmt: skip
    return VideoFacts(**(values | changes))  # type: ignore[arg-type]


def audio(codec: str, extradata: bytes = b"") -> AudioFacts:
    return AudioFacts(codec, extradata, None, 48_000, 2)


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (video(), None),
        (video(codec="hevc", pixel_format="yuv420p10le"), None),
        (video(codec="vp9"), "VP9"),
        (video(codec="mpeg2video"), "MPEG-2"),
        (video(pixel_format="yuv420p10le"), "yuv420p10le"),
        (video(rotation=90), "turned"),
        (video(preroll=True), "between two keyframes"),
        (video(timed=False), "presentation times"),
    ],
)
def test_video(facts: VideoFacts, why: str | None) -> None:
    obstacle = video_obstacle(facts)
    assert (obstacle is None) == (why is None)
    assert why is None or why in (obstacle or "")


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (audio("aac", b"\x11\x90"), None),
        (audio("aac"), None),
        (audio("mp3"), None),
        (audio("ac3"), None),
        (audio("eac3"), None),
        (audio("opus"), "Opus"),
        (audio("pcm_s16le"), "PCM_S16LE"),
        (audio("aac", bytes.fromhex("f94b4200")), "AAC"),
    ],
)
def test_audio(facts: AudioFacts, why: str | None) -> None:
    obstacle = audio_obstacle(facts)
    assert (obstacle is None) == (why is None)
    assert why is None or why in (obstacle or "")


@pytest.mark.parametrize(
    ("rate", "usual"),
    [
        (Fraction(2997, 100), Fraction(30000, 1001)),
        (Fraction(23976, 1000), Fraction(24000, 1001)),
        (Fraction(25), Fraction(25)),
        (Fraction(2580, 227), Fraction(2580, 227)),
        (Fraction(90_000), None),
        (Fraction(0), None),
        (None, None),
    ],
)
def test_rates_are_called_what_they_are(rate: Fraction | None, usual: Fraction | None) -> None:
    assert usual_rate(rate) == usual


@pytest.mark.parametrize(
    ("rate", "encoded"),
    [
        (None, 25),
        (Fraction(1, 10), 10),
        (Fraction(120), 60),
        (Fraction(240), 60),
        (Fraction(50), 50),
    ],
)
def test_encoding_is_at_a_sensible_rate(rate: Fraction | None, encoded: int) -> None:
    assert encoded_rate(video(rate=rate)) == encoded


@pytest.mark.parametrize(
    ("width", "height", "rotation", "size"),
    [
        (1920, 1080, 0, (1920, 1080)),
        (1920, 1080, 90, (1080, 1920)),
        (161, 121, 180, (160, 120)),
        (7680, 4320, 0, (3840, 2160)),
        (4320, 7680, 0, (2160, 3840)),
        (1, 1, 0, (2, 2)),
    ],
)
def test_encoding_is_upright_even_and_at_most_4k(
    width: int, height: int, rotation: int, size: tuple[int, int]
) -> None:
    assert encoded_size(video(width=width, height=height, rotation=rotation)) == size


@given(st.fractions(10, 60), st.integers(10**6, 2 * 10**7))
def test_groups_fill_a_segment(rate: Fraction, target_us: int) -> None:
    frames, groups = encoded_group(rate, target_us)
    assert abs(frames * groups / rate - Fraction(target_us, 10**6)) <= groups / rate / 2
    assert frames / rate <= 2 + 1 / rate
