"""Adapter: the walk of a segment or object request: resolve, quote, open, charge, respond."""

import time
from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response

from xbyte_live.config import Settings
from xbyte_live.errors import ItemGone, PaymentRefused, XByteError
from xbyte_live.payments.gate import Gate, PaymentResponse, Sale
from xbyte_live.payments.x402.headers import payment_headers
from xbyte_live.pricing.quotes import Quote, deposit_at, quotes_at
from xbyte_live.web.common.metrics import Metrics
from xbyte_live.web.common.resolver import Resolver, StoredBytes
from xbyte_live.web.common.responses import (
    NO_STORE,
    base_url,
    fault_of,
    json_reply,
    not_modified,
    payment_required,
)
from xbyte_live.web.playback.delivery import Delivery, RequestedBytes, requested_bytes

_PUBLIC_FOREVER = "public, max-age=31536000, immutable"
_PRIVATE_FOREVER = "private, max-age=31536000, immutable"

_OFF_SALE = "this is off sale; only what was paid for it before is honoured, for a while"


class Playback:
    """Sells segments and objects, and gives them away where they are free.

    The bytes are opened before the charge (design section 5 has them after), so that bytes which
    cannot be read are never charged for; a request without a payment is refused before either.
    Collaborators fail with ``XByteError`` only.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        resolver: Resolver,
        delivery: Delivery,
        gate: Gate,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._resolver = resolver
        self._delivery = delivery
        self._gate = gate
        self._metrics = metrics
        self._clock = clock
        self._public_while = f"public, max-age={settings.quote_ttl}"
        # Within the retry window the same payment opens the same bytes again anyway.
        self._private_while = f"private, max-age={settings.retry_window}"

    async def segment(self, request: Request) -> Response:
        """``GET /hls/{slug}/{rendition}/{msn}.ts``."""
        return await self._serve(request, await self._resolver.segment_bytes(**request.path_params))

    async def object(self, request: Request) -> Response:
        """``GET /objects/{slug}``."""
        return await self._serve(request, await self._resolver.object_bytes(**request.path_params))

    async def _serve(self, request: Request, resource: StoredBytes) -> Response:
        """Quote, open, charge and respond, for bytes that were resolved."""
        requested = requested_bytes(request, resource)
        item, size, now = resource.item, requested.size, self._clock()
        quotes = quotes_at(item, size, self._settings, now, resource.segment)
        is_public = size == 0 or quotes[0].price.is_free
        cache_control = self._cache_control(resource, is_public)
        if requested.is_held:
            return not_modified({"etag": resource.etag, "cache-control": cache_control})
        is_head = request.method == "HEAD"  # which never charges
        payment = {} if is_head else payment_headers(request.scope["headers"])
        # An older quote of nothing holds like any other (money rule 8).
        is_free = is_public or any(quote.price.is_free for quote in quotes)
        if resource.withdrawn and (is_free or not payment):
            raise ItemGone(_OFF_SALE)
        if is_free:
            body = b"" if is_head else await self._delivery.open(resource, requested.span)
            return self._delivery.respond(resource, requested.span, body, cache_control)
        sale = self._sale(request, resource, requested, quotes)
        if not payment:
            return self._refuse(sale, PaymentRefused("payment_required"))
        body = await self._delivery.open(resource, requested.span)
        try:
            receipt = await self._charge(payment, sale)
        except PaymentRefused as refusal:
            if resource.withdrawn:
                raise ItemGone(_OFF_SALE) from None
            return self._refuse(sale, refusal)
        if receipt.answer is not None:
            return json_reply(receipt.answer, {**NO_STORE, **receipt.headers})
        return self._delivery.respond(
            resource, requested.span, body, cache_control, receipt.headers, paid=True
        )

    def _cache_control(self, resource: StoredBytes, is_public: bool) -> str:
        if is_public:
            return _PUBLIC_FOREVER if resource.lasting else self._public_while
        stays_paid = resource.item.rewatch == "free" and resource.lasting
        return _PRIVATE_FOREVER if stays_paid else self._private_while

    def _sale(
        self,
        request: Request,
        resource: StoredBytes,
        requested: RequestedBytes,
        quotes: tuple[Quote, ...],
    ) -> Sale:
        name, about, part = resource.identity, resource.description, requested.part
        return Sale(
            resource=f"{name}#bytes={part}" if part else name,
            url=base_url(request, self._settings.public_url) + resource.path,
            slug=resource.item.slug,
            size=requested.size,
            quotes=quotes,
            description=f"{about}, bytes {part}" if part else about,
            mime_type=resource.content_type,
            rewatch_free=resource.item.rewatch == "free",
            retry_only=resource.withdrawn,
            deposit=deposit_at(resource.item, quotes[0], self._settings),
        )

    def _refuse(self, sale: Sale, refusal: PaymentRefused) -> Response:
        return payment_required(self._gate.challenge(sale, refusal), {"accept-ranges": "bytes"})

    async def _charge(self, payment: Mapping[str, str], sale: Sale) -> PaymentResponse:
        """Charge a payment, and count it; raises as ``Gate.admit`` does."""
        try:
            receipt = await self._gate.charge(payment, sale)
        except XByteError as error:
            self._metrics.charged(fault_of(error).code)
            raise
        self._metrics.charged("accepted")
        return receipt
