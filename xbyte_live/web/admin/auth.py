"""Adapter: authentication for the studio and its API: a bearer token, or a login cookie."""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from xbyte_live.errors import BadRequest
from xbyte_live.runtime.rate_limit import RateLimiter, network_of
from xbyte_live.storage.coordination import Logins
from xbyte_live.web.admin.login_tokens import COOKIE_LASTS, Login, LoginTokens
from xbyte_live.web.common.bodies import read_fields
from xbyte_live.web.common.responses import NO_STORE, json_reply, problem

COOKIE = "xbyte_studio"
SAFE = frozenset({"GET", "HEAD"})

_MARGIN = 60  # seconds by which clocks of the nodes may differ

Endpoint = Callable[[Request], Awaitable[Response]]

log = logging.getLogger(__name__)


class Guard:
    """Admits requests with the admin token or a login cookie made from it, and no others.

    A right token is always accepted, also from a network that sent wrong ones: nobody guesses one
    of that length, so the limit (``failures`` a minute) only keeps the log short.
    """

    def __init__(
        self,
        login_tokens: LoginTokens,
        logins: Logins,
        *,
        public_url: str,
        failures: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._login_tokens = login_tokens
        self._logins = logins
        self._public = _origin_of(public_url)
        self._limiter = RateLimiter(failures)
        self._clock = clock

    def route(self, path: str, endpoint: Endpoint, methods: Sequence[str] = ("GET",)) -> Route:
        """A route whose endpoint is called only for an authenticated request."""

        async def guarded(request: Request) -> Response:
            return await self.refusal(request) or await endpoint(request)

        return Route(path, guarded, methods=list(methods))

    async def refusal(self, request: Request) -> Response | None:
        """The response that refuses a request; ``None`` if it is authenticated."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":  # any other is for a proxy in front of us
            fine = self._login_tokens.is_token(token.strip())
            return None if fine else self._wrong(request, "token")
        if await self._login(request) is None:
            return _unauthorized("this needs the admin token, or a login to /studio")
        if request.method not in SAFE and not self._is_own_page(request):
            return problem(403, "foreign_origin", "only the studio's own page may do that")
        return None

    async def is_inside(self, request: Request) -> Response:
        """``GET /studio/login``: whether the browser is logged in."""
        return json_reply({"logged_in": await self._login(request) is not None}, NO_STORE)

    async def log_in(self, request: Request) -> Response:
        """``POST /studio/login``: a cookie for a login code or the token, given as JSON."""
        if not self._is_own_page(request):
            return problem(403, "foreign_origin", "only the studio's own page may log in")
        fields = await read_fields(request, {"code": str, "token": str})
        if len(fields) != 1:
            raise BadRequest('the body is {"code": "…"} or {"token": "…"}')
        if "token" in fields:
            if not self._login_tokens.is_token(fields["token"]):
                return self._wrong(request, "token")
        elif not await self._is_first_use(fields["code"]):
            return self._wrong(request, "login code")
        reply = json_reply({"logged_in": True, "seconds": COOKIE_LASTS}, NO_STORE)
        cookie = self._login_tokens.cookie(secrets.token_hex(12), self._clock())
        self._set(reply, request, cookie, COOKIE_LASTS)
        return reply

    async def log_out(self, request: Request) -> Response:
        """``POST /studio/logout``: the cookie is deleted and revoked."""
        if not self._is_own_page(request):
            return problem(403, "foreign_origin", "only the studio's own page may log out")
        login = self._read_cookie(request)
        if login is not None:
            await self._logins.end(login.nonce, seconds=self._rest_of(login))
        reply = json_reply({"logged_in": False}, NO_STORE)
        self._set(reply, request, "", 0)
        return reply

    def routes(self) -> list[Route]:
        """The routes of login and logout, open to everyone."""
        return [
            Route("/studio/login", self.is_inside),
            Route("/studio/login", self.log_in, methods=["POST"]),
            Route("/studio/logout", self.log_out, methods=["POST"]),
        ]

    async def _login(self, request: Request) -> Login | None:
        """The login behind a request's cookie, unless it has ended."""
        login = self._read_cookie(request)
        return None if login is None or await self._logins.has_ended(login.nonce) else login

    def _read_cookie(self, request: Request) -> Login | None:
        cookie = request.cookies.get(_cookie_name(self._is_secure(request)), "")
        return self._login_tokens.read_cookie(cookie, self._clock())

    def _rest_of(self, shown: Login) -> float:
        """Seconds until no node accepts it any more, with a margin for their clocks."""
        return shown.until - self._clock() + _MARGIN

    async def _is_first_use(self, text: str) -> bool:
        """Whether a login code is valid and not yet used on any node."""
        code = self._login_tokens.read_code(text, self._clock())
        return code is not None and await self._logins.use(code.nonce, seconds=self._rest_of(code))

    def _wrong(self, request: Request, what: str) -> Response:
        address = request.client.host if request.client else ""
        network, now = network_of(address), asyncio.get_running_loop().time()
        if self._limiter.is_exhausted(network, now):
            told = "too many wrong tokens came from your network; wait a minute"
            return problem(429, "too_many_attempts", told, {"retry-after": "60"})
        self._limiter.count_failure(network, now)
        log.warning("somebody at %s came to the studio with a wrong %s", address, what)
        if what == "token":
            return _unauthorized("this is not the admin token")
        return _unauthorized("this login link was used already or is too old; make another")

    def _set(self, reply: Response, request: Request, value: str, lasts: int) -> None:
        secure = self._is_secure(request)
        reply.set_cookie(
            _cookie_name(secure),
            value,
            max_age=lasts,
            path="/",
            secure=secure,
            httponly=True,
            samesite="strict",
        )

    def _is_secure(self, request: Request) -> bool:
        scheme = self._public[0] if self._public else request.url.scheme
        return scheme == "https"

    def _is_own_page(self, request: Request) -> bool:
        """Whether a page of our own origin sends it: that of ``public_url``, or of ``Host``.

        A proxy that ends TLS changes the scheme; it keeps the host, or ``public_url`` names it.
        """
        origin = _origin_of(request.headers.get("origin", ""))
        if origin is None:
            return False
        return origin == self._public or origin[1] == request.headers.get("host", "").lower()


def _cookie_name(secure: bool) -> str:
    """The cookie's name; ``__Host-`` bars other hosts and plain HTTP (RFC 6265bis 4.1.3)."""
    return f"__Host-{COOKIE}" if secure else COOKIE


def _origin_of(url: str) -> tuple[str, str] | None:
    """Scheme and host of a URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return (parts.scheme, parts.netloc.lower()) if parts.scheme and parts.netloc else None


def _unauthorized(message: str) -> Response:
    return problem(401, "unauthorized", message, {"www-authenticate": 'Bearer realm="xbyte-live"'})
