"""Pure: how often an address may be wrong before it is not listened to."""

from collections import OrderedDict, deque


class Attempts:
    """Failures by address within the last ``window`` seconds, of at most ``limit`` addresses."""

    def __init__(self, most: int, *, window: float = 60.0, limit: int = 10_000) -> None:
        self._most = most
        self._window = window
        self._limit = limit
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def exhausted(self, address: str, now: float) -> bool:
        """Whether an address has failed as often as it may."""
        failures = self._failures.get(address)
        if failures is None:
            return False
        while failures and now - failures[0] >= self._window:
            failures.popleft()
        if not failures:
            del self._failures[address]
        return len(failures) >= self._most

    def failed(self, address: str, now: float) -> None:
        """Count one failure."""
        failures = self._failures.setdefault(address, deque(maxlen=self._most))
        failures.append(now)
        self._failures.move_to_end(address)
        if len(self._failures) > self._limit:
            self._failures.popitem(last=False)
