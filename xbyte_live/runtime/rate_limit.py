"""Pure: how often a network may be wrong before that is no news; what counts as one network."""

from collections import OrderedDict, deque
from ipaddress import IPv6Address, IPv6Network, ip_address


class Attempts:
    """Failures by network within the last ``window`` seconds, of at most ``limit`` networks.

    ``now`` is of a clock that nobody sets.
    """

    def __init__(self, most: int, *, window: float = 60.0, limit: int = 10_000) -> None:
        self._most = most
        self._window = window
        self._limit = limit
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def exhausted(self, network: str, now: float) -> bool:
        """Whether a network has failed as often as it may."""
        failures = self._failures.get(network)
        if failures is None:
            return False
        while failures and now - failures[0] >= self._window:
            failures.popleft()
        if not failures:
            del self._failures[network]
        return len(failures) >= self._most

    def failed(self, network: str, now: float) -> None:
        """Count one failure."""
        failures = self._failures.setdefault(network, deque(maxlen=self._most))
        failures.append(now)
        self._failures.move_to_end(network)
        if len(self._failures) > self._limit:
            self._failures.popitem(last=False)


def network_of(address: str) -> str:
    """What one limit holds for: an IPv4 address, or an IPv6 network of 64 bits."""
    ip = ip_address(address)
    if isinstance(ip, IPv6Address):
        return str(ip.ipv4_mapped or IPv6Network((int(ip), 64), strict=False))
    return str(ip)
