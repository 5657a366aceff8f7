"""Adapter: adds the rows of the past to ``sums``, each of them once.

Rows are taken in the order of their times, and with their sums the mark moves past them, in one
transaction. That none appears behind the mark later is so because every row carries the clock of
the process that wrote it, read just before a write that waits two minutes at most for its turn;
``MARGIN`` leaves as much, and three minutes that the clocks of nodes may differ. Only what a
session that had ended gives back later is older, and ``add_late`` brings the sums along.

``drop_sums`` has everything summed again: the mark falls back to where details begin, the sums
behind it are dropped in batches by whoever sums next, and only then rows are added again.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, case, delete, select, update

from xbyte_live.payments.ledger.periods import DAY, SLOT, Summed
from xbyte_live.payments.ledger.sales_sql import (
    BOUGHT,
    LEDGERS,
    SOLD,
    Ledger,
    Which,
    counted,
    credited,
    kind_of,
    part_of,
    returned,
)
from xbyte_live.storage.db.dialect import insert_into
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.db.tables import purchases, sessions, summed, sums

_log = logging.getLogger(__name__)

MARGIN = 300.0  # seconds that must have passed before a moment is over
BATCH = 200  # rows of each table in one transaction, so that no charge waits long behind them
DROPPED = 1000  # sums dropped in one transaction
EVERY = "*"  # the scope of all items

_DROPPING = -1.0  # the mark of sums that are being dropped

Kind = Literal["all", "item", "payer", "resource"]


class LedgerEvent(NamedTuple):
    """What one row adds to the sums; ``resource`` only if bytes of it were sold."""

    at: float
    slug: str
    payer: str = ""
    resource: str = ""
    deliveries: int = 0
    bytes: int = 0
    amount: int = 0
    income: int = 0


class Key(NamedTuple):
    """Which row of ``sums``."""

    kind: Kind
    scope: str
    span: int
    name: str
    at: int


@dataclass(slots=True)
class _Sum:
    first_at: float
    last_at: float
    deliveries: int = 0
    plays: int = 0
    bytes: int = 0
    amount: int = 0
    income: int = 0

    def add(self, event: LedgerEvent, plays: int) -> None:
        """One event more."""
        self.first_at = min(self.first_at, event.at)
        self.last_at = max(self.last_at, event.at)
        self.deliveries += event.deliveries
        self.plays += plays
        self.bytes += event.bytes
        self.amount += event.amount
        self.income += event.income


class Rollup:
    """Moves the mark; several nodes may do it at once. Raises ``DatabaseUnavailable``."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def advance(self) -> int:
        """Sum all that is over, batch by batch; returns how many rows that were."""
        now, rows = self._clock(), 0
        mark = await self._database.read(read_mark)
        if mark.until > now:  # what is sold until then would stand in no report
            _log.error("sales are summed %d s into the future: a clock was wrong", mark.until - now)
        until = now - MARGIN
        while (more := await self._database.write(partial(_advance, until=until))) is not None:
            rows += more
        return rows


def read_mark(db: Connection) -> Summed:
    """How far rows are summed."""
    row = db.execute(select(summed.c.until, summed.c.detailed)).first()
    return _mark(row) if row else Summed()


def lock_mark(db: Connection) -> Summed:
    """The same, held until the transaction ends."""
    first = insert_into(db, summed).values(id=1, until=0.0, detailed=0)
    db.execute(first.on_conflict_do_nothing())
    return _mark(db.execute(select(summed.c.until, summed.c.detailed).with_for_update()).one())


def drop_sums(db: Connection) -> None:
    """Have everything summed again of which there are details."""
    lock_mark(db)
    db.execute(update(summed).values(until=_DROPPING))


def _mark(row: Any) -> Summed:
    detailed = int(row.detailed)
    return Summed(max(float(row.until), float(detailed)), detailed, row.until == _DROPPING)


def add_late(db: Connection, event: LedgerEvent) -> None:
    """Add what belongs to a time that may be summed already, in the transaction that makes it."""
    if event.at < lock_mark(db).until:
        _write(db, _summed([event]))


def _advance(db: Connection, until: float) -> int | None:
    """Sum some rows more; how many, or ``None`` if everything is summed until then."""
    mark = lock_mark(db)
    if mark.is_dropping:
        return _drop(db, mark)
    since = mark.until
    if since >= until:
        return None
    end = _end(db, since, until)
    events = list(_events(db, Which(((since, end),))))
    _write(db, _summed(events))
    db.execute(update(summed).values(until=end))
    return len(events)


def _drop(db: Connection, mark: Summed) -> int:
    """Drop some sums that have details; the mark moves on from there once none is left."""
    some = select(sums.c.id).where(sums.c.at >= mark.detailed).limit(DROPPED)
    if not db.execute(delete(sums).where(sums.c.id.in_(some))).rowcount:
        db.execute(update(summed).values(until=float(mark.detailed)))
    return 0


def _end(db: Connection, since: float, until: float) -> float:
    """How far a batch goes; rows of one moment are in one batch."""
    end = until
    times = [
        *((ledger.rows.c[ledger.at], counted(ledger)) for ledger in LEDGERS),
        (sessions.c.closed_at, []),
        (purchases.c.created_at, []),
    ]
    for at, where in times:
        beyond = select(at).where(at >= since, at < end, *where).order_by(at).offset(BATCH).limit(1)
        end = db.execute(beyond).scalar() or end
    return end if end > since else math.nextafter(since, math.inf)


def _events(db: Connection, which: Which) -> Iterator[LedgerEvent]:
    for ledger in LEDGERS:
        for row in db.execute(_rows(ledger, which)):
            kind = kind_of(row.resource) if ledger.is_income else SOLD
            is_sold = kind == SOLD
            yield LedgerEvent(
                row.at,
                row.slug,
                row.payer,
                row.resource if is_sold else "",
                int(is_sold),
                row.size if is_sold else 0,
                row.amount if kind != BOUGHT else 0,
                row.amount if ledger.is_income else 0,
            )
    for source in (returned(which), credited(which)):
        for row in db.execute(source):
            yield LedgerEvent(row.at, row.slug, income=row.income)


def _rows(ledger: Ledger, which: Which) -> Any:
    r = ledger.rows.c
    at = r[ledger.at]
    of = ledger.rows if ledger.owners is None else ledger.owners
    slug = r.slug if "slug" in r else of.c.slug
    query = select(at.label("at"), slug, of.c.payer, r.resource, r.size, r.amount)
    if ledger.owners is not None:
        query = query.join_from(ledger.rows, ledger.owners)
    return query.where(which.at(at), *counted(ledger))


def _summed(events: list[LedgerEvent]) -> dict[Key, _Sum]:
    found: dict[Key, _Sum] = {}
    for event in events:
        name, is_first = part_of(event.resource)
        plays = event.deliveries if is_first else 0
        for key in _keys(event, name):
            if key not in found:
                found[key] = _Sum(event.at, event.at)
            found[key].add(event, plays)
    return found


def _keys(event: LedgerEvent, name: str) -> Iterator[Key]:
    day = int(event.at // DAY * DAY)
    for span, at in ((DAY, day), (SLOT, int(event.at // SLOT * SLOT))):
        yield Key("all", EVERY, span, "", at)
        yield Key("item", EVERY, span, event.slug, at)
    if event.payer:
        yield Key("payer", EVERY, DAY, event.payer, day)
        yield Key("payer", event.slug, DAY, event.payer, day)
    if name:
        yield Key("resource", event.slug, DAY, name, day)


_ADDED = ("deliveries", "plays", "bytes", "amount", "income")


def _write(db: Connection, found: dict[Key, _Sum]) -> None:
    if not found:
        return
    statement = insert_into(db, sums)
    new, old = statement.excluded, sums.c
    earlier, later = new.first_at < old.first_at, new.last_at > old.last_at
    db.execute(
        statement.on_conflict_do_update(
            index_elements=list(Key._fields),
            set_={
                **{name: old[name] + new[name] for name in _ADDED},
                "first_at": case((earlier, new.first_at), else_=old.first_at),
                "last_at": case((later, new.last_at), else_=old.last_at),
            },
        ),
        [
            {
                **key._asdict(),
                **{name: getattr(total, name) for name in (*_ADDED, "first_at", "last_at")},
            }
            for key, total in sorted(found.items())
        ],
    )
