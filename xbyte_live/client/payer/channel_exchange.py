"""Adapter: one voucher and the answer to it: the turn it is signed in, and what it proves."""

import time
from collections.abc import Callable, Mapping

from xbyte_live.client.payer.channel import confirmed, distrusted, refused
from xbyte_live.client.payer.channel_lock import Turn, Turns
from xbyte_live.client.payer.channel_recovery import Refusal, Verdict, after
from xbyte_live.client.payer.channel_reports import read_correction, read_taken
from xbyte_live.client.payer.payer import Payer
from xbyte_live.client.payer.signing import SignedPayment
from xbyte_live.client.payer.terms import Requirement, Terms
from xbyte_live.errors import ChannelDistrusted
from xbyte_live.evm.channels import DEPOSIT_BELOW_MINIMUM, DEPOSIT_METHOD

_MOST_ANSWERS = 4  # vouchers that are signed for one delivery, none of them charged
_TOO_SMALL = (DEPOSIT_BELOW_MINIMUM, DEPOSIT_METHOD)


class Exchange:
    """The channel's side of one purchase; without a channel it does nothing.

    Raises ``ChannelDistrusted`` when the server is caught at claiming more than it earned, after
    that was noted for good.
    """

    def __init__(self, payer: Payer, turns: Turns, clock: Callable[[], float] = time.time) -> None:
        self._payer = payer
        self._turns = turns
        self._clock = clock
        self._turn: Turn | None = None
        self._refusals = 0

    async def begin(self, requirement: Requirement) -> bool:
        """Wait for the turn of the channel that pays it; false if it is held already."""
        channel = self._payer.holdings.channel_of(requirement)
        if channel is None:
            self.end()
            return False
        if self._turn is not None and self._turn.channel_id == channel.channel_id:
            return False
        self.end()
        self._turn = await self._turns.take(channel)
        return True

    async def take_over(self, payment: SignedPayment) -> bool:
        """Wait for the turn of a voucher of an earlier request; false if it is dead by now."""
        channel = self._payer.channels.get(payment.channel_id)
        if channel is not None:
            self._turn = await self._turns.take(channel)
            return payment.identity not in self._turn.channel.gone
        return True

    async def signed(self) -> None:
        """Have it on disk what was signed, before it is shown to anybody."""
        if self._turn is not None:
            await self._turn.keep(self._turn.channel, sync=True)

    async def answered(
        self, payment: SignedPayment, headers: Mapping[str, str], *, turned_down: bool
    ) -> None:
        """Learn from the answer to a voucher, whatever its status but a 402.

        It was ``turned_down`` when nothing was delivered and it was not presented before.
        """
        turn = self._turn
        if turn is None or not turn.channel.is_open(payment.identity):
            return
        taken = read_taken(headers)
        if taken is None:
            if turned_down:
                await turn.keep(refused(turn.channel, payment.identity))
            return
        try:
            channel = confirmed(turn.channel, payment.identity, taken)
        except ChannelDistrusted as error:
            raise await self._caught(turn, error) from None
        await turn.keep(channel)

    async def refused(
        self, payment: SignedPayment, terms: Terms, *, presented_before: bool
    ) -> Verdict:
        """Learn from a 402 to a voucher what became of it."""
        turn, self._refusals = self._turn, self._refusals + 1
        if turn is None or not turn.channel.is_open(payment.identity):
            return "charged"  # it was taken before, and is not taken for the same bytes again
        channel = turn.channel
        refusal = Refusal(
            code=terms.error,
            correction=read_correction(terms, channel.channel_id),
            identity=payment.identity,
            presented_before=presented_before,
            key=channel.config.payer_authorizer,
            chain_id=int(channel.network.partition(":")[2]),
        )
        try:
            channel, verdict = after(channel, refusal, await turn.on_chain(), now=self._clock())
        except ChannelDistrusted as error:
            raise await self._caught(turn, error) from None
        await turn.keep(channel)
        if verdict == "refused" and payment.deposit and terms.error in _TOO_SMALL:
            self._payer.holdings.avoid(channel.channel_id)
            verdict = "again"
        return "refused" if self._refusals >= _MOST_ANSWERS else verdict

    def end(self) -> None:
        """Give the turn to whoever waits for it."""
        if self._turn is not None:
            self._turn.release()
            self._turn = None

    async def _caught(self, turn: Turn, error: ChannelDistrusted) -> ChannelDistrusted:
        await turn.keep(distrusted(turn.channel, str(error)), sync=True)
        return ChannelDistrusted(
            f"{error}; nothing more is paid to it, and what is left can be taken back with "
            f"`xbyte-live wallet withdraw {turn.channel_id}`"
        )
