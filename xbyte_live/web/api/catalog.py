"""Adapter: the catalog, price lists and posters, free for everyone."""

import asyncio
import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from xbyte_live.catalog.catalog import Catalog
from xbyte_live.catalog.item_json import item_json
from xbyte_live.config import Settings
from xbyte_live.errors import ItemNotFound
from xbyte_live.live.thumbnails import Thumbnails
from xbyte_live.models import Item, Object, Stream, Title
from xbyte_live.money import MIB
from xbyte_live.payments.gate import Gate
from xbyte_live.payments.x402.requirements import PaymentMethod
from xbyte_live.pricing.quotes import Quote, deposit_at, in_force, quotes_at
from xbyte_live.storage.blobs.cache import SegmentCache
from xbyte_live.web.api.rates import dearest, dollars, rate_of
from xbyte_live.web.api.viewers import Audience
from xbyte_live.web.common.ranges import names_tag
from xbyte_live.web.common.resolver import Resolver
from xbyte_live.web.common.responses import JSON, NO_STORE, not_modified
from xbyte_live.web.playback.playlists import playlist_max_age

_POSTER_AGE = 300  # seconds; a title's poster changes when the title is replaced
_STILL_AGE = 10  # seconds; that of a stream shows what was on air just now
_CATALOG_AGE = 1.0  # seconds the list is kept, however often it is asked for


class CatalogApi:
    """Serves the catalog, price lists and posters."""

    def __init__(
        self,
        *,
        settings: Settings,
        catalog: Catalog,
        resolver: Resolver,
        cache: SegmentCache,
        gate: Gate,
        audience: Audience,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._resolver = resolver
        self._cache = cache
        self._gate = gate
        self._audience = audience
        self._thumbnails = Thumbnails(cache)
        self._clock = clock
        self._base = settings.public_url.rstrip("/")
        self._max_age = playlist_max_age(settings)
        self._entries: list[dict[str, Any]] = []
        self._list = b""
        self._listed_at = float("-inf")
        self._listing = asyncio.Lock()

    async def catalog(self, request: Request) -> Response:
        """``GET /api/v1/catalog``: every item; URLs are relative unless ``public_url`` is set."""
        await self.entries()
        return _reply(request, self._list, JSON, self._max_age)

    async def entries(self) -> list[dict[str, Any]]:
        """The entries of the catalog, the oldest item first."""
        async with self._listing:
            if not 0 <= self._clock() - self._listed_at < _CATALOG_AGE:
                entries = [await self._entry(item) for item in await self._catalog.items()]
                self._entries, self._list = entries, _json({"items": entries})
                self._listed_at = self._clock()
        return self._entries

    async def pricing(self, slug: str) -> dict[str, Any]:
        """The price list of an item; raises ``ItemNotFound``."""
        try:
            item: Item = await self._resolver.media(slug)
        except ItemNotFound:
            item = await self._resolver.object(slug)
        return self._pricing(item)

    async def media_pricing(self, request: Request) -> Response:
        """``GET /hls/{slug}/pricing.json``."""
        item = await self._resolver.media(request.path_params["slug"])
        return _reply(request, _json(self._pricing(item)), JSON, self._max_age)

    async def object_pricing(self, request: Request) -> Response:
        """``GET /objects/{slug}/pricing.json``."""
        item = await self._resolver.object(request.path_params["slug"])
        return _reply(request, _json(self._pricing(item)), JSON, self._max_age)

    async def poster(self, request: Request) -> Response:
        """``GET /hls/{slug}/poster.jpg``."""
        item = await self._resolver.media(request.path_params["slug"])
        if item.poster is not None:
            return _reply(request, await self._cache.get(item.poster), "image/jpeg", _POSTER_AGE)
        still = await self._thumbnails.of(item) if isinstance(item, Stream) else None
        if still is None and isinstance(item, Stream) and _is_seen(item):
            return Response(None, 204, NO_STORE)  # there is one soon
        if still is None:
            raise ItemNotFound("this item has no poster")
        return _reply(request, still, "image/jpeg", _STILL_AGE)

    async def _entry(self, item: Item) -> dict[str, Any]:
        entry = self._summary(item)
        if isinstance(item, Stream):
            watched = item.state in ("on_air", "waiting")
            entry["viewers_paying"] = await self._audience.paying(item.slug) if watched else 0
        return entry

    def _summary(self, item: Item) -> dict[str, Any]:
        quote = quotes_at(item, MIB, self._settings, self._clock())[0]
        files = "objects" if isinstance(item, Object) else "hls"
        base = f"{self._base}/{files}/{item.slug}"
        found = item_json(item, in_force(item.offers, self._clock())) | {
            "url": base if isinstance(item, Object) else f"{base}/index.m3u8",
            "pricing_url": f"{base}/pricing.json",
        }
        if isinstance(item, Object):
            return found | {"price_whole": dollars(quote.price.amount_for(item.size))}
        minute = dearest(item.renditions, quote.price)
        found |= {
            "price_per_minute": None if minute is None else dollars(minute),
            "has_video": any(rendition.has_video for rendition in item.renditions),
        }
        if isinstance(item, Title):
            return found | {"poster_url": f"{base}/poster.jpg" if item.poster else None}
        return found | {
            "started_at": item.started_at,
            "poster_url": f"{base}/poster.jpg" if _is_seen(item) else None,
            "status_url": f"{self._base}/api/v1/streams/{item.slug}",
        }

    def _pricing(self, item: Item) -> dict[str, Any]:
        methods = self._gate.methods
        quote = quotes_at(item, MIB, self._settings, self._clock())[0]
        offer = in_force(item.offers, self._clock())
        rated = [] if isinstance(item, Object) else item.renditions
        return {
            **self._summary(item),
            "renditions": [
                rate_of(rendition, offer, is_whole=isinstance(item, Title)) for rendition in rated
            ],
            "bytes_per_mb": MIB,
            "quote_ttl_seconds": self._settings.quote_ttl,
            "pay_to": quote.pay_to,
            "asset": methods[0].asset.address,
            "networks": list(dict.fromkeys(method.asset.network for method in methods)),
            "schemes": list(dict.fromkeys(method.scheme for method in methods)),
            "accepts": self._gate.terms(quote, deposit_at(item, quote, self._settings)),
            "payment_methods": [_method(method, quote) for method in methods],
        }


def _is_seen(stream: Stream) -> bool:
    """Whether it has a still of what is on air."""
    return not stream.ended and any(rendition.has_video for rendition in stream.renditions)


def _method(method: PaymentMethod, quote: Quote) -> dict[str, Any]:
    return {
        "scheme": method.scheme,
        "network": method.asset.network,
        "asset": method.asset.address,
        "symbol": method.asset.symbol,
        "decimals": method.asset.decimals,
        "amount_per_mb": str(quote.price.amount_for(quote.size)),
    }


def _reply(request: Request, body: bytes, media_type: str, max_age: int) -> Response:
    headers = {
        "cache-control": f"public, max-age={max_age}",
        "etag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
    }
    if names_tag(request.headers.get("if-none-match"), headers["etag"]):
        return not_modified(headers)
    return Response(body, 200, headers, media_type)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
