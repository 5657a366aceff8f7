"""Pure: which pages of other sites may play (the Fetch standard's CORS protocol)."""

from collections.abc import Sequence

from xbyte_live.web.common.responses import Header

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
PREFLIGHT: list[Header] = [
    (b"access-control-allow-methods", b"GET, HEAD, POST, DELETE"),
    (b"access-control-allow-headers", _ALLOWED),
    (b"access-control-max-age", b"86400"),
]


class Cors:
    """The CORS headers of playback answers, for a list of origins or ``*`` for every page.

    They are added whether or not a request has an ``Origin``, so that what a shared cache keeps
    from one reader serves a page as well.
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
        """What to add to the answer to a request; empty off the playback URLs."""
        if not path.startswith(_OPEN):
            return []
        if self._every:
            return self._anybody
        origin = next((value for name, value in request_headers if name == b"origin"), b"")
        return self._by_origin.get(origin, self._nobody)
