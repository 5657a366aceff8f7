"""Adapter: the bytes of one delivery, counted, and unbroken where the connection breaks."""

from collections.abc import AsyncIterator

import httpx

from xbyte_live.client.http.purchase import Purchase
from xbyte_live.errors import DeliveryFailed

_IDENTITY = ("content-length", "content-range", "etag")


class Body(httpx.AsyncByteStream):
    """A paid body: where it breaks off, the same payment fetches it again and it goes on there.

    Raises ``DeliveryFailed`` when other bytes come than were quoted or than came before.
    """

    def __init__(self, purchase: Purchase, response: httpx.Response) -> None:
        self._purchase = purchase
        self._response = response
        self._identity = _identity(response)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received = 0
        while True:
            try:
                async for chunk in _after(self._response, received):
                    received += len(chunk)
                    self._check(received)
                    yield chunk
                break
            except httpx.TransportError:
                if self._purchase.payment is None:
                    raise
            await self._resume()
        self._check(received, whole=True)
        self._purchase.end(delivered=True)

    async def aclose(self) -> None:
        """Stop; a payment whose bytes did not all arrive stays open."""
        self._purchase.end(delivered=False)
        await self._response.aclose()

    async def _resume(self) -> None:
        await self._response.aclose()
        self._response = await self._purchase.resume()
        if _identity(self._response) != self._identity:
            raise DeliveryFailed("the server hands over something else than before it broke off")

    def _check(self, received: int, *, whole: bool = False) -> None:
        size = self._purchase.quoted.size
        if size is not None and (received > size or (whole and received < size)):
            raise DeliveryFailed(f"the server handed over {received} bytes of the {size} quoted")


async def _after(response: httpx.Response, skip: int) -> AsyncIterator[bytes]:
    assert isinstance(response.stream, httpx.AsyncByteStream)
    async for chunk in response.stream:
        if skip < len(chunk):
            yield chunk[skip:] if skip else chunk
        skip = max(0, skip - len(chunk))


def _identity(response: httpx.Response) -> tuple[object, ...]:
    return (response.status_code, *map(response.headers.get, _IDENTITY))
