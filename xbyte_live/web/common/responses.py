"""Pure: HTTP responses: JSON, errors, 304, 402, and safe headers for uploaded files."""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from xbyte_live.errors import (
    BadRequest,
    ChainUnavailable,
    DatabaseOverloaded,
    DatabaseUnavailable,
    FacilitatorMisbehaved,
    FacilitatorUnavailable,
    ItemError,
    ItemExists,
    ItemGone,
    Overloaded,
    PaymentMalformed,
    PaymentPending,
    PaymentRefused,
    RangeNotSatisfiable,
    StoreError,
    XByteError,
)
from xbyte_live.payments.x402.requirements import Challenge

JSON = "application/json"
NO_STORE = {"cache-control": "no-store"}

Header = tuple[bytes, bytes]

_WORD = r"[A-Za-z0-9!#$&^_.+-]{1,127}"
_CONTENT_TYPE = re.compile(
    rf"{_WORD}/{_WORD}(?: ?; ?{_WORD}=(?:{_WORD}|\"[ !#-\[\]-~]{{0,127}}\")){{0,4}}"
)
_SHOWN_IN_PLACE = ("audio/", "video/", "image/")


class PreparedResponse(Response):
    """A response whose headers are in wire form already, ``Content-Length`` included."""

    def __init__(self, body: bytes | memoryview, status: int, headers: list[Header]) -> None:
        self.body = body
        self.status_code = status
        self.raw_headers = headers
        self.background = None


class Fault(NamedTuple):
    """An error over HTTP: status, code, and seconds after which to retry, if that helps.

    ``message`` replaces the error's own text where that text is about our side.
    """

    status: int
    code: str
    retry_after: int | None = None
    message: str | None = None


_UNEXPECTED = Fault(500, "internal_error", None, "something went wrong on the server")

_FAULTS: tuple[tuple[type[XByteError], Fault], ...] = (
    (ItemGone, Fault(410, "gone")),
    (ItemExists, Fault(409, "exists")),
    (ItemError, Fault(404, "not_found")),
    (RangeNotSatisfiable, Fault(416, "range_not_satisfiable")),
    (BadRequest, Fault(400, "bad_request")),
    (Overloaded, Fault(503, "overloaded", 1)),
    (PaymentMalformed, Fault(400, "payment_malformed")),
    (PaymentPending, Fault(503, "payment_pending")),
    (FacilitatorUnavailable, Fault(503, "facilitator_unavailable", 5)),
    (FacilitatorMisbehaved, Fault(502, "facilitator_misbehaved")),
    (ChainUnavailable, Fault(503, "chain_unavailable", 5)),
    (DatabaseOverloaded, Fault(503, "overloaded", 1)),
    (
        DatabaseUnavailable,
        Fault(503, "database_unavailable", 2, "the database does not answer; try again shortly"),
    ),
    (
        StoreError,
        Fault(503, "store_unavailable", 2, "the bytes cannot be read; a payment stays good"),
    ),
)


def fault_of(error: Exception) -> Fault:
    """The fault of an error; an unforeseen one is a 500 that hides its cause."""
    if isinstance(error, PaymentPending):
        return Fault(503, "payment_pending", error.retry_after)
    if isinstance(error, PaymentRefused):
        return Fault(402, error.code)
    return next((fault for kind, fault in _FAULTS if isinstance(error, kind)), _UNEXPECTED)


def problem(
    status: int, code: str, message: str, headers: dict[str, str] | None = None
) -> Response:
    """An error response: JSON with a code for software and one sentence for people."""
    body = json.dumps({"error": code, "message": message}, separators=(",", ":")).encode()
    return Response(body, status, {**NO_STORE, **(headers or {})}, JSON)


def fault_reply(error: Exception) -> Response:
    """The response to a request that raised ``error``."""
    fault = fault_of(error)
    headers = {}
    if fault.retry_after is not None:
        headers["retry-after"] = str(fault.retry_after)
    if isinstance(error, RangeNotSatisfiable):
        headers["content-range"] = f"bytes */{error.size}"
    return problem(fault.status, fault.code, fault.message or str(error), headers)


def raw_headers(headers: Mapping[str, str]) -> list[Header]:
    """Headers in wire form: lower-case names, Latin-1 bytes."""
    return [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()]


def json_reply(value: Any, headers: dict[str, str] | None = None, status: int = 200) -> Response:
    """A response with ``value`` as JSON."""
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return Response(body, status, headers, JSON)


def payment_required(challenge: Challenge, headers: Mapping[str, str] | None = None) -> Response:
    """A 402 with what may be paid (x402 v2, transport HTTP), never stored."""
    all_headers = {**NO_STORE, **(headers or {}), **challenge.headers}
    return Response(challenge.body, 402, all_headers, JSON)


def base_url(request: Request, public_url: str) -> str:
    """The URL this server is reached at: ``public_url``, or else as the request says."""
    if public_url:
        return public_url.rstrip("/")
    scope = request.scope
    host = next((value for name, value in scope["headers"] if name == b"host"), b"")
    if not host:
        return str(request.base_url).rstrip("/")
    return f"{scope['scheme']}://{host.decode('latin-1')}{scope.get('root_path', '')}"


def not_modified(headers: dict[str, str]) -> Response:
    """A 304 with the headers its 200 would have had (RFC 9110 15.4.5)."""
    return Response(None, 304, headers)


def uploaded_headers(content_type: str, name: str) -> dict[str, str]:
    """Headers that make an uploaded file safe on our origin.

    Only sound, video and images are shown in place; all else is a download, and none may run
    script. A content type that is no media type becomes ``application/octet-stream``.
    """
    if _CONTENT_TYPE.fullmatch(content_type) is None:
        content_type = "application/octet-stream"
    kind = content_type.partition(";")[0].strip().lower()
    headers = {"content-type": content_type, "content-security-policy": "sandbox"}
    if not kind.startswith(_SHOWN_IN_PLACE) or kind == "image/svg+xml":
        plain = re.sub(r'[^ -~]|["\\%/]', "_", name)[:200] or "file"
        coded = quote(name[:200].encode("utf-8", "replace"), safe="")
        headers["content-disposition"] = (
            f"attachment; filename=\"{plain}\"; filename*=UTF-8''{coded}"
        )
    return headers
