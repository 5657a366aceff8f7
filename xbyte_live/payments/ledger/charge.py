"""Pure: charges by ``exact``: their fields, states and debts.

A charge goes through these states, every step durable before anything follows from it:

    pending   reserved for one delivery; its settlement may be under way
    queued    its bytes may have left (``optimistic``); its settlement is due
    settled   the money moved
    failed    the money did not move and never will by this attempt

A failed charge whose bytes left is a debt until ``made_good_by`` names the charge that paid it.
"""

from dataclasses import dataclass
from typing import Any, Literal

DEBTS = "/debts/"  # what the resources of payments of debts begin with

State = Literal["pending", "queued", "settled", "failed"]


@dataclass(frozen=True, slots=True)
class NewCharge:
    """A checked payment for one delivery; ``document`` and ``requirements`` are its wire forms."""

    scheme: str
    network: str
    asset: str
    payer: str
    nonce: str
    pay_to: str
    amount: int
    slug: str
    resource: str
    size: int
    valid_before: int
    document: dict[str, Any]
    requirements: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Charge(NewCharge):
    """A charge as the ledger holds it; ``tx_hash`` is the settling transaction."""

    id: int
    state: State
    delivered: bool
    tx_hash: str | None
    error: str | None
    created_at: float
    settled_at: float | None
    served_at: float | None
    made_good_by: int | None
    attempts: int
    in_doubt: bool

    @property
    def kind(self) -> str:
        """``transfer``: how a charge is brought to the chain."""
        return "transfer"

    @property
    def came_to_nothing(self) -> bool:
        """Whether no money moved for it and no byte left, so that it binds nobody."""
        return self.state == "failed" and not self.delivered

    @property
    def is_owed(self) -> bool:
        """Whether its bytes left and nothing has paid for them."""
        return self.state == "failed" and self.delivered and self.made_good_by is None


@dataclass(frozen=True, slots=True)
class Reservation:
    """What ``reserve`` found or made; ``created`` is true for exactly one caller a payment.

    ``charge`` is ``None`` when the payer must first pay the ``owed`` atomic units.
    """

    charge: Charge | None
    created: bool = False
    owed: int = 0


@dataclass(frozen=True, slots=True)
class Exposure:
    """Atomic units a payer may have open before it waits for the chain."""

    cap: int
    new_payer_cap: int


@dataclass(frozen=True, slots=True)
class Debt:
    """Atomic units of delivered bytes that failed settlements never paid to a payee."""

    pay_to: str
    amount: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Charges and atomic units of one state."""

    state: State
    count: int
    amount: int


def debt_resource(payer: str, pay_to: str) -> str:
    """The resource a payer buys to make good what it owes a payee."""
    return f"{DEBTS}{payer}/{pay_to.lower()}"


def is_debt(resource: str) -> bool:
    """Whether a charge's resource is a debt that is being paid."""
    return resource.startswith(DEBTS)
