"""How many pay is counted once for all who ask."""

import asyncio

from tests.support.ledger_books import Shop
from xbyte_live.payments.ledger.charges import ChargeLedger
from xbyte_live.storage.db.engine import Database
from xbyte_live.web.api.viewers import KEPT, PAYING_WITHIN, Audience

SLUG = "plasma"


class Counted(ChargeLedger):
    """A ledger that counts how often it is asked."""

    asked = 0

    async def payers(self, slug: str, *, since: float) -> int:
        self.asked += 1
        return await super().payers(slug, since=since)


async def test_a_crowd_that_asks_has_it_counted_once_a_second(database: Database) -> None:
    shop = Shop(database)
    ledger = Counted(database, clock=shop.clock)
    audience = Audience(ledger, clock=shop.clock)
    viewers = [shop.payer(), shop.payer()]
    for viewer in viewers:
        await shop.deposit(viewer, 1000)
    await shop.charge(viewers[0], 5)
    assert await asyncio.gather(*(audience.paying(SLUG) for _ in range(100))) == [1] * 100
    assert ledger.asked == 1

    await shop.charge(viewers[1], 5)
    shop.clock.now += KEPT / 2
    assert await audience.paying(SLUG) == 1
    shop.clock.now += KEPT / 2
    assert await audience.paying(SLUG) == 2
    assert await audience.paying("another") == 0
    shop.clock.now += PAYING_WITHIN
    assert await audience.paying(SLUG) == 0
    assert ledger.asked == 4
