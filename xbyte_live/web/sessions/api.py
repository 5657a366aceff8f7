"""Adapter: the HTTP API of sessions: buy, top up, show, end."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from eth_utils.address import to_checksum_address
from starlette.requests import Request
from starlette.responses import Response

from xbyte_live.config import Settings
from xbyte_live.errors import BadRequest, ItemNotFound, MoneyError, PaymentRefused, XByteError
from xbyte_live.money import MIB, PRICE_DECIMALS, Price, format_decimal, parse_decimal
from xbyte_live.payments.gate import Gate, Sale
from xbyte_live.payments.ledger.session import Session
from xbyte_live.payments.sessions import SessionPurchase, Sessions
from xbyte_live.payments.x402.headers import Payment, read_payment
from xbyte_live.payments.x402.order import Buyer, Order, is_key
from xbyte_live.payments.x402.requirements import SCHEME_CHANNELS, SCHEME_EXACT
from xbyte_live.pricing.quotes import Quote, deposit_for, quotes_at
from xbyte_live.runtime.json import read_json
from xbyte_live.web.common.metrics import Metrics
from xbyte_live.web.common.resolver import Resolver
from xbyte_live.web.common.responses import (
    JSON,
    NO_STORE,
    base_url,
    fault_of,
    json_reply,
    payment_required,
)

NOTHING_HERE = "nothing is here"
PRIVATE = {"referrer-policy": "no-referrer"}

MAX_BODY = 4096  # bytes
MAX_MINUTES = 100_000

_AMOUNT = re.compile(r"[1-9][0-9]{0,18}")
_FIELDS = frozenset({"slug", "budget", "minutes", "ttl"})


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """A request for a session: ``budget`` in atomic units, ``ttl`` in seconds.

    It has at most one of ``budget`` and ``minutes``.
    """

    slug: str
    budget: int | None
    minutes: int | None
    ttl: int | None
    key: str

    @property
    def asked(self) -> str:
        """Its size as the request names it, the same for every retry."""
        if self.budget is not None:
            return f"budget={self.budget}"
        return "" if self.minutes is None else f"minutes={self.minutes}"


def read_session_request(body: bytes, key: str | None) -> SessionRequest:
    """Read the body and the ``Idempotency-Key`` of a request; raises ``BadRequest``."""
    try:
        fields = read_json(body) if body.strip() else {}
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise BadRequest('the body is a JSON object such as {"slug": "…", "budget": "0.50"}')
    if unknown := fields.keys() - _FIELDS:
        raise BadRequest(f"there is no field {min(unknown)[:40]!r}; use slug, budget, minutes, ttl")
    slug, minutes = fields.get("slug", ""), _whole(fields, "minutes", MAX_MINUTES)
    if not isinstance(slug, str):
        raise BadRequest("slug is the name of an item")
    budget = _read_dollars(fields.get("budget"))
    if budget is not None and minutes is not None:
        raise BadRequest("name the budget or the minutes, not both")
    if not is_key(key or ""):
        raise BadRequest("an Idempotency-Key has at most 64 letters, digits, dots, dashes")
    return SessionRequest(slug, budget, minutes, _whole(fields, "ttl", 10**9), key or "")


def paid_amount(payment: Payment | None) -> int | None:
    """The amount in atomic units that a payment claims, before it is verified."""
    if payment is None:
        return None
    if payment.accepted is not None:
        amount = payment.accepted.get("amount")
    else:
        authorization = payment.payload.get("authorization")
        amount = authorization.get("value") if isinstance(authorization, dict) else None
    known = isinstance(amount, str | int) and _AMOUNT.fullmatch(str(amount)) is not None
    return int(str(amount)) if known else None


def check_amount(amount: int, most: int) -> int:
    """The amount if a session may cost so much; raises ``BadRequest``."""
    if not 0 < amount <= most:
        limit = format_decimal(most, PRICE_DECIMALS)
        raise BadRequest(f"a budget lies above 0 and is at most {limit} dollars")
    return amount


def _read_dollars(value: Any) -> int | None:
    if value is None:
        return None
    try:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return parse_decimal(str(value), PRICE_DECIMALS)
    except MoneyError:
        pass
    raise BadRequest('budget is a number of dollars such as "0.50"')


def _whole(fields: dict[str, Any], name: str, most: int) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise BadRequest(f"{name} is a whole number from 1 to {most}")
    return value


class SessionApi:
    """Sells sessions to payers, for players that cannot pay."""

    def __init__(
        self,
        *,
        settings: Settings,
        resolver: Resolver,
        gate: Gate,
        sessions: Sessions,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._resolver = resolver
        self._gate = gate
        self._sessions = sessions
        self._metrics = metrics
        self._clock = clock

    async def buy(self, request: Request) -> Response:
        """``POST /api/v1/sessions``: 402, then 201 with the token, the same for every retry."""
        wanted = read_session_request(await _body(request), request.headers.get("idempotency-key"))
        item = await self._resolver.media(wanted.slug)
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
        wanted = read_session_request(await _body(request), request.headers.get("idempotency-key"))
        if wanted.slug not in ("", session.slug):
            raise BadRequest("this session is for another item")
        amount = self._amount_of(request, wanted)
        if amount is None and wanted.minutes is not None:
            item = await self._resolver.media(session.slug)
            price = quotes_at(item, MIB, self._settings, self._clock())[0].price
            amount = deposit_for(item, price, seconds=60 * wanted.minutes, floor=1)
        sale = await self.more(request, session, wanted, amount)
        return await self._take(request, sale, self._extended)

    async def more(
        self, request: Request, session: Session, wanted: SessionRequest | None, amount: int | None
    ) -> Sale:
        """The sale that tops a session up, by its first price unless told otherwise."""
        wanted = wanted or SessionRequest("", None, None, None, "")
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
        """``GET /s/{token}``: its state; ``DELETE``: end it and return what is left."""
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
            return payment_required(self._gate.challenge(sale, refusal), PRIVATE)
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

    def _amount_of(self, request: Request, wanted: SessionRequest) -> int | None:
        """The amount to pay, if the request says it: its budget, or else its payment's amount.

        An item's rate may change between a 402 and its payment, so without a budget the payment
        decides.
        """
        amount = wanted.budget
        if amount is None:
            most = self._settings.max_payment_header
            amount = paid_amount(read_payment(request.headers, max_bytes=most))
        return None if amount is None else check_amount(amount, self._settings.session_units)

    def _ttl(self, wanted: SessionRequest) -> int:
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
        return base_url(request, self._settings.public_url)


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise BadRequest(f"the body has at most {MAX_BODY} bytes")
    return body


def _dollars(amount: int) -> str:
    return format_decimal(amount, PRICE_DECIMALS)
