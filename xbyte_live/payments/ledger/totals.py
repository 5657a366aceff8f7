"""Adapter: the SQL of totals of each payee: channels, charges, and actions on chain."""

from typing import Any

from sqlalchemy import Connection, FromClause, Select, and_, case, func, select

from xbyte_live.storage.db.tables import actions, channels, charges


def channel_sums(db: Connection) -> list[tuple[str, str, str, int, int, int]]:
    """Network, asset, payee; how many channels, what they were charged, what was claimed."""
    c = channels.c
    charged = func.sum(c.charged - c.opening), func.sum(c.claimed)
    return _grouped(db, select(c.network, c.asset, c.pay_to, func.count(), *charged), channels)


def charge_sums(db: Connection) -> list[tuple[str, str, str, int, int, int]]:
    """Network, asset, payee; how many charges hold, what is settled, what still is to be."""
    c = charges.c
    settled = func.sum(case((c.state == "settled", c.amount), else_=0))
    waiting = func.sum(case((c.state.in_(("pending", "queued")), c.amount), else_=0))
    query = select(c.network, c.asset, c.pay_to, func.count(), settled, waiting)
    return _grouped(db, query.where(c.state != "failed"), charges)


def action_sums(db: Connection) -> list[tuple[str, str, str, int, int, int]]:
    """Network, asset, payee; how many are open, what was paid out, what is on its way."""
    a = actions.c
    paid = func.sum(case((and_(a.kind == "settle", a.state == "settled"), a.amount), else_=0))
    waiting = func.sum(case((a.state == "pending", a.amount), else_=0))
    return _grouped(db, select(a.network, a.asset, a.pay_to, func.count(), paid, waiting), actions)


def _grouped(
    db: Connection, query: Select[Any], table: FromClause
) -> list[tuple[str, str, str, int, int, int]]:
    key = (table.c.network, table.c.asset, table.c.pay_to)
    return [
        (row[0], row[1], row[2], int(row[3]), int(row[4]), int(row[5]))
        for row in db.execute(query.group_by(*key).order_by(*key))
    ]
