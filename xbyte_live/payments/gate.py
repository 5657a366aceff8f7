"""Part: does this request's payment open these bytes, and what is asked of one without?"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xbyte_live.errors import PaymentRefused
from xbyte_live.payments.batch_settlement import Admitted, Channels, channel_state, correction_of
from xbyte_live.payments.exact import Exact
from xbyte_live.payments.ledger.charge import Charge
from xbyte_live.payments.ledger.charges import ChargeLedger
from xbyte_live.payments.x402.headers import (
    RECEIPT_HEADER,
    Payment,
    read_payment,
    response_headers,
)
from xbyte_live.payments.x402.order import channel_origin, charge_origin
from xbyte_live.payments.x402.requirements import (
    SCHEME_CHANNELS,
    SCHEME_EXACT,
    Challenge,
    PaymentMethod,
    Sale,
    challenge,
    terms,
)
from xbyte_live.pricing.quotes import Quote

__all__ = ["Challenge", "Gate", "Paid", "Receipt", "Sale"]


_OF_CHANNEL = "c"  # what a receipt of a voucher begins with; that of a charge is its number


@dataclass(frozen=True, slots=True)
class Paid:
    """The payment behind a receipt: ``origin`` names it for good.

    ``charge`` is the ``exact`` charge, ``None`` where a channel paid.
    """

    origin: str
    charge: Charge | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What goes back with paid bytes: response headers, and what the charge was for them.

    ``answer`` goes back in place of the bytes: the payment asked for its money back. ``paid`` is
    there when a payment, and no earlier receipt, opened them.
    """

    headers: dict[str, str]
    amount: int
    answer: dict[str, Any] | None = None
    paid: Paid | None = None


class Gate:
    """``secret`` signs receipts; ``methods`` are what a 402 offers, the preferred one first."""

    def __init__(
        self,
        ledger: ChargeLedger,
        exact: Exact,
        methods: Sequence[PaymentMethod],
        *,
        channels: Channels | None = None,
        payment_timeout: int,
        max_payment_header: int,
        secret: bytes,
    ) -> None:
        self._ledger = ledger
        self._exact = exact
        self._channels = channels
        self.methods = tuple(methods)
        self._schemes = {method.scheme for method in methods}
        self._timeout = payment_timeout
        self._max_header = max_payment_header
        self._secret = secret

    async def admit(self, headers: Mapping[str, str], sale: Sale) -> Receipt:
        """Charge the payment a request carries for this sale; on return the charge is durable.

        Raises ``PaymentRefused`` (``payment_required`` when there is none), ``PaymentMalformed``,
        ``PaymentPending``, ``FacilitatorError``, ``ChainUnavailable`` and
        ``DatabaseUnavailable``.
        """
        payment = read_payment(headers, max_bytes=self._max_header)
        token = headers.get(RECEIPT_HEADER)
        if sale.rewatch_free and token and await self._opens(token, sale):
            return Receipt({}, 0)
        if payment is None:
            raise PaymentRefused("invalid_receipt" if token else "payment_required")
        if sale.methods or payment.scheme in self._schemes:
            if payment.scheme == SCHEME_CHANNELS and self._channels is not None:
                return await self._by_channel(self._channels, payment, sale)
            if payment.scheme == SCHEME_EXACT:
                return self._receipt(await self._exact.charge(payment, sale), payment, sale)
        raise PaymentRefused("unsupported_scheme")

    def challenge(self, sale: Sale, refusal: PaymentRefused) -> Challenge:
        """The 402 that asks for this sale's amount, saying why it must be asked for."""
        return challenge(
            sale,
            sale.methods or self.methods,
            timeout=self._timeout,
            error=refusal.code,
            correction=correction_of(refusal),
        )

    def terms(self, quote: Quote, deposit: int) -> list[dict[str, Any]]:
        """What every payment at this quote accepts, but for the amount, which is each sale's."""
        return terms(self.methods, quote, timeout=self._timeout, deposit=deposit)

    async def _by_channel(self, channels: Channels, payment: Payment, sale: Sale) -> Receipt:
        if payment.payload.get("type") == "refund":
            refunded = await channels.refund(payment, sale)
            shown = {"message": "Refund acknowledged", "channelId": refunded.channel.channel_id}
            return Receipt(self._channel_headers(refunded, None), 0, shown)
        admitted = await channels.charge(payment, sale)
        token = None
        if sale.rewatch_free:
            name = f"{_OF_CHANNEL}{admitted.channel.id}-{admitted.epoch}-{admitted.ceiling}"
            token = self._token(name, sale.resource)
        origin = channel_origin(admitted.channel.id, admitted.epoch, admitted.ceiling)
        headers = self._channel_headers(admitted, token)
        return Receipt(headers, admitted.amount, paid=Paid(origin))

    def _channel_headers(self, admitted: Admitted, receipt: str | None) -> dict[str, str]:
        channel = admitted.channel
        extra: dict[str, Any] = {"channelState": channel_state(channel, admitted.ceiling)}
        if admitted.amount:
            extra["chargedAmount"] = str(admitted.amount)
        return response_headers(
            2,
            network=channel.network,
            payer=channel.config.payer,
            amount=admitted.moved,
            transaction=admitted.transaction,
            extra=extra,
            receipt=receipt,
        )

    def _receipt(self, charge: Charge, payment: Payment, sale: Sale) -> Receipt:
        headers = response_headers(
            payment.version,
            network=payment.network,
            payer=charge.payer,
            amount=charge.amount,
            transaction=charge.tx_hash or "",
            receipt=self._token(str(charge.id)) if sale.rewatch_free else None,
        )
        return Receipt(headers, charge.amount, paid=Paid(charge_origin(charge.id), charge))

    async def _opens(self, token: str, sale: Sale) -> bool:
        """Whether the receipt of a first purchase covers these bytes (money rule 7)."""
        name = token.partition(".")[0]
        if name.startswith(_OF_CHANNEL):  # what was charged by voucher stays charged
            whole = sale.resource.partition("#")[0]
            tokens = (self._token(name, sale.resource), self._token(name, whole))
            return any(hmac.compare_digest(own.encode(), token.encode()) for own in tokens)
        if not (name.isascii() and name.isdecimal() and len(name) < 19):
            return False
        if not hmac.compare_digest(self._token(name).encode(), token.encode()):
            return False
        charge = await self._ledger.get(int(name))
        if charge is None or charge.state == "failed":
            return False
        own = charge.resource
        return sale.resource == own or sale.resource.startswith(f"{own}#")

    def _token(self, name: str, resource: str = "") -> str:
        signed = f"{name} {resource}" if resource else name
        digest = hmac.new(self._secret, signed.encode(), hashlib.sha256).hexdigest()
        return f"{name}.{digest}"
