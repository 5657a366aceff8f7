"""Adapter: the number of paying viewers of an item, counted at most once a second."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

from xbyte_live.payments.ledger.charges import ChargeLedger

PAYING_WITHIN = 60.0  # seconds
KEPT = 1.0  # seconds a count is good for
_ITEMS = 4_096  # whose counts are kept


class Audience:
    """Counts payers, at most once in ``KEPT`` seconds for each item and one item at a time."""

    def __init__(self, ledger: ChargeLedger, *, clock: Callable[[], float] = time.time) -> None:
        self._ledger = ledger
        self._clock = clock
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._counting = asyncio.Lock()

    async def paying(self, slug: str) -> int:
        """The number of payers of an item in the last ``PAYING_WITHIN`` seconds."""
        async with self._counting:
            now = self._clock()
            counted_at, count = self._counts.get(slug, (float("-inf"), 0))
            if not 0 <= now - counted_at < KEPT:
                count = await self._ledger.payers(slug, since=now - PAYING_WITHIN)
                self._counts[slug] = (now, count)
                self._counts.move_to_end(slug)
                if len(self._counts) > _ITEMS:
                    self._counts.popitem(last=False)
        return count
