"""The chain reader behind a public URL, where many nodes answer and some know less than others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from eth_account import Account
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.payments.facilitators.test_local import (
    AMOUNT,
    a_payee,
    facilitator_on,
    paid_by,
    transfer_of,
)
from tests.support.chain import ETHER
from tests.support.web import serving
from xbyte_live.devnet.chain import Devnet
from xbyte_live.errors import ChainUnavailable
from xbyte_live.evm.authorizations import LOGS_LAG, ChainReader
from xbyte_live.evm.rpc import RpcNode
from xbyte_live.payments.facilitators.remote import Settled


@dataclass
class Balancer:
    """Hands JSON-RPC on to a node; ``instead`` holds answers of nodes that are behind."""

    node: str
    instead: dict[str, Any] = field(default_factory=dict)

    async def answer(self, request: Request) -> Response:
        call = await request.json()
        if call["method"] in self.instead:
            result = self.instead[call["method"]]
            return JSONResponse({"jsonrpc": "2.0", "id": call["id"], "result": result})
        async with httpx2.AsyncClient() as http:
            answer = await http.post(self.node, json=call)
        return Response(answer.content, media_type="application/json")


@asynccontextmanager
async def balanced(node: str) -> AsyncIterator[tuple[Balancer, ChainReader]]:
    balancer = Balancer(node)
    app = Starlette(routes=[Route("/", balancer.answer, methods=["POST"])])
    async with serving(app) as (host, port):
        reader = ChainReader(RpcNode(f"http://{host}:{port}", timeout=5))
        try:
            yield balancer, reader
        finally:
            await reader.node.close()


@pytest.fixture
async def devnet(tmp_path: Path) -> AsyncIterator[Devnet]:
    async with Devnet(tmp_path) as running:
        yield running


async def settled(devnet: Devnet) -> tuple[Any, str]:
    """A payment that has just been settled, and its transaction."""
    gas, payer = Account.create(), Account.create()
    await devnet.chain.fund(gas.address, 0, ETHER)
    await devnet.chain.fund(payer.address, AMOUNT, 0)
    payment = paid_by(payer, a_payee())
    facilitator = facilitator_on(devnet.rpc_url, gas)
    outcome = await facilitator.settle(payment)
    await facilitator.close()
    assert isinstance(outcome, Settled)
    return payment, outcome.tx_hash


async def test_money_that_moved_is_not_void_while_the_node_of_the_logs_is_behind(
    devnet: Devnet,
) -> None:
    payment, tx_hash = await settled(devnet)
    async with balanced(devnet.rpc_url) as (balancer, reader):
        balancer.instead["eth_getLogs"] = []
        assert (await reader.fate(transfer_of(payment))).kind == "open"
        balancer.instead.clear()
        fate = await reader.fate(transfer_of(payment))
        assert (fate.kind, fate.tx_hash) == ("moved", tx_hash)


async def test_what_was_used_long_since_and_left_no_log_is_void(devnet: Devnet) -> None:
    payment, _ = await settled(devnet)
    async with balanced(devnet.rpc_url) as (balancer, reader):
        balancer.instead["eth_getLogs"] = []
        await devnet.chain.mine(LOGS_LAG // 2)
        assert (await reader.fate(transfer_of(payment))).kind == "open"
        await devnet.chain.mine(LOGS_LAG)
        assert (await reader.fate(transfer_of(payment))).kind == "void"


@pytest.mark.parametrize("method", ["eth_getBlockByNumber", "eth_call", "eth_getLogs"])
async def test_rubbish_from_a_node_is_no_answer(devnet: Devnet, method: str) -> None:
    payment, _ = await settled(devnet)
    async with balanced(devnet.rpc_url) as (balancer, reader):
        for rubbish in (None, "0x", {"number": "x"}, 7):
            balancer.instead[method] = rubbish
            if (method, rubbish) == ("eth_getLogs", None):
                continue  # no logs, in a way
            with pytest.raises(ChainUnavailable):
                await reader.fate(transfer_of(payment))


async def test_many_questions_at_once_each_get_their_answer(devnet: Devnet) -> None:
    payments = [await settled(devnet) for _ in range(3)]
    async with balanced(devnet.rpc_url) as (_, reader):
        fates = await asyncio.gather(
            *(reader.fate(transfer_of(payment)) for payment, _ in payments * 5)
        )
    assert [fate.tx_hash for fate in fates] == [tx_hash for _, tx_hash in payments * 5]
