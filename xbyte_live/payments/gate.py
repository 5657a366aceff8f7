"""Part: charges the payment of a request for the bytes it asks for, and asks for one without."""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xbyte_live.errors import PaymentRefused
from xbyte_live.payments.ledger.charges import ChargeLedger
from xbyte_live.payments.x402.headers import (
    RECEIPT_HEADER,
    Payment,
    read_payment,
    response_headers,
)
from xbyte_live.payments.x402.requirements import (
    Challenge,
    PaymentMethod,
    Sale,
    challenge,
    offers_v1,
)
from xbyte_live.payments.x402.schemes import Charged, Scheme
from xbyte_live.pricing.quotes import Quote

__all__ = ["Challenge", "Gate", "PaymentResponse", "Sale"]


@dataclass(frozen=True, slots=True)
class PaymentResponse:
    """The answer to a payment: the response headers, and the amount that was charged.

    ``answer`` goes back in place of the bytes: the payment asked for its money back. ``charged``
    is there when a payment, and no earlier receipt, opened them.
    """

    headers: dict[str, str]
    amount: int
    answer: dict[str, Any] | None = None
    charged: Charged | None = None


class Gate:
    """Charges by the scheme a payment names; ``schemes`` are offered in their order.

    ``secret`` signs receipts, ``payment_timeout`` is in seconds, ``max_payment_header`` in bytes.
    """

    def __init__(
        self,
        ledger: ChargeLedger,
        schemes: Sequence[Scheme],
        *,
        payment_timeout: int,
        max_payment_header: int,
        secret: bytes,
    ) -> None:
        self._ledger = ledger
        self._schemes = {scheme.name: scheme for scheme in schemes}
        self.methods = tuple(method for scheme in schemes for method in scheme.methods)
        self._timeout = payment_timeout
        self._max_header = max_payment_header
        self._secret = secret

    async def charge(self, headers: Mapping[str, str], sale: Sale) -> PaymentResponse:
        """Charge the payment a request carries for this sale; on return the charge is durable.

        Raises ``PaymentRefused`` (``payment_required`` when there is none), ``PaymentMalformed``,
        ``PaymentPending``, ``FacilitatorError``, ``ChainUnavailable`` and
        ``DatabaseUnavailable``.
        """
        payment = read_payment(headers, max_bytes=self._max_header)
        receipt = headers.get(RECEIPT_HEADER)
        if sale.rewatch_free and receipt and await self._opens(receipt, sale):
            return PaymentResponse({}, 0)
        if payment is None:
            raise PaymentRefused("invalid_receipt" if receipt else "payment_required")
        scheme = self._schemes.get(payment.scheme)
        if scheme is None or not (sale.methods or scheme.methods):
            raise PaymentRefused("unsupported_scheme")
        charged = await scheme.refund(payment, sale) or await scheme.charge(payment, sale)
        return self._response(charged, payment, sale)

    def challenge(self, sale: Sale, refusal: PaymentRefused) -> Challenge:
        """The 402 that asks for this sale's amount, saying why it must be asked for."""
        quote = sale.quotes[0]
        methods = [method for method in sale.methods or self.methods if sale.takes(method)]
        return challenge(
            sale,
            [self._offer(method, quote, sale.deposit, refusal) for method in methods],
            in_v1=offers_v1(methods, self._timeout, sale),
            error=refusal.code,
        )

    def terms(self, quote: Quote, deposit: int) -> list[dict[str, Any]]:
        """Every offer at this quote, to be published once: without the amount, each sale's own."""
        offers = [self._offer(method, quote, deposit) for method in self.methods]
        return [{k: v for k, v in offer.items() if k != "amount"} for offer in offers]

    def _offer(
        self,
        method: PaymentMethod,
        quote: Quote,
        deposit: int,
        refusal: PaymentRefused | None = None,
    ) -> dict[str, Any]:
        return self._schemes[method.scheme].offer(method, quote, deposit, refusal)

    def _response(self, charged: Charged, payment: Payment, sale: Sale) -> PaymentResponse:
        is_sold = charged.answer is None
        headers = response_headers(
            payment.version,
            network=payment.network,
            payer=charged.payer,
            amount=charged.moved,
            transaction=charged.transaction,
            extra=charged.extra,
            receipt=self._receipt(charged, sale) if is_sold and sale.rewatch_free else None,
        )
        return PaymentResponse(
            headers, charged.amount, charged.answer, charged if is_sold else None
        )

    def _receipt(self, charged: Charged, sale: Sale) -> str:
        """What opens the same bytes again: of a charge in the ledger its number is enough."""
        if charged.charge_id is not None:
            return self._signed(str(charged.charge_id))
        return self._signed(charged.origin, sale.resource)

    async def _opens(self, receipt: str, sale: Sale) -> bool:
        """Whether the receipt of a first purchase covers these bytes (money rule 7)."""
        name = receipt.partition(".")[0]
        if not name.isascii():
            return False
        if name.isdecimal():
            return len(name) < 19 and await self._covers(int(name), receipt, sale)
        whole = sale.resource.partition("#")[0]  # what is signed with its resource stays charged
        signed = (self._signed(name, sale.resource), self._signed(name, whole))
        return any(hmac.compare_digest(own.encode(), receipt.encode()) for own in signed)

    async def _covers(self, number: int, receipt: str, sale: Sale) -> bool:
        """Whether a charge of the ledger, which may still fail, paid for these bytes."""
        if not hmac.compare_digest(self._signed(str(number)).encode(), receipt.encode()):
            return False
        charge = await self._ledger.get(number)
        if charge is None or charge.state == "failed":
            return False
        own = charge.resource
        return sale.resource == own or sale.resource.startswith(f"{own}#")

    def _signed(self, name: str, resource: str = "") -> str:
        signed = f"{name} {resource}" if resource else name
        digest = hmac.new(self._secret, signed.encode(), hashlib.sha256).hexdigest()
        return f"{name}.{digest}"
