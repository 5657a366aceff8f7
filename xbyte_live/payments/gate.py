"""Part: does this request's payment open these bytes, and what is asked of one without?"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xbyte_live.errors import PaymentRefused
from xbyte_live.ledger.charges import Charge, ChargeLedger
from xbyte_live.payments.exact import Exact
from xbyte_live.payments.headers import (
    RECEIPT_HEADER,
    Payment,
    read_payment,
    response_headers,
)
from xbyte_live.payments.requirements import (
    SCHEME_EXACT,
    Challenge,
    PaymentMethod,
    Sale,
    challenge,
    terms,
)
from xbyte_live.pricing import Quote

__all__ = ["Challenge", "Gate", "Receipt", "Sale"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What goes back with paid bytes: response headers, and what the charge was for them."""

    headers: dict[str, str]
    amount: int


class Gate:
    """``secret`` signs receipts; ``methods`` are what a 402 offers, the preferred one first."""

    def __init__(
        self,
        ledger: ChargeLedger,
        exact: Exact,
        methods: Sequence[PaymentMethod],
        *,
        payment_timeout: int,
        max_payment_header: int,
        secret: bytes,
    ) -> None:
        self._ledger = ledger
        self._exact = exact
        self.methods = tuple(methods)
        self._timeout = payment_timeout
        self._max_header = max_payment_header
        self._secret = secret

    async def admit(self, headers: Mapping[str, str], sale: Sale) -> Receipt:
        """Charge the payment a request carries for this sale; on return the charge is durable.

        Raises ``PaymentRefused`` (``payment_required`` when there is none), ``PaymentMalformed``,
        ``PaymentPending``, ``FacilitatorError`` and ``DatabaseUnavailable``.
        """
        payment = read_payment(headers, max_bytes=self._max_header)
        token = headers.get(RECEIPT_HEADER)
        if sale.rewatch_free and token and await self._opens(token, sale):
            return Receipt({}, 0)
        if payment is None:
            raise PaymentRefused("invalid_receipt" if token else "payment_required")
        if payment.scheme != SCHEME_EXACT:
            raise PaymentRefused("unsupported_scheme")
        charge = await self._exact.charge(payment, sale)
        return self._receipt(charge, payment, sale)

    def challenge(self, sale: Sale, error: str) -> Challenge:
        """The 402 that asks for this sale's amount, with an x402 error code."""
        return challenge(sale, self.methods, timeout=self._timeout, error=error)

    def terms(self, quote: Quote) -> list[dict[str, Any]]:
        """What every payment at this quote accepts, but for the amount, which is each sale's."""
        return terms(self.methods, quote, timeout=self._timeout)

    def _receipt(self, charge: Charge, payment: Payment, sale: Sale) -> Receipt:
        headers = response_headers(
            payment.version,
            network=payment.network,
            payer=charge.payer,
            amount=charge.amount,
            transaction=charge.tx_hash or "",
            receipt=self._token(charge.id) if sale.rewatch_free else None,
        )
        return Receipt(headers, charge.amount)

    async def _opens(self, token: str, sale: Sale) -> bool:
        """Whether the receipt of a first purchase covers these bytes (money rule 7)."""
        number = token.partition(".")[0]
        if not (number.isascii() and number.isdecimal() and len(number) < 19):
            return False
        if not hmac.compare_digest(self._token(int(number)).encode(), token.encode()):
            return False
        charge = await self._ledger.get(int(number))
        if charge is None or charge.state == "failed":
            return False
        own = charge.resource
        return sale.resource == own or sale.resource.startswith(f"{own}#")

    def _token(self, charge_id: int) -> str:
        digest = hmac.new(self._secret, str(charge_id).encode(), hashlib.sha256).hexdigest()
        return f"{charge_id}.{digest}"
