"""Adapter: playlists with prices, rendered once per change and kept in memory."""

import asyncio
import gzip
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from xbyte_live.config import Settings
from xbyte_live.errors import ItemNotFound
from xbyte_live.media.formats.playlist import (
    live_playlist,
    media_playlist,
    multivariant_playlist,
    segment_lines,
)
from xbyte_live.models import Offer, Rendition, Stream, Title
from xbyte_live.pricing.quotes import amount_of, in_force
from xbyte_live.web.common.ranges import accepts_gzip, names_tag
from xbyte_live.web.common.resolver import Resolver
from xbyte_live.web.common.responses import not_modified
from xbyte_live.web.playback.blocking_reload import BlockingReloads, read_directives

MEDIA_TYPE = "application/vnd.apple.mpegurl"

_WORTH_PACKING = 1400  # bytes: what fits in one packet gains nothing from gzip
_NOT_ON_AIR = "this stream has not been on air yet"
_NO_RENDITION = "this item has no such rendition"
_PLAYLIST_SHARE = 8  # playlists may take this fraction of what segments may


@dataclass(frozen=True, slots=True)
class _Text:
    """One rendered playlist, and the item and offer it was rendered from."""

    item: Title | Stream
    offer: Offer
    plain: bytes
    packed: bytes | None
    etag: str
    lines: Mapping[int, str]

    @property
    def size(self) -> int:
        kept_twice = len(self.plain) if self.lines else 0
        return len(self.plain) + len(self.packed or b"") + kept_twice


class Playlists:
    """Serves the playlists of titles and streams, free for everyone.

    A text is kept while its item and the offer in force stay the same; all texts together take
    at most an eighth of ``cache_bytes``. ``held`` is their size in bytes, ``rendered`` counts
    renderings.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        resolver: Resolver,
        reloads: BlockingReloads,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._resolver = resolver
        self._reloads = reloads
        self._clock = clock
        self._limit = settings.cache_bytes // _PLAYLIST_SHARE
        self._max_age = playlist_max_age(settings)
        self._texts: OrderedDict[tuple[str, str], _Text] = OrderedDict()
        self.held = 0
        self.rendered = 0
        self._rendering = asyncio.Lock()

    async def multivariant(self, request: Request) -> Response:
        """``GET /hls/{slug}/index.m3u8`` (RFC 8216bis 4.4.6)."""
        item = await self._resolver.media(request.path_params["slug"])
        if not item.renditions:
            raise ItemNotFound(_NOT_ON_AIR)
        return self._reply(request, await self._text(item, None))

    async def media(self, request: Request) -> Response:
        """``GET /hls/{slug}/{rendition}/index.m3u8`` with its prices (RFC 8216bis 4.4.3).

        With ``_HLS_msn`` the answer for a stream waits until that segment is listed (6.2.5.2).
        """
        name = request.path_params["rendition"]
        item = await self._resolver.media(request.path_params["slug"])
        wanted = read_directives(request.query_params)
        if isinstance(item, Stream) and wanted is not None:
            item = await self._reloads.wait(item, name, wanted)
        rendition = item.rendition(name)
        if rendition is None:
            raise ItemNotFound(_NO_RENDITION if item.renditions else _NOT_ON_AIR)
        return self._reply(request, await self._text(item, rendition))

    async def _text(self, item: Title | Stream, rendition: Rendition | None) -> _Text:
        offer = in_force(item.offers, self._clock())
        key = (item.slug, rendition.name if rendition else "")
        found = self._kept(key, item, offer)
        if found is None:
            async with self._rendering:  # one at a time: rendering a long one takes a whole core
                found = self._kept(key, item, offer)
                if found is None:
                    self.rendered += 1
                    before = self._texts.get(key)
                    lines = before.lines if before else {}
                    found = await asyncio.to_thread(_render, item, rendition, offer, lines)
                    self._keep(key, found)
        return found

    def _kept(self, key: tuple[str, str], item: Title | Stream, offer: Offer) -> _Text | None:
        found = self._texts.get(key)
        if found is None or found.item is not item or found.offer is not offer:
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
            "cache-control": f"public, max-age={self._max_age_of(text.item)}",
            "etag": etag,
            "vary": "Accept-Encoding",
        }
        if names_tag(request.headers.get("if-none-match"), etag):
            return not_modified(headers)
        if packed:
            headers["content-encoding"] = "gzip"
        return Response(packed or text.plain, 200, headers, MEDIA_TYPE)

    def _max_age_of(self, item: Title | Stream) -> int:
        """Seconds: a live playlist is old when its next segment exists (RFC 8216bis 6.2.2)."""
        if not isinstance(item, Stream):
            return self._max_age
        return max(1, item.segment_target_us // 2_000_000)


def playlist_max_age(settings: Settings) -> int:
    """Seconds for which a playlist or price list may be cached.

    Half of the time for which its prices stay good, so that a reader of the oldest copy can still
    pay them (money rule 8).
    """
    return max(1, settings.quote_ttl // 2)


def _render(
    item: Title | Stream, rendition: Rendition | None, offer: Offer, known: Mapping[int, str]
) -> _Text:
    lines: Mapping[int, str] = {}
    if rendition is None:
        text = multivariant_playlist(item.renditions)
    elif isinstance(item, Stream):
        lines = {
            segment.msn: known.get(segment.msn) or segment_lines(segment, amount_of(segment, offer))
            for segment in rendition.segments
        }
        event = item.playlist == "event"
        text = live_playlist(rendition, list(lines.values()), event=event, ended=item.ended)
    else:
        text = media_playlist(rendition, [amount_of(s, offer) for s in rendition.segments])
    plain = text.encode()
    packed = gzip.compress(plain, 6, mtime=0) if len(plain) > _WORTH_PACKING else None
    return _Text(item, offer, plain, packed, hashlib.sha256(plain).hexdigest()[:32], lines)
