"""A server with its studio over a real database, reached without a socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx2
from starlette.applications import Starlette
from starlette.routing import Route

from tests.fakes import FakeGate, MemoryStore
from xbyte_live.catalog.catalog import Catalog
from xbyte_live.catalog.streams import Streams
from xbyte_live.config import Secret, Settings
from xbyte_live.payments.ledger.charges import ChargeLedger
from xbyte_live.server.admin import build_studio
from xbyte_live.storage.blobs.cache import SegmentCache
from xbyte_live.storage.db.engine import Database
from xbyte_live.web.admin.login_tokens import LoginTokens
from xbyte_live.web.admin.studio import Studio
from xbyte_live.web.app import create_app
from xbyte_live.web.common.health import Readiness
from xbyte_live.web.common.metrics import Metrics

TOKEN = "a-token-that-nobody-guesses"
PAYEE = "0x" + "aa" * 20
ORIGIN = "http://site.test"


@dataclass(slots=True)
class StudioSite:
    """The application and what it stands on."""

    app: Starlette
    settings: Settings
    database: Database
    catalog: Catalog
    streams: Streams
    studio: Studio
    login_tokens: LoginTokens

    def client(
        self, host: str = "192.0.2.1", base_url: str = ORIGIN, **headers: str
    ) -> httpx2.AsyncClient:
        """Somebody at an address, who shows nothing unless ``headers`` do."""
        transport = httpx2.ASGITransport(self.app, client=(host, 1234))
        return httpx2.AsyncClient(transport=transport, base_url=base_url, headers=headers)

    def admin(self, **headers: str) -> httpx2.AsyncClient:
        """Somebody with the token."""
        return self.client(authorization=f"Bearer {TOKEN}", **headers)

    def routes(self) -> list[Route]:
        """Every route of the application."""
        return [route for route in self.app.routes if isinstance(route, Route)]


@asynccontextmanager
async def a_studio_site(url: str, **changes: Any) -> AsyncIterator[StudioSite]:
    """Open a site on a database."""
    settings = replace(Settings(pay_to=PAYEE, admin_token=Secret(TOKEN)), **changes)
    database = Database(url)
    await database.start()
    catalog = Catalog(database, refresh=0.0)
    studio = build_studio(settings, database, catalog)
    store: Any = MemoryStore()
    app = create_app(
        settings=settings,
        catalog=catalog,
        store=store,
        cache=SegmentCache(store, settings.cache_bytes),
        gate=FakeGate(),  # type: ignore[arg-type]
        ledger=ChargeLedger(database),
        metrics=Metrics(),
        readiness=Readiness({}, keep=0),
        studio=studio,
    )
    try:
        yield StudioSite(
            app, settings, database, catalog, Streams(database, catalog), studio, LoginTokens(TOKEN)
        )
    finally:
        await database.stop()


async def told(site: StudioSite, client: httpx2.AsyncClient, count: int) -> list[bytes]:
    """The first chunks of the live figures, read as a browser does."""
    chunks: list[bytes] = []
    done = asyncio.Event()
    sent = False

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await done.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body" and message.get("body"):
            chunks.append(message["body"])
            if len(chunks) == count:
                done.set()

    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "method": "GET",
        "path": "/api/v1/events", "raw_path": b"/api/v1/events", "query_string": b"",
        "root_path": "", "scheme": "http", "http_version": "1.1", "server": ("site.test", 80),
        "client": ("192.0.2.1", 1), "state": {},
        "headers": [(k.lower(), v) for k, v in client.headers.raw],
    }  # fmt: skip
    await site.app(scope, receive, send)
    return chunks
