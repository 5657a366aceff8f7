"""An RPC node that fails as a test wants it to: a real one, behind a proxy in a thread."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.support.chain import serving


class RpcProxy:
    """Passes calls on; ``fails`` names methods (or ``*``) that get an error instead.

    Calls of methods in ``loses`` reach the node, and their answers are lost.
    """

    def __init__(self, rpc_url: str) -> None:
        self.fails: set[str] = set()
        self.loses: set[str] = set()
        self.calls: list[str] = []
        self.url = ""
        self._rpc_url = rpc_url

    async def answer(self, request: Request) -> Response:
        call: Any = json.loads(await request.body())
        methods = {one["method"] for one in (call if isinstance(call, list) else [call])}
        self.calls += sorted(methods)
        if "*" in self.fails or methods & self.fails:
            error = {"code": -32000, "message": "the node is not well"}
            return JSONResponse({"jsonrpc": "2.0", "id": 1, "error": error})
        async with httpx2.AsyncClient(timeout=30, trust_env=False) as client:
            found = await client.post(self._rpc_url, json=call)
        if methods & self.loses:
            return Response("bad gateway", 502)
        return Response(found.content, media_type="application/json")


@contextlib.contextmanager
def rpc_proxy(rpc_url: str) -> Iterator[RpcProxy]:
    """A running proxy in front of a node."""
    proxy = RpcProxy(rpc_url)
    with serving(Starlette(routes=[Route("/", proxy.answer, methods=["POST"])])) as url:
        proxy.url = url
        yield proxy
