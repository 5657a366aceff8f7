"""Adapter: buys a session of an item, for players that cannot pay."""

from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2

from xbyte_live.client.http.purchase import Patience
from xbyte_live.client.http.transport import QUOTED
from xbyte_live.client.payer.terms import Quoted, plain
from xbyte_live.errors import DeliveryFailed, TermsRefused
from xbyte_live.runtime.json import MAX_DOCUMENT, read_json

PATIENCE = Patience(tries=30, longest_wait=2.0)  # a session may wait for money on the chain


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
    http: httpx2.AsyncClient, url: str, *, dollars: str, budget: int
) -> BoughtSession:
    """Buy a session for the item a playlist URL belongs to; ``budget`` is ``dollars`` in units.

    ``http`` pays (``PayingTransport``, with ``PATIENCE``); raises as it does.
    """
    origin, slug = _item(url)
    desk = f"{origin}/api/v1/sessions"
    quoted = Quoted(desk, at_most=budget, home=f"{origin}/hls/{slug}/index.m3u8")
    answer = await _order(http, desk, {"slug": slug, "budget": dollars}, quoted)
    try:
        found = read_json(answer.content, limit=MAX_DOCUMENT)
        if answer.status_code != 201 or not isinstance(found, dict):
            raise ValueError
        texts = [_text(found[name]) for name in ("url", "token", "budget", "left", "topup_url")]
        expires_at = int(found["expires_at"])
    except (ValueError, KeyError, TypeError):
        raise DeliveryFailed(f"the server sells no session of {slug} ({_why(answer)})") from None
    url, token, budget_said, left, topup_url = texts
    return BoughtSession(url, token, budget_said, left, expires_at, topup_url)


async def _order(
    http: httpx2.AsyncClient, desk: str, order: dict[str, str], quoted: Quoted
) -> httpx2.Response:
    async with http.stream("POST", desk, json=order, extensions={QUOTED: quoted}) as response:
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > MAX_DOCUMENT:
                raise DeliveryFailed("the server's answer is too long")
    return httpx2.Response(response.status_code, content=bytes(body))


def _text(value: object) -> str:
    text = plain(value, 2048)
    if not text or text != value:
        raise ValueError("no plain text")
    return text


def _why(answer: httpx2.Response) -> str:
    try:
        found = read_json(answer.content, limit=MAX_DOCUMENT)
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
