import asyncio
import contextlib
import os
import select
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from eth_account import Account
from eth_account.hdaccount import key_from_seed, seed_from_mnemonic

from tests.support.chain import SharedDevnet
from xbyte_live.devnet import accounts
from xbyte_live.devnet.accounts import (
    BATCH_SETTLEMENT_ADDRESS,
    ERC3009_COLLECTOR_ADDRESS,
    GAS,
    MULTICALL3_ADDRESS,
    PAYEE,
    PAYER,
    USDC_ADDRESS,
)
from xbyte_live.devnet.chain import PAYER_USDC, DevChain, Devnet
from xbyte_live.errors import DevnetError

SOMEONE = "0x00000000000000000000000000000000000000A1"

# A program that runs a chain in the directory given, says where, and waits.
PROGRAM = """
import asyncio, os, sys
from pathlib import Path
from xbyte_live.devnet.chain import Devnet

async def main():
    async with Devnet(Path(sys.argv[1])) as net:
        print(net.pid, net.rpc_url, flush=True)
        await net.ended()

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("index", "account"),
    [(0, GAS), (1, PAYEE), (2, PAYER), (9, accounts.FAUCET)],
)
def test_the_accounts_are_those_of_anvils_public_mnemonic(
    index: int, account: accounts.TestAccount
) -> None:
    key = key_from_seed(seed_from_mnemonic(accounts.MNEMONIC, ""), f"m/44'/60'/0'/0/{index}")

    assert account.key == "0x" + key.hex()
    assert account.address == Account.from_key(key).address


def test_a_start_says_that_the_chain_is_local_and_its_keys_public() -> None:
    assert "local test chain" in accounts.BANNER
    assert "publicly known" in accounts.BANNER
    assert "Never send real money" in accounts.BANNER


async def test_a_new_chain_has_everything_in_place(tmp_path: Path) -> None:
    async with Devnet(tmp_path) as net:
        assert net.network == "eip155:84532"
        assert (net.asset.address, net.asset.decimals) == (USDC_ADDRESS, 6)
        assert await net.chain.rpc("eth_chainId") == hex(84532)
        for address in (
            USDC_ADDRESS,
            MULTICALL3_ADDRESS,
            BATCH_SETTLEMENT_ADDRESS,
            ERC3009_COLLECTOR_ADDRESS,
        ):
            assert len(await net.chain.rpc("eth_getCode", address, "latest")) > 1000
        assert await net.chain.usdc_balance(PAYER.address) == PAYER_USDC
        for account in (GAS, PAYEE, PAYER):
            assert await net.chain.wei_balance(account.address) > 10**21
        assert net.rpc_url.startswith("http://127.0.0.1:")
    with pytest.raises(DevnetError, match="not running"):
        _ = net.rpc_url


async def test_another_chain_id_is_another_network(tmp_path: Path) -> None:
    async with Devnet(tmp_path, chain_id=31337) as net:
        assert net.network == net.asset.network == "eip155:31337"
        assert await net.chain.rpc("eth_chainId") == hex(31337)


async def test_the_faucet_adds_to_what_is_there(chain: DevChain, devnet: SharedDevnet) -> None:
    address = devnet.new_account(usdc=3, wei=4).address

    await asyncio.gather(*(chain.fund(address, usdc=10) for _ in range(20)))
    await chain.fund(address, wei=5)

    assert await chain.usdc_balance(address) == 203
    assert await chain.wei_balance(address) == 9


async def test_a_refused_call_says_what_was_refused(chain: DevChain) -> None:
    with pytest.raises(DevnetError, match="refused eth_nonsense"):
        await chain.rpc("eth_nonsense")
    with pytest.raises(DevnetError, match="no such snapshot"):
        await chain.revert("0xffff")
    with pytest.raises(DevnetError, match="was reverted"):
        await chain.fund("0x" + "00" * 20, usdc=1)


async def test_an_unreachable_chain_is_one_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    async with DevChain(f"http://127.0.0.1:{port}") as nobody:
        with pytest.raises(DevnetError, match="did not answer eth_chainId"):
            await nobody.rpc("eth_chainId")


async def test_the_mempool_holds_what_is_not_mined(tmp_path: Path) -> None:
    async with Devnet(tmp_path) as net:
        chain = net.chain
        await chain.set_automine(False)
        transaction = {"from": PAYER.address, "to": SOMEONE, "value": "0x5"}
        hash_ = await chain.rpc("eth_sendTransaction", transaction)

        assert await chain.rpc("eth_getTransactionReceipt", hash_) is None
        assert await chain.wei_balance(SOMEONE) == 0
        await chain.mine()
        assert (await chain.rpc("eth_getTransactionReceipt", hash_))["status"] == "0x1"
        assert await chain.wei_balance(SOMEONE) == 5
        await chain.set_automine(True)
        await chain.fund(SOMEONE, usdc=1)
        assert await chain.usdc_balance(SOMEONE) == 1


async def test_snapshots_and_the_clock(tmp_path: Path) -> None:
    async with Devnet(tmp_path) as net:
        chain = net.chain
        snapshot = await chain.snapshot()
        before = await _head_time(chain)

        await chain.set_next_block_timestamp(before + 10_000)
        await chain.fund(SOMEONE, usdc=7)

        assert await _head_time(chain) == before + 10_000
        await chain.revert(snapshot)
        assert await chain.usdc_balance(SOMEONE) == 0
        await chain.mine()
        assert before <= await _head_time(chain) < before + 5_000


async def test_an_idle_chain_keeps_the_time(tmp_path: Path) -> None:
    async with Devnet(tmp_path, heartbeat=0.05) as net, asyncio.timeout(20):
        height = int(await net.chain.rpc("eth_blockNumber"), 16)
        while int(await net.chain.rpc("eth_blockNumber"), 16) < height + 2:
            pass


async def test_blocks_may_come_at_intervals(tmp_path: Path) -> None:
    async with Devnet(tmp_path, block_time=1) as net:
        assert await net.chain.usdc_balance(PAYER.address) == PAYER_USDC
        gift = {"from": PAYER.address, "to": SOMEONE, "value": "0x5"}
        async with asyncio.timeout(20):
            while True:  # until a block did not happen to come between the two calls
                hash_ = await net.chain.rpc("eth_sendTransaction", gift)
                if await net.chain.rpc("eth_getTransactionReceipt", hash_) is None:
                    break
        await net.chain.fund(SOMEONE, usdc=1)  # waits for its block, which holds the other too
        assert (await net.chain.rpc("eth_getTransactionReceipt", hash_))["status"] == "0x1"
    for wrong in (0, 21):
        with pytest.raises(DevnetError, match="block time"):
            Devnet(tmp_path, block_time=wrong)


async def test_a_second_start_goes_on_from_the_first(tmp_path: Path) -> None:
    home = tmp_path / "not" / "there" / "yet"
    async with Devnet(home) as net:
        await net.chain.fund(SOMEONE, usdc=716, wei=5)
        receipt = await net.chain.send(
            USDC_ADDRESS, "0x40c10f19" + SOMEONE[2:].rjust(64, "0") + "1".rjust(64, "0")
        )
        height = int(await net.chain.rpc("eth_blockNumber"), 16)

    async with Devnet(home) as net:
        assert await net.chain.usdc_balance(SOMEONE) == 717
        assert await net.chain.wei_balance(SOMEONE) == 5
        assert await net.chain.usdc_balance(PAYER.address) == PAYER_USDC
        assert int(await net.chain.rpc("eth_blockNumber"), 16) > height
        assert await net.chain.rpc("eth_getTransactionReceipt", receipt["transactionHash"])
        await net.chain.fund(SOMEONE, usdc=1)
        assert await net.chain.usdc_balance(SOMEONE) == 718


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DevnetError, match=f"port {port} is taken"):
            await Devnet(tmp_path, rpc_port=port).start()
    async with Devnet(tmp_path, rpc_port=port) as net:
        assert net.rpc_url == f"http://127.0.0.1:{port}"


async def test_one_directory_holds_one_chain(tmp_path: Path) -> None:
    async with Devnet(tmp_path):
        with pytest.raises(DevnetError, match="another local chain runs in"):
            await Devnet(tmp_path).start()


async def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DevnetError, match="cannot be kept in"):
        await Devnet(tmp_path / "file" / "chain").start()


async def test_a_spoiled_state_says_what_to_delete(tmp_path: Path) -> None:
    (tmp_path / "chain.json").write_text('{"block": {"numb')
    with pytest.raises(DevnetError, match=r"saved chain .*chain\.json cannot be read: delete it"):
        await Devnet(tmp_path).start()


async def test_a_chain_that_dies_is_noticed(tmp_path: Path) -> None:
    async with Devnet(tmp_path) as net:
        os.kill(net.pid, signal.SIGKILL)
        with pytest.raises(DevnetError, match="has ended"):
            await asyncio.wait_for(net.ended(), 20)


async def test_stopping_leaves_no_process(tmp_path: Path) -> None:
    async with Devnet(tmp_path) as net:
        anvil = os.pidfd_open(net.pid)
    assert _has_ended(anvil, wait=0)
    await net.stop()


@contextlib.asynccontextmanager
async def _program(directory: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, int, str]]:
    """Run PROGRAM in a process group of its own; gives it, a pidfd of its anvil, and the URL."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, str(directory)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        process_group=0,
    )
    assert process.stdout is not None
    pid, url = (await asyncio.wait_for(process.stdout.readline(), 60)).decode().split()
    anvil = os.pidfd_open(int(pid))
    try:
        yield process, anvil, url
    finally:
        os.close(anvil)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_the_chain_ends_with_its_program_and_loses_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with _program(tmp_path) as (process, anvil, url):
        async with DevChain(url) as chain:
            await chain.fund(SOMEONE, usdc=716)
        assert not _has_ended(anvil, wait=0)

        os.killpg(process.pid, number)  # SIGINT: as a terminal sends Ctrl-C

        await asyncio.wait_for(process.wait(), 30)
        async with Devnet(tmp_path) as net:  # waits for the first to have saved itself
            assert await net.chain.usdc_balance(SOMEONE) == 716
        assert _has_ended(anvil, wait=0)


async def test_not_even_a_killed_guard_leaves_it_running(tmp_path: Path) -> None:
    async with _program(tmp_path) as (process, anvil, url):
        async with DevChain(url) as chain:
            await chain.fund(SOMEONE, usdc=716)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()

        os.kill(int(children), signal.SIGKILL)

        assert _has_ended(anvil, wait=30)
        _, stderr = await asyncio.wait_for(process.communicate(), 30)
        assert b"the local chain has ended; start it again" in stderr
    async with Devnet(tmp_path) as net:
        assert await net.chain.usdc_balance(SOMEONE) == 716


def _has_ended(pidfd: int, *, wait: float) -> bool:
    return bool(select.select([pidfd], [], [], wait)[0])


async def _head_time(chain: DevChain) -> int:
    return int((await chain.rpc("eth_getBlockByNumber", "latest", False))["timestamp"], 16)
