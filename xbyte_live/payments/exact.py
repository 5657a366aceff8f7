"""Part: the ``exact`` scheme on EVM: one EIP-3009 authorization pays for one delivery."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xbyte_live.errors import (
    FacilitatorError,
    FacilitatorUnavailable,
    PaymentPending,
    PaymentRefused,
)
from xbyte_live.evm.eip3009 import (
    Authorization,
    plain_payload,
    read_authorization,
    refusal,
    signer_of,
)
from xbyte_live.payments.facilitators.remote import Facilitator, SignedPayment
from xbyte_live.payments.ledger.charge import Charge, Exposure, NewCharge, is_debt
from xbyte_live.payments.ledger.charges import ChargeLedger
from xbyte_live.payments.settlement.transfers import Transfers
from xbyte_live.payments.x402.headers import Payment
from xbyte_live.payments.x402.order import charge_origin
from xbyte_live.payments.x402.requirements import (
    SCHEME_EXACT,
    PaymentMethod,
    Sale,
    of_scheme,
    requirements_v1,
    requirements_v2,
    resource_info,
)
from xbyte_live.payments.x402.schemes import Charged
from xbyte_live.pricing.quotes import Quote

USED = "invalid_exact_evm_nonce_already_used"
RETRY_AFTER = 2  # seconds a payer waits before it presents the same payment again
FARTHEST = 2**53  # a valid_before beyond this is as good as never


@dataclass(frozen=True, slots=True)
class ExactPolicy:
    """``exposure`` is ``None`` under ``settle_first``; times in seconds."""

    exposure: Exposure | None
    retry_window: float
    payment_timeout: int
    settle_wait: float


@dataclass(frozen=True, slots=True)
class _Match:
    """The method and quote a payment meets, and its requirements in wire form."""

    method: PaymentMethod
    quote: Quote
    requirements: dict[str, Any]

    def document(self, payment: Payment, sale: Sale) -> dict[str, Any]:
        """The payment as it goes to a facilitator: what was checked, and no more."""
        payload = plain_payload(payment.payload)
        if payment.version == 1:
            return {
                "x402Version": 1,
                "scheme": payment.scheme,
                "network": payment.network,
                "payload": payload,
            }
        return {
            "x402Version": 2,
            "accepted": self.requirements,
            "payload": payload,
            "resource": resource_info(sale),
        }


class Exact:
    """The scheme for the gate: each authorization is charged for one delivery at most."""

    name = SCHEME_EXACT

    def __init__(
        self,
        ledger: ChargeLedger,
        transfers: Transfers,
        facilitator: Facilitator,
        methods: Sequence[PaymentMethod],
        policy: ExactPolicy,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._transfers = transfers
        self._facilitator = facilitator
        self.methods = of_scheme(methods, SCHEME_EXACT)
        self._networks = _networks(self.methods)
        self._policy = policy
        self._clock = clock

    def offer(
        self,
        method: PaymentMethod,
        quote: Quote,
        deposit: int,
        refusal: PaymentRefused | None = None,
    ) -> dict[str, Any]:
        """One entry of ``accepts``; there is no deposit to ask for, and no refusal to mend."""
        return requirements_v2(method, quote, self._policy.payment_timeout)

    async def refund(self, payment: Payment, sale: Sale) -> None:
        """Nothing: an authorization moves its amount and has no more to give back."""

    async def charge(self, payment: Payment, sale: Sale) -> Charged:
        """Charge a payment for a sale, or find that it was charged for it before.

        Raises ``PaymentMalformed``, ``PaymentRefused`` with the x402 code, ``PaymentPending``
        while the outcome is not known, ``FacilitatorError`` and ``DatabaseUnavailable``.
        """
        charge = await self._charged(payment, read_authorization(payment.payload), sale)
        if charge.served_at is None:
            charge = await self._ledger.serve(charge)
        return Charged(
            origin=charge_origin(charge.id),
            payer=charge.payer,
            amount=charge.amount,
            moved=charge.amount,
            transaction=charge.tx_hash or "",
            charge_id=charge.id,
        )

    async def _charged(self, payment: Payment, authorization: Authorization, sale: Sale) -> Charge:
        try:
            if sale.retry_only:
                raise PaymentRefused("not_for_sale", "this is off sale")
            new = await self._check(payment, authorization, sale)
            if not self._transfers.has_room:
                raise FacilitatorUnavailable(
                    "too many payments wait for the chain; try again shortly"
                )
        except (PaymentRefused, FacilitatorError):
            before = await self._charged_before(payment, authorization)
            if before is None or before.came_to_nothing:
                raise
            return await self._again(before, authorization, sale)
        reserved = await self._ledger.reserve(
            new,
            exposure=self._exposure(new, sale),
            patience=self._transfers.lease,
            refuse_debtors=self._policy.exposure is not None and not is_debt(sale.resource),
        )
        if reserved.charge is None:
            raise _owes(authorization.payer)
        if not reserved.created:
            return await self._again(reserved.charge, authorization, sale)
        if reserved.charge.state == "queued":
            self._transfers.wake()
            return reserved.charge
        return await self._settle(reserved.charge)

    def _exposure(self, new: NewCharge, sale: Sale) -> Exposure | None:
        """What may leave unsettled: nothing for an authorization about to expire in the queue."""
        lasts = new.valid_before - self._clock()
        settled = sale.settle_first or sale.order is not None
        if settled or lasts < self._policy.payment_timeout / 2:
            return None
        return self._policy.exposure

    async def _check(self, payment: Payment, authorization: Authorization, sale: Sale) -> NewCharge:
        """The charge this payment would be, all its terms and its signature checked."""
        match = self._match(payment, authorization, sale)
        if not sale.is_for(authorization.payer):
            raise PaymentRefused("payer_mismatch", "only who bought it may pay for more of it")
        asset = match.method.asset
        amount = match.quote.price.amount_for(match.quote.size)
        code = refusal(authorization, value=amount, pay_to=match.quote.pay_to, now=self._clock())
        if code is not None:
            raise PaymentRefused(code)
        document = match.document(payment, sale)
        if not authorization.is_plain:
            await self._ask(SignedPayment(payment.version, document, match.requirements))
        elif signer_of(authorization, asset) != authorization.payer:
            raise PaymentRefused("invalid_exact_evm_payload_signature")
        return NewCharge(
            scheme=match.method.scheme,
            network=asset.network,
            asset=asset.address.lower(),
            payer=authorization.payer,
            nonce=authorization.nonce,
            pay_to=authorization.to,
            amount=amount,
            slug=sale.slug,
            resource=sale.resource,
            size=sale.size,
            valid_before=min(authorization.valid_before, FARTHEST),
            document=document,
            requirements=match.requirements,
        )

    async def _ask(self, payment: SignedPayment) -> None:
        """A smart wallet's signature can only be checked on chain (EIP-1271, ERC-6492)."""
        verdict = await self._facilitator.verify(payment)
        if not verdict.is_valid:
            raise PaymentRefused(verdict.code or "invalid_exact_evm_payload_signature")

    def _match(self, payment: Payment, authorization: Authorization, sale: Sale) -> _Match:
        """The offer the payment accepted: v2 names it in every field, v1 by network and value."""
        offers = [
            _Match(method, quote, self._requirements(payment, method, quote, sale))
            for method in self.methods
            for quote in sale.quotes
            if sale.takes(method)
            and (method.v1_network if payment.version == 1 else method.asset.network)
            == payment.network
        ]
        if not offers:
            raise PaymentRefused("network_mismatch")
        for offer in offers:
            if payment.version == 2:
                if payment.accepted == offer.requirements:
                    return offer
            elif _pays(authorization, offer.requirements):
                return offer
        if payment.version == 1:
            raise PaymentRefused("invalid_exact_evm_payload_authorization_value_mismatch")
        raise PaymentRefused("invalid_payment_requirements")

    def _requirements(
        self, payment: Payment, method: PaymentMethod, quote: Quote, sale: Sale
    ) -> dict[str, Any]:
        timeout = self._policy.payment_timeout
        if payment.version == 1:
            return requirements_v1(method, quote, timeout, sale)
        return requirements_v2(method, quote, timeout)

    async def _charged_before(
        self, payment: Payment, authorization: Authorization
    ) -> Charge | None:
        network = self._networks.get(payment.network)
        if network is None:
            return None
        return await self._ledger.find(*network, authorization.payer, authorization.nonce)

    async def _again(self, charge: Charge, authorization: Authorization, sale: Sale) -> Charge:
        """A payment that was charged before: its bytes again, or a refusal (money rule 4)."""
        same_payment = read_authorization(charge.document["payload"]) == authorization
        if not same_payment or (charge.resource, charge.size) != (sale.resource, sale.size):
            raise PaymentRefused(USED, "this payment was used for something else")
        if charge.is_owed:
            raise _owes(charge.payer)
        if charge.came_to_nothing or not (charge.delivered or charge.state == "settled"):
            if not self._transfers.has_room:
                raise PaymentPending(RETRY_AFTER)
            return await self._settle(charge)
        served = charge.served_at
        if served is not None and self._clock() - served > self._policy.retry_window:
            raise PaymentRefused(USED, "this payment was used; its retry window is over")
        return charge

    async def _settle(self, charge: Charge) -> Charge:
        try:
            async with asyncio.timeout(self._policy.settle_wait):
                charge = await self._transfers.transfer(charge)
        except TimeoutError:
            raise PaymentPending(RETRY_AFTER) from None
        if charge.state == "settled":
            return charge
        if charge.state == "failed":
            raise PaymentRefused(charge.error or "transaction_failed")
        raise PaymentPending(RETRY_AFTER)


def _owes(payer: str) -> PaymentRefused:
    return PaymentRefused(
        "payer_owes", f"earlier deliveries never settled; pay them at /debts/{payer} first"
    )


def _pays(authorization: Authorization, requirements: dict[str, Any]) -> bool:
    amount, pay_to = requirements["maxAmountRequired"], requirements["payTo"]
    return bool(str(authorization.value) == amount and authorization.to == pay_to.lower())


def _networks(methods: Sequence[PaymentMethod]) -> Mapping[str, tuple[str, str]]:
    """CAIP-2 network and asset by every name payers give a network."""
    found: dict[str, tuple[str, str]] = {}
    for method in methods:
        identity = (method.asset.network, method.asset.address.lower())
        for name in (method.asset.network, method.v1_network):
            if name is not None:
                found.setdefault(name, identity)
    return found
