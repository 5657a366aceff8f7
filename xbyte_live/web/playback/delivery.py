"""Adapter: stored bytes as HTTP responses, whole or a range."""

from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from xbyte_live.errors import StoreError
from xbyte_live.storage.blobs.cache import SegmentCache
from xbyte_live.storage.blobs.store import Store
from xbyte_live.web.common.metrics import Metrics
from xbyte_live.web.common.ranges import Span, names_tag, range_holds, read_range
from xbyte_live.web.common.resolver import StoredBytes
from xbyte_live.web.common.responses import PreparedResponse, raw_headers

_CACHED_WHOLE = 16 * 2**20  # bytes; anything larger is streamed past the cache
_CHUNK = 256 * 2**10
_ACCEPT_RANGES = (b"accept-ranges", b"bytes")
_VARY = (b"vary", b"PAYMENT-SIGNATURE, X-PAYMENT, XBYTE-RECEIPT")
_CONDITIONS = frozenset({b"if-none-match", b"if-range", b"range"})

Body = bytes | memoryview | AsyncIterator[bytes]


class RequestedBytes(NamedTuple):
    """The bytes of a resource that a request asks for: ``span``, or all of them.

    ``part`` is the span where it is less than the whole: all bytes are the same bytes either way.
    ``is_held`` says that the client has them already.
    """

    span: Span | None
    part: Span | None
    size: int
    is_held: bool


class Delivery:
    """Opens stored bytes and makes responses of them, counting what leaves."""

    def __init__(self, *, store: Store, cache: SegmentCache, metrics: Metrics) -> None:
        self._store = store
        self._cache = cache
        self._metrics = metrics

    async def open(self, resource: StoredBytes, span: Span | None) -> Body:
        """The bytes, or a stream of them once the last one was read from the store.

        Raises ``StoreError``.
        """
        start, stop = (span.start, span.stop) if span else (0, resource.size)
        if resource.size > _CACHED_WHOLE:
            await self._store.read(resource.key, resource.size - 1, resource.size)
            return self._store.stream(resource.key, start, stop, _CHUNK)
        data = await self._cache.get(resource.key)
        if len(data) != resource.size:
            raise StoreError(f"{resource.path} is not as long as its catalog row says")
        return memoryview(data)[start:stop] if span else data

    def respond(
        self,
        resource: StoredBytes,
        span: Span | None,
        body: Body,
        cache_control: str,
        more: Mapping[str, str] | None = None,
        *,
        paid: bool = False,
    ) -> Response:
        """The response with these bytes; ``more`` are further headers."""
        headers = [
            *resource.headers,
            (b"content-length", b"%d" % (span.size if span else resource.size)),
            (b"etag", resource.etag.encode("ascii")),
            (b"cache-control", cache_control.encode("ascii")),
            _ACCEPT_RANGES,
        ]
        if span:
            headers.append((b"content-range", f"bytes {span}/{resource.size}".encode("ascii")))
        if paid:
            headers.append(_VARY)  # what one payment opened is no answer to the next
        if more:
            headers.extend(raw_headers(more))
        status = 206 if span else 200
        if isinstance(body, bytes | memoryview):
            self._metrics.delivered(len(body), paid=paid)
            return PreparedResponse(body, status, headers)
        stream = StreamingResponse(self._counted(body, paid), status)
        stream.raw_headers = headers
        return stream

    async def _counted(self, chunks: AsyncIterator[bytes], paid: bool) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            yield chunk
            self._metrics.delivered(len(chunk), paid=paid)


def requested_bytes(request: Request, resource: StoredBytes) -> RequestedBytes:
    """The bytes a request asks for (RFC 9110 13 and 14); raises ``RangeNotSatisfiable``."""
    conditions = {
        name: value.decode("latin-1")
        for name, value in request.scope["headers"]
        if name in _CONDITIONS
    }
    if names_tag(conditions.get(b"if-none-match"), resource.etag):
        return RequestedBytes(None, None, resource.size, True)
    wanted = conditions.get(b"range")
    holds = request.method == "GET" and range_holds(conditions.get(b"if-range"), resource.etag)
    span = read_range(wanted, resource.size) if holds else None
    if span is None:
        return RequestedBytes(None, None, resource.size, False)
    return RequestedBytes(span, span if span.size < resource.size else None, span.size, False)
