"""What is claimed, paid out and given back when; and that no withdrawal comes before its claim."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.chain import SharedDevnet
from tests.support.channel_parties import DELAY, House, a_house
from tests.support.paying import Clock
from xbyte_live.devnet.chain import DevChain, Devnet
from xbyte_live.payments.settlement.claims import ClaimPolicy, Claims
from xbyte_live.payments.settlement.watcher import OVERLAP, Watcher

NEVER = ClaimPolicy(
    claim_interval=10**9,
    claim_threshold=10**15,
    settle_interval=10**9,
    idle_refund=0,
    least_refund=1,
    look=0.05,
)


@pytest.fixture
async def house(database_url: str, devnet: SharedDevnet, chain: DevChain) -> AsyncIterator[House]:
    async with a_house(database_url, chain, devnet.asset) as house:
        yield house


def claims_of(house: House, clock: Clock | None = None, **changes: float) -> Claims:
    policy = replace(NEVER, **changes)
    return Claims(house.claims, house.ledger, house.actions, policy, clock=clock or time.time)


def watcher_of(house: House, claims: Claims) -> Watcher:
    return Watcher(
        house.claims,
        house.leases,
        house.ledger,
        {house.network: house.reader},
        house.channel_sync,
        claims,
        interval=0.05,
    )


async def claimed(house: House, *payers: object) -> list[int]:
    return [(await house.on_chain(payer)).claimed for payer in payers]  # type: ignore[arg-type]


async def test_claims_go_by_time_and_by_value(house: House) -> None:
    payer = await house.opened(1000, 10)
    clock = Clock(time.time())

    patient = claims_of(house, clock, claim_interval=300, claim_threshold=500)
    await patient.look()
    assert await claimed(house, payer) == [0]

    clock.now += 300
    await patient.look()
    assert await claimed(house, payer) == [10]

    await house.charge(payer, 400)
    clock.now = time.time() + 100  # not yet time again, and not yet enough
    await claims_of(house, clock, claim_interval=300, claim_threshold=500).look()
    assert await claimed(house, payer) == [10]

    await house.charge(payer, 100)
    await claims_of(house, clock, claim_interval=300, claim_threshold=500).look()
    assert await claimed(house, payer) == [510]


async def test_what_is_claimed_is_paid_out_in_its_time(house: House) -> None:
    await house.opened(1000, 600)
    clock = Clock(time.time() + 1)
    claims = claims_of(house, clock, claim_interval=1, settle_interval=3600)

    await claims.look()
    assert await house.chain.usdc_balance(house.pay_to) == 0
    clock.now += 3600
    await claims.look()
    assert await house.chain.usdc_balance(house.pay_to) == 600


async def test_all_at_once_for_whoever_asks(house: House) -> None:
    await house.opened(1000, 600)
    await house.opened(1000, 50)
    claims = claims_of(house)

    assert [action.amount for action in await claims.claim_now()] == [650]
    assert [action.amount for action in await claims.pay_out_now()] == [650]
    assert await claims.claim_now() == await claims.pay_out_now() == []
    assert await house.chain.usdc_balance(house.pay_to) == 650


async def test_a_channel_that_lies_idle_is_given_back_but_for_what_was_charged(
    house: House,
) -> None:
    payer = await house.opened(1000, 600)
    clock = Clock(time.time())
    claims = claims_of(house, clock, idle_refund=3600)

    await claims.look()
    assert await house.chain.usdc_balance(payer.account.address) == 0
    clock.now += 3601
    await claims.look()
    await claims.look()

    assert await house.chain.usdc_balance(payer.account.address) == 400
    assert (await house.channel(payer)).chain.balance == 600


async def test_a_withdrawal_is_seen_and_all_is_claimed_before_it_ends(
    sqlite_url: str, tmp_path: Path
) -> None:
    async with Devnet(tmp_path) as net, a_house(sqlite_url, net.chain, net.asset) as house:
        payer = await house.opened(1000, 100)
        claims = claims_of(house)
        watcher = watcher_of(house, claims)
        await watcher.look(house.network)
        running = [asyncio.create_task(one.run()) for one in (claims, watcher)]
        try:
            await house.call(payer, "initiateWithdraw", 900)
            for total in (100, 350, 351, 700):  # it goes on watching
                if total > 100:
                    await house.charge(payer, total - (await house.channel(payer)).charged)
                async with asyncio.timeout(20):
                    while (await house.on_chain(payer)).claimed < total:
                        await asyncio.sleep(0.02)
            now = int(
                (await net.chain.rpc("eth_getBlockByNumber", "latest", False))["timestamp"], 16
            )
            await net.chain.set_next_block_timestamp(now + DELAY)
            await house.call(payer, "finalizeWithdraw")
            async with asyncio.timeout(20):
                while (await house.channel(payer)).chain.balance != 700:
                    await asyncio.sleep(0.02)
        finally:
            for task in running:
                task.cancel()
        channel = await house.channel(payer)
        assert (channel.charged, channel.chain.claimed) == (700, 700)
        assert channel.chain.withdraw_requested_at == 0
        await claims.pay_out_now()
        assert await house.chain.usdc_balance(house.pay_to) == 700


async def test_a_withdrawal_made_while_nobody_watched_is_found(
    sqlite_url: str, devnet: SharedDevnet, chain: DevChain
) -> None:
    async with a_house(sqlite_url, chain, devnet.asset, pay_to="0x" + "ab" * 20) as house:
        payer = await house.opened(1000, 100)
        claims = claims_of(house)
        await watcher_of(house, claims).look(house.network)
        await house.call(payer, "initiateWithdraw", 900)
        await chain.mine(3 * OVERLAP)

        await watcher_of(house, claims).look(house.network)  # started again
        await claims.look()

        assert (await house.channel(payer)).chain.withdraw_requested_at > 0
        assert await claimed(house, payer) == [100]


async def test_a_deposit_that_the_chain_took_back_is_brought_again(
    sqlite_url: str, tmp_path: Path
) -> None:
    async with Devnet(tmp_path) as net, a_house(sqlite_url, net.chain, net.asset) as house:
        payer = await house.payer(1000)
        claims = claims_of(house)
        watcher = watcher_of(house, claims)
        before = await net.chain.snapshot()
        action = await house.deposit(payer.deposit(1000))
        await house.charge(payer, 300)
        await watcher.look(house.network)
        await net.chain.revert(before)
        await net.chain.mine(2)
        assert (await house.on_chain(payer)).balance == 0

        await watcher.look(house.network)
        await claims.look()

        assert (await house.on_chain(payer)).balance == 1000
        again = await house.ledger.get(action.id)
        assert again is not None
        assert again.state == "settled"
        await claims.claim_now()
        assert await claimed(house, payer) == [300]


async def test_a_claim_that_the_chain_took_back_is_made_again(
    sqlite_url: str, tmp_path: Path
) -> None:
    async with Devnet(tmp_path) as net, a_house(sqlite_url, net.chain, net.asset) as house:
        payer = await house.opened(1000, 300)
        claims = claims_of(house)
        watcher = watcher_of(house, claims)
        await watcher.look(house.network)
        before = await net.chain.snapshot()
        await claims.claim_now()
        await claims.pay_out_now()
        await watcher.look(house.network)
        await net.chain.revert(before)
        await net.chain.mine(3)

        await watcher.look(house.network)
        (claim,) = await claims.claim_now()
        (settle,) = await claims.pay_out_now()

        assert (claim.state, settle.state) == ("settled", "settled")
        assert await claimed(house, payer) == [300]
        assert await house.chain.usdc_balance(house.pay_to) == 300


async def test_a_chain_that_began_anew_is_read_whole(
    sqlite_url: str, devnet: SharedDevnet, chain: DevChain
) -> None:
    async with a_house(sqlite_url, chain, devnet.asset) as house:
        await house.leases.set_watermark(house.network, 10**9)

        await watcher_of(house, claims_of(house)).look(house.network)

        mark = await house.leases.watermark(house.network)
        assert mark is not None
        assert mark < 10**6


@pytest.mark.parametrize("depth", [3, 6])
async def test_a_reorganization_of_the_chain_loses_nothing(
    sqlite_url: str, tmp_path: Path, depth: int
) -> None:
    async with Devnet(tmp_path) as net, a_house(sqlite_url, net.chain, net.asset) as house:
        payer = await house.payer(1000)
        await net.chain.mine(4)
        claims = claims_of(house, claim_interval=1, settle_interval=1)
        watcher = watcher_of(house, claims)
        await house.deposit(payer.deposit(1000))
        await house.charge(payer, 300)
        await claims.claim_now()
        await claims.pay_out_now()
        await watcher.look(house.network)
        assert await house.chain.usdc_balance(house.pay_to) == 300

        await net.chain.rpc("anvil_reorg", depth, [])

        async with asyncio.timeout(60):
            while await house.chain.usdc_balance(house.pay_to) != 300:
                await watcher.look(house.network)
                await claims.claim_now()
                await claims.pay_out_now()
                await claims.look()
        assert await claimed(house, payer) == [300]
        assert (await house.channel(payer)).chain.balance == 1000
