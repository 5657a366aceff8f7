"""The demo as a person runs it: start, be asked for money, pay, count the money, end it."""

import asyncio
import json
import os
import signal
import sys
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

from tests.support.media import Audio, Recipe, h264
from tests.support.players import Playlist, read_playlist
from tests.support.publishers import publishing
from tests.support.server import free_port
from xbyte_live.devnet.accounts import GAS
from xbyte_live.devnet.chain import Chain
from xbyte_live.media.playlist import MediaPlaylist, read_media_playlist

ROOT = Path(__file__).parents[1]
FUNDS = 50_000_000
WATCHED = 5  # segments of the broadcast
CLIP = Recipe(".flv", "flv", h264(group=25), Audio(rate=44100), seconds=20)


async def start(data_dir: Path) -> tuple[asyncio.subprocess.Process, dict[str, Any]]:
    """Run the demo until it says that everything answers."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "xbyte_live.cli", "demo", "--data-dir", str(data_dir)),
        *("--port", str(free_port()), "--rpc-port", str(free_port())),
        *("--rtmp-port", str(free_port())),
        stdout=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    async with asyncio.timeout(240):
        while not (data_dir / "demo.json").exists():
            assert process.returncode is None, "the demo ended by itself"
            await asyncio.sleep(0.1)  # the file is what it promises, there is no event
    described = json.loads((data_dir / "demo.json").read_text())
    return process, described | {"config_home": data_dir.parent / "config"}


async def end(process: asyncio.subprocess.Process, data_dir: Path) -> None:
    """Ctrl-C; nothing of its session may be left."""
    session = os.getsid(process.pid)
    process.send_signal(signal.SIGINT)
    await asyncio.wait_for(process.wait(), 30)
    assert not (data_dir / "demo.json").exists()
    assert [pid for pid in running() if session_of(pid) == session] == []
    assert not any(str(data_dir) in command_of(pid) for pid in running())


def running() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


@pytest.mark.timeout(400)
async def test_the_demo_sells_and_ends_well_and_starts_again(tmp_path: Path) -> None:
    data_dir, out = tmp_path / "demo", tmp_path / "out.ts"
    process, demo = await start(data_dir)
    assert {"http_url", "rpc_url", "chain_id", "network", "asset", "pay_to", "payer_key"} < set(
        demo
    )
    assert [item["kind"] for item in demo["items"]] == [*["title"] * 3, "stream"]
    video = demo["items"][0]
    async with Chain(demo["rpc_url"]) as chain, httpx.AsyncClient() as http:
        base = video["url"].removesuffix("index.m3u8") + video["renditions"][0]
        playlist = read_media_playlist((await http.get(f"{base}/index.m3u8")).text)
        assert 58e6 < sum(s.duration_us for s in playlist.segments) < 61e6
        first = playlist.segments[0]
        asked = await http.get(f"{base}/{first.uri}")
        assert asked.status_code == 402
        assert asked.json()["accepts"][0]["maxAmountRequired"] == str(first.amount)

        before = await chain.usdc_balance(demo["pay_to"])
        answer = await cli("pay", video["url"], "--out", str(out), "--json", demo=demo)
        cost = sum(s.amount or 0 for s in playlist.segments)
        assert json.loads(answer)["cost"] == cost
    assert out.stat().st_size == sum(s.size or 0 for s in playlist.segments)
    with av.open(str(out)) as paid:
        frames = sum(1 for _ in paid.decode(video=0))
    assert frames == 60 * 30
    cost += await watch_the_broadcast(demo, tmp_path)
    cost += await watch_with_the_official_client(demo, playlist)
    audit = json.loads(await cli("ledger", "audit", "--json", demo=demo, data_dir=data_dir))
    assert audit["clean"]
    await cli("ledger", "settle", demo=demo, data_dir=data_dir)
    async with Chain(demo["rpc_url"]) as chain:
        earned = await chain.usdc_balance(demo["pay_to"])
    assert earned - before == cost
    await end(process, data_dir)

    process, again = await start(data_dir)
    assert [item["slug"] for item in again["items"]] == [item["slug"] for item in demo["items"]]
    async with Chain(again["rpc_url"]) as chain:
        assert await chain.usdc_balance(demo["pay_to"]) == earned
    await end(process, data_dir)


async def watch_with_the_official_client(demo: dict[str, Any], playlist: MediaPlaylist) -> int:
    """A whole title and a while of the broadcast, deposited for once; what it cost."""
    account, spent = Account.create(), 0
    title = demo["items"][0]["url"].removesuffix("index.m3u8") + "source"
    live = f"{demo['http_url']}/hls/{demo['stream_slug']}/source"
    client = x402Client()
    client.register(demo["network"], BatchSettlementEvmScheme(account))
    async with Chain(demo["rpc_url"]) as chain, httpx.AsyncClient() as free:
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


async def watch_the_broadcast(demo: dict[str, Any], tmp_path: Path) -> int:
    """It is on air and for sale; whoever has the key takes over, and when he goes it is back.

    Returns what watching a little of it cost.
    """
    stream = f"{demo['http_url']}/hls/{demo['stream_slug']}"
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
        async with publishing(f"{demo['rtmp_url']}/{demo['stream_key']}", clip):
            await wait_for(own.discontinuities + 1)
            out = ("--out", str(tmp_path / "live.ts"), "--time-limit", "3", "--json")
            answer = await cli("pay", f"{stream}/index.m3u8", *out, demo=demo)
        await wait_for(own.discontinuities + 2)
    cost = int(json.loads(answer)["cost"])
    assert cost > 0
    return cost


async def cli(*args: str, demo: dict[str, Any], data_dir: Path | None = None) -> str:
    """Run `xbyte-live` with the demo's wallet, or over its data; its output."""
    own = {"XBYTE_WALLET_KEY": demo["payer_key"], "XDG_CONFIG_HOME": str(demo["config_home"])}
    if data_dir is not None:
        own = {
            "XBYTE_DATA_DIR": str(data_dir),
            "XBYTE_PAY_TO": demo["pay_to"],
            "XBYTE_NETWORKS": demo["network"],
            "XBYTE_RPC_URLS": f"{demo['network']}={demo['rpc_url']}",
            "XBYTE_GAS_KEY": GAS.key,
        }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "xbyte_live.cli", *args),
        env=os.environ | own,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output
    return output.decode()
