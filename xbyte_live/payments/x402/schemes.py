"""Pure: the form of a payment scheme: it offers, charges and refunds."""

from dataclasses import dataclass
from typing import Any, Protocol

from xbyte_live.errors import PaymentRefused
from xbyte_live.payments.x402.headers import Payment
from xbyte_live.payments.x402.requirements import PaymentMethod, Sale
from xbyte_live.pricing.quotes import Quote


@dataclass(frozen=True, slots=True)
class Charged:
    """A payment that was charged for a sale, or refunded.

    ``origin`` names it for good. ``amount`` is the charge in atomic units, 0 for a refund;
    ``moved`` and ``transaction`` are what went over the chain for it, where anything did.
    ``extra`` is the scheme's own part of the response header. ``charge_id`` is the number of a
    charge that is kept with its resource in the ledger. ``answer`` goes back in place of the
    bytes: a refund was asked for.
    """

    origin: str
    payer: str
    amount: int
    moved: int | None = None
    transaction: str = ""
    extra: dict[str, Any] | None = None
    charge_id: int | None = None
    answer: dict[str, Any] | None = None


class Scheme(Protocol):
    """One scheme of x402; a new one is a module of this form and a line in ``payments/build``."""

    @property
    def name(self) -> str:
        """Its name on the wire."""

    @property
    def methods(self) -> tuple[PaymentMethod, ...]:
        """The assets it is offered with, the preferred one first; none where it is not offered."""

    def offer(
        self,
        method: PaymentMethod,
        quote: Quote,
        deposit: int,
        refusal: PaymentRefused | None = None,
    ) -> dict[str, Any]:
        """One entry of ``accepts`` (x402 v2 5.1.2), with what a refusal lets the payer mend."""

    async def refund(self, payment: Payment, sale: Sale) -> Charged | None:
        """Give money back where a payment asks for that, else ``None``; raises as ``charge``."""

    async def charge(self, payment: Payment, sale: Sale) -> Charged:
        """Charge a payment for a sale, or find that it was charged for it before.

        On return the charge is durable. Raises ``PaymentMalformed``, ``PaymentRefused`` with the
        x402 code, ``PaymentPending`` while the outcome is not known, ``FacilitatorError``,
        ``ChainUnavailable`` and ``DatabaseUnavailable``.
        """
