"""Adapter: the one reader of playlists and price lists, which asks a server without paying."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urljoin, urlsplit

import httpx2

from xbyte_live.client.payer.terms import Offers, item_of, plain, read_challenge, read_pricing
from xbyte_live.client.pieces import (
    OfferedPiece,
    Scope,
    choose_variant,
    object_pieces,
    playlist_of_page,
    scope_of,
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

MAX_PLAYLIST = 8 * MIB  # bytes
_MAX_SIZE = 2**50  # bytes of an object; beyond any disk, and pieces are counted in memory
_TRIES = 4
_FIRST_WAIT = 0.25  # seconds
_AGAIN = frozenset({429, 500, 502, 503, 504})


class Missing(DeliveryFailed):
    """The server does not have a resource, or no longer; ``status`` is 404 or 410."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the server answered {status}: it does not have this (any more)")
        self.status = status


@dataclass(frozen=True, slots=True)
class Selection:
    """Which part of an item to buy; an object is bought ``piece_size`` bytes at once.

    ``rendition`` is the name of a rendition, ``max_bandwidth`` in bits per second.
    """

    rendition: str | None = None
    max_bandwidth: int | None = None
    piece_size: int = 4 * MIB


@dataclass(frozen=True, slots=True)
class Offered:
    """The pieces that can be bought at a URL.

    ``source`` is the media playlist or the object itself; ``reload_after`` the seconds after
    which a live playlist will have more, ``None`` when ``pieces`` is complete. ``terms`` are the
    item's, where a price list has them; ``asked`` is the 402 of a single piece of unknown price.
    """

    source: str
    item: str
    pieces: tuple[OfferedPiece, ...]
    reload_after: float | None = None
    terms: Offers | None = None
    asked: Offers | None = None


@dataclass(frozen=True, slots=True)
class _Response:
    """A response read to its end; ``body`` is ``None`` where it was too long or not wanted."""

    url: str
    status: int
    headers: httpx2.Headers
    body: bytes | None


class PlaylistReader:
    """Reads playlists and price lists over ``client``, which never pays.

    Raises ``DeliveryFailed`` when the server does not answer, and ``Missing`` for 404 and 410.
    """

    def __init__(
        self,
        client: httpx2.AsyncClient,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._sleep = sleep

    async def survey(self, url: str, wanted: Selection) -> Offered:
        """The pieces of a playlist, a watch page, a segment or any other file at ``url``.

        Raises ``ConfigError`` for no http URL, ``MediaError`` for a playlist that cannot be
        read, ``TermsRefused`` for a 402 that cannot.
        """
        url = _checked(url)
        if urlsplit(url).path.endswith(".m3u8"):
            return await self._playlist(url, wanted)
        if urlsplit(url).path.endswith(".ts"):
            return await self._segment(url) or await self._resource(url)
        return await self._object(url, wanted) or await self._resource(url)

    async def reload(self, source: str) -> Offered:
        """The pieces of a media playlist as it stands now."""
        base, text = await self._text(source)
        return _offered(base, read_media_playlist(text))

    async def find(self, url: str) -> tuple[str, Scope]:
        """The URL of the playlist behind ``url`` (also a watch page's), and the item's scope.

        Raises ``ConfigError`` where there is no HLS playlist.
        """
        url = _checked(url)
        base, text = await self._text(url)
        if not text.removeprefix("\ufeff").startswith("#EXTM3U"):
            raise ConfigError(f"{plain(url)!r} is no HLS playlist, so no player could play it")
        return base, scope_of(base)

    async def playlist(
        self, url: str, scope: Scope, directives: Mapping[str, str]
    ) -> tuple[str, str]:
        """The URL and the text of a playlist as it stands now; ``directives`` go in its query.

        Raises ``DeliveryFailed`` where the server redirects out of ``scope``.
        """
        asked = str(httpx2.URL(url).copy_merge_params(directives)) if directives else url
        base, text = await self._text(asked)
        if base not in scope:
            raise DeliveryFailed("the server sends on to what is not of the item")
        return base, text

    async def terms(self, url: str) -> Offers | None:
        """The terms in the price list of the item of ``url``, or ``None`` if it has none."""
        try:
            data = await self._pricing(url)
        except DeliveryFailed:
            return None
        return read_pricing(data) if data else None

    async def _playlist(self, url: str, wanted: Selection) -> Offered:
        base, text = await self._text(url)
        if is_multivariant(text):
            variant = choose_variant(
                read_multivariant_playlist(text),
                rendition=wanted.rendition,
                max_bandwidth=wanted.max_bandwidth,
            )
            base, text = await self._text(urljoin(base, variant.uri))
        offered = _offered(base, read_media_playlist(text))
        return replace(offered, terms=await self.terms(base))

    async def _segment(self, url: str) -> Offered | None:
        """One segment, as the playlist beside it lists it."""
        try:
            offered = await self.reload(urljoin(url, "index.m3u8"))
        except (DeliveryFailed, MediaError):
            return None
        pieces = tuple(piece for piece in offered.pieces if piece.url == url)
        return Offered(url, offered.item, pieces) if pieces else None

    async def _object(self, url: str, wanted: Selection) -> Offered | None:
        """An object whose size and price stand in its price list."""
        data = await self._pricing(url)
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
        """Any other file: one piece, for the price in its 402."""
        response = await self._get(url, MAX_DOCUMENT, of=402)
        if response.status == 402:
            header = response.headers.get("payment-required")
            terms = read_challenge(header, response.body or b"")
            return Offered(url, item_of(url), (OfferedPiece(url),), asked=terms)
        if response.status != 200:
            raise _no_answer(response)
        length = response.headers.get("content-length", "")
        size = int(length) if length.isdecimal() and len(length) < 19 else None
        return Offered(url, item_of(url), (OfferedPiece(url, size, 0),))

    async def _text(self, url: str) -> tuple[str, str]:
        """A playlist and the URL it came from in the end."""
        response = await self._get(url, MAX_PLAYLIST)
        if response.status != 200:
            raise _no_answer(response)
        if response.body is None:
            raise DeliveryFailed(f"the playlist is larger than {MAX_PLAYLIST} bytes")
        return response.url, response.body.decode("utf-8", "replace")

    async def _pricing(self, url: str) -> bytes | None:
        return (await self._get(f"{item_of(url)}/pricing.json", MAX_DOCUMENT)).body

    async def _get(self, url: str, limit: int, *, of: int = 200) -> _Response:
        """The response to a GET, asked for again while the server cannot give one.

        Its body is read where its status is ``of``, up to ``limit`` bytes.
        """
        for tried in range(1, _TRIES + 1):
            try:
                async with self._client.stream("GET", url, follow_redirects=True) as response:
                    status = response.status_code
                    if status not in _AGAIN or tried == _TRIES:
                        body = await _limited(response, limit) if status == of else None
                        return _Response(str(response.url), status, response.headers, body)
            except (httpx2.TransportError, httpx2.DecodingError):
                if tried == _TRIES:
                    where = plain(urlsplit(url).netloc.rpartition("@")[2])
                    raise DeliveryFailed(f"the server at {where} does not answer") from None
            except (httpx2.InvalidURL, httpx2.TooManyRedirects):
                raise DeliveryFailed("the server sends on and on, or to no URL") from None
            await self._sleep(_FIRST_WAIT * 2 ** (tried - 1))
        raise AssertionError("unreachable")


def _checked(url: str) -> str:
    """The playlist of a watch page, or the URL itself; raises ``ConfigError`` for no http URL."""
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ConfigError(f"{plain(url)!r} is not an http or https URL")
    return playlist_of_page(url)


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


async def _limited(response: httpx2.Response, limit: int) -> bytes | None:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)


def _no_answer(response: _Response) -> DeliveryFailed:
    if response.status in (404, 410):
        return Missing(response.status)
    path = plain(urlsplit(response.url).path)
    return DeliveryFailed(f"the server answered {response.status} for {path}")
