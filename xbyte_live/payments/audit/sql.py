"""Adapter: the SQL of an audit: sums over the ledger's tables, page by page, on one snapshot.

Every page is bounded, so that millions of rows take no more memory than a few.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    and_,
    case,
    func,
    literal,
    or_,
    select,
    union_all,
)

from xbyte_live.payments.audit.channel_rules import Books, Trail, check_books
from xbyte_live.payments.audit.findings import Findings
from xbyte_live.payments.audit.rollups import wrong_sums
from xbyte_live.payments.ledger.channel import Channel, channel_of
from xbyte_live.payments.ledger.charge import is_debt
from xbyte_live.payments.ledger.retention import DRAWS, VOUCHERS
from xbyte_live.storage.db.tables import (
    actions,
    channels,
    charges,
    credits,
    deliveries,
    draws,
    earnings,
    purchases,
    sessions,
)

PAGE = 500  # rows looked at together
LISTED = 1000  # rows one check names

Advance = Callable[[int], None]


def channel_pages(db: Connection, network: str | None = None) -> Iterator[list[Channel]]:
    """All channels (of a network), a page at a time."""
    after = 0
    while page := channel_page(db, after, network):
        yield page
        after = page[-1].id


def channel_page(db: Connection, after: int, network: str | None = None) -> list[Channel]:
    """The next channels by their number."""
    query = select(channels).where(channels.c.id > after).order_by(channels.c.id).limit(PAGE)
    if network is not None:
        query = query.where(channels.c.network == network)
    return [channel_of(row) for row in db.execute(query)]


def counted(db: Connection) -> int:
    """How many channels and deliveries there are to look at."""
    return sum(
        int(db.execute(select(func.count()).select_from(table)).scalar_one())
        for table in (channels, deliveries)
    )


def check_channels(db: Connection, found: Findings, advance: Advance) -> None:
    """Every channel against its deliveries, sessions and refunds."""
    for page in channel_pages(db):
        of_page = [channel.id for channel in page]
        trails = _trails(db, of_page)
        returned, held = _sessions(db, of_page)
        reserved = _refunds(db, [channel.channel_id for channel in page])
        for channel in page:
            trail = trails.get(channel.id, Trail())
            check_books(
                Books(
                    channel,
                    trail,
                    returned.get(channel.id, 0),
                    held.get(channel.id, 0),
                    reserved.get(channel.channel_id, 0),
                ),
                found,
            )
            advance(1 + trail.count)


def _trails(db: Connection, of_page: Sequence[int]) -> dict[int, Trail]:
    """The deliveries of some channels, summed and joined in the database."""
    d = deliveries.c
    over: dict[str, Any] = {"partition_by": d.channel, "order_by": (d.epoch, d.cumulative)}
    begins = (d.cumulative - d.amount).label("begins")
    rows = (
        select(
            d.channel,
            d.epoch,
            d.cumulative,
            d.amount,
            begins,
            func.lag(d.cumulative).over(**over).label("ended"),
            func.lag(d.epoch).over(**over).label("epoch_before"),
            func.lead(d.id).over(**over).label("next"),
        )
        .where(d.channel.in_(of_page))
        .subquery()
    )
    r = rows.c
    step = r.begins - r.ended  # nothing for the first

    def summed(value: Any, where: ColumnElement[bool]) -> Any:
        return func.coalesce(func.sum(case((where, value), else_=0)), 0)

    query = select(
        r.channel,
        func.count(),
        func.sum(r.amount),
        summed(r.begins, r.ended.is_(None)),
        summed(r.cumulative, r.next.is_(None)),
        func.max(r.epoch),
        summed(step, step > 0),
        summed(-step, and_(step < 0, r.epoch != r.epoch_before)),
        summed(-step, and_(step < 0, r.epoch == r.epoch_before)),
    ).group_by(r.channel)
    return {row[0]: Trail(*(int(value) for value in row[1:])) for row in db.execute(query)}


def _sessions(db: Connection, of_page: Sequence[int]) -> tuple[dict[int, int], dict[int, int]]:
    """What sessions of some channels returned, and what the open ones hold."""
    s = sessions.c
    rest = case((s.closed_at.is_(None), s.budget - s.drawn), else_=0)
    query = (
        select(s.channel, func.sum(s.returned), func.sum(rest))
        .where(s.channel.in_(of_page))
        .group_by(s.channel)
    )
    rows = [(row[0], int(row[1]), int(row[2])) for row in db.execute(query)]
    return {row[0]: row[1] for row in rows}, {row[0]: row[2] for row in rows}


def _refunds(db: Connection, ids: Sequence[str]) -> dict[str, int]:
    """What open refunds of some channels ask for."""
    a = actions.c
    query = (
        select(a.channel_id, func.sum(a.amount))
        .where(a.channel_id.in_(ids), a.kind == "refund", a.state == "pending")
        .group_by(a.channel_id)
    )
    return {row[0]: int(row[1]) for row in db.execute(query)}


def check_sessions(db: Connection, found: Findings) -> None:
    """Every session against what was paid for it and drawn from it."""
    s = sessions.c
    drawn = _sum_of(draws, draws.c.session_id == s.id)
    paid = _sum_of(purchases, purchases.c.session_id == s.id)
    after = 0
    query = select(
        s.id, s.drawn, (s.archived + drawn).label("draws"), s.budget, paid.label("paid"),
        s.returned, s.closed_at,
    ).order_by(s.id).limit(PAGE)  # fmt: skip
    while rows := db.execute(query.where(s.id > after)).all():
        for row in rows:
            about = f"session {row.id}"
            if row.drawn != row.draws:
                found.add(
                    "session.drawn", about, int(row.draws), row.drawn,
                    "what was drawn from it is not what its draws add up to",
                )  # fmt: skip
            if row.budget != row.paid:
                found.add(
                    "session.budget", about, int(row.paid), row.budget,
                    "its budget is not what was paid for it",
                )  # fmt: skip
            closed = row.closed_at is not None
            if closed and row.budget - row.drawn != row.returned:
                found.add(
                    "session.returned", about, row.budget - row.drawn, row.returned,
                    "it ended and did not give back just what was left",
                )  # fmt: skip
            if row.returned and not closed:
                found.add(
                    "session.returned", about, 0, row.returned,
                    "it is open and has given something back",
                )  # fmt: skip
        after = rows[-1].id


def check_credits(db: Connection, found: Findings) -> None:
    """What sessions paid with ``exact`` gave back is credit, was used, or was sent on chain.

    What could not be sent may have become credit again, or not yet.
    """
    key = ("network", "asset", "payer", "pay_to")
    none, s, a, p = literal(0), sessions.c, actions.c, purchases.c
    sent = (a.kind == "return", a.state != "failed")
    sides = union_all(
        select(*(credits.c[k] for k in key), credits.c.amount.label("has"),
               none.label("gave"), none.label("failed")),
        select(*(s[k] for k in key), none, s.returned, none)
        .where(s.channel.is_(None), s.returned != 0),
        select(*(s[k] for k in key), none, -p.amount, none)
        .select_from(purchases.join(sessions)).where(p.origin.startswith("credit-")),
        select(*(a[k] for k in key), none, -a.amount, none).where(*sent),
        select(*(a[k] for k in key), none, none, a.amount)
        .where(a.kind == "return", a.state == "failed"),
    ).subquery()  # fmt: skip
    has, gave, failed = [func.sum(sides.c[name]) for name in ("has", "gave", "failed")]
    query = (
        select(*(sides.c[k] for k in key), has, gave, failed)
        .group_by(*(sides.c[k] for k in key))
        .having(or_(has < 0, has > gave, has < gave - failed))
    )
    for row in db.execute(query.limit(LISTED)):
        found.add(
            "credit.amount", f"payer {row.payer} with {row.pay_to} on {row.network}",
            int(row[5]), int(row[4]),
            "its credit is not what ended sessions gave back and nothing has used",
        )  # fmt: skip


def check_earnings(db: Connection, found: Findings) -> None:
    """What was rolled up into days is what channels and sessions say was taken from them."""
    e, key = earnings.c, ("network", "asset", "pay_to")
    for what, table, schemes in (
        ("vouchers", channels, VOUCHERS),
        ("sessions", sessions, (DRAWS,)),
    ):
        sides = union_all(
            select(*(e[k] for k in key), e.amount.label("days"), literal(0).label("rows"))
            .where(e.scheme.in_(schemes)),
            select(*(table.c[k] for k in key), literal(0), table.c.archived)
            .where(table.c.archived != 0),
        ).subquery()  # fmt: skip
        by, days_, rows_ = [sides.c[k] for k in key], sides.c.days, sides.c.rows
        query = (
            select(*[*by, func.sum(days_), func.sum(rows_)])
            .group_by(*by)
            .having(func.sum(days_) != func.sum(rows_))
        )
        for network, _, pay_to, days, rows in db.execute(query.limit(LISTED)):
            found.add(
                f"earnings.{what}", f"payee {pay_to} on {network}", int(rows), int(days),
                f"the days that older deliveries were summed into and its {what} disagree",
            )  # fmt: skip


def check_sums(db: Connection, found: Findings) -> None:
    """What reports are put together from adds up to the rows."""
    for one in wrong_sums(db):
        found.add(
            f"sums.{one.kind}", one.about, one.real, one.summed,
            f"its {one.figure} in reports is not what the rows say; "
            "`xbyte-live ledger resum` sums them again",
        )  # fmt: skip


def check_charges(db: Connection, found: Findings) -> None:
    """Settled charges name a transaction; what a debt was made good by did pay for it."""
    c, by = charges.c, charges.alias("by")
    without = select(c.id, c.amount).where(c.state == "settled", c.tx_hash.is_(None))
    for number, amount in db.execute(without.limit(LISTED)):
        found.add(
            "charge.transaction", f"charge {number}", amount, 0,
            "it is settled and names no transaction",
        )  # fmt: skip
    good = (
        select(
            c.made_good_by, func.sum(c.amount).label("debts"), func.max(c.pay_to).label("pay_to"),
            func.min(c.pay_to).label("also"), by.c.amount, by.c.state, by.c.resource,
            by.c.pay_to.label("paid"),
        )
        .select_from(charges.outerjoin(by, by.c.id == c.made_good_by))
        .where(c.made_good_by.is_not(None))
        .group_by(c.made_good_by, by.c.amount, by.c.state, by.c.resource, by.c.pay_to)
    )  # fmt: skip
    for row in db.execute(good):
        debts, paid = int(row.debts), 0
        if row.state == "settled" and is_debt(row.resource) and row.pay_to == row.also == row.paid:
            paid = row.amount
        if paid < debts:
            found.add(
                "charge.made_good", f"charge {row.made_good_by}", debts, paid,
                "it did not pay for the debts that it is said to have made good",
            )  # fmt: skip
    lost = select(c.id, c.amount).where(
        c.state == "failed", c.delivered, or_(c.tx_hash.is_not(None), c.settled_at.is_not(None))
    )
    for number, amount in db.execute(lost.limit(LISTED)):
        found.add(
            "charge.failed", f"charge {number}", 0, amount,
            "it is a debt, and yet names the transaction that paid for it",
        )  # fmt: skip


def networks(db: Connection) -> list[str]:
    """Every network that anything was recorded of."""
    tables = (channels, charges, actions)
    query = union_all(*(select(table.c.network).distinct() for table in tables))
    return sorted({row[0] for row in db.execute(query)})


def _sum_of(table: FromClause, where: ColumnElement[bool]) -> Any:
    return select(func.coalesce(func.sum(table.c.amount), 0)).where(where).scalar_subquery()
