"""Pure: sessions: their fields, their ends, their totals."""

from dataclasses import dataclass
from typing import Literal

Way = Literal["channel", "transfer", "credit"]


@dataclass(frozen=True, slots=True)
class Session:
    """A budget for one item; amounts are atomic units, times Unix seconds, addresses lower case.

    ``channel`` is the row of the channel that paid, ``None`` for ``exact``. ``returned`` is what
    was left when it ended.
    """

    id: int
    digest: str
    slug: str
    network: str
    asset: str
    payer: str
    pay_to: str
    channel: int | None
    budget: int
    drawn: int
    returned: int
    created_at: float
    expires_at: float
    closed_at: float | None

    @property
    def left(self) -> int:
        """What can still be drawn."""
        return self.budget - self.drawn - self.returned

    def is_over(self, now: float) -> bool:
        """Whether nothing can be drawn any more."""
        return self.closed_at is not None or self.expires_at <= now


@dataclass(frozen=True, slots=True)
class EndedSession:
    """A session that ended, and the way its rest goes back."""

    session: Session
    way: Way


@dataclass(frozen=True, slots=True)
class SessionTotals:
    """Sessions that have not ended, and the atomic units left in them."""

    count: int
    left: int
