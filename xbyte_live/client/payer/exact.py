"""Pure: the scheme ``exact``: each delivery paid by an authorization of its own (EIP-3009)."""

from collections.abc import Iterable
from typing import Any

from xbyte_live.client.payer.signing import (
    PAYMENT_HEADERS,
    Exchange,
    IssuedPayment,
    Signer,
    Wallet,
    payment_header,
)
from xbyte_live.client.payer.terms import Offers, Quoted, Requirement, read_requirement
from xbyte_live.evm.eip712 import SigningKey
from xbyte_live.evm.eip3009 import Authorization, transfer_digest
from xbyte_live.money import Asset

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


class ExactPayer:
    """Pays with ``exact``: a transfer of just the price, signed for one delivery."""

    name = "exact"

    def __init__(self, wallet: Wallet) -> None:
        self._wallet = wallet

    def read(
        self,
        terms: Offers,
        document: dict[str, Any],
        assets: Iterable[Asset],
        amount: int | None = None,
    ) -> Requirement:
        """One of ``terms.accepts`` as a payment that may be signed; raises ``TermsRefused``."""
        return read_requirement(terms, document, assets, amount)

    def cost(self, requirement: Requirement, quoted: Quoted, now: float) -> int:
        """How much more may be taken of the payer once it is signed."""
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
        """Sign a transfer that stays valid as long as the server asks, within the limit.

        ``terms`` are those of the 402 it answers, whose resource and extensions a version 2
        payment repeats; without them it is paid ahead.
        """
        account = self._wallet.account
        validity = min(requirement.timeout, self._wallet.max_validity)
        authorization = {
            "from": account.address,
            "to": requirement.pay_to,
            "value": str(requirement.amount),
            "validAfter": str(int(now) - _V1_BACKDATED if requirement.version == 1 else 0),
            "validBefore": str(int(now) + validity),
            "nonce": "0x" + self._wallet.nonces(32).hex(),
        }
        payload = {
            "signature": _signature(account, requirement, authorization),
            "authorization": authorization,
        }
        return IssuedPayment(
            resource=resource,
            item=quoted.item,
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

    def exchange(self, turns: object) -> Exchange:
        """The scheme's side of one purchase."""
        return Exchange()


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
