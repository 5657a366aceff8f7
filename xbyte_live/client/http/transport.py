"""Adapter: an httpx2 transport that pays for what it fetches, once for each delivery."""

import asyncio
import ipaddress
import time
from collections.abc import Awaitable, Callable
from functools import partial

import httpx2

from xbyte_live.client.http.journal import Journal, MemoryJournal
from xbyte_live.client.http.purchase import DELIVERED, Means, PaidBody, Patience, Purchase
from xbyte_live.client.payer.channel_lock import ChannelLock, ChannelStore, ReadChannel
from xbyte_live.client.payer.payer import Payer
from xbyte_live.client.payer.terms import Quoted, item_of, read_receipt
from xbyte_live.errors import DeliveryFailed

QUOTED = "xbyte_quoted"  # request extension: a Quoted
PAYMENT = "xbyte_payment"  # response extension: the SignedPayment it was bought with, or None
RECEIPT = "xbyte_receipt"  # response extension: the server's Receipt, or None

_ORIGIN = "xbyte_origin"  # request extension: where it was first sent; redirects keep it


class PayingTransport(httpx2.AsyncBaseTransport):
    """Pays a 402 to a GET, or pays ahead when the request carries a ``Quoted`` (``QUOTED``).

    One delivery is bought with one signature: while its outcome is unknown the same payment is
    presented again, here and by a later request for the same bytes, as ``journal`` remembers.
    A body that breaks off goes on where it broke. Payments go over https or to this machine,
    unless ``allow_plain_http``, and never to where a redirect to another origin leads. Other
    methods than GET are sent unpaid, but for those that carry a ``Quoted``: what is asked for
    with them must be the same however often it is. Channels are kept in ``store``, and lost
    state is found again on the chain with ``read_channel``. The limit for a minute is waited for.

    Raises ``TermsRefused`` and ``BudgetExceeded`` before signing, ``ChannelDistrusted`` when the
    server says it charged what it did not earn, ``PaymentRefused`` when it says no,
    ``PaymentPending`` while it cannot say yes, ``DeliveryFailed`` when it breaks off for good or
    hands over other than was quoted (x402 v2 transport HTTP).
    """

    def __init__(
        self,
        payer: Payer,
        inner: httpx2.AsyncBaseTransport | None = None,
        *,
        journal: Journal | None = None,
        store: ChannelStore | None = None,
        read_channel: ReadChannel | None = None,
        patience: Patience | None = None,
        allow_plain_http: bool = False,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._inner = inner or httpx2.AsyncHTTPTransport()
        self._allow_plain_http = allow_plain_http
        turns = ChannelLock(payer.channels, store, read_channel, clock)
        self._means = Means(
            payer=payer,
            exchanges=partial(payer.exchanges, turns),
            inner=self._inner,
            journal=journal or MemoryJournal(),
            patience=patience or Patience(),
            clock=clock,
            sleep=sleep,
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request, paying for it if it must be paid for."""
        origin = _origin(request.url)
        first = request.extensions.setdefault(_ORIGIN, origin)
        quoted = request.extensions.get(QUOTED)
        if request.method != "GET" and quoted is None:
            return await self._inner.handle_async_request(request)
        purchase = Purchase(
            self._means,
            request,
            quoted or Quoted(item_of(str(request.url))),
            may_pay=origin == first and self._is_safe(request.url),
            content=b"" if request.method == "GET" else await request.aread(),
        )
        try:
            return await _handed_over(purchase, await purchase.open())
        except BaseException:
            purchase.end(delivered=False)
            raise

    async def aclose(self) -> None:
        """Close the transport underneath."""
        await self._inner.aclose()

    def _is_safe(self, url: httpx2.URL) -> bool:
        return url.scheme == "https" or self._allow_plain_http or is_loopback(url.host)


def is_loopback(host: str) -> bool:
    """Whether a URL's host is this machine, by its name alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _handed_over(purchase: Purchase, response: httpx2.Response) -> httpx2.Response:
    """The answer as the caller gets it: a delivery whose body counts and mends itself, or a no."""
    if response.status_code not in DELIVERED:
        if purchase.payment is not None and response.has_redirect_location:
            await response.aclose()
            raise DeliveryFailed("the server answered a payment with a redirect")
        purchase.end(delivered=False)
        return response
    fault = purchase.fault(response)
    if fault is not None:
        await response.aclose()
        raise DeliveryFailed(fault)
    return httpx2.Response(
        response.status_code,
        headers=response.headers,
        stream=PaidBody(purchase, response),
        extensions={
            **response.extensions,
            PAYMENT: purchase.payment,
            RECEIPT: read_receipt(response.headers) if purchase.payment else None,
        },
    )


def _origin(url: httpx2.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode('ascii')}"
