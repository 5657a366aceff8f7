"""Adapter: the studio: its page, its login, and the API behind it."""

import asyncio
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from xbyte_live.web.admin.auth import Guard
from xbyte_live.web.admin.events import Events
from xbyte_live.web.admin.management import Management
from xbyte_live.web.admin.reports import Dashboard
from xbyte_live.web.api.openapi import document
from xbyte_live.web.common.responses import base_url, json_reply
from xbyte_live.web.pages.pages import Renderer


@dataclass(frozen=True, slots=True)
class Studio:
    """The parts of the studio; ``leaving`` is set when the server ends."""

    guard: Guard
    dashboard: Dashboard
    management: Management
    events: Events
    leaving: asyncio.Event
    public_url: str = ""

    def routes(self, renderer: Renderer) -> list[Route]:
        """All its routes; the page needs no login, its script asks for one."""

        async def page(request: Request) -> Response:
            return await renderer.page(request, "studio.html", "studio.js", {"here": "studio"})

        return [
            Route("/studio", page),
            *self.guard.routes(),
            Route("/api/v1/openapi.json", self._document),
            *self.dashboard.routes(self.guard),
            *self.management.routes(self.guard),
            *self.events.routes(self.guard),
        ]

    async def _document(self, request: Request) -> Response:
        """``GET /api/v1/openapi.json``: the description of the API, for everyone."""
        server = base_url(request, self.public_url)
        headers = {"cache-control": "no-cache", "access-control-allow-origin": "*"}
        return json_reply(document(server), headers)
