"""Adapter: the admin API that changes streams, stream keys and prices."""

import re
import time
from collections.abc import Callable
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from xbyte_live.catalog.catalog import Catalog
from xbyte_live.catalog.item_json import item_json
from xbyte_live.catalog.streams import Streams
from xbyte_live.config import Settings
from xbyte_live.errors import (
    BadRequest,
    ItemError,
    ItemExists,
    ItemNotFound,
    MoneyError,
    SourceRefused,
)
from xbyte_live.live.urls import rtmp_url
from xbyte_live.models import (
    Item,
    NewStream,
    Object,
    Offer,
    Rewatch,
    Stream,
    StreamKey,
    Title,
    check_slug,
)
from xbyte_live.money import Price, is_address
from xbyte_live.web.admin.auth import Guard
from xbyte_live.web.api.rates import per_minute
from xbyte_live.web.common.bodies import read_fields
from xbyte_live.web.common.responses import NO_STORE, json_reply

_KEY_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_TERMS = {"price_per_mb": str, "pay_to": str, "preview_seconds": int, "rewatch": str}
_NEW = {
    "slug": str, "name": str, **_TERMS, "playlist": str, "segment_seconds": int,
    "window_seconds": int, "record": bool, "source": str,
}  # fmt: skip
_KEYFRAMES = 2  # seconds that OBS shall have between them
_LONGEST = 365 * 86_400

Answer = dict[str, Any]


class Management:
    """The commands ``stream``, ``price`` and ``remove`` over HTTP.

    ``check_source`` raises ``SourceRefused`` for a URL that may not be pulled.
    """

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        streams: Streams,
        *,
        check_source: Callable[[str], object],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._streams = streams
        self._check_source = check_source
        self._clock = clock

    def routes(self, guard: Guard) -> list[Route]:
        """Its routes, all guarded."""
        keys = "/api/v1/streams/{slug}/keys"
        return [
            guard.route("/api/v1/streams", self.create, ["POST"]),
            guard.route(keys, self.keys, ["GET"]),
            guard.route(keys, self.add_key, ["POST"]),
            guard.route(f"{keys}/rotate", self.rotate, ["POST"]),
            guard.route(f"{keys}/{{id}}", self.revoke, ["DELETE"]),
            guard.route("/api/v1/items/{slug}", self.show, ["GET"]),
            guard.route("/api/v1/items/{slug}", self.change, ["PATCH"]),
            guard.route("/api/v1/items/{slug}", self.remove, ["DELETE"]),
        ]

    async def create(self, request: Request) -> Response:
        """``POST /api/v1/streams``: a new stream and its first key, which is shown this once."""
        fields = await read_fields(request, _NEW)
        slug = _slug(fields.get("slug", ""))
        source = fields.get("source")
        if source is not None:
            try:
                self._check_source(source)
            except SourceRefused as error:
                raise BadRequest(str(error)) from None
        new = NewStream(
            slug=slug,
            name=fields.get("name", "").strip() or slug,
            playlist=_one_of(fields, "playlist", "window", "event"),
            window_us=_seconds(fields, "window_seconds", self._settings.live_window, 6) * 1_000_000,
            segment_target_us=_seconds(
                fields, "segment_seconds", self._settings.live_segment_target, 1, 10
            )
            * 1_000_000,
            recording=fields.get("record", False),
            rewatch=_one_of(fields, "rewatch", "paid", "free"),
            source=source,
        )
        terms = Offer(
            _price(fields) or self._settings.default_price,
            _payee(fields) or None,
            self._clock(),
            _seconds(fields, "preview_seconds", 0, 0) * 1_000_000,
        )
        try:
            key = await self._streams.create(new, terms)
        except ItemExists:
            raise
        except ItemError as error:
            raise BadRequest(str(error)) from None
        made = {"slug": slug, **self._publishing(request)}
        return json_reply(made if source else {**made, "stream_key": key}, NO_STORE, 201)

    async def keys(self, request: Request) -> Response:
        """``GET /api/v1/streams/{slug}/keys``: its keys without their secrets, and its RTMP URL."""
        slug = _named(request)
        keys = [_key(key) for key in await self._streams.keys(slug)]
        return json_reply({"slug": slug, "keys": keys, **self._publishing(request)}, NO_STORE)

    async def add_key(self, request: Request) -> Response:
        """``POST /api/v1/streams/{slug}/keys``: one more key, which is shown this once."""
        fields = await read_fields(request, {"expires_seconds": int})
        lasts = _seconds(fields, "expires_seconds", 0, 1) if fields else None
        slug = _named(request)
        key = await self._streams.add_key(slug, lasts=lasts)
        shown = {"slug": slug, "stream_key": key, **self._publishing(request)}
        return json_reply(shown, NO_STORE, 201)

    async def rotate(self, request: Request) -> Response:
        """``POST /api/v1/streams/{slug}/keys/rotate``: every key is revoked and one made."""
        await read_fields(request, {})
        slug = _named(request)
        key = await self._streams.rotate(slug)
        return json_reply({"slug": slug, "stream_key": key, **self._publishing(request)}, NO_STORE)

    async def revoke(self, request: Request) -> Response:
        """``DELETE /api/v1/streams/{slug}/keys/{id}``: who is on air with it is cut off."""
        number = request.path_params["id"]
        known = _KEY_NUMBER.fullmatch(number) is not None
        if not known or not await self._streams.revoke(_named(request), [int(number)]):
            raise ItemNotFound("this stream has no such key")
        return json_reply({"revoked": int(number)}, NO_STORE)

    async def show(self, request: Request) -> Response:
        """``GET /api/v1/items/{slug}``: an item and its terms, as its publisher sees them."""
        item = await self._catalog.item(_named(request))
        if item is None:
            raise ItemNotFound("there is no such item; /api/v1/catalog lists what there is")
        return json_reply(self._described(item), NO_STORE)

    async def change(self, request: Request) -> Response:
        """``PATCH /api/v1/items/{slug}``: change the given terms of an item."""
        fields = await read_fields(request, _TERMS)
        if not fields:
            raise BadRequest(f"name what to change: {', '.join(_TERMS)}")
        preview = fields.get("preview_seconds")
        item = await self._catalog.set_terms(
            _named(request),
            price=_price(fields),
            pay_to=_payee(fields),
            preview_us=None
            if preview is None
            else _seconds(fields, "preview_seconds", 0, 0) * 1_000_000,
            rewatch=cast(Rewatch, _one_of(fields, "rewatch", "paid", "free"))
            if "rewatch" in fields
            else None,
        )
        return json_reply(self._described(item), NO_STORE)

    async def remove(self, request: Request) -> Response:
        """``DELETE /api/v1/items/{slug}``: off sale, and off the air."""
        slug = _named(request)
        await self._catalog.remove(slug)
        return json_reply({"removed": slug}, NO_STORE)

    def _publishing(self, request: Request) -> Answer:
        """The settings for OBS besides the key; no URL where RTMP is not served."""
        url = rtmp_url(self._settings, request.url.hostname or "localhost")
        served = bool(self._settings.rtmp_port or self._settings.rtmps_port)
        return {"rtmp_url": url if served else None, "keyframe_interval_s": _KEYFRAMES}

    def _described(self, item: Item) -> Answer:
        offer = item.offers[0]
        found: Answer = item_json(item, offer) | {
            "pay_to": offer.pay_to or self._settings.pay_to,
            "pays_default": offer.pay_to is None,
            "since": offer.since,
        }
        if not isinstance(item, Object):
            found["renditions"] = [
                {
                    "name": r.name,
                    "bandwidth": r.bandwidth,
                    "average_bandwidth": r.average_bandwidth,
                    "segments": len(r.segments),
                    "bytes": sum(segment.size for segment in r.segments),
                    "amount_per_minute": str(per_minute(r, offer.price)),
                }
                for r in item.renditions
            ]
        if isinstance(item, Title):
            found["recorded_from"] = item.recorded_from
        elif isinstance(item, Stream):
            found |= {"playlist": item.playlist, "recording": item.recording}
        return found


def _key(key: StreamKey) -> Answer:
    return {
        "id": key.id,
        "hint": key.hint,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "used_at": key.used_at,
    }


def _named(request: Request) -> str:
    return check_slug(request.path_params["slug"])


def _slug(text: str) -> str:
    try:
        return check_slug(text)
    except ItemError as error:
        raise BadRequest(str(error)) from None


def _price(fields: Answer) -> Price | None:
    if "price_per_mb" not in fields:
        return None
    try:
        return Price.parse(fields["price_per_mb"])
    except MoneyError as error:
        raise BadRequest(f"price_per_mb: {error}") from None


def _payee(fields: Answer) -> str | None:
    """The payee if given, ``""`` for the server's own; ``None`` without."""
    pay_to: str | None = fields.get("pay_to")
    if pay_to and not is_address(pay_to):
        raise BadRequest("pay_to is an address: 0x and 40 hex digits")
    return pay_to


def _one_of(fields: Answer, name: str, *choices: str) -> Any:
    """The given choice, or else the first."""
    value = fields.get(name, choices[0])
    if value not in choices:
        raise BadRequest(f"{name} is one of {', '.join(choices)}")
    return value


def _seconds(fields: Answer, name: str, default: int, least: int, most: int = _LONGEST) -> int:
    value: int = fields.get(name, default)
    if not least <= value <= most and name in fields:
        raise BadRequest(f"{name} is a number of seconds from {least} to {most}")
    return value
