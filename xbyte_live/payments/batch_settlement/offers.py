"""Pure: the offers of ``batch-settlement``, the match of a payment to one, the channel state.

Source: x402 ``scheme_batch_settlement_evm``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xbyte_live.errors import PaymentRefused, VoucherMismatch
from xbyte_live.evm.channels import AMOUNT_MISMATCH, ChannelPayment
from xbyte_live.payments.ledger.channel import Channel
from xbyte_live.payments.x402.headers import Payment
from xbyte_live.payments.x402.requirements import PaymentMethod, Sale, accepts, requirements_v2

RETRY_AFTER = 2  # seconds a payer waits before it presents the same payment again


@dataclass(frozen=True, slots=True)
class ChannelPolicy:
    """``deposit_floor`` is in atomic units, the others are in seconds."""

    deposit_floor: int
    payment_timeout: int
    retry_window: float


@dataclass(frozen=True, slots=True)
class MatchedPayment:
    """A payment by channel, and the offer it is for in wire form."""

    method: PaymentMethod
    requirements: dict[str, Any]
    payment: ChannelPayment

    @property
    def network(self) -> str:
        """The CAIP-2 network of its channel."""
        return self.method.asset.network

    @property
    def amount(self) -> int:
        """Atomic units the offer asks for."""
        return int(self.requirements["amount"])

    @property
    def channel_id(self) -> str:
        """The channel its voucher is of."""
        return self.payment.voucher.channel_id


def match_offer(
    methods: Sequence[PaymentMethod],
    payment: Payment,
    by_channel: ChannelPayment,
    sale: Sale,
    timeout: int,
) -> MatchedPayment:
    """The offer a payment accepted, field by field; raises ``PaymentRefused`` if none was."""
    if payment.accepted is None or sale.settle_first:
        raise PaymentRefused("unsupported_scheme")
    on_network = [m for m in methods if m.asset.network == payment.network and sale.takes(m)]
    if not on_network:
        raise PaymentRefused("network_mismatch")
    for method in on_network:
        for quote in sale.quotes:
            offer = requirements_v2(method, quote, timeout, sale.deposit)
            if accepts(payment.accepted, offer):
                return MatchedPayment(method, offer, by_channel)
    raise PaymentRefused("invalid_payment_requirements")


def state_ttl(withdraw_delay: int) -> float:
    """Seconds for which what was read of a channel is fresh: a third of its delay, 30 to 300."""
    return min(300.0, max(30.0, withdraw_delay / 3))


def channel_state(channel: Channel, charged: int) -> dict[str, Any]:
    """``channelState`` of a response (x402 ``scheme_batch_settlement_evm``)."""
    return {
        "channelId": channel.channel_id,
        "balance": str(channel.chain.balance),
        "totalClaimed": str(channel.chain.claimed),
        "withdrawRequestedAt": channel.chain.withdraw_requested_at,
        "refundNonce": str(channel.chain.refund_nonce),
        "chargedCumulativeAmount": str(charged),
    }


def mismatch(
    channel: Channel, code: str = AMOUNT_MISMATCH, *, proven: bool = True
) -> VoucherMismatch:
    """The refusal of a voucher that is out of step, with the state its payer goes on from.

    Its last voucher goes only to a payer that has ``proven`` to hold the key.

    Anybody knows a channel's configuration, and a voucher opens again what it paid for.
    """
    extra: dict[str, Any] = {"channelState": channel_state(channel, channel.charged)}
    if proven and channel.voucher.is_signed:
        extra["voucherState"] = {
            "signedMaxClaimable": str(channel.signed),
            "signature": channel.signature,
        }
    return VoucherMismatch(code, channel.network, extra)
