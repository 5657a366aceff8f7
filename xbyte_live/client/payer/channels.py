"""Pure: the channels of a wallet: which one pays an offer, its next deposit and voucher."""

from xbyte_live.client.payer.channel import PayerChannel, deposit_for, under_way
from xbyte_live.client.payer.channel_reports import ChannelRequirement
from xbyte_live.client.payer.signing import IssuedPayment, Wallet
from xbyte_live.client.payer.terms import Offers
from xbyte_live.client.payer.vouchers import VoucherSigner, channel_for, sign_charge, sign_deposit
from xbyte_live.errors import BudgetExceeded, ChannelDistrusted, TermsRefused
from xbyte_live.evm.channels import Deposit

DEPOSIT_SEGMENTS = 10  # what a deposit lasts for where the server does not say what it finds good


class WalletChannels:
    """The channels of one wallet, in ``known`` by their id; whoever presents payments keeps them.

    No more than the rest of the budget lies unspent in all that were paid through, and deposits
    never come to more than the budget. A deposit counts until it has come in or expired, whether
    its server refused it or not, and is handed over again before another is signed.
    """

    def __init__(self, wallet: Wallet) -> None:
        self.known: dict[str, PayerChannel] = {}
        self.signer = VoucherSigner(wallet.account)
        self._wallet = wallet
        self._budget = wallet.budget
        self._used: set[str] = set()  # channels that were paid through
        self._salts: set[str] = set()  # of the deposits that were signed here
        self._unfit: set[str] = set()  # channels whose server wants more than may be deposited

    @property
    def used(self) -> list[PayerChannel]:
        """The channels that were paid through, as they are known."""
        return [channel for name, channel in self.known.items() if name in self._used]

    def channel_of(self, requirement: ChannelRequirement) -> PayerChannel:
        """The channel a requirement is paid through, as it is known."""
        new = channel_for(requirement, self._wallet.account.address, self._wallet.salt)
        return self.known.get(new.channel_id, new)

    def avoid(self, channel_id: str) -> None:
        """Never again pay through a channel that needs a larger deposit than is allowed."""
        self._unfit.add(channel_id)

    def check(self, channel: PayerChannel) -> None:
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
        self, requirement: ChannelRequirement, channel: PayerChannel, item: str, now: float
    ) -> int:
        """How much to deposit along with the payment; raises ``BudgetExceeded``."""
        amount, terms = requirement.amount, requirement.channel
        signed = max(channel.signed, channel.ceiling(amount))
        left = self._budget.left_for(item) - channel.at_stake(amount)
        here = channel.at_large(now)
        others = sum(
            other.locked + other.at_large(now)
            if name in self._used
            else sum(order.amount for order in other.orders(now))
            for name, other in self.known.items()
            if name != channel.channel_id
        )
        return deposit_for(
            channel,
            amount,
            target=max(terms.least_deposit, self._wallet.least_deposit)
            or amount * DEPOSIT_SEGMENTS,
            most=min(
                self._wallet.deposit_cap - here - channel.balance + signed,
                left - others - here - channel.balance + signed,
                self._budget.left_to_deposit - self._of_earlier_runs(now),
            ),
            expected=self._budget.expected(item),
            now=now,
        )

    def order_deposit(
        self, requirement: ChannelRequirement, channel: PayerChannel, amount: int, now: float
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
        terms: Offers | None,
    ) -> IssuedPayment:
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
        self, requirement: ChannelRequirement, channel: PayerChannel, item: str, now: float
    ) -> Deposit | None:
        amount = self.deposit_for(requirement, channel, item, now)
        if not amount or under_way(channel, now):
            return channel.deposit if amount else None  # signed once, however often presented
        self._budget.deposit(amount)
        order = self.order_deposit(requirement, channel, amount, now)
        self._salts.add(order.salt)
        return order

    def _of_earlier_runs(self, now: float) -> int:
        """What deposits that were signed before this run may still move."""
        return sum(
            order.amount
            for channel in self.known.values()
            for order in channel.orders(now)
            if order.salt not in self._salts
        )
