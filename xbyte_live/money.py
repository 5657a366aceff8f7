"""Pure: amounts, assets and prices as exact integers.

An *amount* is an ``int`` of atomic units of an asset. A *price* is a ``Price``: atomic units
per MiB at six decimals (one unit is a millionth of a dollar). One MB in every UI and document
of this project is 1,048,576 bytes.
"""

import re
from dataclasses import dataclass

from xbyte_live.errors import MoneyError

MIB = 2**20
PRICE_DECIMALS = 6
MAX_AMOUNT = 2**63 - 1  # what both databases hold in one integer column

_DECIMAL = re.compile(r"(?P<whole>[0-9]{1,18})(?:\.(?P<fraction>[0-9]{1,18}))?")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")


@dataclass(frozen=True, slots=True)
class Asset:
    """A token on one network that prices are paid in (EIP-3009 capable, dollar-pegged).

    ``network`` is CAIP-2, ``address`` the contract, ``name`` and ``version`` its EIP-712 domain.
    Raises ``MoneyError`` unless it has six decimals: one atomic unit is what a price counts in.
    """

    network: str
    address: str
    name: str
    version: str
    decimals: int
    symbol: str

    def __post_init__(self) -> None:
        if self.decimals != PRICE_DECIMALS:
            raise MoneyError(
                f"{self.symbol} has {self.decimals} decimals; prices need {PRICE_DECIMALS}"
            )

    @property
    def chain_id(self) -> int:
        """The EVM chain id in ``network``."""
        return int(self.network.removeprefix("eip155:"))


@dataclass(frozen=True, slots=True, order=True)
class Price:
    """What one MiB costs, in millionths of a dollar (``Price(1000)`` is $0.001 per MB)."""

    per_mib: int

    def __post_init__(self) -> None:
        if not 0 <= self.per_mib <= 10**15:
            raise MoneyError("a price lies between 0 and 1,000,000,000 dollars per MB")

    @classmethod
    def parse(cls, text: str) -> "Price":
        """Read a decimal number of dollars per MB, such as ``0.001``.

        Raises ``MoneyError`` when it is no plain decimal or finer than a millionth.
        """
        return cls(parse_decimal(text, PRICE_DECIMALS))

    def __str__(self) -> str:
        return format_decimal(self.per_mib, PRICE_DECIMALS)

    @property
    def is_free(self) -> bool:
        """Whether bytes at this price cost nothing."""
        return self.per_mib == 0

    def amount_for(self, size: int) -> int:
        """What ``size`` bytes cost in atomic units of any asset taken.

        ``max(1, ceil(size × price / 2**20))``; 0 only for a free price or no bytes at all.
        Raises ``MoneyError`` for a negative size or an amount beyond ``MAX_AMOUNT``.
        """
        if size < 0:
            raise MoneyError("a size in bytes cannot be negative")
        amount = -(-size * self.per_mib // MIB)
        if amount > MAX_AMOUNT:
            raise MoneyError("this many bytes at this price exceed what one payment can carry")
        return amount


def is_address(text: str) -> bool:
    """Whether a text is the address of an account or contract: 0x and 40 hex digits."""
    return _ADDRESS.fullmatch(text) is not None


def parse_decimal(text: str, decimals: int) -> int:
    """Read a plain decimal such as ``0.05`` as an integer of ``10**-decimals`` units, exactly.

    A leading ``$`` is allowed. Raises ``MoneyError`` when it is not a plain decimal number or
    has more digits than ``decimals``.
    """
    match = _DECIMAL.fullmatch(text.strip().removeprefix("$"))
    if match is None:
        raise MoneyError(f"{text[:40]!r} is not a decimal number such as 0.001")
    fraction = (match["fraction"] or "").rstrip("0")
    if len(fraction) > decimals:
        raise MoneyError(f"{text[:40]!r} is finer than {decimals} decimals allow")
    return int(match["whole"] + fraction.ljust(decimals, "0"))


def format_decimal(amount: int, decimals: int) -> str:
    """Write an integer of ``10**-decimals`` units as a plain decimal without trailing zeros."""
    sign = "-" if amount < 0 else ""
    whole, fraction = divmod(abs(amount), 10**decimals)
    digits = str(fraction).rjust(decimals, "0").rstrip("0") if decimals else ""
    return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"
