"""A payment scheme is one object: one of our own is sold through the real gate and the site."""

import base64
import json
from typing import Any

import pytest

from tests.fakes import USDC
from tests.support.web import PAYEE, Site, a_title, segment_bytes
from xbyte_live.config import Settings
from xbyte_live.errors import PaymentRefused
from xbyte_live.payments.gate import Gate
from xbyte_live.payments.ledger.charges import ChargeLedger
from xbyte_live.payments.x402.headers import Payment
from xbyte_live.payments.x402.requirements import PaymentMethod, Sale, requirements_v2
from xbyte_live.payments.x402.schemes import Charged, Scheme
from xbyte_live.pricing.quotes import Quote
from xbyte_live.storage.db.engine import Database

URL = "/hls/plasma/source/2.ts"
AMOUNT = 3815  # ceil(4000 × 1,000,000 / 2**20)


class Tokens:
    """``tokens``: a payer has so many units with us, and names itself."""

    name = "tokens"

    def __init__(self, *methods: PaymentMethod, **units: int) -> None:
        self.methods = methods
        self.units = units
        self.sold: dict[tuple[str, str], Charged] = {}

    def offer(
        self,
        method: PaymentMethod,
        quote: Quote,
        deposit: int,
        refusal: PaymentRefused | None = None,
    ) -> dict[str, Any]:
        offer = requirements_v2(method, quote, 60)
        if refusal is not None and refusal.code == "tokens_short":
            offer["extra"]["shop"] = "https://tokens.example"
        return offer

    async def refund(self, payment: Payment, sale: Sale) -> Charged | None:
        if not payment.payload.get("back"):
            return None
        payer = payment.payload["payer"]
        rest, self.units[payer] = self.units[payer], 0
        return Charged(f"t{payer}", payer, 0, moved=rest, answer={"back": str(rest)})

    async def charge(self, payment: Payment, sale: Sale) -> Charged:
        payer, quote = payment.payload["payer"], sale.quotes[0]
        if payment.accepted != self.offer(self.methods[0], quote, sale.deposit):
            raise PaymentRefused("invalid_payment_requirements")
        if before := self.sold.get((payer, sale.resource)):
            return before
        amount = quote.price.amount_for(quote.size)
        if self.units[payer] < amount:
            raise PaymentRefused("tokens_short")
        self.units[payer] -= amount
        charged = Charged(f"t{payer}", payer, amount, extra={"left": self.units[payer]})
        return self.sold.setdefault((payer, sale.resource), charged)


def a_site(*schemes: Scheme, **title: Any) -> Site:
    ledger = ChargeLedger(Database("sqlite:///unopened.db"))
    gate = Gate(
        ledger, schemes, payment_timeout=60, max_payment_header=16384, secret=b"receipts" * 4
    )
    site = Site(settings=Settings(pay_to=PAYEE), gate=gate)
    site.add_title(a_title(**title))
    return site


def a_scheme(**units: int) -> Tokens:
    return Tokens(PaymentMethod("tokens", USDC), **units)


def decoded(header: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(base64.b64decode(header))
    return document


def paying(offer: dict[str, Any], **payload: Any) -> dict[str, str]:
    document = {"x402Version": 2, "accepted": offer, "payload": payload}
    return {"PAYMENT-SIGNATURE": base64.b64encode(json.dumps(document).encode()).decode()}


async def test_a_scheme_of_our_own_is_offered_and_sells_a_segment_once() -> None:
    tokens = a_scheme(ann=5000)
    async with a_site(tokens).client() as client:
        asked = await client.get(URL)
        assert asked.status_code == 402
        assert asked.json()["accepts"] == [], "it has no form in version 1"
        (offer,) = decoded(asked.headers["payment-required"])["accepts"]
        assert (offer["scheme"], offer["amount"]) == ("tokens", str(AMOUNT))
        for _ in range(2):  # the second time is a retry
            paid = await client.get(URL, headers=paying(offer, payer="ann"))
            assert (paid.status_code, paid.content) == (200, segment_bytes(2))
            shown = decoded(paid.headers["payment-response"])
            assert shown["payer"] == "ann"
            assert shown["extra"] == {"left": 5000 - AMOUNT}
    assert tokens.units == {"ann": 5000 - AMOUNT}


async def test_it_is_published_with_the_prices() -> None:
    async with a_site(a_scheme()).client() as client:
        pricing = (await client.get("/hls/plasma/pricing.json")).json()
    assert [entry["scheme"] for entry in pricing["accepts"]] == ["tokens"]


async def test_its_refusal_says_in_its_own_offer_what_the_payer_can_mend() -> None:
    async with a_site(a_scheme(ann=1)).client() as client:
        (offer,) = decoded((await client.get(URL)).headers["payment-required"])["accepts"]
        answer = await client.get(URL, headers=paying(offer, payer="ann"))
    assert answer.status_code == 402
    asked = decoded(answer.headers["payment-required"])
    assert asked["error"] == "tokens_short"
    assert asked["accepts"][0]["extra"]["shop"] == "https://tokens.example"


async def test_its_refund_answers_in_place_of_bytes() -> None:
    tokens = a_scheme(ann=5000)
    async with a_site(tokens).client() as client:
        (offer,) = decoded((await client.get(URL)).headers["payment-required"])["accepts"]
        answer = await client.get(URL, headers=paying(offer, payer="ann", back=True))
    assert answer.json() == {"back": "5000"}
    assert decoded(answer.headers["payment-response"])["amount"] == "5000"
    assert tokens.units == {"ann": 0}


async def test_its_receipt_opens_the_same_bytes_again_and_no_others() -> None:
    tokens = a_scheme(ann=5000)
    async with a_site(tokens, rewatch="free").client() as client:
        (offer,) = decoded((await client.get(URL)).headers["payment-required"])["accepts"]
        paid = await client.get(URL, headers=paying(offer, payer="ann"))
        shown = decoded(paid.headers["payment-response"])
        receipt = {"XBYTE-RECEIPT": shown["extensions"]["xbyte-receipt"]["receipt"]}
        assert (await client.get(URL, headers=receipt)).content == segment_bytes(2)
        other = await client.get("/hls/plasma/source/1.ts", headers=receipt)
    assert other.status_code == 402
    assert tokens.units == {"ann": 5000 - AMOUNT}


@pytest.mark.parametrize("scheme", ["exact", "batch-settlement", "upto"])
async def test_a_scheme_that_is_not_there_is_refused(scheme: str) -> None:
    async with a_site(a_scheme(ann=5000)).client() as client:
        (offer,) = decoded((await client.get(URL)).headers["payment-required"])["accepts"]
        answer = await client.get(URL, headers=paying(offer | {"scheme": scheme}, payer="ann"))
    assert answer.status_code == 402
    assert decoded(answer.headers["payment-required"])["error"] == "unsupported_scheme"


async def test_one_that_is_not_offered_is_refused_like_one_that_is_not_there() -> None:
    with_no_method, offered = Tokens(ann=5000), a_scheme()
    offered.name = "other"  # type: ignore[misc]
    offered.methods = (PaymentMethod("other", USDC),)
    async with a_site(offered, with_no_method).client() as client:
        (offer,) = decoded((await client.get(URL)).headers["payment-required"])["accepts"]
        assert offer["scheme"] == "other"
        answer = await client.get(URL, headers=paying(offer | {"scheme": "tokens"}, payer="ann"))
    assert decoded(answer.headers["payment-required"])["error"] == "unsupported_scheme"
    assert with_no_method.units == {"ann": 5000}
