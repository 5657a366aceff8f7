"""Adapter: playlists and segments under a session's token, for players that cannot pay."""

import json
import time
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from xbyte_live.config import Settings
from xbyte_live.errors import ItemGone, ItemNotFound, PaymentRefused
from xbyte_live.money import PRICE_DECIMALS, format_decimal
from xbyte_live.payments.gate import Gate
from xbyte_live.payments.ledger.draws import Drawn, NewDraw
from xbyte_live.payments.ledger.session import Session
from xbyte_live.payments.sessions import Sessions
from xbyte_live.payments.x402.headers import payment_headers
from xbyte_live.pricing.quotes import quotes_at
from xbyte_live.web.api.catalog import CatalogApi
from xbyte_live.web.common.metrics import Metrics
from xbyte_live.web.common.resolver import Resolver, StoredBytes
from xbyte_live.web.common.responses import JSON, NO_STORE, not_modified, problem
from xbyte_live.web.playback.delivery import Delivery, RequestedBytes, requested_bytes
from xbyte_live.web.playback.playlists import Playlists
from xbyte_live.web.sessions.api import NOTHING_HERE, PRIVATE, SessionApi
from xbyte_live.web.sessions.limits import PlayerLimit

EMPTY = "session_empty"
_CROWDED_WAIT = 5  # seconds
_OFF_SALE = "this is off sale; what is left of the session can be had back"
_LEAVING = "the payer is taking its money out of the channel that paid for this session"


class SessionPlayback:
    """Serves segments that draw their price from a session before their first byte leaves."""

    def __init__(
        self,
        *,
        settings: Settings,
        resolver: Resolver,
        playlists: Playlists,
        listing: CatalogApi,
        delivery: Delivery,
        gate: Gate,
        sessions: Sessions,
        api: SessionApi,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._resolver = resolver
        self._playlists = playlists
        self._listing = listing
        self._delivery = delivery
        self._gate = gate
        self._sessions = sessions
        self._api = api
        self._metrics = metrics
        self._clock = clock
        self._crowd = PlayerLimit(limit=settings.session_connections)
        self._kept = f"private, max-age={settings.retry_window}"

    async def multivariant(self, request: Request) -> Response:
        """``GET /s/{token}/hls/{slug}/index.m3u8``."""
        await self._session(request)
        return _private(await self._playlists.multivariant(request))

    async def media(self, request: Request) -> Response:
        """``GET /s/{token}/hls/{slug}/{rendition}/index.m3u8``; its URLs are relative."""
        await self._session(request)
        return _private(await self._playlists.media(request))

    async def pricing(self, request: Request) -> Response:
        """``GET /s/{token}/hls/{slug}/pricing.json``."""
        await self._session(request)
        return _private(await self._listing.media_pricing(request))

    async def segment(self, request: Request) -> Response:
        """``GET /s/{token}/hls/{slug}/{rendition}/{msn}.ts``."""
        session = await self._session(request)
        address = request.client.host if request.client else ""
        if not self._crowd.enter(session.digest, address, self._clock()):
            return problem(
                429,
                "too_many_players",
                "this session plays in too many places; buy another one",
                {"retry-after": str(_CROWDED_WAIT), **PRIVATE},
            )
        try:
            answer = await self._serve(request, session)
        except BaseException:
            self._crowd.leave(session.digest)
            raise
        return _Tracked(answer, lambda: self._crowd.leave(session.digest))

    async def _session(self, request: Request) -> Session:
        session = await self._sessions.find(request.path_params["token"])
        if session is None or session.slug != request.path_params["slug"]:
            raise ItemNotFound(NOTHING_HERE)
        return session

    async def _serve(self, request: Request, session: Session) -> Response:
        names = request.path_params
        resource = await self._resolver.segment_bytes(
            session.slug, names["rendition"], names["msn"]
        )
        requested = requested_bytes(request, resource)
        if requested.is_held:
            return not_modified({"etag": resource.etag, "cache-control": self._kept, **PRIVATE})
        span = requested.span
        if request.method == "HEAD":
            return self._delivery.respond(resource, span, b"", self._kept, PRIVATE)
        new = self._draw_for(session, resource, requested)
        if min(new.amounts.values()) == 0:
            if resource.withdrawn:
                raise ItemGone(_OFF_SALE)
            body = await self._delivery.open(resource, span)
            return self._delivery.respond(resource, span, body, self._kept, PRIVATE)
        body = await self._delivery.open(resource, span)
        drawn = await self._draw(new)
        more = PRIVATE
        if drawn.outcome == "empty" and (payment := payment_headers(request.scope["headers"])):
            sale = await self._api.more(request, session, None, None)
            try:
                bought = await self._api.admit(payment, sale)
            except PaymentRefused as refusal:
                return await self._refuse(request, drawn, refusal)
            more, drawn = {**PRIVATE, **bought.headers}, await self._draw(new)
        match drawn.outcome:
            case "over":
                raise ItemNotFound(NOTHING_HERE)
            case "unsold":
                raise ItemGone(_OFF_SALE)
            case "leaving":
                raise ItemGone(_LEAVING)
            case "empty":
                return await self._refuse(request, drawn, PaymentRefused(EMPTY))
        return self._delivery.respond(resource, span, body, self._kept, more, paid=True)

    def _draw_for(
        self, session: Session, resource: StoredBytes, requested: RequestedBytes
    ) -> NewDraw:
        """The draw for these bytes: each payee's lowest quote that holds (money rule 8)."""
        size, part = requested.size, requested.part
        amounts: dict[str, int] = {}
        now = self._clock()
        for quote in quotes_at(resource.item, size, self._settings, now, resource.segment):
            payee, amount = quote.pay_to.lower(), quote.price.amount_for(size)
            amounts[payee] = min(amount, amounts.get(payee, amount))
        return NewDraw(
            digest=session.digest,
            slug=session.slug,
            resource=f"{resource.identity}#bytes={part}" if part else resource.identity,
            whole=resource.identity,
            size=size,
            amounts=amounts,
            repeats=resource.item.rewatch == "free",
            retry_only=resource.withdrawn,
        )

    async def _draw(self, new: NewDraw) -> Drawn:
        drawn = await self._sessions.draw(new)
        self._metrics.drawn(drawn.outcome, drawn.amount if drawn.outcome == "drawn" else 0)
        return drawn

    async def _refuse(self, request: Request, drawn: Drawn, refusal: PaymentRefused) -> Response:
        """A 402 that asks for a top-up, for people and for software that can pay."""
        session = drawn.session
        if session is None:
            raise AssertionError("a session is empty and not there")
        sale = await self._api.more(request, session, None, None)
        challenge = self._gate.challenge(sale, refusal)
        body = json.loads(challenge.body) | {
            "message": "the session has too little left for this segment; top it up",
            "left": format_decimal(session.left, PRICE_DECIMALS),
            "needed": format_decimal(drawn.amount, PRICE_DECIMALS),
            "topup": "../../../topup",
        }
        headers = {**NO_STORE, **PRIVATE, **challenge.headers}
        return Response(json.dumps(body, separators=(",", ":")), 402, headers, JSON)


class _Tracked(Response):
    """A response that calls ``leave`` when it has ended."""

    def __init__(self, answer: Response, leave: Callable[[], None]) -> None:
        self._answer = answer
        self._leave = leave
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._answer(scope, receive, send)
        finally:
            self._leave()


def _private(answer: Response) -> Response:
    """A public response made private to the holder of the token."""
    kept = answer.headers.get("cache-control", "private")
    answer.headers["cache-control"] = kept.replace("public", "private")
    answer.headers.update(PRIVATE)
    return answer
