"""Adapter: the bytes of segments and objects over HTTP, free or for a payment."""

import time
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from xbyte_live.config import Settings
from xbyte_live.errors import ItemGone, PaymentRefused, StoreError, XByteError
from xbyte_live.payments.gate import Gate, Receipt, Sale
from xbyte_live.payments.headers import PAYMENT_SIGNATURE, RECEIPT_HEADER, X_PAYMENT
from xbyte_live.store.base import Store
from xbyte_live.store.cache import SegmentCache
from xbyte_live.web.finding import Finder, Found, deposit_at, quotes_at
from xbyte_live.web.metrics import Metrics
from xbyte_live.web.ranges import Span, names_tag, range_holds, read_range
from xbyte_live.web.replies import (
    JSON,
    NO_STORE,
    Prepared,
    fault_of,
    json_reply,
    not_modified,
    raw_headers,
)

_CACHED_WHOLE = 16 * 2**20  # bytes; anything larger is streamed past the cache
_CHUNK = 256 * 2**10
_PUBLIC_FOREVER = "public, max-age=31536000, immutable"
_PRIVATE_FOREVER = "private, max-age=31536000, immutable"
_ACCEPT_RANGES = (b"accept-ranges", b"bytes")
_PAYMENT_HEADERS = {
    name.lower().encode(): name for name in (PAYMENT_SIGNATURE, X_PAYMENT, RECEIPT_HEADER)
}
_DECISIVE = _PAYMENT_HEADERS.keys() | {b"host", b"if-none-match", b"if-range", b"range"}

_Body = bytes | memoryview | AsyncIterator[bytes]

_OFF_SALE = "this is off sale; only what was paid for it before is honoured, for a while"


class _Terms(NamedTuple):
    """What a request costs: ``sale`` is ``None`` when it is free."""

    sale: Sale | None
    cache_control: str


class Playback:
    """Answers for segments and objects; collaborators fail with ``XByteError`` only.

    Every request goes one way: find, price, then refuse, or open, admit and respond. Opening
    stands before admitting (design section 5 has it after), so that bytes which cannot be read
    are never charged for; a request without a payment is refused before either.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        finder: Finder,
        store: Store,
        cache: SegmentCache,
        gate: Gate,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._finder = finder
        self._store = store
        self._cache = cache
        self._gate = gate
        self._metrics = metrics
        self._clock = clock
        self._public_while = f"public, max-age={settings.quote_ttl}"
        # Within the retry window the same payment opens the same bytes again anyway.
        self._private_while = f"private, max-age={settings.retry_window}"

    async def segment(self, request: Request) -> Response:
        """``GET /hls/{slug}/{rendition}/{msn}.ts``."""
        return await self._serve(request, await self._finder.segment_bytes(**request.path_params))

    async def object(self, request: Request) -> Response:
        """``GET /objects/{slug}``."""
        return await self._serve(request, await self._finder.object_bytes(**request.path_params))

    async def _serve(self, request: Request, found: Found) -> Response:
        asked = _asked(request)
        known = names_tag(asked.get(b"if-none-match"), found.etag)
        span = None if known else _span(request, asked, found)
        terms = self._price(request, asked, found, span)
        if known:
            return not_modified({"etag": found.etag, "cache-control": terms.cache_control})
        unpaid = asked.keys().isdisjoint(_PAYMENT_HEADERS) or request.method == "HEAD"
        if found.withdrawn and (unpaid or terms.sale is None):
            raise ItemGone(_OFF_SALE)
        if terms.sale is None:
            body = b"" if request.method == "HEAD" else await self._open(found, span)
            return self._respond(found, span, terms, body, None)
        if unpaid:
            return self._refuse(terms.sale, PaymentRefused("payment_required"))
        body = await self._open(found, span)
        try:
            receipt = await self._admit(asked, terms.sale)
        except PaymentRefused as refusal:
            if found.withdrawn:
                raise ItemGone(_OFF_SALE) from None
            return self._refuse(terms.sale, refusal)
        if receipt.answer is not None:
            return json_reply(receipt.answer, {**NO_STORE, **receipt.headers})
        return self._respond(found, span, terms, body, receipt)

    def _price(
        self, request: Request, asked: dict[bytes, str], found: Found, span: Span | None
    ) -> _Terms:
        """What these bytes cost now; an older quote of nothing holds like any other (rule 8)."""
        size = span.size if span else found.size
        quotes = quotes_at(found.item, size, self._settings, self._clock(), found.segment)
        if size == 0 or quotes[0].price.is_free:
            return _Terms(None, _PUBLIC_FOREVER if found.lasting else self._public_while)
        rewatch_free = found.item.rewatch == "free"
        kept = _PRIVATE_FOREVER if rewatch_free and found.lasting else self._private_while
        if any(quote.price.is_free for quote in quotes):
            return _Terms(None, kept)
        part = span if size < found.size else None  # all of them are the same bytes either way
        sale = Sale(
            resource=f"{found.identity}#bytes={part}" if part else found.identity,
            url=self._base_url(request, asked) + found.path,
            slug=found.item.slug,
            size=size,
            quotes=quotes,
            description=f"{found.description}, bytes {part}" if part else found.description,
            mime_type=found.content_type,
            rewatch_free=rewatch_free,
            retry_only=found.withdrawn,
            deposit=deposit_at(found.item, quotes[0], self._settings),
        )
        return _Terms(sale, kept)

    def _refuse(self, sale: Sale, refusal: PaymentRefused) -> Response:
        challenge = self._gate.challenge(sale, refusal)
        headers = {**NO_STORE, "accept-ranges": "bytes", **challenge.headers}
        return Response(challenge.body, 402, headers, JSON)

    async def _open(self, found: Found, span: Span | None) -> _Body:
        """The bytes, or a stream of them once the last one has been seen to be there."""
        start, stop = (span.start, span.stop) if span else (0, found.size)
        if found.size > _CACHED_WHOLE:
            await self._store.read(found.key, found.size - 1, found.size)
            return self._store.stream(found.key, start, stop, _CHUNK)
        data = await self._cache.get(found.key)
        if len(data) != found.size:
            raise StoreError(f"{found.path} is not as long as its catalog row says")
        return memoryview(data)[start:stop] if span else data

    async def _admit(self, asked: dict[bytes, str], sale: Sale) -> Receipt:
        shown = {name: asked[key] for key, name in _PAYMENT_HEADERS.items() if key in asked}
        try:
            receipt = await self._gate.admit(shown, sale)
        except XByteError as error:
            self._metrics.charged(fault_of(error).code)
            raise
        self._metrics.charged("accepted")
        return receipt

    def _respond(
        self, found: Found, span: Span | None, terms: _Terms, body: _Body, receipt: Receipt | None
    ) -> Response:
        headers = [
            *found.headers,
            (b"content-length", b"%d" % (span.size if span else found.size)),
            (b"etag", found.etag.encode("ascii")),
            (b"cache-control", terms.cache_control.encode("ascii")),
            _ACCEPT_RANGES,
        ]
        if span:
            headers.append((b"content-range", f"bytes {span}/{found.size}".encode("ascii")))
        if receipt:
            headers.extend(raw_headers(receipt.headers))
        status, paid = 206 if span else 200, receipt is not None
        if isinstance(body, bytes | memoryview):
            self._metrics.delivered(len(body), paid=paid)
            return Prepared(body, status, headers)
        stream = StreamingResponse(self._counted(body, paid), status)
        stream.raw_headers = headers
        return stream

    async def _counted(self, chunks: AsyncIterator[bytes], paid: bool) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            yield chunk
            self._metrics.delivered(len(chunk), paid=paid)

    def _base_url(self, request: Request, asked: dict[bytes, str]) -> str:
        if self._settings.public_url:
            return self._settings.public_url.rstrip("/")
        if host := asked.get(b"host"):
            return f"{request.scope['scheme']}://{host}{request.scope.get('root_path', '')}"
        return str(request.base_url).rstrip("/")


def _asked(request: Request) -> dict[bytes, str]:
    """The request headers that decide here, by their lower-case names."""
    headers = request.scope["headers"]
    return {name: value.decode("latin-1") for name, value in headers if name in _DECISIVE}


def _span(request: Request, asked: dict[bytes, str], found: Found) -> Span | None:
    wanted = asked.get(b"range")
    if wanted is None or request.method != "GET":
        return None
    if not range_holds(asked.get(b"if-range"), found.etag):
        return None
    return read_range(wanted, found.size)
