"""Pure: x402 payment headers to values and back, for hostile input (x402 v2 transport HTTP)."""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from xbyte_live.errors import PaymentMalformed
from xbyte_live.runtime.json import read_json

PAYMENT_SIGNATURE = "PAYMENT-SIGNATURE"
PAYMENT_RESPONSE = "PAYMENT-RESPONSE"
X_PAYMENT = "X-PAYMENT"
X_PAYMENT_RESPONSE = "X-PAYMENT-RESPONSE"
RECEIPT_EXTENSION = "xbyte-receipt"
RECEIPT_HEADER = "XBYTE-RECEIPT"

_PAYMENT_HEADERS = {
    name.lower().encode(): name for name in (PAYMENT_SIGNATURE, X_PAYMENT, RECEIPT_HEADER)
}


@dataclass(frozen=True, slots=True)
class Payment:
    """A decoded payment payload, before anything in it is believed.

    ``accepted`` is the v2 payload's copy of the requirements (``None`` in v1), ``payload`` the
    scheme's own part.
    """

    version: int
    scheme: str
    network: str
    accepted: dict[str, Any] | None
    payload: dict[str, Any]


def payment_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers of a request that pay, or show a receipt, by their names; empty without any.

    ``headers`` are as they came, with lower-case names (ASGI 3).
    """
    return {
        _PAYMENT_HEADERS[name]: value.decode("latin-1")
        for name, value in headers
        if name in _PAYMENT_HEADERS
    }


def read_payment(headers: Mapping[str, str], *, max_bytes: int) -> Payment | None:
    """The payment a request carries, or ``None`` when it carries none.

    ``PAYMENT-SIGNATURE`` (v2) goes before ``X-PAYMENT`` (v1). Raises ``PaymentMalformed``.
    """
    value = headers.get(PAYMENT_SIGNATURE) or headers.get(X_PAYMENT)
    if not value:
        return None
    if len(value) > max_bytes:
        raise PaymentMalformed(f"a payment header has at most {max_bytes} bytes")
    return _payment(_document(value))


def response_headers(
    version: int,
    *,
    network: str,
    payer: str,
    amount: int | None,
    transaction: str,
    extra: dict[str, Any] | None = None,
    receipt: str | None = None,
) -> dict[str, str]:
    """The settlement response header for delivered bytes (x402 v2 5.3).

    ``transaction`` is empty while the settlement is still queued, and where nothing moves on
    chain, as ``amount`` then is; ``extra`` is the scheme's own part. ``receipt`` opens the same
    bytes again where an item says ``rewatch = free``.
    """
    settled: dict[str, Any] = {
        "success": True,
        "transaction": transaction,
        "network": network,
        "payer": payer,
    }
    if version == 1:
        return {X_PAYMENT_RESPONSE: _encode(settled)}
    settled["amount"] = "" if amount is None else str(amount)
    if extra is not None:
        settled["extra"] = extra
    if receipt is not None:
        settled["extensions"] = {RECEIPT_EXTENSION: {"receipt": receipt}}
    return {PAYMENT_RESPONSE: _encode(settled)}


def _document(value: str) -> dict[str, Any]:
    try:
        text = base64.b64decode(value.strip(), validate=True)
        document = read_json(text)
    except ValueError:
        raise PaymentMalformed("the payment header is not base64 of a JSON document") from None
    if not isinstance(document, dict):
        raise PaymentMalformed("the payment is not a JSON object")
    return document


def _payment(document: dict[str, Any]) -> Payment:
    version = document.get("x402Version")
    payload = document.get("payload")
    if not isinstance(payload, dict):
        raise PaymentMalformed("the payment has no payload object")
    if type(version) is not int or version not in (1, 2):
        raise PaymentMalformed("x402Version must be 1 or 2")
    accepted = document.get("accepted") if version == 2 else None
    if version == 2 and not isinstance(accepted, dict):
        raise PaymentMalformed("a version 2 payment names what it accepted")
    terms = document if accepted is None else accepted
    scheme, network = terms.get("scheme"), terms.get("network")
    if not isinstance(scheme, str) or not isinstance(network, str):
        raise PaymentMalformed("the payment names no scheme and network")
    return Payment(version, scheme, network, accepted, payload)


def _encode(value: dict[str, Any]) -> str:
    return base64.b64encode(orjson.dumps(value)).decode("ascii")
