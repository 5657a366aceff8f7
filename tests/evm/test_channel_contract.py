"""What is read of channels from a real node, and that every failure of it has one name."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.chain import SharedDevnet
from tests.support.channel_parties import House, a_house
from tests.support.rpc_proxy import rpc_proxy
from xbyte_live.devnet.accounts import BATCH_SETTLEMENT_ADDRESS
from xbyte_live.devnet.chain import DevChain, Devnet
from xbyte_live.errors import ChainUnavailable, PaymentRefused
from xbyte_live.evm.channel_contract import MULTICALL3, ChannelChain, ChannelState
from xbyte_live.evm.rpc import RpcNode

NOTHING = ChannelState(0, 0, 0, 0)
UNKNOWN = "0x" + "07" * 32


@pytest.fixture
async def house(sqlite_url: str, devnet: SharedDevnet, chain: DevChain) -> AsyncIterator[House]:
    async with a_house(sqlite_url, chain, devnet.asset) as house:
        yield house


async def test_many_channels_are_read_in_few_round_trips(house: House) -> None:
    payers = [await house.opened(100 + n) for n in range(3)]
    ids = [payer.channel_id for payer in payers]
    with rpc_proxy(house.chain.rpc_url) as proxy:
        reader = ChannelChain(RpcNode(proxy.url, timeout=5))

        found = await reader.states([*ids, UNKNOWN, *ids])
        await reader.node.close()

    assert [found[i].balance for i in ids] == [100, 101, 102]
    assert found[UNKNOWN] == NOTHING
    assert proxy.calls.count("eth_call") == 1


async def test_a_chain_without_multicall_is_read_all_the_same(
    sqlite_url: str, tmp_path: Path
) -> None:
    async with Devnet(tmp_path) as net, a_house(sqlite_url, net.chain, net.asset) as house:
        payer = await house.opened(100)
        await net.chain.set_code(MULTICALL3, "0x")
        reader = ChannelChain(RpcNode(net.rpc_url, timeout=5))
        assert (await reader.states([payer.channel_id, UNKNOWN]))[payer.channel_id].balance == 100
        await net.chain.set_code(BATCH_SETTLEMENT_ADDRESS, "0x")
        with pytest.raises(ChainUnavailable, match="no contract"):
            await reader.states([UNKNOWN])
        await reader.node.close()


async def test_events_are_read_in_windows_that_fit_the_node(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await house.reader.safe_block()
    payer = await house.opened(100, 10)
    await house.chain.mine(20)
    (claim,) = await house.actions.claim([await house.channel(payer)])
    await house.actions.refund(await house.channel(payer), 40)
    last = await house.reader.safe_block()
    monkeypatch.setattr("xbyte_live.evm.rpc.LOG_WINDOW", 7)

    pages = [page async for page in house.reader.events(first, last, [payer.channel_id])]

    names = [(event.name, event.channel_id) for _, events in pages for event in events]
    assert names == [(name, payer.channel_id) for name in ("Deposited", "Claimed", "Refunded")]
    assert len(pages) > 2
    assert pages[-1][0] == last
    found = await house.reader.trace("Claimed", payer.channel_id, since=claim.created_at - 60)
    assert found == claim.tx_hash
    assert await house.reader.trace("WithdrawFinalized", payer.channel_id, since=0) is None


async def test_a_node_that_answers_errors_is_unavailable(house: House) -> None:
    with rpc_proxy(house.chain.rpc_url) as proxy:
        reader = ChannelChain(RpcNode(proxy.url, timeout=5))
        proxy.fails.add("*")
        for asking in (
            reader.safe_block(),
            reader.gas_price(),
            reader.states([UNKNOWN]),
            reader.receiver(house.pay_to, house.asset.address),
            reader.landed(UNKNOWN),
            reader.emitted(UNKNOWN, "Claimed", UNKNOWN),
            reader.trace("Claimed", UNKNOWN, since=0),
        ):
            with pytest.raises(ChainUnavailable):
                await asking
        with pytest.raises(ChainUnavailable):
            async for _ in reader.events(0, 10):
                pass
        await reader.node.close()


async def test_a_transaction_that_nobody_knows_has_not_landed(house: House) -> None:
    assert await house.reader.landed(UNKNOWN) == "unknown"
    payer = await house.opened(100)
    action = await house.deposit(payer.deposit(50))  # it has nothing left
    assert action.state == "failed"


async def test_those_who_ask_together_share_a_read(house: House) -> None:
    import asyncio

    payer = await house.opened(100)
    with rpc_proxy(house.chain.rpc_url) as proxy:
        house.channel_sync._chains[house.network] = reader = ChannelChain(
            RpcNode(proxy.url, timeout=5)
        )
        await reader.states([UNKNOWN])
        proxy.calls.clear()

        found = await asyncio.gather(
            *(
                house.channel_sync.refresh(house.network, payer.config, payer.channel_id)
                for _ in range(50)
            )
        )
        await reader.node.close()

    assert {channel.chain.balance for channel in found} == {100}
    assert proxy.calls.count("eth_call") == 1


async def test_a_channel_that_is_none_takes_no_room(house: House) -> None:
    payer = await house.payer()

    with pytest.raises(PaymentRefused) as caught:
        await house.channel_sync.refresh(house.network, payer.config, payer.channel_id)
    with pytest.raises(ChainUnavailable):
        await house.channel_sync.refresh("eip155:1", payer.config, payer.channel_id)

    assert caught.value.code == "invalid_batch_settlement_evm_channel_not_found"
    assert await house.channels.find(payer.channel_id) is None
