"""Adapter: which login codes were used and which logins have ended, the same for every process."""

import secrets

from sqlalchemy import select

from xbyte_live.db.engine import Database
from xbyte_live.db.tables import leases
from xbyte_live.ledger.leases import LeaseLedger


class Logins:
    """What was used or ended is a lease that nobody else gets while it could still be shown.

    Every method raises ``DatabaseUnavailable`` when the database gives no answer.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._leases = LeaseLedger(database)

    async def use(self, nonce: str, *, seconds: float) -> bool:
        """Use up the login code of that nonce, good for so long; whether nobody has before."""
        return await self._leases.take(f"login {nonce}", secrets.token_hex(16), seconds=seconds)

    async def end(self, nonce: str, *, seconds: float) -> None:
        """End the login of that nonce, whose cookie would be good for so long."""
        await self._leases.take(_ended(nonce), "studio", seconds=seconds)

    async def has_ended(self, nonce: str) -> bool:
        """Whether somebody has logged out of it."""
        query = select(leases.c.name).where(leases.c.name == _ended(nonce))
        return await self._database.read(lambda db: db.execute(query).first()) is not None


def _ended(nonce: str) -> str:
    return f"logout {nonce}"
