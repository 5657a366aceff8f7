"""What channels need on chain is done once, whatever fails: on a real chain and database."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.chain import SharedDevnet
from tests.support.channel_parties import House, a_house
from xbyte_live.devnet.chain import DevChain
from xbyte_live.errors import PaymentRefused


@pytest.fixture
async def house(database_url: str, devnet: SharedDevnet, chain: DevChain) -> AsyncIterator[House]:
    async with a_house(database_url, chain, devnet.asset) as house:
        yield house


@pytest.fixture
async def sqlite_house(
    sqlite_url: str, devnet: SharedDevnet, chain: DevChain
) -> AsyncIterator[House]:
    async with a_house(sqlite_url, chain, devnet.asset) as house:
        yield house


async def test_a_deposit_opens_a_channel_once_however_often_it_comes(house: House) -> None:
    payer = await house.payer(500)
    payment = payer.deposit(300)

    first, *others = await asyncio.gather(*(house.deposit(payment) for _ in range(5)))
    again = await house.deposit(payment)

    assert first.state == "settled"
    assert first.tx_hash is not None
    assert {other.id for other in (*others, again)} == {first.id}
    channel = await house.channel(payer)
    assert (channel.chain.balance, channel.charged) == (300, 0)
    assert await house.chain.usdc_balance(payer.account.address) == 200


async def test_a_deposit_beyond_the_payers_money_fails_with_the_schemes_code(house: House) -> None:
    payer = await house.payer(100)

    action = await house.deposit(payer.deposit(300))

    assert (action.state, action.error) == (
        "failed",
        "invalid_batch_settlement_evm_insufficient_balance",
    )
    assert await house.channels.find(payer.channel_id) is None


async def test_claims_and_a_settle_bring_the_payee_what_was_charged(house: House) -> None:
    payers = [await house.opened(1000, charged) for charged in (7, 80, 900)]
    channels = [await house.channel(payer) for payer in payers]

    (claim,) = await house.actions.claim(channels)
    settle = await house.actions.pay_out(house.network, house.pay_to, house.asset.address.lower())

    assert (claim.state, claim.amount) == ("settled", 987)
    assert settle is not None
    assert (settle.state, settle.amount) == ("settled", 987)
    assert await house.chain.usdc_balance(house.pay_to) == 987
    assert [(await house.channel(payer)).chain.claimed for payer in payers] == [7, 80, 900]
    assert await house.claims.claimable(house.network) == []
    assert await house.actions.pay_out(house.network, house.pay_to, claim.asset) is None


async def test_a_refund_gives_back_and_lets_its_reservation_go(house: House) -> None:
    payer = await house.opened(1000, 100)

    action = await house.actions.refund(await house.channel(payer), 600)

    assert (action.state, action.amount) == ("settled", 600)
    channel = await house.channel(payer)
    assert (channel.reserved, channel.chain.balance, channel.chain.refund_nonce) == (0, 400, 1)
    assert await house.chain.usdc_balance(payer.account.address) == 600
    with pytest.raises(PaymentRefused):
        await house.actions.refund(channel, 301)
    assert (await house.actions.refund(channel, 300)).state == "settled"
