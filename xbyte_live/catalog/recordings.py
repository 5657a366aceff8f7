"""Adapter: removes recordings that are too old or take too much room."""

import time
from collections.abc import Callable
from functools import partial

from xbyte_live.catalog.catalog import Catalog
from xbyte_live.catalog.sql import recordings as sql
from xbyte_live.storage.db.engine import Database


class Recordings:
    """Takes recordings off sale by age and total size; their bytes are deleted after the grace.

    ``max_age`` is in seconds, ``max_bytes`` counts all recordings together; 0 is no limit.
    """

    def __init__(
        self,
        database: Database,
        catalog: Catalog,
        *,
        max_age: float,
        max_bytes: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._max_age = max_age
        self._max_bytes = max_bytes
        self._clock = clock

    async def retain(self) -> list[str]:
        """Remove recordings over the limits, the oldest first; return their slugs."""
        found = await self._database.read(sql.recordings)
        total, removed = sum(size for _, _, size in found), []
        for slug, created_at, size in found:
            now = self._clock()
            too_old = self._max_age and now - created_at > self._max_age
            too_much = self._max_bytes and total > self._max_bytes
            if not (too_old or too_much):
                continue
            total -= size
            if await self._database.write(partial(sql.remove_recording, slug=slug, now=now)):
                await self._catalog.renew(slug)
                removed.append(slug)
        return removed
