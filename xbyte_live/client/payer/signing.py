"""Pure: a signed payment and its wire form (EIP-3009 in EIP-712, x402 v2 5.2 and v1)."""

import base64
import json
from dataclasses import dataclass
from typing import Any, Protocol

from xbyte_live.client.payer.terms import Requirement, Terms
from xbyte_live.evm.eip712 import SigningKey
from xbyte_live.evm.eip3009 import Authorization, transfer_digest

PAYMENT_HEADERS = {1: "X-PAYMENT", 2: "PAYMENT-SIGNATURE"}

_V1_BACKDATED = 600  # seconds; as version 1 payers do, for chains whose clock is behind
_TRANSFER_TYPE = {
    "TransferWithAuthorization": [
        {"name": "from", "type": "address"},
        {"name": "to", "type": "address"},
        {"name": "value", "type": "uint256"},
        {"name": "validAfter", "type": "uint256"},
        {"name": "validBefore", "type": "uint256"},
        {"name": "nonce", "type": "bytes32"},
    ]
}


class Signer(Protocol):
    """A key that signs EIP-712 typed data; ``eth_account`` accounts are such."""

    @property
    def address(self) -> str:
        """The checksummed address of the key."""

    def sign_typed_data(
        self,
        domain_data: dict[str, Any],
        message_types: dict[str, Any],
        message_data: dict[str, Any],
    ) -> Any:
        """Sign; the answer's ``signature`` has r ‖ s ‖ v."""


@dataclass(frozen=True, slots=True)
class SignedPayment:
    """A signed payment for one resource; it may be presented many times and taken once.

    ``header`` and ``value`` are what a request carries. ``amount`` is what the delivery costs
    and ``at_stake`` how much more may be taken of the payer since it was signed, in atomic units;
    ``signed_at`` and ``valid_before`` are Unix seconds. ``identity`` is the nonce of an
    authorization (``exact``), or which voucher of its channel (``channel_id``) it is.
    """

    resource: str
    item: str
    header: str
    value: str
    amount: int
    network: str
    asset: str
    pay_to: str
    payer: str
    identity: str
    signed_at: float
    valid_before: int
    at_stake: int
    channel_id: str = ""
    deposit: int = 0


def sign(
    account: Signer,
    requirement: Requirement,
    *,
    item: str,
    resource: str,
    now: float,
    validity: int,
    nonce: bytes,
    terms: Terms | None = None,
) -> SignedPayment:
    """Sign a transfer of ``requirement.amount`` that stays valid ``validity`` seconds.

    ``terms`` are those of the 402 it answers, whose resource and extensions a version 2 payment
    repeats; without them it is paid ahead. ``nonce`` has 32 random bytes.
    """
    authorization = {
        "from": account.address,
        "to": requirement.pay_to,
        "value": str(requirement.amount),
        "validAfter": str(int(now) - _V1_BACKDATED if requirement.version == 1 else 0),
        "validBefore": str(int(now) + validity),
        "nonce": "0x" + nonce.hex(),
    }
    payload = {
        "signature": _signature(account, requirement, authorization),
        "authorization": authorization,
    }
    return SignedPayment(
        resource=resource,
        item=item,
        header=PAYMENT_HEADERS[requirement.version],
        value=payment_header(requirement, payload, terms),
        amount=requirement.amount,
        network=requirement.asset.network,
        asset=requirement.asset.address,
        pay_to=requirement.pay_to,
        payer=account.address,
        identity=authorization["nonce"],
        signed_at=now,
        valid_before=int(authorization["validBefore"]),
        at_stake=requirement.amount,
    )


def still_offered(terms: Terms, payment: SignedPayment) -> bool:
    """Whether a 402 asks for exactly what ``payment`` gives, so that signing anew is no help."""
    document = json.loads(base64.b64decode(payment.value))
    if "accepted" in document:
        return document["accepted"] in terms.accepts
    return any(
        (offer.get("maxAmountRequired"), offer.get("payTo"))
        == (str(payment.amount), payment.pay_to)
        for offer in terms.accepts
    )


def _signature(account: Signer, requirement: Requirement, authorization: dict[str, str]) -> str:
    """Where the account shows its key in microseconds, else as the account does it."""
    asset = requirement.asset
    key = getattr(account, "key", None)
    if key is not None:
        order = Authorization(
            payer=authorization["from"],
            to=authorization["to"],
            value=int(authorization["value"]),
            valid_after=int(authorization["validAfter"]),
            valid_before=int(authorization["validBefore"]),
            nonce=authorization["nonce"],
            signature=b"",
        )
        digest = transfer_digest(order, asset)
        return "0x" + SigningKey(bytes(key)).sign(digest).hex()
    numbers = ("value", "validAfter", "validBefore")
    signed = account.sign_typed_data(
        {
            "name": asset.name,
            "version": asset.version,
            "chainId": asset.chain_id,
            "verifyingContract": asset.address,
        },
        _TRANSFER_TYPE,
        {
            **authorization,
            **{name: int(authorization[name]) for name in numbers},
            "nonce": bytes.fromhex(authorization["nonce"][2:]),
        },
    )
    return "0x" + bytes(signed.signature).hex()


def payment_header(requirement: Requirement, payload: dict[str, Any], terms: Terms | None) -> str:
    """The value of a payment header; ``terms`` are those of the 402 it answers, if any."""
    document: dict[str, Any] = {"x402Version": requirement.version, "payload": payload}
    if requirement.version == 1:
        document |= {"scheme": "exact", "network": requirement.network}
    else:
        document["accepted"] = requirement.document
        if terms and terms.resource:
            document["resource"] = terms.resource
        if terms and terms.extensions:
            document["extensions"] = terms.extensions
    return base64.b64encode(json.dumps(document, separators=(",", ":")).encode()).decode("ascii")
