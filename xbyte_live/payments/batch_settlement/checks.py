"""Part: checks that a channel may pay an offer and that its voucher is signed.

A voucher signed by a key is checked here alone; a smart wallet's by the facilitator.
"""

from dataclasses import replace
from typing import NoReturn

from xbyte_live.errors import PaymentRefused
from xbyte_live.evm.channels import (
    CHANNEL_ID_MISMATCH,
    VOUCHER_SIGNATURE,
    config_refusal,
    signed_by_key,
)
from xbyte_live.payments.batch_settlement.offers import MatchedPayment, mismatch
from xbyte_live.payments.facilitators.remote import Facilitator, SignedPayment
from xbyte_live.payments.ledger.channels import ChannelLedger


class VoucherCheck:
    """Checks the voucher of a payment by channel against its offer and what is charged."""

    def __init__(self, ledger: ChannelLedger, facilitator: Facilitator) -> None:
        self._ledger = ledger
        self._facilitator = facilitator

    async def check(self, matched: MatchedPayment, amount: int, *, signature: bool = True) -> None:
        """Return if the channel may pay this offer and its voucher was signed for it.

        ``amount`` is what the voucher adds to what was charged before. Without ``signature`` the
        voucher is believed to be signed. Raises ``PaymentRefused`` and ``FacilitatorError``.
        """
        payment, chain_id = matched.payment, matched.method.asset.chain_id
        key = payment.config.voucher_key
        code = config_refusal(payment, matched.requirements, chain_id)
        if code == CHANNEL_ID_MISMATCH:
            raise PaymentRefused(code)
        if code is None and signature:
            if key is not None:
                code = None if signed_by_key(payment.voucher, key, chain_id) else VOUCHER_SIGNATURE
            elif payment.deposit is None:  # with one once that is on the chain
                code = await self.ask(matched)
        if code is not None:
            await self.refuse(matched, amount, code)

    async def refuse(self, matched: MatchedPayment, amount: int, code: str) -> NoReturn:
        """Raise ``PaymentRefused``: as other servers do, that the voucher is out of step first."""
        channel = await self._ledger.find(matched.channel_id)
        if channel is not None and matched.payment.voucher.ceiling != channel.charged + amount:
            raise mismatch(channel, proven=False)
        raise PaymentRefused(code)

    async def ask(self, matched: MatchedPayment) -> str | None:
        """The code that refuses a smart wallet's voucher, if any; asked on chain (EIP-1271)."""
        payment = matched.payment
        if payment.deposit is not None:
            payment = replace(payment, kind="voucher", deposit=None)
        document = {
            "x402Version": 2,
            "accepted": matched.requirements,
            "payload": payment.wire(),
        }
        verdict = await self._facilitator.verify(SignedPayment(2, document, matched.requirements))
        return None if verdict.is_valid else verdict.code or VOUCHER_SIGNATURE
