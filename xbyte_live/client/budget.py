"""Pure: how much may be signed for; all money here is in atomic units (six decimals)."""

from xbyte_live.errors import BudgetExceeded
from xbyte_live.money import PRICE_DECIMALS, Price, format_decimal


class Budget:
    """What may be signed: in all, for one item, for one request, and per MB.

    Whatever was signed counts as spent, delivered or not, because it may be taken until the
    chain says otherwise; only then does ``give_back`` free it.
    """

    def __init__(
        self,
        total: int,
        *,
        per_item: int | None = None,
        per_request: int | None = None,
        max_price: Price | None = None,
    ) -> None:
        self.total = total
        self.per_item = per_item
        self.per_request = per_request
        self.max_price = max_price
        self._signed = 0
        self._by_item: dict[str, int] = {}

    @property
    def signed(self) -> int:
        """What was signed so far."""
        return self._signed

    def left_for(self, item: str) -> int:
        """What may still be signed for an item."""
        left = self.total - self._signed
        if self.per_item is not None:
            left = min(left, self.per_item - self._by_item.get(item, 0))
        return max(0, left)

    def require(self, cost: int, item: str) -> None:
        """Raise ``BudgetExceeded`` unless ``cost`` may still be signed for ``item``."""
        left = self.left_for(item)
        if cost > left:
            limit = self.total if self.per_item is None else min(self.total, self.per_item)
            raise BudgetExceeded(
                f"this costs {dollars(cost)}, and {dollars(left)} is left of the budget of "
                f"{dollars(limit)}"
            )

    def check_delivery(self, cost: int, *, size: int | None) -> None:
        """Raise ``BudgetExceeded`` if one delivery of ``size`` bytes may not cost this much."""
        if self.per_request is not None and cost > self.per_request:
            raise BudgetExceeded(
                f"this request costs {dollars(cost)}, above the limit of "
                f"{dollars(self.per_request)} for one"
            )
        if self.max_price is None:
            return
        if size is None:
            raise BudgetExceeded(
                f"its size is not known, so neither is whether {dollars(cost)} is within "
                f"${self.max_price} per MB"
            )
        if cost > self.max_price.amount_for(size):
            raise BudgetExceeded(
                f"{dollars(cost)} for {size} bytes is above the limit of ${self.max_price} per MB"
            )

    def take(self, cost: int, item: str) -> None:
        """Count ``cost`` as spent, without a check."""
        self._signed += cost
        self._by_item[item] = self._by_item.get(item, 0) + cost

    def give_back(self, cost: int, item: str) -> None:
        """Free what was signed and can be proved never to have moved."""
        self.take(-cost, item)


def dollars(cost: int) -> str:
    """Atomic units for people, such as ``$0.000716``."""
    return f"${format_decimal(cost, PRICE_DECIMALS)}"
