"""Pure: covers a period with sums of days, sums of slots, and rows.

Everything before ``Summed.until`` is in the sums; before ``Summed.detailed`` they tell no more
than what an item earned in a day.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

DAY = 86_400
SLOT = 900  # time zones differ by whole slots, so that days and hours are made of them anywhere

_RANGES = 250  # parts of a period that one statement asks the rows for

Range = tuple[float, float]  # from the first on and before the second


@dataclass(frozen=True, slots=True)
class Summed:
    """Before which moments (Unix seconds) rows are summed, and only days of items are known.

    While ``is_dropping`` the sums of what is later are on their way out, and nothing is summed.
    """

    until: float = 0.0
    detailed: int = 0
    is_dropping: bool = False


@dataclass(frozen=True, slots=True)
class Cover:
    """What a period is made of, each moment of it once.

    ``past``: days of which only items are known; they count where they begin. ``sums``: which
    spans of what length, but for those that begin at one of ``without``. ``rows``: the rest.
    """

    past: Range
    sums: tuple[tuple[int, Range], ...]
    rows: tuple[Range, ...]
    without: tuple[int, ...] = ()


def cover(
    since: float, until: float, summed: Summed, spans: Sequence[int], step: int | None = None
) -> Cover:
    """Cover a period by sums of some ``spans``, the longest first.

    With a ``step`` no sum lies in two steps (counted from ``since``).
    """
    past = (_up(since, DAY), min(_up(until, DAY), float(summed.detailed)))
    begin, end = max(since, float(summed.detailed)), min(until, summed.until)
    tail = ((max(since, summed.until), until),) if until > max(since, summed.until) else ()
    if begin >= end:
        return Cover(past, (), tail)
    crossed = _crossed(since, begin, end, step) if step else []
    if crossed is None:
        return Cover(past, (), ((begin, end), *tail))
    sums: list[tuple[int, Range]] = []
    rows: list[Range] = []
    # Sums hold nothing that is not summed, so that the last of them is never too long.
    _fill(begin, _up(end, DAY) if until >= summed.until else end, spans, sums, rows)
    without = [at for at in crossed if any(a <= at < b for _, (a, b) in sums)]
    rows += [(float(at), float(at + SLOT)) for at in without]
    within = [(a, min(b, end)) for a, b in rows if a < end]
    return Cover(past, tuple(sums), (*within, *tail), tuple(without))


def _fill(
    since: float,
    until: float,
    spans: Sequence[int],
    sums: list[tuple[int, Range]],
    rows: list[Range],
) -> None:
    """Take as many of the longest spans as there is room for, and fill up both sides."""
    if since >= until:
        return
    if not spans:
        rows.append((since, until))
        return
    span, finer = spans[0], spans[1:]
    first, beyond = _up(since, span), until // span * span
    if first >= beyond:
        _fill(since, until, finer, sums, rows)
        return
    sums.append((span, (first, beyond)))
    _fill(since, first, finer, sums, rows)
    _fill(beyond, until, finer, sums, rows)


def _crossed(since: float, begin: float, end: float, step: int) -> list[int] | None:
    """The slots in which a step begins after them; ``None`` if they are too many to name."""
    if since % SLOT == 0 and step % SLOT == 0:
        return []
    if (end - begin) / step > _RANGES:
        return None
    first, beyond = math.floor((begin - since) / step), math.ceil((end - since) / step)
    bounds = [since + number * step for number in range(first, beyond + 1)]
    return sorted({int(at // SLOT * SLOT) for at in bounds if at % SLOT})


def _up(at: float, span: int) -> float:
    return float(math.ceil(at / span) * span)
