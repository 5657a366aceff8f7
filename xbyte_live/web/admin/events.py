"""Adapter: live figures for open pages, as server-sent events (the HTML standard, 9.2)."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from xbyte_live.catalog.catalog import Catalog
from xbyte_live.catalog.item_json import stream_json
from xbyte_live.errors import Overloaded, XByteError
from xbyte_live.models import Stream
from xbyte_live.payments.reports.earnings import Earnings, Lately, Period
from xbyte_live.web.admin.auth import Guard
from xbyte_live.web.admin.reports import money
from xbyte_live.web.common.responses import NO_STORE

EVERY = 2.0  # seconds between two figures
WINDOW = 60  # seconds they are about
HEARTBEAT = 15.0  # seconds without news after which a comment is sent
LASTS = 900.0  # seconds until a page has to ask again, and to show that it still may

_MEDIA_TYPE = "text/event-stream"
_BEAT = b": still here\n\n"


class Events:
    """``GET /api/v1/events`` for at most ``subscribers`` pages, which share one reading.

    ``leaving`` ends them, so that no page delays the end of the server.
    """

    def __init__(
        self,
        earnings: Earnings,
        catalog: Catalog,
        *,
        subscribers: int,
        leaving: asyncio.Event,
        every: float = EVERY,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._earnings = earnings
        self._catalog = catalog
        self._limit = subscribers
        self._leaving = leaving
        self._every = every
        self._clock = clock
        self._figures = b""
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        self.subscribers = 0

    def routes(self, guard: Guard) -> list[Route]:
        """Its route, guarded also while a page stays subscribed."""

        async def stream(request: Request) -> Response:
            return await self.stream(request, guard)

        return [guard.route("/api/v1/events", stream)]

    async def stream(self, request: Request, guard: Guard) -> Response:
        """An event at once and at every change, until the login ends; raises ``Overloaded``."""
        headers = {**NO_STORE, "x-accel-buffering": "no"}
        if request.method == "HEAD":
            return Response(None, 200, headers, _MEDIA_TYPE)
        if self.subscribers >= self._limit:
            raise Overloaded("too many pages follow the live figures; close one")
        self.subscribers += 1
        return _Subscription(self._follow(request, guard), headers, self._leave)

    def _leave(self) -> None:
        self.subscribers -= 1

    async def _follow(self, request: Request, guard: Guard) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        begun = heard = loop.time()
        last = b""
        yield f"retry: {int(self._every * 1000)}\n\n".encode()
        while not self._leaving.is_set() and loop.time() - begun < LASTS:
            with suppress(XByteError):  # the database is away: the page hears of it elsewhere
                if await guard.refusal(request) is not None:
                    return  # logged out in the meantime
                figures = await self._read()
                if figures != last:
                    yield b"event: figures\ndata: " + figures + b"\n\n"
                    last, heard = figures, loop.time()
            if loop.time() - heard >= HEARTBEAT:
                yield _BEAT
                heard = loop.time()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._leaving.wait()

    async def _read(self) -> bytes:
        """The figures as JSON, read once for all pages."""
        loop = asyncio.get_running_loop()
        async with self._reading:
            if loop.time() - self._read_at >= self._every * 0.9:
                self._figures = await self._now()
                self._read_at = loop.time()
        return self._figures

    async def _now(self) -> bytes:
        now = self._clock()
        total, *lately = await self._earnings.lately(Period(now - WINDOW, now + 1))
        found = [item for item in await self._catalog.items() if isinstance(item, Stream)]
        told: dict[str, Any] = {
            "window_s": WINDOW,
            "total": _lately(total),
            "items": [{"slug": one.slug, **_lately(one)} for one in lately],
            "streams": [stream_json(stream, now) for stream in found],
        }
        return json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode()


class _Subscription(StreamingResponse):
    """A response that calls ``over`` when it has ended, for whatever reason."""

    def __init__(
        self,
        content: AsyncIterator[bytes],
        headers: dict[str, str],
        over: Callable[[], None],
    ) -> None:
        super().__init__(content, 200, headers, _MEDIA_TYPE)
        self._over = over

    async def __call__(self, *asgi: Any) -> None:
        try:
            await super().__call__(*asgi)
        finally:
            self._over()


def _lately(lately: Lately) -> dict[str, Any]:
    earned = lately.earned
    counts = {"deliveries": earned.deliveries, "bytes": earned.bytes, "payers": lately.payers}
    return {**counts, **money(earned.amount)}
