"""Pure: the limits of what may be signed; all money here is in atomic units (six decimals)."""

from collections import deque

from xbyte_live.errors import BudgetExceeded
from xbyte_live.money import PRICE_DECIMALS, Price, format_decimal

MINUTE = 60.0
MAX_ITEMS = 256  # items of which it is remembered what they will cost


class TooSoon(BudgetExceeded):
    """The limit for one minute is used up; after ``wait`` seconds there is room again."""

    def __init__(self, message: str, wait: float) -> None:
        super().__init__(message)
        self.wait = wait


class Budget:
    """What may be signed: in all, for one item, for one request, per MB, and within a minute.

    Whatever was signed counts as spent, delivered or not, because it may be taken until the
    chain says otherwise. Of a channel that is the highest
    ceiling that was signed: what the server may claim, and no unit more. Money deposited into a
    channel is not spent but locked, until it is signed away, refunded or withdrawn; what is
    deposited never goes beyond ``total`` either (``deposit``).
    """

    def __init__(
        self,
        total: int,
        *,
        per_item: int | None = None,
        per_request: int | None = None,
        per_minute: int | None = None,
        max_price: Price | None = None,
    ) -> None:
        self.total = total
        self.per_item = per_item
        self.per_request = per_request
        self.per_minute = per_minute
        self.max_price = max_price
        self.deposited = 0
        self._signed = 0
        self._by_item: dict[str, int] = {}
        self._expected: dict[str, int] = {}
        self._latest: deque[tuple[float, int]] = deque()

    @property
    def signed(self) -> int:
        """What was signed so far."""
        return self._signed

    @property
    def left_to_deposit(self) -> int:
        """What may still be deposited, of all that was ever allowed."""
        return max(0, self.total - self.deposited)

    def left_for(self, item: str) -> int:
        """What may still be signed for an item."""
        left = self.total - self._signed
        if self.per_item is not None:
            left = min(left, self.per_item - self._by_item.get(item, 0))
        return max(0, left)

    def expect(self, item: str, cost: int) -> None:
        """Note what the rest of an item will cost, so that no more is deposited for it."""
        self._expected.pop(item, None)
        self._expected[item] = max(0, cost)
        while len(self._expected) > MAX_ITEMS:
            self._expected.pop(next(iter(self._expected)))

    def expected(self, item: str) -> int | None:
        """What the rest of an item will cost, or ``None`` if that is not known."""
        return self._expected.get(item)

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
        for limit, name in ((self.per_request, "one"), (self.per_minute, "one minute")):
            if limit is not None and cost > limit:
                raise BudgetExceeded(
                    f"this request costs {dollars(cost)}, above the limit of "
                    f"{dollars(limit)} for {name}"
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

    def check_pace(self, cost: int, now: float) -> None:
        """Raise ``TooSoon`` if ``cost`` on top of the last minute is above ``per_minute``."""
        if self.per_minute is None:
            return
        while self._latest and self._latest[0][0] <= now - MINUTE:
            self._latest.popleft()
        over = cost + sum(spent for _, spent in self._latest) - self.per_minute
        for at, spent in self._latest:
            if over <= 0:
                break
            over -= spent
            if over <= 0:
                raise TooSoon(
                    f"{dollars(self.per_minute)} was spent within a minute",
                    max(0.001, at + MINUTE - now),
                )

    def take(self, cost: int, item: str, now: float | None = None) -> None:
        """Count ``cost`` as spent, without a check; for the pace it is when that counts."""
        self._signed += cost
        self._by_item[item] = self._by_item.get(item, 0) + cost
        if self.per_minute is not None and now is not None and cost > 0:
            self._latest.append((now, cost))

    def deposit(self, amount: int) -> None:
        """Count ``amount`` as deposited into a channel."""
        self.deposited += amount


def dollars(cost: int) -> str:
    """Atomic units for people, such as ``$0.000716``."""
    return f"${format_decimal(cost, PRICE_DECIMALS)}"
