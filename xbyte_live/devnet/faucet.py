"""Adapter: hands out the local chain's test USDC to pages of the demo; worthless, yet bounded."""

import asyncio
import contextlib
import json
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from xbyte_live.devnet.chain import DevChain
from xbyte_live.errors import DevnetError

GRANT = 5_000_000  # $5 of test USDC at a time
LIMIT = 20_000_000  # for one address, for as long as the faucet runs
_KNOWN = 10_000  # addresses remembered; the one longest not here is forgotten first
_MOST_BYTES = 1024
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")


class Faucet:
    """Gives ``GRANT`` to an address that asks, up to ``LIMIT``."""

    def __init__(self, chain: DevChain) -> None:
        self._chain = chain
        self._given: OrderedDict[str, int] = OrderedDict()
        self._giving = asyncio.Lock()

    async def answer(self, request: Request) -> Response:
        """Answer ``POST /faucet`` with ``{"address": "0x…"}``: amount and balance after."""
        address = await _address_in(request)
        if address is None:
            return _refusal(400, "bad_request", 'send {"address": "0x…"}, 40 hex digits')
        try:
            return await self._give(address)
        except DevnetError as error:
            return _refusal(503, "chain_unavailable", str(error))

    async def _give(self, address: str) -> Response:
        async with self._giving:
            given = self._given.get(address, 0)
            if given + GRANT > LIMIT:
                told = "this address has had all the test money there is for one"
                return _refusal(429, "faucet_limit", told)
            await self._chain.fund(address, usdc=GRANT)
            self._given[address] = given + GRANT
            self._given.move_to_end(address)
            if len(self._given) > _KNOWN:
                self._given.popitem(last=False)
        balance = await self._chain.usdc_balance(address)
        return JSONResponse({"address": address, "amount": str(GRANT), "balance": str(balance)})


def faucet_app(chain: DevChain, origins: Collection[str]) -> Starlette:
    """An ASGI application with ``POST /faucet``, for pages of ``origins`` alone."""
    return Starlette(
        routes=[Route("/faucet", Faucet(chain).answer, methods=["POST"])],
        middleware=[
            Middleware(
                CORSMiddleware,
                allow_origins=list(origins),
                allow_methods=["POST"],
                allow_headers=["Content-Type"],
            )
        ],
    )


@asynccontextmanager
async def open_faucet(chain: DevChain, origins: Collection[str]) -> AsyncIterator[str]:
    """Run a faucet on a free loopback port; yields the URL to post to."""
    server = _Server(
        uvicorn.Config(
            faucet_app(chain, origins),
            host="127.0.0.1",
            port=0,
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
        )
    )
    serving = asyncio.create_task(server.serve())
    try:
        await server.listens.wait()
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/faucet"
    finally:
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await serving


class _Server(uvicorn.Server):
    """uvicorn that leaves signals to the program around it, and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()

    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets)
        self.listens.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _address_in(request: Request) -> str | None:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            return None
    try:
        address = json.loads(body)["address"]
    except (ValueError, KeyError, TypeError):
        return None
    found = isinstance(address, str) and _ADDRESS.fullmatch(address)
    return address.lower() if found else None


def _refusal(status: int, code: str, message: str) -> Response:
    return JSONResponse({"error": code, "message": message}, status_code=status)
