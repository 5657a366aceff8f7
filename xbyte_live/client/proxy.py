"""Adapter: lets any HLS player on this machine play one priced item; an ASGI application.

It answers on loopback only, to whoever knows its secret, and fetches nothing but that item.
"""

import asyncio
import hmac
import ipaddress
import re
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qsl

import httpx

from xbyte_live.client.ahead import AHEAD, ROOM, Ahead, Missing
from xbyte_live.client.payer import Payer, item_of
from xbyte_live.client.purchase import Patience
from xbyte_live.client.rewriting import Resource, Rewritten, Scope, rewrite, wanted_variants
from xbyte_live.client.spending import Meter, Spent
from xbyte_live.client.survey import Wanted
from xbyte_live.client.transport import PayingTransport
from xbyte_live.client.turns import ReadChannel, Store
from xbyte_live.client.upstream import Upstream
from xbyte_live.errors import (
    BudgetExceeded,
    ChannelDistrusted,
    ConfigError,
    PaymentPending,
    PaymentRefused,
    TermsRefused,
    XByteError,
)
from xbyte_live.media.playlist import is_multivariant

ENTRY = "index.m3u8"
MAX_NAMES = 100_000  # resources that are remembered as listed

_SECRET_BYTES = 24
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)  # a server may wait for the chain before it answers
_PLAYLIST = "application/vnd.apple.mpegurl"
_DIRECTIVES = ("_HLS_msn", "_HLS_part")
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]


class Watch(Protocol):
    """Is told what the one who pays must know."""

    def stopped(self, reason: str) -> None:
        """The player was refused something, and why."""


@dataclass(frozen=True, slots=True)
class ProxyOptions:
    """What of the item is played and how; ``best`` leaves the player one rendition alone."""

    wanted: Wanted = field(default_factory=Wanted)
    best: bool = False
    ahead: int = AHEAD
    room: int = ROOM
    patience: Patience = field(default_factory=Patience)
    allow_plain_http: bool = False


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: dict[str, str]
    body: bytes = b""


class Proxy:
    """One item on loopback; ``path`` is where its playlist is, ``spent`` what it has cost."""

    def __init__(
        self,
        entry: str,
        scope: Scope,
        payer: Payer,
        upstream: Upstream,
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
        self._upstream = upstream
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
        if isinstance(resource, _Answer):
            await _say(send, resource, scope["method"])
            return
        try:
            if resource.kind == "playlist":
                query = scope.get("query_string", b"").decode("latin-1")
                answer = await self._playlist(resource, query)
                await _say(send, answer, scope["method"])
            elif scope["method"] == "HEAD":
                await _say(send, _head(resource), "HEAD")  # a look must not cost anything
            else:
                await self._hand_over(resource, headers, send)
        except XByteError as error:
            if not isinstance(error, Missing):
                self._watch.stopped(str(error))
            await _say(send, _refusal(error), scope["method"])

    def _asked_for(self, scope: Message, headers: Mapping[str, str]) -> Resource | _Answer:
        """What a request is for, or why there is no answer to it."""
        if headers.get("host", "").lower() not in self._authorities:
            return _text(403, "this answers to players of this machine only")
        _, _, rest = str(scope["path"]).partition("/")
        secret, _, name = rest.partition("/")
        if not hmac.compare_digest(secret.encode("utf-8", "replace"), self._secret.encode()):
            return _text(404, "there is nothing here")
        if scope["method"] not in ("GET", "HEAD"):
            return _Answer(405, {"allow": "GET, HEAD"})
        return self._known.get(name) or _text(404, "no playlist has listed this")

    async def _playlist(self, resource: Resource, query: str) -> _Answer:
        asked = {k: v for k, v in parse_qsl(query) if k in _DIRECTIVES and v.isdecimal()}
        base, text = await self._upstream.playlist(resource.url, self._scope, asked)
        variants = None
        if is_multivariant(text):
            wanted, best = self._options.wanted, self._options.best
            variants = wanted_variants(
                text, rendition=wanted.rendition, max_bandwidth=wanted.max_bandwidth, best=best
            )
        page = rewrite(text, base, self._scope, self._prefix, variants=variants)
        self._note(resource, page)
        headers = {"content-type": _PLAYLIST, "cache-control": "no-store"}
        return _Answer(200, headers, page.text.encode())

    def _note(self, playlist: Resource, page: Rewritten) -> None:
        for name, resource in page.resources.items():
            self._known.pop(name, None)
            self._known[name] = resource
        for name in list(self._known)[1 : len(self._known) - MAX_NAMES]:
            del self._known[name]  # listed longest ago
        if page.listed:
            if page.ended and not self._ahead.lists(playlist.url):
                cost = sum(resource.amount or 0 for resource in page.listed.values())
                self._payer.expect(item_of(playlist.url), cost)
            self._ahead.list(playlist.url, page.listed)

    async def _hand_over(self, resource: Resource, headers: Mapping[str, str], send: Send) -> None:
        bought = await self._ahead.open(resource)
        wanted = headers.get("range") if "if-range" not in headers else None
        if wanted is not None and bought.size is None:
            await bought.until_finished()
        span = _span(wanted, bought.size)
        if span is None:
            size = {"content-range": f"bytes */{bought.size}"}
            await _say(send, _Answer(416, size), "GET")
            return
        start, stop = span
        shown = {
            "content-type": bought.media_type or "application/octet-stream",
            "cache-control": "no-store",
            "accept-ranges": "bytes",
        }
        if stop is not None:
            shown["content-length"] = str(stop - start)
        partial = wanted is not None and _RANGE.fullmatch(wanted) is not None
        if partial and stop is not None:
            shown["content-range"] = f"bytes {start}-{stop - 1}/{bought.size}"
        await send(_start(_Answer(206 if partial else 200, shown)))
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
    store: Store | None = None,
    read_channel: ReadChannel | None = None,
    inner: httpx.AsyncBaseTransport | None = None,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncIterator[Proxy]:
    """A proxy for the item of a playlist or watch page, paid by ``payer``.

    ``authorities`` are the values of ``Host`` it answers to. All requests go over ``inner``,
    which is closed in the end. Raises ``ConfigError`` when the URL is of no playlist and
    ``DeliveryFailed`` when its server does not answer.
    """
    options = options or ProxyOptions()
    async with inner or httpx.AsyncHTTPTransport() as inner:
        upstream = Upstream(httpx.AsyncClient(transport=inner, timeout=_TIMEOUT), sleep=sleep)
        entry, scope = await upstream.find(url)
        terms = await upstream.terms(entry)
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
            httpx.AsyncClient(transport=paying, timeout=_TIMEOUT),
            item_of(entry),
            meter,
            ahead=options.ahead,
            room=options.room,
            clock=clock,
            sleep=sleep,
        )
        try:
            yield Proxy(
                entry, scope, payer, upstream, ahead, meter, watch, options,
                authorities=authorities, clock=clock,
            )  # fmt: skip
        finally:
            await ahead.close()


def listen_on_loopback(port: int, host: str = "127.0.0.1") -> tuple[socket.socket, str]:
    """A socket of this machine alone, and its ``host:port``.

    Raises ``ConfigError`` for any address that others could reach, and for a port in use.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ConfigError(f"{host!r} is no address; the proxy listens on 127.0.0.1") from None
    if not address.is_loopback:
        raise ConfigError("the proxy spends your money, so it listens on this machine only")
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise ConfigError(
            f"port {port} on {host} cannot be used ({error.strerror}); choose another with --port"
        ) from None
    shown = f"[{host}]" if address.version == 6 else host
    return listener, f"{shown}:{listener.getsockname()[1]}"


def _span(wanted: str | None, size: int | None) -> tuple[int, int | None] | None:
    """From where to where (excluded) a ``Range`` wants; ``None`` if there is nothing of it."""
    found = _RANGE.fullmatch(wanted or "")
    if found is None or found[0] == "bytes=-" or size is None:
        return 0, size
    if not found[1]:
        start, stop = max(0, size - int(found[2])), size
    else:
        start, stop = int(found[1]), min(size, int(found[2] or size - 1) + 1)
    return (start, stop) if start < stop else None


def _head(resource: Resource) -> _Answer:
    size = {} if resource.size is None else {"content-length": str(resource.size)}
    return _Answer(200, {"accept-ranges": "bytes", "cache-control": "no-store", **size})


def _refusal(error: XByteError) -> _Answer:
    match error:
        case Missing():
            return _text(error.status, str(error))
        case BudgetExceeded() | PaymentRefused():
            return _text(402, str(error))
        case TermsRefused() | ChannelDistrusted():
            return _text(403, str(error))
        case PaymentPending():
            return _text(503, str(error), {"retry-after": str(error.retry_after)})
        case _:
            return _text(502, str(error))


def _text(status: int, text: str, headers: Mapping[str, str] | None = None) -> _Answer:
    shown = {"content-type": "text/plain; charset=utf-8", "cache-control": "no-store"}
    return _Answer(status, {**shown, **(headers or {})}, f"{text}\n".encode())


def _start(answer: _Answer) -> Message:
    headers = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in answer.headers.items()]
    headers.append((b"x-content-type-options", b"nosniff"))
    return {"type": "http.response.start", "status": answer.status, "headers": headers}


async def _say(send: Send, answer: _Answer, method: str) -> None:
    if "content-length" not in answer.headers:
        length = {"content-length": str(len(answer.body))}
        answer = _Answer(answer.status, {**answer.headers, **length}, answer.body)
    await send(_start(answer))
    body = b"" if method == "HEAD" else answer.body
    await send({"type": "http.response.body", "body": body})
