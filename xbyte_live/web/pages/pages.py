"""Adapter: the home page and the watch pages, and how every page is rendered."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from xbyte_live.config import Settings
from xbyte_live.errors import ItemError, XByteError
from xbyte_live.money import PRICE_DECIMALS, parse_decimal
from xbyte_live.web.api.catalog import CatalogApi
from xbyte_live.web.api.site import Site
from xbyte_live.web.common.ranges import names_tag
from xbyte_live.web.common.responses import base_url, fault_of, not_modified
from xbyte_live.web.pages.assets import Assets
from xbyte_live.web.pages.cards import card_of, money, rates_of

_TEMPLATES = Path(__file__).parents[1] / "templates"
_STYLES = "pages.css"
_HTML = "text/html; charset=utf-8"
_OFF_SALE = "It may have been taken off sale, or never was."


class Renderer:
    """Renders pages from templates: escaped, under a strict policy, with an ETag.

    Pages are complete without their scripts, and name the built files that are missing.
    """

    def __init__(self, *, site: Site, assets: Assets) -> None:
        self._site = site
        self._assets = assets
        self._templates = Environment(
            loader=FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._policy = content_policy(site.origins())

    async def page(
        self,
        request: Request,
        template: str,
        script: str,
        values: Mapping[str, Any],
        status: int = 200,
    ) -> Response:
        """A page with its script, ``""`` for one that has none."""
        built = {name: await self._assets.url_of(name) for name in (_STYLES, script) if name}
        text = self._templates.get_template(template).render(
            site=self._site.document(),
            styles=built[_STYLES],
            script=built.get(script),
            missing=[name for name, url in built.items() if url is None],
            **values,
        )
        return self._reply(request, text.encode(), status)

    async def explain(self, request: Request, error: XByteError, missing: str) -> Response:
        """A page that says in plain words why there is no other; ``missing`` for a 404."""
        fault = fault_of(error)
        if isinstance(error, ItemError):
            told = {"heading": "There is nothing here", "message": missing}
            return await self.page(request, "error.html", "", told, 404)
        told = {
            "heading": "That did not work",
            "message": fault.message or "Try again in a moment.",
        }
        return await self.page(request, "error.html", "", told, fault.status)

    def _reply(self, request: Request, body: bytes, status: int) -> Response:
        headers = {
            "content-security-policy": self._policy,
            "referrer-policy": "same-origin",
            "cross-origin-opener-policy": "same-origin-allow-popups",
            "permissions-policy": "camera=(), microphone=(), geolocation=()",
            "cache-control": "no-cache" if status == 200 else "no-store",
        }
        if status == 200:
            headers["etag"] = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            if names_tag(request.headers.get("if-none-match"), headers["etag"]):
                return not_modified(headers)
        return Response(body, status, headers | {"content-type": _HTML})


class Pages:
    """``/``, ``/watch/{slug}``, and the files and names they use."""

    def __init__(
        self,
        *,
        settings: Settings,
        listing: CatalogApi,
        site: Site,
        assets: Assets,
        renderer: Renderer,
    ) -> None:
        self._public = settings.public_url
        self._listing = listing
        self._site = site
        self._assets = assets
        self._renderer = renderer

    def routes(self) -> list[Route]:
        """The routes of the pages."""
        return [
            Route("/", self.home),
            Route("/watch/{slug}", self.watch),
            Route("/static/{name}", self._assets.answer),
            Route("/api/v1/site", self._site.answer),
        ]

    async def home(self, request: Request) -> Response:
        """``GET /``: streams on air, and the catalog."""
        return await self._or_explain(request, self._home)

    async def watch(self, request: Request) -> Response:
        """``GET /watch/{slug}``: one item, its player and its meter."""
        return await self._or_explain(request, self._watch)

    async def _home(self, request: Request) -> Response:
        newest_first = reversed(await self._listing.entries())
        values = {
            "here": "home",
            "test_money": self._test_money(),
            **shelves([card_of(entry) for entry in newest_first]),
        }
        return await self._renderer.page(request, "home.html", "home.js", values)

    async def _watch(self, request: Request) -> Response:
        entry = await self._listing.pricing(request.path_params["slug"])
        item = card_of(entry) | {"rates": rates_of(entry), "whole": _whole(entry)}
        origin = base_url(request, self._public)
        values = {"item": item, "origin": origin}
        return await self._renderer.page(request, "watch.html", "watch.js", values)

    async def _or_explain(
        self, request: Request, answer: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        """An answer, or a page that says in plain words why there is none."""
        try:
            return await answer(request)
        except XByteError as error:
            return await self._renderer.explain(request, error, _OFF_SALE)

    def _test_money(self) -> str | None:
        networks = self._site.document()["networks"]
        return next((n["name"] for n in networks if n["faucet_url"]), None)


def content_policy(origins: list[str]) -> str:
    """The Content-Security-Policy of pages that may also connect to ``origins``."""
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data:",
            "media-src 'self' blob:",
            " ".join(("connect-src 'self'", *origins)),
            "worker-src 'self' blob:",
            "font-src 'self'",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    )


def shelves(cards: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Cards by the sections of the home page."""
    return {
        "live": [c for c in cards if c["is_live"]],
        "titles": [c for c in cards if c["kind"] == "title"],
        "files": [c for c in cards if c["kind"] == "object"],
        "off_air": [c for c in cards if c["kind"] == "stream" and not c["is_live"]],
    }


def _whole(entry: dict[str, Any]) -> str | None:
    costs = [rate["price_whole"] for rate in entry["renditions"] if rate["price_whole"]]
    dearest = max(costs, key=lambda cost: parse_decimal(cost, PRICE_DECIMALS), default="0")
    return None if dearest == "0" else money(dearest)
