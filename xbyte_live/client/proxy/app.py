"""Adapter: the local paying proxy of one priced item, for any HLS player; an ASGI application.

It answers on loopback only, to whoever knows its secret, and fetches nothing but that item.
"""

import asyncio
import hmac
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol
from urllib.parse import parse_qsl

import httpx2

from xbyte_live.client.http.purchase import Patience
from xbyte_live.client.http.transport import PayingTransport
from xbyte_live.client.payer.channel_lock import ChannelStore, ReadChannel
from xbyte_live.client.payer.payer import Payer
from xbyte_live.client.payer.terms import item_of
from xbyte_live.client.pieces import Scope
from xbyte_live.client.playlists import Missing, PlaylistReader, Selection
from xbyte_live.client.proxy.http import (
    Message,
    ProxyResponse,
    Receive,
    Send,
    head_answer,
    is_range,
    plain_answer,
    say,
    span_of,
)
from xbyte_live.client.proxy.prefetch import AHEAD, ROOM, Ahead
from xbyte_live.client.proxy.rewrite import Resource, Rewritten, rewrite, wanted_variants
from xbyte_live.client.proxy.spend_meter import Meter, Spent
from xbyte_live.errors import (
    BudgetExceeded,
    ChannelDistrusted,
    PaymentPending,
    PaymentRefused,
    TermsRefused,
    XByteError,
)
from xbyte_live.media.formats.playlist import is_multivariant

ENTRY = "index.m3u8"
MAX_NAMES = 100_000  # resources that are remembered as listed

_SECRET_BYTES = 24
_TIMEOUT = httpx2.Timeout(60.0, connect=10.0)  # a server may wait for the chain before it answers
_PLAYLIST = "application/vnd.apple.mpegurl"
_DIRECTIVES = ("_HLS_msn", "_HLS_part")


class Watch(Protocol):
    """Shows the payer why playback stopped."""

    def stopped(self, reason: str) -> None:
        """Show the reason for which the player was refused."""


@dataclass(frozen=True, slots=True)
class ProxyOptions:
    """Which part of the item is played and how; with ``best`` only its best rendition."""

    wanted: Selection = field(default_factory=Selection)
    best: bool = False
    ahead: int = AHEAD
    room: int = ROOM
    patience: Patience = field(default_factory=Patience)
    allow_plain_http: bool = False


class Proxy:
    """One item on loopback; ``path`` is where its playlist is, ``spent`` what it has cost."""

    def __init__(
        self,
        entry: str,
        scope: Scope,
        payer: Payer,
        reader: PlaylistReader,
        ahead: Ahead,
        meter: Meter,
        watch: Watch,
        options: ProxyOptions,
        *,
        authorities: frozenset[str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._secret = secrets.token_urlsafe(_SECRET_BYTES)
        self._prefix = f"/{self._secret}/"
        self._scope = scope
        self._payer = payer
        self._reader = reader
        self._ahead = ahead
        self._meter = meter
        self._watch = watch
        self._options = options
        self._authorities = authorities
        self._clock = clock
        self._known: dict[str, Resource] = {ENTRY: Resource(entry, "playlist")}

    @property
    def path(self) -> str:
        """Where the player finds the playlist."""
        return self._prefix + ENTRY

    @property
    def spent(self) -> Spent:
        """How it stands now."""
        return self._meter.read(self._clock(), self._ahead.waiting)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3, HTTP)."""
        assert scope["type"] == "http", "served without lifespan and WebSocket"
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        resource = self._asked_for(scope, headers)
        if isinstance(resource, ProxyResponse):
            await say(send, resource, scope["method"])
            return
        try:
            if resource.kind == "playlist":
                query = scope.get("query_string", b"").decode("latin-1")
                answer = await self._playlist(resource, query)
                await say(send, answer, scope["method"])
            elif scope["method"] == "HEAD":
                await say(send, head_answer(resource.size), "HEAD")  # a look must not cost anything
            else:
                await self._hand_over(resource, headers, send)
        except XByteError as error:
            if not isinstance(error, Missing):
                self._watch.stopped(str(error))
            await say(send, _refusal(error), scope["method"])

    def _asked_for(self, scope: Message, headers: Mapping[str, str]) -> Resource | ProxyResponse:
        """What a request is for, or why there is no answer to it."""
        if headers.get("host", "").lower() not in self._authorities:
            return plain_answer(403, "this answers to players of this machine only")
        _, _, rest = str(scope["path"]).partition("/")
        secret, _, name = rest.partition("/")
        if not hmac.compare_digest(secret.encode("utf-8", "replace"), self._secret.encode()):
            return plain_answer(404, "there is nothing here")
        if scope["method"] not in ("GET", "HEAD"):
            return ProxyResponse(405, {"allow": "GET, HEAD"})
        resource = self._known.get(name)
        if resource is None:
            return plain_answer(404, "no playlist has listed this")
        if name != ENTRY:
            self._known[name] = self._known.pop(name)
        return resource

    async def _playlist(self, resource: Resource, query: str) -> ProxyResponse:
        asked = {k: v for k, v in parse_qsl(query) if k in _DIRECTIVES and v.isdecimal()}
        base, text = await self._reader.playlist(resource.url, self._scope, asked)
        variants = None
        if is_multivariant(text):
            wanted, best = self._options.wanted, self._options.best
            variants = wanted_variants(
                text, rendition=wanted.rendition, max_bandwidth=wanted.max_bandwidth, best=best
            )
        page = rewrite(text, base, self._scope, self._prefix, variants=variants)
        self._note(resource, page)
        return ProxyResponse(200, {"content-type": _PLAYLIST}, page.text.encode())

    def _note(self, playlist: Resource, page: Rewritten) -> None:
        for name, resource in page.resources.items():
            self._known.pop(name, None)
            self._known[name] = resource
        while len(self._known) > MAX_NAMES:
            del self._known[next(islice(self._known, 1, None))]  # after the entry: oldest first
        if page.listed:
            if page.ended and not self._ahead.knows(playlist.url):
                cost = sum(resource.amount or 0 for resource in page.listed.values())
                self._payer.budget.expect(item_of(playlist.url), cost)
            self._ahead.note(playlist.url, page.listed)

    async def _hand_over(self, resource: Resource, headers: Mapping[str, str], send: Send) -> None:
        bought = await self._ahead.open(resource)
        wanted = headers.get("range") if "if-range" not in headers else None
        if wanted is not None and bought.size is None:
            await bought.until_finished()
        span = span_of(wanted, bought.size)
        if span is None:
            size = {"content-range": f"bytes */{bought.size}"}
            await say(send, ProxyResponse(416, size), "GET")
            return
        start, stop = span
        shown = {
            "content-type": bought.media_type or "application/octet-stream",
            "accept-ranges": "bytes",
        }
        if stop is not None:
            shown["content-length"] = str(stop - start)
        partial = wanted is not None and is_range(wanted)
        if partial and stop is not None:
            shown["content-range"] = f"bytes {start}-{stop - 1}/{bought.size}"
        await send(ProxyResponse(206 if partial else 200, shown).start)
        try:
            async for chunk in bought.read(start, stop):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except XByteError as error:
            self._watch.stopped(str(error))
            return  # what was promised cannot be kept: the server breaks the connection off
        await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def open_proxy(
    url: str,
    payer: Payer,
    authorities: frozenset[str],
    watch: Watch,
    *,
    options: ProxyOptions | None = None,
    store: ChannelStore | None = None,
    read_channel: ReadChannel | None = None,
    inner: httpx2.AsyncBaseTransport | None = None,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncIterator[Proxy]:
    """A proxy for the item of a playlist or watch page, paid by ``payer``.

    ``authorities`` are the values of ``Host`` it answers to. All requests go over ``inner``,
    which is closed in the end. Raises ``ConfigError`` when the URL is of no playlist and
    ``DeliveryFailed`` when its server does not answer.
    """
    options = options or ProxyOptions()
    async with inner or httpx2.AsyncHTTPTransport() as inner:
        reader = PlaylistReader(httpx2.AsyncClient(transport=inner, timeout=_TIMEOUT), sleep=sleep)
        entry, scope = await reader.find(url)
        terms = await reader.terms(entry)
        if terms is not None:
            payer.learn(item_of(entry), terms)
        paying = PayingTransport(
            payer,
            inner,
            store=store,
            read_channel=read_channel,
            patience=options.patience,
            allow_plain_http=options.allow_plain_http,
            clock=clock,
            sleep=sleep,
        )
        meter = Meter(payer.budget.total)
        ahead = Ahead(
            httpx2.AsyncClient(transport=paying, timeout=_TIMEOUT),
            item_of(entry),
            meter,
            ahead=options.ahead,
            room=options.room,
            clock=clock,
            sleep=sleep,
        )
        try:
            yield Proxy(
                entry, scope, payer, reader, ahead, meter, watch, options,
                authorities=authorities, clock=clock,
            )  # fmt: skip
        finally:
            await ahead.close()


def _refusal(error: XByteError) -> ProxyResponse:
    match error:
        case Missing():
            return plain_answer(error.status, str(error))
        case BudgetExceeded() | PaymentRefused():
            return plain_answer(402, str(error))
        case TermsRefused() | ChannelDistrusted():
            return plain_answer(403, str(error))
        case PaymentPending():
            return plain_answer(503, str(error), {"retry-after": str(error.retry_after)})
        case _:
            return plain_answer(502, str(error))
