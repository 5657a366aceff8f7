"""Adapter: the SQL of balances: where each payee's money is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, and_, case, func, or_, select

from xbyte_live.payments.ledger import totals
from xbyte_live.payments.x402.requirements import SCHEME_CHANNELS, SCHEME_EXACT
from xbyte_live.storage.db.tables import actions, channels, charges, earnings


@dataclass(frozen=True, slots=True)
class Balance:
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


_Key = tuple[str, str, str, str]


def settlement(db: Connection) -> list[Balance]:
    """Where the money is, by payee and scheme, in the order of their names."""
    found: dict[_Key, Balance] = {}

    def add(scheme: str, payee: Sequence[str], **more: Any) -> None:
        key = (scheme, payee[0], payee[1], payee[2])
        found[key] = replace(found.get(key, Balance(*key)), **more)

    for network, asset, pay_to, _, charged, claimed in totals.channel_sums(db):
        add(SCHEME_CHANNELS, (network, asset, pay_to), charged=charged, claimed=claimed)
    for row in _channel_rest(db):
        add(SCHEME_CHANNELS, row, held=int(row[3]), unclaimed=int(row[4]))
    for network, asset, pay_to, _, paid, _ in totals.action_sums(db):
        add(SCHEME_CHANNELS, (network, asset, pay_to), settled=paid)
    for row in _on_the_way(db):
        add(SCHEME_CHANNELS, row, waiting=int(row[3]), in_doubt=int(row[4]))
    for network, asset, pay_to, _, settled, waiting in totals.charge_sums(db):
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
