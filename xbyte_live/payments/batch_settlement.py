"""Part: the ``batch-settlement`` scheme on EVM: one voucher of a channel pays for one delivery.

A voucher signed by a key is checked here alone, while what we know of its channel is fresh; a
smart wallet's is checked by the facilitator. Deposits and refunds are rows before they are sent.
Source: x402 ``scheme_batch_settlement_evm``.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Protocol

from xbyte_live.errors import PaymentPending, PaymentRefused, VoucherMismatch
from xbyte_live.evm.channels import (
    AMOUNT_MISMATCH,
    BELOW_CLAIMED,
    CHANNEL_ID_MISMATCH,
    CHANNEL_NOT_FOUND,
    DEPOSIT_BELOW_MINIMUM,
    DEPOSIT_EARLY,
    DEPOSIT_EXPIRED,
    DEPOSIT_FAILED,
    EXCEEDS_BALANCE,
    REFUND_NOTHING,
    VOUCHER_SIGNATURE,
    ChannelPayment,
    Deposit,
    config_refusal,
    read_channel_payment,
    signed_by_key,
)
from xbyte_live.evm.eip3009 import EXPIRY_MARGIN
from xbyte_live.money import Asset
from xbyte_live.payments.facilitators.remote import Facilitator, SignedPayment
from xbyte_live.payments.ledger.channel import Channel, Charging, NewDelivery
from xbyte_live.payments.ledger.channels import ChannelLedger
from xbyte_live.payments.x402.headers import Payment
from xbyte_live.payments.x402.order import Order
from xbyte_live.payments.x402.requirements import (
    SCHEME_CHANNELS,
    Correction,
    PaymentMethod,
    Sale,
    accepts,
    of_scheme,
    requirements_v2,
    resource_info,
)

RETRY_AFTER = 2  # seconds a payer waits before it presents the same payment again


class Mirror(Protocol):
    """What the chain says of channels, brought into the ledger."""

    async def refresh(self, network: str, config: Any, channel_id: str) -> Channel:
        """Read a channel and record what was read; raises ``ChainUnavailable``."""


class Action(Protocol):
    """What became of a deposit or a refund: ``pending``, ``settled`` or ``failed``."""

    @property
    def state(self) -> str:
        """How it stands."""

    @property
    def amount(self) -> int:
        """Atomic units it moves."""

    @property
    def tx_hash(self) -> str | None:
        """The transaction that moved them."""

    @property
    def error(self) -> str | None:
        """The x402 code it failed with."""

    @property
    def created_at(self) -> float:
        """When it was asked for."""


class Actions(Protocol):
    """What brings deposits and refunds to the chain."""

    async def deposit(
        self,
        payment: ChannelPayment,
        *,
        network: str,
        asset: Asset,
        requirements: dict[str, Any],
        document: dict[str, Any],
    ) -> Action:
        """Move a deposit, once however often it is asked for."""

    async def has_deposit(self, payment: ChannelPayment) -> bool:
        """Whether that deposit was taken on before and has not failed."""

    async def refund(self, channel: Channel, amount: int) -> Action:
        """Give an amount back to the payer."""

    async def last_refund(self, channel: Channel) -> Action | None:
        """The refund that is open or, if none is, the last that was settled."""


class Budgets(Protocol):
    """What holds the budgets of sessions."""

    async def charge(self, new: NewDelivery, order: Order) -> Charging | None:
        """Charge a voucher for an order and hold it; ``None`` if its session is over."""


@dataclass(frozen=True, slots=True)
class ChannelPolicy:
    """``deposit_floor`` is in atomic units, the others are in seconds."""

    deposit_floor: int
    payment_timeout: int
    retry_window: float


@dataclass(frozen=True, slots=True)
class Admitted:
    """A payment that was good: the channel after it, and the delivery it paid for.

    ``amount`` is 0 for a refund; ``moved`` is what went over the chain, in ``transaction``.
    """

    channel: Channel
    amount: int
    ceiling: int
    epoch: int
    transaction: str = ""
    moved: int | None = None


@dataclass(frozen=True, slots=True)
class _Checked:
    """A payload, and the offer it is for."""

    method: PaymentMethod
    requirements: dict[str, Any]
    payment: ChannelPayment

    @property
    def network(self) -> str:
        return self.method.asset.network


class Channels:
    """Checks ``batch-settlement`` payments and charges each voucher once."""

    def __init__(
        self,
        ledger: ChannelLedger,
        mirror: Mirror,
        actions: Actions,
        facilitator: Facilitator,
        methods: Sequence[PaymentMethod],
        policy: ChannelPolicy,
        *,
        budgets: Budgets | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._budgets = budgets
        self._ledger = ledger
        self._mirror = mirror
        self._actions = actions
        self._facilitator = facilitator
        self._methods = of_scheme(methods, SCHEME_CHANNELS)
        self._policy = policy
        self._clock = clock

    async def charge(self, payment: Payment, sale: Sale) -> Admitted:
        """Charge a payment for a sale, or find that it was charged for it before.

        Raises ``PaymentMalformed``, ``PaymentRefused`` with the x402 code (``VoucherMismatch``
        with what the payer needs to mend it), ``PaymentPending`` while the outcome of a deposit
        is not known, ``FacilitatorError``, ``ChainUnavailable`` and ``DatabaseUnavailable``.
        """
        checked = self._match(payment, read_channel_payment(payment.payload), sale)
        if checked.payment.kind == "refund":
            raise PaymentRefused(REFUND_NOTHING, "a refund is no payment")
        amount, key = int(checked.requirements["amount"]), checked.payment.config.voucher_key
        if checked.payment.deposit is None and key is not None and sale.order is None:
            await self._check(checked, amount, signature=False)
            signed_by = key, checked.method.asset.chain_id
            return await self._take(checked, sale, signed_by)  # where many are checked at once
        await self._check(checked, amount)
        if checked.payment.deposit is not None:
            return await self._deposit(checked, checked.payment.deposit, sale)
        return await self._take(checked, sale)

    async def refund(self, payment: Payment, sale: Sale) -> Admitted:
        """Give back what a channel has left, or the part of it that a refund asks for.

        Raises as ``charge`` does.
        """
        checked = self._match(payment, read_channel_payment(payment.payload), sale)
        await self._check(checked, 0)
        config, voucher = checked.payment.config, checked.payment.voucher
        channel = await self._mirror.refresh(checked.network, config, voucher.channel_id)
        action = await self._refunded(checked, channel) or await self._give_back(checked, channel)
        if action.state == "pending":
            raise PaymentPending(RETRY_AFTER)
        if action.state == "failed":
            raise PaymentRefused(action.error or REFUND_NOTHING)
        after = await self._ledger.find(voucher.channel_id) or channel
        return Admitted(
            after, 0, voucher.ceiling, after.epoch, action.tx_hash or "", moved=action.amount
        )

    async def _refunded(self, checked: _Checked, channel: Channel) -> Action | None:
        """The refund that this one is asked for again: the same, with no charge since then."""
        wanted = checked.payment.refund
        if checked.payment.voucher.ceiling != channel.charged:
            return None
        last = await self._actions.last_refund(channel)
        if last is None or last.created_at < self._clock() - self._policy.retry_window:
            return None
        if channel.charged_at is not None and channel.charged_at > last.created_at:
            return None
        if wanted is None:
            return last if channel.spendable <= channel.charged else None
        return last if last.amount == wanted else None

    async def _give_back(self, checked: _Checked, channel: Channel) -> Action:
        wanted = checked.payment.refund
        if channel.chain.balance == 0:
            raise PaymentRefused(CHANNEL_NOT_FOUND)
        if checked.payment.voucher.ceiling != channel.charged:
            raise _mismatch(channel)
        rest = channel.spendable - channel.charged
        if rest <= 0 or (wanted is not None and wanted > rest):
            raise PaymentRefused(REFUND_NOTHING)
        return await self._actions.refund(channel, rest if wanted is None else wanted)

    def _match(self, payment: Payment, channel_payment: ChannelPayment, sale: Sale) -> _Checked:
        """The offer the payment accepted, field by field."""
        if payment.accepted is None or sale.settle_first:
            raise PaymentRefused("unsupported_scheme")
        methods = sale.methods or self._methods
        on_network = [m for m in methods if m.asset.network == payment.network and sale.takes(m)]
        if not on_network:
            raise PaymentRefused("network_mismatch")
        for method in on_network:
            for quote in sale.quotes:
                offer = requirements_v2(method, quote, self._policy.payment_timeout, sale.deposit)
                if accepts(payment.accepted, offer):
                    return _Checked(method, offer, channel_payment)
        raise PaymentRefused("invalid_payment_requirements")

    async def _check(self, checked: _Checked, amount: int, *, signature: bool = True) -> None:
        """Raise unless the channel may pay this offer and its voucher was signed for it."""
        payment, chain_id = checked.payment, checked.method.asset.chain_id
        key = payment.config.voucher_key
        code = config_refusal(payment, checked.requirements, chain_id)
        if code == CHANNEL_ID_MISMATCH:
            raise PaymentRefused(code)
        if code is None and signature:
            if key is not None:
                code = None if signed_by_key(payment.voucher, key, chain_id) else VOUCHER_SIGNATURE
            elif payment.deposit is None:  # with one once that is on the chain
                code = await self._ask(checked)
        if code is not None:
            await self._refuse(checked, amount, code)

    async def _refuse(self, checked: _Checked, amount: int, code: str) -> NoReturn:
        """Say first that a voucher does not follow on the last, as other servers have it."""
        voucher = checked.payment.voucher
        channel = await self._ledger.find(voucher.channel_id)
        if channel is not None and voucher.ceiling != channel.charged + amount:
            raise _mismatch(channel, proven=False)
        raise PaymentRefused(code)

    async def _ask(self, checked: _Checked) -> str | None:
        """A smart wallet's voucher can only be checked on chain (EIP-1271)."""
        payment = checked.payment
        if payment.deposit is not None:
            payment = replace(payment, kind="voucher", deposit=None)
        document = {
            "x402Version": 2,
            "accepted": checked.requirements,
            "payload": payment.wire(),
        }
        verdict = await self._facilitator.verify(SignedPayment(2, document, checked.requirements))
        return None if verdict.is_valid else verdict.code or VOUCHER_SIGNATURE

    async def _refresh(self, checked: _Checked) -> None:
        """Have the ledger know how the channel stands on the chain."""
        config, channel_id = checked.payment.config, checked.payment.voucher.channel_id
        channel = await self._mirror.refresh(checked.network, config, channel_id)
        if channel.chain.balance == 0:
            raise PaymentRefused(CHANNEL_NOT_FOUND)

    async def _take(
        self, checked: _Checked, sale: Sale, signed_by: tuple[str, int] | None = None
    ) -> Admitted:
        """Charge what was checked, on a picture of the channel that is fresh enough.

        With ``signed_by`` the signature is checked there.
        """
        oldest = self._clock() - state_ttl(checked.payment.config.withdraw_delay)
        charging = await self._charge(_delivery(checked, sale, oldest, signed_by), sale)
        if charging.outcome in ("missing", "stale"):
            await self._refresh(checked)
            charging = await self._charge(_delivery(checked, sale), sale)
        if charging.outcome == "forged":
            amount = int(checked.requirements["amount"])
            await self._refuse(checked, amount, VOUCHER_SIGNATURE)
        return self._admitted(checked, charging)

    async def _charge(self, new: NewDelivery, sale: Sale) -> Charging:
        if sale.order is None:
            return await self._ledger.charge(new)
        charging = await self._budgets.charge(new, sale.order) if self._budgets else None
        if charging is None:
            raise PaymentRefused("session_over", "this session is over, or another channel's")
        return charging

    async def _deposit(self, checked: _Checked, deposit: Deposit, sale: Sale) -> Admitted:
        """Have the deposit moved, unless it was, then charge its voucher."""
        if not await self._actions.has_deposit(checked.payment):
            before = await self._ledger.find(checked.payment.voucher.channel_id)
            self._check_deposit(checked, deposit, before or await self._on_chain(checked))
        action = await self._actions.deposit(
            checked.payment,
            network=checked.network,
            asset=checked.method.asset,
            requirements=checked.requirements,
            document={
                "x402Version": 2,
                "accepted": checked.requirements,
                "payload": checked.payment.wire(),
                "resource": resource_info(sale),
            },
        )
        if action.state == "pending":
            raise PaymentPending(RETRY_AFTER)
        if action.state == "failed":
            raise PaymentRefused(action.error or DEPOSIT_FAILED)
        if checked.payment.config.voucher_key is None:
            code = await self._ask(checked)
            if code is not None:
                raise PaymentRefused(code)
        admitted = await self._take(checked, sale)
        return Admitted(
            admitted.channel,
            admitted.amount,
            admitted.ceiling,
            admitted.epoch,
            action.tx_hash or "",
            moved=action.amount,
        )

    async def _on_chain(self, checked: _Checked) -> Channel | None:
        """A channel that is new to us, as the chain has it; ``None`` if nobody has opened it."""
        config, channel_id = checked.payment.config, checked.payment.voucher.channel_id
        try:
            return await self._mirror.refresh(checked.network, config, channel_id)
        except PaymentRefused as refusal:
            if refusal.code != CHANNEL_NOT_FOUND:
                raise
            return None

    def _check_deposit(self, checked: _Checked, deposit: Deposit, before: Channel | None) -> None:
        """Refuse, before any gas is spent, a deposit that could not pay for this delivery."""
        voucher, now = checked.payment.voucher, self._clock()
        charged, there = (before.charged, before.spendable) if before is not None else (0, 0)
        if voucher.ceiling != charged + int(checked.requirements["amount"]):
            if before is None:
                raise PaymentRefused(AMOUNT_MISMATCH)
            raise _mismatch(before, proven=checked.payment.config.voucher_key is not None)
        if deposit.amount < self._policy.deposit_floor:
            raise PaymentRefused(DEPOSIT_BELOW_MINIMUM)
        if deposit.valid_before < now + EXPIRY_MARGIN:
            raise PaymentRefused(DEPOSIT_EXPIRED)
        if deposit.valid_after > now:
            raise PaymentRefused(DEPOSIT_EARLY)
        if voucher.ceiling > there + deposit.amount:
            raise PaymentRefused(EXCEEDS_BALANCE)

    def _admitted(self, checked: _Checked, charging: Charging) -> Admitted:
        channel, voucher = charging.channel, checked.payment.voucher
        if channel is None:
            raise PaymentRefused(CHANNEL_NOT_FOUND)
        match charging.outcome:
            case "mismatch":
                if channel.charged_at is None and voucher.ceiling <= channel.chain.claimed:
                    raise _mismatch(channel, BELOW_CLAIMED)
                raise _mismatch(channel)
            case "balance":
                raise PaymentRefused(EXCEEDS_BALANCE)
        amount = int(checked.requirements["amount"])
        return Admitted(channel, amount, voucher.ceiling, charging.epoch)


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


def _mismatch(
    channel: Channel, code: str = AMOUNT_MISMATCH, *, proven: bool = True
) -> VoucherMismatch:
    """How a payer goes on; its last voucher goes only to who has ``proven`` to hold its key.

    Anybody knows a channel's configuration, and a voucher opens again what it paid for.
    """
    extra: dict[str, Any] = {"channelState": channel_state(channel, channel.charged)}
    if proven and channel.voucher.is_signed:
        extra["voucherState"] = {
            "signedMaxClaimable": str(channel.signed),
            "signature": channel.signature,
        }
    return VoucherMismatch(code, channel.network, extra)


def correction_of(error: PaymentRefused) -> Correction | None:
    """What a 402 says beyond the code of a refusal."""
    if isinstance(error, VoucherMismatch):
        return Correction(error.network, error.extra)
    return None


def _delivery(
    checked: _Checked,
    sale: Sale,
    oldest: float = 0.0,
    signed_by: tuple[str, int] | None = None,
) -> NewDelivery:
    voucher = checked.payment.voucher
    return NewDelivery(
        channel_id=voucher.channel_id,
        ceiling=voucher.ceiling,
        signature=voucher.signature,
        amount=int(checked.requirements["amount"]),
        slug=sale.slug,
        resource=sale.resource,
        size=sale.size,
        oldest=oldest,
        signed_by=signed_by,
    )
