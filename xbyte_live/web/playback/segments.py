"""Adapter: the bytes of segments and objects over HTTP, free or for a payment."""

import time
from collections.abc import Callable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from xbyte_live.config import Settings
from xbyte_live.errors import ItemGone, PaymentRefused, XByteError
from xbyte_live.payments.gate import Gate, PaymentResponse, Sale
from xbyte_live.web.common.metrics import Metrics
from xbyte_live.web.common.ranges import Span, names_tag
from xbyte_live.web.common.resolver import Finder, Found, deposit_at, quotes_at
from xbyte_live.web.common.responses import JSON, NO_STORE, fault_of, json_reply, not_modified
from xbyte_live.web.playback.delivery import Delivery, asked_of, pays, shown_payment, span_of

_PUBLIC_FOREVER = "public, max-age=31536000, immutable"
_PRIVATE_FOREVER = "private, max-age=31536000, immutable"

_OFF_SALE = "this is off sale; only what was paid for it before is honoured, for a while"


class _Terms(NamedTuple):
    """What a request costs: ``sale`` is ``None`` when it is free."""

    sale: Sale | None
    cache_control: str


class Playback:
    """Answers for segments and objects; collaborators fail with ``XByteError`` only.

    Every request goes one way: find, price, then refuse, or open, admit and respond. Opening
    stands before admitting (design section 5 has it after), so that bytes which cannot be read
    are never charged for; a request without a payment is refused before either.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        finder: Finder,
        delivery: Delivery,
        gate: Gate,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._finder = finder
        self._delivery = delivery
        self._gate = gate
        self._metrics = metrics
        self._clock = clock
        self._public_while = f"public, max-age={settings.quote_ttl}"
        # Within the retry window the same payment opens the same bytes again anyway.
        self._private_while = f"private, max-age={settings.retry_window}"

    async def segment(self, request: Request) -> Response:
        """``GET /hls/{slug}/{rendition}/{msn}.ts``."""
        return await self._serve(request, await self._finder.segment_bytes(**request.path_params))

    async def object(self, request: Request) -> Response:
        """``GET /objects/{slug}``."""
        return await self._serve(request, await self._finder.object_bytes(**request.path_params))

    async def _serve(self, request: Request, found: Found) -> Response:
        asked = asked_of(request)
        known = names_tag(asked.get(b"if-none-match"), found.etag)
        span = None if known else span_of(request, asked, found)
        terms = self._price(request, asked, found, span)
        if known:
            return not_modified({"etag": found.etag, "cache-control": terms.cache_control})
        unpaid = not pays(asked) or request.method == "HEAD"
        if found.withdrawn and (unpaid or terms.sale is None):
            raise ItemGone(_OFF_SALE)
        if terms.sale is None:
            body = b"" if request.method == "HEAD" else await self._delivery.open(found, span)
            return self._delivery.respond(found, span, body, terms.cache_control)
        if unpaid:
            return self._refuse(terms.sale, PaymentRefused("payment_required"))
        body = await self._delivery.open(found, span)
        try:
            receipt = await self._admit(asked, terms.sale)
        except PaymentRefused as refusal:
            if found.withdrawn:
                raise ItemGone(_OFF_SALE) from None
            return self._refuse(terms.sale, refusal)
        if receipt.answer is not None:
            return json_reply(receipt.answer, {**NO_STORE, **receipt.headers})
        more = receipt.headers
        return self._delivery.respond(found, span, body, terms.cache_control, more, paid=True)

    def _price(
        self, request: Request, asked: dict[bytes, str], found: Found, span: Span | None
    ) -> _Terms:
        """What these bytes cost now; an older quote of nothing holds like any other (rule 8)."""
        size = span.size if span else found.size
        quotes = quotes_at(found.item, size, self._settings, self._clock(), found.segment)
        if size == 0 or quotes[0].price.is_free:
            return _Terms(None, _PUBLIC_FOREVER if found.lasting else self._public_while)
        rewatch_free = found.item.rewatch == "free"
        kept = _PRIVATE_FOREVER if rewatch_free and found.lasting else self._private_while
        if any(quote.price.is_free for quote in quotes):
            return _Terms(None, kept)
        part = span if size < found.size else None  # all of them are the same bytes either way
        sale = Sale(
            resource=f"{found.identity}#bytes={part}" if part else found.identity,
            url=self._base_url(request, asked) + found.path,
            slug=found.item.slug,
            size=size,
            quotes=quotes,
            description=f"{found.description}, bytes {part}" if part else found.description,
            mime_type=found.content_type,
            rewatch_free=rewatch_free,
            retry_only=found.withdrawn,
            deposit=deposit_at(found.item, quotes[0], self._settings),
        )
        return _Terms(sale, kept)

    def _refuse(self, sale: Sale, refusal: PaymentRefused) -> Response:
        challenge = self._gate.challenge(sale, refusal)
        headers = {**NO_STORE, "accept-ranges": "bytes", **challenge.headers}
        return Response(challenge.body, 402, headers, JSON)

    async def _admit(self, asked: dict[bytes, str], sale: Sale) -> PaymentResponse:
        try:
            receipt = await self._gate.charge(shown_payment(asked), sale)
        except XByteError as error:
            self._metrics.charged(fault_of(error).code)
            raise
        self._metrics.charged("accepted")
        return receipt

    def _base_url(self, request: Request, asked: dict[bytes, str]) -> str:
        if self._settings.public_url:
            return self._settings.public_url.rstrip("/")
        if host := asked.get(b"host"):
            return f"{request.scope['scheme']}://{host}{request.scope.get('root_path', '')}"
        return str(request.base_url).rstrip("/")
