"""A third payment scheme, written here, is bought through the payer beside the other two.

``prepaid``: an account has money at the server, and each purchase is a numbered order, signed.
"""

import base64
import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

from tests.support.paid_site import ASSET, KEY, NETWORK, PAYEE, encoded
from xbyte_live.client import Budget, Payer, PayingTransport
from xbyte_live.client.http.purchase import Patience
from xbyte_live.client.http.transport import PAYMENT, QUOTED
from xbyte_live.client.payer.payer import SCHEMES
from xbyte_live.client.payer.signing import (
    PAYMENT_HEADERS,
    Exchange,
    IssuedPayment,
    Wallet,
    payment_header,
)
from xbyte_live.client.payer.terms import Offers, Quoted, Requirement, read_requirement
from xbyte_live.errors import BudgetExceeded, PaymentRefused, TermsRefused
from xbyte_live.money import Asset

ACCOUNT = Account.from_key(KEY)
PRICE = 700
DOMAIN = {"name": "Prepaid", "version": "1", "chainId": 84532}
ORDER = {
    "Order": [
        {"name": "number", "type": "uint256"},
        {"name": "amount", "type": "uint256"},
        {"name": "resource", "type": "string"},
    ]
}


class Prepaid:
    """The scheme: what an account has left is learned from the answers."""

    name = "prepaid"

    def __init__(self, wallet: Wallet) -> None:
        self.left: int | None = None
        self._wallet = wallet
        self._number = 0

    def read(
        self,
        terms: Offers,
        document: dict[str, Any],
        assets: Iterable[Asset],
        amount: int | None = None,
    ) -> Requirement:
        return read_requirement(terms, document, assets, amount)

    def cost(self, requirement: Requirement, quoted: Quoted, now: float) -> int:
        if self.left is not None and self.left < requirement.amount:
            raise TermsRefused("the account is used up")
        return requirement.amount

    def sign(
        self,
        requirement: Requirement,
        quoted: Quoted,
        *,
        resource: str,
        now: float,
        terms: Offers | None = None,
    ) -> IssuedPayment:
        self._number += 1
        account = self._wallet.account
        order = {"number": self._number, "amount": requirement.amount, "resource": resource}
        signed = account.sign_typed_data(DOMAIN, ORDER, order)
        payload = order | {"signature": "0x" + bytes(signed.signature).hex()}
        return IssuedPayment(
            resource=resource,
            item=quoted.item,
            header=PAYMENT_HEADERS[2],
            value=payment_header(requirement, payload, terms),
            amount=requirement.amount,
            network=requirement.network,
            asset=requirement.asset.address,
            pay_to=requirement.pay_to,
            payer=account.address,
            identity=f"prepaid:{self._number}",
            signed_at=now,
            valid_before=int(now) + requirement.timeout,
            at_stake=requirement.amount,
        )

    def exchange(self, turns: object) -> Exchange:
        return PrepaidExchange(self)


class PrepaidExchange(Exchange):
    def __init__(self, scheme: Prepaid) -> None:
        self._scheme = scheme

    async def answered(
        self, payment: IssuedPayment, headers: Mapping[str, str], *, turned_down: bool
    ) -> None:
        receipt = json.loads(base64.b64decode(headers["PAYMENT-RESPONSE"]))
        self._scheme.left = int(receipt["extra"]["left"])

    def refusal(self, payment: IssuedPayment, code: str) -> PaymentRefused:
        return PaymentRefused(code, f"the order {payment.identity} was refused ({code})")


class Counter(ThreadingHTTPServer):
    """Sells bytes to accounts with money on them; ``lose`` so many answers after the charge."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), PaymentParts)
        self.accounts = {ACCOUNT.address: 2 * PRICE}
        self.orders: dict[int, str] = {}  # number: resource
        self.schemes = ["exact", "prepaid"]
        self.lose = 0
        self.seen: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class PaymentParts(BaseHTTPRequestHandler):
    server: Counter

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        header = self.headers.get("payment-signature")
        if header is None:
            self._asks("payment_required")
            return
        document = json.loads(base64.b64decode(header))
        self.server.seen.append(document["accepted"]["scheme"])
        if document["accepted"]["scheme"] != "prepaid":
            self._asks("unsupported_scheme")
            return
        payload = document["payload"]
        order = {name: payload[name] for name in ("number", "amount", "resource")}
        typed = encode_typed_data(DOMAIN, ORDER, order)
        account = Account.recover_message(typed, signature=payload["signature"])
        resource = f"{self.server.url}{self.path}"
        left = self.server.accounts.get(account, 0)
        if payload["resource"] != resource or payload["amount"] != PRICE:
            self._asks("invalid_order")
            return
        if self.server.orders.get(payload["number"]) != resource:
            if payload["number"] in self.server.orders or left < PRICE:
                self._asks("account_used_up")
                return
            self.server.orders[payload["number"]] = resource
            self.server.accounts[account] = left = left - PRICE
        if self.server.lose:
            self.server.lose -= 1
            self.close_connection = True
            return
        receipt = {"success": True, "transaction": "", "extra": {"left": str(left)}}
        self.send_response(200)
        self.send_header("PAYMENT-RESPONSE", encoded(receipt))
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"bytes")

    def _asks(self, error: str) -> None:
        accepts = [
            {
                "scheme": scheme,
                "network": NETWORK,
                "asset": ASSET,
                "amount": str(PRICE),
                "payTo": PAYEE,
                "maxTimeoutSeconds": 60,
            }
            for scheme in self.server.schemes
        ]
        terms = {"x402Version": 2, "error": error, "accepts": accepts}
        self.send_response(402)
        self.send_header("PAYMENT-REQUIRED", encoded(terms))
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def counter() -> Iterator[Counter]:
    with Counter() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def a_client(payer: Payer) -> httpx2.AsyncClient:
    patience = Patience(tries=3, first_wait=0.01)
    return httpx2.AsyncClient(transport=PayingTransport(payer, patience=patience))


async def test_a_third_scheme_is_one_class_and_one_place_in_a_list(counter: Counter) -> None:
    payer = Payer(ACCOUNT, Budget(10_000), schemes=(Prepaid, *SCHEMES))
    async with a_client(payer) as client:
        first = await client.get(f"{counter.url}/a")
        assert first.content == b"bytes"
        paid = first.extensions[PAYMENT]
        assert (paid.scheme, paid.amount) == ("prepaid", PRICE)
        quoted = Quoted(f"{counter.url}/b", amount=PRICE)
        payer.learn(quoted.item, Offers(2, (_offer(),)))
        counter.lose = 1  # and one that is paid ahead, whose answer is lost once
        second = await client.get(f"{counter.url}/b", extensions={QUOTED: quoted})
        assert second.content == b"bytes"
    assert counter.seen == ["prepaid"] * 3
    assert len(counter.orders) == 2
    assert counter.accounts[ACCOUNT.address] == 0
    assert payer.budget.signed == 2 * PRICE


async def test_its_refusals_and_what_it_learned_are_its_own(counter: Counter) -> None:
    counter.schemes = ["prepaid"]
    payer = Payer(ACCOUNT, Budget(10_000), schemes=(Prepaid,))
    async with a_client(payer) as client:
        await client.get(f"{counter.url}/a")
        await client.get(f"{counter.url}/b")
        with pytest.raises(TermsRefused, match="used up"):
            await client.get(f"{counter.url}/c")
    other = Payer(ACCOUNT, Budget(10_000), schemes=(Prepaid,))  # knows nothing yet
    async with a_client(other) as client:
        with pytest.raises(PaymentRefused, match="the order prepaid:1 was refused") as refused:
            await client.get(f"{counter.url}/c")
    assert refused.value.code == "account_used_up"
    assert counter.seen == ["prepaid"] * 3


async def test_the_limits_hold_for_it_and_the_next_scheme_is_taken_after_it(
    counter: Counter,
) -> None:
    payer = Payer(ACCOUNT, Budget(PRICE), schemes=(Prepaid,))
    async with a_client(payer) as client:
        await client.get(f"{counter.url}/a")
        with pytest.raises(BudgetExceeded):
            await client.get(f"{counter.url}/b")
    counter.accounts[ACCOUNT.address] = PRICE
    both = Payer(ACCOUNT, Budget(10_000), schemes=(Prepaid, *SCHEMES))
    async with a_client(both) as client:
        counter.orders.clear()
        await client.get(f"{counter.url}/a")
        with pytest.raises(PaymentRefused, match="unsupported_scheme"):
            await client.get(f"{counter.url}/c")  # the account is empty, so it is paid exactly
    assert counter.seen == ["prepaid", "prepaid", "exact"]


def _offer() -> dict[str, Any]:
    return {
        "scheme": "prepaid",
        "network": NETWORK,
        "asset": ASSET,
        "payTo": PAYEE,
        "maxTimeoutSeconds": 60,
    }
