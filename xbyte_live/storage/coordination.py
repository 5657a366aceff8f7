"""Adapter: leases, watermarks and logins: what all processes on one database agree on.

Time is the database's, so that nodes whose clocks differ still agree on when a lease is over;
on SQLite all processes share one clock anyway.
"""

import secrets
import time

from sqlalchemy import Connection, delete, func, or_, select, update

from xbyte_live.storage.db.dialect import dialect_of, insert_into
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.db.tables import leases, watermarks

_USED, _ENDED = "login ", "logout "  # what the names of such leases begin with
_KEPT = 3600.0  # seconds they are kept beyond their time, as clocks of nodes may differ


class LeaseLedger:
    """Every method raises ``DatabaseUnavailable`` when the database gives no answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, name: str, holder: str, *, seconds: float) -> bool:
        """Take a lease, or hold on to it, for so long; whether it is this holder's now."""
        return await self._database.write(lambda db: _take(db, name, holder, seconds))

    async def release(self, name: str, holder: str) -> None:
        """Give a lease back, if it is this holder's."""
        statement = delete(leases).where(leases.c.name == name, leases.c.holder == holder)
        await self._database.write(lambda db: db.execute(statement).rowcount)

    async def forget(self, beginning: str, *, age: float, limit: int = 1000) -> int:
        """Delete up to ``limit`` leases of such names that were over ``age`` seconds ago.

        Returns how many there were.
        """
        return await self._database.write(lambda db: _forget(db, beginning, age, limit))

    async def watermark(self, network: str) -> int | None:
        """The last block of a network whose events were looked at."""
        query = select(watermarks.c.block).where(watermarks.c.network == network)
        return await self._database.read(lambda db: db.execute(query).scalar_one_or_none())

    async def set_watermark(self, network: str, block: int) -> None:
        """Record how far a network was read; it may go back with its chain."""
        await self._database.write(lambda db: _set_watermark(db, network, block))


class Logins:
    """Used login codes and ended logins: leases that nobody else gets while they could be shown.

    Every method raises ``DatabaseUnavailable`` when the database gives no answer.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._leases = LeaseLedger(database)

    async def use(self, nonce: str, *, seconds: float) -> bool:
        """Use up the login code of that nonce, good for so long; whether nobody has before."""
        return await self._leases.take(_USED + nonce, secrets.token_hex(16), seconds=seconds)

    async def end(self, nonce: str, *, seconds: float) -> None:
        """End the login of that nonce, whose cookie would be good for so long."""
        await self._leases.take(_ENDED + nonce, "studio", seconds=seconds)

    async def has_ended(self, nonce: str) -> bool:
        """Whether somebody has logged out of it."""
        query = select(leases.c.name).where(leases.c.name == _ENDED + nonce)
        return await self._database.read(lambda db: db.execute(query).first()) is not None

    async def forget(self) -> int:
        """Delete what is too old for anybody to show a code or a cookie of; how many it was."""
        return sum([await self._leases.forget(name, age=_KEPT) for name in (_USED, _ENDED)])


def _take(db: Connection, name: str, holder: str, seconds: float) -> bool:
    now = _now(db)
    db.execute(
        insert_into(db, leases)
        .values(name=name, holder=holder, until=now + seconds)
        .on_conflict_do_nothing(index_elements=["name"])
    )
    mine_or_over = or_(leases.c.holder == holder, leases.c.until <= now)
    taken = db.execute(
        update(leases)
        .where(leases.c.name == name, mine_or_over)
        .values(holder=holder, until=now + seconds)
    )
    return bool(taken.rowcount)


def _forget(db: Connection, beginning: str, age: float, limit: int) -> int:
    over = select(leases.c.name).where(
        leases.c.name.startswith(beginning, autoescape=True), leases.c.until < _now(db) - age
    )
    return db.execute(delete(leases).where(leases.c.name.in_(over.limit(limit)))).rowcount


def _set_watermark(db: Connection, network: str, block: int) -> None:
    db.execute(
        insert_into(db, watermarks)
        .values(network=network, block=block)
        .on_conflict_do_update(index_elements=["network"], set_={"block": block})
    )


def _now(db: Connection) -> float:
    if dialect_of(db) == "sqlite":
        return time.time()
    return float(db.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one())
