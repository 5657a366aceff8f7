"""Pure: what is sold in one request, and how a 402 asks for it (x402 v2 5.1, v1 in the body)."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xbyte_live.money import Asset
from xbyte_live.pricing import Quote

SCHEME_EXACT = "exact"
PAYMENT_REQUIRED = "PAYMENT-REQUIRED"


@dataclass(frozen=True, slots=True)
class Sale:
    """One delivery that is for sale: these bytes of this resource, at any of these quotes.

    ``resource`` names the bytes for good (path, and range if any); ``quotes`` has the one in
    force first and the older ones that still hold behind it; ``settle_first`` forbids
    delivering before the money has moved, whatever the policy; ``retry_only`` takes nothing but
    payments that were charged for it before.
    """

    resource: str
    url: str
    slug: str
    size: int
    quotes: tuple[Quote, ...]
    description: str
    mime_type: str
    rewatch_free: bool = False
    settle_first: bool = False
    retry_only: bool = False


@dataclass(frozen=True, slots=True)
class PaymentMethod:
    """One way to pay: a scheme with an asset; ``v1_network`` is the legacy name, if it has one."""

    scheme: str
    asset: Asset
    v1_network: str | None = None


@dataclass(frozen=True, slots=True)
class Challenge:
    """A 402: headers for v2 payers and a JSON body for v1 payers."""

    headers: dict[str, str]
    body: bytes


def resource_info(sale: Sale) -> dict[str, str]:
    """What is sold, in the wire form of x402 v2 (5.1.1)."""
    return {"url": sale.url, "description": sale.description, "mimeType": sale.mime_type}


def requirements_v2(method: PaymentMethod, quote: Quote, timeout: int) -> dict[str, Any]:
    """Payment requirements in their v2 wire form (x402 v2 5.1.2); ``timeout`` in seconds."""
    return {
        "scheme": method.scheme,
        "network": method.asset.network,
        "asset": method.asset.address,
        "amount": str(quote.price.amount_for(quote.size)),
        "payTo": quote.pay_to,
        "maxTimeoutSeconds": timeout,
        "extra": {"name": method.asset.name, "version": method.asset.version},
    }


def terms(methods: Sequence[PaymentMethod], quote: Quote, *, timeout: int) -> list[dict[str, Any]]:
    """The v2 requirements of every method without their amounts, to be published once."""
    shared = [requirements_v2(method, quote, timeout) for method in methods]
    return [{k: v for k, v in entry.items() if k != "amount"} for entry in shared]


def requirements_v1(
    method: PaymentMethod, quote: Quote, timeout: int, sale: Sale
) -> dict[str, Any]:
    """Payment requirements in their v1 wire form; the method must have a v1 network name."""
    return {
        "scheme": method.scheme,
        "network": method.v1_network,
        "maxAmountRequired": str(quote.price.amount_for(quote.size)),
        "resource": sale.url,
        "description": sale.description,
        "mimeType": sale.mime_type,
        "payTo": quote.pay_to,
        "maxTimeoutSeconds": timeout,
        "asset": method.asset.address,
        "extra": {"name": method.asset.name, "version": method.asset.version},
    }


def challenge(
    sale: Sale, methods: Sequence[PaymentMethod], *, timeout: int, error: str
) -> Challenge:
    """The 402 for a sale at the quote in force, saying why with an x402 error code."""
    quote = sale.quotes[0]
    v2 = {
        "x402Version": 2,
        "error": error,
        "resource": resource_info(sale),
        "accepts": [requirements_v2(method, quote, timeout) for method in methods],
    }
    v1 = {
        "x402Version": 1,
        "error": error,
        "accepts": [
            requirements_v1(method, quote, timeout, sale)
            for method in methods
            if method.v1_network and method.scheme == SCHEME_EXACT
        ],
    }
    return Challenge(
        {PAYMENT_REQUIRED: base64.b64encode(_compact(v2)).decode("ascii")}, _compact(v1)
    )


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
