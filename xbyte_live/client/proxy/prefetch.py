"""Adapter: buys segments ahead of the player and keeps them in memory for a while."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

import httpx2

from xbyte_live.client.http.transport import PAYMENT, QUOTED
from xbyte_live.client.payer.terms import Quoted, plain
from xbyte_live.client.playlists import Missing
from xbyte_live.client.proxy.rewrite import Resource
from xbyte_live.client.proxy.spend_meter import Meter
from xbyte_live.errors import DeliveryFailed, XByteError
from xbyte_live.money import MIB

AHEAD = 3  # segments
ROOM = 128 * MIB  # bytes of all that is kept
MOST = 64 * MIB  # bytes one thing may have

_CHUNK = 256 * 1024
_TRIES = 4  # of what is not paid for; the transport sees to what is
_FIRST_WAIT = 0.25  # seconds


class Prefetched:
    """Bytes on their way or here. ``size`` is all of them, once that is known."""

    def __init__(self, size: int | None) -> None:
        self.size = size
        self.media_type = ""
        self.data = bytearray()
        self.opened = False
        self.finished = False
        self.error: XByteError | None = None
        self.readers = 0
        self._news = asyncio.Event()

    def open(self, media_type: str, size: int | None) -> None:
        """The server hands it over."""
        self.opened, self.media_type = True, media_type
        self.size = size if self.size is None else self.size
        self._wake()

    def add(self, chunk: bytes) -> None:
        """More of it is here."""
        self.data += chunk
        self._wake()

    def end(self, error: XByteError | None = None) -> None:
        """All of it is here, or nothing more will be."""
        self.finished, self.error = True, error
        if error is None:
            self.size = len(self.data)
        self._wake()

    async def until_opened(self) -> None:
        """Return once the server hands it over; raises what went wrong."""
        while not self.opened and not self.finished:
            await self._news.wait()
        if not self.opened and self.error is not None:
            raise self.error

    async def until_finished(self) -> None:
        """Return once nothing more will come."""
        while not self.finished:
            await self._news.wait()

    async def read(self, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from ``start`` on, as they come; raises what went wrong."""
        self.readers += 1
        try:
            while stop is None or start < stop:
                end = min(len(self.data), start + _CHUNK, len(self.data) if stop is None else stop)
                if start < end:
                    yield bytes(self.data[start:end])
                    start = end
                elif self.error is not None:
                    raise self.error
                elif self.finished:
                    return
                else:
                    await self._news.wait()
        finally:
            self.readers -= 1

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


class Ahead:
    """Fetches segments of one ``item`` over a paying ``client``, each of them once while kept.

    After one that the player asked for, up to ``ahead`` more are bought, one after the other; no
    more while it does not ask, and after a seek only what follows the new place. What is being
    handed over is finished, as it is paid for. All together take about ``room`` bytes.
    """

    def __init__(
        self,
        client: httpx2.AsyncClient,
        item: str,
        meter: Meter,
        *,
        ahead: int = AHEAD,
        room: int = ROOM,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._item = item
        self._meter = meter
        self._ahead = ahead
        self._room = room
        self._clock = clock
        self._sleep = sleep
        self._kept: OrderedDict[str, Prefetched] = OrderedDict()  # by URL
        self._lists: dict[str, tuple[list[Resource], dict[str, int]]] = {}
        self._places: dict[str, int] = {}  # playlist: the index of what was asked for last
        self._fetching: set[asyncio.Task[None]] = set()
        self._looking = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many segments are here that the player will ask for next."""
        here = (self._kept.get(resource.url) for resource in self._window())
        return sum(bought is not None and bought.finished for bought in here)

    @property
    def held(self) -> int:
        """Bytes kept."""
        return sum(len(bought.data) for bought in self._kept.values())

    def knows(self, playlist: str) -> bool:
        """Whether it was told what a playlist lists."""
        return playlist in self._lists

    def note(self, playlist: str, listed: Mapping[str, Resource]) -> None:
        """This is what a playlist lists now; the player's place moves with the list."""
        resources = list(listed.values())
        _, before = self._lists.get(playlist, ([], {}))
        self._lists[playlist] = (resources, {r.url: at for at, r in enumerate(resources)})
        place = self._places.pop(playlist, None)
        gone = before.get(resources[0].url) if resources else None
        if place is not None and gone is not None:
            self._places[playlist] = place - gone  # below 0 if what it plays has left the list
        self._look()

    async def open(self, resource: Resource) -> Prefetched:
        """What the player asks for, bought unless it is kept; raises as the paying transport."""
        bought = self._kept.get(resource.url)
        if bought is None:
            bought = self._begin(resource)
        else:
            self._kept.move_to_end(resource.url)
        for playlist, (_, places) in self._lists.items():
            if resource.url in places:
                self._places[playlist] = places[resource.url]
        self._look()
        await bought.until_opened()
        return bought

    async def close(self) -> None:
        """Stop; nothing more is bought."""
        tasks = [*self._fetching, *([self._worker] if self._worker else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _look(self) -> None:
        self._looking.set()
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while True:
            await self._looking.wait()
            self._looking.clear()
            while (resource := self._missing()) is not None:
                bought = self._begin(resource)
                await bought.until_finished()
                if bought.error is not None:
                    break  # the player will ask for it, and be told why not

    def _window(self) -> Iterator[Resource]:
        """What the player will ask for next, in each playlist it plays."""
        for playlist, place in self._places.items():
            resources, _ = self._lists[playlist]
            yield from resources[max(0, place + 1) : max(0, place + 1 + self._ahead)]

    def _missing(self) -> Resource | None:
        wanted = 0
        for resource in self._window():
            bought = self._kept.get(resource.url)
            wanted += len(bought.data) if bought else resource.size or 0
            if bought is None:
                return resource if wanted <= self._room // 2 else None
        return None

    def _begin(self, resource: Resource) -> Prefetched:
        bought = self._kept[resource.url] = Prefetched(resource.size)
        task = asyncio.create_task(self._fetch(resource, bought))
        self._fetching.add(task)
        task.add_done_callback(self._fetching.discard)
        return bought

    async def _fetch(self, resource: Resource, bought: Prefetched) -> None:
        error: XByteError | None = DeliveryFailed("it was given up")
        try:
            await self._deliver(resource, bought)
            error = None
        except XByteError as refused:
            error = refused
        except httpx2.InvalidURL:
            error = DeliveryFailed("the playlist lists what is no URL")
        finally:
            bought.end(error)
            if error is not None and self._kept.get(resource.url) is bought:
                del self._kept[resource.url]  # so that asking again tries again
            self._trim()

    async def _deliver(self, resource: Resource, bought: Prefetched) -> None:
        for tried in range(1, _TRIES + 1):
            try:
                await self._stream(resource, bought)
            except httpx2.TransportError:
                if tried == _TRIES:
                    raise DeliveryFailed("the server does not answer, or breaks off") from None
                await self._sleep(_FIRST_WAIT * 2 ** (tried - 1))
            else:
                return

    async def _stream(self, resource: Resource, bought: Prefetched) -> None:
        quoted = Quoted(self._item, resource.size, resource.amount)
        async with self._client.stream(
            "GET", resource.url, extensions={QUOTED: quoted}
        ) as response:
            if response.status_code != 200:
                raise _no(response.status_code)
            if not bought.opened:
                payment = response.extensions.get(PAYMENT)
                self._meter.bought(payment.amount if payment else 0, self._clock())
                bought.open(plain(response.headers.get("content-type")), _length(response))
            skip, size = len(bought.data), 0
            async for chunk in response.aiter_raw():
                size += len(chunk)
                if size > MOST:
                    raise DeliveryFailed(f"it is larger than {MOST >> 20} MB")
                if size > skip:
                    fresh = chunk[-(size - skip) :] if size - len(chunk) < skip else chunk
                    self._meter.received(len(fresh))
                    bought.add(fresh)

    def _trim(self) -> None:
        """Forget the oldest, first of what the player will not ask for next."""
        over = self.held - self._room
        if over <= 0:
            return
        soon = {resource.url for resource in self._window()}
        order = sorted(self._kept, key=lambda url: url in soon)  # stable: else the oldest first
        for url in order:
            bought = self._kept[url]
            if over > 0 and bought.finished and not bought.readers:
                over -= len(bought.data)
                del self._kept[url]


def _no(status: int) -> DeliveryFailed:
    if status in (404, 410):
        return Missing(status)
    return DeliveryFailed(f"the server answered {status} for a segment")


def _length(response: httpx2.Response) -> int | None:
    value = response.headers.get("content-length", "")
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 17 else None
