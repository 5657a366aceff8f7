"""Adapter: the SQL of earnings: over time, by item, by segment, by payer.

Two amounts are told apart, as in the export: ``amount`` is what delivered bytes cost, ``income``
what payers were charged less what sessions gave back. They differ by what open sessions hold.
An ``exact`` payment counts once it is settled. Reports are put together from sums and from the
rows that are not summed yet, or lie in a span of which only a part is asked for. What is older
than the retention is known by day and item only, and no longer by payer or moment.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    Select,
    cast,
    func,
    literal,
    select,
    union_all,
)

from xbyte_live.payments.ledger.periods import DAY, SLOT, Cover, cover
from xbyte_live.payments.ledger.rollup import EVERY, Kind, read_mark
from xbyte_live.payments.ledger.sales_sql import (
    LEDGERS,
    Steps,
    Which,
    credited,
    part_of,
    returned,
    sold,
)
from xbyte_live.payments.reports.balances import Balance, settlement
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.db.tables import sums

_PAGE = 1000  # rows of a long answer in memory, and names asked for at once


@dataclass(frozen=True, slots=True)
class Earned:
    """``deliveries`` of ``bytes`` for ``amount``, and the ``income`` of the same time."""

    deliveries: int = 0
    bytes: int = 0
    amount: int = 0
    income: int = 0

    def __add__(self, other: "Earned") -> "Earned":
        return Earned(
            self.deliveries + other.deliveries,
            self.bytes + other.bytes,
            self.amount + other.amount,
            self.income + other.income,
        )


@dataclass(frozen=True, slots=True)
class Period:
    """From ``since`` on and before ``until`` (Unix seconds); of one item where ``slug`` is set."""

    since: float
    until: float
    slug: str | None = None


@dataclass(frozen=True, slots=True)
class EarningsReport:
    """What a period earned: by steps counted from its beginning, by item, and in all.

    Steps and items without anything are left out; items are in the order of their amounts.
    """

    steps: Mapping[int, Earned]
    items: Sequence[tuple[str, Earned]]
    total: Earned


@dataclass(frozen=True, slots=True)
class Moment:
    """What one segment sold: ``plays`` that began with its first byte, ``bytes``, ``amount``."""

    plays: int = 0
    bytes: int = 0
    amount: int = 0

    def __add__(self, other: "Moment") -> "Moment":
        return Moment(
            self.plays + other.plays, self.bytes + other.bytes, self.amount + other.amount
        )

    def __sub__(self, other: "Moment") -> "Moment":
        return Moment(
            self.plays - other.plays, self.bytes - other.bytes, self.amount - other.amount
        )


@dataclass(frozen=True, slots=True)
class Moments:
    """What each segment sold, by resource; ``elsewhere`` what no listed segment did."""

    segments: Mapping[str, Moment]
    elsewhere: Moment


@dataclass(frozen=True, slots=True)
class PayerEarnings:
    """What one payer paid for bytes in a period, and when first and last in it."""

    payer: str
    earned: Earned
    first_at: float
    last_at: float


@dataclass(frozen=True, slots=True)
class Payers:
    """Those who paid most, and how many there were in all."""

    top: Sequence[PayerEarnings]
    count: int


@dataclass(frozen=True, slots=True)
class Lately:
    """What one item (or all) earned in the last moments, and how many paid for it."""

    slug: str
    earned: Earned
    payers: int


class Earnings:
    """Reads only, each answer of one snapshot; every method raises ``DatabaseUnavailable``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def report(self, period: Period, *, step: int) -> EarningsReport:
        """What a period earned in steps of so many seconds."""
        return await self._database.read(lambda db: _report(db, period, step))

    async def moments(self, period: Period, names: Sequence[str]) -> Moments:
        """What each segment of an item sold, for those whose resources are ``names``."""
        return await self._database.read(lambda db: _moments(db, period, names))

    async def payers(self, period: Period, *, limit: int) -> Payers:
        """Who paid most in a period."""
        return await self._database.read(lambda db: _payers(db, period, limit))

    async def settlement(self) -> list[Balance]:
        """Where the money is, by payee and scheme, in the order of their names."""
        return await self._database.read(settlement)

    async def lately(self, period: Period) -> list[Lately]:
        """What each item earned in a short time; first, without a slug, what all of them did."""
        return await self._database.read(lambda db: _lately(db, period))


def _report(db: Connection, period: Period, step: int) -> EarningsReport:
    mark, slug = read_mark(db), period.slug
    numbers = Steps(period.since, step)
    made = cover(period.since, period.until, mark, (SLOT,), step)
    number = numbers.number(cast(sums.c.at, Float)).label("at")
    steps: defaultdict[int, Earned] = defaultdict(Earned)
    for row in _rows_of(db, made, slug, numbers):
        steps[int(row.at)] += _earned(row)
    for source in _spans(made, "all") if slug is None else _spans(made, "item", name=slug):
        for row in db.execute(_by(source, number)):
            steps[int(row.at)] += _earned(row)
    total = sum(steps.values(), Earned())
    items = _items(db, period) if slug is None else {slug: total} if steps else {}
    ranked = sorted(items.items(), key=lambda item: (-item[1].amount, item[0]))
    return EarningsReport(dict(sorted(steps.items())), ranked, total)


def _items(db: Connection, period: Period) -> Mapping[str, Earned]:
    items: defaultdict[str, Earned] = defaultdict(Earned)
    made = cover(period.since, period.until, read_mark(db), (DAY, SLOT))
    for row in _rows_of(db, made, None, None):
        items[row.slug] += _earned(row)
    for source in _spans(made, "item"):
        for row in db.execute(_by(source, sums.c.name)):
            items[row.name] += _earned(row)
    return items


def _rows_of(db: Connection, made: Cover, slug: str | None, steps: Steps | None) -> Iterator[Any]:
    """What the rows in a period say, by ``at`` (the step), or else by ``slug``."""
    which = Which(made.rows, slug)
    for ledger in LEDGERS:
        yield from db.execute(sold(ledger, which, "at" if steps else "slug", steps=steps))
    for source in (returned(which), credited(which)):
        r = source.subquery().c
        key = steps.number(r.at).label("at") if steps else r.slug
        none = [literal(0).label(name) for name in ("deliveries", "bytes", "amount")]
        yield from db.execute(select(key, *none, func.sum(r.income).label("income")).group_by(key))


def _spans(
    made: Cover, kind: Kind, scope: str = EVERY, name: str | None = None
) -> Iterator[Select[Any]]:
    """The rows of ``sums`` in a period; what is long past is there by item only."""
    s = sums.c
    past = [(DAY, made.past)] if kind in ("all", "item") else []
    for span, (first, beyond) in (*past, *made.sums):
        query = select(sums).where(
            s.kind == kind, s.scope == scope, s.span == span, s.at >= int(first), s.at < int(beyond)
        )
        if name is not None:
            query = query.where(s.name == name)
        yield query.where(s.at.not_in(made.without)) if made.without else query


def _by(source: Select[Any], key: ColumnElement[Any]) -> Select[Any]:
    return source.with_only_columns(key, *_sums(sums.c)).group_by(key)


def _moments(db: Connection, period: Period, names: Sequence[str]) -> Moments:
    """What is named one by one, and the rest of all that the item sold.

    A stream that is always on air sold far more segments than it lists.
    """
    if period.slug is None:
        raise ValueError("moments are those of one item")
    made = cover(period.since, period.until, read_mark(db), (DAY,))
    segments: defaultdict[str, Moment] = defaultdict(Moment)
    elsewhere, known, listed = Moment(), frozenset(names), sorted(set(names))
    for ledger in LEDGERS:
        source = sold(ledger, Which(made.rows, period.slug), "resource")
        for row in db.execute(source, execution_options={"yield_per": _PAGE}):
            name, is_first = part_of(row.resource)
            earned = _earned(row)
            moment = Moment(earned.deliveries if is_first else 0, earned.bytes, earned.amount)
            if name in known:
                segments[name] += moment
            else:
                elsewhere += moment
    columns = [func.coalesce(func.sum(sums.c[name]), 0) for name in Moment.__slots__]
    for spans in _spans(made, "item", name=period.slug):
        elsewhere += Moment(*map(int, db.execute(spans.with_only_columns(*columns)).one()))
    for spans in _spans(made, "resource", period.slug):
        by_name = spans.with_only_columns(sums.c.name, *columns).group_by(sums.c.name)
        for first in range(0, len(listed), _PAGE):
            some = sums.c.name.in_(listed[first : first + _PAGE])
            for name, *values in db.execute(by_name.where(some)):
                moment = Moment(*map(int, values))
                segments[name] += moment
                elsewhere -= moment
    return Moments(dict(segments), elsewhere)


def _payers(db: Connection, period: Period, limit: int) -> Payers:
    made = cover(period.since, period.until, read_mark(db), (DAY,))
    which = Which(made.rows, period.slug)
    columns = [sums.c.name.label("payer"), *(sums.c[name] for name in Earned.__slots__)]
    times = [sums.c.first_at.label("first"), sums.c.last_at.label("last")]
    r = union_all(
        *(sold(ledger, which, "payer") for ledger in LEDGERS),
        *(
            spans.with_only_columns(*columns, *times)
            for spans in _spans(made, "payer", period.slug or EVERY)
        ),
    ).subquery().c  # fmt: skip
    of_all = _sums(r)
    query = (
        select(r.payer, *of_all, func.min(r.first).label("first"), func.max(r.last).label("last"),
               func.count().over().label("payers"))
        .group_by(r.payer)
        .order_by(of_all[2].desc(), r.payer)
        .limit(limit)
    )  # fmt: skip
    rows = db.execute(query).all()
    top = [
        PayerEarnings(row.payer, _earned(row), float(row.first), float(row.last)) for row in rows
    ]
    return Payers(top, int(rows[0].payers) if rows else 0)


def _lately(db: Connection, period: Period) -> list[Lately]:
    which = Which(((period.since, period.until),), period.slug)
    r = union_all(*(sold(ledger, which, "slug", "payer") for ledger in LEDGERS)).subquery().c
    sums = (*_sums(r), func.count(r.payer.distinct()).label("payers"))
    of_each = select(r.slug, *sums).group_by(r.slug).order_by(r.slug)
    rows = [*db.execute(select(literal("").label("slug"), *sums)), *db.execute(of_each)]
    return [Lately(row.slug, _earned(row), int(row.payers)) for row in rows]


def _sums(columns: Any) -> tuple[ColumnElement[Any], ...]:
    return tuple(func.coalesce(func.sum(columns[name]), 0).label(name) for name in Earned.__slots__)


def _earned(row: Any) -> Earned:
    return Earned(int(row.deliveries), int(row.bytes), int(row.amount), int(row.income))
