"""Pure: the ``TransferWithAuthorization`` an ``exact`` payment carries (EIP-3009)."""

import re
from dataclasses import dataclass
from typing import Any

from xbyte_live.errors import PaymentMalformed
from xbyte_live.evm.eip712 import (
    address_word,
    domain_separator,
    keccak,
    recover,
    typed_digest,
    word,
)
from xbyte_live.money import MAX_AMOUNT, Asset

EXPIRY_MARGIN = 6  # seconds; what x402 facilitators want left of an authorization

_TRANSFER_TYPE = keccak(
    b"TransferWithAuthorization(address from,address to,uint256 value,"
    b"uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_NONCE = re.compile(r"0x[0-9a-fA-F]{64}")
_NUMBER = re.compile(r"[0-9]{1,78}")
_SIGNATURE = re.compile(r"0x(?:[0-9a-fA-F]{2}){1,4096}")
_FIELDS = ("from", "to", "value", "validAfter", "validBefore", "nonce")


@dataclass(frozen=True, slots=True)
class Authorization:
    """A signed order to move ``value`` from ``payer`` to ``to`` once; addresses lower case."""

    payer: str
    to: str
    value: int
    valid_after: int
    valid_before: int
    nonce: str
    signature: bytes

    @property
    def is_plain(self) -> bool:
        """Whether the signature has the form of a key's (not of a smart wallet's)."""
        return len(self.signature) == 65


def read_authorization(payload: dict[str, Any]) -> Authorization:
    """Read the ``exact`` scheme's payload; raises ``PaymentMalformed`` naming the bad field."""
    fields = payload.get("authorization")
    if not isinstance(fields, dict):
        raise PaymentMalformed("the payment has no EIP-3009 authorization")
    return Authorization(
        payer=_matching(fields, "from", _ADDRESS).lower(),
        to=_matching(fields, "to", _ADDRESS).lower(),
        value=_number(fields, "value"),
        valid_after=_number(fields, "validAfter"),
        valid_before=_number(fields, "validBefore"),
        nonce=_matching(fields, "nonce", _NONCE).lower(),
        signature=bytes.fromhex(_matching(payload, "signature", _SIGNATURE)[2:]),
    )


def plain_payload(payload: dict[str, Any]) -> dict[str, Any]:
    """The fields of a payload that ``read_authorization`` reads, in wire form, and nothing else.

    A facilitator may act on other fields (Permit2 ones, say), which nobody here has checked.
    """
    fields = payload["authorization"]
    return {
        "signature": payload["signature"],
        "authorization": {name: str(fields[name]) for name in _FIELDS},
    }


def refusal(authorization: Authorization, *, value: int, pay_to: str, now: float) -> str | None:
    """The x402 error code that keeps this authorization from paying ``value``, if any does."""
    if authorization.to != pay_to.lower():
        return "invalid_exact_evm_payload_recipient_mismatch"
    if authorization.value != value or value > MAX_AMOUNT:
        return "invalid_exact_evm_payload_authorization_value_mismatch"
    if authorization.valid_before < now + EXPIRY_MARGIN:
        return "invalid_exact_evm_payload_authorization_valid_before"
    if authorization.valid_after > now:
        return "invalid_exact_evm_payload_authorization_valid_after"
    return None


def signer_of(authorization: Authorization, asset: Asset) -> str | None:
    """The lower-case address whose key signed it for ``asset``, or ``None``."""
    return recover(transfer_digest(authorization, asset), authorization.signature)


def transfer_digest(authorization: Authorization, asset: Asset) -> bytes:
    """The digest a payer signs for an authorization (EIP-712)."""
    struct = keccak(
        _TRANSFER_TYPE
        + address_word(authorization.payer)
        + address_word(authorization.to)
        + word(authorization.value)
        + word(authorization.valid_after)
        + word(authorization.valid_before)
        + bytes.fromhex(authorization.nonce[2:])
    )
    return typed_digest(domain_separator(asset), struct)


def _matching(fields: dict[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise PaymentMalformed(f"the payment's {name} is not in the form EIP-3009 gives it")
    return value


def _number(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name)
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):  # some v1 payers send numbers
        raise PaymentMalformed(f"the payment's {name} is not a whole number")
    if not 0 <= value < 2**256:
        raise PaymentMalformed(f"the payment's {name} does not fit in 256 bits")
    return value
