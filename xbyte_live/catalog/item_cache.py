"""Adapter: caches items in memory, and wakes those who wait for one to change."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from xbyte_live.errors import XByteError
from xbyte_live.models import Item

_OWN = 3.0  # seconds


@dataclass(frozen=True, slots=True)
class CachedItem:
    """An item with the version of its row."""

    item: Item
    version: int


@dataclass(frozen=True, slots=True)
class _Held:
    """A cached item, checked at ``checked_at`` and trusted for ``lasting`` seconds."""

    cached: CachedItem
    checked_at: float
    lasting: float


class ItemCache:
    """The latest items, at most ``limit``; the least recently used is dropped.

    ``load`` reads the item of a slug, or ``None``; it returns the cached item it is given while
    that is current. It runs at most every ``refresh`` seconds a slug, once however many wait.
    """

    def __init__(
        self,
        load: Callable[[str, CachedItem | None], Awaitable[CachedItem | None]],
        *,
        limit: int,
        refresh: float,
        clock: Callable[[], float],
    ) -> None:
        self._load = load
        self._limit = limit
        self._refresh = refresh
        self._clock = clock
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._reading: dict[str, asyncio.Task[Item | None]] = {}
        self._waiting: Counter[str] = Counter()
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._changed: dict[str, asyncio.Future[None]] = {}

    async def get(self, slug: str) -> Item | None:
        """The item, at most ``refresh`` seconds old; the same object while nothing changed."""
        held = self._held.get(slug)
        if held is not None and 0 <= self._clock() - held.checked_at < held.lasting:
            self._held.move_to_end(slug)
            return held.cached.item
        reading = self._reading.get(slug)
        if reading is None:
            reading = self._reading[slug] = asyncio.create_task(self.renew(slug))
            reading.add_done_callback(lambda task: self._read_done(slug, task))
        return await asyncio.shield(reading)  # a caller that gives up leaves it to the others

    async def changed(self, slug: str, known: Item) -> Item | None:
        """Wait until the item is not ``known``, and return it; one task polls for all."""
        self._waiting[slug] += 1
        try:
            while (item := await self.get(slug)) is known:
                changed = self._changed.get(slug)
                if changed is None:
                    changed = self._changed[slug] = asyncio.get_running_loop().create_future()
                if slug not in self._watching:
                    self._watching[slug] = asyncio.create_task(self._watch(slug))
                await asyncio.shield(changed)
            return item
        finally:
            self._waiting[slug] -= 1
            if not self._waiting[slug]:
                del self._waiting[slug]

    async def _watch(self, slug: str) -> None:
        """Poll for changes by other processes, as long as somebody waits."""
        try:
            while slug in self._waiting:
                await asyncio.sleep(self._refresh)
                await self.get(slug)
        except XByteError:  # each of those who wait meets it too
            pass
        finally:
            del self._watching[slug]
            self._wake(slug)

    def _wake(self, slug: str) -> None:
        changed = self._changed.pop(slug, None)
        if changed is not None and not changed.done():
            changed.set_result(None)

    async def renew(self, slug: str) -> Item | None:
        """Read the item from the database now."""
        started = self._clock()
        held = self._held.get(slug)
        found = await self._load(slug, held.cached if held else None)
        if found is None:
            self._held.pop(slug, None)
            self._wake(slug)
            return None
        return self._keep(slug, _Held(found, started, self._refresh))

    def known(self, slug: str) -> Item | None:
        """The cached item, however old."""
        held = self._held.get(slug)
        return held.cached.item if held else None

    def put(self, slug: str, cached: CachedItem) -> None:
        """Cache an item that this process has just written.

        It is trusted for longer, since its writer is the first to change it.
        """
        self._keep(slug, _Held(cached, self._clock(), max(_OWN, self._refresh)))

    def _keep(self, slug: str, held: _Held) -> Item:
        newest = self._held.get(slug)
        if newest is not None and newest.cached.version > held.cached.version:
            return newest.cached.item  # a later read was quicker
        self._held[slug] = held
        self._held.move_to_end(slug)
        if newest is None or newest.cached.item is not held.cached.item:
            self._wake(slug)
        if len(self._held) > self._limit:
            self._held.popitem(last=False)
        return held.cached.item

    def _read_done(self, slug: str, task: asyncio.Task[Item | None]) -> None:
        del self._reading[slug]
        if not task.cancelled():
            task.exception()  # those who waited have it
