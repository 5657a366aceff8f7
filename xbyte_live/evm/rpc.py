"""Adapter: the RPC node of one network: its connections, its deadlines and its one failure.

Every reader and the sender of a network share one. web3 asks five times for everything, so that
a node which hangs would be waited for minutes: here it is asked again only where it breaks off.
"""

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, cast

import aiohttp
import requests
from eth_abi.exceptions import DecodingError
from web3 import AsyncHTTPProvider, AsyncWeb3, HTTPProvider, Web3
from web3.exceptions import Web3RPCError
from web3.middleware import ExtraDataToPOAMiddleware
from web3.providers.rpc.utils import ExceptionRetryConfiguration
from web3.types import FilterParams, LogReceipt, RPCEndpoint, RPCResponse

from xbyte_live.errors import ChainUnavailable

LOG_WINDOW = 1000  # blocks asked for at once; public nodes allow few more
_CONNECT = 5.0  # seconds at most until a node takes a connection


class RpcNode:
    """One network's node, which has ``timeout`` seconds for each answer.

    ``web3`` asks on the event loop, ``blocking`` in threads that may wait; each keeps its own
    pool of connections, opened when first needed.
    """

    def __init__(self, url: str, *, timeout: float) -> None:
        self.url = url
        provider = AsyncHTTPProvider(
            url,
            request_kwargs={"timeout": timeout},
            exception_retry_configuration=ExceptionRetryConfiguration(
                errors=(aiohttp.ClientError,)
            ),
        )
        self.web3 = AsyncWeb3(provider)
        self.web3.middleware_onion.inject(ExtraDataToPOAMiddleware, layer=0)  # Avalanche
        self.blocking = BlockingNode(url, timeout)

    async def check(self, chain_id: int) -> None:
        """Return if the node answers for this chain, else raise ``ChainUnavailable``."""
        with answered():
            found = await self.web3.eth.chain_id
        if found != chain_id:
            raise ChainUnavailable(f"the RPC node serves chain {found}, not {chain_id}")

    async def logs(
        self, address: str, topics: list[Any], first: int, last: int
    ) -> AsyncIterator[tuple[int, list[LogReceipt]]]:
        """The logs of a contract in these blocks, window by window.

        Each with the last block of its window; a window that the node finds too wide is halved.
        Raises ``ChainUnavailable``.
        """
        width = LOG_WINDOW
        while first <= last:
            end = min(last, first + width - 1)
            try:
                with answered():
                    found = await self._logs(address, topics, first, end)
            except ChainUnavailable as error:
                if not isinstance(error.__cause__, Web3RPCError) or width == 1:
                    raise
                width //= 2
                continue
            yield end, found
            first = end + 1

    async def newest_logs(
        self, address: str, topics: list[Any], last: int, *, since: float, windows: int
    ) -> list[LogReceipt] | None:
        """The logs of the newest window up to a block that has any.

        Empty if none has back to ``since`` (Unix seconds), ``None`` if that lies more windows
        back than may be asked for. Raises ``ChainUnavailable``.
        """
        for _ in range(windows):
            first = max(0, last - LOG_WINDOW + 1)
            with answered():
                found = await self._logs(address, topics, first, last)
                if found:
                    return found
                block = await self.web3.eth.get_block(first)
            if first == 0 or block["timestamp"] < since:
                return []
            last = first - 1
        return None

    async def close(self) -> None:
        """Close the connections of the event loop; those of threads close with the process."""
        await self.web3.provider.disconnect()

    async def _logs(
        self, address: str, topics: list[Any], first: int, last: int
    ) -> list[LogReceipt]:
        query: FilterParams = {
            "address": Web3.to_checksum_address(address),
            "fromBlock": cast(Any, first),
            "toBlock": cast(Any, last),
            "topics": topics,
        }
        return list(await self.web3.eth.get_logs(query))


class BlockingNode(HTTPProvider):
    """A node for threads; ``is_silent`` is whether this thread got no answer since ``listen``.

    The SDK takes a node that does not answer for one that refuses; this tells them apart.
    """

    def __init__(self, rpc_url: str, timeout: float) -> None:
        errors = (requests.ConnectionError, requests.HTTPError)
        super().__init__(
            rpc_url,
            request_kwargs={"timeout": (min(_CONNECT, timeout), timeout)},
            exception_retry_configuration=ExceptionRetryConfiguration(errors=errors),
        )
        self._heard = threading.local()

    @property
    def is_silent(self) -> bool:
        """Whether a call of this thread got no answer since ``listen``."""
        return bool(getattr(self._heard, "silence", False))

    def listen(self) -> None:
        """Count the silence of this thread from here on."""
        self._heard.silence = False

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Make one call."""
        try:
            return super().make_request(method, params)
        except Exception:
            self._heard.silence = True
            raise

    def web3(self) -> Web3:
        """A web3 that asks through it."""
        web3 = Web3(self)
        web3.middleware_onion.inject(ExtraDataToPOAMiddleware, layer=0)
        return web3


@contextmanager
def answered() -> Iterator[None]:
    """Turn every failure of a node inside the block into ``ChainUnavailable``."""
    try:
        yield
    except ChainUnavailable:
        raise
    except DecodingError as error:
        raise ChainUnavailable(
            "the chain has no contract for payment channels at its place; check rpc_urls"
        ) from error
    except Exception as error:
        raise ChainUnavailable(f"the RPC node gave no answer ({type(error).__name__})") from error


def hex_of(data: Any) -> str:
    """Bytes of an answer as ``0x`` and lower-case hex."""
    return "0x" + bytes(data).hex()
