"""Adapter: the local chain: a running anvil with our test USDC, a faucet and a clock."""

import asyncio
import contextlib
import itertools
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from xbyte_live.devnet.accounts import (
    BATCH_SETTLEMENT_ADDRESS,
    DEFAULT_CHAIN_ID,
    ERC3009_COLLECTOR_ADDRESS,
    FAUCET,
    MULTICALL3_ADDRESS,
    PAYER,
    USDC_ADDRESS,
    devnet_usdc,
)
from xbyte_live.devnet.anvil import AnvilProcess, find_anvil
from xbyte_live.devnet.artifacts import load_artifact
from xbyte_live.errors import DevnetError
from xbyte_live.money import Asset

RPC_TIMEOUT_S = 40.0  # anvil itself gives up on an unmined transaction after 30
MAX_BLOCK_TIME_S = 20
HEARTBEAT_S = 30.0
PAYER_USDC = 1_000_000_000  # $1,000, once, on a new chain

# What lies where; put there at each start, so that a chain saved by an older version has it too.
_CONTRACTS = {
    MULTICALL3_ADDRESS: "Multicall3",
    USDC_ADDRESS: "TestUSDC",
    BATCH_SETTLEMENT_ADDRESS: "BatchSettlement",
    ERC3009_COLLECTOR_ADDRESS: "ERC3009DepositCollector",
}

_MINT = "0x40c10f19"  # mint(address,uint256)
_BALANCE_OF = "0x70a08231"  # balanceOf(address)


class DevChain:
    """Drives a local chain that runs already: faucet, mining, snapshots. Use it as a context.

    Every method raises ``DevnetError`` when the node does not answer or refuses.
    """

    def __init__(self, rpc_url: str) -> None:
        self.rpc_url = rpc_url
        self._client = httpx2.AsyncClient(timeout=RPC_TIMEOUT_S, trust_env=False)
        self._ids = itertools.count(1)
        self._faucet = asyncio.Lock()  # anvil gives two sends at once the same nonce

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections; the chain runs on."""
        await self._client.aclose()

    async def rpc(self, method: str, *params: Any) -> Any:
        """Call one JSON-RPC method of the node and return its result."""
        call = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        try:
            answer = (await self._client.post(self.rpc_url, json=call)).json()
        except (httpx2.HTTPError, ValueError) as error:
            raise DevnetError(
                f"the local chain at {self.rpc_url} did not answer {method} ({error!r})"
            ) from None
        if "error" in answer:
            raise DevnetError(f"the local chain refused {method}: {answer['error']['message']}")
        return answer["result"]

    async def fund(self, address: str, usdc: int = 0, wei: int = 0) -> None:
        """Give ``address`` test USDC (atomic units) and ether (wei) on top of what it has."""
        if wei:
            balance = await self.wei_balance(address)
            await self.rpc("anvil_setBalance", address, hex(balance + wei))
        if usdc:
            await self.send(USDC_ADDRESS, _MINT + _word(address) + f"{usdc:064x}")

    async def usdc_balance(self, address: str) -> int:
        """The test USDC that ``address`` holds, in atomic units."""
        call = {"to": USDC_ADDRESS, "data": _BALANCE_OF + _word(address)}
        return int(await self.rpc("eth_call", call, "latest"), 16)

    async def wei_balance(self, address: str) -> int:
        """The ether that ``address`` holds, in wei."""
        return int(await self.rpc("eth_getBalance", address, "latest"), 16)

    async def send(self, to: str | None, data: str) -> dict[str, Any]:
        """Send a transaction from the faucet's account and return its receipt once it is mined.

        ``to`` is ``None`` to create a contract, whose address is the receipt's
        ``contractAddress``. A revert, or mining being off, is a ``DevnetError``.
        """
        call = {"from": FAUCET.address, "data": data} | ({"to": to} if to else {})
        async with self._faucet:
            receipt: dict[str, Any] = await self.rpc("eth_sendTransactionSync", call)
        if receipt["status"] != "0x1":
            raise DevnetError("the faucet's transaction was reverted")
        return receipt

    async def set_code(self, address: str, runtime: str) -> None:
        """Put ``runtime`` code (``0x`` hex) at ``address``; what is stored there stays."""
        await self.rpc("anvil_setCode", address, runtime)

    async def mine(self, blocks: int = 1) -> None:
        """Mine ``blocks`` blocks now, pending transactions in the first."""
        await self.rpc("anvil_mine", hex(blocks))

    async def set_automine(self, on: bool) -> None:
        """Mine each transaction at once, or leave it in the mempool until ``mine``."""
        await self.rpc("evm_setAutomine", on)

    async def snapshot(self) -> str:
        """Remember the whole chain, its clock included, for one ``revert``."""
        name: str = await self.rpc("evm_snapshot")
        return name

    async def revert(self, snapshot: str) -> None:
        """Go back to ``snapshot``; senders that count their own nonces must begin anew."""
        if not await self.rpc("evm_revert", snapshot):
            raise DevnetError("there is no such snapshot of the local chain")

    async def set_next_block_timestamp(self, timestamp: int) -> None:
        """Give the next block this Unix time; later blocks go on from there."""
        await self.rpc("evm_setNextBlockTimestamp", timestamp)


class Devnet:
    """A local chain of our own: started, prepared, kept in ``data_dir`` and stopped. A context.

    The node listens on 127.0.0.1:``rpc_port`` (0: any free port) and mines each transaction at
    once, or every ``block_time`` seconds; an idle one mines every ``heartbeat`` seconds, so that
    its clock goes on. It saves itself when stopped, even by ``kill -9`` of
    this process, and a second start goes on from there. ``cache_dir`` is where npm's anvil is
    kept. ``start`` raises ``DevnetError`` saying what to do.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        rpc_port: int = 0,
        chain_id: int = DEFAULT_CHAIN_ID,
        block_time: int | None = None,
        heartbeat: float = HEARTBEAT_S,
        cache_dir: Path | None = None,
    ) -> None:
        if block_time is not None and not 1 <= block_time <= MAX_BLOCK_TIME_S:
            raise DevnetError(f"a block time lies between 1 and {MAX_BLOCK_TIME_S} seconds")
        self.asset: Asset = devnet_usdc(chain_id)
        self._data_dir = data_dir.absolute()
        self._port = rpc_port
        self._chain_id = chain_id
        self._block_time = block_time
        self._heartbeat = heartbeat
        self._cache_dir = cache_dir
        self._stack = contextlib.AsyncExitStack()
        self._process: AnvilProcess | None = None
        self._chain: DevChain | None = None

    @property
    def chain(self) -> DevChain:
        """The driver of the chain, while it runs."""
        if self._chain is None:
            raise DevnetError("the local chain is not running")
        return self._chain

    @property
    def rpc_url(self) -> str:
        """The URL at which the node answers JSON-RPC, while it runs."""
        return self.chain.rpc_url

    @property
    def network(self) -> str:
        """The chain as CAIP-2, such as ``eip155:84532``."""
        return self.asset.network

    @property
    def pid(self) -> int:
        """The process id of anvil."""
        if self._process is None:
            raise DevnetError("the local chain is not running")
        return self._process.pid

    async def start(self) -> str:
        """Start the node, place the contracts, and return its RPC URL."""
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DevnetError(f"the chain cannot be kept in {self._data_dir}: {error}") from None
        binary = await asyncio.to_thread(find_anvil, self._cache_dir)
        async with contextlib.AsyncExitStack() as stack:
            process = await AnvilProcess.start(
                binary,
                self._data_dir,
                port=self._port,
                chain_id=self._chain_id,
                block_time=self._block_time,
            )
            stack.push_async_callback(process.stop)
            chain = await stack.enter_async_context(DevChain(process.rpc_url))
            await _prepare(chain)
            stack.push_async_callback(
                _cancel, asyncio.create_task(_keep_time(chain, self._heartbeat))
            )
            self._process, self._chain, self._stack = process, chain, stack.pop_all()
        return self.rpc_url

    async def stop(self) -> None:
        """Stop the node once its state is saved; doing so twice is fine."""
        self._chain = None
        await self._stack.aclose()

    async def ended(self) -> None:
        """Wait until the node ends by itself, which it should not, and raise ``DevnetError``."""
        if self._process is not None:
            await self._process.ended()
        raise DevnetError("the local chain has ended; start it again")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()


async def _prepare(chain: DevChain) -> None:
    await chain.rpc("anvil_setLoggingEnabled", False)
    for address, name in _CONTRACTS.items():
        await chain.set_code(address, load_artifact(name).runtime)
    if await chain.rpc("eth_blockNumber") == "0x0":
        await chain.fund(PAYER.address, usdc=PAYER_USDC)
    await chain.mine()  # the time of a call is that of the last block: a saved one is old


async def _keep_time(chain: DevChain, every: float) -> None:
    """Mine now and then: on an idle chain the time of a call stands still, and an authorization
    signed just now would look not yet valid to it.
    """
    with contextlib.suppress(DevnetError):  # the node is gone: `ended` says so
        while True:
            await asyncio.sleep(every)
            if await chain.rpc("anvil_getAutomine"):
                await chain.mine()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _word(address: str) -> str:
    return address.removeprefix("0x").lower().rjust(64, "0")
