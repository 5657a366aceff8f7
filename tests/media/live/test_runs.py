"""Runs and cuts of a live feed, frame by frame, without any media."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbyte_live.media.formats.mpegts import CLOCK
from xbyte_live.media.live.cuts import Cut, ProgramClock, SegmentCutter, TargetDuration
from xbyte_live.media.live.runs import FrameAction, Runs, Unit

GO, DROP, START = FrameAction.KEEP, FrameAction.DROP, FrameAction.START
NONE, KEYFRAME, POLICY, OVER = Cut


def key(ms: int, config: object = "v") -> Unit:
    return Unit(True, ms, True, config)


def frame(ms: int, config: object = "v") -> Unit:
    return Unit(True, ms, False, config)


def sound(ms: int, config: object = "a") -> Unit:
    return Unit(False, ms, True, config)


def started(*units: Unit) -> Runs:
    """A run of these, to which no other track is added."""
    runs = Runs()
    for unit in units:
        runs.judge(unit)
    runs.seal()
    return runs


CASES: tuple[tuple[str, tuple[Unit, ...], tuple[Unit, ...], tuple[FrameAction, ...]], ...] = (
    ("goes on", (key(0), sound(0)), (frame(40), sound(21), key(80)), (GO, GO, GO)),
    ("a step back of a second", (key(5000),), (frame(4000), frame(5040)), (GO, GO)),
    ("a stray frame", (key(5000),), (frame(3900), frame(5040)), (DROP, GO)),
    ("a pause", (key(0),), (frame(10_000),), (GO,)),
    ("a jump", (key(0),), (frame(10_001), key(10_041)), (DROP, START)),
    ("sound left on the old clock", (key(90_000), sound(90_000)),
     (key(0), sound(90_021), frame(40), sound(21)), (START, DROP, GO, GO)),
    ("sound first on the new clock", (key(90_000), sound(90_000)),
     (sound(0), frame(90_040), key(20), sound(21)), (DROP, GO, START, GO)),
    ("new parameters", (key(0),), (frame(40, "w"), key(80, "w")), (DROP, START)),
    ("late sound", (key(0),), (sound(40), frame(80), key(120), sound(130)),
     (DROP, GO, START, GO)),
    ("late pictures", (sound(0),), (frame(40), sound(50), key(80)), (DROP, GO, START)),
    ("other sound", (key(0), sound(0)), (sound(21, "b"), key(40), sound(42, "b")),
     (DROP, START, GO)),
    ("other sound alone", (sound(0),), (sound(21, "b"),), (START,)),
    ("a wild sound alone", (sound(0),), (sound(50_000), sound(21)), (DROP, GO)),
    ("sound alone on a new clock", (sound(0),), (sound(50_000), sound(50_021), sound(50_042)),
     (DROP, DROP, START)),
)  # fmt: skip


@pytest.mark.parametrize(
    ("before", "units", "actions"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_what_starts_a_run(
    before: tuple[Unit, ...], units: tuple[Unit, ...], actions: tuple[FrameAction, ...]
) -> None:
    runs = started(*before)
    assert tuple(map(runs.judge, units)) == actions


def test_a_track_joins_a_run_that_is_open() -> None:
    runs = Runs()
    assert [runs.judge(unit) for unit in (sound(0), frame(10), key(40), sound(21))] == [
        START, DROP, GO, GO,
    ]  # fmt: skip
    assert not runs.waits_for_keyframe


def test_a_track_far_away_does_not_join() -> None:
    runs = Runs()
    runs.judge(key(0))
    assert runs.judge(sound(9000)) is DROP


def test_a_feed_without_keyframes_starts_after_nine_seconds() -> None:
    runs = Runs()
    actions = [runs.judge(frame(ms)) for ms in range(0, 9200, 40)]
    assert actions.index(START) == 225
    assert set(actions[226:]) == {GO}


def test_a_day_is_as_long_as_a_run_gets() -> None:
    hour = 3_600_000
    runs = started(key(0))
    for ms in range(0, 24 * hour + 1, 9000):
        assert runs.judge(key(ms)) is GO
    assert runs.judge(frame(24 * hour + 5000)) is GO
    assert runs.judge(key(24 * hour + 9000)) is START


UNITS = st.builds(
    Unit,
    st.booleans(),
    st.one_of(st.integers(0, 20_000), st.integers(-(2**40), 2**40)),
    st.booleans(),
    st.sampled_from("ab"),
)


@given(st.lists(UNITS, max_size=60), st.integers(0, 60))
def test_a_run_begins_with_a_start_and_holds_one_configuration(
    units: list[Unit], seal_at: int
) -> None:
    runs, configs = Runs(), dict[bool, object]()
    for number, unit in enumerate(units):
        action = runs.judge(unit)
        if action is START:
            configs = {}
        elif action is GO:
            assert configs
        if action is not DROP:
            assert configs.setdefault(unit.video, unit.config) == unit.config
        if number == seal_at:
            runs.seal()


def pace(target_s: float = 2, longest_s: float = 10, declared_s: int = 0) -> SegmentCutter:
    target = TargetDuration(round(target_s * CLOCK), round(longest_s * CLOCK), declared_s)
    return SegmentCutter(target, video=True)


def cuts(pace: SegmentCutter, times_s: list[float], keys_s: set[float]) -> list[Cut]:
    step = CLOCK // 25
    return [
        pace.leading(round(at * CLOCK), round(at * CLOCK), step, 1000, key=at in keys_s)
        for at in times_s
    ]


def test_cuts_lie_at_keyframes_near_the_target() -> None:
    keys = {0.0, 1.0, 1.92, 3.8, 4.0}
    assert cuts(pace(), [0.0, 1.0, 1.92, 3.8, 4.0], keys) == [NONE, NONE, KEYFRAME, NONE, KEYFRAME]


def test_a_segment_without_a_keyframe_is_cut_before_it_is_too_long() -> None:
    times = [number / 25 for number in range(300)]
    first = cuts(pace(), times, {0.0})
    assert times[first.index(POLICY)] == pytest.approx(10.28)
    resumed = cuts(pace(declared_s=2), times, {0.0})
    assert times[resumed.index(POLICY)] == pytest.approx(2.28)


def test_a_hole_longer_than_a_segment_ends_the_run() -> None:
    assert cuts(pace(declared_s=2), [0.0, 2.44, 5.0], {0.0, 5.0}) == [NONE, POLICY, OVER]


def test_sound_beside_pictures_does_not_make_a_segment_too_long() -> None:
    paced = pace(declared_s=2)
    paced.leading(0, 0, 3600, 1000, key=True)
    assert paced.other(2 * CLOCK, 1920, 100) is NONE
    assert paced.other(5 * CLOCK // 2, 1920, 100) is OVER


@given(
    st.lists(st.tuples(st.integers(1, 4 * CLOCK), st.booleans()), min_size=1, max_size=80),
    st.integers(0, 6),
    st.booleans(),
)
def test_no_segment_is_longer_than_was_declared(
    steps: list[tuple[int, bool]], declared_s: int, video: bool
) -> None:
    target = TargetDuration(2 * CLOCK, 10 * CLOCK, declared_s)
    paced, at, begins = SegmentCutter(target, video=video), 0, 0
    paced.leading(0, 0, steps[0][0], 10, key=True)
    for step, is_key in steps:
        at += step
        cut = paced.leading(at, at, step, 10, key=is_key or not video)
        if cut is OVER:
            return
        if cut is not NONE:
            lasted = at - begins
            begins = at
            assert (lasted + CLOCK // 2) // CLOCK <= target.declare(lasted)


def test_the_target_duration_is_declared_once() -> None:
    target = TargetDuration(2 * CLOCK, 10 * CLOCK)
    assert target.declare(4 * CLOCK) == 4
    assert target.declare(9 * CLOCK) == 4
    assert TargetDuration(2 * CLOCK, 10 * CLOCK).declare(CLOCK) == 2
    assert TargetDuration(2 * CLOCK, 10 * CLOCK, 3).declare(9 * CLOCK) == 3


@given(st.integers(0, 10**9), st.lists(st.tuples(st.integers(0, 10**9), st.integers(1, 10**7))))
def test_the_clock_on_air_never_goes_back(floor: int, runs: list[tuple[int, int]]) -> None:
    clock, end = ProgramClock(floor), floor
    for now, duration in runs:
        clock.begin(now)
        for offset in (0, duration, 2 * duration):
            at = clock.stamp(offset, duration)
            assert at >= end
            end = at + duration
