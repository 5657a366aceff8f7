"""Pure: failures per network within a window, and which addresses are one network."""

from collections import OrderedDict, deque
from ipaddress import IPv6Address, IPv6Network, ip_address


class RateLimiter:
    """Failures per network within a window.

    A network may fail ``most`` times within ``window`` seconds; at most ``limit`` networks are
    remembered. ``now`` is in seconds of a monotonic clock.
    """

    def __init__(self, most: int, *, window: float = 60.0, limit: int = 10_000) -> None:
        self._most = most
        self._window = window
        self._limit = limit
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def is_exhausted(self, network: str, now: float) -> bool:
        """Whether a network has failed as often as it may."""
        failures = self._failures.get(network)
        if failures is None:
            return False
        while failures and now - failures[0] >= self._window:
            failures.popleft()
        if not failures:
            del self._failures[network]
        return len(failures) >= self._most

    def count_failure(self, network: str, now: float) -> None:
        """Count one failure of a network."""
        failures = self._failures.setdefault(network, deque(maxlen=self._most))
        failures.append(now)
        self._failures.move_to_end(network)
        if len(self._failures) > self._limit:
            self._failures.popitem(last=False)


def network_of(address: str) -> str:
    """The network an address counts as: an IPv4 address alone, an IPv6 address with its /64.

    An IPv4 address written as IPv6 is the IPv4 address; what is no address is its own network.
    """
    try:
        ip = ip_address(address)
    except ValueError:  # a peer on a Unix socket has none
        return address
    if isinstance(ip, IPv6Address):
        return str(ip.ipv4_mapped or IPv6Network((int(ip), 64), strict=False))
    return str(ip)
