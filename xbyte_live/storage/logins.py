"""Adapter: which login codes were used and which logins have ended, the same for every process."""

import secrets

from sqlalchemy import select

from xbyte_live.storage.coordination import LeaseLedger
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.db.tables import leases

_USED, _ENDED = "login ", "logout "  # what the names of such leases begin with
_KEPT = 3600.0  # seconds they are kept beyond their time, as clocks of nodes may differ


class Logins:
    """What was used or ended is a lease that nobody else gets while it could still be shown.

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
