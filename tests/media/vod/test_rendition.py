"""The segments of a rendition and its figures, from finished segments."""

from fractions import Fraction

import pytest

from xbyte_live.errors import MediaError
from xbyte_live.media.formats.mpegts import CLOCK
from xbyte_live.media.vod.rendition import Track, WrittenSegment, rendition_of, segments_of

BASE = 252_000


def a_segment(seconds: float | None, size: int = 1000) -> WrittenSegment:
    pts = None if seconds is None else (BASE + round(seconds * CLOCK)) % 2**33
    return WrittenSegment(size, "ab" * 32, pts, clean=True)


def test_each_segment_lasts_until_the_next_begins() -> None:
    segments = segments_of(
        [a_segment(0), a_segment(6.006), a_segment(12.012)], start=0, end=15 * CLOCK
    )
    assert [s.msn for s in segments] == [0, 1, 2]
    assert [s.start_us for s in segments] == [0, 6_006_000, 12_012_000]
    assert [s.duration_us for s in segments] == [6_006_000, 6_006_000, 2_988_000]
    assert sum(s.duration_us for s in segments) == 15_000_000


def test_the_first_segment_reaches_back_to_the_start() -> None:
    first, second = segments_of([a_segment(0), a_segment(6)], start=CLOCK // 50, end=8 * CLOCK)
    assert (first.start_us, first.duration_us) == (0, 6_020_000)
    assert second.start_us == 6_020_000


def test_a_segment_of_sound_before_the_first_picture() -> None:
    first, second = segments_of([a_segment(None), a_segment(0)], start=5 * CLOCK, end=9 * CLOCK)
    assert (first.duration_us, second.duration_us) == (5_000_000, 4_000_000)


def test_timestamps_that_turn_over_go_on() -> None:
    late = [
        WrittenSegment(1, "", (2**33 - CLOCK + n * 6 * CLOCK) % 2**33, clean=True) for n in range(3)
    ]
    segments = segments_of(late, start=0, end=18 * CLOCK)
    assert [s.duration_us for s in segments] == [6_000_000] * 3


@pytest.mark.parametrize(
    ("written", "end", "complaint"),
    [
        ([], CLOCK, "no time"),
        ([a_segment(None)], CLOCK, "no time"),
        ([a_segment(0)], 0, "no time"),
        ([a_segment(0), a_segment(None)], CLOCK, "timestamps"),
        ([a_segment(0), a_segment(6), a_segment(6)], 9 * CLOCK, "timestamps"),
        ([a_segment(0), a_segment(6)], 5 * CLOCK, "timestamps"),
    ],
)
def test_segments_that_make_no_title(
    written: list[WrittenSegment], end: int, complaint: str
) -> None:
    with pytest.raises(MediaError, match=complaint):
        segments_of(written, start=0, end=end)


def test_a_rendition_gets_the_figures_of_its_segments() -> None:
    segments = segments_of([a_segment(0, 600_000), a_segment(6, 900_000)], start=0, end=12 * CLOCK)
    track = Track("source", "avc1.64001F", 1280, 720, Fraction(25))
    rendition = rendition_of(track, segments, independent=True)
    assert (rendition.name, rendition.codecs, rendition.frame_rate) == (
        "source", "avc1.64001F", Fraction(25),
    )  # fmt: skip
    assert (rendition.bandwidth, rendition.average_bandwidth) == (1_200_000, 1_000_000)
    assert rendition.target_duration_s == 6
    assert rendition.independent_segments
    assert rendition.has_video
