"""Adapter: the SQL of what was earned: over time, by item, by moment, by payer, and where it is.

Two amounts are told apart, as in the export: ``amount`` is what delivered bytes cost, ``income``
what payers were charged less what sessions gave back. They differ by what open sessions hold.
An ``exact`` payment counts once it is settled. What was rolled up is known by the day only, and
no longer by payer or moment.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Float,
    FromClause,
    Select,
    Table,
    and_,
    case,
    cast,
    func,
    literal,
    or_,
    select,
    union_all,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from xbyte_live.db.engine import Database
from xbyte_live.db.tables import (
    actions,
    channels,
    charges,
    deliveries,
    draws,
    earnings,
    purchases,
    sessions,
)
from xbyte_live.ledger import books
from xbyte_live.ledger.retention import BOUGHT, DAY, DEBTS, DRAWS
from xbyte_live.payments.order import NAMES
from xbyte_live.payments.requirements import SCHEME_CHANNELS, SCHEME_EXACT

_PAGE = 1000  # rows of a long answer in memory


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
class Report:
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


@dataclass(frozen=True, slots=True)
class Moments:
    """What each segment sold, by resource; ``elsewhere`` what no listed segment did."""

    segments: Mapping[str, Moment]
    elsewhere: Moment


@dataclass(frozen=True, slots=True)
class Payer:
    """What one payer paid for bytes in a period, and when first and last in it."""

    payer: str
    earned: Earned
    first_at: float
    last_at: float


@dataclass(frozen=True, slots=True)
class Payers:
    """Those who paid most, and how many there were in all."""

    top: Sequence[Payer]
    count: int


@dataclass(frozen=True, slots=True)
class Settled:
    """Where one payee's money of one scheme is; ``charged``, ``settled`` as an audit sums them.

    ``archived``: older ``exact`` payments that were settled and rolled up, in none of the others.
    ``held`` by open sessions; ``unclaimed``: charged, and nobody asked the chain for it;
    ``waiting``: on its way to the chain; ``in_doubt``: of that, sent with no answer yet;
    ``owed``: delivered, and the payment failed.
    """

    scheme: str
    network: str
    asset: str
    pay_to: str
    charged: int = 0
    held: int = 0
    unclaimed: int = 0
    claimed: int = 0
    settled: int = 0
    waiting: int = 0
    in_doubt: int = 0
    owed: int = 0
    archived: int = 0


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

    async def report(self, period: Period, *, step: int) -> Report:
        """What a period earned in steps of so many seconds."""
        return await self._database.read(lambda db: _report(db, period, step))

    async def moments(self, period: Period, names: Sequence[str]) -> Moments:
        """What each segment of an item sold, for those whose resources are ``names``."""
        return await self._database.read(lambda db: _moments(db, period, frozenset(names)))

    async def payers(self, period: Period, *, limit: int) -> Payers:
        """Who paid most in a period."""
        return await self._database.read(lambda db: _payers(db, period, limit))

    async def settlement(self) -> list[Settled]:
        """Where the money is, by payee and scheme, in the order of their names."""
        return await self._database.read(_settlement)

    async def lately(self, period: Period) -> list[Lately]:
        """What each item earned in a short time; first, without a slug, what all of them did."""
        return await self._database.read(lambda db: _lately(db, period))


def _report(db: Connection, period: Period, step: int) -> Report:
    steps: defaultdict[int, Earned] = defaultdict(Earned)
    items: defaultdict[str, Earned] = defaultdict(Earned)
    for source in (
        *(_sold(ledger, period, "at", "slug", step=step) for ledger in _LEDGERS),
        _by_step(_returns(period), period, step),
        _by_step(_credited(period), period, step),
        _by_step(_days(period), period, step),
    ):
        for row in db.execute(source, execution_options={"yield_per": _PAGE}):
            earned = _earned(row)
            steps[int(row.at)] += earned
            items[row.slug] += earned
    ranked = sorted(items.items(), key=lambda item: (-item[1].amount, item[0]))
    return Report(dict(sorted(steps.items())), ranked, sum(steps.values(), Earned()))


@dataclass(frozen=True, slots=True)
class _Ledger:
    """A table of what was sold when, and of who bought it where that is another one.

    What is drawn from a session is no income: the session was.
    """

    rows: Table
    at: str
    owner: str | None = None
    owners: Table | None = None
    is_income: bool = True


_LEDGERS = (
    _Ledger(deliveries, "created_at", "channel", channels),
    _Ledger(charges, "settled_at"),
    _Ledger(draws, "created_at", "session_id", sessions, is_income=False),
)
_SOLD, _BOUGHT, _REPAID = 0, 1, 2


def _sold(ledger: _Ledger, period: Period, *keys: str, step: int | None = None) -> Select[Any]:
    """What a table says was earned, by ``at`` (the step), ``slug``, ``resource`` and ``payer``.

    Rows are summed before anything is joined or told apart: there may be millions of them.
    """
    r = ledger.rows.c
    at = r[ledger.at]
    far = [key for key in keys if key not in {"at", *r.keys()}]
    own = [
        _step_of(at, period, step).label("at") if key == "at" else r[key]
        for key in keys
        if key not in far
    ]
    kind = _kind(r.resource) if ledger.is_income else literal(_SOLD)
    owner = [r[ledger.owner].label("owner")] if far and ledger.owner else []
    summed = (
        select(
            *own, *owner, kind.label("kind"), func.count().label("rows"),
            func.sum(r.size).label("size"), func.sum(r.amount).label("amount"),
            func.min(at).label("first"), func.max(at).label("last"),
        )
        .where(at >= period.since, at < period.until, *_of_item(ledger, period.slug))
        .group_by(*own, *owner, kind)
    ).subquery()  # fmt: skip
    g = summed.c
    source: FromClause = summed
    named = [g[column.name] for column in own]
    if far and ledger.owners is not None:
        source = summed.join(ledger.owners, ledger.owners.c.id == g.owner)
        named += [ledger.owners.c[name] for name in far]

    def total(value: Any, *kinds: int) -> Any:
        return func.sum(case((g.kind.in_(kinds), value), else_=0))

    return (
        select(
            *named,
            total(g.rows, _SOLD).label("deliveries"),
            total(g.size, _SOLD).label("bytes"),
            total(g.amount, _SOLD, _REPAID).label("amount"),
            (func.sum(g.amount) if ledger.is_income else literal(0)).label("income"),
            func.min(g.first).label("first"),
            func.max(g.last).label("last"),
        )
        .select_from(source)
        .group_by(*named)
    )


def _kind(resource: Any) -> ColumnElement[int]:
    """Whether bytes were sold, or a session was bought, or a debt of earlier bytes repaid."""

    def begins(*names: str) -> ColumnElement[bool]:
        return or_(*(func.substr(resource, 1, len(name)) == name for name in names))

    return case((begins(*NAMES), _BOUGHT), (begins(DEBTS), _REPAID), else_=_SOLD)


def _of_item(ledger: _Ledger, slug: str | None) -> list[ColumnElement[bool]]:
    """What narrows a table down to what counts, and to one item."""
    r = ledger.rows.c
    where: list[ColumnElement[bool]] = []
    if ledger.rows is charges:
        where.append(r.state == "settled")
    if slug is not None and "slug" in r:
        where.append(r.slug == slug)
    elif slug is not None:
        where.append(r.session_id.in_(select(sessions.c.id).where(sessions.c.slug == slug)))
    return where


def _step_of(at: Any, period: Period, step: int | None) -> ColumnElement[int]:
    """The number of the step a time lies in."""
    return _Whole((at - literal(period.since, Float)) / literal(float(step or 1), Float))


class _Whole(FunctionElement[int]):
    """A number that is not negative, rounded down; databases differ in what a cast does."""

    type = BigInteger()
    inherit_cache = True


@compiles(_Whole, "sqlite")
def _whole_by_cast(element: _Whole, compiler: Any, **more: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **more)} AS INTEGER)"


@compiles(_Whole, "postgresql")
def _whole_by_floor(element: _Whole, compiler: Any, **more: Any) -> str:
    return f"CAST(FLOOR({compiler.process(element.clauses, **more)}) AS BIGINT)"


def _by_step(rows: Select[Any], period: Period, step: int) -> Select[Any]:
    """Rows of days and of returns summed by step and item."""
    r = rows.subquery().c
    number = _step_of(r.at, period, step).label("at")
    return select(number, r.slug, *_sums(r)).group_by(number, r.slug)


def _returns(period: Period) -> Select[Any]:
    """What sessions gave back when they ended."""
    s = sessions.c
    query = select(
        s.closed_at.label("at"), s.slug.label("slug"), literal(0).label("deliveries"),
        literal(0).label("bytes"), literal(0).label("amount"), (-s.returned).label("income"),
    ).where(s.closed_at >= period.since, s.closed_at < period.until, s.returned > 0)  # fmt: skip
    return query if period.slug is None else query.where(s.slug == period.slug)


def _credited(period: Period) -> Select[Any]:
    """What had been given back as credit, and went into another session."""
    s, p = sessions.c, purchases.c
    query = (
        select(
            p.created_at.label("at"), s.slug.label("slug"), literal(0).label("deliveries"),
            literal(0).label("bytes"), literal(0).label("amount"), p.amount.label("income"),
        )
        .select_from(purchases.join(sessions))
        .where(p.created_at >= period.since, p.created_at < period.until)
        .where(p.origin.startswith("credit-"))
    )  # fmt: skip
    return query if period.slug is None else query.where(s.slug == period.slug)


def _days(period: Period) -> Select[Any]:
    """What was rolled up, at the first moment of its day."""
    e = earnings.c
    sold = case((e.scheme.endswith(BOUGHT), 0), else_=1)
    income = case((e.scheme == DRAWS, 0), else_=e.amount)
    query = select(
        cast(e.day * literal(DAY, BigInteger), Float).label("at"), e.slug.label("slug"),
        (e["count"] * sold).label("deliveries"), (e.bytes * sold).label("bytes"),
        (e.amount * sold).label("amount"), income.label("income"),
    )  # fmt: skip
    first, beyond = math.ceil(period.since / DAY), math.ceil(period.until / DAY)
    query = query.where(e.day >= first, e.day < beyond)
    return query if period.slug is None else query.where(e.slug == period.slug)


def _moments(db: Connection, period: Period, names: frozenset[str]) -> Moments:
    segments: defaultdict[str, Moment] = defaultdict(Moment)
    elsewhere = Moment()
    for ledger in _LEDGERS:
        source = _sold(ledger, period, "resource")
        for row in db.execute(source, execution_options={"yield_per": _PAGE}):
            name, _, part = row.resource.partition("#")
            begins = not part or part.startswith("bytes=0-")
            earned = _earned(row)
            moment = Moment(earned.deliveries if begins else 0, earned.bytes, earned.amount)
            if name in names:
                segments[name] += moment
            else:
                elsewhere += moment
    for row in db.execute(select(*_sums(_days(period).subquery().c))):
        earned = _earned(row)
        elsewhere += Moment(earned.deliveries, earned.bytes, earned.amount)
    return Moments(dict(segments), elsewhere)


def _payers(db: Connection, period: Period, limit: int) -> Payers:
    r = union_all(*(_sold(ledger, period, "payer") for ledger in _LEDGERS)).subquery().c
    sums = _sums(r)
    query = (
        select(r.payer, *sums, func.min(r.first).label("first"), func.max(r.last).label("last"),
               func.count().over().label("payers"))
        .group_by(r.payer)
        .order_by(sums[2].desc(), r.payer)
        .limit(limit)
    )  # fmt: skip
    rows = db.execute(query).all()
    top = [Payer(row.payer, _earned(row), float(row.first), float(row.last)) for row in rows]
    return Payers(top, int(rows[0].payers) if rows else 0)


def _lately(db: Connection, period: Period) -> list[Lately]:
    sold = union_all(*(_sold(ledger, period, "slug", "payer") for ledger in _LEDGERS))
    r = sold.subquery().c
    sums = (*_sums(r), func.count(r.payer.distinct()).label("payers"))
    of_each = select(r.slug, *sums).group_by(r.slug).order_by(r.slug)
    rows = [*db.execute(select(literal("").label("slug"), *sums)), *db.execute(of_each)]
    return [Lately(row.slug, _earned(row), int(row.payers)) for row in rows]


_Key = tuple[str, str, str, str]


def _settlement(db: Connection) -> list[Settled]:
    found: dict[_Key, Settled] = {}

    def add(scheme: str, payee: Sequence[str], **more: Any) -> None:
        key = (scheme, payee[0], payee[1], payee[2])
        found[key] = replace(found.get(key, Settled(*key)), **more)

    for network, asset, pay_to, _, charged, claimed in books.channel_sums(db):
        add(SCHEME_CHANNELS, (network, asset, pay_to), charged=charged, claimed=claimed)
    for row in _channel_rest(db):
        add(SCHEME_CHANNELS, row, held=int(row[3]), unclaimed=int(row[4]))
    for network, asset, pay_to, _, paid, _ in books.action_sums(db):
        add(SCHEME_CHANNELS, (network, asset, pay_to), settled=paid)
    for row in _on_the_way(db):
        add(SCHEME_CHANNELS, row, waiting=int(row[3]), in_doubt=int(row[4]))
    for network, asset, pay_to, _, settled, waiting in books.charge_sums(db):
        add(
            SCHEME_EXACT, (network, asset, pay_to), charged=settled + waiting, claimed=settled,
            settled=settled, waiting=waiting,
        )  # fmt: skip
    for row in _charge_rest(db):
        add(SCHEME_EXACT, row, in_doubt=int(row[3]), owed=int(row[4]))
    for row in _archived(db):
        add(SCHEME_EXACT, row, archived=int(row[3]))
    return [found[key] for key in sorted(found)]


def _channel_rest(db: Connection) -> Sequence[Any]:
    c = channels.c
    key = (c.network, c.asset, c.pay_to)
    rest = c.charged - c.held - c.claimed
    unclaimed = func.sum(case((rest > 0, rest), else_=0))
    return db.execute(select(*key, func.sum(c.held), unclaimed).group_by(*key)).all()


def _on_the_way(db: Connection) -> Sequence[Any]:
    """Claims and payouts that are not done; deposits and refunds are no earnings."""
    a = actions.c
    key = (a.network, a.asset, a.pay_to)
    doubt = func.sum(case((a.in_doubt, a.amount), else_=0))
    query = select(*key, func.sum(a.amount), doubt).where(
        a.state == "pending", a.kind.in_(("claim", "settle"))
    )
    return db.execute(query.group_by(*key)).all()


def _charge_rest(db: Connection) -> Sequence[Any]:
    x = charges.c
    key = (x.network, x.asset, x.pay_to)
    waits = x.state.in_(("pending", "queued"))
    is_owed = and_(x.state == "failed", x.delivered, x.made_good_by.is_(None))
    doubt = func.sum(case((and_(waits, x.in_doubt), x.amount), else_=0))
    owed = func.sum(case((is_owed, x.amount), else_=0))
    return db.execute(select(*key, doubt, owed).where(or_(waits, is_owed)).group_by(*key)).all()


def _archived(db: Connection) -> Sequence[Any]:
    e = earnings.c
    key = (e.network, e.asset, e.pay_to)
    query = select(*key, func.sum(e.amount)).where(e.scheme == SCHEME_EXACT).group_by(*key)
    return db.execute(query).all()


def _sums(columns: Any) -> tuple[ColumnElement[Any], ...]:
    names = ("deliveries", "bytes", "amount", "income")
    return tuple(func.coalesce(func.sum(columns[name]), 0).label(name) for name in names)


def _earned(row: Any) -> Earned:
    return Earned(int(row.deliveries), int(row.bytes), int(row.amount), int(row.income))
