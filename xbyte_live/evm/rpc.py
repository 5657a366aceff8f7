"""Adapter: how an RPC node is asked: again where it breaks off, once where it does not answer.

web3 asks five times for everything, so that a node which hangs would be waited for minutes.
"""

import threading
from typing import Any

import aiohttp
import requests
from web3 import AsyncHTTPProvider, AsyncWeb3, HTTPProvider, Web3
from web3.middleware import ExtraDataToPOAMiddleware
from web3.providers.rpc.utils import ExceptionRetryConfiguration
from web3.types import RPCEndpoint, RPCResponse

_CONNECT = 5.0  # seconds at most until a node takes a connection


def node(rpc_url: str, timeout: float) -> AsyncWeb3[AsyncHTTPProvider]:
    """A node that is given ``timeout`` seconds for each answer."""
    provider = AsyncHTTPProvider(
        rpc_url,
        request_kwargs={"timeout": timeout},
        exception_retry_configuration=ExceptionRetryConfiguration(errors=(aiohttp.ClientError,)),
    )
    web3 = AsyncWeb3(provider)
    web3.middleware_onion.inject(ExtraDataToPOAMiddleware, layer=0)  # Avalanche
    return web3


class BlockingNode(HTTPProvider):
    """The same for threads that may wait; ``silent`` tells what this thread has met since ``ask``.

    Those who ask through others, which take a node that says nothing for one that says no, can
    tell them apart by it.
    """

    def __init__(self, rpc_url: str, timeout: float) -> None:
        errors = (requests.ConnectionError, requests.HTTPError)
        super().__init__(
            rpc_url,
            request_kwargs={"timeout": (min(_CONNECT, timeout), timeout)},
            exception_retry_configuration=ExceptionRetryConfiguration(errors=errors),
        )
        self._met = threading.local()

    @property
    def silent(self) -> bool:
        """Whether a call of this thread got no answer since ``ask``."""
        return bool(getattr(self._met, "silence", False))

    def ask(self) -> None:
        """From here on, in this thread."""
        self._met.silence = False

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Make one call."""
        try:
            return super().make_request(method, params)
        except Exception:
            self._met.silence = True
            raise

    def web3(self) -> Web3:
        """What asks through it."""
        web3 = Web3(self)
        web3.middleware_onion.inject(ExtraDataToPOAMiddleware, layer=0)
        return web3
