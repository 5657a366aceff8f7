"""Our payer and our server through payment channels: processes, killed, on a real chain."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount

from tests.support.chain import ETHER, SharedDevnet
from tests.support.server import Server, a_server
from xbyte_live.client.download.download import Options, download
from xbyte_live.client.payer.budget import Budget
from xbyte_live.client.payer.chain import channel_reader
from xbyte_live.client.payer.channel import PayerChannel
from xbyte_live.client.payer.channel_store import FileChannelStore
from xbyte_live.client.payer.payer import Payer
from xbyte_live.client.playlists import Selection

ROOT = Path(__file__).parents[2]
FUNDS = 100_000_000
PIECES = Options(wanted=Selection(piece_size=20_000))
WHOLE = 1_000_000
PRICE = 1_000_000  # a dollar per MB


@pytest.fixture
async def server(devnet: SharedDevnet, tmp_path: Path) -> AsyncIterator[Server]:
    gas = devnet.new_account(wei=100 * ETHER)
    async with a_server(
        tmp_path,
        devnet.rpc_url,
        Account.create().address,
        "0x" + bytes(gas.key).hex(),
    ) as server:
        server.log = tmp_path / "log"
        await server.sell("large", os.urandom(WHOLE), PRICE)
        yield server


@pytest.fixture
def account(devnet: SharedDevnet) -> LocalAccount:
    return devnet.new_account(usdc=FUNDS, wei=ETHER)


def content(server: Server, slug: str) -> bytes:
    return (server.data_dir.parent / f"{slug}.bin").read_bytes()


def only(payer: Payer) -> PayerChannel:
    (channel,) = payer.channels.values()
    return channel


async def test_an_object_is_bought_through_a_channel_and_the_rest_refunded(
    server: Server, account: LocalAccount, devnet: SharedDevnet, tmp_path: Path
) -> None:
    payer = Payer(account, Budget(5_000_000))
    out = tmp_path / "a.bin"
    read = channel_reader({devnet.network: devnet.rpc_url})
    result = await download(
        f"{server.url}/objects/large",
        out,
        payer,
        options=PIECES,
        store=FileChannelStore(tmp_path / "channels"),
        read_channel=read,
    )
    assert out.read_bytes() == content(server, "large")
    channel = only(payer)
    assert result.pieces == 50
    assert channel.charged == result.cost == result.signed == payer.budget.signed
    assert channel.balance == FUNDS - devnet.usdc_balance(account.address)


WATCH = """
import asyncio, sys
from pathlib import Path
from eth_account import Account
from xbyte_live.client.payer.budget import Budget
from xbyte_live.client.payer.channel_store import FileChannelStore
from xbyte_live.client.download.download import Options, download
from xbyte_live.client.payer.payer import Payer
from xbyte_live.client.playlists import Selection
url, out, key, store = sys.argv[1:]
payer = Payer(Account.from_key(key), Budget(10**7))
options = Options(wanted=Selection(piece_size=20_000))
asyncio.run(download(url, Path(out), payer, options=options, store=FileChannelStore(Path(store))))
"""


async def test_kill_9_of_the_payer_loses_and_pays_nothing_twice(
    server: Server, account: LocalAccount, devnet: SharedDevnet, tmp_path: Path
) -> None:
    out, store = tmp_path / "a.bin", tmp_path / "channels"
    part = tmp_path / "a.bin.part.state"
    key = "0x" + bytes(account.key).hex()
    kills = 0
    for run in range(12):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WATCH, f"{server.url}/objects/large", str(out), key, str(store),
            cwd=ROOT,
        )  # fmt: skip
        ended = asyncio.create_task(process.wait())
        size = part.stat().st_size if part.exists() else 0
        while kills < 5 and not ended.done():
            await asyncio.sleep(0.001)
            if part.exists() and part.stat().st_size > size + 9_000:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
        if await ended == 0:
            break
        assert process.returncode == -signal.SIGKILL, run
    assert kills == 5
    assert out.read_bytes() == content(server, "large")
    (channel,) = FileChannelStore(store).load().values()
    assert channel.charged == sum(-(-20_000 * PRICE // 2**20) for _ in range(50))
    assert channel.balance == FUNDS - devnet.usdc_balance(account.address)


async def test_kill_9_of_the_server_in_mid_download(
    server: Server, account: LocalAccount, devnet: SharedDevnet, tmp_path: Path
) -> None:
    payer = Payer(account, Budget(5_000_000))
    out = tmp_path / "a.bin"
    buying = asyncio.create_task(
        download(f"{server.url}/objects/large", out, payer, options=PIECES)
    )
    for _ in range(3):
        part = tmp_path / "a.bin.part.state"
        size = part.stat().st_size if part.exists() else 0
        while not buying.done() and (not part.exists() or part.stat().st_size < size + 9_000):
            await asyncio.sleep(0.001)
        await server.kill()
        await server.start()
    result = await buying
    assert out.read_bytes() == content(server, "large")
    assert only(payer).charged == result.cost == result.signed


async def run_cli(env: dict[str, str], *command: str) -> Any:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "xbyte_live", *command, "--json", cwd=ROOT,
        env=os.environ | env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return json.loads(out)


async def test_the_commands(
    server: Server, account: LocalAccount, devnet: SharedDevnet, tmp_path: Path
) -> None:
    env = {
        "XBYTE_WALLET": str(tmp_path / "wallet.json"),
        "XBYTE_WALLET_KEY": "0x" + bytes(account.key).hex(),
        "XBYTE_RPC_URLS": f"{devnet.network}={devnet.rpc_url}",
    }
    url, out = f"{server.url}/objects/bytes", str(tmp_path / "a.bin")
    assert await run_cli(env, "wallet", "channels") == []
    paid = await run_cli(env, "pay", url, "--out", out, "--budget", "1", "--max-per-minute", "1")
    [channel] = await run_cli(env, "wallet", "channels")
    assert (channel["charged"], channel["state"]) == (paid["cost"], "open")
    spent = FUNDS - devnet.usdc_balance(account.address)
    assert channel["balance"] == spent <= 1_000_000
    put = await run_cli(env, "wallet", "deposit", url, "0.50")
    assert put["balance"] == spent + 500_000
    [refund] = await run_cli(env, "wallet", "refund", url)
    assert refund["amount"] == put["balance"] - paid["cost"]
    [channel] = await run_cli(env, "wallet", "channels")
    assert (channel["state"], channel["refundable"]) == ("empty", 0)
    assert FUNDS - devnet.usdc_balance(account.address) == paid["cost"]
    await run_cli(env, "wallet", "deposit", url, "0.25")
    begun = await run_cli(env, "wallet", "withdraw", channel["channel"][:12])
    assert begun["amount"] == 250_000
    [channel] = await run_cli(env, "wallet", "channels")
    assert (channel["state"], channel["finalize_at"]) == ("withdrawing", begun["finalize_at"])
