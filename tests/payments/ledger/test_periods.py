"""A cover is a period: each of its moments once, and nothing else."""

from hypothesis import example, given
from hypothesis import strategies as st

from xbyte_live.payments.ledger.periods import DAY, SLOT, Summed, cover

AROUND = 4 * DAY
moments = st.one_of(
    st.integers(0, AROUND).map(float),
    st.integers(0, AROUND // SLOT).map(lambda slot: float(slot * SLOT)),
)


@given(
    moments, moments, moments, st.integers(0, 3),
    st.sampled_from([(DAY,), (SLOT,), (DAY, SLOT)]), st.none() | st.integers(60, DAY), moments,
)  # fmt: skip
@example(0.0, float(AROUND), 2.5 * DAY, 1, (DAY, SLOT), None, 2.5 * DAY)
def test_each_moment_is_covered_once(
    since: float, until: float, summed: float, days: int, spans: tuple[int, ...],
    step: int | None, at: float,
) -> None:  # fmt: skip
    step = step if spans == (SLOT,) else None
    mark = Summed(summed, days * DAY)
    made = cover(since, until, mark, spans, step)
    told = 0
    for span, (first, beyond) in made.sums:
        start = at // span * span
        if first <= start < beyond and start not in made.without and at < summed:
            told += 1
            if step is not None:  # what is summed up to now of a span lies in one step
                last = min(start + span, summed) - 1e-3
                assert (start - since) // step == (last - since) // step
    told += sum(a <= at < b for a, b in made.rows)
    day = at // DAY * DAY
    if at < mark.detailed and at < summed:  # only its day is known
        assert made.past[0] <= day < made.past[1] if since <= day < until else told == 0
        assert told == 0
    else:
        assert told == (since <= at < until)


def test_whole_days_need_no_rows() -> None:
    mark = Summed(until=9.5 * DAY)
    assert cover(2.0 * DAY, 5.0 * DAY, mark, (DAY, SLOT)).rows == ()
    made = cover(2.0 * DAY, 10.0 * DAY, mark, (DAY, SLOT))
    assert made.rows == ((9.5 * DAY, 10.0 * DAY),)
    assert made.sums == ((DAY, (2.0 * DAY, 10.0 * DAY)),)


def test_too_many_odd_steps_are_left_to_the_rows() -> None:
    mark = Summed(until=9.5 * DAY)
    assert cover(60.0, 9.0 * DAY, mark, (SLOT,), 60).sums == ()
    assert cover(60.0, 9.0 * DAY, mark, (SLOT,), DAY).sums != ()
