"""The demo as a person runs it: start, be asked for money, pay, count the money, end it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import av
import httpx
import pytest
from eth_account import Account
from x402 import x402Client
from x402.http.clients.httpx import x402AsyncTransport
from x402.http.utils import decode_payment_response_header
from x402.mechanisms.evm.batch_settlement.client import BatchSettlementEvmScheme

from tests.support.demo import Demo
from tests.support.media import Audio, Recipe, h264
from tests.support.players import Playlist, read_playlist
from tests.support.publishers import publishing
from xbyte_live.devnet.chain import DevChain
from xbyte_live.media.formats.playlist import MediaPlaylist, read_media_playlist

Start = Callable[[], Awaitable[Demo]]

FUNDS = 50_000_000
WATCHED = 5  # segments of the broadcast
CLIP = Recipe(".flv", "flv", h264(group=25), Audio(rate=44100), seconds=20)


@pytest.fixture
async def start_demo(demo_dir: Path) -> AsyncIterator[Start]:
    """Starts the demo, again and again; none is left behind, whatever becomes of the test."""
    started: list[Demo] = []

    async def start() -> Demo:
        started.append(Demo(demo_dir))
        await started[-1].start()
        return started[-1]

    yield start
    for demo in started:
        await demo.end()


@pytest.mark.timeout(400)
async def test_the_demo_sells_and_ends_well_and_starts_again(
    start_demo: Start, tmp_path: Path
) -> None:
    out = tmp_path / "out.ts"
    demo = await start_demo()
    told = demo.described
    assert {"http_url", "rpc_url", "chain_id", "network", "asset", "pay_to", "payer_key"} < set(
        told
    )
    assert [item["kind"] for item in told["items"]] == [*["title"] * 3, "stream"]
    video = told["items"][0]
    async with DevChain(told["rpc_url"]) as chain, httpx.AsyncClient() as http:
        base = video["url"].removesuffix("index.m3u8") + video["renditions"][0]
        playlist = read_media_playlist((await http.get(f"{base}/index.m3u8")).text)
        assert 58e6 < sum(s.duration_us for s in playlist.segments) < 61e6
        first = playlist.segments[0]
        asked = await http.get(f"{base}/{first.uri}")
        assert asked.status_code == 402
        assert asked.json()["accepts"][0]["maxAmountRequired"] == str(first.amount)

        await demo.manage("ledger", "settle")
        before = await chain.usdc_balance(told["pay_to"])
        answer = await demo.pay(video["url"], "--out", str(out), "--json")
        cost = sum(s.amount or 0 for s in playlist.segments)
        assert json.loads(answer)["cost"] == cost
    assert out.stat().st_size == sum(s.size or 0 for s in playlist.segments)
    with av.open(str(out)) as paid:
        frames = sum(1 for _ in paid.decode(video=0))
    assert frames == 60 * 30
    cost += await watch_the_broadcast(demo, tmp_path)
    cost += await watch_with_the_official_client(told, playlist)
    audit = json.loads(await demo.manage("ledger", "audit", "--json"))
    assert audit["clean"]
    await demo.manage("ledger", "settle")
    async with DevChain(told["rpc_url"]) as chain:
        earned = await chain.usdc_balance(told["pay_to"])
    assert earned - before == cost
    await demo.end()

    second = await start_demo()
    again = second.described
    assert [item["slug"] for item in again["items"]] == [item["slug"] for item in told["items"]]
    async with DevChain(again["rpc_url"]) as chain:
        assert await chain.usdc_balance(told["pay_to"]) == earned
    await second.end()


async def watch_with_the_official_client(told: dict[str, Any], playlist: MediaPlaylist) -> int:
    """A whole title and a while of the broadcast, deposited for once; what it cost."""
    account, spent = Account.create(), 0
    title = told["items"][0]["url"].removesuffix("index.m3u8") + "source"
    live = f"{told['http_url']}/hls/{told['stream_slug']}/source"
    client = x402Client()
    client.register(told["network"], BatchSettlementEvmScheme(account))
    async with DevChain(told["rpc_url"]) as chain, httpx.AsyncClient() as free:
        await chain.fund(account.address, usdc=FUNDS)

        async def buy(url: str, amount: int | None) -> None:
            nonlocal spent
            bought = await paying.get(url)
            assert bought.status_code == 200
            spent += amount or 0
            deposits.append(decode_payment_response_header(bought.headers["PAYMENT-RESPONSE"]))

        deposits: list[Any] = []
        async with httpx.AsyncClient(transport=x402AsyncTransport(client), timeout=30) as paying:
            for segment in playlist.segments:
                await buy(f"{title}/{segment.uri}", segment.amount)
            listed = read_playlist((await free.get(f"{live}/index.m3u8")).text)
            msn = listed.last + 1
            for _ in range(WATCHED):
                answer = await free.get(f"{live}/index.m3u8", params={"_HLS_msn": msn}, timeout=30)
                listed = read_playlist(answer.text)
                new = listed.segments[msn - listed.last - 1]
                await buy(f"{live}/{msn}.ts", new.amount)
                msn += 1
        assert [d.transaction != "" for d in deposits] == [True, *[False] * (len(deposits) - 1)]
        assert FUNDS - await chain.usdc_balance(account.address) == int(deposits[0].amount)
    return spent


async def watch_the_broadcast(demo: Demo, tmp_path: Path) -> int:
    """It is on air and for sale; whoever has the key takes over, and when he goes it is back.

    Returns what watching a little of it cost.
    """
    told = demo.described
    stream = f"{told['http_url']}/hls/{told['stream_slug']}"
    clip = CLIP.make(tmp_path / "clip.flv")
    async with httpx.AsyncClient(timeout=30) as http:

        async def wait_for(discontinuities: int) -> Playlist:
            async with asyncio.timeout(60):
                playlist = read_playlist((await http.get(f"{stream}/source/index.m3u8")).text)
                while playlist.discontinuities < discontinuities:
                    following = {"_HLS_msn": playlist.last + 1}
                    answer = await http.get(f"{stream}/source/index.m3u8", params=following)
                    playlist = read_playlist(answer.text)
                return playlist

        async with asyncio.timeout(60):
            while (await http.get(f"{stream}/index.m3u8")).status_code != 200:
                await asyncio.sleep(0.1)  # another process is to begin
        own = await wait_for(0)
        asked = await http.get(f"{stream}/source/{own.last}.ts")
        assert asked.json()["accepts"][0]["maxAmountRequired"] == str(own.segments[-1].amount)
        async with publishing(f"{told['rtmp_url']}/{told['stream_key']}", clip):
            await wait_for(own.discontinuities + 1)
            out = ("--out", str(tmp_path / "live.ts"), "--time-limit", "3", "--json")
            answer = await demo.pay(f"{stream}/index.m3u8", *out)
        await wait_for(own.discontinuities + 2)
    cost = int(json.loads(answer)["cost"])
    assert cost > 0
    return cost
