"""Wiring: the route table over its collaborators."""

import logging
import time
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from xbyte_live.catalog import Catalog
from xbyte_live.config import Settings
from xbyte_live.errors import XByteError
from xbyte_live.ledger.charges import ChargeLedger
from xbyte_live.payments.gate import Gate
from xbyte_live.payments.sessions import Sessions
from xbyte_live.store.base import Store
from xbyte_live.store.cache import SegmentCache
from xbyte_live.web.cors import Cors
from xbyte_live.web.debts import Debts
from xbyte_live.web.delivery import Delivery
from xbyte_live.web.edge import Edge
from xbyte_live.web.finding import Finder
from xbyte_live.web.health import Readiness
from xbyte_live.web.listing import Listing
from xbyte_live.web.metrics import CONTENT_TYPE, Metrics
from xbyte_live.web.playback import Playback
from xbyte_live.web.playlists import Playlists
from xbyte_live.web.reloads import Reloads
from xbyte_live.web.replies import NO_STORE, fault_of, fault_reply, json_reply, problem
from xbyte_live.web.session_playback import SessionPlayback
from xbyte_live.web.sessions import SessionDesk
from xbyte_live.web.status import Status

_HEADER_ROOM = 16384  # bytes of request headers beside the payment

_log = logging.getLogger(__name__)


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
    clock: Callable[[], float] = time.time,
) -> Starlette:
    """The HTTP side as one ASGI application that starts and stops nothing (design section 6).

    Without ``sessions`` none are sold.
    """
    finder = Finder(catalog, limit=settings.item_cache)
    delivery = Delivery(store=store, cache=cache, metrics=metrics)
    playback = Playback(
        settings=settings,
        finder=finder,
        delivery=delivery,
        gate=gate,
        metrics=metrics,
        clock=clock,
    )
    reloads = Reloads(catalog, limit=settings.waiting_readers)
    playlists = Playlists(settings=settings, finder=finder, reloads=reloads, clock=clock)
    status = Status(catalog=catalog, finder=finder, ledger=ledger, clock=clock)
    listing = Listing(
        settings=settings, catalog=catalog, finder=finder, cache=cache, gate=gate, clock=clock
    )
    debts = Debts(settings=settings, ledger=ledger, gate=gate)

    for_sessions: list[Route] = []
    if sessions is not None:
        desk = SessionDesk(
            settings=settings,
            finder=finder,
            gate=gate,
            sessions=sessions,
            metrics=metrics,
            clock=clock,
        )
        player = SessionPlayback(
            settings=settings,
            finder=finder,
            playlists=playlists,
            listing=listing,
            delivery=delivery,
            gate=gate,
            sessions=sessions,
            desk=desk,
            metrics=metrics,
            clock=clock,
        )
        for_sessions = [
            Route("/s/{token}/hls/{slug}/{rendition}/{msn}.ts", player.segment),
            Route("/s/{token}/hls/{slug}/{rendition}/index.m3u8", player.media),
            Route("/s/{token}/hls/{slug}/index.m3u8", player.multivariant),
            Route("/s/{token}/hls/{slug}/pricing.json", player.pricing),
            Route("/s/{token}/topup", desk.top_up, methods=["POST"]),
            Route("/s/{token}", desk.one, methods=["GET", "DELETE"]),
            Route("/api/v1/sessions", desk.buy, methods=["POST"]),
        ]

    async def healthz(_: Request) -> Response:
        return json_reply({"status": "ok"}, NO_STORE)

    async def readyz(_: Request) -> Response:
        problems = await readiness.problems()
        verdict = {"status": "not ready", "problems": problems} if problems else {"status": "ready"}
        return json_reply(verdict, NO_STORE, 503 if problems else 200)

    async def measurements(_: Request) -> Response:
        return Response(await metrics.render(), 200, {**NO_STORE, "content-type": CONTENT_TYPE})

    app = Starlette(
        routes=[
            Route("/hls/{slug}/{rendition}/{msn}.ts", playback.segment),
            Route("/hls/{slug}/{rendition}/index.m3u8", playlists.media),
            Route("/hls/{slug}/index.m3u8", playlists.multivariant),
            Route("/hls/{slug}/pricing.json", listing.media_pricing),
            Route("/hls/{slug}/poster.jpg", listing.poster),
            Route("/objects/{slug}", playback.object),
            Route("/objects/{slug}/pricing.json", listing.object_pricing),
            Route("/debts/{payer}", debts.answer),
            Route("/api/v1/catalog", listing.catalog),
            Route("/api/v1/streams", status.streams),
            Route("/api/v1/streams/{slug}", status.stream),
            *for_sessions,
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", measurements),
        ],
        middleware=[
            Middleware(
                Edge,
                cors=Cors(settings.cors_origins),
                metrics=metrics,
                max_header_bytes=_HEADER_ROOM + settings.max_payment_header,
            )
        ],
        exception_handlers={HTTPException: _refused_by_router, XByteError: _fault},
    )
    app.router.redirect_slashes = False
    return app


async def _refused_by_router(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 405:
        more = (error.headers if isinstance(error, HTTPException) else None) or {}
        allowed = sorted(more.get("allow", more.get("Allow", "GET, HEAD")).split(", "))
        told = f"this URL answers {' and '.join(allowed)}"
        return problem(405, "method_not_allowed", told, {"allow": ", ".join(allowed)})
    return problem(404, "not_found", "nothing is here; /api/v1/catalog lists what there is")


async def _fault(request: Request, error: Exception) -> Response:
    fault = fault_of(error)
    if fault.status >= 500:
        path = request.url.path
        shown = "/s/…" if path.startswith("/s/") else path  # a token is never logged
        _log.warning("%s answered %d %s: %s", shown, fault.status, fault.code, error)
    return fault_reply(error)
