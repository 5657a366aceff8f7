"""Adapter: who does what only one process may, and how far each chain was read.

Time is the database's, so that nodes whose clocks differ still agree on when a lease is over;
on SQLite all processes share one clock anyway.
"""

import time

from sqlalchemy import Connection, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.db.tables import leases, watermarks


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


def _take(db: Connection, name: str, holder: str, seconds: float) -> bool:
    now = _now(db)
    dialect = postgresql if db.dialect.name == "postgresql" else sqlite
    db.execute(
        dialect.insert(leases)
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
    dialect = postgresql if db.dialect.name == "postgresql" else sqlite
    db.execute(
        dialect.insert(watermarks)
        .values(network=network, block=block)
        .on_conflict_do_update(index_elements=["network"], set_={"block": block})
    )


def _now(db: Connection) -> float:
    if db.dialect.name != "postgresql":
        return time.time()
    return float(db.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one())
