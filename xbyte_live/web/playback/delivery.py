"""Adapter: stored bytes as HTTP answers, whole or a range, once it is clear who may have them."""

from collections.abc import AsyncIterator, Mapping

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from xbyte_live.errors import StoreError
from xbyte_live.payments.x402.headers import PAYMENT_SIGNATURE, RECEIPT_HEADER, X_PAYMENT
from xbyte_live.storage.blobs.cache import SegmentCache
from xbyte_live.storage.blobs.store import Store
from xbyte_live.web.common.metrics import Metrics
from xbyte_live.web.common.ranges import Span, range_holds, read_range
from xbyte_live.web.common.resolver import Found
from xbyte_live.web.common.responses import Prepared, raw_headers

_PAYMENT_HEADERS = {
    name.lower().encode(): name for name in (PAYMENT_SIGNATURE, X_PAYMENT, RECEIPT_HEADER)
}

_CACHED_WHOLE = 16 * 2**20  # bytes; anything larger is streamed past the cache
_CHUNK = 256 * 2**10
_ACCEPT_RANGES = (b"accept-ranges", b"bytes")
_VARY = (b"vary", b"PAYMENT-SIGNATURE, X-PAYMENT, XBYTE-RECEIPT")
_DECISIVE = _PAYMENT_HEADERS.keys() | {b"host", b"if-none-match", b"if-range", b"range"}

Body = bytes | memoryview | AsyncIterator[bytes]


class Delivery:
    """Opens bytes and hands them over, counting them."""

    def __init__(self, *, store: Store, cache: SegmentCache, metrics: Metrics) -> None:
        self._store = store
        self._cache = cache
        self._metrics = metrics

    async def open(self, found: Found, span: Span | None) -> Body:
        """The bytes, or a stream of them once the last one has been seen to be there.

        Raises ``StoreError``.
        """
        start, stop = (span.start, span.stop) if span else (0, found.size)
        if found.size > _CACHED_WHOLE:
            await self._store.read(found.key, found.size - 1, found.size)
            return self._store.stream(found.key, start, stop, _CHUNK)
        data = await self._cache.get(found.key)
        if len(data) != found.size:
            raise StoreError(f"{found.path} is not as long as its catalog row says")
        return memoryview(data)[start:stop] if span else data

    def respond(
        self,
        found: Found,
        span: Span | None,
        body: Body,
        cache_control: str,
        more: Mapping[str, str] | None = None,
        *,
        paid: bool = False,
    ) -> Response:
        """The answer with these bytes; ``more`` are headers it has besides."""
        headers = [
            *found.headers,
            (b"content-length", b"%d" % (span.size if span else found.size)),
            (b"etag", found.etag.encode("ascii")),
            (b"cache-control", cache_control.encode("ascii")),
            _ACCEPT_RANGES,
        ]
        if span:
            headers.append((b"content-range", f"bytes {span}/{found.size}".encode("ascii")))
        if paid:
            headers.append(_VARY)  # what one payment opened is no answer to the next
        if more:
            headers.extend(raw_headers(more))
        status = 206 if span else 200
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


def asked_of(request: Request) -> dict[bytes, str]:
    """The request headers that decide here, by their lower-case names."""
    headers = request.scope["headers"]
    return {name: value.decode("latin-1") for name, value in headers if name in _DECISIVE}


def pays(asked: Mapping[bytes, str]) -> bool:
    """Whether a request carries a payment, or a receipt of one."""
    return not asked.keys().isdisjoint(_PAYMENT_HEADERS)


def shown_payment(asked: Mapping[bytes, str]) -> dict[str, str]:
    """The headers of a request with its payment, by their names."""
    return {name: asked[key] for key, name in _PAYMENT_HEADERS.items() if key in asked}


def span_of(request: Request, asked: Mapping[bytes, str], found: Found) -> Span | None:
    """The range a request wants, ``None`` for the whole; raises ``RangeNotSatisfiable``."""
    wanted = asked.get(b"range")
    if wanted is None or request.method != "GET":
        return None
    if not range_holds(asked.get(b"if-range"), found.etag):
        return None
    return read_range(wanted, found.size)
