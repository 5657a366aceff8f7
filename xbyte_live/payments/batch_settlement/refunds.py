"""Part: refunds that payers ask for: the rest of a channel goes back to its payer, once."""

import time
from collections.abc import Callable

from xbyte_live.errors import PaymentPending, PaymentRefused
from xbyte_live.evm.channels import CHANNEL_NOT_FOUND, REFUND_NOTHING
from xbyte_live.payments.batch_settlement.offers import RETRY_AFTER, MatchedPayment, mismatch
from xbyte_live.payments.ledger.actions import Action
from xbyte_live.payments.ledger.channel import Channel
from xbyte_live.payments.settlement.channel_actions import Actions
from xbyte_live.payments.settlement.channel_sync import ChannelSync


class ChannelRefunds:
    """Refunds the rest of channels; asked again within the window, a refund is the same one.

    ``retry_window`` is in seconds.
    """

    def __init__(
        self,
        channel_sync: ChannelSync,
        actions: Actions,
        *,
        retry_window: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._channel_sync = channel_sync
        self._actions = actions
        self._retry_window = retry_window
        self._clock = clock

    async def give_back(self, matched: MatchedPayment) -> tuple[Action, Channel]:
        """Refund the rest of a channel, or the part of it that is asked for.

        Returns its row once it is on the chain, and the channel as it was before. Raises
        ``PaymentRefused``, ``PaymentPending``, ``FacilitatorError``, ``ChainUnavailable`` and
        ``DatabaseUnavailable``.
        """
        config = matched.payment.config
        channel = await self._channel_sync.refresh(matched.network, config, matched.channel_id)
        action = await self._given(matched, channel) or await self._give(matched, channel)
        if action.state == "pending":
            raise PaymentPending(RETRY_AFTER)
        if action.state == "failed":
            raise PaymentRefused(action.error or REFUND_NOTHING)
        return action, channel

    async def _given(self, matched: MatchedPayment, channel: Channel) -> Action | None:
        """The refund that this one is asked for again: the same, with no charge since then."""
        wanted = matched.payment.refund
        if matched.payment.voucher.ceiling != channel.charged:
            return None
        last = await self._actions.last_refund(channel)
        if last is None or last.created_at < self._clock() - self._retry_window:
            return None
        if channel.charged_at is not None and channel.charged_at > last.created_at:
            return None
        if wanted is None:
            return last if channel.spendable <= channel.charged else None
        return last if last.amount == wanted else None

    async def _give(self, matched: MatchedPayment, channel: Channel) -> Action:
        wanted = matched.payment.refund
        if channel.chain.balance == 0:
            raise PaymentRefused(CHANNEL_NOT_FOUND)
        if matched.payment.voucher.ceiling != channel.charged:
            raise mismatch(channel)
        rest = channel.spendable - channel.charged
        if rest <= 0 or (wanted is not None and wanted > rest):
            raise PaymentRefused(REFUND_NOTHING)
        return await self._actions.refund(channel, rest if wanted is None else wanted)
