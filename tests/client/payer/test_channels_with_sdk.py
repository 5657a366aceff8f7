"""Our payer through channels of the SDK's own server, on a real chain."""

import asyncio
import base64
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from anyio.from_thread import start_blocking_portal
from eth_account.signers.local import LocalAccount
from fastapi import Request, Response

from tests.support.chain import ETHER, SharedDevnet
from tests.support.channel_site import ChannelShop, Next, amount, open_channel_shop
from xbyte_live.client.download.download import download
from xbyte_live.client.http.purchase import Patience
from xbyte_live.client.http.transport import QUOTED, PayingTransport
from xbyte_live.client.payer.budget import Budget
from xbyte_live.client.payer.chain import channel_reader, read_channel
from xbyte_live.client.payer.channel import ChannelOnChain, PayerChannel
from xbyte_live.client.payer.channel_lock import ChannelLock
from xbyte_live.client.payer.channel_store import FileChannelStore
from xbyte_live.client.payer.payer import Payer
from xbyte_live.client.payer.terms import Quoted, item_of
from xbyte_live.client.payer.withdrawals import Withdrawals
from xbyte_live.devnet.chain import Devnet
from xbyte_live.errors import (
    BudgetExceeded,
    ChannelDistrusted,
    ConfigError,
    DeliveryFailed,
    PaymentPending,
    PaymentRefused,
    XByteError,
)

ROOT = Path(__file__).parents[3]
SIZES = [300_000, 250_000, 200_001, 150_000, 99, 120_000, 260_000, 270_000]
COST = sum(map(amount, SIZES))
LEAST = 600  # a deposit that lasts for two or three segments
FUNDS = 1_000_000
QUICK = Patience(tries=3, first_wait=0.01, pending=0.5)


@pytest.fixture
def shop(devnet: SharedDevnet) -> Iterator[ChannelShop]:
    with open_channel_shop(devnet, LEAST) as shop:
        yield shop


@pytest.fixture
def account(devnet: SharedDevnet) -> LocalAccount:
    return devnet.new_account(usdc=FUNDS)


def only(payer: Payer) -> PayerChannel:
    (channel,) = payer.channels.values()
    return channel


def on_chain(devnet: SharedDevnet, channel: PayerChannel) -> ChannelOnChain:
    return asyncio.run(read_channel(devnet.rpc_url, devnet.network, channel.channel_id))


def ahead(shop: ChannelShop, msn: int) -> tuple[str, dict[str, Any]]:
    url = f"{shop.url}/hls/plasma/source/{msn}.ts"
    size = len(shop.files[f"/hls/plasma/source/{msn}.ts"])
    return url, {QUOTED: Quoted(item_of(url), size=size, amount=amount(size))}


def a_client(payer: Payer, **how: Any) -> httpx2.AsyncClient:
    transport = PayingTransport(payer, **({"patience": QUICK} | how))
    return httpx2.AsyncClient(transport=transport)


async def get(client: httpx2.AsyncClient, shop: ChannelShop, msn: int) -> httpx2.Response:
    url, extensions = ahead(shop, msn)
    return await client.get(url, extensions=extensions)


async def test_a_title_is_bought_through_one_channel(
    shop: ChannelShop, account: LocalAccount, tmp_path: Path
) -> None:
    url = shop.add_title("plasma", SIZES)
    payer = Payer(account, Budget(COST))
    result = await download(url, tmp_path / "a.ts", payer)
    assert (tmp_path / "a.ts").read_bytes() == shop.whole("plasma")
    assert shop.charged == result.cost == result.signed == COST == payer.budget.signed
    channel = only(payer)
    assert (channel.charged, channel.signed, channel.open) == (COST, COST, ())
    assert FUNDS - shop.devnet.usdc_balance(account.address) == channel.balance <= COST
    assert shop.most_busy == 1  # not one voucher was presented while another was
    assert shop.channels[0].channel_config.payer == account.address.lower()


async def test_a_segment_is_one_round_trip_and_top_ups_ride_along(
    shop: ChannelShop, account: LocalAccount
) -> None:
    shop.add_title("plasma", SIZES * 2)
    payer = Payer(account, Budget(10**6))
    async with a_client(payer) as client:
        await client.get(f"{shop.url}/hls/plasma/source/0.ts")
        shop.seen.clear()
        for msn in range(1, 16):
            assert (await get(client, shop, msn)).status_code == 200
    assert [paid for _, paid in shop.seen] == [True] * 15
    assert shop.charged == 2 * COST
    channel = only(payer)
    deposits = FUNDS - shop.devnet.usdc_balance(account.address)
    assert deposits == channel.balance
    assert deposits % LEAST == 0
    assert 2 * COST < deposits <= 2 * COST + 2 * LEAST


async def test_parallel_fetches_share_a_channel(
    shop: ChannelShop, account: LocalAccount, tmp_path: Path
) -> None:
    shop.add_title("plasma", SIZES)
    payer = Payer(account, Budget(10**6))
    async with a_client(payer, store=FileChannelStore(tmp_path)) as client:
        answers = await asyncio.gather(*(get(client, shop, msn) for msn in range(8)))
    assert b"".join(answer.content for answer in answers) == shop.whole("plasma")
    assert shop.charged == COST == payer.budget.signed
    assert len(shop.channels) == 1


async def test_two_programs_share_a_wallet(
    shop: ChannelShop, account: LocalAccount, tmp_path: Path
) -> None:
    shop.add_title("plasma", SIZES)
    payers = [Payer(account, Budget(10**6)) for _ in range(2)]
    clients = [a_client(payer, store=FileChannelStore(tmp_path)) for payer in payers]
    asked = [get(clients[msn % 2], shop, msn) for msn in range(8)]
    answers = await asyncio.gather(*asked)
    for client in clients:
        await client.aclose()
    assert b"".join(answer.content for answer in answers) == shop.whole("plasma")
    assert shop.charged == COST == sum(payer.budget.signed for payer in payers)
    assert len(shop.channels) == 1
    assert not [status for status in shop.statuses if status not in (200, 402)]


async def test_money_locked_stays_within_budget_and_cap(
    shop: ChannelShop, account: LocalAccount
) -> None:
    shop.add_title("plasma", SIZES * 4)
    payer = Payer(account, Budget(1000), deposit_cap=400)
    spent = 0
    async with a_client(payer) as client:
        with pytest.raises(BudgetExceeded):
            for msn in range(32):
                await get(client, shop, msn)
                spent = shop.charged
                assert only(payer).balance - spent <= 400
    assert spent <= 1000
    assert FUNDS - shop.devnet.usdc_balance(account.address) <= 1000
    assert spent == payer.budget.signed


async def test_the_pace_is_kept_by_waiting(shop: ChannelShop, account: LocalAccount) -> None:
    shop.add_title("plasma", [MIB_THIRD] * 4)
    now = [time.time()]
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    each = amount(MIB_THIRD)
    payer = Payer(account, Budget(10**6, per_minute=2 * each))
    async with a_client(payer, clock=lambda: now[0], sleep=sleep) as client:
        for msn in range(4):
            await get(client, shop, msn)
        assert sum(waits) == pytest.approx(60, abs=1)
        payer.budget.per_minute = each - 1
        with pytest.raises(BudgetExceeded, match="one minute"):
            await get(client, shop, 0)


MIB_THIRD = 350_000


# What a restart must not forget.


async def test_a_restart_goes_on_where_the_channel_stood(
    shop: ChannelShop, account: LocalAccount, tmp_path: Path
) -> None:
    shop.add_title("plasma", SIZES)
    for msn in range(3):
        payer = Payer(account, Budget(10**6))
        async with a_client(payer, store=FileChannelStore(tmp_path)) as client:
            assert (await get(client, shop, msn)).content
    assert len(shop.channels) == 1
    assert shop.charged == sum(map(amount, SIZES[:3]))
    assert shop.statuses == [402, 200] * 3


@pytest.mark.parametrize("rpc", [True, False])
async def test_lost_state_is_found_again(
    shop: ChannelShop, account: LocalAccount, rpc: bool
) -> None:
    shop.add_title("plasma", SIZES)
    read = channel_reader({shop.devnet.network: shop.devnet.rpc_url}) if rpc else None
    for msn in range(3):
        payer = Payer(account, Budget(10**6))
        async with a_client(payer, read_channel=read) as client:
            assert (await get(client, shop, msn)).content
    assert shop.charged == only(payer).charged == sum(map(amount, SIZES[:3]))
    assert only(payer).balance == FUNDS - shop.devnet.usdc_balance(account.address)


async def test_a_lost_answer_is_not_paid_twice(shop: ChannelShop, account: LocalAccount) -> None:
    """The SDK does not serve the same voucher again, so this is said, and not bought twice."""
    shop.add_title("plasma", SIZES)
    lost = [1]

    async def meddle(request: Request, serve: Next) -> Response:
        response = await serve(request)
        if request.url.path.endswith("/1.ts") and response.status_code == 200 and lost:
            lost.pop()
            return Response(status_code=502)
        return response

    shop.meddle = meddle
    payer = Payer(account, Budget(10**6))
    async with a_client(payer) as client:
        await get(client, shop, 0)
        with pytest.raises(PaymentRefused, match=r"charged .* before") as caught:
            await get(client, shop, 1)
        assert caught.value.code == "charged_before"
        assert shop.charged == amount(SIZES[0]) + amount(SIZES[1]) == only(payer).charged
        assert (await get(client, shop, 2)).status_code == 200
        assert (await get(client, shop, 1)).status_code == 200  # asked for anew, it is bought anew
    assert shop.charged == payer.budget.signed


async def test_what_was_never_charged_is_paid_with_another_voucher(
    shop: ChannelShop, account: LocalAccount
) -> None:
    """One voucher is given up, another of the same base is taken: the first one is dead."""
    shop.add_title("plasma", SIZES)
    down = [True]

    async def meddle(request: Request, serve: Next) -> Response:
        if request.url.path.endswith("/1.ts") and down:
            return Response(status_code=503)
        return await serve(request)

    shop.meddle = meddle
    payer = Payer(account, Budget(10**6))
    async with a_client(payer) as client:
        await get(client, shop, 0)
        with pytest.raises(PaymentPending):
            await get(client, shop, 1)
        assert len(only(payer).open) == 1
        assert (await get(client, shop, 2)).status_code == 200
        down.clear()
        assert (await get(client, shop, 1)).status_code == 200
    assert shop.charged == sum(map(amount, SIZES[:3])) == only(payer).charged
    assert payer.budget.signed == only(payer).signed == shop.charged


KILLED = """
import asyncio, sys
from pathlib import Path
from eth_account import Account
from xbyte_live.client.payer.budget import Budget
from xbyte_live.client.payer.channel_store import FileChannelStore
from xbyte_live.client.download.download import download
from xbyte_live.client.payer.payer import Payer
url, out, key, store = sys.argv[1:]
payer = Payer(Account.from_key(key), Budget(10**6))
asyncio.run(download(url, Path(out), payer, store=FileChannelStore(Path(store))))
"""


async def test_kill_9_in_mid_download_and_again(
    shop: ChannelShop, account: LocalAccount, tmp_path: Path
) -> None:
    sizes = SIZES * 4
    url = shop.add_title("plasma", sizes)
    out, store = tmp_path / "a.ts", tmp_path / "channels"
    arrived = asyncio.Event()
    loop = asyncio.get_running_loop()
    every = [0]

    async def meddle(request: Request, serve: Next) -> Response:
        response = await serve(request)
        every[0] += 1
        if every[0] % 7 == 0:  # killed now, its answer is lost
            loop.call_soon_threadsafe(arrived.set)
            await asyncio.sleep(0.2)
        return response

    shop.meddle = meddle
    key = "0x" + bytes(account.key).hex()
    kills = 0
    for _ in range(60):
        arrived.clear()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", KILLED, url, str(out), key, str(store),
            cwd=ROOT, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        ended = asyncio.create_task(process.wait())
        hit = asyncio.create_task(arrived.wait())
        await asyncio.wait([ended, hit], return_when=asyncio.FIRST_COMPLETED)
        if kills < 6 and not ended.done():
            process.send_signal(signal.SIGKILL)
            kills += 1
        else:
            shop.meddle = None
        code = await ended
        hit.cancel()
        if code == 0:
            break
    assert out.read_bytes() == shop.whole("plasma")
    assert kills >= 3
    whole = sum(map(amount, sizes))
    (channel,) = FileChannelStore(store).load().values()
    assert channel.charged == shop.charged
    lost = shop.charged - whole  # charged by the SDK, which does not serve again what was lost
    assert 0 <= lost <= kills * 4 * max(map(amount, sizes))
    assert channel.signed >= channel.charged
    assert channel.balance == FUNDS - shop.devnet.usdc_balance(account.address)


# Servers that take more than they earned.


def spoiling(change: Callable[[dict[str, Any]], None]) -> Any:
    async def meddle(request: Request, serve: Next) -> Response:
        response = await serve(request)
        value = response.headers.get("payment-response")
        if value and request.url.path.endswith("/2.ts"):
            document = json.loads(base64.b64decode(value))
            change(document)
            spoiled = base64.b64encode(json.dumps(document).encode()).decode()
            response.headers["payment-response"] = spoiled
        return response

    return meddle


def more(name: str, by: int) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        part = document["extra"] if name == "chargedAmount" else document["extra"]["channelState"]
        part[name] = str(int(part[name]) + by)

    return change


def less_balance(document: dict[str, Any]) -> None:
    document["extra"]["channelState"]["balance"] = "1"


def another(document: dict[str, Any]) -> None:
    document["extra"]["channelState"]["channelId"] = "0x" + "11" * 32


@pytest.mark.parametrize(
    "change",
    [
        more("chargedAmount", 1),
        more("chargedCumulativeAmount", 1),
        more("chargedCumulativeAmount", -1),
        less_balance,
        more("totalClaimed", 10**5),
        another,
    ],
)
async def test_a_server_that_claims_more_than_it_earned_gets_nothing_more(
    shop: ChannelShop, account: LocalAccount, tmp_path: Path, change: Any
) -> None:
    shop.add_title("plasma", SIZES)
    shop.meddle = spoiling(change)
    store = FileChannelStore(tmp_path)
    payer = Payer(account, Budget(10**6))
    async with a_client(payer, store=store) as client:
        await get(client, shop, 0)
        await get(client, shop, 1)
        with pytest.raises(ChannelDistrusted, match="wallet withdraw 0x"):
            await get(client, shop, 2)
    signed = only(payer).signed
    payer = Payer(account, Budget(10**6))
    async with a_client(payer, store=FileChannelStore(tmp_path)) as client:
        with pytest.raises(ChannelDistrusted, match="nothing more"):
            await get(client, shop, 3)
    assert only(payer).signed == signed
    assert only(payer).state == "distrusted"


async def test_a_charge_for_what_was_refused_is_noticed(
    shop: ChannelShop, account: LocalAccount
) -> None:
    shop.add_title("plasma", SIZES)

    async def meddle(request: Request, serve: Next) -> Response:
        response = await serve(request)
        if request.url.path.endswith("/2.ts") and response.status_code == 200:
            return Response(status_code=404)  # charged, and not delivered
        return response

    shop.meddle = meddle
    payer = Payer(account, Budget(10**6))
    async with a_client(payer) as client:
        await get(client, shop, 0)
        assert (await get(client, shop, 2)).status_code == 404
        with pytest.raises(ChannelDistrusted, match="delivered"):
            await get(client, shop, 1)


# Getting money back.


async def closing(shop: ChannelShop, payer: Payer, client: httpx2.AsyncClient) -> Withdrawals:
    read = channel_reader({shop.devnet.network: shop.devnet.rpc_url})
    return Withdrawals(payer, ChannelLock(payer.channels, None, read), client)


async def test_what_was_not_charged_is_refunded_and_the_channel_goes_on(
    shop: ChannelShop, account: LocalAccount
) -> None:
    shop.add_title("plasma", SIZES)
    payer = Payer(account, Budget(10**6))
    async with a_client(payer) as client, httpx2.AsyncClient() as plain:
        await get(client, shop, 0)
        url = f"{shop.url}/hls/plasma/source/1.ts"
        desk = await closing(shop, payer, plain)
        _, part = await desk.refund(url, 100)
        assert part.amount == 100
        assert only(payer).balance == LEAST - 100
        _, rest = await desk.refund(url)
        assert rest.amount == LEAST - 100 - amount(SIZES[0])
        assert (only(payer).refundable, only(payer).state) == (0, "empty")
        assert FUNDS - shop.devnet.usdc_balance(account.address) == amount(SIZES[0])
        with pytest.raises(ConfigError, match="nothing left"):
            await desk.refund(url)
        assert (await get(client, shop, 1)).status_code == 200
    assert only(payer).charged == amount(SIZES[0]) + amount(SIZES[1])


async def test_a_refund_of_one_channel_takes_nothing_from_another_to_the_same_server(
    shop: ChannelShop, account: LocalAccount
) -> None:
    shop.add_title("plasma", SIZES)
    before = Payer(account, Budget(10**6), salt="0x" + "01" * 32)
    payer = Payer(account, Budget(10**6))
    async with a_client(before) as first, a_client(payer) as second:
        await get(first, shop, 0)
        await get(second, shop, 1)
    former, today = only(before), only(payer)
    payer.channels[former.channel_id] = former
    url = f"{shop.url}/hls/plasma/source/2.ts"
    async with httpx2.AsyncClient() as plain:
        desk = await closing(shop, payer, plain)
        with pytest.raises(DeliveryFailed):  # the terms there are those of the other
            await desk.refund(url, only=former)
        for channel in (former, today):
            found = await read_channel(shop.devnet.rpc_url, channel.network, channel.channel_id)
            assert found.balance == LEAST

        channel, refund = await desk.refund(url, only=today)
        assert (channel.channel_id, refund.amount) == (today.channel_id, LEAST - today.charged)


async def test_a_refund_behind_our_back_is_noticed(
    shop: ChannelShop, account: LocalAccount
) -> None:
    shop.add_title("plasma", SIZES)
    payer = Payer(account, Budget(10**6))
    async with a_client(payer) as client:
        await get(client, shop, 0)
        manager = shop.scheme.create_channel_manager_sync(shop.facilitator, shop.devnet.network)
        await asyncio.to_thread(manager.refund)
        assert (await get(client, shop, 1)).status_code == 200
    channel = only(payer)
    assert channel.charged == amount(SIZES[0]) + amount(SIZES[1])
    assert channel.balance == FUNDS - shop.devnet.usdc_balance(account.address)


async def test_a_timed_withdrawal_needs_no_server(tmp_path: Path) -> None:
    net = Devnet(tmp_path / "chain")
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(net):
        devnet = SharedDevnet(net.rpc_url, net.network, net.asset, net.chain, portal)
        account = devnet.new_account(usdc=FUNDS, wei=ETHER)
        with open_channel_shop(devnet, LEAST) as shop:
            shop.add_title("plasma", SIZES)
            payer = Payer(account, Budget(10**6))
            async with a_client(payer) as client, httpx2.AsyncClient() as plain:
                await get(client, shop, 0)
                desk = await closing(shop, payer, plain)
                begun = await desk.begin_withdrawal(only(payer), account, devnet.rpc_url)
                assert begun.amount == LEAST - amount(SIZES[0])
                again = await desk.begin_withdrawal(only(payer), account, devnet.rpc_url)
                assert (again.finalize_at, again.transaction) == (begun.finalize_at, "")
                assert only(payer).state == "withdrawing"
                with pytest.raises(ConfigError, match="seconds"):
                    await desk.finish_withdrawal(only(payer), account, devnet.rpc_url)
                with pytest.raises(XByteError, match="withdrawn"):
                    await get(client, shop, 1)
                devnet.call(devnet.chain.set_next_block_timestamp, begun.finalize_at + 1)
                devnet.call(devnet.chain.mine)
                done = await desk.finish_withdrawal(only(payer), account, devnet.rpc_url)
                assert done.amount == begun.amount
                assert only(payer).balance == amount(SIZES[0])
                with pytest.raises(ConfigError, match="no withdrawal"):
                    await desk.finish_withdrawal(only(payer), account, devnet.rpc_url)
                assert FUNDS - devnet.usdc_balance(account.address) == amount(SIZES[0])


async def test_a_deposit_of_the_wallets_own(shop: ChannelShop) -> None:
    account = shop.devnet.new_account(usdc=FUNDS, wei=ETHER)
    shop.add_title("plasma", SIZES)
    payer = Payer(account, Budget(10**6))
    async with a_client(payer) as client, httpx2.AsyncClient() as plain:
        desk = await closing(shop, payer, plain)
        _, terms = await desk._terms(f"{shop.url}/hls/plasma/source/0.ts", None)
        requirement = payer.channel_way(terms)
        channel, _ = await desk.deposit(
            requirement, 5000, account, shop.devnet.rpc_url, time.time()
        )
        assert (channel.balance, channel.deposit) == (5000, None)
        assert FUNDS - shop.devnet.usdc_balance(account.address) == 5000
        for msn in range(3):
            assert (await get(client, shop, msn)).status_code == 200
        assert only(payer).balance == 5000
