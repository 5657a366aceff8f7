"""Adapter: the scheme ``batch-settlement``: vouchers of a channel, signed one at a time.

Source: x402 ``scheme_batch_settlement_evm``, "Client Verification Rules".
"""

from collections.abc import Iterable, Mapping
from typing import Any

from xbyte_live.client.payer.channel import confirmed, distrusted, refused
from xbyte_live.client.payer.channel_lock import ChannelLock, Turn
from xbyte_live.client.payer.channel_recovery import Refusal, after
from xbyte_live.client.payer.channel_reports import (
    ChannelRequirement,
    read_channel_requirement,
    read_correction,
    read_taken,
)
from xbyte_live.client.payer.channels import WalletChannels
from xbyte_live.client.payer.signing import Exchange, IssuedPayment, Verdict, Wallet, still_offered
from xbyte_live.client.payer.terms import Offers, Quoted, Requirement
from xbyte_live.errors import BudgetExceeded, ChannelDistrusted, PaymentRefused, TermsRefused
from xbyte_live.evm.channels import BUSY, DEPOSIT_BELOW_MINIMUM, DEPOSIT_METHOD
from xbyte_live.money import Asset

_MOST_ANSWERS = 4  # vouchers that are signed for one delivery, none of them charged
_TOO_SMALL = (DEPOSIT_BELOW_MINIMUM, DEPOSIT_METHOD)


class ChannelPayer:
    """Pays with ``batch-settlement``: deposits once into a channel, signs a voucher a delivery."""

    name = "batch-settlement"

    def __init__(self, wallet: Wallet) -> None:
        self.channels = WalletChannels(wallet)
        self._budget = wallet.budget

    def read(
        self,
        terms: Offers,
        document: dict[str, Any],
        assets: Iterable[Asset],
        amount: int | None = None,
    ) -> ChannelRequirement:
        """One of ``terms.accepts`` as a payment that may be signed; raises ``TermsRefused``."""
        return read_channel_requirement(terms, document, assets, amount)

    def read_first(
        self, terms: Offers, assets: Iterable[Asset], amount: int | None = None
    ) -> ChannelRequirement:
        """The first of the offers that goes through a channel; raises ``TermsRefused``."""
        refused = TermsRefused("the server does not take payment by channel")
        for document in terms.accepts:
            if document.get("scheme") == self.name:
                try:
                    return self.read(terms, document, assets, amount)
                except TermsRefused as error:
                    refused = error
        raise refused

    def cost(self, requirement: Requirement, quoted: Quoted, now: float) -> int:
        """How much more the server may claim once its voucher is signed.

        Raises ``ChannelDistrusted``, ``TermsRefused`` or ``BudgetExceeded`` where the channel or
        the deposit that is due is not allowed.
        """
        assert isinstance(requirement, ChannelRequirement)
        channel = self.channels.channel_of(requirement)
        self.channels.check(channel)
        cost = channel.at_stake(requirement.amount)
        self._budget.require(cost, quoted.item)
        deposit = self.channels.deposit_for(requirement, channel, quoted.item, now)
        if quoted.home and 0 < deposit < requirement.channel.least_deposit:
            # no other payment follows that could be more
            raise BudgetExceeded("the server wants a larger deposit than the limits allow")
        return cost

    def sign(
        self,
        requirement: Requirement,
        quoted: Quoted,
        *,
        resource: str,
        now: float,
        terms: Offers | None = None,
    ) -> IssuedPayment:
        """Sign the next voucher, only while none of the channel's others is being presented."""
        assert isinstance(requirement, ChannelRequirement)
        return self.channels.charge(
            requirement,
            item=quoted.item,
            resource=resource,
            home=quoted.home,
            now=now,
            terms=terms,
        )

    def exchange(self, turns: ChannelLock) -> Exchange:
        """The scheme's side of one purchase."""
        return ChannelExchange(self.channels, turns)


class ChannelExchange(Exchange):
    """The channel's side of one purchase: the turn a voucher is signed in, and what came of it.

    Raises ``ChannelDistrusted`` when the server is caught at claiming more than it earned, after
    that was noted for good.
    """

    def __init__(self, channels: WalletChannels, turns: ChannelLock) -> None:
        self._channels = channels
        self._turns = turns
        self._turn: Turn | None = None
        self._refusals = 0

    async def begin(self, requirement: Requirement) -> bool:
        """Wait for the turn of the channel that pays it; false if it is held already."""
        assert isinstance(requirement, ChannelRequirement)
        channel = self._channels.channel_of(requirement)
        if self._turn is not None and self._turn.channel_id == channel.channel_id:
            return False
        self.end()
        self._turn = await self._turns.take(channel)
        return True

    async def take_over(self, payment: IssuedPayment) -> bool:
        """Wait for the turn of a voucher of an earlier request; false if it is dead by now."""
        channel = self._channels.known.get(payment.channel_id)
        if channel is not None:
            self._turn = await self._turns.take(channel)
            return payment.identity not in self._turn.channel.gone
        return True

    async def signed(self) -> None:
        """Have it on disk what was signed, before it is shown to anybody."""
        if self._turn is not None:
            await self._turn.keep(self._turn.channel, sync=True)

    async def answered(
        self, payment: IssuedPayment, headers: Mapping[str, str], *, turned_down: bool
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
        self, payment: IssuedPayment, terms: Offers, *, presented_before: bool, answered: bool
    ) -> Verdict:
        """Decide after a 402 to a voucher, by what its refusal proves of the channel."""
        if terms.error == BUSY:
            return "busy"
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
            channel, verdict = after(
                channel, refusal, await turn.on_chain(), now=self._turns.clock()
            )
        except ChannelDistrusted as error:
            raise await self._caught(turn, error) from None
        await turn.keep(channel)
        if verdict == "charged":
            return verdict
        if self._refusals >= _MOST_ANSWERS:
            return "refused"
        if verdict == "again":
            return verdict
        if payment.deposit and terms.error in _TOO_SMALL:
            self._channels.avoid(channel.channel_id)
            return "again"
        return "refused" if presented_before or still_offered(terms, payment) else "again"

    def refusal(self, payment: IssuedPayment, code: str) -> PaymentRefused:
        """The error for a voucher that was refused with ``code``."""
        return PaymentRefused(code, f"the server refused a voucher ({code}) and charged nothing")

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
