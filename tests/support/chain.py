"""A real local chain for tests: one for each test worker, and what a test does with it.

`devnet` (session) is usable from any test, sync or async, whatever its event loop; `chain` drives
the same chain from an async test. Give each test accounts of its own (`devnet.new_account`): the
chain is shared. A test that stops mining, reverts or moves the clock starts its own
`Devnet(tmp_path)`, which takes a fifth of a second.
"""

import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pytest
import uvicorn
from anyio.from_thread import BlockingPortal, start_blocking_portal
from eth_account import Account
from eth_account.signers.local import LocalAccount
from starlette.types import ASGIApp

from xbyte_live.devnet.artifacts import load_artifact
from xbyte_live.devnet.chain import DevChain, Devnet
from xbyte_live.devnet.facilitator import facilitator_app
from xbyte_live.money import Asset

T = TypeVar("T")
ETHER = 10**18


@dataclass(frozen=True, slots=True)
class SharedDevnet:
    """The worker's chain, driven by blocking calls."""

    rpc_url: str
    network: str
    asset: Asset
    chain: DevChain
    portal: BlockingPortal

    def call(self, work: Callable[..., Awaitable[T]], *args: object) -> T:
        """Run a method of ``chain`` with its arguments, in the thread where it lives."""
        return self.portal.call(work, *args)

    def fund(self, address: str, usdc: int = 0, wei: int = 0) -> None:
        """Give test USDC (atomic units) and wei to an address."""
        self.call(self.chain.fund, address, usdc, wei)

    def usdc_balance(self, address: str) -> int:
        """The test USDC an address holds, in atomic units."""
        return self.call(self.chain.usdc_balance, address)

    def new_account(self, usdc: int = 0, wei: int = 0) -> LocalAccount:
        """A fresh account holding that much."""
        account: LocalAccount = Account.create()
        self.fund(account.address, usdc, wei)
        return account

    def deploy(self, name: str, arguments: bytes = b"") -> str:
        """Create a contract of ours, with its ABI-encoded arguments, and return its address."""
        code = load_artifact(name).bytecode + arguments.hex()
        address: str = self.call(self.chain.send, None, code)["contractAddress"]
        return address


@pytest.fixture(scope="session")
def devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedDevnet]:
    """The worker's chain (id 84532, test USDC, Multicall3), on a port of its own."""
    net = Devnet(tmp_path_factory.mktemp("devnet"))
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(net):
        yield SharedDevnet(net.rpc_url, net.network, net.asset, net.chain, portal)


@pytest.fixture
async def chain(devnet: SharedDevnet) -> AsyncIterator[DevChain]:
    """The worker's chain, driven from the test's own event loop."""
    async with DevChain(devnet.rpc_url) as driver:
        yield driver


@contextlib.contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """Serve an ASGI app on a free loopback port, in a thread, and give its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_level="error", lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextlib.contextmanager
def serving_facilitator(
    devnet: SharedDevnet, factories: Sequence[str] = (), settle_wait: float = 20.0
) -> Iterator[str]:
    """Serve the SDK's facilitator, with a gas key of its own, and give its URL."""
    gas = devnet.new_account(wei=100 * ETHER)
    app = facilitator_app(
        devnet.rpc_url,
        "0x" + bytes(gas.key).hex(),
        devnet.network,
        smart_wallet_factories=factories,
        settle_wait=settle_wait,
    )
    with serving(app) as url:
        yield url


@pytest.fixture(scope="session")
def facilitator_url(devnet: SharedDevnet) -> Iterator[str]:
    """A remote facilitator (HTTP, loopback) for the worker's chain."""
    with serving_facilitator(devnet) as url:
        yield url
