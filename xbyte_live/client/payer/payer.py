"""Pure: what is signed and what is not; a wallet's key behind the limits its owner set."""

import os
from collections.abc import Callable, Iterable
from dataclasses import replace

from xbyte_live.client.payer.budget import Budget, dollars
from xbyte_live.client.payer.channel import Channel
from xbyte_live.client.payer.channels import Holdings
from xbyte_live.client.payer.signing import SignedPayment, Signer, sign
from xbyte_live.client.payer.terms import KNOWN_ASSETS, Quoted, Requirement, Terms, read_requirement
from xbyte_live.client.payer.vouchers import SALT
from xbyte_live.errors import BudgetExceeded, TermsRefused
from xbyte_live.money import Asset

MAX_VALIDITY = 600  # seconds an authorization is signed for at most, whatever a server asks
MAX_ITEMS = 256  # items whose terms are remembered
DEPOSIT_CAP = 1_000_000  # atomic units that may lie unspent in one channel
SCHEMES = ("batch-settlement", "exact")


class Payer:
    """A wallet with limits: turns terms into signed payments, or refuses.

    ``assets`` are all the tokens it ever signs for, ``schemes`` the ways it pays, the best one
    first. An authorization is valid for what the server asks, but ``max_validity`` seconds at
    most. With ``pin_payee`` an item's payee may not change while it is being bought. ``nonces``
    gives that many random bytes.

    A channel (``batch-settlement``) is opened by the first payment that may go through it, and
    topped up before it is empty, by as much as its server finds worth its gas and by
    ``least_deposit`` at least, but never so that
    more than ``deposit_cap`` lies unspent in it, more than the rest of the budget in all channels
    paid through, or that deposits come to more than the budget. Money in a channel is locked, not
    spent: the server gives it back when asked, and at the latest the contract does.
    """

    def __init__(
        self,
        account: Signer,
        budget: Budget,
        *,
        assets: Iterable[Asset] = KNOWN_ASSETS,
        max_validity: int = MAX_VALIDITY,
        pin_payee: bool = True,
        schemes: tuple[str, ...] = SCHEMES,
        deposit_cap: int = DEPOSIT_CAP,
        least_deposit: int = 0,
        salt: str = SALT,
        nonces: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.budget = budget
        self.holdings = Holdings(
            account,
            budget,
            cap=deposit_cap,
            least=least_deposit,
            salt=salt,
            validity=max_validity,
            nonces=nonces,
        )
        self._account = account
        self._assets = tuple(assets)
        self._max_validity = max_validity
        self._pin_payee = pin_payee
        self._schemes = schemes
        self._nonces = nonces
        self._terms: dict[str, Terms] = {}
        self._payees: dict[str, str] = {}

    @property
    def address(self) -> str:
        """The address that pays."""
        return self._account.address

    @property
    def channels(self) -> dict[str, Channel]:
        """Every channel that is known, by its id; whoever presents payments keeps them."""
        return self.holdings.known

    @property
    def used(self) -> list[Channel]:
        """The channels that were paid through."""
        return self.holdings.used

    def learn(self, item: str, terms: Terms) -> None:
        """Remember an item's terms, so that its next deliveries can be paid ahead."""
        self._terms.pop(item, None)
        self._terms[item] = replace(terms, resource=None, extensions=None)  # of one answer only
        while len(self._terms) > MAX_ITEMS:
            self._terms.pop(next(iter(self._terms)))

    def expect(self, item: str, cost: int) -> None:
        """Be told what the rest of an item costs, so that no more is deposited for it."""
        self.holdings.expect(item, cost)

    def choose(self, terms: Terms, quoted: Quoted, now: float = 0.0) -> Requirement:
        """The best of the offered ways to pay that is within every limit; signs nothing.

        Raises ``BudgetExceeded`` if a way was good but for a limit (``TooSoon`` if but for the
        one for a minute), ``ChannelDistrusted`` for a server that was caught, else
        ``TermsRefused``.
        """
        return self._choose(terms, quoted, None, now)

    def choose_ahead(self, quoted: Quoted, now: float = 0.0) -> Requirement | None:
        """The same for a quoted amount before asking; ``None`` if no terms are known or good."""
        terms = self._terms.get(quoted.item)
        if terms is None or not quoted.amount:
            return None
        try:
            return self._choose(terms, quoted, quoted.amount, now)
        except TermsRefused:
            return None

    def answer(self, terms: Terms, quoted: Quoted, *, resource: str, now: float) -> SignedPayment:
        """Sign for what a 402 asks, and remember its terms; raises as ``choose`` does."""
        requirement = self.choose(terms, quoted, now)
        self.learn(quoted.item, terms)
        return self.sign(requirement, quoted, resource=resource, now=now, terms=terms)

    def ahead(self, quoted: Quoted, *, resource: str, now: float) -> SignedPayment | None:
        """Sign for a quoted amount before asking; ``None`` if its terms are not known or good.

        Raises ``BudgetExceeded`` as ``choose`` does.
        """
        requirement = self.choose_ahead(quoted, now)
        if requirement is None:
            return None
        return self.sign(requirement, quoted, resource=resource, now=now)

    def channel_way(self, terms: Terms, amount: int | None = None) -> Requirement:
        """The first of the offered ways that goes through a channel; raises ``TermsRefused``."""
        refused = TermsRefused("the server does not take payment by channel")
        for document in terms.accepts:
            if document.get("scheme") == SCHEMES[0]:
                try:
                    return read_requirement(terms, document, self._assets, amount)
                except TermsRefused as error:
                    refused = error
        raise refused

    def sign(
        self,
        requirement: Requirement,
        quoted: Quoted,
        *,
        resource: str,
        now: float,
        terms: Terms | None = None,
    ) -> SignedPayment:
        """Sign for a requirement that was chosen just now; ``terms`` if it answers a 402.

        A channel's voucher may be signed only while none of its others is being presented.
        """
        if requirement.channel is None:
            payment = sign(
                self._account,
                requirement,
                item=quoted.item,
                resource=resource,
                now=now,
                validity=min(requirement.timeout, self._max_validity),
                nonce=self._nonces(32),
                terms=terms,
            )
        else:
            payment = self.holdings.charge(
                requirement,
                item=quoted.item,
                resource=resource,
                home=quoted.home,
                now=now,
                terms=terms,
            )
        self.budget.take(payment.at_stake, payment.item, now)
        self._payees.setdefault(payment.item, payment.pay_to.lower())
        return payment

    def adopt(self, payment: SignedPayment) -> None:
        """Count a payment that an earlier process signed."""
        self.budget.take(payment.at_stake, payment.item)

    def release(self, payment: SignedPayment) -> None:
        """Free a payment's budget: only once the chain shows its nonce unused after expiry."""
        self.budget.give_back(payment.at_stake, payment.item)

    def _choose(self, terms: Terms, quoted: Quoted, amount: int | None, now: float) -> Requirement:
        refused: list[TermsRefused] = []
        too_dear: list[BudgetExceeded] = []
        for document in sorted(terms.accepts, key=self._rank):
            try:
                requirement = read_requirement(terms, document, self._assets, amount)
                self._check(requirement, quoted, now)
            except BudgetExceeded as error:
                too_dear.append(error)
            except TermsRefused as error:
                refused.append(error)
            else:
                return requirement
        raise [*too_dear, *refused, TermsRefused("the server offers no way to pay")][0]

    def _rank(self, document: dict[str, object]) -> int:
        scheme = document.get("scheme")
        known = isinstance(scheme, str) and scheme in self._schemes
        return self._schemes.index(str(scheme)) if known else len(self._schemes)

    def _check(self, requirement: Requirement, quoted: Quoted, now: float) -> None:
        amount = requirement.amount
        if requirement.document.get("scheme") not in self._schemes:
            raise TermsRefused("the server wants to be paid in a way that is not allowed here")
        if quoted.ceiling is not None and amount > quoted.ceiling:
            raise TermsRefused(
                f"the server asks {dollars(amount)} for what it had quoted at "
                f"{dollars(quoted.ceiling)}"
            )
        payee = requirement.pay_to.lower()
        pinned = self._payees.get(quoted.item, payee)
        if self._pin_payee and pinned != payee:
            raise TermsRefused(
                f"the payee of this item changed from {pinned} to {payee} while it was being bought"
            )
        self.budget.check_delivery(amount, size=quoted.size)
        channel = self.holdings.channel_of(requirement)
        if channel is None:
            cost = amount
        else:
            self.holdings.check(channel)
            cost = channel.at_stake(amount)
        self.budget.require(cost, quoted.item)
        if channel is not None:
            deposit = self.holdings.deposit_for(requirement, channel, quoted.item, now)
            least = requirement.channel.least_deposit if requirement.channel else 0
            if quoted.home and 0 < deposit < least:  # no other payment follows that could be more
                raise BudgetExceeded("the server wants a larger deposit than the limits allow")
        self.budget.check_pace(cost, now)
