"""Pure: a payer's channels: which one pays what, what may lie in it, and its next voucher."""

from collections.abc import Callable

from xbyte_live.client.payer.budget import Budget
from xbyte_live.client.payer.channel import Channel, deposit_for, under_way
from xbyte_live.client.payer.signing import SignedPayment, Signer
from xbyte_live.client.payer.terms import Requirement, Terms
from xbyte_live.client.payer.vouchers import VoucherSigner, channel_for, sign_charge, sign_deposit
from xbyte_live.errors import BudgetExceeded, ChannelDistrusted, TermsRefused
from xbyte_live.evm.channels import Deposit

DEPOSIT_SEGMENTS = 10  # what a deposit lasts for where the server does not say what it finds good
MAX_ITEMS = 256  # items of which it is remembered what they will cost


class Holdings:
    """The channels of one account, in ``known`` by their id; whoever presents payments keeps them.

    No more than ``cap`` atomic units lie unspent in one, no more than the rest of the budget in
    all that were paid through, and deposits never come to more than the budget. A deposit has
    ``least`` atomic units or more where these limits allow, and is valid ``validity`` seconds at
    most. ``nonces`` gives that many random bytes.
    """

    def __init__(
        self,
        account: Signer,
        budget: Budget,
        *,
        cap: int,
        least: int,
        salt: str,
        validity: int,
        nonces: Callable[[int], bytes],
    ) -> None:
        self.known: dict[str, Channel] = {}
        self.signer = VoucherSigner(account)
        self._account = account
        self._budget = budget
        self._cap = cap
        self._least = least
        self._salt = salt
        self._validity = validity
        self._nonces = nonces
        self._expected: dict[str, int] = {}
        self._used: set[str] = set()  # channels that were paid through
        self._unfit: set[str] = set()  # channels whose server wants more than may be deposited

    @property
    def used(self) -> list[Channel]:
        """The channels that were paid through, as they are known."""
        return [channel for name, channel in self.known.items() if name in self._used]

    def channel_of(self, requirement: Requirement) -> Channel | None:
        """The channel a requirement is paid through, as it is known; ``None`` for ``exact``."""
        if requirement.channel is None:
            return None
        new = channel_for(requirement, self._account.address, self._salt)
        return self.known.get(new.channel_id, new)

    def expect(self, item: str, cost: int) -> None:
        """Be told what the rest of an item costs, so that no more is deposited for it."""
        self._expected.pop(item, None)
        self._expected[item] = cost
        while len(self._expected) > MAX_ITEMS:
            self._expected.pop(next(iter(self._expected)))

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

    def deposit_for(self, requirement: Requirement, channel: Channel, item: str, now: float) -> int:
        """How much to deposit along with the payment; raises ``BudgetExceeded``."""
        amount, terms = requirement.amount, requirement.channel
        assert terms is not None
        signed = max(channel.signed, channel.ceiling(amount))
        left = self._budget.left_for(item) - channel.at_stake(amount)
        others = sum(self.known[used].locked for used in self._used - {channel.channel_id})
        return deposit_for(
            channel,
            amount,
            target=max(terms.least_deposit, self._least) or amount * DEPOSIT_SEGMENTS,
            most=min(
                self._cap - channel.balance + signed,
                left - others - channel.balance + signed,
                self._budget.left_to_deposit,
            ),
            expected=self._expected.get(item),
            now=now,
        )

    def order_deposit(
        self, requirement: Requirement, channel: Channel, amount: int, now: float
    ) -> Deposit:
        """Sign a deposit, whatever the limits say."""
        return sign_deposit(
            self._account,
            requirement.asset,
            channel.channel_id,
            amount,
            valid_before=int(now) + min(requirement.timeout, self._validity),
            salt=self._nonces(32),
        )

    def charge(
        self,
        requirement: Requirement,
        *,
        item: str,
        resource: str,
        home: str,
        now: float,
        terms: Terms | None,
    ) -> SignedPayment:
        """Sign the next voucher of the channel, with a deposit where one is due."""
        channel = self.channel_of(requirement)
        assert channel is not None
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
        if item in self._expected:
            self._expected[item] = max(0, self._expected[item] - payment.amount)
        return payment

    def _deposit(
        self, requirement: Requirement, channel: Channel, item: str, now: float
    ) -> Deposit | None:
        amount = self.deposit_for(requirement, channel, item, now)
        if not amount or under_way(channel, now):
            return channel.deposit if amount else None  # signed once, however often presented
        self._budget.deposit(amount)
        return self.order_deposit(requirement, channel, amount, now)
