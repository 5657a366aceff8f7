"""The loop that settles what is due goes on through every failure, without running hot."""

import asyncio
from pathlib import Path

import pytest

from tests.fakes import USDC, FakeChain, FakeFacilitator
from tests.support.ledger_children import a_charge
from xbyte_live.errors import DatabaseUnavailable
from xbyte_live.payments.ledger.charge import Charge, Exposure
from xbyte_live.payments.ledger.charges import ChargeLedger
from xbyte_live.payments.settlement.transfers import Transfers
from xbyte_live.storage.db.engine import Database


class StuckLedger(ChargeLedger):
    """A ledger that can be read and not written, as on a full disk, until it is mended."""

    looks = 0
    stuck = True

    async def due(self, limit: int) -> list[Charge]:
        self.looks += 1
        return await super().due(limit)

    async def begin_attempt(self, charge_id: int, *, lease: float) -> Charge | None:
        if self.stuck:
            raise DatabaseUnavailable("the database did not take the write; try again shortly")
        return await super().begin_attempt(charge_id, lease=lease)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


async def test_a_ledger_that_takes_no_write_is_tried_again_only_after_a_rest(url: str) -> None:
    database = Database(url)
    await database.start()
    ledger = StuckLedger(database)
    for number in range(3):
        document = {"x402Version": 2, "payload": {"authorization": {"nonce": f"0x{number:064x}"}}}
        new = a_charge(number, document=document)
        await ledger.reserve(new, exposure=Exposure(10**6, 10**6), patience=60)
    chain = FakeChain()
    settlement = Transfers(
        ledger,
        FakeFacilitator(chain),
        {USDC.network: chain},
        lease=60,
        parallel=1,
        queue=10,
        interval=3600,
    )
    running = asyncio.create_task(settlement.run())
    try:
        async with asyncio.timeout(20):
            while not ledger.looks:
                await ChargeLedger.due(ledger, 1)
            for _ in range(20):  # more time than twenty rounds of the loop would take
                await ChargeLedger.due(ledger, 1)
            assert ledger.looks == 1
            ledger.stuck = False
            settlement.wake()
            while len(chain.used) < 3:
                await ChargeLedger.due(ledger, 1)
            await settlement.drain()
            assert [(t.state, t.count) for t in await ledger.totals()] == [("settled", 3)]
    finally:
        running.cancel()
        await database.stop()
