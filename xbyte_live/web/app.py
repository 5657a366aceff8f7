"""Wiring: the route table of the HTTP side."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from xbyte_live.catalog.catalog import Catalog
from xbyte_live.config import Settings
from xbyte_live.payments.gate import Gate
from xbyte_live.payments.ledger.channels import ChannelLedger
from xbyte_live.payments.ledger.charges import ChargeLedger
from xbyte_live.payments.sessions import Sessions
from xbyte_live.storage.blobs.cache import SegmentCache
from xbyte_live.storage.blobs.store import Store
from xbyte_live.web.admin.studio import Studio
from xbyte_live.web.api.catalog import CatalogApi
from xbyte_live.web.api.debts import Debts
from xbyte_live.web.api.refunds import RefundsApi
from xbyte_live.web.api.site import Site
from xbyte_live.web.api.streams import StreamsApi
from xbyte_live.web.api.viewers import Audience
from xbyte_live.web.common.health import Readiness
from xbyte_live.web.common.metrics import CONTENT_TYPE, Metrics
from xbyte_live.web.common.middleware import Cors, Edge
from xbyte_live.web.common.resolver import Resolver
from xbyte_live.web.common.responses import NO_STORE, json_reply
from xbyte_live.web.pages.assets import Assets
from xbyte_live.web.pages.docs import Docs
from xbyte_live.web.pages.pages import Pages, Renderer
from xbyte_live.web.playback.blocking_reload import BlockingReloads
from xbyte_live.web.playback.delivery import Delivery
from xbyte_live.web.playback.playlists import Playlists
from xbyte_live.web.playback.segments import Playback
from xbyte_live.web.sessions.api import SessionApi
from xbyte_live.web.sessions.playback import SessionPlayback

_HEADER_ROOM = 16384  # bytes of request headers beside the payment


class Application(Starlette):
    """Starlette's router behind ``Edge``, which turns every error into an answer."""

    def __init__(self, routes: list[Route], edge: Callable[[ASGIApp], Edge]) -> None:
        super().__init__(routes=routes)
        self.router.redirect_slashes = False
        self._edge = edge

    def build_middleware_stack(self) -> ASGIApp:
        """The router inside ``Edge``, and no other middleware."""
        return self._edge(self.router)


class DirectEndpoint:
    """An endpoint without Starlette's wrapper, for the most frequent requests."""

    def __init__(self, endpoint: Callable[[Request], Awaitable[Response]]) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """DirectEndpoint one request (ASGI 3)."""
        response = await self._endpoint(Request(scope, receive))
        await response(scope, receive, send)


def create_app(
    *,
    settings: Settings,
    catalog: Catalog,
    store: Store,
    cache: SegmentCache,
    gate: Gate,
    ledger: ChargeLedger,
    metrics: Metrics,
    readiness: Readiness,
    sessions: Sessions | None = None,
    channels: ChannelLedger | None = None,
    studio: Studio | None = None,
    clock: Callable[[], float] = time.time,
) -> Starlette:
    """The HTTP side as one ASGI application that starts and stops nothing (design section 6).

    Without ``sessions`` none are sold, without ``studio`` nothing is administered over HTTP,
    without ``channels`` refunds are asked for only where something is sold.
    Whoever stops the server sets ``app.state.leaving`` first.
    """
    resolver = Resolver(catalog, limit=settings.item_cache)
    delivery = Delivery(store=store, cache=cache, metrics=metrics)
    playback = Playback(
        settings=settings,
        resolver=resolver,
        delivery=delivery,
        gate=gate,
        metrics=metrics,
        clock=clock,
    )
    reloads = BlockingReloads(catalog, limit=settings.waiting_readers)
    playlists = Playlists(settings=settings, resolver=resolver, reloads=reloads, clock=clock)
    audience = Audience(ledger, clock=clock)
    status = StreamsApi(catalog=catalog, resolver=resolver, audience=audience, clock=clock)
    listing = CatalogApi(
        settings=settings,
        catalog=catalog,
        resolver=resolver,
        cache=cache,
        gate=gate,
        audience=audience,
        clock=clock,
    )
    site, assets = Site(settings=settings, gate=gate), Assets()
    renderer = Renderer(site=site, assets=assets)
    pages = Pages(settings=settings, listing=listing, site=site, assets=assets, renderer=renderer)
    debts = Debts(settings=settings, ledger=ledger, gate=gate)
    refunds = RefundsApi(settings=settings, channels=channels, gate=gate) if channels else None

    for_sessions: list[Route] = []
    if sessions is not None:
        session_api = SessionApi(
            settings=settings,
            resolver=resolver,
            gate=gate,
            sessions=sessions,
            metrics=metrics,
            clock=clock,
        )
        player = SessionPlayback(
            settings=settings,
            resolver=resolver,
            playlists=playlists,
            listing=listing,
            delivery=delivery,
            gate=gate,
            sessions=sessions,
            api=session_api,
            metrics=metrics,
            clock=clock,
        )
        for_sessions = [
            Route("/s/{token}/hls/{slug}/{rendition}/{msn}.ts", player.segment),
            Route("/s/{token}/hls/{slug}/{rendition}/index.m3u8", player.media),
            Route("/s/{token}/hls/{slug}/index.m3u8", player.multivariant),
            Route("/s/{token}/hls/{slug}/pricing.json", player.pricing),
            Route("/s/{token}/topup", session_api.top_up, methods=["POST"]),
            Route("/s/{token}", session_api.one, methods=["GET", "DELETE"]),
            Route("/api/v1/sessions", session_api.buy, methods=["POST"]),
        ]

    async def healthz(_: Request) -> Response:
        return json_reply({"status": "ok"}, NO_STORE)

    async def readyz(_: Request) -> Response:
        problems = await readiness.problems()
        verdict = {"status": "not ready", "problems": problems} if problems else {"status": "ready"}
        return json_reply(verdict, NO_STORE, 503 if problems else 200)

    async def measurements(_: Request) -> Response:
        return Response(await metrics.render(), 200, {**NO_STORE, "content-type": CONTENT_TYPE})

    app = Application(
        routes=[
            Route(
                "/hls/{slug}/{rendition}/{msn}.ts",
                DirectEndpoint(playback.segment),
                methods=["GET"],
            ),
            Route("/objects/{slug}", DirectEndpoint(playback.object), methods=["GET"]),
            Route("/hls/{slug}/{rendition}/index.m3u8", playlists.media),
            Route("/hls/{slug}/index.m3u8", playlists.multivariant),
            Route("/hls/{slug}/pricing.json", listing.media_pricing),
            Route("/hls/{slug}/poster.jpg", listing.poster),
            Route("/objects/{slug}/pricing.json", listing.object_pricing),
            Route("/debts/{payer}", debts.answer),
            *(refunds.routes() if refunds else []),
            Route("/api/v1/catalog", listing.catalog),
            Route("/api/v1/streams", status.streams),
            Route("/api/v1/streams/{slug}", status.stream),
            *for_sessions,
            *pages.routes(),
            *Docs(renderer).routes(),
            *(studio.routes(renderer) if studio else []),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", measurements),
        ],
        edge=partial(
            Edge,
            cors=Cors(settings.cors_origins),
            metrics=metrics,
            max_header_bytes=_HEADER_ROOM + settings.max_payment_header,
        ),
    )
    app.state.leaving = studio.leaving if studio else asyncio.Event()
    return app
