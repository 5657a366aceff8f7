"""Adapter: sessions over HTTP: bought and topped up for a payment, shown, ended."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from eth_utils.address import to_checksum_address
from starlette.requests import Request
from starlette.responses import Response

from xbyte_live.config import Settings
from xbyte_live.errors import BadRequest, ItemNotFound, PaymentRefused, XByteError
from xbyte_live.money import MIB, PRICE_DECIMALS, Price, format_decimal
from xbyte_live.payments.gate import Gate, Sale
from xbyte_live.payments.ledger.session import Session
from xbyte_live.payments.sessions import SessionPurchase, Sessions
from xbyte_live.payments.x402.headers import read_payment
from xbyte_live.payments.x402.order import Buyer, Order
from xbyte_live.payments.x402.requirements import SCHEME_CHANNELS, SCHEME_EXACT
from xbyte_live.pricing.quotes import Quote, deposit_for
from xbyte_live.web.common.metrics import Metrics
from xbyte_live.web.common.resolver import Finder, quotes_at
from xbyte_live.web.common.responses import JSON, NO_STORE, fault_of, json_reply
from xbyte_live.web.sessions.api import MAX_BODY, Wanted, check_amount, paid_amount, read_wanted

NOTHING_HERE = "nothing is here"
PRIVATE = {"referrer-policy": "no-referrer"}


class SessionDesk:
    """Sells sessions to whoever can pay, for players that cannot."""

    def __init__(
        self,
        *,
        settings: Settings,
        finder: Finder,
        gate: Gate,
        sessions: Sessions,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._finder = finder
        self._gate = gate
        self._sessions = sessions
        self._metrics = metrics
        self._clock = clock

    async def buy(self, request: Request) -> Response:
        """``POST /api/v1/sessions``: 402, then 201 with the token, the same for every retry."""
        wanted = read_wanted(await _body(request), request.headers.get("idempotency-key"))
        item = await self._finder.media(wanted.slug)
        quotes = quotes_at(item, MIB, self._settings, self._clock())
        if quotes[0].price.is_free:
            raise BadRequest("this item is free; play it without a session")
        if not wanted.asked:
            raise BadRequest("name a budget in dollars, or minutes")
        amount = self._amount_of(request, wanted)
        if amount is None:
            seconds = 60 * (wanted.minutes or 0)
            amount = deposit_for(item, quotes[0].price, seconds=seconds, floor=1)
        order = Order(wanted.asked, self._ttl(wanted), slug=item.slug, key=wanted.key)
        payees = dict.fromkeys(quote.pay_to for quote in quotes)
        sale = self._sale(request, order, amount, tuple(payees), item.slug, item.name)
        return await self._take(request, sale, self._opened)

    async def top_up(self, request: Request) -> Response:
        """``POST /s/{token}/topup``: 402, then 200 with more to spend and more time."""
        session = await self._session(request)
        wanted = read_wanted(await _body(request), request.headers.get("idempotency-key"))
        if wanted.slug not in ("", session.slug):
            raise BadRequest("this session is for another item")
        amount = self._amount_of(request, wanted)
        if amount is None and wanted.minutes is not None:
            item = await self._finder.media(session.slug)
            price = quotes_at(item, MIB, self._settings, self._clock())[0].price
            amount = deposit_for(item, price, seconds=60 * wanted.minutes, floor=1)
        sale = await self.more(request, session, wanted, amount)
        return await self._take(request, sale, self._extended)

    async def more(
        self, request: Request, session: Session, wanted: Wanted | None, amount: int | None
    ) -> Sale:
        """The sale that adds to a session: as much as it was bought for unless said otherwise."""
        wanted = wanted or Wanted("", None, None, None, "")
        amount = amount or self._amount_of(request, wanted) or await self._sessions.price(session)
        order = Order(
            wanted.asked,
            self._ttl(wanted),
            slug=session.slug,
            digest=session.digest,
            key=wanted.key,
        )
        sale = self._sale(
            request, order, amount, (to_checksum_address(session.pay_to),), session.slug, "more"
        )
        scheme = SCHEME_EXACT if session.channel is None else SCHEME_CHANNELS
        return replace(sale, buyer=Buyer(scheme, session.network, session.payer))

    async def one(self, request: Request) -> Response:
        """``GET /s/{token}``: how it stands; ``DELETE``: end it, what is left goes back."""
        session = await self._session(request)
        if request.method != "DELETE":
            shown = self._shown(request, session, request.path_params["token"])
            return json_reply(shown, {**NO_STORE, **PRIVATE})
        ended = await self._sessions.end(session)
        if ended is None:
            raise ItemNotFound(NOTHING_HERE)
        shown = {
            "drawn": _dollars(ended.session.drawn),
            "returned": _dollars(ended.session.returned),
            "way": ended.way,
        }
        return json_reply(shown, {**NO_STORE, **PRIVATE})

    async def admit(self, headers: Mapping[str, str], sale: Sale) -> SessionPurchase:
        """Take a payment for a session, and count it; raises as ``Sessions.buy`` does."""
        try:
            bought = await self._sessions.buy(headers, sale)
        except XByteError as error:
            self._metrics.charged(fault_of(error).code)
            raise
        self._metrics.charged("accepted")
        return bought

    async def _take(
        self, request: Request, sale: Sale, reply: Callable[[Request, SessionPurchase], Response]
    ) -> Response:
        try:
            bought = await self.admit(request.headers, sale)
        except PaymentRefused as refusal:
            challenge = self._gate.challenge(sale, refusal)
            headers = {**NO_STORE, **PRIVATE, **challenge.headers}
            return Response(challenge.body, 402, headers, JSON)
        if bought.answer is not None:
            return json_reply(bought.answer, {**NO_STORE, **bought.headers})
        return reply(request, bought)

    def _opened(self, request: Request, bought: SessionPurchase) -> Response:
        if bought.session is None:
            raise AssertionError("a payment was taken for no session")
        shown = {"token": bought.token, **self._shown(request, bought.session, bought.token)}
        return json_reply(shown, {**NO_STORE, **PRIVATE, **bought.headers}, 201)

    def _extended(self, request: Request, bought: SessionPurchase) -> Response:
        if bought.session is None:
            raise AssertionError("a payment was taken for no session")
        shown = self._shown(request, bought.session, request.path_params["token"])
        return json_reply(shown, {**NO_STORE, **PRIVATE, **bought.headers})

    async def _session(self, request: Request) -> Session:
        session = await self._sessions.state(request.path_params["token"])
        if session is None:
            raise ItemNotFound(NOTHING_HERE)
        return session

    def _amount_of(self, request: Request, wanted: Wanted) -> int | None:
        """What is to be paid, as far as the request says it.

        An item's rate may change between a 402 and its payment, so where no budget was named,
        it is what the payment says.
        """
        amount = wanted.budget
        if amount is None:
            most = self._settings.max_payment_header
            amount = paid_amount(read_payment(request.headers, max_bytes=most))
        return None if amount is None else check_amount(amount, self._settings.session_units)

    def _ttl(self, wanted: Wanted) -> int:
        return min(wanted.ttl or self._settings.session_ttl, self._settings.session_ttl)

    def _sale(
        self,
        request: Request,
        order: Order,
        amount: int,
        payees: tuple[str, ...],
        slug: str,
        name: str,
    ) -> Sale:
        price = Price(check_amount(amount, self._settings.session_units))
        return Sale(
            resource=order.resource,
            url=f"{self._base(request)}/api/v1/sessions",
            slug=slug,
            size=0,  # bytes are drawn later; one MB at this price is the budget
            quotes=tuple(Quote(MIB, price, payee) for payee in payees),
            description=f"{name}: a session for players that cannot pay",
            mime_type=JSON,
            deposit=self._settings.deposit_units,
            order=order,
        )

    def _shown(self, request: Request, session: Session, token: str) -> dict[str, Any]:
        own = f"{self._base(request)}/s/{token}"
        return {
            "slug": session.slug,
            "url": f"{own}/hls/{session.slug}/index.m3u8",
            "budget": _dollars(session.budget),
            "drawn": _dollars(session.drawn),
            "left": _dollars(session.left),
            "expires_at": int(session.expires_at),
            "topup_url": f"{own}/topup",
        }

    def _base(self, request: Request) -> str:
        return (self._settings.public_url or str(request.base_url)).rstrip("/")


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise BadRequest(f"the body has at most {MAX_BODY} bytes")
    return body


def _dollars(amount: int) -> str:
    return format_decimal(amount, PRICE_DECIMALS)
