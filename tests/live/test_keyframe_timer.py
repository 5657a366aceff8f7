import pytest

from xbyte_live.live.keyframe_timer import LONG, SHORT, KeyframeTimer


def beating(interval: float) -> KeyframeTimer:
    """Keyframes at 0 and ``interval`` seconds."""
    timer = KeyframeTimer()
    timer.keyframe(0.0)
    timer.keyframe(interval)
    return timer


def test_sound_alone_is_never_urgent() -> None:
    assert KeyframeTimer().gather_seconds(100.0) == LONG


def test_before_the_second_keyframe_nobody_knows() -> None:
    timer = KeyframeTimer()
    timer.keyframe(10.0)
    assert timer.gather_seconds(11.0) == SHORT


def test_in_the_middle_of_a_group_nothing_is_urgent() -> None:
    assert beating(2.0).gather_seconds(3.0) == LONG


@pytest.mark.parametrize("now", [2.0, 2.05, 3.95, 4.0, 4.3])
def test_around_a_keyframe_everything_is(now: float) -> None:
    assert beating(2.0).gather_seconds(now) == SHORT


def test_nobody_sleeps_past_the_time_a_keyframe_may_come() -> None:
    timer = beating(2.0)
    for step in range(2080, 4000):
        now = step / 1000
        assert now + timer.gather_seconds(now) < 4.0 or timer.gather_seconds(now) == SHORT


def test_a_keyframe_that_does_not_come_is_not_waited_for_like_that() -> None:
    assert SHORT < beating(2.0).gather_seconds(5.0) < LONG


def test_groups_of_one_picture_are_always_urgent() -> None:
    assert beating(1 / 30).gather_seconds(1 / 30 + 0.02) == SHORT
