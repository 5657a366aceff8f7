"""Every packet gets its place: rising decoding times, no holes where a container leaves out."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbyte_live.errors import MediaError
from xbyte_live.media.formats.mpegts import CLOCK
from xbyte_live.media.formats.timeline import MAX_TICKS, Stamp, Timeline, from_ticks, micros, ticks

STEP = CLOCK // 30
VIDEO, AUDIO = 0, 1


def line(*first: Stamp, origin: int = 0, splices: bool = False) -> Timeline:
    timeline = Timeline(origin, splices=splices)
    timeline.add_track(VIDEO, first=first, step=STEP)
    timeline.add_track(AUDIO, first=(), step=1920)
    return timeline


@given(st.integers(-(2**50), 2**50), st.sampled_from([1000, 15360, 44100, 48000, 90000, 14112000]))
def test_ticks_are_the_nearest(value: int, rate: int) -> None:
    exact = Fraction(value * CLOCK, rate)
    assert abs(ticks(value, Fraction(1, rate)) - exact) <= Fraction(1, 2)
    assert abs(micros(value) - Fraction(value * 100, 9)) <= Fraction(1, 2)


@given(st.integers(-(2**40), 2**40), st.sampled_from([1000, 15360, 44100, 48000, 90000]))
def test_a_time_there_and_back(value: int, rate: int) -> None:
    base = Fraction(1, rate)
    assert from_ticks(ticks(value, base), base) == value or rate > CLOCK


def test_packets_keep_their_distances_from_the_origin() -> None:
    timeline = line(origin=1000)
    assert timeline.place(VIDEO, Stamp(1000 + 6000, 1000, STEP)) == (6000, 0)
    assert timeline.place(VIDEO, Stamp(1000 + 15000, 4000, STEP)) == (15000, 3000)
    assert timeline.place(AUDIO, Stamp(100, 100, 1920)) == (-900, -900)
    assert timeline.end == 15000 + STEP


def test_decoding_times_matroska_leaves_out_are_counted_back() -> None:
    first = (Stamp(1890, None), Stamp(10890, None), Stamp(4860, 1890), Stamp(7920, 4860))
    timeline = line(*first)
    placed = [timeline.place(VIDEO, stamp) for stamp in first]
    assert [dts for _, dts in placed] == [1890 - 2 * STEP, 1890 - STEP, 1890, 4860]
    assert [pts for pts, _ in placed] == [1890, 10890, 4860, 7920]


def test_a_missing_decoding_time_on_the_way_follows_the_last() -> None:
    timeline = line()
    timeline.place(VIDEO, Stamp(0, 0, STEP))
    assert timeline.place(VIDEO, Stamp(9000, None, STEP)) == (9000, STEP)
    assert timeline.place(VIDEO, Stamp(None, None, STEP)) == (2 * STEP, 2 * STEP)


def test_a_presentation_time_beyond_reason_is_not_believed() -> None:
    timeline = line()
    timeline.place(VIDEO, Stamp(0, 0, STEP))
    assert timeline.place(VIDEO, Stamp(900 * CLOCK, STEP, STEP)) == (STEP, STEP)


def test_what_is_not_shown_lengthens_nothing() -> None:
    timeline = line()
    timeline.place(VIDEO, Stamp(0, 0, STEP))
    timeline.place(VIDEO, Stamp(STEP, STEP, STEP), shown=False)
    assert timeline.end == STEP
    timeline.place(AUDIO, Stamp(2 * STEP, 2 * STEP, 1920))
    timeline.trim(AUDIO, 500)
    assert timeline.end == 2 * STEP + 1920 - 500


@pytest.mark.parametrize("jump", [3600 * CLOCK, -5 * CLOCK, 2**33 - CLOCK])
def test_a_spliced_broadcast_goes_on_without_a_gap(jump: int) -> None:
    timeline = line(splices=True)
    for n in range(30):
        timeline.place(VIDEO, Stamp(n * STEP, n * STEP, STEP))
        timeline.place(AUDIO, Stamp(n * 3000, n * 3000, 3000))
    # the sound before the splice may come after the pictures behind it
    assert timeline.place(VIDEO, Stamp(jump, jump, STEP))[1] == 30 * STEP
    assert timeline.place(AUDIO, Stamp(90_000, 90_000, 3000))[1] == 90_000
    assert timeline.place(VIDEO, Stamp(jump + STEP, jump + STEP, STEP))[1] == 31 * STEP
    assert timeline.place(AUDIO, Stamp(jump + 3000, jump + 3000, 3000))[1] == 93_000


def test_a_pause_of_a_broadcast_is_kept() -> None:
    timeline = line(splices=True)
    timeline.place(VIDEO, Stamp(0, 0, STEP))
    assert timeline.place(VIDEO, Stamp(9 * CLOCK, 9 * CLOCK, STEP))[1] == 9 * CLOCK


def test_a_jump_of_hours_elsewhere_is_damage() -> None:
    timeline = line()
    timeline.place(VIDEO, Stamp(0, 0, STEP))
    with pytest.raises(MediaError, match="more than an hour"):
        timeline.place(VIDEO, Stamp(3601 * CLOCK, 3601 * CLOCK, STEP))


def test_more_than_mpeg_ts_can_count_is_refused() -> None:
    timeline = line()
    for hour in range(26):
        timeline.place(VIDEO, Stamp(hour * 3600 * CLOCK, hour * 3600 * CLOCK, STEP))
    with pytest.raises(MediaError, match="26 hours"):
        timeline.place(VIDEO, Stamp(MAX_TICKS, MAX_TICKS, STEP))


times = st.none() | st.integers(-(2**34), 2**34) | st.integers(-CLOCK, 20 * CLOCK)
stamps = st.builds(Stamp, pts=times, dts=times, duration=st.integers(0, 2**34))


@given(st.lists(st.tuples(st.sampled_from([VIDEO, AUDIO]), stamps), max_size=40), st.booleans())
def test_whatever_a_file_says_times_rise(packets: list[tuple[int, Stamp]], splices: bool) -> None:
    first = tuple(stamp for index, stamp in packets if index == VIDEO)[:8]
    timeline = line(*first, splices=splices)
    last: dict[int, int] = {}
    try:
        for index, stamp in packets:
            pts, dts = timeline.place(index, stamp)
            assert dts <= pts
            assert dts > last.get(index, dts - 1)
            last[index] = dts
    except MediaError:
        pass
