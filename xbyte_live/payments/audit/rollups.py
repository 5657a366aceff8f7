"""Adapter: the SQL of where ``sums`` are not what the rows say that they sum.

A day is compared at a time, and in the database, so that millions of rows take no more memory
than a few. Of days whose details went only items are known, from what they were rolled up into
and the rows that stayed; how many plays they had is known from their sums alone.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Float,
    Select,
    case,
    cast,
    func,
    literal,
    null,
    or_,
    select,
    union_all,
)

from xbyte_live.payments.ledger.periods import DAY, SLOT, Summed
from xbyte_live.payments.ledger.retention import BOUGHT, DRAWS
from xbyte_live.payments.ledger.rollup import EVERY, Key, Kind, read_mark
from xbyte_live.payments.ledger.sales_sql import LEDGERS, Steps, Which, counted, events
from xbyte_live.storage.db.tables import earnings, purchases, sessions, sums

FIGURES = ("income", "amount", "bytes", "deliveries", "plays")  # the most telling first
FIRST, LAST = "first_at", "last_at"
_PAGE = 500  # differences of a day in memory

Advance = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Figures:
    """What is, or should be, in a row of ``sums``; without times there is, or should be, none."""

    income: int
    amount: int
    bytes: int
    deliveries: int
    plays: int
    first_at: float | None
    last_at: float | None


@dataclass(frozen=True, slots=True)
class Difference:
    """A row of ``sums`` that is not what it should be; ``detailed`` if its plays are known."""

    key: Key
    summed: Figures
    real: Figures
    detailed: bool

    @property
    def about(self) -> str:
        """Which sum it is, for people."""
        kind, scope, span, name, at = self.key
        begin = datetime.fromtimestamp(at, UTC)
        when = f"{begin:%Y-%m-%d}" if span == DAY else f"the {span // 60} min from {begin:%FT%RZ}"
        what = "all items" if kind == "all" else f"{kind} {name or '(none)'}"
        return f"{what}{'' if scope == EVERY else f' of {scope}'}, {when}"

    @property
    def worst(self) -> str:
        """The figure that tells most of those that differ."""
        of = (name for name in FIGURES if getattr(self.summed, name) != getattr(self.real, name))
        return next(of, FIRST)


@dataclass(frozen=True, slots=True)
class _Grouping:
    """Some rows of ``sums``, and how what happened makes them."""

    kind: Kind
    span: int
    scope: str | None = None  # a column of what happened; else all items
    name: str | None = None


_OF_ITEMS = (_Grouping("all", DAY), _Grouping("item", DAY, name="slug"))
_GROUPINGS = (
    *_OF_ITEMS,
    _Grouping("all", SLOT),
    _Grouping("item", SLOT, name="slug"),
    _Grouping("payer", DAY, name="payer"),
    _Grouping("payer", DAY, "slug", "payer"),
    _Grouping("resource", DAY, "slug", "part"),
)


def differences(db: Connection, advance: Advance) -> Iterator[Difference]:
    """Every difference there is, on one snapshot; ``advance`` is told days done and all days."""
    days = known_days(db)
    for done, day in enumerate(days, 1):
        yield from differences_of(db, day)
        advance(done, len(days))


def differences_of(db: Connection, day: int) -> Generator[Difference]:
    """The same of a day, which is named by when it begins."""
    mark = read_mark(db)
    for grouping in _OF_ITEMS if day < mark.detailed else _GROUPINGS:
        yield from _of_grouping(db, mark, day, grouping)


def known_days(db: Connection) -> list[int]:
    """When the days begin that anything is known of."""
    mark = read_mark(db)
    begins = sums.c.at - sums.c.at % DAY
    days = {int(day) for day in db.execute(select(begins).distinct()).scalars()}
    days |= {day * DAY for day in db.execute(select(earnings.c.day).distinct()).scalars()}
    times = (*((ledger.rows.c[ledger.at], counted(ledger)) for ledger in LEDGERS),
             (sessions.c.closed_at, []), (purchases.c.created_at, []))  # fmt: skip
    for at, where in times:
        after = 0.0
        earliest = select(at).where(at < mark.until, *where).order_by(at).limit(1)
        while (found := db.execute(earliest.where(at >= after)).scalar()) is not None:
            days.add(int(found // DAY * DAY))
            after = float(found // DAY * DAY + DAY)
    return sorted(days)


def _of_grouping(
    db: Connection, mark: Summed, day: int, grouping: _Grouping
) -> Iterator[Difference]:
    detailed = day >= mark.detailed
    happened = [events(Which(((day, min(day + DAY, mark.until)),)))]
    if not detailed:
        happened.append(_rolled_up(day))
    query = _compared(day, grouping, union_all(*happened).subquery().c, detailed=detailed)
    with db.execute(query, execution_options={"yield_per": _PAGE}) as rows:
        for row in rows:
            key = Key(grouping.kind, row.scope, grouping.span, row.name, int(row.at))
            yield Difference(key, _figures(row, "summed"), _figures(row, "real"), detailed)


def _rolled_up(day: int) -> Select[Any]:
    """What a day was rolled up into, as what happened when it began."""
    e = earnings.c
    is_bought = e.scheme.endswith(BOUGHT)
    nobody = (literal("").label(name) for name in ("payer", "part"))
    sold = (case((is_bought, 0), else_=value) for value in (e["count"], e.bytes, e.amount))
    deliveries, size, amount = sold
    income = case((e.scheme == DRAWS, 0), else_=e.amount)
    none = literal(0, BigInteger)
    columns = (cast(e.day * DAY, Float), e.slug, *nobody, deliveries, none, size, amount, income)
    return select(*columns).where(e.day == day // DAY)


def _compared(day: int, grouping: _Grouping, e: Any, *, detailed: bool) -> Select[Any]:
    """Both sides of a day next to each other, where they differ."""
    s, none, never = sums.c, literal(0, BigInteger), cast(null(), Float)
    names = (*FIGURES, FIRST, LAST)
    absent = (*(none for _ in FIGURES), never, never)
    scope = literal(EVERY) if grouping.scope is None else e[grouping.scope]
    is_scope = s.scope == EVERY if grouping.scope is None else s.scope != EVERY
    name = literal("") if grouping.name is None else e[grouping.name]
    at = Steps(0.0, grouping.span).number(e.at) * grouping.span
    summed = select(
        s.scope, s.name, s.at,
        *(s[name].label(f"summed_{name}") for name in names),
        *(value.label(f"real_{name}") for name, value in zip(names, absent, strict=True)),
    ).where(
        s.kind == grouping.kind, s.span == grouping.span, is_scope, s.at >= day, s.at < day + DAY
    )  # fmt: skip
    real = select(scope, name, at, *absent, *(e[name] for name in FIGURES), e.at, e.at)
    if grouping.name in ("payer", "part"):  # what nobody paid for stands with the items alone
        real = real.where(e[grouping.name] != "")
    sides = union_all(summed, real).subquery().c
    by = (sides.scope, sides.name, sides.at)
    hows: dict[str, Any] = {**dict.fromkeys(FIGURES, func.sum), FIRST: func.min, LAST: func.max}
    columns = [f"{side}_{name}" for side in ("summed", "real") for name in names]
    found = {name: hows[name.partition("_")[2]](sides[name]) for name in columns}
    known = names if detailed else tuple(name for name in FIGURES if name != "plays")
    differs: list[ColumnElement[bool]] = [
        found[f"summed_{name}"].is_distinct_from(found[f"real_{name}"]) for name in known
    ]
    both = (value.label(name) for name, value in found.items())
    return select(*by, *both).group_by(*by).having(or_(*differs))


def _figures(row: Any, side: str) -> Figures:
    whole = (int(getattr(row, f"{side}_{name}")) for name in FIGURES)
    return Figures(*whole, *(getattr(row, f"{side}_{name}") for name in (FIRST, LAST)))
