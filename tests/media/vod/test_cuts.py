"""Where a title is cut, and the figures a playlist gets from the result."""

from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbyte_live.media.vod.cuts import (
    average_bit_rate,
    even_length,
    peak_bit_rate,
    plan_cuts,
    target_duration,
    thinned,
    widest_gap,
)
from xbyte_live.models import Segment

S = 1_000_000
TARGET = 6 * S


def made_of(*parts: tuple[float, int]) -> list[Segment]:
    """Segments of given seconds and bytes."""
    return [
        Segment(msn, size, 0, round(seconds * S), "0" * 64)
        for msn, (seconds, size) in enumerate(parts)
    ]


def every(seconds: float, end: float) -> list[int]:
    return [round(n * seconds * S) for n in range(int(end / seconds) + 1) if n * seconds < end]


@pytest.mark.parametrize(
    ("keyframes", "end", "cuts"),
    [
        (every(2, 20), 20, [6, 12, 18]),
        (every(4, 20), 20, [4, 8, 12, 16]),
        (every(5, 20), 20, [5, 10, 15]),
        (every(10, 40), 40, [10, 20, 30]),
        (every(60, 6), 6, []),
        ([], 5, []),
        ([0, 5_900_000, 16_000_000], 20, [5.9, 16]),
        ([21_000, 6_021_000], 12.021, [6.021]),
        ([5_000_000, 9_000_000], 14, [5, 9]),
        (every(2, 7), 7, [6]),
    ],
)
def test_cuts_lie_near_the_target(keyframes: list[int], end: float, cuts: list[float]) -> None:
    assert plan_cuts(keyframes, round(end * S), TARGET) == tuple(round(cut * S) for cut in cuts)


gaps = st.lists(st.integers(1, 2 * TARGET), min_size=1, max_size=60)


@given(gaps, st.integers(1, 2 * TARGET))
def test_no_segment_lasts_more_than_twice_the_target(gaps: list[int], tail: int) -> None:
    keyframes = [0, *accumulate(gaps)]
    end = keyframes[-1] + tail
    cuts = plan_cuts(keyframes, end, TARGET)
    assert set(cuts) <= set(keyframes)
    assert all(0 < b - a <= 2 * TARGET for a, b in pairwise((0, *cuts, end)))


@given(st.integers(1, 10**12), st.integers(10**5, 10**8))
def test_sound_is_divided_evenly(total: int, target: int) -> None:
    length = even_length(total, target)
    count = -(-total // length)
    assert length <= max(target * 21 / 20 + 1, 1)
    assert count * length - total < length / 2 + count or count == 1


def test_stray_samples_are_no_segment() -> None:
    assert even_length(300 * S + 21_333, TARGET) == -(-(300 * S + 21_333) // 50)


@given(st.lists(st.integers(0, 10**6)).map(sorted), st.integers(0, 10**5))
def test_thinning_keeps_the_first_and_the_distance(times: list[int], spacing: int) -> None:
    kept = list(thinned(times, spacing))
    assert kept[:1] == times[:1]
    assert all(b - a >= spacing for a, b in pairwise(kept))
    assert not times or all(min(abs(time - k) for k in kept) <= spacing for time in times)


def test_the_widest_gap_counts_both_ends() -> None:
    assert widest_gap([3 * S, 5 * S], 6 * S) == 3 * S
    assert widest_gap([1 * S], 9 * S) == 8 * S
    assert widest_gap([], 4 * S) == 4 * S


@pytest.mark.parametrize(
    ("seconds", "target"), [(0.1, 1), (5.499, 5), (5.5, 6), (6.006, 6), (6.6, 7)]
)
def test_target_duration_is_the_longest_rounded(seconds: float, target: int) -> None:
    assert target_duration(made_of((1, 1), (seconds, 1))) == max(1, target)


def test_peak_rate_is_that_of_runs_about_a_target_long() -> None:
    segments = made_of((6, 600_000), (6, 900_000), (6, 600_000), (0.04, 90_000))
    assert peak_bit_rate(segments, 6) == 1_200_000
    assert average_bit_rate(segments) == -(-2_190_000 * 8_000_000 // 18_040_000)


def test_a_title_shorter_than_its_target_has_its_average_as_peak() -> None:
    assert (
        peak_bit_rate(made_of((0.3, 1000)), 1) == average_bit_rate(made_of((0.3, 1000))) == 26_667
    )


parts = st.lists(st.tuples(st.floats(0.5, 9), st.integers(1, 10**7)), min_size=1, max_size=20)


@given(parts)
def test_the_peak_is_no_less_than_the_average(parts: list[tuple[float, int]]) -> None:
    segments = made_of(*parts)
    target = target_duration(segments)
    full = [s for s in segments if s.duration_us * 2 >= target * S]
    assert peak_bit_rate(segments, target) >= max(s.size * 8 * S // s.duration_us for s in full)
