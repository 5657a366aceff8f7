"""Part: the ``batch-settlement`` scheme on EVM: one voucher of a channel pays for one delivery.

A voucher signed by a key is charged here alone, while what we know of its channel is fresh.
Source: x402 ``scheme_batch_settlement_evm``.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from xbyte_live.errors import PaymentRefused, VoucherMismatch
from xbyte_live.evm.channels import (
    BELOW_CLAIMED,
    CHANNEL_NOT_FOUND,
    EXCEEDS_BALANCE,
    VOUCHER_SIGNATURE,
    ChannelPayment,
    read_channel_payment,
)
from xbyte_live.payments.batch_settlement.checks import VoucherCheck
from xbyte_live.payments.batch_settlement.deposits import ChannelDeposits
from xbyte_live.payments.batch_settlement.offers import (
    ChannelPolicy,
    MatchedPayment,
    channel_state,
    match_offer,
    mismatch,
    state_ttl,
)
from xbyte_live.payments.batch_settlement.refunds import ChannelRefunds
from xbyte_live.payments.facilitators.remote import Facilitator
from xbyte_live.payments.ledger.actions import Action
from xbyte_live.payments.ledger.channel import Channel, Charging, NewDelivery
from xbyte_live.payments.ledger.channels import ChannelLedger
from xbyte_live.payments.ledger.sessions import SessionLedger
from xbyte_live.payments.settlement.channel_actions import Actions
from xbyte_live.payments.settlement.channel_sync import ChannelSync
from xbyte_live.payments.x402.headers import Payment
from xbyte_live.payments.x402.order import channel_origin
from xbyte_live.payments.x402.requirements import (
    SCHEME_CHANNELS,
    PaymentMethod,
    Sale,
    of_scheme,
    requirements_v2,
)
from xbyte_live.payments.x402.schemes import Charged
from xbyte_live.pricing.quotes import Quote


class BatchSettlement:
    """The scheme for the gate: each voucher is charged once. ``sessions`` hold prepaid budgets."""

    name = SCHEME_CHANNELS

    def __init__(
        self,
        ledger: ChannelLedger,
        channel_sync: ChannelSync,
        actions: Actions,
        facilitator: Facilitator,
        methods: Sequence[PaymentMethod],
        policy: ChannelPolicy,
        *,
        sessions: SessionLedger | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.methods = of_scheme(methods, SCHEME_CHANNELS)
        self._sessions = sessions
        self._ledger = ledger
        self._channel_sync = channel_sync
        self._policy = policy
        self._clock = clock
        self._vouchers = VoucherCheck(ledger, facilitator)
        self._deposits = ChannelDeposits(
            ledger, channel_sync, actions, floor=policy.deposit_floor, clock=clock
        )
        self._refunds = ChannelRefunds(
            channel_sync, actions, retry_window=policy.retry_window, clock=clock
        )

    def offer(
        self,
        method: PaymentMethod,
        quote: Quote,
        deposit: int,
        refusal: PaymentRefused | None = None,
    ) -> dict[str, Any]:
        """One entry of ``accepts``; a voucher that is out of step is told how to go on."""
        offer = requirements_v2(method, quote, self._policy.payment_timeout, deposit)
        if isinstance(refusal, VoucherMismatch) and refusal.network == method.asset.network:
            offer["extra"] |= refusal.extra
        return offer

    async def charge(self, payment: Payment, sale: Sale) -> Charged:
        """Charge a payment for a sale, or find that it was charged for it before.

        Raises ``PaymentMalformed``, ``PaymentRefused`` with the x402 code (``VoucherMismatch``
        with what the payer needs to mend it), ``PaymentPending`` while the outcome of a deposit
        is not known, ``FacilitatorError``, ``ChainUnavailable`` and ``DatabaseUnavailable``.
        """
        matched = self._match(payment, read_channel_payment(payment.payload), sale)
        key = matched.payment.config.voucher_key
        if matched.payment.deposit is not None:
            return await self._charge_with_deposit(matched, sale)
        if key is not None and sale.order is None:
            await self._vouchers.check(matched, matched.amount, signature=False)
            signed_by = key, matched.method.asset.chain_id
            return await self._take(matched, sale, signed_by)  # where many are checked at once
        await self._vouchers.check(matched, matched.amount)
        return await self._take(matched, sale)

    async def refund(self, payment: Payment, sale: Sale) -> Charged | None:
        """Refund the rest of a channel, or the part of it that the payment asks for.

        ``None`` for a payment that asks for no refund. Raises as ``charge`` does.
        """
        if payment.payload.get("type") != "refund":
            return None
        matched = self._match(payment, read_channel_payment(payment.payload), sale)
        await self._vouchers.check(matched, 0)
        action, before = await self._refunds.give_back(matched)
        channel = await self._ledger.find(matched.channel_id) or before
        ceiling = matched.payment.voucher.ceiling
        return Charged(
            origin=channel_origin(channel.id, channel.epoch, ceiling),
            payer=channel.config.payer,
            amount=0,
            moved=action.amount,
            transaction=action.tx_hash or "",
            extra={"channelState": channel_state(channel, ceiling)},
            answer={"message": "Refund acknowledged", "channelId": channel.channel_id},
        )

    def _match(self, payment: Payment, by_channel: ChannelPayment, sale: Sale) -> MatchedPayment:
        methods = sale.methods or self.methods
        return match_offer(methods, payment, by_channel, sale, self._policy.payment_timeout)

    async def _charge_with_deposit(self, matched: MatchedPayment, sale: Sale) -> Charged:
        """Have the deposit moved, unless it was, then charge its voucher."""
        deposit = matched.payment.deposit
        if deposit is None:
            raise AssertionError("there is no deposit to move")
        await self._vouchers.check(matched, matched.amount)
        action = await self._deposits.move(matched, deposit, sale)
        if matched.payment.config.voucher_key is None:
            code = await self._vouchers.ask(matched)
            if code is not None:
                raise PaymentRefused(code)
        return await self._take(matched, sale, deposited=action)

    async def _take(
        self,
        matched: MatchedPayment,
        sale: Sale,
        signed_by: tuple[str, int] | None = None,
        deposited: Action | None = None,
    ) -> Charged:
        """Charge what was checked, on a picture of the channel that is fresh enough.

        With ``signed_by`` the ledger checks the signature.
        """
        oldest = self._clock() - state_ttl(matched.payment.config.withdraw_delay)
        charging = await self._charge(_delivery(matched, sale, oldest, signed_by), sale)
        if charging.outcome in ("missing", "stale"):
            await self._refresh(matched)
            charging = await self._charge(_delivery(matched, sale), sale)
        if charging.outcome == "forged":
            await self._vouchers.refuse(matched, matched.amount, VOUCHER_SIGNATURE)
        return _charged(matched, _paying(matched, charging), charging.epoch, deposited)

    async def _charge(self, new: NewDelivery, sale: Sale) -> Charging:
        if sale.order is None:
            return await self._ledger.charge(new)
        charging = await self._sessions.charge(new, sale.order) if self._sessions else None
        if charging is None:
            raise PaymentRefused("session_over", "this session is over, or another channel's")
        return charging

    async def _refresh(self, matched: MatchedPayment) -> None:
        """Have the ledger know how the channel stands on the chain."""
        config = matched.payment.config
        channel = await self._channel_sync.refresh(matched.network, config, matched.channel_id)
        if channel.chain.balance == 0:
            raise PaymentRefused(CHANNEL_NOT_FOUND)


def _paying(matched: MatchedPayment, charging: Charging) -> Channel:
    """The channel after its charge; raises ``PaymentRefused`` where it was not charged."""
    channel, ceiling = charging.channel, matched.payment.voucher.ceiling
    if channel is None:
        raise PaymentRefused(CHANNEL_NOT_FOUND)
    match charging.outcome:
        case "mismatch":
            if channel.charged_at is None and ceiling <= channel.chain.claimed:
                raise mismatch(channel, BELOW_CLAIMED)
            raise mismatch(channel)
        case "balance":
            raise PaymentRefused(EXCEEDS_BALANCE)
    return channel


def _charged(
    matched: MatchedPayment, channel: Channel, epoch: int, deposited: Action | None
) -> Charged:
    ceiling = matched.payment.voucher.ceiling
    extra: dict[str, Any] = {"channelState": channel_state(channel, ceiling)}
    if matched.amount:
        extra["chargedAmount"] = str(matched.amount)
    return Charged(
        origin=channel_origin(channel.id, epoch, ceiling),
        payer=channel.config.payer,
        amount=matched.amount,
        moved=None if deposited is None else deposited.amount,
        transaction="" if deposited is None else deposited.tx_hash or "",
        extra=extra,
    )


def _delivery(
    matched: MatchedPayment,
    sale: Sale,
    oldest: float = 0.0,
    signed_by: tuple[str, int] | None = None,
) -> NewDelivery:
    voucher = matched.payment.voucher
    return NewDelivery(
        channel_id=voucher.channel_id,
        ceiling=voucher.ceiling,
        signature=voucher.signature,
        amount=matched.amount,
        slug=sale.slug,
        resource=sale.resource,
        size=sale.size,
        oldest=oldest,
        signed_by=signed_by,
    )
