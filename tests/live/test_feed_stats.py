from fractions import Fraction

from xbyte_live.live.feed_stats import FeedStats

NOW = 1_760_000_000.0


def test_the_bit_rate_is_that_of_the_last_segments() -> None:
    stats = FeedStats(NOW)
    assert stats.bit_rate == 0
    stats.add_segment(10_000_000, 2_000_000)
    for _ in range(5):
        stats.add_segment(250_000, 2_000_000)
    assert (stats.bit_rate, stats.segments, stats.bytes) == (1_000_000, 6, 11_250_000)


def test_a_warning_is_new_once_and_shown_for_a_minute() -> None:
    stats = FeedStats(NOW)
    assert stats.warn("storage", "the disk is full", NOW)
    assert not stats.warn("storage", "the disk is full still", NOW + 30)
    assert stats.warnings(NOW + 89) == {"storage": "the disk is full still"}
    assert stats.warnings(NOW + 90) == {}
    assert stats.warn("storage", "again", NOW + 90)


def test_what_is_still_true_is_still_shown() -> None:
    stats = FeedStats(NOW)
    stats.keep_warning("keyframes", NOW)
    assert stats.warnings(NOW) == {}
    stats.warn("keyframes", "keyframe every 8 s", NOW)
    stats.keep_warning("keyframes", NOW + 50)
    assert stats.warnings(NOW + 100) == {"keyframes": "keyframe every 8 s"}


def test_warnings_are_few() -> None:
    stats = FeedStats(NOW)
    for number in range(20):
        stats.warn(str(number), "something", NOW)
    assert list(stats.warnings(NOW)) == [str(number) for number in range(12, 20)]


def test_it_is_described_in_plain_units() -> None:
    stats = FeedStats(NOW, encoder="OBS")
    assert stats.describe(NOW)["frame_rate"] is None
    stats.codecs, stats.width, stats.height = "avc1.64001f", 1280, 720
    stats.frame_rate, stats.keyframe_interval_us = Fraction(30000, 1001), 2_002_000
    stats.warn("keyframes", "keyframe every 8 s", NOW)
    described = stats.describe(NOW)
    assert described["frame_rate"] == 29.97
    assert described["keyframe_interval_s"] == 2.002
    assert described["warnings"] == [{"code": "keyframes", "text": "keyframe every 8 s"}]
    assert described["feed_since"] == NOW
