"""Part: deposits into channels: refused before any gas is spent, or moved once."""

import time
from collections.abc import Callable

from xbyte_live.errors import PaymentPending, PaymentRefused
from xbyte_live.evm.channels import (
    AMOUNT_MISMATCH,
    CHANNEL_NOT_FOUND,
    DEPOSIT_BELOW_MINIMUM,
    DEPOSIT_EARLY,
    DEPOSIT_EXPIRED,
    DEPOSIT_FAILED,
    EXCEEDS_BALANCE,
    Deposit,
)
from xbyte_live.evm.eip3009 import EXPIRY_MARGIN
from xbyte_live.payments.batch_settlement.offers import RETRY_AFTER, MatchedPayment, mismatch
from xbyte_live.payments.ledger.actions import Action
from xbyte_live.payments.ledger.channel import Channel
from xbyte_live.payments.ledger.channels import ChannelLedger
from xbyte_live.payments.settlement.channel_actions import Actions
from xbyte_live.payments.settlement.channel_sync import ChannelSync
from xbyte_live.payments.x402.requirements import Sale, resource_info


class ChannelDeposits:
    """Moves the deposits that payments bring; ``floor`` is the least one, in atomic units."""

    def __init__(
        self,
        ledger: ChannelLedger,
        channel_sync: ChannelSync,
        actions: Actions,
        *,
        floor: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._channel_sync = channel_sync
        self._actions = actions
        self._floor = floor
        self._clock = clock

    async def move(self, matched: MatchedPayment, deposit: Deposit, sale: Sale) -> Action:
        """Have a deposit moved, unless it was; returns its row once it is on the chain.

        Raises ``PaymentRefused``, ``PaymentPending``, ``FacilitatorError``, ``ChainUnavailable``
        and ``DatabaseUnavailable``.
        """
        if not await self._actions.has_deposit(matched.payment):
            before = await self._ledger.find(matched.channel_id)
            self._check(matched, deposit, before or await self._on_chain(matched))
        action = await self._actions.deposit(
            matched.payment,
            network=matched.network,
            asset=matched.method.asset,
            requirements=matched.requirements,
            document={
                "x402Version": 2,
                "accepted": matched.requirements,
                "payload": matched.payment.wire(),
                "resource": resource_info(sale),
            },
        )
        if action.state == "pending":
            raise PaymentPending(RETRY_AFTER)
        if action.state == "failed":
            raise PaymentRefused(action.error or DEPOSIT_FAILED)
        return action

    async def _on_chain(self, matched: MatchedPayment) -> Channel | None:
        """A channel that is new to us, as the chain has it; ``None`` if nobody has opened it."""
        config = matched.payment.config
        try:
            return await self._channel_sync.refresh(matched.network, config, matched.channel_id)
        except PaymentRefused as refusal:
            if refusal.code != CHANNEL_NOT_FOUND:
                raise
            return None

    def _check(self, matched: MatchedPayment, deposit: Deposit, before: Channel | None) -> None:
        """Refuse, before any gas is spent, a deposit that could not pay for this delivery."""
        ceiling, now = matched.payment.voucher.ceiling, self._clock()
        charged, there = (before.charged, before.spendable) if before is not None else (0, 0)
        if ceiling != charged + matched.amount:
            if before is None:
                raise PaymentRefused(AMOUNT_MISMATCH)
            raise mismatch(before, proven=matched.payment.config.voucher_key is not None)
        if deposit.amount < self._floor:
            raise PaymentRefused(DEPOSIT_BELOW_MINIMUM)
        if deposit.valid_before < now + EXPIRY_MARGIN:
            raise PaymentRefused(DEPOSIT_EXPIRED)
        if deposit.valid_after > now:
            raise PaymentRefused(DEPOSIT_EARLY)
        if ceiling > there + deposit.amount:
            raise PaymentRefused(EXCEEDS_BALANCE)
