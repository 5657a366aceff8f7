"""Queued payments go to a real chain together; each is recorded by what the chain says of it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount

from tests.support.chain import ETHER, SharedDevnet
from tests.support.channel_parties import a_key
from tests.support.paying import v2_document
from xbyte_live.devnet.chain import DevChain
from xbyte_live.evm.authorizations import ChainReader
from xbyte_live.evm.rpc import RpcNode
from xbyte_live.evm.sender import TransactionSender
from xbyte_live.payments.facilitators.local import LocalFacilitator
from xbyte_live.payments.facilitators.transfer_batcher import TransferBatcher
from xbyte_live.payments.ledger.charge import Charge, Exposure, NewCharge
from xbyte_live.payments.ledger.charges import ChargeLedger
from xbyte_live.payments.settlement.transfers import Transfers
from xbyte_live.storage.db.engine import Database

PRICE = 100


class Counting(TransactionSender):
    """A sender that counts what it sends."""

    sent = 0

    def _send(self, send: Any) -> str:
        self.sent += 1
        return super()._send(send)


@asynccontextmanager
async def a_queue(
    url: str, devnet: SharedDevnet, chain: DevChain
) -> AsyncIterator[tuple[ChargeLedger, Transfers, Counting]]:
    key = a_key()
    await chain.fund(Account.from_key(key).address, wei=10 * ETHER)
    database = Database(url)
    await database.start()
    ledger, network = ChargeLedger(database), devnet.network
    sender = Counting(key, RpcNode(devnet.rpc_url, timeout=20), confirmation_timeout=10)
    facilitator = LocalFacilitator({network: sender}, {})
    reader = ChainReader(RpcNode(devnet.rpc_url, timeout=5))
    settlement = Transfers(
        ledger,
        facilitator,
        {network: reader},
        lease=60,
        parallel=16,
        queue=100,
        batcher=TransferBatcher({network: sender}),
        interval=0.05,
    )
    try:
        yield ledger, settlement, sender
    finally:
        await settlement.drain()
        await facilitator.close()
        await reader.node.close()
        await database.stop()


async def queue(
    ledger: ChargeLedger, devnet: SharedDevnet, payer: LocalAccount, pay_to: str
) -> Charge:
    requirements = {
        "scheme": "exact",
        "network": devnet.network,
        "asset": devnet.asset.address,
        "amount": str(PRICE),
        "payTo": pay_to,
        "maxTimeoutSeconds": 300,
        "extra": {"name": devnet.asset.name, "version": devnet.asset.version},
    }
    document = v2_document(payer, requirements)
    order = document["payload"]["authorization"]
    new = NewCharge(
        scheme="exact",
        network=devnet.network,
        asset=devnet.asset.address.lower(),
        payer=payer.address.lower(),
        nonce=order["nonce"],
        pay_to=pay_to.lower(),
        amount=PRICE,
        slug="plasma",
        resource="/hls/plasma/source/0.ts",
        size=1000,
        valid_before=int(order["validBefore"]),
        document=document,
        requirements=requirements,
    )
    reserved = await ledger.reserve(new, exposure=Exposure(10**9, 10**9), patience=60)
    assert reserved.charge is not None
    return reserved.charge


async def settled(ledger: ChargeLedger, settlement: Transfers, open_ones: int) -> None:
    """Run the queue until so many are still open."""
    running = asyncio.create_task(settlement.run())
    try:
        async with asyncio.timeout(40):
            while sum(t.count for t in await ledger.open_totals()) > open_ones:
                await asyncio.sleep(0.05)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_what_is_queued_goes_in_one_transaction(
    sqlite_url: str, devnet: SharedDevnet, chain: DevChain
) -> None:
    pay_to = Account.create().address
    async with a_queue(sqlite_url, devnet, chain) as (ledger, settlement, sender):
        payers = [devnet.new_account(usdc=PRICE) for _ in range(6)]
        charges = [await queue(ledger, devnet, payer, pay_to) for payer in payers]

        await settled(ledger, settlement, 0)

        found = [await ledger.get(charge.id) for charge in charges]
        assert {charge.state for charge in found if charge} == {"settled"}
        assert len({charge.tx_hash for charge in found if charge}) == 1
        assert sender.sent == 1
        assert await chain.usdc_balance(pay_to) == 6 * PRICE


async def test_one_that_cannot_move_stops_no_other(
    sqlite_url: str, devnet: SharedDevnet, chain: DevChain
) -> None:
    pay_to = Account.create().address
    async with a_queue(sqlite_url, devnet, chain) as (ledger, settlement, _):
        poor, broke = devnet.new_account(usdc=PRICE), devnet.new_account()
        rich = [devnet.new_account(usdc=PRICE) for _ in range(3)]
        for payer in (*rich, poor, poor, broke):  # poor has enough for one of its two
            await queue(ledger, devnet, payer, pay_to)

        await settled(ledger, settlement, 1)

        totals = {total.state: total.count for total in await ledger.totals()}
        assert totals == {"settled": 4, "failed": 1, "queued": 1}
        assert await chain.usdc_balance(pay_to) == 4 * PRICE


@pytest.mark.parametrize("change", [{"signature": "0x" + "11" * 64}, {"signature": None}, {}])
def test_only_what_a_key_signed_can_go_along(change: dict[str, Any]) -> None:
    from tests.fakes import USDC
    from xbyte_live.payments.facilitators.remote import SignedPayment

    requirements = {
        "scheme": "exact",
        "network": USDC.network,
        "asset": USDC.address,
        "amount": "1",
        "payTo": "0x" + "ab" * 20,
    }
    document = v2_document(Account.create(), requirements, now=time.time())
    document["payload"] |= change
    together = TransferBatcher({USDC.network: None})  # type: ignore[dict-item]

    assert together.can_send(SignedPayment(2, document, requirements)) == (not change)
    assert not together.can_send(SignedPayment(1, document, requirements))
