"""Adapter: the hottest values of a store, in memory, bounded by their bytes."""

import asyncio
from collections import OrderedDict

from xbyte_live.storage.blobs.store import Store


class SegmentCache:
    """Whole values by key, the longest unused dropped first.

    A key must always hold the same bytes, as segment keys do. ``hits`` and ``misses`` count
    calls; ``bytes`` is what is held now, never more than ``limit_bytes``.
    """

    def __init__(self, store: Store, limit_bytes: int) -> None:
        self._store = store
        self._limit = limit_bytes
        self._held: OrderedDict[str, bytes] = OrderedDict()
        self._loading: dict[str, asyncio.Task[bytes]] = {}
        self.hits = 0
        self.misses = 0
        self.bytes = 0

    async def get(self, key: str) -> bytes:
        """The bytes of ``key``, read once however many ask; raises ``StoreError``."""
        found = self._held.get(key)
        if found is not None:
            self._held.move_to_end(key)
            self.hits += 1
            return found
        self.misses += 1
        loading = self._loading.get(key)
        if loading is None:
            loading = self._loading[key] = asyncio.create_task(self._store.read(key))
            loading.add_done_callback(lambda task: self._loaded(key, task))
        return await asyncio.shield(loading)  # a caller that gives up leaves it to the others

    def _loaded(self, key: str, task: asyncio.Task[bytes]) -> None:
        del self._loading[key]
        if task.cancelled() or task.exception() is not None:
            return
        data = task.result()
        if len(data) > self._limit:
            return
        self._held[key] = data
        self.bytes += len(data)
        while self.bytes > self._limit:
            self.bytes -= len(self._held.popitem(last=False)[1])
