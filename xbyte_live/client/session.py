"""Adapter: buys a session of an item, for players that cannot pay, with one ``exact`` payment."""

import asyncio
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from xbyte_live.client.documents import MAX_DOCUMENT, read_json
from xbyte_live.client.payer import Payer, Quoted
from xbyte_live.client.signing import SignedPayment
from xbyte_live.client.terms import plain, read_challenge
from xbyte_live.client.transport import is_loopback
from xbyte_live.errors import DeliveryFailed, PaymentPending, PaymentRefused, TermsRefused

TRIES = 30
WAIT = 2.0  # seconds between two of them

_UNDECIDED = frozenset({425, 429, 500, 502, 503, 504})  # says nothing about the payment


@dataclass(frozen=True, slots=True)
class BoughtSession:
    """A session as its server describes it; amounts in dollars. ``url`` is for the player."""

    url: str
    token: str
    budget: str
    left: str
    expires_at: int
    topup_url: str


async def buy_session(
    payer: Payer,
    http: httpx.AsyncClient,
    url: str,
    *,
    dollars: str,
    budget: int,
    allow_plain_http: bool = False,
) -> BoughtSession:
    """Buy a session for the item a playlist URL belongs to; ``budget`` is ``dollars`` in units.

    The same payment is presented until its outcome is known. Raises ``TermsRefused``,
    ``BudgetExceeded``, ``PaymentRefused``, ``PaymentPending`` and ``DeliveryFailed``.
    """
    origin, slug = _item(url)
    if not (origin.startswith("https:") or allow_plain_http or is_loopback(_host(origin))):
        raise TermsRefused("a payment is sent only over https or to this machine")
    desk = f"{origin}/api/v1/sessions"
    order = {"slug": slug, "budget": dollars}
    asked = await _ask(http, desk, order, None)
    if asked.status_code != 402:
        raise DeliveryFailed(f"the server sells no session of {slug} ({_why(asked)})")
    terms = read_challenge(asked.headers.get("PAYMENT-REQUIRED"), asked.content)
    quoted = Quoted(desk, at_most=budget)
    payment = payer.answer(terms, quoted, resource=desk, now=time.time())
    for _ in range(TRIES):
        try:
            answer = await _ask(http, desk, order, payment)
        except httpx.TransportError:
            answer = None
        if answer is not None and answer.status_code not in _UNDECIDED:
            return _bought(answer)
        await asyncio.sleep(WAIT)
    raise PaymentPending(int(WAIT))


async def _ask(
    http: httpx.AsyncClient, desk: str, order: dict[str, str], payment: SignedPayment | None
) -> httpx.Response:
    headers = {"accept-encoding": "identity"}
    if payment is not None:
        headers[payment.header] = payment.value
    async with http.stream("POST", desk, json=order, headers=headers) as response:
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > MAX_DOCUMENT:
                raise DeliveryFailed("the server's answer is too long")
    shown = {k: v for k, v in response.headers.items() if k != "content-encoding"}
    return httpx.Response(response.status_code, headers=shown, content=bytes(body))


def _bought(answer: httpx.Response) -> BoughtSession:
    if answer.status_code == 402:
        terms = read_challenge(answer.headers.get("PAYMENT-REQUIRED"), answer.content)
        raise PaymentRefused(terms.error, f"the server refused the payment: {terms.error}")
    try:
        found = read_json(answer.content)
        if answer.status_code != 201 or not isinstance(found, dict):
            raise ValueError
        texts = [_text(found[name]) for name in ("url", "token", "budget", "left", "topup_url")]
        expires_at = int(found["expires_at"])
    except (ValueError, KeyError, TypeError):
        raise DeliveryFailed(f"the server took a payment for no session ({_why(answer)})") from None
    url, token, budget, left, topup_url = texts
    return BoughtSession(url, token, budget, left, expires_at, topup_url)


def _text(value: object) -> str:
    text = plain(value, 2048)
    if not text or text != value:
        raise ValueError("no plain text")
    return text


def _why(answer: httpx.Response) -> str:
    try:
        found = read_json(answer.content)
    except ValueError:
        found = None
    said = plain(found.get("message"), 200) if isinstance(found, dict) else ""
    return said or f"it says {answer.status_code}"


def _item(url: str) -> tuple[str, str]:
    """A server's origin and the slug of an item of it."""
    parts = urlsplit(url)
    steps = parts.path.split("/")
    if parts.scheme not in ("http", "https") or "hls" not in steps[:-1]:
        raise TermsRefused("a session is for a playlist: http(s)://HOST/hls/SLUG/index.m3u8")
    at = steps.index("hls")
    return f"{parts.scheme}://{parts.netloc}{'/'.join(steps[:at])}", steps[at + 1]


def _host(origin: str) -> str:
    return urlsplit(origin).hostname or ""
