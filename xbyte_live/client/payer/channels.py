"""Pure: a payer's channels: which one pays what, what may lie in it, and its next voucher."""

from xbyte_live.client.payer.channel import Channel, deposit_for, under_way
from xbyte_live.client.payer.channel_reports import ChannelRequirement
from xbyte_live.client.payer.signing import SignedPayment, Wallet
from xbyte_live.client.payer.terms import Terms
from xbyte_live.client.payer.vouchers import VoucherSigner, channel_for, sign_charge, sign_deposit
from xbyte_live.errors import BudgetExceeded, ChannelDistrusted, TermsRefused
from xbyte_live.evm.channels import Deposit

DEPOSIT_SEGMENTS = 10  # what a deposit lasts for where the server does not say what it finds good


class Channels:
    """The channels of one wallet, in ``known`` by their id; whoever presents payments keeps them.

    No more than the rest of the budget lies unspent in all that were paid through, and deposits
    never come to more than the budget.
    """

    def __init__(self, wallet: Wallet) -> None:
        self.known: dict[str, Channel] = {}
        self.signer = VoucherSigner(wallet.account)
        self._wallet = wallet
        self._budget = wallet.budget
        self._used: set[str] = set()  # channels that were paid through
        self._unfit: set[str] = set()  # channels whose server wants more than may be deposited

    @property
    def used(self) -> list[Channel]:
        """The channels that were paid through, as they are known."""
        return [channel for name, channel in self.known.items() if name in self._used]

    def channel_of(self, requirement: ChannelRequirement) -> Channel:
        """The channel a requirement is paid through, as it is known."""
        new = channel_for(requirement, self._wallet.account.address, self._wallet.salt)
        return self.known.get(new.channel_id, new)

    def avoid(self, channel_id: str) -> None:
        """Do not pay through a channel that needs a larger deposit than is allowed."""
        self._unfit.add(channel_id)

    def check(self, channel: Channel) -> None:
        """Raise unless a channel may be paid through: ``ChannelDistrusted`` if never again."""
        if channel.fault:
            raise ChannelDistrusted(
                f"nothing more is paid to this server: {channel.fault}; take back what is left "
                f"with `xbyte-live wallet withdraw {channel.channel_id}`"
            )
        if channel.withdrawn_at:
            raise TermsRefused("the channel is being withdrawn")
        if channel.channel_id in self._unfit:
            raise BudgetExceeded("the server wants a larger deposit than the limits allow")

    def deposit_for(
        self, requirement: ChannelRequirement, channel: Channel, item: str, now: float
    ) -> int:
        """How much to deposit along with the payment; raises ``BudgetExceeded``."""
        amount, terms = requirement.amount, requirement.channel
        signed = max(channel.signed, channel.ceiling(amount))
        left = self._budget.left_for(item) - channel.at_stake(amount)
        others = sum(self.known[used].locked for used in self._used - {channel.channel_id})
        return deposit_for(
            channel,
            amount,
            target=max(terms.least_deposit, self._wallet.least_deposit)
            or amount * DEPOSIT_SEGMENTS,
            most=min(
                self._wallet.deposit_cap - channel.balance + signed,
                left - others - channel.balance + signed,
                self._budget.left_to_deposit,
            ),
            expected=self._budget.expected(item),
            now=now,
        )

    def order_deposit(
        self, requirement: ChannelRequirement, channel: Channel, amount: int, now: float
    ) -> Deposit:
        """Sign a deposit, whatever the limits say."""
        return sign_deposit(
            self._wallet.account,
            requirement.asset,
            channel.channel_id,
            amount,
            valid_before=int(now) + min(requirement.timeout, self._wallet.max_validity),
            salt=self._wallet.nonces(32),
        )

    def charge(
        self,
        requirement: ChannelRequirement,
        *,
        item: str,
        resource: str,
        home: str,
        now: float,
        terms: Terms | None,
    ) -> SignedPayment:
        """Sign the next voucher of the channel, with a deposit where one is due."""
        channel = self.channel_of(requirement)
        payment, since = sign_charge(
            self.signer,
            requirement,
            channel,
            deposit=self._deposit(requirement, channel, item, now),
            item=item,
            resource=resource,
            home=home,
            now=now,
            terms=terms,
        )
        self.known[channel.channel_id] = since
        self._used.add(channel.channel_id)
        return payment

    def _deposit(
        self, requirement: ChannelRequirement, channel: Channel, item: str, now: float
    ) -> Deposit | None:
        amount = self.deposit_for(requirement, channel, item, now)
        if not amount or under_way(channel, now):
            return channel.deposit if amount else None  # signed once, however often presented
        self._budget.deposit(amount)
        return self.order_deposit(requirement, channel, amount, now)
