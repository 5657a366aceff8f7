"""Adapter: one delivery bought over HTTP with one payment, however often it is requested."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import httpx2

from xbyte_live.client.http.journal import Journal
from xbyte_live.client.payer.budget import TooSoon, dollars
from xbyte_live.client.payer.payer import Payer
from xbyte_live.client.payer.signing import Exchange, IssuedPayment
from xbyte_live.client.payer.terms import Offers, Quoted, Requirement, read_challenge, resource_of
from xbyte_live.errors import DeliveryFailed, PaymentPending, PaymentRefused, TermsRefused
from xbyte_live.runtime.json import MAX_DOCUMENT

RETRY_WINDOW = 120  # seconds a server re-serves for the same payment, unless it says otherwise
DELIVERED = (200, 201, 206)

_UNDECIDED = frozenset({425, 429, 500, 502, 503, 504})  # says nothing about the payment
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_IDENTITY = ("content-length", "content-range", "etag")
_HOPELESS = (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one payment is presented again while its outcome is unknown; in seconds.

    ``tries`` bounds how often it may go wrong without a word on when to come back, ``pending``
    how long to wait in all where the server says when. It re-serves for ``RETRY_WINDOW``.
    """

    tries: int = 8
    first_wait: float = 0.2
    longest_wait: float = 10.0
    pending: float = 100.0

    def wait(self, failures: int) -> float:
        """How long to wait after so many failures, when the server does not say."""
        return min(self.first_wait * 2.0 ** min(failures, 30) / 2, self.longest_wait)


@dataclass(frozen=True, slots=True)
class Means:
    """What purchases are made with. ``in_use`` are the identities of payments being presented.

    ``exchanges`` gives each scheme's side of one purchase, by the scheme's name.
    """

    payer: Payer
    exchanges: Callable[[], dict[str, Exchange]]
    inner: httpx2.AsyncBaseTransport
    journal: Journal
    patience: Patience = Patience()
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    in_use: set[str] = field(default_factory=set)


class Purchase:
    """A request that is paid for at most once, whose body is ``content``.

    Without ``may_pay`` it is sent unpaid or not at all.
    """

    def __init__(
        self,
        means: Means,
        request: httpx2.Request,
        quoted: Quoted,
        *,
        may_pay: bool,
        content: bytes = b"",
    ) -> None:
        self.payment: IssuedPayment | None = None
        self.quoted = quoted
        self._exchanges = means.exchanges()
        self._exchange = Exchange()  # of the scheme that pays it
        self._means = means
        self._request = request
        self._content = content
        self._may_pay = may_pay
        self._answered = False  # a payment was signed to answer a 402
        self._resource = resource_of(str(request.url), request.headers.get("range"), content)
        self._ambiguous = False  # the payment was presented, and not decided on
        self._failures = 0
        self._unguided = 0  # of these, those without a word on when to come back
        self._waited = 0.0

    async def open(self) -> httpx2.Response:
        """Ask for the bytes, paying ahead or when told to; raises as ``PayingTransport`` does.

        Of a channel no other voucher is signed until the headers of this answer are here.
        """
        try:
            inherited = self._may_pay and await self._inherit()
            if self.payment is None and self._may_pay:
                await self._use(None)
            response = await self._present()
            while response.status_code == 402:
                await self._pay(await _terms_of(response), inherited=inherited)
                response = await self._present()
            if self.payment is not None:
                await self._judge(response, inherited=inherited)
            return response
        finally:
            self._exchange.end()

    async def resume(self) -> httpx2.Response:
        """Ask for the same bytes with the same payment, after their body broke off.

        Raises ``DeliveryFailed`` when it did so too often.
        """
        self._ambiguous = True
        await self._wait(None)
        response = await self._present()
        if response.status_code == 402 and self.payment is not None:
            raise self._refusal(await _terms_of(response))
        return response

    def fault(self, response: httpx2.Response) -> str | None:
        """Why a 200 or 206 is not the delivery that was quoted, if it is not."""
        size, length = self.quoted.size, response.headers.get("content-length")
        if size is None:
            return None
        if response.headers.get("content-encoding", "identity") != "identity":
            return "the server encoded bytes that are sold as they are"
        if length is not None and length != str(size):
            return f"the server hands over {length[:20]} bytes where {size} were quoted"
        return None

    def end(self, *, delivered: bool) -> None:
        """Be through with the payment: for good, or to be presented again by a later request."""
        if self.payment is not None:
            self._means.in_use.discard(self.payment.identity)
            if delivered:
                self._means.journal.drop(self.payment)

    async def _pay(self, terms: Offers, *, inherited: bool) -> None:
        """Answer a 402, unless a payment was made that may still be taken for these bytes."""
        refused = self.payment
        if refused is not None:
            verdict = await self._exchange.refused(
                refused,
                terms,
                presented_before=inherited or self._ambiguous,
                answered=self._answered,
            )
            if verdict == "busy":
                await self._wait(None)
                return
            if verdict == "charged":
                self._means.journal.drop(refused, lost=True)
                raise _lost(refused)
            if verdict == "refused":
                raise self._refusal(terms)
            self.end(delivered=True)  # it will not be taken, and another one may be
            self.payment = None
        if not self._may_pay:
            raise TermsRefused(
                "a payment is sent only to where the request was first sent, and only over https "
                "or to this machine"
            )
        self._answered, self._ambiguous = True, False
        await self._use(terms)

    async def _judge(self, response: httpx2.Response, *, inherited: bool) -> None:
        """Have the server's account of its charge checked, before more is signed for it."""
        assert self.payment is not None
        before = inherited or self._ambiguous
        try:
            await self._exchange.answered(
                self.payment,
                response.headers,
                turned_down=response.status_code not in DELIVERED and not before,
            )
        except BaseException:
            await response.aclose()
            raise

    def _refusal(self, terms: Offers) -> PaymentRefused:
        assert self.payment is not None
        return self._exchange.refusal(self.payment, terms.error or "payment_required")

    def _turn_to(self, scheme: str) -> None:
        """Go on in another scheme; the one before is through with this purchase for now."""
        exchange = self._exchanges.setdefault(scheme, Exchange())
        if exchange is not self._exchange:
            self._exchange.end()
            self._exchange = exchange

    async def _present(self) -> httpx2.Response:
        """Send the request with its payment, again while the outcome is not known."""
        while True:
            response: httpx2.Response | None = None
            try:
                response = await self._means.inner.handle_async_request(self._outgoing())
            except httpx2.TransportError as error:
                if self.payment is None or isinstance(error, _HOPELESS):
                    raise
                self._ambiguous |= not isinstance(error, _NOT_SENT)
            if response is not None:
                if self.payment is None or response.status_code not in _UNDECIDED:
                    return response
                self._ambiguous = True
                await response.aclose()
            await self._wait(response)

    async def _wait(self, response: httpx2.Response | None) -> None:
        patience = self._means.patience
        retry_after = None if response is None else _retry_after(response)
        self._failures += 1
        self._unguided += retry_after is None
        wait = retry_after or patience.wait(self._failures)
        if self._unguided >= patience.tries or self._waited + wait > patience.pending:
            raise _undecided(response, retry_after)
        self._waited += wait
        await self._means.sleep(wait)

    def _outgoing(self) -> httpx2.Request:
        headers = self._request.headers.copy()
        headers["accept-encoding"] = "identity"  # bytes are what is paid for
        if self.payment is not None:
            headers[self.payment.header] = self.payment.value
        return httpx2.Request(
            self._request.method,
            self._request.url,
            headers=headers,
            content=self._content or None,
            extensions=self._request.extensions,
        )

    async def _use(self, terms: Offers | None) -> None:
        """Sign, when its turn has come and the pace allows it, and note that before it is shown."""
        payer, now = self._means.payer, self._means.clock
        if terms is not None:
            payer.learn(self.quoted.item, terms)

        def choose() -> Requirement | None:
            if terms is None:
                return payer.choose_ahead(self.quoted, now())
            return payer.choose(terms, self.quoted, now())

        while self.payment is None:
            try:
                requirement = choose()
                if requirement is None:
                    return
                self._turn_to(requirement.scheme)
                if await self._exchange.begin(requirement):
                    continue  # the channel may stand otherwise than before it was waited for
            except TooSoon as error:
                self._exchange.end()
                await self._means.sleep(error.wait)
                continue
            self.payment = payer.sign(
                requirement, self.quoted, resource=self._resource, now=now(), terms=terms
            )
        self._means.in_use.add(self.payment.identity)
        await self._exchange.signed()
        await self._means.journal.keep(self.payment)

    async def _inherit(self) -> bool:
        """Take over the newest payment that an earlier request for these bytes left open."""
        now = self._means.clock()
        for payment in self._means.journal.find(self._resource):
            if payment.identity in self._means.in_use:
                continue
            if now > max(payment.valid_before, payment.signed_at + RETRY_WINDOW):
                self._means.journal.drop(payment)
            else:
                self.payment = payment
        if self.payment is None:
            return False
        self._means.in_use.add(self.payment.identity)
        self._turn_to(self.payment.scheme)
        if await self._exchange.take_over(self.payment):
            return True
        self.end(delivered=True)  # certainly not charged, and never will be
        self.payment = None
        return False


class PaidBody(httpx2.AsyncByteStream):
    """A paid body: where it breaks off, the same payment fetches it again and it goes on there.

    Raises ``DeliveryFailed`` when other bytes come than were quoted or than came before.
    """

    def __init__(self, purchase: Purchase, response: httpx2.Response) -> None:
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
            except httpx2.TransportError:
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


async def _terms_of(response: httpx2.Response) -> Offers:
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    body = b""
    try:
        async for chunk in response.stream:
            body += chunk
            if len(body) > MAX_DOCUMENT:
                break
    except httpx2.TransportError:
        pass  # a version 2 server says all of it in the header
    finally:
        await response.aclose()
    return read_challenge(response.headers.get("payment-required"), body)


def _lost(payment: IssuedPayment) -> PaymentRefused:
    return PaymentRefused(
        "charged_before",
        f"the server charged {dollars(payment.amount)} for these bytes when they were asked for "
        "before, and does not hand them over again; asking once more buys them anew",
    )


def _undecided(
    response: httpx2.Response | None, retry_after: int | None
) -> PaymentPending | DeliveryFailed:
    if response is not None and response.status_code == 503:
        return PaymentPending(retry_after or 1)
    what = "broke off the connection" if response is None else f"said {response.status_code}"
    return DeliveryFailed(
        f"the server {what} after a payment was sent; run this again within two minutes to "
        "present the same payment"
    )


def _retry_after(response: httpx2.Response) -> int | None:
    value = response.headers.get("retry-after", "")
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 7 else None


async def _after(response: httpx2.Response, skip: int) -> AsyncIterator[bytes]:
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    async for chunk in response.stream:
        if skip < len(chunk):
            yield chunk[skip:] if skip else chunk
        skip = max(0, skip - len(chunk))


def _identity(response: httpx2.Response) -> tuple[object, ...]:
    return (response.status_code, *map(response.headers.get, _IDENTITY))
