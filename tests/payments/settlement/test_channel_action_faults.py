"""Whatever fails on the way to the chain, an action is done once or not at all, and known."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
from sqlalchemy import update
from starlette.applications import Starlette
from starlette.responses import Response

from tests.support.chain import ETHER, SharedDevnet, serving
from tests.support.channel_parties import House, Payer, a_house, a_key
from tests.support.rpc_proxy import rpc_proxy
from xbyte_live.devnet.chain import DevChain, Devnet
from xbyte_live.devnet.facilitator import facilitator_app
from xbyte_live.errors import ChainUnavailable, FacilitatorUnavailable, PaymentRefused
from xbyte_live.payments.facilitators.remote import RemoteFacilitator, SignedPayment
from xbyte_live.payments.ledger.actions import Action, NewAction
from xbyte_live.storage.db.tables import actions, channels


async def until(done: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await done():
            await asyncio.sleep(0.05)


async def go_on(house: House, action: Action) -> Action:
    """What the loop does with an action that is due."""
    found = await house.ledger.get(action.id)
    assert found is not None
    return await house.actions.look_after(found)


async def spent(house: House, payer: Payer, had: int) -> int:
    return had - await house.chain.usdc_balance(payer.account.address)


# Sending


async def test_a_dropped_deposit_is_sent_again_when_its_payer_comes_again(
    sqlite_url: str, tmp_path: Path
) -> None:
    async with (
        Devnet(tmp_path) as net,
        a_house(sqlite_url, net.chain, net.asset, settle_wait=1.0) as house,
    ):
        payer = await house.payer(1000)
        payment = payer.deposit(600)
        await net.chain.set_automine(False)

        action = await house.deposit(payment)
        assert (action.state, action.in_doubt) == ("pending", True)
        assert action.tx_hash is not None
        assert await net.chain.rpc("anvil_dropTransaction", action.tx_hash)
        await net.chain.set_automine(True)

        assert (await go_on(house, action)).state == "pending"  # nobody asks for it
        again = await house.deposit(payment)

        assert (again.id, again.state) == (action.id, "settled")
        assert await spent(house, payer, 1000) == 600


async def test_a_dropped_claim_and_a_dropped_refund_are_sent_again(
    sqlite_url: str, tmp_path: Path
) -> None:
    async with (
        Devnet(tmp_path) as net,
        a_house(sqlite_url, net.chain, net.asset, settle_wait=1.0) as house,
    ):
        payer = await house.opened(1000, 300)
        await net.chain.set_automine(False)

        (claim,) = await house.actions.claim([await house.channel(payer)])
        refund = await house.actions.refund(await house.channel(payer), 500)
        assert (claim.state, refund.state) == ("pending", "pending")
        assert (await house.channel(payer)).reserved == 500
        for action in (refund, claim):
            await net.chain.rpc("anvil_dropTransaction", action.tx_hash)
        await net.chain.set_automine(True)

        assert (await go_on(house, claim)).state == "settled"
        assert (await go_on(house, refund)).state == "settled"
        channel = await house.channel(payer)
        assert (channel.reserved, channel.chain.claimed, channel.chain.balance) == (0, 300, 500)
        assert await spent(house, payer, 1000) == 500


async def test_a_chain_that_is_away_leaves_everything_open_until_it_is_back(
    sqlite_url: str, tmp_path: Path
) -> None:
    net = Devnet(tmp_path)
    await net.start()
    port = int(net.rpc_url.rpartition(":")[2])
    async with a_house(sqlite_url, net.chain, net.asset, wait=0.5) as house:
        payer = await house.opened(1000, 300)
        another = await house.payer(500)
        payment, channel = another.deposit(500), await house.channel(payer)
        await net.stop()

        for _ in range(2):
            with pytest.raises(FacilitatorUnavailable):
                await house.deposit(payment)
            with pytest.raises(FacilitatorUnavailable):
                await house.actions.claim([channel])
        with pytest.raises(ChainUnavailable):
            await house.actions.refund(channel, 5)

        net = Devnet(tmp_path, rpc_port=port)
        await net.start()
        house.chain = net.chain
        try:
            assert (await house.deposit(payment)).state == "settled"
            (claim,) = await house.actions.claim([channel])
            assert (claim.state, claim.amount) == ("settled", 300)
        finally:
            await net.stop()


async def test_nobody_waits_for_a_chain_that_hangs_and_what_was_begun_goes_on(
    sqlite_url: str, tmp_path: Path
) -> None:
    async with (
        Devnet(tmp_path) as net,
        a_house(sqlite_url, net.chain, net.asset, patience=0.5) as house,
    ):
        payer = await house.payer(1000)
        payment = payer.deposit(600)
        os.kill(net.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(5):
                first, second = await asyncio.gather(house.deposit(payment), house.deposit(payment))
        finally:
            os.kill(net.pid, signal.SIGCONT)
        assert (first.state, second.id) == ("pending", first.id)

        async def done() -> bool:
            return (await house.deposit(payment)).state == "settled"

        await until(done)
        assert await spent(house, payer, 1000) == 600


@pytest.mark.parametrize("lost", ["eth_sendRawTransaction", "eth_getTransactionReceipt"])
async def test_an_answer_that_is_lost_after_sending_costs_nothing_twice(
    sqlite_url: str, devnet: SharedDevnet, chain: DevChain, lost: str
) -> None:
    with rpc_proxy(devnet.rpc_url) as proxy:
        async with a_house(
            sqlite_url, chain, devnet.asset, rpc_url=proxy.url, settle_wait=1.0, wait=1.0
        ) as house:
            payer = await house.payer(1000)
            payment = payer.deposit(600)
            proxy.loses.add(lost)
            first = await house.deposit(payment)
            proxy.loses.clear()

            again = await house.deposit(payment)

            assert (again.id, again.state) == (first.id, "settled")
            assert await spent(house, payer, 1000) == 600
            await house.charge(payer, 100)
            proxy.loses.add(lost)
            done = await house.actions.claim([await house.channel(payer)])
            refund = await house.actions.refund(await house.channel(payer), 500)
            proxy.loses.clear()
            for action in (*done, refund):
                if action.state == "pending":
                    assert (await go_on(house, action)).state == "settled"
            channel = await house.channel(payer)
            assert (channel.chain.claimed, channel.chain.balance) == (100, 100)
            assert channel.reserved == 0
            assert await spent(house, payer, 1000) == 100


async def test_a_node_that_answers_errors_refuses_nobody(
    sqlite_url: str, devnet: SharedDevnet, chain: DevChain
) -> None:
    with rpc_proxy(devnet.rpc_url) as proxy:
        async with a_house(
            sqlite_url, chain, devnet.asset, rpc_url=proxy.url, settle_wait=1.0, wait=0.2
        ) as house:
            payer = await house.payer(1000)
            payment = payer.deposit(600)
            proxy.fails.add("*")
            with pytest.raises(FacilitatorUnavailable):
                await house.deposit(payment)
            proxy.fails = {"eth_sendRawTransaction"}
            assert (await house.deposit(payment)).state == "pending"
            proxy.fails.clear()

            assert (await house.deposit(payment)).state == "settled"


class Forgetful:
    """A facilitator that settles and then does not say so in time."""

    def __init__(self, app: Starlette) -> None:
        self._app = app
        self.silent = True

    async def __call__(self, scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        if not scope["path"].endswith("/settle") or not self.silent:
            await self._app(scope, receive, send)
            return

        async def swallow(_: object) -> None:
            return None

        await self._app(scope, receive, swallow)
        await asyncio.sleep(1.5)
        await Response("too late", 500)(scope, receive, send)


async def test_a_facilitator_that_times_out_after_sending(
    sqlite_url: str, devnet: SharedDevnet, chain: DevChain
) -> None:
    gas = devnet.new_account(wei=100 * ETHER)
    key = "0x" + bytes(gas.key).hex()
    app = Forgetful(facilitator_app(devnet.rpc_url, key, devnet.network, authorizes=True))
    with serving(app) as url:
        remote = RemoteFacilitator([url], timeout=1.0)
        async with a_house(
            sqlite_url, chain, devnet.asset, facilitator=remote, authorizer_key=a_key()
        ) as house:
            authorizer = await remote.receiver_authorizer(devnet.network)
            assert authorizer == gas.address.lower()
            payer = await house.payer(1000, receiver_authorizer=authorizer)
            payment = payer.deposit(600)

            async def settled() -> bool:
                return (await house.deposit(payment)).state == "settled"

            await until(settled)
            await house.charge(payer, 100)
            (claim,) = await house.actions.claim([await house.channel(payer)])  # it signs
            refund = await house.actions.refund(await house.channel(payer), 200)
            for action in (claim, refund):
                if action.state != "settled":
                    assert action.state == "pending"
                    assert (await go_on(house, action)).state == "settled"

            channel = await house.channel(payer)
            assert (channel.chain.claimed, channel.chain.balance) == (100, 400)
            assert await spent(house, payer, 1000) == 400
        await remote.close()


async def test_two_processes_with_one_gas_key_do_not_stop_each_other(
    sqlite_url: str, devnet: SharedDevnet, chain: DevChain
) -> None:
    key = a_key()
    async with (
        a_house(sqlite_url, chain, devnet.asset, gas_key=key) as one,
        a_house(sqlite_url, chain, devnet.asset, gas_key=key) as other,
    ):
        payers = [await one.payer(100) for _ in range(8)]
        houses = [one, other] * 4
        payments = [payer.deposit(100) for payer in payers]

        async def deposited(house: House, payment: object) -> None:
            async def settled() -> bool:
                return (await house.deposit(payment)).state == "settled"  # type: ignore[arg-type]

            await until(settled)

        await asyncio.gather(*map(deposited, houses, payments))
        states = await one.reader.states([payer.channel_id for payer in payers])
        assert {state.balance for state in states.values()} == {100}


# Crashes: what was begun and sent, and never recorded


async def crashed(house: House, action: Action) -> None:
    """Leave an action as a process does that is killed right after it has sent it."""
    taken = await house.ledger.begin_attempt(action.id, lease=0.0)
    assert taken is not None
    await house.facilitator.settle(SignedPayment(2, taken.document, taken.requirements))


async def reopened(house: House, action: Action) -> None:
    """Open again what failed because nothing could be sent."""
    if action.kind == "refund":
        opened = await house.ledger.open_refund(as_new(action), patience=0, read_at=time.time())
    else:
        opened = await house.ledger.open(as_new(action), patience=0)
    assert opened.created


def as_new(action: Action) -> NewAction:
    return NewAction(**{f.name: getattr(action, f.name) for f in fields(NewAction)})


async def test_what_was_sent_by_a_process_that_was_killed_is_found_done(
    database_url: str, devnet: SharedDevnet, chain: DevChain
) -> None:
    async with a_house(database_url, chain, devnet.asset) as house:
        payer = await house.opened(1000, 300)
        channel = await house.channel(payer)
        refused = RemoteFacilitator(["http://127.0.0.1:9"], timeout=0.5)
        async with a_house(
            database_url,
            chain,
            devnet.asset,
            facilitator=refused,
            authorizer_key=a_key(),
            pay_to=house.pay_to,
        ) as dead:
            dead.actions._authorizers = {house.authorizer.address: house.authorizer}
            with pytest.raises(FacilitatorUnavailable):
                await dead.actions.claim([channel])
            with pytest.raises(FacilitatorUnavailable):
                await dead.actions.refund(channel, 500)
        await refused.close()
        assert (await house.channel(payer)).reserved == 0
        claim, refund = [
            action for kind in ("claim", "refund") for action in [await _failed(house, kind)]
        ]
        for action in (claim, refund):
            await reopened(house, action)
            await crashed(house, action)

        for action in (claim, refund):
            assert (await go_on(house, action)).state == "settled"
        after = await house.channel(payer)
        assert (after.chain.claimed, after.chain.balance) == (300, 500)


async def _failed(house: House, kind: str) -> Action:
    found = await house.database.read(
        lambda db: db.execute(
            actions.select().where(actions.c.kind == kind, actions.c.state == "failed")
        ).first()
    )
    assert found is not None
    action = await house.ledger.get(found.id)
    assert action is not None
    return action


async def test_a_deposit_begun_by_a_process_that_was_killed(
    database_url: str, devnet: SharedDevnet, chain: DevChain
) -> None:
    async with a_house(database_url, chain, devnet.asset) as house:
        payer = await house.opened(100)
        payment = payer.deposit(0)
        assert payment.deposit is not None
        other = await house.payer(1000)
        payment = other.deposit(700)
        action = await house.deposit(payer.deposit(1))  # more than it has left
        assert action.state == "failed"
        document = {**action.document, "payload": payment.wire()}
        new = replace(
            as_new(action),
            payer=other.config.payer,
            channel_id=other.channel_id,
            identity="deposit:of a dead process",
            amount=700,
            document=document,
        )
        opened = await house.ledger.open(new, patience=0)
        assert opened.action is not None
        await crashed(house, opened.action)

        assert (await go_on(house, opened.action)).state == "settled"
        assert await spent(house, other, 1000) == 700


async def test_a_refund_that_was_settled_after_the_chain_was_read_is_not_begun_again(
    house_of: House,
) -> None:
    payer = await house_of.opened(1000, 300)
    channel = await house_of.channel(payer)
    done = await house_of.actions.refund(channel, 100)
    assert done.settled_at is not None

    stale = await house_of.ledger.open_refund(as_new(done), patience=0, read_at=channel.chain.at)

    assert (stale.action, stale.refusal) == (None, "busy")
    assert (await house_of.channel(payer)).reserved == 0
    assert (await house_of.ledger.get(done.id)) == done


async def test_what_nobody_began_is_let_go_and_so_is_what_it_held(house_of: House) -> None:
    payer = await house_of.opened(1000, 300)
    failed = await house_of.actions.refund(await house_of.channel(payer), 1)
    new = replace(as_new(failed), identity=f"refund:{payer.channel_id}:1", amount=600)
    now = time.time()
    opened = await house_of.ledger.open_refund(new, patience=0, read_at=now)
    assert opened.action is not None
    assert (await house_of.channel(payer)).reserved == 600
    other = await house_of.ledger.open_refund(replace(new, amount=5), patience=0, read_at=now)
    assert other.refusal == "busy"
    with pytest.raises(PaymentRefused):
        await house_of.actions.refund(await house_of.channel(payer), 5)

    (due,) = await house_of.ledger.due(5)
    assert (await house_of.actions.look_after(due)).error == "abandoned"
    assert (await house_of.channel(payer)).reserved == 0


@pytest.fixture
async def house_of(database_url: str, devnet: SharedDevnet, chain: DevChain):  # type: ignore[no-untyped-def]
    async with a_house(database_url, chain, devnet.asset) as house:
        yield house


# Batches


async def test_channels_emptied_or_forged_do_not_keep_the_others_unclaimed(
    sqlite_url: str, tmp_path: Path
) -> None:
    async with Devnet(tmp_path) as net, a_house(sqlite_url, net.chain, net.asset) as house:
        payers = [await house.opened(1000, 100) for _ in range(7)]
        emptied, forged, *good = payers
        await house.call(emptied, "initiateWithdraw", 950)
        now = int((await net.chain.rpc("eth_getBlockByNumber", "latest", False))["timestamp"], 16)
        await net.chain.set_next_block_timestamp(now + 1000)
        await house.call(emptied, "finalizeWithdraw")
        false = "0x" + "11" * 65
        await house.database.write(
            lambda db: db.execute(
                update(channels)
                .where(channels.c.channel_id == forged.channel_id)
                .values(signature=false)
            )
        )
        stale = [await house.channel(payer) for payer in payers]

        done = await house.actions.claim(stale)

        claimed = [(await house.on_chain(payer)).claimed for payer in payers]
        assert claimed == [50, 0, 100, 100, 100, 100, 100]
        assert sum(action.amount for action in done if action.state == "settled") == 550
        assert set(house.actions.unclaimable) == {forged.channel_id}
        for payer in good:
            await house.charge(payer, 50)
        left = await house.claims.claimable(house.network)
        again = await house.actions.claim(left)
        assert [action.amount for action in again if action.state == "settled"] == [250]


async def test_a_long_batch_goes_out_in_one_transaction(
    sqlite_url: str, devnet: SharedDevnet, chain: DevChain
) -> None:
    async with a_house(sqlite_url, chain, devnet.asset) as house:
        payers = await asyncio.gather(*(house.opened(100, 1 + n) for n in range(30)))
        found = [await house.channel(payer) for payer in payers]

        (claim,) = await house.actions.claim(found)

        assert (claim.state, claim.amount) == ("settled", 30 * 31 // 2)


# Rules


async def test_what_is_not_confirmed_is_not_done(sqlite_url: str, tmp_path: Path) -> None:
    async with (
        Devnet(tmp_path) as net,
        a_house(sqlite_url, net.chain, net.asset, confirmations=3, wait=0.3) as house,
    ):
        payer = await house.payer(1000)
        payment = payer.deposit(600)

        assert (await house.deposit(payment)).state == "pending"
        await net.chain.mine()
        assert (await house.deposit(payment)).state == "pending"
        await net.chain.mine()
        assert (await house.deposit(payment)).state == "settled"
        assert (await house.channel(payer)).chain.balance == 600
        assert await spent(house, payer, 1000) == 600


async def test_when_gas_is_dear_only_what_cannot_wait_is_sent(
    sqlite_url: str, devnet: SharedDevnet, chain: DevChain
) -> None:
    async with a_house(sqlite_url, chain, devnet.asset, max_gas_price=1) as house:
        payer = await house.opened(1000, 300)
        channel = await house.channel(payer)

        with pytest.raises(FacilitatorUnavailable):
            await house.actions.claim([channel])
        with pytest.raises(FacilitatorUnavailable):
            await house.actions.refund(channel, 1)
        (claim,) = await house.actions.claim([channel], forced=True)
        assert claim.state == "settled"
        with pytest.raises(FacilitatorUnavailable):
            await house.actions.pay_out(house.network, house.pay_to, channel.config.token)


async def test_no_charge_takes_what_is_about_to_be_given_back(
    database_url: str, devnet: SharedDevnet, chain: DevChain
) -> None:
    async with a_house(database_url, chain, devnet.asset) as house:
        for _ in range(3):
            payer = await house.opened(1000, 300)
            channel = await house.channel(payer)

            async def watch(payer: Payer = payer) -> int:
                total = 0
                try:
                    while True:
                        await house.charge(payer, 50)
                        total += 50
                except AssertionError:  # the channel has too little
                    return total

            results = await asyncio.gather(
                watch(), house.actions.refund(channel, 500), return_exceptions=True
            )
            after = await house.channel(payer)
            assert after.charged <= after.chain.balance, results
            assert after.reserved == 0


async def test_a_caller_that_leaves_does_not_stop_what_it_began(
    sqlite_url: str, devnet: SharedDevnet, chain: DevChain
) -> None:
    async with a_house(sqlite_url, chain, devnet.asset) as house:
        payer = await house.payer(1000)
        payment = payer.deposit(600)
        asking = asyncio.create_task(house.deposit(payment))
        while not house.actions._attempts._begun:
            await asyncio.sleep(0.001)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await house.actions.drain()

        assert (await house.deposit(payment)).attempts == 1
