"""Stock players play a priced title through a session that the official client bought."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from eth_account.signers.local import LocalAccount
from x402 import x402Client
from x402.http.clients.httpx import x402AsyncTransport
from x402.mechanisms.evm.batch_settlement.client import BatchSettlementEvmScheme
from x402.mechanisms.evm.exact.register import register_exact_evm_client
from x402.mechanisms.evm.signers import EthAccountSigner

from tests.support.chain import SharedDevnet
from tests.support.cinema import SECONDS, a_cinema, a_film
from tests.support.players import stock
from tests.support.stock_players import PLAYERS, path_to
from xbyte_live.money import PRICE_DECIMALS, format_decimal, parse_decimal

BUDGET = "0.5"


def units(dollars: str) -> int:
    return parse_decimal(dollars, PRICE_DECIMALS)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_film(tmp_path_factory.mktemp("film"))


def by_exact(viewer: LocalAccount) -> httpx.AsyncClient:
    client = x402Client()
    register_exact_evm_client(client, viewer)
    return httpx.AsyncClient(transport=x402AsyncTransport(client), timeout=60)


def by_channel(viewer: LocalAccount) -> httpx.AsyncClient:
    client = x402Client()
    client.register("eip155:84532", BatchSettlementEvmScheme(EthAccountSigner(viewer)))
    return httpx.AsyncClient(transport=x402AsyncTransport(client), timeout=60)


async def segment_amounts(http: httpx.AsyncClient, url: str) -> int:
    """What the whole title costs by its playlist."""
    text = (await http.get(url.replace("index.m3u8", "source/index.m3u8"))).text
    return sum(int(line.partition("AMOUNT=")[2]) for line in text.splitlines() if "AMOUNT=" in line)


@pytest.mark.parametrize("client", [by_exact, by_channel])
async def test_a_player_that_cannot_pay_plays_a_priced_title(
    tmp_path: Path,
    devnet: SharedDevnet,
    film: Path,
    client: Callable[[LocalAccount], httpx.AsyncClient],
) -> None:
    settings = {"claim_interval": "1", "settle_interval": "1", "payee_key": "yes"}
    async with a_cinema(tmp_path, devnet, film, **settings) as (server, payee, viewer):
        async with client(viewer) as http:
            order = {"slug": "film", "budget": BUDGET}
            bought = await http.post(f"{server.url}/api/v1/sessions", json=order)
        assert bought.status_code == 201, bought.text
        url, token = bought.json()["url"], bought.json()["token"]
        own = f"{server.url}/s/{token}"
        played = await stock(url)
        assert played.picture.length == pytest.approx(SECONDS, abs=0.3)
        assert played.picture.corrupt == played.sound.corrupt == 0
        async with httpx.AsyncClient() as http:
            price = await segment_amounts(http, url)
            state = (await http.get(own)).json()
            assert units(state["drawn"]) == price
            ended = (await http.delete(own)).json()
            rest = units(BUDGET) - price
            assert ended == {
                "drawn": format_decimal(price, 6),
                "returned": format_decimal(rest, 6),
                "way": "transfer" if client is by_exact else "channel",
            }
            async with asyncio.timeout(60):
                while devnet.usdc_balance(payee.address) != price:
                    await asyncio.sleep(0.2)  # there is no event in another process
            assert (await http.get(url)).status_code == 404
        if client is by_exact:
            assert devnet.usdc_balance(viewer.address) == 50_000_000 - price
        assert server.log is not None
        assert token not in server.log.read_text()


COMMANDS = {
    "ffplay": "ffplay -nodisp -autoexit -loglevel error",
    "vlc": "vlc --quiet --no-one-instance --play-and-exit",
}


@pytest.mark.parametrize(("player", "program"), PLAYERS)
async def test_a_player_plays_through_a_session_and_survives_a_kill(
    tmp_path: Path, devnet: SharedDevnet, film: Path, player: str, program: str
) -> None:
    async with a_cinema(tmp_path, devnet, film) as (server, _, viewer):
        async with by_channel(viewer) as http:
            order = {"slug": "film", "budget": BUDGET}
            bought = (await http.post(f"{server.url}/api/v1/sessions", json=order)).json()
        await server.kill()
        await server.start()
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", f"{COMMANDS[player]} {bought['url']}"),
            env={
                "SDL_AUDIODRIVER": "dummy",
                "SDL_VIDEODRIVER": "dummy",
                "PATH": path_to(program, tmp_path),
            },
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            _, said = await process.communicate()
        assert (process.returncode, said) == (0, b"")
        async with httpx.AsyncClient() as http:
            state = (await http.get(f"{server.url}/s/{bought['token']}")).json()
            assert units(state["drawn"]) == await segment_amounts(http, bought["url"])
