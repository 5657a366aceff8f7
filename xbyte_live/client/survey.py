"""Adapter: asks a server, without paying, what a URL offers and for how much."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from urllib.parse import urljoin, urlsplit

import httpx

from xbyte_live.client.payer.payer import item_of
from xbyte_live.client.payer.terms import Terms, plain, read_challenge, read_pricing
from xbyte_live.client.playlists import (
    Piece,
    choose_variant,
    object_pieces,
    playlist_of_page,
    segment_pieces,
)
from xbyte_live.errors import ConfigError, DeliveryFailed, MediaError, MoneyError
from xbyte_live.media.formats.playlist import (
    MediaPlaylist,
    is_multivariant,
    read_media_playlist,
    read_multivariant_playlist,
)
from xbyte_live.money import MIB, Price
from xbyte_live.runtime.json import MAX_DOCUMENT, read_json

MAX_PLAYLIST = 8 * MIB
_MAX_SIZE = 2**50  # bytes of an object; beyond any disk, and pieces are counted in memory
_TRIES = 4
_FIRST_WAIT = 0.25  # seconds


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which part of what a URL offers is wanted; ``piece_size`` is bytes of an object at once."""

    rendition: str | None = None
    max_bandwidth: int | None = None
    piece_size: int = 4 * MIB


@dataclass(frozen=True, slots=True)
class Offered:
    """What a URL turned out to be.

    ``source`` is the media playlist or the object itself; ``reload_after`` the seconds after
    which a live playlist will have more, ``None`` when all there will be is in ``pieces``.
    ``terms`` are the item's, where a price list has them; ``asked`` is the 402 of a single piece
    of unknown price.
    """

    source: str
    item: str
    pieces: tuple[Piece, ...]
    reload_after: float | None = None
    terms: Terms | None = None
    asked: Terms | None = None


class Surveyor:
    """Reads playlists and price lists over ``client``, which never pays."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._sleep = sleep

    async def survey(self, url: str, wanted: Wanted) -> Offered:
        """Find out what ``url`` offers: a playlist, a watch page, a segment or any other file.

        Raises ``DeliveryFailed`` when the server does not say, ``MediaError`` for a playlist
        that cannot be read, ``TermsRefused`` for a 402 that cannot.
        """
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ConfigError(f"{plain(url)!r} is not an http or https URL")
        url = playlist_of_page(url)
        if urlsplit(url).path.endswith(".m3u8"):
            return await self._playlist(url, wanted)
        if urlsplit(url).path.endswith(".ts"):
            return await self._segment(url) or await self._resource(url)
        return await self._object(url, wanted) or await self._resource(url)

    async def reload(self, source: str) -> Offered:
        """A media playlist as it stands now."""
        base, text = await self._text(source)
        return _offered(base, read_media_playlist(text))

    async def _playlist(self, url: str, wanted: Wanted) -> Offered:
        base, text = await self._text(url)
        if is_multivariant(text):
            variant = choose_variant(
                read_multivariant_playlist(text),
                rendition=wanted.rendition,
                max_bandwidth=wanted.max_bandwidth,
            )
            base, text = await self._text(urljoin(base, variant.uri))
        offered = _offered(base, read_media_playlist(text))
        pricing = await self._get(f"{offered.item}/pricing.json", MAX_DOCUMENT)
        return replace(offered, terms=read_pricing(pricing) if pricing else None)

    async def _segment(self, url: str) -> Offered | None:
        """One segment, as the playlist beside it lists it."""
        try:
            offered = await self.reload(urljoin(url, "index.m3u8"))
        except (DeliveryFailed, MediaError):
            return None
        pieces = tuple(piece for piece in offered.pieces if piece.url == url)
        return Offered(url, offered.item, pieces) if pieces else None

    async def _object(self, url: str, wanted: Wanted) -> Offered | None:
        """An object whose size and price its price list tells."""
        data = await self._get(f"{item_of(url)}/pricing.json", MAX_DOCUMENT)
        listed = _size_and_price(data) if data else None
        if not data or listed is None:
            return None
        size, price = listed
        return Offered(
            source=url,
            item=item_of(url),
            pieces=object_pieces(url, size, price, wanted.piece_size),
            terms=read_pricing(data),
        )

    async def _resource(self, url: str) -> Offered:
        """Anything else: whole, for what its 402 asks."""
        async with self._open(url) as response:
            if response.status_code == 402:
                body = await _limited(response, MAX_DOCUMENT)
                terms = read_challenge(response.headers.get("payment-required"), body or b"")
                return Offered(url, item_of(url), (Piece(url),), asked=terms)
            if response.status_code != 200:
                raise _no_answer(response)
            length = response.headers.get("content-length", "")
            size = int(length) if length.isdecimal() and len(length) < 19 else None
            return Offered(url, item_of(url), (Piece(url, size, 0),))

    async def _text(self, url: str) -> tuple[str, str]:
        """A playlist and the URL it came from in the end."""
        async with self._open(url) as response:
            if response.status_code != 200:
                raise _no_answer(response)
            body = await _limited(response, MAX_PLAYLIST)
            if body is None:
                raise DeliveryFailed(f"the playlist is larger than {MAX_PLAYLIST} bytes")
            return str(response.url), body.decode("utf-8", "replace")

    async def _get(self, url: str, limit: int) -> bytes | None:
        """What lies at a URL, or ``None`` if nothing does or it is larger than ``limit``."""
        async with self._open(url) as response:
            return await _limited(response, limit) if response.status_code == 200 else None

    @asynccontextmanager
    async def _open(self, url: str) -> AsyncIterator[httpx.Response]:
        """An answer to a GET, after some patience with a server that cannot give one now."""
        for tried in range(1, _TRIES + 1):
            request = self._client.build_request("GET", url)
            try:
                response = await self._client.send(request, stream=True, follow_redirects=True)
            except (httpx.TransportError, httpx.InvalidURL, httpx.TooManyRedirects):
                if tried == _TRIES:
                    where = urlsplit(url).netloc
                    raise DeliveryFailed(f"the server at {plain(where)} does not answer") from None
            else:
                if response.status_code not in (429, 500, 502, 503, 504) or tried == _TRIES:
                    break
                await response.aclose()
            await self._sleep(_FIRST_WAIT * 2 ** (tried - 1))
        try:
            yield response
        except (httpx.TransportError, httpx.DecodingError):
            raise DeliveryFailed("the server broke off its answer") from None
        finally:
            await response.aclose()


def _offered(base: str, playlist: MediaPlaylist) -> Offered:
    return Offered(
        source=base,
        item=item_of(base),
        pieces=segment_pieces(base, playlist.segments),
        reload_after=None if playlist.ended else max(1.0, float(playlist.target_duration_s)),
    )


def _size_and_price(data: bytes) -> tuple[int, Price] | None:
    try:
        pricing = read_json(data, limit=MAX_DOCUMENT)
        size, price = pricing["bytes"], Price.parse(pricing["price_per_mb"])
    except (ValueError, TypeError, KeyError, AttributeError, MoneyError):
        return None
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MAX_SIZE:
        return None
    return size, price


async def _limited(response: httpx.Response, limit: int) -> bytes | None:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)


def _no_answer(response: httpx.Response) -> DeliveryFailed:
    return DeliveryFailed(
        f"the server answered {response.status_code} for {plain(response.url.path)}"
    )
