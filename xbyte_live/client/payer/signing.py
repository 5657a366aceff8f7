"""Pure: signed payments, their wire form, and what every payment scheme has (x402 v2 5.2, v1)."""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from xbyte_live.client.payer.budget import Budget
from xbyte_live.client.payer.terms import Offers, Requirement
from xbyte_live.errors import PaymentRefused

PAYMENT_HEADERS = {1: "X-PAYMENT", 2: "PAYMENT-SIGNATURE"}

Verdict = Literal["charged", "again", "refused", "busy"]


class Signer(Protocol):
    """A key that signs EIP-712 typed data; ``eth_account`` accounts are such."""

    @property
    def address(self) -> str:
        """The checksummed address of the key."""

    def sign_typed_data(
        self,
        domain_data: dict[str, Any],
        message_types: dict[str, Any],
        message_data: dict[str, Any],
    ) -> Any:
        """Sign; the answer's ``signature`` has r ‖ s ‖ v."""


@dataclass(frozen=True, slots=True)
class Wallet:
    """A key and the limits of its owner, as every scheme is given them; money in atomic units.

    An authorization is valid ``max_validity`` seconds at most. A channel holds no more than
    ``deposit_cap`` unspent, a deposit has ``least_deposit`` where that allows it, and ``salt``
    tells this program's channels from others of the same key. ``nonces`` gives that many random
    bytes.
    """

    account: Signer
    budget: Budget
    max_validity: int
    deposit_cap: int
    least_deposit: int
    salt: str
    nonces: Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class IssuedPayment:
    """A signed payment for one resource; it may be presented many times and taken once.

    ``header`` and ``value`` are what a request carries. ``amount`` is what the delivery costs
    and ``at_stake`` how much more may be taken of the payer since it was signed, in atomic units;
    ``signed_at`` and ``valid_before`` are Unix seconds. ``identity`` is the nonce of an
    authorization (``exact``), or which voucher of its channel (``channel_id``) it is.
    """

    resource: str
    item: str
    header: str
    value: str
    amount: int
    network: str
    asset: str
    pay_to: str
    payer: str
    identity: str
    signed_at: float
    valid_before: int
    at_stake: int
    channel_id: str = ""
    deposit: int = 0

    @property
    def scheme(self) -> str:
        """The scheme it was signed in, as its header says."""
        document = _document(self)
        return str(document.get("accepted", document).get("scheme", ""))


class Exchange:
    """A scheme's side of one purchase: before a payment is signed, and after each response.

    This one is for payments that are taken once and whole, such as ``exact``; a scheme with state
    of its own overrides what it needs.
    """

    async def begin(self, requirement: Requirement) -> bool:
        """Get ready to sign; true if that took a wait, so that the choice must be made anew."""
        return False

    async def take_over(self, payment: IssuedPayment) -> bool:
        """Get ready to present a payment of an earlier request; false if it cannot be taken."""
        return True

    async def signed(self) -> None:
        """Make durable what was signed, before it is presented."""

    async def answered(
        self, payment: IssuedPayment, headers: Mapping[str, str], *, turned_down: bool
    ) -> None:
        """Check the response to a payment, whatever its status but 402.

        It was ``turned_down`` when nothing was delivered and it was not presented before.
        """

    async def refused(
        self, payment: IssuedPayment, terms: Offers, *, presented_before: bool, answered: bool
    ) -> Verdict:
        """Decide after a 402 to a payment; ``answered`` when one was signed for a 402 before.

        ``charged``: it was taken, and its bytes will not come any more; ``again``: it was not,
        and another may be signed; ``refused``: another would not be taken either; ``busy``: the
        same one may be presented later.
        """
        final = presented_before or answered or still_offered(terms, payment)
        return "refused" if final else "again"

    def refusal(self, payment: IssuedPayment, code: str) -> PaymentRefused:
        """The error for a payment that was refused with ``code``."""
        until = f"{datetime.fromtimestamp(payment.valid_before, UTC):%H:%M:%S} UTC"
        return PaymentRefused(
            code,
            f"the server refused a payment ({code}); it could still take it until {until}, so no "
            "other was signed for these bytes",
        )

    def end(self) -> None:
        """Let the next purchase of the scheme begin."""


def still_offered(terms: Offers, payment: IssuedPayment) -> bool:
    """Whether a 402 asks for exactly what ``payment`` gives, so that signing anew is no help."""
    document = _document(payment)
    if "accepted" in document:
        return document["accepted"] in terms.accepts
    return any(
        (offer.get("maxAmountRequired"), offer.get("payTo"))
        == (str(payment.amount), payment.pay_to)
        for offer in terms.accepts
    )


def payment_header(requirement: Requirement, payload: dict[str, Any], terms: Offers | None) -> str:
    """The value of a payment header; ``terms`` are those of the 402 it answers, if any."""
    document: dict[str, Any] = {"x402Version": requirement.version, "payload": payload}
    if requirement.version == 1:
        document |= {"scheme": requirement.scheme, "network": requirement.network}
    else:
        document["accepted"] = requirement.document
        if terms and terms.resource:
            document["resource"] = terms.resource
        if terms and terms.extensions:
            document["extensions"] = terms.extensions
    return base64.b64encode(json.dumps(document, separators=(",", ":")).encode()).decode("ascii")


def _document(payment: IssuedPayment) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(base64.b64decode(payment.value))
    return document
