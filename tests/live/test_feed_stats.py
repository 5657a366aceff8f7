from fractions import Fraction

from xbyte_live.live.feed_stats import Vitals

NOW = 1_760_000_000.0


def test_the_bit_rate_is_that_of_the_last_segments() -> None:
    vitals = Vitals(NOW)
    assert vitals.bit_rate == 0
    vitals.listed(10_000_000, 2_000_000)
    for _ in range(5):
        vitals.listed(250_000, 2_000_000)
    assert (vitals.bit_rate, vitals.segments, vitals.bytes) == (1_000_000, 6, 11_250_000)


def test_a_warning_is_new_once_and_shown_for_a_minute() -> None:
    vitals = Vitals(NOW)
    assert vitals.warn("storage", "the disk is full", NOW)
    assert not vitals.warn("storage", "the disk is full still", NOW + 30)
    assert vitals.warnings(NOW + 89) == {"storage": "the disk is full still"}
    assert vitals.warnings(NOW + 90) == {}
    assert vitals.warn("storage", "again", NOW + 90)


def test_what_is_still_true_is_still_shown() -> None:
    vitals = Vitals(NOW)
    vitals.still("keyframes", NOW)
    assert vitals.warnings(NOW) == {}
    vitals.warn("keyframes", "keyframe every 8 s", NOW)
    vitals.still("keyframes", NOW + 50)
    assert vitals.warnings(NOW + 100) == {"keyframes": "keyframe every 8 s"}


def test_warnings_are_few() -> None:
    vitals = Vitals(NOW)
    for number in range(20):
        vitals.warn(str(number), "something", NOW)
    assert list(vitals.warnings(NOW)) == [str(number) for number in range(12, 20)]


def test_it_is_described_in_plain_units() -> None:
    vitals = Vitals(NOW, encoder="OBS")
    assert vitals.describe(NOW)["frame_rate"] is None
    vitals.codecs, vitals.width, vitals.height = "avc1.64001f", 1280, 720
    vitals.frame_rate, vitals.keyframe_interval_us = Fraction(30000, 1001), 2_002_000
    vitals.warn("keyframes", "keyframe every 8 s", NOW)
    described = vitals.describe(NOW)
    assert described["frame_rate"] == 29.97
    assert described["keyframe_interval_s"] == 2.002
    assert described["warnings"] == [{"code": "keyframes", "text": "keyframe every 8 s"}]
    assert described["feed_since"] == NOW
