"""Pure: the findings of an audit: disagreements, and the sums of each payee."""

from collections.abc import Sequence
from dataclasses import dataclass

KEPT = 10_000  # disagreements that are listed; beyond that they are only counted


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Two records of the same money that differ; amounts are atomic units (or counts).

    ``code`` names the check, ``about`` the row or channel, ``says`` is for people.
    """

    code: str
    about: str
    expected: int
    found: int
    says: str


@dataclass(frozen=True, slots=True)
class Sums:
    """What one payee's books hold of one scheme, in atomic units.

    ``count``: channels, or charges of ``exact``; ``claimed`` and ``settled``: as the chain has
    them where it was asked (other servers of the payee included), else as recorded;
    ``in_flight``: what is on its way and no disagreement.
    """

    scheme: str
    network: str
    asset: str
    pay_to: str
    count: int = 0
    charged: int = 0
    claimed: int = 0
    settled: int = 0
    in_flight: int = 0


@dataclass(frozen=True, slots=True)
class Audit:
    """The outcome; ``more`` disagreements were found than ``disagreements`` lists.

    ``unchecked`` says what could not be compared with the chain, and why; ``chain`` is false
    where nobody asked for it.
    """

    sums: Sequence[Sums]
    disagreements: Sequence[Disagreement]
    more: int
    chain: bool
    unchecked: Sequence[str]

    @property
    def is_clean(self) -> bool:
        """Whether nothing disagrees in what was checked."""
        return not self.disagreements


class Findings:
    """Collects disagreements in bounded memory."""

    def __init__(self) -> None:
        self.kept: list[Disagreement] = []
        self.more = 0

    def add(self, code: str, about: str, expected: int, found: int, says: str) -> None:
        """One more."""
        if len(self.kept) < KEPT:
            self.kept.append(Disagreement(code, about, expected, found, says))
        else:
            self.more += 1
