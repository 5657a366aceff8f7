"""Pure: a server's offers and receipts, read without trust, and quoted deliveries (x402 v2 5)."""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from xbyte_live.errors import TermsRefused
from xbyte_live.money import MAX_AMOUNT, Asset
from xbyte_live.runtime.json import MAX_DOCUMENT, read_json

MAX_ACCEPTS = 32  # ways to pay that are looked at

# Every token that is signed for unless its owner allows another: Circle's USDC.
KNOWN_ASSETS: tuple[Asset, ...] = (
    Asset("eip155:8453", "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "USD Coin", "2", 6, "USDC"),
    Asset("eip155:84532", "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "USDC", "2", 6, "USDC"),
    Asset("eip155:43114", "0xB97EF9Ef8734C71904D8002F8b6Bc66Dd9c48a6E", "USD Coin", "2", 6, "USDC"),
    Asset("eip155:43113", "0x5425890298aed601595a70AB815c96711a31Bc65", "USD Coin", "2", 6, "USDC"),
)
V1_NETWORKS = {
    "base": "eip155:8453",
    "base-sepolia": "eip155:84532",
    "avalanche": "eip155:43114",
    "avalanche-fuji": "eip155:43113",
}

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_AMOUNT = re.compile(r"[1-9][0-9]{0,18}")
_TRANSACTION = re.compile(r"0x[0-9a-fA-F]{64}")
_LONGEST_VALIDITY = 24 * 3600
_AMOUNT_FIELD = {1: "maxAmountRequired", 2: "amount"}


@dataclass(frozen=True, slots=True)
class Offers:
    """The offers of a 402 or a ``pricing.json``, decoded and not yet believed.

    ``accepts`` are the server's own documents, because a payment repeats them in every field.
    """

    version: Literal[1, 2]
    accepts: tuple[dict[str, Any], ...]
    error: str = ""
    resource: dict[str, Any] | None = None
    extensions: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Requirement:
    """One way to pay that can be believed; ``amount`` is in atomic units of ``asset``.

    ``timeout`` is how long the payment shall stay valid, in seconds. ``document`` is what the
    server wrote.
    """

    version: Literal[1, 2]
    scheme: str
    network: str
    asset: Asset
    amount: int
    pay_to: str
    timeout: int
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Receipt:
    """The proof of a purchase that a server gives its buyer (x402 v2 5.3).

    ``transaction`` is empty while the transfer is still queued. Only plain text gets in here.
    """

    transaction: str
    network: str
    payer: str


@dataclass(frozen=True, slots=True)
class Quoted:
    """The quote of one delivery before it is requested; money in atomic units.

    ``item`` names what it belongs to (``item_of``), ``size`` its bytes. ``amount`` is what the
    playlist said it costs: it may be paid ahead, and nothing above it is ever signed; 0 is
    free. ``at_most`` is such a ceiling where the exact amount is not known. Where a part of
    what is paid may come back later, ``home`` is the URL where its payee can be asked for it.
    """

    item: str
    size: int | None = None
    amount: int | None = None
    at_most: int | None = None
    home: str = ""

    @property
    def ceiling(self) -> int | None:
        """The most that may be signed for it, or ``None`` if nothing was said."""
        return self.amount if self.amount is not None else self.at_most


def read_challenge(header: str | None, body: bytes) -> Offers:
    """The terms of a 402: its ``PAYMENT-REQUIRED`` header (v2), or else its JSON body (v1).

    Raises ``TermsRefused`` when neither is in the x402 form.
    """
    if header:
        document, version = read_header(header, "PAYMENT-REQUIRED header"), 2
    else:
        document, version = _object(body, "402 body"), 1
    if document.get("x402Version") != version:
        raise TermsRefused(f"the server's 402 is not in the x402 version {version} form")
    return _terms(document, 2 if version == 2 else 1)


def read_pricing(data: bytes) -> Offers | None:
    """The terms in a ``pricing.json``, whose ``accepts`` need no amounts, if it has any."""
    try:
        return _terms(_object(data, "pricing.json"), 2)
    except TermsRefused:
        return None


def read_requirement(
    terms: Offers, document: dict[str, Any], assets: Iterable[Asset], amount: int | None = None
) -> Requirement:
    """One of ``terms.accepts`` as a payment that may be signed; ``amount`` overrides its own.

    Raises ``TermsRefused`` unless it is by EIP-3009, on a network and in a token of ``assets``
    under its right EIP-712 domain, to a real address, for a positive whole amount.
    """
    if amount is not None:
        document = {**document, _AMOUNT_FIELD[terms.version]: str(amount)}
    asset = _asset(document, terms.version, assets)
    _check_domain(document, asset)
    return Requirement(
        version=terms.version,
        scheme=str(document.get("scheme")),
        network=str(document["network"]),
        asset=asset,
        amount=_amount(document.get(_AMOUNT_FIELD[terms.version])),
        pay_to=_payee(document.get("payTo"), asset),
        timeout=_timeout(document.get("maxTimeoutSeconds")),
        document=document,
    )


def read_receipt(headers: Mapping[str, str]) -> Receipt | None:
    """The settlement response of a paid answer, or ``None`` when it has none that can be read."""
    value = headers.get("PAYMENT-RESPONSE") or headers.get("X-PAYMENT-RESPONSE")
    if not value:
        return None
    try:
        document = read_header(value, "PAYMENT-RESPONSE header")
    except TermsRefused:
        return None
    if document.get("success") is not True:
        return None
    transaction = document.get("transaction")
    known = isinstance(transaction, str) and _TRANSACTION.fullmatch(transaction)
    return Receipt(
        transaction=str(transaction) if known else "",
        network=plain(document.get("network")),
        payer=plain(document.get("payer")),
    )


def item_of(url: str) -> str:
    """The item a URL belongs to: its origin and path up to the slug, or its whole path."""
    parts = urlsplit(url)
    steps = parts.path.split("/")
    if "hls" in steps[:-1]:
        steps = steps[: steps.index("hls") + 2]
    return f"{parts.scheme}://{parts.netloc}{'/'.join(steps)}"


def resource_of(url: str, byte_range: str | None = None, content: bytes = b"") -> str:
    """The name of what a request wants: its URL, with its ``Range`` header or body if any."""
    told = byte_range or (content and hashlib.sha256(content).hexdigest())
    return f"{url}#{told}" if told else url


def read_header(value: str, name: str) -> dict[str, Any]:
    """The JSON object in a header of x402; raises ``TermsRefused`` if there is none."""
    return _object(_unpacked(value), name)


def plain(text: object, limit: int = 100) -> str:
    """Text of a stranger as printable ASCII, cut to ``limit``, so that it can be shown."""
    if not isinstance(text, str):
        return ""
    return "".join(c if " " <= c <= "~" else "?" for c in text[:limit])


def _unpacked(value: str) -> bytes:
    if len(value) > MAX_DOCUMENT:
        raise TermsRefused(f"the server's 402 is larger than {MAX_DOCUMENT} bytes")
    try:
        return base64.b64decode(value.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise TermsRefused("the server's 402 header is not base64") from None


def _object(data: bytes, name: str) -> dict[str, Any]:
    try:
        document = read_json(data, limit=MAX_DOCUMENT)
    except ValueError:
        raise TermsRefused(f"the server's {name} is no JSON of reasonable size") from None
    if not isinstance(document, dict):
        raise TermsRefused(f"the server's {name} is not a JSON object")
    return document


def _terms(document: dict[str, Any], version: Literal[1, 2]) -> Offers:
    accepts = document.get("accepts")
    if not isinstance(accepts, list):
        raise TermsRefused("the server's 402 does not say what it accepts")
    resource, extensions = document.get("resource"), document.get("extensions")
    return Offers(
        version=version,
        accepts=tuple(entry for entry in accepts[:MAX_ACCEPTS] if isinstance(entry, dict)),
        error=plain(document.get("error")),
        resource=resource if isinstance(resource, dict) else None,
        extensions=extensions if isinstance(extensions, dict) else None,
    )


def _asset(document: dict[str, Any], version: int, assets: Iterable[Asset]) -> Asset:
    network, address = document.get("network"), document.get("asset")
    if not isinstance(network, str) or not isinstance(address, str):
        raise TermsRefused("the server names no network and token")
    caip2 = V1_NETWORKS.get(network) if version == 1 else network
    on_network = [asset for asset in assets if asset.network == caip2]
    if not on_network:
        raise TermsRefused(f"the server wants to be paid on {plain(network)!r}, not allowed here")
    for asset in on_network:
        if asset.address.lower() == address.lower():
            return asset
    raise TermsRefused(
        f"the server wants the token {plain(address)!r}, which is not allowed on {plain(network)}"
    )


def _check_domain(document: dict[str, Any], asset: Asset) -> None:
    extra = document.get("extra")
    if extra is None:
        return
    if not isinstance(extra, dict):
        raise TermsRefused("the server's extra terms are not an object")
    if extra.get("name", asset.name) != asset.name or (
        extra.get("version", asset.version) != asset.version
    ):
        raise TermsRefused(f"the server calls {asset.symbol} by a wrong EIP-712 name or version")
    if extra.get("assetTransferMethod", "eip3009") != "eip3009":
        raise TermsRefused("the server wants another way of transfer than EIP-3009")


def _amount(value: object) -> int:
    if not isinstance(value, str) or _AMOUNT.fullmatch(value) is None or int(value) > MAX_AMOUNT:
        raise TermsRefused("the server's amount is not a positive whole number of atomic units")
    return int(value)


def _payee(value: object, asset: Asset) -> str:
    if not isinstance(value, str) or _ADDRESS.fullmatch(value) is None:
        raise TermsRefused("the server names no address to pay")
    if int(value, 16) == 0 or value.lower() == asset.address.lower():
        raise TermsRefused(f"the server wants the money sent to {value}, where it would be lost")
    return value


def _timeout(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TermsRefused("the server's maxTimeoutSeconds is not a whole number")
    if not 1 <= value <= _LONGEST_VALIDITY:
        raise TermsRefused(f"the server wants a payment valid for {plain(str(value))} seconds")
    return value
