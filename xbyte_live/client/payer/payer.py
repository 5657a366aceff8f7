"""Wiring: a wallet's key behind the limits its owner set, and the schemes it pays with."""

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Protocol

from xbyte_live.client.payer.batch_settlement import ChannelPayer
from xbyte_live.client.payer.budget import Budget, dollars
from xbyte_live.client.payer.channel import PayerChannel
from xbyte_live.client.payer.channel_lock import ChannelLock
from xbyte_live.client.payer.channel_reports import ChannelRequirement
from xbyte_live.client.payer.channels import WalletChannels
from xbyte_live.client.payer.exact import ExactPayer
from xbyte_live.client.payer.signing import Exchange, IssuedPayment, Signer, Wallet
from xbyte_live.client.payer.terms import KNOWN_ASSETS, Offers, Quoted, Requirement
from xbyte_live.client.payer.vouchers import SALT
from xbyte_live.errors import BudgetExceeded, TermsRefused
from xbyte_live.money import Asset

MAX_VALIDITY = 600  # seconds an authorization is signed for at most, whatever a server asks
MAX_ITEMS = 256  # items whose terms are remembered
DEPOSIT_CAP = 1_000_000  # atomic units that may lie unspent in one channel


class PayingScheme(Protocol):
    """A payment scheme on the paying side; ``name`` is its ``scheme`` on the wire."""

    @property
    def name(self) -> str:
        """The value of ``scheme`` in an offer."""

    def read(
        self, terms: Offers, document: dict[str, Any], assets: Iterable[Asset], amount: int | None
    ) -> Requirement:
        """One of ``terms.accepts`` as a payment that may be signed; raises ``TermsRefused``.

        ``amount`` (atomic units) overrides the offer's own.
        """

    def cost(self, requirement: Requirement, quoted: Quoted, now: float) -> int:
        """How much more may be taken of the payer once it is signed; signs nothing.

        Raises ``TermsRefused`` or one of its kind where it may not be paid this way.
        """

    def sign(
        self,
        requirement: Requirement,
        quoted: Quoted,
        *,
        resource: str,
        now: float,
        terms: Offers | None = None,
    ) -> IssuedPayment:
        """Sign for a requirement whose cost was just allowed; ``terms`` if it answers a 402."""

    def exchange(self, turns: ChannelLock) -> Exchange:
        """The scheme's side of one purchase; ``turns`` are those of the wallet's channels."""


# The schemes a payer has unless it is told otherwise, the best one first.
SCHEMES: tuple[Callable[[Wallet], PayingScheme], ...] = (ChannelPayer, ExactPayer)


class Payer:
    """A wallet with limits: turns the offers of a server into signed payments, or refuses.

    ``assets`` are all the tokens it ever signs for, ``schemes`` the ways it pays, the best one
    first. An authorization is valid for what the server asks, but ``max_validity`` seconds at
    most. With ``pin_payee`` an item's payee may not change while it is being bought. ``nonces``
    gives that many random bytes.

    A channel (``batch-settlement``) is opened by the first payment that may go through it, and
    topped up before it is empty, by as much as its server finds worth its gas and by
    ``least_deposit`` at least, but never so that more than ``deposit_cap`` lies unspent in it,
    more than the rest of the budget in all channels paid through, or that deposits come to more
    than the budget. Money in a channel is locked, not spent: the server gives it back when asked,
    and at the latest the contract does.
    """

    def __init__(
        self,
        account: Signer,
        budget: Budget,
        *,
        assets: Iterable[Asset] = KNOWN_ASSETS,
        max_validity: int = MAX_VALIDITY,
        pin_payee: bool = True,
        schemes: Iterable[Callable[[Wallet], PayingScheme]] = SCHEMES,
        deposit_cap: int = DEPOSIT_CAP,
        least_deposit: int = 0,
        salt: str = SALT,
        nonces: Callable[[int], bytes] = os.urandom,
    ) -> None:
        wallet = Wallet(
            account=account,
            budget=budget,
            max_validity=max_validity,
            deposit_cap=deposit_cap,
            least_deposit=least_deposit,
            salt=salt,
            nonces=nonces,
        )
        self.budget = budget
        self.schemes = tuple(scheme(wallet) for scheme in schemes)
        self._by_name = {scheme.name: scheme for scheme in self.schemes}
        self._account = account
        self._assets = tuple(assets)
        self._pin_payee = pin_payee
        self._terms: dict[str, Offers] = {}
        self._payees: dict[str, str] = {}
        # Refunds and withdrawals are for channels of earlier runs too, whatever is paid with now.
        known = [one for one in self.schemes if isinstance(one, ChannelPayer)]
        self._batch_settlement = known[0] if known else ChannelPayer(wallet)

    @property
    def address(self) -> str:
        """The address that pays."""
        return self._account.address

    @property
    def holdings(self) -> WalletChannels:
        """The payment channels of this wallet."""
        return self._batch_settlement.channels

    @property
    def channels(self) -> dict[str, PayerChannel]:
        """Every channel that is known, by its id; whoever presents payments keeps them."""
        return self.holdings.known

    @property
    def used(self) -> list[PayerChannel]:
        """The channels that were paid through."""
        return self.holdings.used

    def exchanges(self, turns: ChannelLock) -> dict[str, Exchange]:
        """Each scheme's side of one purchase, by the scheme's name."""
        return {scheme.name: scheme.exchange(turns) for scheme in self.schemes}

    def learn(self, item: str, terms: Offers) -> None:
        """Remember an item's terms, so that its next deliveries can be paid ahead."""
        self._terms.pop(item, None)
        self._terms[item] = replace(terms, resource=None, extensions=None)  # of one answer only
        while len(self._terms) > MAX_ITEMS:
            self._terms.pop(next(iter(self._terms)))

    def choose(self, terms: Offers, quoted: Quoted, now: float = 0.0) -> Requirement:
        """The best of the offers that is within every limit; signs nothing.

        Raises ``BudgetExceeded`` if an offer was good but for a limit (``TooSoon`` if but for the
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

    def answer(self, terms: Offers, quoted: Quoted, *, resource: str, now: float) -> IssuedPayment:
        """Sign for what a 402 asks, and remember its terms; raises as ``choose`` does."""
        requirement = self.choose(terms, quoted, now)
        self.learn(quoted.item, terms)
        return self.sign(requirement, quoted, resource=resource, now=now, terms=terms)

    def ahead(self, quoted: Quoted, *, resource: str, now: float) -> IssuedPayment | None:
        """Sign for a quoted amount before asking; ``None`` if its terms are not known or good.

        Raises ``BudgetExceeded`` as ``choose`` does.
        """
        requirement = self.choose_ahead(quoted, now)
        if requirement is None:
            return None
        return self.sign(requirement, quoted, resource=resource, now=now)

    def channel_way(self, terms: Offers, amount: int | None = None) -> ChannelRequirement:
        """The first of the offers that goes through a channel; raises ``TermsRefused``."""
        return self._batch_settlement.read_first(terms, self._assets, amount)

    def sign(
        self,
        requirement: Requirement,
        quoted: Quoted,
        *,
        resource: str,
        now: float,
        terms: Offers | None = None,
    ) -> IssuedPayment:
        """Sign for a requirement that was chosen just now; ``terms`` if it answers a 402."""
        scheme, item = self._by_name[requirement.scheme], quoted.item
        payment = scheme.sign(requirement, quoted, resource=resource, now=now, terms=terms)
        self.budget.take(payment.at_stake, item, now)
        expected = self.budget.expected(item)
        if expected is not None:
            self.budget.expect(item, expected - payment.amount)
        self._payees.setdefault(item, payment.pay_to.lower())
        return payment

    def adopt(self, payment: IssuedPayment) -> None:
        """Count a payment that an earlier process signed."""
        self.budget.take(payment.at_stake, payment.item)

    def _choose(self, terms: Offers, quoted: Quoted, amount: int | None, now: float) -> Requirement:
        refused: list[TermsRefused] = []
        too_dear: list[BudgetExceeded] = []
        known = ", ".join(self._by_name)
        for document in sorted(terms.accepts, key=self._rank):
            try:
                scheme = self._by_name.get(str(document.get("scheme")))
                if scheme is None:
                    raise TermsRefused(f"the server takes no way to pay that is allowed: {known}")
                requirement = scheme.read(terms, document, self._assets, amount)
                self._check(scheme, requirement, quoted, now)
            except BudgetExceeded as error:
                too_dear.append(error)
            except TermsRefused as error:
                refused.append(error)
            else:
                return requirement
        raise [*too_dear, *refused, TermsRefused("the server offers no way to pay")][0]

    def _rank(self, document: dict[str, Any]) -> int:
        names, scheme = list(self._by_name), str(document.get("scheme"))
        return names.index(scheme) if scheme in names else len(names)

    def _check(
        self, scheme: PayingScheme, requirement: Requirement, quoted: Quoted, now: float
    ) -> None:
        amount = requirement.amount
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
        cost = scheme.cost(requirement, quoted, now)
        self.budget.require(cost, quoted.item)
        self.budget.check_pace(cost, now)
