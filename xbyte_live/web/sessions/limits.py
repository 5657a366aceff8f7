"""Pure: a limit on the players and addresses of one token, against shared tokens."""

from collections import OrderedDict
from dataclasses import dataclass, field

from xbyte_live.runtime.rate_limit import network_of

WINDOW = 120.0  # seconds an address counts after it was last there
KNOWN = 16_384  # tokens whose players are remembered


@dataclass(slots=True)
class _Players:
    inside: int = 0
    last_seen: dict[str, float] = field(default_factory=dict)


class PlayerLimit:
    """Admits ``limit`` requests of one name at a time, from ``limit`` addresses a window.

    Times are seconds of any clock; IPv6 addresses of one /64 count as one.
    """

    def __init__(self, *, limit: int, window: float = WINDOW) -> None:
        self._limit = limit
        self._window = window
        self._by_name: OrderedDict[str, _Players] = OrderedDict()

    def enter(self, name: str, address: str, now: float) -> bool:
        """Whether one more request is admitted; if so, ``leave`` must follow."""
        players = self._by_name.setdefault(name, _Players())
        self._by_name.move_to_end(name)
        self._forget_others()
        seen = {a: at for a, at in players.last_seen.items() if now - at < self._window}
        place = network_of(address)
        if players.inside >= self._limit or (place not in seen and len(seen) >= self._limit):
            players.last_seen = seen
            return False
        players.last_seen = {**seen, place: now}
        players.inside += 1
        return True

    def leave(self, name: str) -> None:
        """An admitted request has ended."""
        players = self._by_name.get(name)
        if players is not None and players.inside:
            players.inside -= 1

    def _forget_others(self) -> None:
        while len(self._by_name) > KNOWN:
            self._by_name.popitem(last=False)
