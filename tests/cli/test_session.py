"""``xbyte-live session`` buys by channel or ``exact``, and what is left comes back."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin

import httpx2
import pytest

from tests.support.chain import SharedDevnet
from tests.support.cinema import a_cinema, a_film
from tests.support.commands import Person
from xbyte_live.client.http.transport import PayingTransport
from xbyte_live.client.payer.batch_settlement import ChannelPayer
from xbyte_live.client.payer.budget import Budget
from xbyte_live.client.payer.exact import ExactPayer
from xbyte_live.client.payer.payer import Payer
from xbyte_live.client.sessions import PATIENCE, BoughtSession, buy_session
from xbyte_live.errors import BudgetExceeded, DeliveryFailed, TermsRefused
from xbyte_live.media.formats.playlist import read_media_playlist

FUNDS = 50_000_000
pytestmark = pytest.mark.timeout(400)  # commands and servers start, again and again
BUDGET = 250_000
DOLLARS = "0.25"


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_film(tmp_path_factory.mktemp("film"))


class Losing(httpx2.AsyncBaseTransport):
    """Keeps what was asked; the first answers to a payment never arrive."""

    def __init__(self, times: int = 0) -> None:
        self.asked: list[tuple[bytes, str | None]] = []
        self._left = times
        self._inner = httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        payment = request.headers.get("payment-signature")
        self.asked.append((await request.aread(), payment))
        answer = await self._inner.handle_async_request(request)
        if payment is not None and self._left:
            self._left -= 1
            await answer.aclose()
            raise httpx2.ReadError("the connection broke")
        return answer

    async def aclose(self) -> None:
        await self._inner.aclose()


async def watch_one(http: httpx2.AsyncClient, url: str) -> int:
    """Play the first segment, as any player would; what it drew."""
    url = urljoin(url, "source/index.m3u8")
    first = read_media_playlist((await http.get(url)).text).segments[0]
    played = await http.get(urljoin(url, first.uri))
    assert (played.status_code, len(played.content)) == (200, first.size)
    return first.amount or 0


async def test_by_channel_and_what_was_not_drawn_is_refunded(
    tmp_path: Path, devnet: SharedDevnet, film: Path
) -> None:
    settings = {"claim_interval": "1", "settle_interval": "1"}
    async with a_cinema(tmp_path, devnet, film, **settings) as (server, payee, viewer):
        person = Person(server, viewer, tmp_path)
        url = f"{server.url}/hls/film/index.m3u8"
        bought = await person.run("session", url, "--budget", DOLLARS)
        assert (bought["budget"], bought["left"]) == (DOLLARS, DOLLARS)
        assert devnet.usdc_balance(viewer.address) == FUNDS - BUDGET  # that, and no more
        again = await person.run("session", url, "--budget", "0.1")
        assert again["token"] != bought["token"]
        assert await person.run("wallet", "refund") == []  # all of it is held
        async with httpx2.AsyncClient() as http:
            drawn = await watch_one(http, bought["url"])
            ended = [
                (await http.delete(f"{server.url}/s/{session['token']}")).json()
                for session in (bought, again)
            ]
        assert [one["way"] for one in ended] == ["channel", "channel"]
        [back] = await person.run("wallet", "refund")
        assert back["amount"] == BUDGET + 100_000 - drawn
        assert devnet.usdc_balance(viewer.address) == FUNDS - drawn
        async with asyncio.timeout(60):
            while devnet.usdc_balance(payee.address) != drawn:
                await asyncio.sleep(0.2)  # there is no event in another process
        assert (await person.run("ledger", "audit"))["clean"]
        third = await person.run("session", url, "--budget", DOLLARS)  # the channel goes on
        assert third["left"] == DOLLARS


async def test_by_exact_where_the_server_takes_nothing_else(
    tmp_path: Path, devnet: SharedDevnet, film: Path
) -> None:
    async with a_cinema(tmp_path, devnet, film, schemes="exact") as (server, payee, viewer):
        url = f"{server.url}/hls/film/index.m3u8"
        person = Person(server, viewer, tmp_path)
        bought = await person.run("session", url, "--budget", DOLLARS)
        async with httpx2.AsyncClient() as http:
            assert (await http.get(bought["url"])).status_code == 200
            ended = (await http.delete(f"{server.url}/s/{bought['token']}")).json()
    assert ended == {"drawn": "0", "returned": DOLLARS, "way": "credit"}
    assert devnet.usdc_balance(payee.address) == BUDGET


async def buy(payer: Payer, inner: httpx2.AsyncBaseTransport, url: str) -> BoughtSession:
    paying = PayingTransport(payer, inner, patience=PATIENCE)
    async with httpx2.AsyncClient(transport=paying, timeout=60) as http:
        return await buy_session(http, url, dollars=DOLLARS, budget=BUDGET)


@pytest.mark.parametrize("scheme", [ChannelPayer, ExactPayer])
async def test_an_answer_that_is_lost_is_asked_for_again_and_never_paid_again(
    tmp_path: Path, devnet: SharedDevnet, film: Path, scheme: type[ChannelPayer | ExactPayer]
) -> None:
    async with a_cinema(tmp_path, devnet, film) as (server, _, viewer):
        payer, wire = Payer(viewer, Budget(BUDGET), schemes=(scheme,)), Losing(2)
        bought = await buy(payer, wire, f"{server.url}/hls/film/index.m3u8")
        async with httpx2.AsyncClient() as http:
            state = (await http.get(f"{server.url}/s/{bought.token}")).json()
    assert state["budget"] == bought.budget == DOLLARS
    bodies, payments = zip(*wire.asked, strict=True)
    assert len(set(bodies)) == 1
    assert json.loads(bodies[0]) == {"slug": "film", "budget": DOLLARS}
    assert payments[0] is None
    assert len(payments) == 4
    assert len(set(payments[1:])) == 1
    assert devnet.usdc_balance(viewer.address) == FUNDS - BUDGET


async def test_a_deposit_the_server_finds_too_small_is_paid_otherwise(
    tmp_path: Path, devnet: SharedDevnet, film: Path
) -> None:
    async with a_cinema(tmp_path, devnet, film, deposit_floor="1") as (server, payee, viewer):
        payer = Payer(viewer, Budget(BUDGET))
        bought = await buy(payer, Losing(), f"{server.url}/hls/film/index.m3u8")
    assert bought.left == DOLLARS
    assert devnet.usdc_balance(payee.address) == BUDGET


@pytest.mark.parametrize(
    ("path", "error"),
    [("/objects/bytes", TermsRefused), ("/hls/nothing/index.m3u8", DeliveryFailed)],
)
async def test_what_has_no_sessions_is_not_paid(
    tmp_path: Path, devnet: SharedDevnet, film: Path, path: str, error: Callable[[], Exception]
) -> None:
    async with a_cinema(tmp_path, devnet, film) as (server, _, viewer):
        wire = Losing()
        with pytest.raises(error):  # type: ignore[call-overload]
            await buy(Payer(viewer, Budget(BUDGET)), wire, server.url + path)
        with pytest.raises(BudgetExceeded):
            await buy(Payer(viewer, Budget(100)), wire, f"{server.url}/hls/film/index.m3u8")
    assert all(payment is None for _, payment in wire.asked)
