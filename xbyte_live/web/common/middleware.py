"""Adapter: the ASGI middleware every request and every answer passes, CORS included."""

import logging
import time
from collections.abc import Sequence
from itertools import chain

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xbyte_live.errors import XByteError
from xbyte_live.web.common.metrics import Metrics
from xbyte_live.web.common.responses import Header, fault_of, fault_reply, problem

_MAX_HEADERS = 100
_NOSNIFF = (b"x-content-type-options", b"nosniff")
_OPEN = (
    "/hls/",
    "/objects/",
    "/channels/",
    "/debts/",
    "/s/",
    "/api/v1/catalog",
    "/api/v1/sessions",
    "/api/v1/site",
)
_EXPOSED = (
    b"PAYMENT-REQUIRED, PAYMENT-RESPONSE, X-PAYMENT-RESPONSE, "
    b"Content-Length, Content-Range, ETag, Retry-After"
)
# The official x402 fetch wrappers send Access-Control-Expose-Headers with a paid request.
_ALLOWED = (
    b"PAYMENT-SIGNATURE, X-PAYMENT, XBYTE-RECEIPT, Range, If-Range, If-None-Match, "
    b"Content-Type, Idempotency-Key, "
    b"Access-Control-Expose-Headers"
)
_PREFLIGHT: list[Header] = [
    (b"access-control-allow-methods", b"GET, HEAD, POST, DELETE"),
    (b"access-control-allow-headers", _ALLOWED),
    (b"access-control-max-age", b"86400"),
]

_log = logging.getLogger(__name__)


class Cors:
    """CORS headers of playback answers, for a list of origins or ``*`` (Fetch standard, 3.2).

    They are added whether or not a request has an ``Origin``, so that an answer in a shared cache
    serves pages too.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        exposed = (b"access-control-expose-headers", _EXPOSED)
        varying = (b"vary", b"Origin")
        self._every = "*" in origins
        self._anybody: list[Header] = [(b"access-control-allow-origin", b"*"), exposed]
        self._nobody: list[Header] = [varying]
        self._by_origin: dict[bytes, list[Header]] = {
            origin.encode("latin-1", "replace"): [
                (b"access-control-allow-origin", origin.encode("latin-1", "replace")),
                exposed,
                varying,
            ]
            for origin in origins
        }

    def headers(self, path: str, request_headers: Sequence[Header]) -> list[Header]:
        """The headers to add to the answer to a request; none off the playback URLs."""
        if not path.startswith(_OPEN):
            return []
        if self._every:
            return self._anybody
        origin = next((value for name, value in request_headers if name == b"origin"), b"")
        return self._by_origin.get(origin, self._nobody)


class Edge:
    """Refuses malformed requests, adds common headers, counts answers, answers for errors.

    No path of ours needs percent-encoding, so an encoded path is not found: each resource has
    one URL, and each charge one name. An answer to ``HEAD`` has no body.
    """

    def __init__(
        self, app: ASGIApp, *, cors: Cors, metrics: Metrics, max_header_bytes: int
    ) -> None:
        self._app = app
        self._cors = cors
        self._metrics = metrics
        self._max_header_bytes = max_header_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        added = self._cors.headers(scope["path"], scope["headers"])
        bodiless = scope["method"] == "HEAD"
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], _NOSNIFF, *added]
                self._metrics.answered(_route(scope), status, time.perf_counter() - began)
            elif bodiless:
                message["body"] = b""
            await send(message)

        refusal = self._refusal(scope)
        try:
            await (refusal or self._app)(scope, receive, answer)
        except ClientDisconnect:
            pass  # the client is gone
        except Exception as error:
            if status:  # the head is sent: the server cuts the connection
                _log.exception("%s %s failed midway", scope["method"], _route(scope))
                raise
            await _error_reply(error, scope)(scope, receive, answer)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = scope["headers"]
        if len(headers) > _MAX_HEADERS or (
            sum(map(len, chain.from_iterable(headers))) > self._max_header_bytes
        ):
            return problem(431, "headers_too_large", "the request has too many headers")
        if b"%" in (scope.get("raw_path") or b""):
            return problem(404, "not_found", "no path here is percent-encoded")
        if scope["method"] == "OPTIONS" and self._cors.headers(scope["path"], headers):
            preflight = Response(None, 204)
            preflight.raw_headers = list(_PREFLIGHT)
            return preflight
        return None


def _error_reply(error: Exception, scope: Scope) -> Response:
    """The answer to an error, which is logged unless the client caused it."""
    if isinstance(error, HTTPException):
        return _routing_reply(error)
    if not isinstance(error, XByteError):
        _log.exception("%s %s failed", scope["method"], _route(scope), exc_info=error)
        return fault_reply(error)
    fault = fault_of(error)
    if fault.status >= 500:
        path = scope["path"]
        shown = "/s/…" if path.startswith("/s/") else path  # a token is never logged
        _log.warning("%s answered %d %s: %s", shown, fault.status, fault.code, error)
    return fault_reply(error)


def _routing_reply(error: HTTPException) -> Response:
    """The answer where no route takes a request."""
    if error.status_code == 405:
        more = error.headers or {}
        allowed = sorted(more.get("allow", more.get("Allow", "GET, HEAD")).split(", "))
        message = f"this URL answers {' and '.join(allowed)}"
        return problem(405, "method_not_allowed", message, {"allow": ", ".join(allowed)})
    return problem(404, "not_found", "nothing is here; /api/v1/catalog lists what there is")


def _route(scope: Scope) -> str:
    route = scope.get("route")
    return route.path if route is not None else "none"
