"""Pure: what a download tells whoever watches it."""

from dataclasses import dataclass
from typing import Protocol

from xbyte_live.client.payer.signing import SignedPayment
from xbyte_live.client.payer.terms import Receipt


@dataclass(frozen=True, slots=True)
class Plan:
    """What is downloaded: so many pieces of so many bytes, of which ``have`` are there already.

    ``cost`` is what the rest costs, in atomic units. ``size`` and ``cost`` are
    ``None`` where the server does not say; all grow while a ``live`` playlist is followed.
    """

    pieces: int
    size: int | None
    cost: int | None
    have: int
    live: bool


class Progress(Protocol):
    """Is told how a download goes."""

    def planned(self, plan: Plan) -> None:
        """What there is to do is known, or has grown."""

    def paid(self, payment: SignedPayment, receipt: Receipt | None) -> None:
        """The server took a payment."""

    def received(self, size: int) -> None:
        """So many more bytes have arrived; fewer than 0 if they must be fetched again."""


class Silence:
    """Progress that nobody watches."""

    def planned(self, plan: Plan) -> None:
        """Say nothing."""

    def paid(self, payment: SignedPayment, receipt: Receipt | None) -> None:
        """Say nothing."""

    def received(self, size: int) -> None:
        """Say nothing."""
