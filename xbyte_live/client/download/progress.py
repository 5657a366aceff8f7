"""Pure: the plan and the progress of a download, for its display."""

from dataclasses import dataclass
from typing import Protocol

from xbyte_live.client.payer.signing import IssuedPayment
from xbyte_live.client.payer.terms import Receipt


@dataclass(frozen=True, slots=True)
class DownloadPlan:
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
    """Shows the progress of a download."""

    def planned(self, plan: DownloadPlan) -> None:
        """What there is to do is known, or has grown."""

    def paid(self, payment: IssuedPayment, receipt: Receipt | None) -> None:
        """The server took a payment."""

    def received(self, size: int) -> None:
        """So many more bytes have arrived; fewer than 0 if they must be fetched again."""


class Silence:
    """Progress that nobody watches."""

    def planned(self, plan: DownloadPlan) -> None:
        """Say nothing."""

    def paid(self, payment: IssuedPayment, receipt: Receipt | None) -> None:
        """Say nothing."""

    def received(self, size: int) -> None:
        """Say nothing."""
