"""Pure: what is signed and what is not; a wallet's key behind the limits its owner set."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from xbyte_live.client.budget import Budget, dollars
from xbyte_live.client.signing import SignedPayment, Signer, sign
from xbyte_live.client.terms import KNOWN_ASSETS, Requirement, Terms, read_requirement
from xbyte_live.errors import BudgetExceeded, TermsRefused
from xbyte_live.money import Asset

MAX_VALIDITY = 600  # seconds an authorization is signed for at most, whatever a server asks
MAX_ITEMS = 256  # items whose terms are remembered


@dataclass(frozen=True, slots=True)
class Quoted:
    """What is known of one delivery before it is asked for; money in atomic units.

    ``item`` names what it belongs to (``item_of``), ``size`` its bytes. ``amount`` is what the
    playlist said it costs: it may be paid ahead, and nothing above it is ever signed; 0 is
    free. ``at_most`` is such a ceiling where the exact amount is not known.
    """

    item: str
    size: int | None = None
    amount: int | None = None
    at_most: int | None = None

    @property
    def ceiling(self) -> int | None:
        """The most that may be signed for it, or ``None`` if nothing was said."""
        return self.amount if self.amount is not None else self.at_most


class Payer:
    """A wallet with limits: turns terms into signed payments, or refuses.

    ``assets`` are all the tokens it ever signs for. An authorization is valid for what the
    server asks, but ``max_validity`` seconds at most. With ``pin_payee`` an item's payee may
    not change while it is being bought. ``nonces`` gives that many random bytes.
    """

    def __init__(
        self,
        account: Signer,
        budget: Budget,
        *,
        assets: Iterable[Asset] = KNOWN_ASSETS,
        max_validity: int = MAX_VALIDITY,
        pin_payee: bool = True,
        nonces: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.budget = budget
        self._account = account
        self._assets = tuple(assets)
        self._max_validity = max_validity
        self._pin_payee = pin_payee
        self._nonces = nonces
        self._terms: dict[str, Terms] = {}
        self._payees: dict[str, str] = {}

    @property
    def address(self) -> str:
        """The address that pays."""
        return self._account.address

    def learn(self, item: str, terms: Terms) -> None:
        """Remember an item's terms, so that its next deliveries can be paid ahead."""
        self._terms.pop(item, None)
        self._terms[item] = replace(terms, resource=None, extensions=None)  # of one answer only
        while len(self._terms) > MAX_ITEMS:
            self._terms.pop(next(iter(self._terms)))

    def choose(self, terms: Terms, quoted: Quoted) -> Requirement:
        """The first of the offered ways to pay that is within every limit; signs nothing.

        Raises ``BudgetExceeded`` if a way was good but for a limit, else ``TermsRefused``.
        """
        refused: list[TermsRefused] = []
        too_dear: list[BudgetExceeded] = []
        for document in terms.accepts:
            try:
                requirement = read_requirement(terms, document, self._assets)
                self._check(requirement, quoted)
            except BudgetExceeded as error:
                too_dear.append(error)
            except TermsRefused as error:
                refused.append(error)
            else:
                return requirement
        raise [*too_dear, *refused, TermsRefused("the server offers no way to pay")][0]

    def answer(self, terms: Terms, quoted: Quoted, *, resource: str, now: float) -> SignedPayment:
        """Sign for what a 402 asks, and remember its terms; raises as ``choose`` does."""
        requirement = self.choose(terms, quoted)
        self.learn(quoted.item, terms)
        return self._sign(requirement, quoted, resource, now, terms)

    def ahead(self, quoted: Quoted, *, resource: str, now: float) -> SignedPayment | None:
        """Sign for a quoted amount before asking; ``None`` if its terms are not known or good.

        Raises ``BudgetExceeded`` as ``choose`` does.
        """
        terms = self._terms.get(quoted.item)
        if terms is None or not quoted.amount:
            return None
        for document in terms.accepts:
            try:
                requirement = read_requirement(terms, document, self._assets, quoted.amount)
                self._check(requirement, quoted)
            except TermsRefused:
                continue
            return self._sign(requirement, quoted, resource, now, None)
        return None

    def adopt(self, payment: SignedPayment) -> None:
        """Count a payment that an earlier process signed."""
        self.budget.take(payment.amount, payment.item)

    def release(self, payment: SignedPayment) -> None:
        """Free a payment's budget: only once the chain shows its nonce unused after expiry."""
        self.budget.give_back(payment.amount, payment.item)

    def _check(self, requirement: Requirement, quoted: Quoted) -> None:
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
        self.budget.require(amount, quoted.item)

    def _sign(
        self,
        requirement: Requirement,
        quoted: Quoted,
        resource: str,
        now: float,
        terms: Terms | None,
    ) -> SignedPayment:
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
        self.budget.take(payment.amount, payment.item)
        self._payees.setdefault(payment.item, payment.pay_to.lower())
        return payment


def item_of(url: str) -> str:
    """The item a URL belongs to: its origin and path up to the slug, or its whole path."""
    parts = urlsplit(url)
    steps = parts.path.split("/")
    if "hls" in steps[:-1]:
        steps = steps[: steps.index("hls") + 2]
    return f"{parts.scheme}://{parts.netloc}{'/'.join(steps)}"


def resource_of(url: str, byte_range: str | None = None) -> str:
    """The name of the bytes a request wants: its URL, and its ``Range`` header if any."""
    return f"{url}#{byte_range}" if byte_range else url
