"""Pure: the sale in one request, and the 402 that asks for it (x402 v2 5.1, v1 in the body)."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from xbyte_live.money import Asset
from xbyte_live.payments.x402.order import Buyer, Order
from xbyte_live.pricing.quotes import Quote

SCHEME_EXACT = "exact"
SCHEME_CHANNELS = "batch-settlement"
PAYMENT_REQUIRED = "PAYMENT-REQUIRED"
HINTS = frozenset({"minDeposit", "channelState", "voucherState"})  # of ``extra``: no terms


@dataclass(frozen=True, slots=True)
class Sale:
    """One delivery that is for sale: these bytes of this resource, at any of these quotes.

    ``resource`` names the bytes for good (path, and range if any); ``quotes`` has the one in
    force first and the older ones that still hold behind it; ``settle_first`` forbids
    delivering before the money has moved, whatever the policy, and with it payment by channel;
    ``retry_only`` takes nothing but payments that were charged for it before. ``deposit`` is what
    a channel should be opened with, in atomic units. ``order`` is there when a session is bought:
    its money has moved, or is held on a channel, before it counts. ``buyer`` alone may pay.
    ``methods`` are the ways to pay for it where those are not the server's of today.
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
    deposit: int = 0
    order: Order | None = None
    buyer: Buyer | None = None
    methods: "tuple[PaymentMethod, ...]" = ()

    def takes(self, method: "PaymentMethod") -> bool:
        """Whether this method may pay for it."""
        if method.channel is not None and self.settle_first:
            return False
        buyer = self.buyer
        return buyer is None or (buyer.scheme, buyer.network) == (
            method.scheme,
            method.asset.network,
        )

    def is_for(self, payer: str) -> bool:
        """Whether this lower-case address may pay for it."""
        return self.buyer is None or self.buyer.payer == payer


@dataclass(frozen=True, slots=True)
class ChannelTerms:
    """The terms a channel must be opened with: authorizer of claims, withdraw delay in seconds."""

    receiver_authorizer: str
    withdraw_delay: int


@dataclass(frozen=True, slots=True)
class PaymentMethod:
    """One way to pay: a scheme with an asset; ``v1_network`` is the legacy name, if it has one.

    ``channel`` is set for ``batch-settlement`` and for it alone.
    """

    scheme: str
    asset: Asset
    v1_network: str | None = None
    channel: ChannelTerms | None = None


@dataclass(frozen=True, slots=True)
class Challenge:
    """A 402: headers for v2 payers and a JSON body for v1 payers."""

    headers: dict[str, str]
    body: bytes


def of_scheme(methods: Sequence[PaymentMethod], scheme: str) -> tuple[PaymentMethod, ...]:
    """The methods of one scheme."""
    return tuple(method for method in methods if method.scheme == scheme)


def resource_info(sale: Sale) -> dict[str, str]:
    """The resource of a sale in its wire form (x402 v2 5.1.1)."""
    return {"url": sale.url, "description": sale.description, "mimeType": sale.mime_type}


def requirements_v2(
    method: PaymentMethod, quote: Quote, timeout: int, deposit: int = 0
) -> dict[str, Any]:
    """Payment requirements in their v2 wire form (x402 v2 5.1.2); ``timeout`` in seconds."""
    asset, channel = method.asset, method.channel
    amount = quote.price.amount_for(quote.size)
    extra: dict[str, Any] = {}
    if asset.name:  # of one that is not taken any more nothing is known, which is no name
        extra |= {"name": asset.name, "version": asset.version}
    if channel is not None:
        extra["receiverAuthorizer"] = channel.receiver_authorizer
        extra["withdrawDelay"] = channel.withdraw_delay
        extra["minDeposit"] = str(max(amount, deposit))
    return {
        "scheme": method.scheme,
        "network": asset.network,
        "asset": asset.address,
        "amount": str(amount),
        "payTo": quote.pay_to,
        "maxTimeoutSeconds": timeout,
        "extra": extra,
    }


def accepts(accepted: Mapping[str, Any], offered: Mapping[str, Any]) -> bool:
    """Whether a payment's copy of the requirements is what was offered, hints aside.

    Every field must be equal; ``extra`` may hold more than was offered, as the x402 SDK allows.
    """
    if accepted == offered:
        return True
    more = accepted.get("extra")
    if not isinstance(more, dict):
        return False
    return {**accepted, "extra": None} == {**offered, "extra": None} and all(
        more.get(name) == value for name, value in offered["extra"].items() if name not in HINTS
    )


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


def offers_v1(methods: Sequence[PaymentMethod], timeout: int, sale: Sale) -> list[dict[str, Any]]:
    """The offers of a sale in their v1 wire form: ``exact`` alone has one, where it has a name."""
    return [
        requirements_v1(method, sale.quotes[0], timeout, sale)
        for method in methods
        if method.v1_network and method.scheme == SCHEME_EXACT
    ]


def challenge(
    sale: Sale,
    offers: Sequence[Mapping[str, Any]],
    *,
    in_v1: Sequence[Mapping[str, Any]],
    error: str,
) -> Challenge:
    """The 402 for a sale with its offers, saying why with an x402 error code."""
    v2 = {
        "x402Version": 2,
        "error": error,
        "resource": resource_info(sale),
        "accepts": offers,
    }
    v1 = {"x402Version": 1, "error": error, "accepts": in_v1}
    return Challenge(
        {PAYMENT_REQUIRED: base64.b64encode(_compact(v2)).decode("ascii")}, _compact(v1)
    )


def _compact(value: Any) -> bytes:
    return orjson.dumps(value)
