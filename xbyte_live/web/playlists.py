"""Adapter: playlist texts with the prices in them, rendered once and kept in memory."""

import asyncio
import gzip
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from xbyte_live.config import Settings
from xbyte_live.errors import ItemNotFound
from xbyte_live.media.playlist import media_playlist, multivariant_playlist
from xbyte_live.models import Offer, Rendition, Title
from xbyte_live.pricing import in_force, in_preview
from xbyte_live.web.finding import Finder
from xbyte_live.web.ranges import accepts_gzip, names_tag
from xbyte_live.web.replies import not_modified

MEDIA_TYPE = "application/vnd.apple.mpegurl"

_WORTH_PACKING = 1400  # bytes: what fits in one packet gains nothing from gzip
_PLAYLIST_SHARE = 8  # playlists may take this fraction of what segments may


@dataclass(frozen=True, slots=True)
class _Text:
    """One playlist and what it was rendered from."""

    title: Title
    offer: Offer
    plain: bytes
    packed: bytes | None
    etag: str

    @property
    def size(self) -> int:
        return len(self.plain) + len(self.packed or b"")


class Playlists:
    """Answers for the playlists of titles, free for everyone.

    A text is kept while its title and the offer in force stay what they were; all texts
    together take at most an eighth of ``cache_bytes``. ``held`` is their bytes now, ``rendered``
    counts renderings.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        finder: Finder,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._finder = finder
        self._clock = clock
        self._limit = settings.cache_bytes // _PLAYLIST_SHARE
        self._max_age = playlist_max_age(settings)
        self._texts: OrderedDict[tuple[str, str], _Text] = OrderedDict()
        self.held = 0
        self.rendered = 0
        self._rendering = asyncio.Lock()

    async def multivariant(self, request: Request) -> Response:
        """``GET /hls/{slug}/index.m3u8`` (RFC 8216bis 4.4.6)."""
        title = await self._finder.title(request.path_params["slug"])
        return self._reply(request, await self._text(title, None))

    async def media(self, request: Request) -> Response:
        """``GET /hls/{slug}/{rendition}/index.m3u8`` with its prices (RFC 8216bis 4.4.3)."""
        title = await self._finder.title(request.path_params["slug"])
        rendition = title.rendition(request.path_params["rendition"])
        if rendition is None:
            raise ItemNotFound("this item has no such rendition")
        return self._reply(request, await self._text(title, rendition))

    async def _text(self, title: Title, rendition: Rendition | None) -> _Text:
        offer = in_force(title.offers, self._clock())
        key = (title.slug, rendition.name if rendition else "")
        found = self._kept(key, title, offer)
        if found is None:
            async with self._rendering:  # one at a time: rendering a long one takes a whole core
                found = self._kept(key, title, offer)
                if found is None:
                    self.rendered += 1
                    found = await asyncio.to_thread(_render, title, rendition, offer)
                    self._keep(key, found)
        return found

    def _kept(self, key: tuple[str, str], title: Title, offer: Offer) -> _Text | None:
        found = self._texts.get(key)
        if found is None or found.title is not title or found.offer is not offer:
            return None
        self._texts.move_to_end(key)
        return found

    def _keep(self, key: tuple[str, str], text: _Text) -> None:
        old = self._texts.pop(key, None)
        self.held -= old.size if old else 0
        if text.size > self._limit:
            return
        self._texts[key] = text
        self.held += text.size
        while self.held > self._limit:
            _, dropped = self._texts.popitem(last=False)
            self.held -= dropped.size

    def _reply(self, request: Request, text: _Text) -> Response:
        packed = text.packed if accepts_gzip(request.headers.get("accept-encoding")) else None
        etag = f'"{text.etag}-gzip"' if packed else f'"{text.etag}"'
        headers = {
            "cache-control": f"public, max-age={self._max_age}",
            "etag": etag,
            "vary": "Accept-Encoding",
        }
        if names_tag(request.headers.get("if-none-match"), etag):
            return not_modified(headers)
        if packed:
            headers["content-encoding"] = "gzip"
        return Response(packed or text.plain, 200, headers, MEDIA_TYPE)


def playlist_max_age(settings: Settings) -> int:
    """Seconds a playlist or price list may be cached.

    Half of the time its prices stay good, so that a reader of the oldest copy can still pay
    them (money rule 8).
    """
    return max(1, settings.quote_ttl // 2)


def _render(title: Title, rendition: Rendition | None, offer: Offer) -> _Text:
    if rendition is None:
        text = multivariant_playlist(title.renditions)
    else:
        amounts = [
            0 if in_preview(segment, offer.preview_us) else offer.price.amount_for(segment.size)
            for segment in rendition.segments
        ]
        text = media_playlist(rendition, amounts)
    plain = text.encode()
    packed = gzip.compress(plain, 6, mtime=0) if len(plain) > _WORTH_PACKING else None
    return _Text(title, offer, plain, packed, hashlib.sha256(plain).hexdigest()[:32])
