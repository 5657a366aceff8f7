"""Signed ``exact`` payments as x402 clients send them, and a gate over real parts to take them."""

import base64
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount

from tests.fakes import USDC, FakeChain, FakeFacilitator
from xbyte_live.errors import PaymentRefused
from xbyte_live.money import Price
from xbyte_live.payments.exact import Exact, ExactPolicy
from xbyte_live.payments.gate import Gate, Sale
from xbyte_live.payments.ledger.charge import Exposure
from xbyte_live.payments.ledger.charges import ChargeLedger
from xbyte_live.payments.settlement.transfers import Transfers
from xbyte_live.payments.x402.requirements import SCHEME_EXACT, PaymentMethod
from xbyte_live.pricing.quotes import Quote
from xbyte_live.storage.db.engine import Database

PAYEE = "0x00000000000000000000000000000000000000Aa"
TYPES = {
    "TransferWithAuthorization": [
        {"name": "from", "type": "address"},
        {"name": "to", "type": "address"},
        {"name": "value", "type": "uint256"},
        {"name": "validAfter", "type": "uint256"},
        {"name": "validBefore", "type": "uint256"},
        {"name": "nonce", "type": "bytes32"},
    ]
}


def a_sale(resource: str = "/hls/plasma/source/0.ts", *, price: int = 1000, **changes: Any) -> Sale:
    """One MB at ``price`` millionths of a dollar."""
    sale = Sale(
        resource=resource,
        url=f"http://test{resource}",
        slug="plasma",
        size=2**20,
        quotes=(Quote(2**20, Price(price), PAYEE),),
        description="a segment",
        mime_type="video/mp2t",
    )
    return replace(sale, **changes)


def sign(
    account: LocalAccount,
    requirements: dict[str, Any],
    *,
    nonce: str | None = None,
    valid_for: float = 300,
    now: float | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """An ``exact`` payload for requirements in v2 or v1 form; ``changes`` alter the message."""
    amount = requirements.get("amount") or requirements["maxAmountRequired"]
    message = {
        "from": account.address,
        "to": requirements["payTo"],
        "value": int(amount),
        "validAfter": 0,
        "validBefore": int((time.time() if now is None else now) + valid_for),
        "nonce": nonce or "0x" + os.urandom(32).hex(),
    } | changes
    domain = {
        "name": USDC.name,
        "version": USDC.version,
        "chainId": USDC.chain_id,
        "verifyingContract": USDC.address,
    }
    signed = account.sign_typed_data(domain, TYPES, message)
    shown = {k: str(v) if isinstance(v, int) else v for k, v in message.items()}
    return {"authorization": shown, "signature": "0x" + signed.signature.hex().removeprefix("0x")}


def offered(gate: Gate, sale: Sale, version: int = 2) -> dict[str, Any]:
    """The first requirements of the 402 a sale is asked for with."""
    challenge = gate.challenge(sale, PaymentRefused("payment_required"))
    if version == 1:
        return dict(json.loads(challenge.body)["accepts"][0])
    return dict(json.loads(base64.b64decode(challenge.headers["PAYMENT-REQUIRED"]))["accepts"][0])


def v2_document(account: LocalAccount, requirements: dict[str, Any], **how: Any) -> dict[str, Any]:
    """A v2 payment for these requirements."""
    payload = sign(account, requirements, **how)
    return {"x402Version": 2, "accepted": requirements, "payload": payload}


def v1_document(account: LocalAccount, requirements: dict[str, Any], **how: Any) -> dict[str, Any]:
    """A v1 payment for these requirements."""
    return {
        "x402Version": 1,
        "scheme": requirements["scheme"],
        "network": requirements["network"],
        "payload": sign(account, requirements, **how),
    }


def payment_headers(
    account: LocalAccount, requirements: dict[str, Any], **how: Any
) -> dict[str, str]:
    """The request header of a v2 payment for these requirements."""
    return v2_header(v2_document(account, requirements, **how))


def v2_header(document: dict[str, Any]) -> dict[str, str]:
    """A v2 payment document as its request header."""
    return {"PAYMENT-SIGNATURE": _encoded(document)}


def v1_headers(account: LocalAccount, requirements: dict[str, Any], **how: Any) -> dict[str, str]:
    """The request header of a v1 payment for these requirements."""
    return {"X-PAYMENT": _encoded(v1_document(account, requirements, **how))}


def _encoded(document: dict[str, Any]) -> str:
    return base64.b64encode(json.dumps(document).encode()).decode()


@dataclass(slots=True)
class PaymentParts:
    """A gate on a real ledger, with a chain and a facilitator the test holds in hand."""

    gate: Gate
    ledger: ChargeLedger
    settlement: Transfers
    facilitator: FakeFacilitator
    chain: FakeChain
    time: "Clock"

    def pay(self, account: LocalAccount, sale: Sale, **how: Any) -> dict[str, str]:
        """Headers of a fresh v2 payment for a sale."""
        return payment_headers(account, offered(self.gate, sale), now=self.time(), **how)


class Clock:
    """A wall clock the test moves."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def a_till(
    url: str,
    *,
    exposure: Exposure | None = None,
    chain: FakeChain | None = None,
    settle_wait: float = 5.0,
    queue: int = 1000,
    at: float | None = None,
) -> AsyncIterator[PaymentParts]:
    """Open a till on a database; opening it again with the same ``chain`` is a restart."""
    clock = Clock(time.time() if at is None else at)
    chain = chain or FakeChain()
    chain.now = clock.now
    database = Database(url)
    await database.start()
    ledger = ChargeLedger(database, clock=clock)
    facilitator = FakeFacilitator(chain)
    settlement = Transfers(
        ledger, facilitator, {USDC.network: chain}, lease=60, parallel=16, queue=queue, clock=clock
    )
    methods = (PaymentMethod(SCHEME_EXACT, USDC, "base-sepolia"),)
    policy = ExactPolicy(exposure, retry_window=120, payment_timeout=300, settle_wait=settle_wait)
    exact = Exact(ledger, settlement, facilitator, methods, policy, clock=clock)
    gate = Gate(
        ledger,
        (exact,),
        payment_timeout=300,
        max_payment_header=16384,
        secret=await ledger.secret("receipts"),
    )
    try:
        yield PaymentParts(gate, ledger, settlement, facilitator, chain, clock)
    finally:
        facilitator.gate.set()
        await settlement.drain()
        await database.stop()


def a_payer() -> LocalAccount:
    """A fresh account."""
    return Account.create()
