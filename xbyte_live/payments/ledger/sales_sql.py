"""Adapter: the SQL of sales: earnings of some ranges of time from the rows themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Float,
    FromClause,
    Integer,
    Select,
    Table,
    and_,
    case,
    false,
    func,
    literal,
    or_,
    select,
    union_all,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from xbyte_live.payments.ledger.charge import DEBTS
from xbyte_live.payments.ledger.periods import Range
from xbyte_live.payments.x402.order import NAMES
from xbyte_live.storage.db.tables import channels, charges, deliveries, draws, purchases, sessions


@dataclass(frozen=True, slots=True)
class Which:
    """Rows of these ranges of time; of one item where ``slug`` is set."""

    ranges: Sequence[Range]
    slug: str | None = None

    def at(self, column: Any) -> ColumnElement[bool]:
        """Whether a time lies in one of the ranges."""
        return or_(false(), *(and_(column >= a, column < b) for a, b in self.ranges))


@dataclass(frozen=True, slots=True)
class Steps:
    """Steps of ``length`` seconds, counted from ``since``."""

    since: float
    length: int

    def number(self, at: Any) -> ColumnElement[int]:
        """The number of the step a time lies in."""
        return _Whole((at - literal(self.since, Float)) / literal(float(self.length), Float))


@dataclass(frozen=True, slots=True)
class Ledger:
    """A table of what was sold when, and of who bought it where that is another one.

    What is drawn from a session is no income: the session was.
    """

    rows: Table
    at: str
    owner: str | None = None
    owners: Table | None = None
    is_income: bool = True


LEDGERS = (
    Ledger(deliveries, "created_at", "channel", channels),
    Ledger(charges, "settled_at"),
    Ledger(draws, "created_at", "session_id", sessions, is_income=False),
)
SOLD, BOUGHT, REPAID = 0, 1, 2
FIRST = "bytes=0-"  # what the part with the first byte begins with


def kind_of(resource: str) -> int:
    """Whether bytes were sold, or a session was bought, or a debt of earlier bytes repaid."""
    if resource.startswith(NAMES):
        return BOUGHT
    return REPAID if resource.startswith(DEBTS) else SOLD


def part_of(resource: str) -> tuple[str, bool]:
    """What a resource is a part of, and whether it begins with the first byte of that."""
    name, _, part = resource.partition("#")
    return name, not part or part.startswith(FIRST)


def sold(ledger: Ledger, which: Which, *keys: str, steps: Steps | None = None) -> Select[Any]:
    """What a table says was earned, by ``at`` (the step), ``slug``, ``resource`` and ``payer``.

    Rows are summed before anything is joined or told apart: there may be millions of them.
    """
    r = ledger.rows.c
    at = r[ledger.at]
    far = [key for key in keys if key not in {"at", *r.keys()}]
    own = [
        steps.number(at).label("at") if key == "at" and steps else r[key]
        for key in keys
        if key not in far
    ]
    kind = _kind(r.resource) if ledger.is_income else literal(SOLD)
    owner = [r[ledger.owner].label("owner")] if far and ledger.owner else []
    summed = (
        select(
            *own, *owner, kind.label("kind"), func.count().label("rows"),
            func.sum(r.size).label("size"), func.sum(r.amount).label("amount"),
            func.min(at).label("first"), func.max(at).label("last"),
        )
        .where(which.at(at), *counted(ledger, which.slug))
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
            total(g.rows, SOLD).label("deliveries"),
            total(g.size, SOLD).label("bytes"),
            total(g.amount, SOLD, REPAID).label("amount"),
            (func.sum(g.amount) if ledger.is_income else literal(0)).label("income"),
            func.min(g.first).label("first"),
            func.max(g.last).label("last"),
        )
        .select_from(source)
        .group_by(*named)
    )


def events(which: Which) -> Select[Any]:
    """Every single thing that counts: when it was, whose, what of (``part``), and its figures.

    Bytes that were sold have a ``part``; everything else has none, and no deliveries.
    """
    none = literal(0, BigInteger)
    found = []
    for ledger in LEDGERS:
        r = ledger.rows.c
        kind: Any = _kind(r.resource) if ledger.is_income else literal(SOLD)
        of = r if ledger.owners is None else ledger.owners.c
        name, is_first = _part(r.resource)

        def figure(value: Any, *kinds: int, kind: Any = kind) -> Any:
            return case((kind.in_(kinds), value), else_=0)

        query = select(
            r[ledger.at].label("at"), (r if "slug" in r else of).slug, of.payer,
            case((kind == SOLD, name), else_="").label("part"),
            figure(1, SOLD).label("deliveries"),
            case((and_(kind == SOLD, is_first), 1), else_=0).label("plays"),
            figure(r.size, SOLD).label("bytes"),
            figure(r.amount, SOLD, REPAID).label("amount"),
            (r.amount if ledger.is_income else none).label("income"),
        ).where(which.at(r[ledger.at]), *counted(ledger, which.slug))  # fmt: skip
        if ledger.owners is not None:
            query = query.join_from(ledger.rows, ledger.owners)
        found.append(query)
    for source in (returned(which), credited(which)):
        g = source.subquery().c
        nobody = (literal("").label(name) for name in ("payer", "part"))
        found.append(select(g.at, g.slug, *nobody, none, none, none, none, g.income))
    return select(union_all(*found).subquery())


def counted(ledger: Ledger, slug: str | None = None) -> list[ColumnElement[bool]]:
    """What narrows a table down to what counts, and to one item."""
    r = ledger.rows.c
    where: list[ColumnElement[bool]] = []
    if ledger.rows is charges:
        where.append(r.state == "settled")
    if slug is not None and "slug" in r:
        # Of many ranges and a bare column SQLite makes a scan of the whole table.
        where.append(func.coalesce(r.slug, "") == slug)
    elif slug is not None:
        where.append(r.session_id.in_(select(sessions.c.id).where(sessions.c.slug == slug)))
    return where


def returned(which: Which) -> Select[Any]:
    """What sessions gave back when they ended: ``at``, ``slug``, ``income``."""
    s = sessions.c
    query = select(
        s.closed_at.label("at"), s.slug.label("slug"), (-s.returned).label("income")
    ).where(which.at(s.closed_at), s.returned > 0)
    return query if which.slug is None else query.where(s.slug == which.slug)


def credited(which: Which) -> Select[Any]:
    """What had been given back as credit, and went into another session: the same columns."""
    s, p = sessions.c, purchases.c
    query = (
        select(p.created_at.label("at"), s.slug.label("slug"), p.amount.label("income"))
        .select_from(purchases.join(sessions))
        .where(which.at(p.created_at), p.origin.startswith("credit-"))
    )
    return query if which.slug is None else query.where(s.slug == which.slug)


def _kind(resource: Any) -> ColumnElement[int]:
    """``kind_of`` in SQL."""

    def begins(*names: str) -> ColumnElement[bool]:
        return or_(*(func.substr(resource, 1, len(name)) == name for name in names))

    return case((begins(*NAMES), BOUGHT), (begins(DEBTS), REPAID), else_=SOLD)


def _part(resource: Any) -> tuple[ColumnElement[str], ColumnElement[bool]]:
    """``part_of`` in SQL."""
    mark = _Mark(resource)
    name = case((mark == 0, resource), else_=func.substr(resource, 1, mark - 1))
    return name, or_(mark == 0, func.substr(resource, mark + 1, len(FIRST)) == FIRST)


class _Mark(FunctionElement[int]):
    """Where the first ``#`` of a text stands, counted from 1; 0 where there is none."""

    type = Integer()
    inherit_cache = True


@compiles(_Mark, "sqlite")
def _mark_by_instr(element: _Mark, compiler: Any, **more: Any) -> str:
    return f"instr({compiler.process(element.clauses, **more)}, '#')"


@compiles(_Mark, "postgresql")
def _mark_by_strpos(element: _Mark, compiler: Any, **more: Any) -> str:
    return f"strpos({compiler.process(element.clauses, **more)}, '#')"


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
