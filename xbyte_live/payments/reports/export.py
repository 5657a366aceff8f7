"""Adapter: every sale as an entry of the books, streamed from one snapshot into CSV or JSON.

``income`` is what a row adds to revenue, so that their sum over any time is exact: what is drawn
from a session was income when the session was bought, and what a session gives back is taken off.
"""

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import orjson
from sqlalchemy import Connection, Select, and_, func, literal, select

from xbyte_live.errors import DatabaseUnavailable
from xbyte_live.money import PRICE_DECIMALS, format_decimal
from xbyte_live.payments.ledger.periods import DAY
from xbyte_live.payments.ledger.retention import DRAWS
from xbyte_live.payments.x402.order import NAMES
from xbyte_live.payments.x402.requirements import SCHEME_CHANNELS
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.db.tables import (
    channels,
    charges,
    deliveries,
    draws,
    earnings,
    purchases,
    sessions,
)

PAGE = 1000
COLUMNS = (
    "kind", "time", "item", "resource", "bytes", "amount", "dollars", "income", "scheme",
    "network", "asset", "payer", "payee", "reference", "count",
)  # fmt: skip

Format = Literal["csv", "json"]
Kind = Literal["delivery", "purchase", "draw", "return", "credit", "day"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One row: amounts in atomic units, ``at`` in Unix seconds (of a day: its first).

    ``delivery``: bytes for a payment; ``purchase``: of a session; ``draw``: bytes out of a
    session; ``return``: what a session had left; ``credit``: of that, what went into another
    session; ``day``: ``count`` older rows of one item.
    ``reference`` is the channel, or for ``exact`` the transaction.
    """

    kind: Kind
    at: float
    item: str
    resource: str
    bytes: int
    amount: int
    income: int
    scheme: str
    network: str
    asset: str
    payer: str
    payee: str
    reference: str
    count: int = 1


class Export:
    """Reads entries; every method raises ``DatabaseUnavailable``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def entries(
        self,
        since: float,
        until: float,
        take: Callable[[Entry], None],
        advance: Callable[[int, int], None],
    ) -> int:
        """Give every entry from ``since`` on and before ``until`` to ``take``; how many.

        Both are midnights (UTC), for what is rolled up is known by the day only. Rolled-up days
        come first, then deliveries and purchases by channel, those by ``exact`` as they settled,
        draws and returns, each in the order of time. ``take`` and ``advance`` (done, in all) are
        called from another thread.
        """
        begun = False

        def work(db: Connection) -> int:
            nonlocal begun
            if begun:  # half is written already
                raise DatabaseUnavailable("the database went away; export again")
            begun = True
            total, done = _size(db, since, until), 0
            for entry in _entries(db, since, until):
                take(entry)
                done += 1
                if done % PAGE == 0:
                    advance(done, max(done, total))
            advance(done, done)
            return done

        return await self._database.read(work)


def _entries(db: Connection, since: float, until: float) -> Iterator[Entry]:
    for query, read in _sources(since, until):
        yield from map(read, _pages(db, query))


def _size(db: Connection, since: float, until: float) -> int:
    counts = (select(func.count()).select_from(q.subquery()) for q, _ in _sources(since, until))
    return sum(int(db.execute(query).scalar_one()) for query in counts)


def _pages(db: Connection, query: Select[Any]) -> Iterator[Any]:
    """The rows of a query in the order of ``at`` and ``id``, a page of them in memory."""
    ordered = query.order_by(query.selected_columns["at"], query.selected_columns["id"])
    yield from db.execute(ordered, execution_options={"yield_per": PAGE})


def _sources(since: float, until: float) -> tuple[tuple[Select[Any], Callable[[Any], Entry]], ...]:
    e, d, c, s, w, x, p = (
        t.c for t in (earnings, deliveries, channels, sessions, draws, charges, purchases)
    )  # fmt: skip
    shared = (s.slug, s.network, s.asset, s.payer, s.pay_to, s.channel)

    def within(at: Any) -> Any:
        return and_(at >= since, at < until)

    reference = func.coalesce(c.channel_id, "").label("channel_id")
    return (
        (
            select(e.id, e.day.label("at"), e.slug, e.network, e.asset, e.pay_to, e.scheme,
                   e.count.label("rows"), e.bytes.label("size"), e.amount)
            .where(e.day >= since // DAY, e.day < until / DAY),
            _of_day,
        ),
        (
            select(d.id, d.created_at.label("at"), d.slug, d.resource, d.size, d.amount,
                   c.network, c.asset, c.payer, c.pay_to, c.channel_id)
            .join_from(deliveries, channels)
            .where(within(d.created_at)),
            _of_delivery,
        ),
        (
            select(x.id, x.settled_at.label("at"), x.slug, x.resource, x.size, x.amount, x.scheme,
                   x.network, x.asset, x.payer, x.pay_to, x.tx_hash)
            .where(x.state == literal("settled"), within(x.settled_at)),
            _of_charge,
        ),
        (
            select(w.id, w.created_at.label("at"), w.resource, w.size, w.amount, *shared, reference)
            .select_from(draws.join(sessions).outerjoin(channels, c.id == s.channel))
            .where(within(w.created_at)),
            _of_draw,
        ),
        (
            select(s.id, s.closed_at.label("at"), s.returned.label("amount"), *shared, reference)
            .select_from(sessions.outerjoin(channels, c.id == s.channel))
            .where(within(s.closed_at), s.returned > 0),
            _of_return,
        ),
        (
            select(p.id, p.created_at.label("at"), p.amount, *shared, reference)
            .select_from(purchases.join(sessions).outerjoin(channels, c.id == s.channel))
            .where(within(p.created_at), p.origin.startswith("credit-")),
            _of_credit,
        ),
    )  # fmt: skip


def _of_day(row: Any) -> Entry:
    income = 0 if row.scheme == DRAWS else row.amount
    return Entry(
        kind="day",
        at=row.at * DAY,
        item=row.slug,
        resource="",
        bytes=row.size,
        amount=row.amount,
        income=income,
        scheme=row.scheme,
        network=row.network,
        asset=row.asset,
        payer="",
        payee=row.pay_to,
        reference="",
        count=row.rows,
    )


def _of_delivery(row: Any) -> Entry:
    return _paid(row, SCHEME_CHANNELS, row.channel_id)


def _of_charge(row: Any) -> Entry:
    return _paid(row, row.scheme, row.tx_hash or "")


def _paid(row: Any, scheme: str, reference: str) -> Entry:
    return _entry(
        row,
        kind="purchase" if row.resource.startswith(NAMES) else "delivery",
        resource=row.resource,
        size=row.size,
        income=row.amount,
        scheme=scheme,
        reference=reference,
    )


def _of_draw(row: Any) -> Entry:
    return _entry(row, kind="draw", resource=row.resource, size=row.size, income=0)


def _of_return(row: Any) -> Entry:
    return _entry(row, kind="return", income=-row.amount)


def _of_credit(row: Any) -> Entry:
    return _entry(row, kind="credit", income=row.amount)


def _entry(
    row: Any,
    *,
    kind: Kind,
    income: int,
    resource: str = "",
    size: int = 0,
    scheme: str = DRAWS,
    reference: str | None = None,
) -> Entry:
    return Entry(
        kind=kind,
        at=row.at,
        item=row.slug,
        resource=resource,
        bytes=size,
        amount=row.amount,
        income=income,
        scheme=scheme,
        network=row.network,
        asset=row.asset,
        payer=row.payer,
        payee=row.pay_to,
        reference=row.channel_id if reference is None else reference,
    )


# Files


@contextmanager
def writing(form: Format, file: TextIO) -> Iterator[Callable[[Entry], None]]:
    """What takes entries and writes them: CSV with a header, or one JSON list."""
    if form == "csv":
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)

        def tabulate(entry: Entry) -> None:
            table.writerow(_row(entry).values())

        yield tabulate
        return
    before = "[\n"

    def take(entry: Entry) -> None:
        nonlocal before
        file.write(before + orjson.dumps(_row(entry)).decode())
        before = ",\n"

    yield take
    file.write("[]\n" if before == "[\n" else "\n]\n")


def _row(entry: Entry) -> dict[str, Any]:
    """An entry under the names of ``COLUMNS``; amounts also as dollars."""
    at = datetime.fromtimestamp(entry.at, UTC)
    values = {
        "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "dollars": format_decimal(entry.amount, PRICE_DECIMALS),
    }
    return {
        name: values[name] if name in values else _safe(getattr(entry, name)) for name in COLUMNS
    }


def _safe(value: Any) -> Any:
    """Text that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value
