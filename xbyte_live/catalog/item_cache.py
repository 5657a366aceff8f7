"""Adapter: items in memory, as the database had them a moment ago."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from xbyte_live.errors import XByteError
from xbyte_live.models import Item

_OWN = 3.0  # seconds


@dataclass(frozen=True, slots=True)
class CachedItem:
    """An item as it was when its row had ``version``."""

    item: Item
    version: int


@dataclass(frozen=True, slots=True)
class _Held:
    """``checked_at`` is when it was right, ``lasting`` for how many seconds that is believed."""

    cached: CachedItem
    checked_at: float
    lasting: float


class ItemCache:
    """The latest known item of each slug, at most ``limit`` of them, the longest unused dropped.

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
        self._looking: dict[str, asyncio.Task[Item | None]] = {}
        self._waiting: Counter[str] = Counter()
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._news: dict[str, asyncio.Future[None]] = {}

    async def get(self, slug: str) -> Item | None:
        """The item, at most ``refresh`` seconds old; the same object while nothing changed."""
        held = self._held.get(slug)
        if held is not None and 0 <= self._clock() - held.checked_at < held.lasting:
            self._held.move_to_end(slug)
            return held.cached.item
        looking = self._looking.get(slug)
        if looking is None:
            looking = self._looking[slug] = asyncio.create_task(self.renew(slug))
            looking.add_done_callback(lambda task: self._looked(slug, task))
        return await asyncio.shield(looking)  # a caller that gives up leaves it to the others

    async def changed(self, slug: str, known: Item) -> Item | None:
        """The item once it is another than ``known``; however many wait, one looks."""
        self._waiting[slug] += 1
        try:
            while (item := await self.get(slug)) is known:
                news = self._news.get(slug)
                if news is None:
                    news = self._news[slug] = asyncio.get_running_loop().create_future()
                if slug not in self._watching:
                    self._watching[slug] = asyncio.create_task(self._watch(slug))
                await asyncio.shield(news)
            return item
        finally:
            self._waiting[slug] -= 1
            if not self._waiting[slug]:
                del self._waiting[slug]

    async def _watch(self, slug: str) -> None:
        """Look for changes that other processes make, as long as somebody waits."""
        try:
            while slug in self._waiting:
                await asyncio.sleep(self._refresh)
                await self.get(slug)
        except XByteError:  # each of those who wait meets it too, and says so
            pass
        finally:
            del self._watching[slug]
            self._tell(slug)

    def _tell(self, slug: str) -> None:
        news = self._news.pop(slug, None)
        if news is not None and not news.done():
            news.set_result(None)

    async def renew(self, slug: str) -> Item | None:
        """The item as it is in the database now."""
        started = self._clock()
        held = self._held.get(slug)
        found = await self._load(slug, held.cached if held else None)
        if found is None:
            self._held.pop(slug, None)
            self._tell(slug)
            return None
        return self._keep(slug, _Held(found, started, self._refresh))

    def known(self, slug: str) -> Item | None:
        """The item as it was last seen, however long ago."""
        held = self._held.get(slug)
        return held.cached.item if held else None

    def put(self, slug: str, cached: CachedItem) -> None:
        """Take what this process has just made of an item itself.

        It is believed for longer, since its maker is the first to know when it changes.
        """
        self._keep(slug, _Held(cached, self._clock(), max(_OWN, self._refresh)))

    def _keep(self, slug: str, held: _Held) -> Item:
        newest = self._held.get(slug)
        if newest is not None and newest.cached.version > held.cached.version:
            return newest.cached.item  # a later look was quicker
        self._held[slug] = held
        self._held.move_to_end(slug)
        if newest is None or newest.cached.item is not held.cached.item:
            self._tell(slug)
        if len(self._held) > self._limit:
            self._held.popitem(last=False)
        return held.cached.item

    def _looked(self, slug: str, task: asyncio.Task[Item | None]) -> None:
        del self._looking[slug]
        if not task.cancelled():
            task.exception()  # whoever waited has it; if nobody did, it is no news
