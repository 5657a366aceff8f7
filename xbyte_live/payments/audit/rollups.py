"""Adapter: the sums of reports checked against the rows that they sum, and summed again.

A check adds up each day of an item in the database, once from ``sums`` and once from the rows, so
that millions of rows take no more memory than a few. Of days whose details went only items are
known, from what they were rolled up into and the rows that stayed; how many plays they had is
known from their sums alone. Summing again drops every sum that rows can bring back: reports read
the rows until then, so that they are right all the while.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Float,
    Integer,
    Select,
    String,
    and_,
    case,
    cast,
    delete,
    func,
    literal,
    null,
    or_,
    select,
    true,
    union_all,
)

from xbyte_live.payments.ledger.periods import DAY, SLOT
from xbyte_live.payments.ledger.retention import BOUGHT, DRAWS
from xbyte_live.payments.ledger.rollup import EVERY, Key, Rollup, drop_sums, lock_mark, read_mark
from xbyte_live.payments.ledger.sales_sql import Steps, Which, events
from xbyte_live.storage.db.dialect import insert_into
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.db.tables import earnings, sums

FIGURES = ("income", "amount", "bytes", "deliveries")  # the most telling first
DETAILS = ("plays", "first_at", "last_at")  # not known of days that were rolled up
_PAGE = 500  # differences in memory

# Which sums are made of what happened: their kind and span, whether an item at a time, of whom.
_GROUPINGS = (
    ("all", DAY, False, ""),
    ("all", SLOT, False, ""),
    ("item", DAY, True, ""),
    ("item", SLOT, True, ""),
    ("payer", DAY, False, "has_payer"),
    ("payer", DAY, True, "has_payer"),
    ("resource", DAY, True, "has_part"),
)


@dataclass(frozen=True, slots=True)
class WrongSum:
    """Sums of one kind that do not add up to the rows of a day (of one item where it has a slug).

    ``figure`` names the one that tells most, ``summed`` and ``real`` are its values.
    """

    kind: str
    span: int
    slug: str
    day: int
    figure: str
    summed: int
    real: int

    @property
    def about(self) -> str:
        """Which sums these are, for people."""
        item = f"item {self.slug}" if self.slug else "all items"
        what = item if self.kind in ("all", "item") else f"{self.kind}s of {item}"
        span = "" if self.span == DAY else f" by {self.span // 60} min"
        return f"{what}{span}, {datetime.fromtimestamp(self.day, UTC):%Y-%m-%d}"


def wrong_sums(db: Connection) -> Iterator[WrongSum]:
    """Every disagreement there is between sums and rows, on one snapshot."""
    names = (*FIGURES, *DETAILS)
    with db.execute(_compared(db), execution_options={"yield_per": _PAGE}) as rows:
        for row in rows:
            values = {n: (getattr(row, f"summed_{n}"), getattr(row, f"real_{n}")) for n in names}
            figure = next(name for name, (summed, real) in values.items() if summed != real)
            summed, real = values[figure]
            key = (row.kind, row.span, row.slug, int(row.day))
            yield WrongSum(*key, figure, int(summed or 0), int(real or 0))


def _compared(db: Connection) -> Select[Any]:
    """Both sides of each day next to each other, where they differ."""
    mark = read_mark(db)
    happened = union_all(events(Which(((0.0, mark.until),))), _rolled_up()).subquery().c
    day = (Steps(0.0, DAY).number(happened.at) * DAY).label("day")
    has = (happened.payer != "", happened.part != "")
    facts = (
        select(
            day, happened.slug, has[0].label("has_payer"), has[1].label("has_part"),
            *(func.sum(happened[n]).label(n) for n in (*FIGURES, "plays")),
            func.min(happened.at).label("first_at"), func.max(happened.at).label("last_at"),
        ).group_by(day, happened.slug, *has)
    ).cte()  # fmt: skip
    names = (*FIGURES, *DETAILS)
    none = [literal(0, BigInteger)] * (len(FIGURES) + 1) + [cast(null(), Float)] * 2
    s, f = sums.c, facts.c
    item = case((s.kind == "item", s.name), (s.scope != EVERY, s.scope), else_="")
    sides = union_all(
        select(
            s.kind, s.span, item.label("slug"), (s.at - s.at % DAY).label("day"),
            *(s[n].label(f"summed_{n}") for n in names),
            *(value.label(f"real_{n}") for n, value in zip(names, none, strict=True)),
        ),
        *(
            select(
                literal(kind, String), literal(span, Integer), f.slug if is_item else literal(""),
                f.day, *none, *(f[n] for n in names),
            ).where(f[whose] if whose else true())
            for kind, span, is_item, whose in _GROUPINGS
        ),
    ).subquery().c  # fmt: skip
    by = (sides.kind, sides.span, sides.slug, sides.day)
    hows: dict[str, Any] = {"first_at": func.min, "last_at": func.max}
    both = {
        f"{side}_{n}": hows.get(n, func.sum)(sides[f"{side}_{n}"])
        for side in ("summed", "real")
        for n in names
    }
    figures, details = (
        or_(*(both[f"summed_{n}"].is_distinct_from(both[f"real_{n}"]) for n in which))
        for which in (FIGURES, DETAILS)
    )
    is_detailed = sides.day >= mark.detailed
    is_kept = and_(sides.kind.in_(("all", "item")), sides.span == DAY)
    return (
        select(*by, *(value.label(name) for name, value in both.items()))
        .where(or_(is_detailed, is_kept))
        .group_by(*by)
        .having(or_(figures, and_(is_detailed, details)))
        .order_by(*by)
    )


def _rolled_up() -> Select[Any]:
    """What days were rolled up into, as events at their beginning."""
    e = earnings.c
    nobody = (literal("").label(name) for name in ("payer", "part"))
    is_bought = e.scheme.endswith(BOUGHT)
    deliveries, size, amount = (
        case((is_bought, 0), else_=value) for value in (e["count"], e.bytes, e.amount)
    )
    income = case((e.scheme == DRAWS, 0), else_=e.amount)
    plays = literal(0, BigInteger)
    return select(
        cast(e.day, Float) * float(DAY), e.slug, *nobody, deliveries, plays, size, amount, income
    )


class RollupRebuild:
    """Any process may do it, and several at once. Raises ``DatabaseUnavailable``."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def resum(self, advance: Callable[[int, int], None]) -> int:
        """Sum everything again; how many rows that were.

        ``advance`` is told days done and all days, of those that were rolled up.
        """
        await self._database.write(drop_sums)
        days = await self._database.read(_rolled_up_days)
        for done, day in enumerate(days, 1):
            await self._database.write(partial(_resum_day, day=day))
            advance(done, len(days))
        return await Rollup(self._database, clock=self._clock).advance()


def _rolled_up_days(db: Connection) -> list[int]:
    """When the days begin whose details went."""
    detailed = read_mark(db).detailed
    old = events(Which(((0.0, float(detailed)),))).subquery().c
    days = union_all(
        select(sums.c.at - sums.c.at % DAY).where(sums.c.at < detailed),
        select(earnings.c.day * DAY),
        select(Steps(0.0, DAY).number(old.at) * DAY),
    ).subquery()
    return sorted({int(day) for (day,) in db.execute(select(days).distinct())})


def _resum_day(db: Connection, day: int) -> None:
    """Sum what is known of a day whose details went; its plays stay what they were."""
    if day >= lock_mark(db).detailed:
        return
    happened = union_all(
        events(Which(((float(day), float(day + DAY)),))),
        _rolled_up().where(earnings.c.day == day // DAY),
    ).subquery().c  # fmt: skip
    real = [func.sum(happened[n]).label(n) for n in FIGURES]
    found = db.execute(select(happened.slug, *real).group_by(happened.slug)).mappings().all()
    rows = {
        Key("item", EVERY, DAY, row["slug"], day): {n: row[n] for n in FIGURES} for row in found
    }
    if found:
        total = {n: sum(int(row[n]) for row in found) for n in FIGURES}
        rows[Key("all", EVERY, DAY, "", day)] = total
    s, names = sums.c, [row["slug"] for row in found]
    of_day = and_(s.span == DAY, s.at == day, s.scope == EVERY)
    db.execute(delete(sums).where(of_day, s.kind == "item", s.name.not_in(names)))
    if not found:
        db.execute(delete(sums).where(of_day, s.kind == "all"))
    for key, figures in rows.items():
        whole = {name: int(value) for name, value in figures.items()}
        new = insert_into(db, sums).values(
            **key._asdict(), **whole, plays=0, first_at=float(day), last_at=float(day)
        )
        db.execute(new.on_conflict_do_update(index_elements=Key._fields, set_=whole))
