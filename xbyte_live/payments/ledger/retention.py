"""Adapter: rolls up deliveries older than the retention into sums of a day.

What leaves ``deliveries`` is added to its channel's ``archived``, what leaves ``draws`` to its
session's, and both, like settled charges, to ``earnings``: all in the transaction that deletes it.
Only whole days go, all of whose rows are in the sums of reports; of those the details go first.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, bindparam, delete, func, not_, select, update

from xbyte_live.payments.ledger.charge import DEBTS
from xbyte_live.payments.ledger.periods import DAY
from xbyte_live.payments.ledger.rollup import lock_mark
from xbyte_live.payments.x402.order import NAMES
from xbyte_live.payments.x402.requirements import SCHEME_CHANNELS
from xbyte_live.storage.db.dialect import insert_into
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.db.tables import (
    channels,
    charges,
    deliveries,
    draws,
    earnings,
    items,
    sessions,
    summed,
    sums,
)

BATCH = 500  # rows that leave in one transaction, so that no charge waits long behind them
BOUGHT = "/session"  # what the scheme of such purchases ends with in ``earnings``
DRAWS = "session"  # the scheme of what was drawn from sessions
VOUCHERS = (SCHEME_CHANNELS, SCHEME_CHANNELS + BOUGHT)  # what came out of ``deliveries``
_WINDOWS = 2  # retry windows that must be over

_Place = tuple[float, int]  # when a charge settled, and its number


class _Day(NamedTuple):
    """The key of a row of ``earnings``."""

    day: int
    slug: str
    network: str
    asset: str
    pay_to: str
    scheme: str


@dataclass(slots=True)
class _Sum:
    count: int = 0
    bytes: int = 0
    amount: int = 0

    def add(self, size: int, amount: int) -> None:
        """One row more."""
        self.count += 1
        self.bytes += size
        self.amount += amount


class Retention:
    """Rolls up what is older than ``days`` (0: nothing), no more often than ``every`` seconds.

    Nothing goes that a payer may still ask for again: ``retry_window`` is in seconds. Several
    nodes may do it at once. Every method raises ``DatabaseUnavailable``.
    """

    def __init__(
        self,
        database: Database,
        *,
        days: int,
        retry_window: float,
        every: float = 3600.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._age = max(days * DAY, _WINDOWS * retry_window)
        self._wanted = days > 0
        self._every = every
        self._clock = clock
        self._done_at: float | None = None

    async def roll_up(self) -> int:
        """Roll up all that is old enough, batch by batch; returns how many rows left."""
        now = self._clock()
        if not self._wanted or (self._done_at is not None and now < self._done_at + self._every):
            return 0
        left, until = 0, await self._forget(now - self._age)
        for batch in (_deliveries, _draws):
            while rows := await self._database.write(partial(batch, until=until)):
                left += rows
        after: _Place | None = (float("-inf"), 0)
        while after is not None:
            work = partial(_charges, until=until, now=now, after=after)
            after, rows = await self._database.write(work)
            left += rows
        self._done_at = now
        return left

    async def _forget(self, until: float) -> float:
        """Leave of older sums no more than the days of items; before when rows may go, too."""
        bound, detailed = await self._database.write(partial(_bound, until=until))
        old = await self._database.read(lambda db: _details(db, detailed))
        for first in range(0, len(old), BATCH):
            some = old[first : first + BATCH]
            await self._database.write(partial(_delete_details, some=some))
        return float(bound)


def _bound(db: Connection, until: float) -> tuple[int, int]:
    """Before which day rows may go, and before which details are no longer told."""
    mark = lock_mark(db)
    bound = int(min(until, mark.until) // DAY) * DAY
    if bound > mark.detailed:
        db.execute(update(summed).values(detailed=bound))
    return bound, max(bound, mark.detailed)


def _details(db: Connection, until: int) -> Sequence[int]:
    """The sums before a day that tell more than what an item, or all, earned in a day."""
    s = sums.c
    is_kept = and_(s.kind.in_(("all", "item")), s.span == DAY)
    return db.execute(select(s.id).where(s.at < until, not_(is_kept))).scalars().all()


def _delete_details(db: Connection, some: Sequence[int]) -> int:
    return db.execute(delete(sums).where(sums.c.id.in_(some))).rowcount


def _deliveries(db: Connection, until: float) -> int:
    """The oldest deliveries, in the order they were made: what is left joins without a gap."""
    d, c = deliveries.c, channels.c
    run = _oldest(db, until)
    gone = db.execute(
        delete(deliveries)
        .where(d.id.in_(run))
        .returning(d.channel, d.amount, d.slug, d.resource, d.size, d.created_at)
    ).all()
    if not gone:
        return 0
    per_channel: Counter[int] = Counter()
    for row in gone:
        per_channel[row.channel] += row.amount
    query = select(c.id, c.network, c.asset, c.pay_to).where(c.id.in_(per_channel))
    of = {row.id: row for row in db.execute(query)}
    days: defaultdict[_Day, _Sum] = defaultdict(_Sum)
    for row in gone:
        scheme = SCHEME_CHANNELS + (BOUGHT if row.resource.startswith(NAMES) else "")
        payee = of[row.channel]
        key = (row.slug, payee.network, payee.asset, payee.pay_to, scheme)
        days[_Day(day_of(row.created_at), *key)].add(row.size, row.amount)
    _archive(db, channels, per_channel)
    _earn(db, days)
    return len(gone)


def _draws(db: Connection, until: float) -> int:
    """The oldest draws from sessions that ended; an open one may still ask for them."""
    d, s = draws.c, sessions.c
    old = (
        select(d.id)
        .join_from(draws, sessions)
        .where(d.created_at < until, s.closed_at < until)
        .order_by(d.created_at)
        .limit(BATCH)
    )
    gone = db.execute(
        delete(draws)
        .where(d.id.in_(list(db.execute(old).scalars())))
        .returning(d.session_id, d.amount, d.size, d.created_at)
    ).all()
    if not gone:
        return 0
    per_session: Counter[int] = Counter()
    for row in gone:
        per_session[row.session_id] += row.amount
    query = select(s.id, s.slug, s.network, s.asset, s.pay_to).where(s.id.in_(per_session))
    of = {row.id: row for row in db.execute(query)}
    days: defaultdict[_Day, _Sum] = defaultdict(_Sum)
    for row in gone:
        session = of[row.session_id]
        key = (session.slug, session.network, session.asset, session.pay_to, DRAWS)
        days[_Day(day_of(row.created_at), *key)].add(row.size, row.amount)
    _archive(db, sessions, per_session)
    _earn(db, days)
    return len(gone)


def _charges(db: Connection, until: float, now: float, after: _Place) -> tuple[_Place | None, int]:
    """Settled charges, the oldest first; where to go on (``None``: at the end), how many left.

    Kept for good are payments of debts, what a session was bought with, and what opens the same
    bytes again where watching again is free; and whatever could still be presented anew.
    """
    c = charges.c
    query = (
        select(c.id, c.settled_at)
        .where(
            c.settled_at < until,
            (c.settled_at > after[0]) | ((c.settled_at == after[0]) & (c.id > after[1])),
        )
        .order_by(c.settled_at, c.id)
        .limit(BATCH)
    )
    page = db.execute(query).all()
    if not page:
        return None, 0
    free = select(items.c.slug).where(items.c.rewatch == "free")
    gone = db.execute(
        delete(charges)
        .where(
            c.id.in_([row.id for row in page]),
            c.state == "settled",
            c.created_at < until,
            func.coalesce(c.served_at, c.created_at) < until,
            c.valid_before < now - DAY,
            *(~c.resource.startswith(name) for name in (DEBTS, *NAMES)),
            c.slug.not_in(free),
        )
        .returning(
            c.scheme, c.slug, c.network, c.asset, c.pay_to, c.size, c.amount, c.settled_at
        )
    ).all()  # fmt: skip
    days: defaultdict[_Day, _Sum] = defaultdict(_Sum)
    for row in gone:
        key = (row.slug, row.network, row.asset, row.pay_to, row.scheme)
        days[_Day(day_of(row.settled_at), *key)].add(row.size, row.amount)
    _earn(db, days)
    return (page[-1].settled_at, page[-1].id), len(gone)


def day_of(at: float) -> int:
    """The day a Unix time lies in: days since 1970-01-01 UTC."""
    return int(at // DAY)


def _oldest(db: Connection, until: float) -> Sequence[int]:
    """The deliveries that were made first, as far as all of them are old enough."""
    d = deliveries.c
    run = []
    for row in db.execute(select(d.id, d.created_at).order_by(d.id).limit(BATCH)):
        if row.created_at >= until:
            break
        run.append(row.id)
    return run


def _archive(db: Connection, table: Any, amounts: Counter[int]) -> None:
    row: Any = bindparam("row")
    statement = update(table).where(table.c.id == row)
    db.execute(
        statement.values(archived=table.c.archived + bindparam("more")),
        [{"row": key, "more": amounts[key]} for key in sorted(amounts)],
    )


def _earn(db: Connection, days: dict[_Day, _Sum]) -> None:
    if not days:
        return
    statement = insert_into(db, earnings)
    new, e = statement.excluded, earnings.c
    db.execute(
        statement.on_conflict_do_update(
            index_elements=list(_Day._fields),
            set_={
                "count": e.count + new["count"],
                "bytes": e.bytes + new.bytes,
                "amount": e.amount + new.amount,
            },
        ),
        list(_rows(days)),
    )


def _rows(days: dict[_Day, _Sum]) -> Iterable[dict[str, Any]]:
    for key in sorted(days):  # always in one order, so that two nodes never wait for each other
        total = days[key]
        yield {
            **key._asdict(),
            "count": total.count,
            "bytes": total.bytes,
            "amount": total.amount,
        }
