"""Adapter: playlists and price lists of one item, asked for without paying."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlsplit

import httpx

from xbyte_live.client.payer.payer import item_of
from xbyte_live.client.payer.terms import Terms, plain, read_pricing
from xbyte_live.client.playlists import playlist_of_page
from xbyte_live.client.proxy.prefetch import Missing
from xbyte_live.client.proxy.rewrite import Scope, scope_of
from xbyte_live.errors import ConfigError, DeliveryFailed
from xbyte_live.media.formats.playlist import MAX_PLAYLIST_BYTES
from xbyte_live.runtime.json import MAX_DOCUMENT

_TRIES = 4
_FIRST_WAIT = 0.25  # seconds
_AGAIN = frozenset({429, 500, 502, 503, 504})


class Upstream:
    """The server of one item, over ``client``, which never pays.

    Raises ``DeliveryFailed`` when it does not answer (``Missing`` for 404 and 410).
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._sleep = sleep

    async def find(self, url: str) -> tuple[str, Scope]:
        """Where the playlist behind a URL (also a watch page's) is, and what belongs to it."""
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ConfigError(f"{plain(url)!r} is not an http or https URL")
        url = playlist_of_page(url)
        base, text = await self._get(url, MAX_PLAYLIST_BYTES)
        if not text.removeprefix(b"\xef\xbb\xbf").startswith(b"#EXTM3U"):
            raise ConfigError(f"{plain(url)!r} is no HLS playlist, so no player could play it")
        return base, scope_of(base)

    async def playlist(
        self, url: str, scope: Scope, directives: Mapping[str, str]
    ) -> tuple[str, str]:
        """A playlist as it is now, and where it came from; ``directives`` are of its query."""
        asked = str(httpx.URL(url).copy_merge_params(directives)) if directives else url
        base, text = await self._get(asked, MAX_PLAYLIST_BYTES)
        if base not in scope:
            raise DeliveryFailed("the server sends on to what is not of the item")
        return base, text.decode("utf-8", "replace")

    async def terms(self, url: str) -> Terms | None:
        """How an item can be paid for, if it has a price list that says so."""
        try:
            _, data = await self._get(f"{item_of(url)}/pricing.json", MAX_DOCUMENT)
        except DeliveryFailed:
            return None
        return read_pricing(data)

    async def _get(self, url: str, limit: int) -> tuple[str, bytes]:
        for tried in range(1, _TRIES + 1):
            try:
                async with self._client.stream("GET", url, follow_redirects=True) as response:
                    if response.status_code in (404, 410):
                        raise Missing(response.status_code)
                    if response.status_code == 200:
                        return str(response.url), await _limited(response, limit)
                    if response.status_code not in _AGAIN or tried == _TRIES:
                        raise DeliveryFailed(
                            f"the server answered {response.status_code} for "
                            f"{plain(response.url.path)}"
                        )
            except (httpx.TransportError, httpx.DecodingError):
                if tried == _TRIES:
                    where = plain(urlsplit(url).netloc.rpartition("@")[2])
                    raise DeliveryFailed(f"the server at {where} does not answer") from None
            except (httpx.InvalidURL, httpx.TooManyRedirects):
                raise DeliveryFailed("the server sends on and on, or to no URL") from None
            await self._sleep(_FIRST_WAIT * 2 ** (tried - 1))
        raise AssertionError("unreachable")


async def _limited(response: httpx.Response, limit: int) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > limit:
            raise DeliveryFailed(f"the server's answer is larger than {limit} bytes")
    return bytes(body)
