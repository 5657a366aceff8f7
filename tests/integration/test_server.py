"""The whole path: the real server, a real chain, the official x402 client."""

import asyncio
import base64
import hashlib
import json
from functools import partial
from pathlib import Path

import httpx
import pytest
from eth_account.signers.local import LocalAccount
from x402 import x402Client
from x402.http.clients.httpx import x402AsyncTransport
from x402.http.utils import decode_payment_required_header, decode_payment_response_header
from x402.mechanisms.evm.exact import register_exact_evm_client

from tests.support.chain import ETHER, SharedDevnet
from tests.support.facilitator_double import (
    Endless,
    HangUp,
    Held,
    Reply,
    as_json,
    facilitator_double,
    redirect,
    refusal,
    rubbish,
)
from tests.support.paying import payment_headers
from tests.support.server import SIZE, Server, a_server
from xbyte_live.devnet.chain import Devnet
from xbyte_live.money import Price

an_exact_server = partial(a_server, schemes="exact")
PRICE = Price(1_000_000)
AMOUNT = PRICE.amount_for(SIZE)
FUNDS = 50_000_000


class Wire(httpx.AsyncBaseTransport):
    """What lies under the SDK's client: remembers the payments it sends.

    Without ``v2`` it hides the version 2 header, so that the client pays by the version 1 body.
    """

    def __init__(self, *, v2: bool = True) -> None:
        self.payments: list[dict[str, str]] = []
        self._v2 = v2
        self._inner = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        for name in ("PAYMENT-SIGNATURE", "X-PAYMENT"):
            if name in request.headers:
                self.payments.append({name: request.headers[name]})
        response = await self._inner.handle_async_request(request)
        if not self._v2:
            response.headers.pop("PAYMENT-REQUIRED", None)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


def official_client(
    payer: LocalAccount, inner: httpx.AsyncBaseTransport | None = None
) -> httpx.AsyncClient:
    """The SDK's httpx client with its default spend controls."""
    client = x402Client()
    register_exact_evm_client(client, payer)
    return httpx.AsyncClient(transport=x402AsyncTransport(client, inner), timeout=60)


def key_of(account: LocalAccount) -> str:
    return "0x" + bytes(account.key).hex()


async def offer_of(http: httpx.AsyncClient, url: str) -> dict[str, object]:
    answer = await http.get(url)
    assert answer.status_code == 402
    document = json.loads(base64.b64decode(answer.headers["PAYMENT-REQUIRED"]))
    return dict(document["accepts"][0])


@pytest.fixture
def gas(devnet: SharedDevnet) -> str:
    return key_of(devnet.new_account(wei=10 * ETHER))


@pytest.fixture
def payee(devnet: SharedDevnet) -> str:
    return devnet.new_account().address


async def test_the_official_client_pays_exactly_the_price(
    tmp_path: Path, devnet: SharedDevnet, gas: str, payee: str
) -> None:
    payer = devnet.new_account(usdc=FUNDS)
    async with an_exact_server(tmp_path, devnet.rpc_url, payee, gas) as server:
        url = f"{server.url}/objects/bytes"
        async with httpx.AsyncClient() as http:
            asked = await http.get(url)
            assert asked.status_code == 402
            assert asked.headers["cache-control"] == "no-store"
            offer = decode_payment_required_header(asked.headers["PAYMENT-REQUIRED"])
            assert [a.amount for a in offer.accepts] == [str(AMOUNT)]
            assert int(asked.headers["content-length"]) < 2000
        wire = Wire()
        async with official_client(payer, wire) as http:
            paid = await http.get(url)
        assert paid.status_code == 200
        assert paid.headers["etag"] == f'"{hashlib.sha256(paid.content).hexdigest()}"'
        receipt = decode_payment_response_header(paid.headers["PAYMENT-RESPONSE"])
        assert receipt.success
        assert receipt.transaction.startswith("0x")
        assert devnet.usdc_balance(payee) == AMOUNT
        assert devnet.usdc_balance(payer.address) == FUNDS - AMOUNT
        async with httpx.AsyncClient() as http:  # the same payment again, and for something else
            [header] = wire.payments
            again = await http.get(url, headers=header)
            assert (again.status_code, again.content) == (200, paid.content)
            other = await http.get(url, headers=header | {"Range": "bytes=0-99"})
            assert other.status_code == 402
        assert devnet.usdc_balance(payee) == AMOUNT


async def test_a_version_1_client_pays(
    tmp_path: Path, devnet: SharedDevnet, gas: str, payee: str
) -> None:
    payer = devnet.new_account(usdc=FUNDS)
    async with (
        an_exact_server(tmp_path, devnet.rpc_url, payee, gas) as server,
        official_client(payer, Wire(v2=False)) as http,
    ):
        paid = await http.get(f"{server.url}/objects/bytes", headers={"Range": "bytes=10-1033"})
        assert paid.status_code == 206
        assert len(paid.content) == 1024
        assert decode_payment_response_header(paid.headers["X-PAYMENT-RESPONSE"]).success
    assert devnet.usdc_balance(payee) == PRICE.amount_for(1024)


async def test_a_remote_facilitator_settles(
    tmp_path: Path, devnet: SharedDevnet, facilitator_url: str, payee: str
) -> None:
    payer = devnet.new_account(usdc=FUNDS)
    settings = {"facilitators": f"http://127.0.0.1:9,{facilitator_url}"}
    async with (
        an_exact_server(tmp_path, devnet.rpc_url, payee, "", **settings) as server,
        official_client(payer) as http,
    ):
        assert (await http.get(f"{server.url}/objects/bytes")).status_code == 200
        assert (await http.get(f"{server.url}/readyz")).status_code == 200
    assert devnet.usdc_balance(payee) == AMOUNT


async def test_an_empty_wallet_gets_a_402_that_says_so(
    tmp_path: Path, devnet: SharedDevnet, gas: str, payee: str
) -> None:
    async with (
        an_exact_server(tmp_path, devnet.rpc_url, payee, gas) as server,
        official_client(devnet.new_account()) as http,
    ):
        answer = await http.get(f"{server.url}/objects/bytes")
    assert answer.status_code == 402
    offer = decode_payment_required_header(answer.headers["PAYMENT-REQUIRED"])
    assert offer.error == "invalid_exact_evm_insufficient_balance"
    assert devnet.usdc_balance(payee) == 0


async def test_a_cut_connection_costs_nothing_more(
    tmp_path: Path, devnet: SharedDevnet, gas: str, payee: str
) -> None:
    payer = devnet.new_account(usdc=FUNDS)
    async with (
        an_exact_server(tmp_path, devnet.rpc_url, payee, gas) as server,
        httpx.AsyncClient(timeout=60) as http,
    ):
        url = f"{server.url}/objects/bytes"
        headers = payment_headers(payer, await offer_of(http, url))
        async with http.stream("GET", url, headers=headers) as cut:
            assert cut.status_code == 200
            await anext(cut.aiter_raw(1000))
        whole = await http.get(url, headers=headers)
        assert (whole.status_code, len(whole.content)) == (200, SIZE)
    assert devnet.usdc_balance(payee) == AMOUNT


async def test_200_requests_at_once_with_one_payment_are_one_transfer(
    tmp_path: Path, devnet: SharedDevnet, gas: str, payee: str
) -> None:
    payer = devnet.new_account(usdc=FUNDS)
    limits = httpx.Limits(max_connections=200)
    async with (
        an_exact_server(tmp_path, devnet.rpc_url, payee, gas) as server,
        httpx.AsyncClient(timeout=60, limits=limits) as http,
    ):
        url = f"{server.url}/objects/bytes"
        headers = payment_headers(payer, await offer_of(http, url))
        answers = await asyncio.gather(*(http.get(url, headers=headers) for _ in range(200)))
        assert {a.status_code for a in answers} == {200}
        assert len({a.content for a in answers}) == 1
    assert devnet.usdc_balance(payee) == AMOUNT


async def test_a_price_change_between_quote_and_payment(
    tmp_path: Path, devnet: SharedDevnet, gas: str, payee: str
) -> None:
    payer = devnet.new_account(usdc=FUNDS)
    async with (
        an_exact_server(tmp_path, devnet.rpc_url, payee, gas, quote_ttl="3600") as server,
        httpx.AsyncClient(timeout=60) as http,
    ):
        url = f"{server.url}/objects/bytes"
        quoted = await offer_of(http, url)
        await run_cli(server, "price", "bytes", "2")
        await until_offered(http, url, Price(2_000_000).amount_for(SIZE))
        paid = await http.get(url, headers=payment_headers(payer, quoted))
        assert paid.status_code == 200
        assert devnet.usdc_balance(payee) == AMOUNT


async def test_killed_between_charge_and_delivery(tmp_path: Path) -> None:
    """`settle_first`: the transfer is sent, the server dies, the chain goes on, nobody loses."""
    async with Devnet(tmp_path / "chain") as net:
        payer, payee, gas = await accounts(net)
        async with (
            an_exact_server(
                tmp_path, net.rpc_url, payee, gas, settle_wait="2", facilitator_timeout="2"
            ) as server,
            httpx.AsyncClient(timeout=60) as http,
        ):
            url = f"{server.url}/objects/bytes"
            headers = payment_headers(payer, await offer_of(http, url))
            await net.chain.set_automine(False)
            asked = asyncio.create_task(http.get(url, headers=headers))
            await in_mempool(net, 1)
            await server.kill()
            with pytest.raises(httpx.TransportError):
                await asked
            await net.chain.mine()
            await net.chain.set_automine(True)
            assert await net.chain.usdc_balance(payee) == AMOUNT
            await server.start()
            paid = await presented_until_known(http, url, headers)
            assert (paid.status_code, len(paid.content)) == (200, SIZE)
        assert await net.chain.usdc_balance(payee) == AMOUNT
        assert await net.chain.usdc_balance(payer.address) == FUNDS - AMOUNT


async def test_killed_with_a_queue_of_delivered_bytes(tmp_path: Path) -> None:
    """`optimistic`: what was handed over before the kill is settled after it, once."""
    async with Devnet(tmp_path / "chain") as net:
        payer, payee, gas = await accounts(net)
        settings = {
            "exact_policy": "optimistic",
            "exposure_cap": "5",
            "new_payer_cap": "5",
            "settle_wait": "2",
            "facilitator_timeout": "2",
        }
        async with (
            an_exact_server(tmp_path, net.rpc_url, payee, gas, **settings) as server,
            httpx.AsyncClient(timeout=60) as http,
        ):
            url = f"{server.url}/objects/bytes"
            await net.chain.set_automine(False)
            for start in range(0, 8000, 1000):
                part = {"Range": f"bytes={start}-{start + 999}"}
                answer = await http.get(url, headers=part)
                offer = json.loads(base64.b64decode(answer.headers["PAYMENT-REQUIRED"]))
                paying = payment_headers(payer, offer["accepts"][0])
                assert (await http.get(url, headers=part | paying)).status_code == 206
            await in_mempool(net, 1)
            await server.kill()
            await net.chain.mine()
            await net.chain.set_automine(True)
            await server.start()
            await until_paid(net, payee, 8 * PRICE.amount_for(1000))
        assert await net.chain.usdc_balance(payer.address) == FUNDS - 8 * PRICE.amount_for(1000)


async def test_a_chain_that_does_not_answer_is_503_and_never_bytes(tmp_path: Path) -> None:
    async with Devnet(tmp_path / "chain") as net:
        payer, payee, gas = await accounts(net)
        async with (
            an_exact_server(
                tmp_path, net.rpc_url, payee, gas, settle_wait="2", facilitator_timeout="2"
            ) as server,
            httpx.AsyncClient(timeout=60) as http,
        ):
            url = f"{server.url}/objects/bytes"
            headers = payment_headers(payer, await offer_of(http, url))
            await net.stop()
            answer = await http.get(url, headers=headers)
            assert answer.status_code == 503
            assert len(answer.content) < 1000
            assert (await http.get(f"{server.url}/readyz")).status_code == 503
            assert (await http.get(f"{server.url}/objects/bytes/pricing.json")).status_code == 200


async def test_a_facilitator_that_fails_in_every_way_never_opens_anything(
    tmp_path: Path, devnet: SharedDevnet, payee: str
) -> None:
    payer = devnet.new_account(usdc=FUNDS)
    faults = [
        (rubbish(), 503),
        (redirect("http://127.0.0.1:9/settle"), 502),
        (HangUp(), 503),
        (HangUp(b"HTTP/1.1 200 x\r\ncontent-length: 99\r\n\r\n{"), 503),
        (Reply(500), 503),
        (Reply(429), 503),
        (Held(), 503),
        (Endless(), 503),
        (refusal("invalid_exact_evm_insufficient_balance"), 402),
        (as_json({"success": "yes", "transaction": "0x" + "1" * 64}), 503),
    ]
    async with facilitator_double() as double:
        settings = {"facilitators": double.url, "facilitator_timeout": "2", "settle_wait": "3"}
        async with (
            an_exact_server(tmp_path, devnet.rpc_url, payee, "", **settings) as server,
            httpx.AsyncClient(timeout=60) as http,
        ):
            url = f"{server.url}/objects/bytes"
            for number, (fault, status) in enumerate(faults):
                part = {"Range": f"bytes={number * 100}-{number * 100 + 99}"}
                asked = await http.get(url, headers=part)
                offer = json.loads(base64.b64decode(asked.headers["PAYMENT-REQUIRED"]))
                paying = payment_headers(payer, offer["accepts"][0])
                double.next("settle", fault)
                answer = await http.get(url, headers=part | paying)
                assert (number, answer.status_code) == (number, status)
                assert "retry-after" in answer.headers or status != 503
                assert "PAYMENT-RESPONSE" not in answer.headers
                if status != 402:
                    assert "PAYMENT-REQUIRED" not in answer.headers  # never asked to sign again
                assert answer.headers["content-type"].startswith("application/json")
                if isinstance(fault, Held):
                    fault.release.set()
            assert devnet.usdc_balance(payee) == 0


async def accounts(net: Devnet) -> tuple[LocalAccount, str, str]:
    """A funded payer, an empty payee, and a gas key with coins."""
    from eth_account import Account

    payer, payee, gas = (Account.create() for _ in range(3))
    await net.chain.fund(payer.address, usdc=FUNDS)
    await net.chain.fund(gas.address, wei=10 * ETHER)
    return payer, payee.address, key_of(gas)


async def in_mempool(net: Devnet, count: int) -> None:
    """Return once so many transactions wait to be mined."""
    async with asyncio.timeout(30):
        while int((await net.chain.rpc("txpool_status"))["pending"], 16) < count:
            await asyncio.sleep(0.02)  # the node announces nothing


async def presented_until_known(
    http: httpx.AsyncClient, url: str, headers: dict[str, str]
) -> httpx.Response:
    """Present one payment as a payer does: again, the same one, while the answer is 503."""
    async with asyncio.timeout(60):
        while (answer := await http.get(url, headers=headers)).status_code == 503:
            await asyncio.sleep(int(answer.headers["Retry-After"]))
    return answer


async def until_paid(net: Devnet, payee: str, amount: int) -> None:
    """Return once the payee holds exactly that much."""
    async with asyncio.timeout(90):
        while await net.chain.usdc_balance(payee) < amount:
            await asyncio.sleep(0.2)  # the chain announces nothing
    assert await net.chain.usdc_balance(payee) == amount


async def until_offered(http: httpx.AsyncClient, url: str, amount: int) -> None:
    """Return once the server asks for that amount."""
    async with asyncio.timeout(20):
        while (await offer_of(http, url))["amount"] != str(amount):
            await asyncio.sleep(0.05)  # another process changed it


async def run_cli(server: Server, *args: str) -> str:
    """Run `xbyte-live` beside the server; its output, after it ended well."""
    import sys

    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "xbyte_live",
        *args,
        env=server.environment,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


async def test_a_request_whose_headers_never_end_is_cut_off(
    tmp_path: Path, devnet: SharedDevnet, gas: str, payee: str
) -> None:
    async with an_exact_server(tmp_path, devnet.rpc_url, payee, gas) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n")
        sent = 0
        with pytest.raises(ConnectionError):
            while sent < 50_000_000:
                writer.write(b"X-Long: " + b"a" * 8000 + b"\r\n")
                await writer.drain()
                sent += 8010
        assert sent < 20_000_000  # what the sockets hold, not what the server keeps
        writer.transport.abort()
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"{server.url}/healthz")).status_code == 200
