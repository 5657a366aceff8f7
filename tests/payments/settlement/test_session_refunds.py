"""What a session bought with exact has left goes back on a real chain, once."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from eth_account import Account

from tests.support.chain import ETHER, SharedDevnet
from tests.support.channel_parties import a_key
from tests.support.sessions import ASSET, NETWORK, a_draw, an_order, open_books
from xbyte_live.errors import FacilitatorUnavailable
from xbyte_live.evm.authorizations import ChainReader
from xbyte_live.evm.keys import Payee
from xbyte_live.evm.rpc import RpcNode
from xbyte_live.evm.sender import TransactionSender
from xbyte_live.payments.facilitators.local import LocalFacilitator
from xbyte_live.payments.facilitators.remote import Facilitator, Outcome, SignedPayment, Unknown
from xbyte_live.payments.ledger.actions import Action, ActionLedger
from xbyte_live.payments.ledger.charge import Charge, NewCharge
from xbyte_live.payments.settlement.session_refunds import SessionRefunds
from xbyte_live.storage.db.engine import Database


class Meddler:
    """A facilitator that does what it is told, after it has sent or instead of it."""

    def __init__(self, inner: Facilitator) -> None:
        self._inner = inner
        self.script: list[str] = []
        self.settled = 0

    async def settle(self, payment: SignedPayment) -> Outcome:
        step = self.script.pop(0) if self.script else ""
        if step == "unavailable":
            raise FacilitatorUnavailable("nobody is there")
        outcome = await self._inner.settle(payment)
        self.settled += 1
        if step == "die":
            raise asyncio.CancelledError
        return Unknown("timeout") if step == "silent" else outcome


class Shop:
    """A payee whose key we hold, and the returns of its sessions."""

    def __init__(self, devnet: SharedDevnet, database: Database, local: LocalFacilitator) -> None:
        self.devnet = devnet
        self.payee = Payee(a_key())
        self.payer = Account.create().address.lower()
        self.books = open_books(database, payees=(self.payee.address,))
        self.rows = ActionLedger(database)
        self.facilitator = Meddler(local)
        self.chain = ChainReader(RpcNode(devnet.rpc_url, timeout=5))
        devnet.fund(self.payee.address, usdc=1000)

    def returns(self, lease: float = 30.0) -> SessionRefunds:
        """The part anew, as after a restart."""
        return SessionRefunds(
            self.rows,
            self.payee,
            self.facilitator,  # type: ignore[arg-type]
            {NETWORK: self.chain},
            [self.devnet.asset],
            lease=lease,
        )

    async def leave(self, rest: int) -> Action:
        """A session that ended with so much left."""
        charge = await self.paid(rest + 10)
        session = await self.books.sessions.paid(charge, an_order())
        amounts = {self.payee.address: 10}
        await self.books.draws.draw(a_draw(session, amounts=amounts))
        ended = await self.books.sessions.end(session)
        assert ended is not None and ended.way == "transfer"
        action = await self.rows.find(f"return:{session.digest}")
        assert action is not None and action.amount == rest
        return action

    async def paid(self, amount: int) -> Charge:
        new = NewCharge(
            *("exact", NETWORK, ASSET, self.payer, a_key(), self.payee.address, amount, "plasma"),
            *(an_order().resource, 0, 2_000_000_000, {}, {}),
        )
        reserved = await self.books.charges.reserve(new, exposure=None, patience=60)
        assert reserved.charge is not None
        return await self.books.charges.settle(reserved.charge, "0x" + "11" * 32)

    @property
    def received(self) -> int:
        return self.devnet.usdc_balance(self.payer)


@pytest.fixture
async def shop(devnet: SharedDevnet, sqlite_url: str) -> AsyncIterator[Shop]:
    database = Database(sqlite_url)
    await database.start()
    gas = devnet.new_account(wei=ETHER)
    node = RpcNode(devnet.rpc_url, timeout=20)
    sender = TransactionSender("0x" + bytes(gas.key).hex(), node, confirmation_timeout=10)
    local = LocalFacilitator({NETWORK: sender}, {})
    shop = Shop(devnet, database, local)
    yield shop
    await shop.chain.node.close()
    await local.close()
    await database.stop()


async def state(shop: Shop, action: Action) -> Any:
    found = await shop.rows.get(action.id)
    assert found is not None
    return found


async def test_the_rest_goes_back_to_the_payer(shop: Shop) -> None:
    action = await shop.leave(60)
    assert await shop.returns().send_due() == 1
    done = await state(shop, action)
    assert (done.state, shop.received) == ("settled", 60)
    assert done.tx_hash.startswith("0x")
    assert await shop.returns().send_due() == 0
    assert shop.received == 60


@pytest.mark.parametrize("fault", ["unavailable", "silent", "die"])
async def test_whatever_goes_wrong_it_goes_back_once(shop: Shop, fault: str) -> None:
    action = await shop.leave(60)
    shop.facilitator.script = [fault]
    try:
        await shop.returns(lease=0.0).send_due()
    except asyncio.CancelledError:
        assert fault == "die"
    for _ in range(3):
        taken = await state(shop, action)
        if taken.state == "pending":  # due again now
            await shop.rows.postpone(taken, "again", delay=-1, in_doubt=True)
        await asyncio.gather(*(shop.returns().send_due() for _ in range(3)))
    assert (await state(shop, action)).state == "settled"
    assert shop.received == 60
    assert shop.facilitator.settled == 1


async def test_a_return_sent_twice_at_once_moves_once(shop: Shop) -> None:
    action = await shop.leave(60)
    signed = shop.returns().rows.payment(action)
    later = shop.returns().rows.payment(action)
    await asyncio.gather(shop.facilitator.settle(signed), shop.facilitator.settle(later))
    assert shop.received == 60
    taken = await shop.rows.begin_attempt(action.id, lease=0)
    assert taken is not None
    await shop.rows.postpone(taken, "crash", delay=-1, in_doubt=True)
    await shop.returns().send_due()
    assert (await state(shop, action)).state == "settled"
    assert shop.received == 60


async def test_a_payee_without_the_money_owes_it_until_it_has_it(shop: Shop) -> None:
    action = await shop.leave(5000)
    await shop.returns().send_due()
    assert (await state(shop, action)).state == "pending"
    shop.devnet.fund(shop.payee.address, usdc=9000)
    await shop.rows.postpone(await state(shop, action), "again", delay=-1, in_doubt=True)
    await shop.returns().send_due()
    assert (await state(shop, action)).state == "settled"
    assert shop.received == 5000
