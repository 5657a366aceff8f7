"""Adapter: many ``exact`` payments in one transaction, which costs less gas than one each.

Only what a key signed is sent so: a smart wallet's check may take any amount of gas.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from eth_abi.abi import encode
from eth_hash.auto import keccak

from xbyte_live.evm.sender import TransactionSender
from xbyte_live.payments.facilitators.remote import (
    Outcome,
    Refused,
    Settled,
    SignedPayment,
    Unknown,
)

MOST = 50  # payments in one transaction
GAS_EACH, GAS_MORE = 120_000, 150_000

_TYPES = "address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32"
_TRANSFER = keccak(f"transferWithAuthorization({_TYPES})".encode())[:4]


class TransferBatcher:
    """Sends through Multicall3; ``senders`` maps CAIP-2 networks to the sender of our key."""

    def __init__(self, senders: Mapping[str, TransactionSender]) -> None:
        self._senders = dict(senders)

    def can_send(self, payment: SignedPayment) -> bool:
        """Whether a payment can share a transaction: signed by a key, on a network of ours."""
        return (
            payment.version == 2
            and payment.requirements.get("network") in self._senders
            and (_call_data(payment) is not None)
        )

    async def settle(self, payments: Sequence[SignedPayment]) -> Outcome:
        """Send payments of one network; ``Settled`` says that the transaction is in a block.

        Which of them moved only the chain can tell. ``Refused``: nothing was sent.
        """
        sender = self._senders[payments[0].requirements["network"]]
        return await asyncio.to_thread(_send, sender, payments)


def _send(sender: TransactionSender, payments: Sequence[SignedPayment]) -> Outcome:
    calls = [(p.requirements["asset"], data) for p in payments if (data := _call_data(p))]
    try:
        if not sender.has_multicall():
            return Refused("no_multicall")
        tx_hash = sender.send_calls(calls, gas=GAS_EACH * len(calls) + GAS_MORE)
    except Exception as error:
        return Unknown(f"sending failed ({type(error).__name__})")
    try:
        receipt = sender.wait_for_transaction_receipt(tx_hash)
    except Exception as error:
        return Unknown(f"no receipt ({type(error).__name__})", tx_hash)
    return Settled(tx_hash) if receipt.status == 1 else Unknown("reverted", tx_hash)


def _call_data(payment: SignedPayment) -> bytes | None:
    """The call that moves a payment; ``None`` if it has no key's signature."""
    try:
        payload = payment.document["payload"]
        order: Mapping[str, Any] = payload["authorization"]
        signature = bytes.fromhex(payload["signature"].removeprefix("0x"))
        if len(signature) != 65:
            return None
        v = signature[64] if signature[64] >= 27 else signature[64] + 27
        return _TRANSFER + encode(
            _TYPES.split(","),
            [
                order["from"].lower(),
                order["to"].lower(),
                int(order["value"]),
                int(order["validAfter"]),
                int(order["validBefore"]),
                bytes.fromhex(order["nonce"].removeprefix("0x")),
                v,
                signature[:32],
                signature[32:64],
            ],
        )
    except Exception:
        return None
