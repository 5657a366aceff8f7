"""The documentation followed as a person would: the commands of each page, one after the other.

Each page gets a server of its own, on the local chain. Names of other machines and folders of the
system stand for that server and for a folder of the test.
"""

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner
from eth_account.signers.local import LocalAccount
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.support.chain import ETHER, SharedDevnet, serving
from tests.support.docs import DOCS, PAGES, Block, blocks
from tests.support.media import Audio, Recipe, h264
from tests.support.server import Server, a_server, free_port
from tests.support.shell import Command, commands, output
from xbyte_live.cli import main
from xbyte_live.frontend.bundle import build
from xbyte_live.live.webhooks import WebhookEvent, Webhooks

# Ours that test_pages reads and nothing here runs, and why.
ELSEWHERE = {
    "serve": "the server of the page is one",
    "demo": "tests/cli/test_demo",
    "devnet": "runs until it is interrupted; the tests' chain is the same",
    "play": "needs a player; tests/client/proxy plays with stock players",
    "proxy": "runs until it is interrupted; tests/client/proxy",
    "bench": "ten seconds of load; tests/cli/test_bench",
}
# A withdrawal takes a day of the chain's clock: tests/cli/test_wallet.
ELSEWHERE_OF_WALLET = {"withdraw"}

FILM = Recipe(".mp4", "mp4", h264(), seconds=6)
TUNE = Recipe(".m4a", "ipod", None, Audio(), seconds=6)
PLACES = ("https://tv.example", "https://media.example.org", "http://127.0.0.1:8402")
CAMERA = ("rtsp://camera.example", "rtsp://127.0.0.1:9")  # nobody is there
SYSTEM_FOLDERS = ("/etc/xbyte-live", "/var/lib/xbyte-live", "/var/backups")
FOLLOWED = [
    page for page in PAGES if any(block.language in ("sh", "console") for block in blocks(page))
]


@dataclass(slots=True)
class Follower:
    """Somebody who follows one page, in ``folder``."""

    page: Path
    folder: Path
    server: Server
    account: LocalAccount
    wallets: int = 0
    said: dict[int, list[str]] = field(default_factory=dict)  # output by the block's line

    def here(self, text: str) -> str:
        """A word of a page with the names that stand for something here."""
        for place in PLACES:
            text = text.replace(place, self.server.url)
        text = text.replace(*CAMERA)
        for place in SYSTEM_FOLDERS:
            text = text.replace(place, str(self.folder / place.rpartition("/")[2]))
        token = self.server.data_dir / "admin-token"
        if "ADMIN_TOKEN" in text:
            text = text.replace("ADMIN_TOKEN", token.read_text().strip())
        return text

    async def follow(self, command: Command) -> None:
        words = [self.here(word) for word in command.words]
        if command.is_ours:
            await self.ours(command, words[1:])
        elif command.program == "curl":
            self.note(command, await self.curl(words[1:]))
        elif command.program == "sqlite3":
            sqlite3.connect(words[1]).execute(words[2])
            assert sqlite3.connect(words[2].split("'")[1]).execute("SELECT 1").fetchone() == (1,)
            Path(words[2].split("'")[1]).unlink()

    async def ours(self, command: Command, words: list[str]) -> None:
        if words[0] in ELSEWHERE or (words[0] == "wallet" and words[1] in ELSEWHERE_OF_WALLET):
            return
        env = {name: self.here(value) for name, value in command.env}
        if words[0] == "doctor":  # its ports are taken while a server runs
            env |= {"XBYTE_PORT": str(free_port())}
        if words[:2] == ["wallet", "new"]:
            self.wallets += 1
            own = {"XBYTE_WALLET_KEY": "", "XBYTE_WALLET_PASSWORD": "a long password"}
            env = own | {"XBYTE_WALLET": str(self.folder / f"wallet{self.wallets}.json")} | env
        files = [str(self.folder / word) if word in FILES else word for word in words]
        self.note(command, await self.run(*files, env=env))

    async def run(self, *words: str, env: Mapping[str, str] | None = None) -> str:
        """What a command of ours says, run in this process, as a process of each takes seconds."""
        own = {
            "XBYTE_WALLET_KEY": "0x" + bytes(self.account.key).hex(),
            "XDG_CONFIG_HOME": str(self.folder / "home"),
        }
        env = self.server.environment | own | dict(env or {})
        result = await asyncio.to_thread(CliRunner().invoke, main, words, env=env)
        assert result.exit_code == 0, f"{words}\n{result.output}\n{result.exception!r}"
        return result.stdout

    def note(self, command: Command, text: str) -> None:
        self.said.setdefault(command.block.line, []).extend(text.splitlines())

    async def curl(self, words: list[str]) -> str:
        """What curl would print, with the options that the pages use."""
        headers = {}
        shown = False
        for at, word in enumerate(words[:-1]):
            if word == "-H":
                name, _, value = words[at + 1].partition(": ")
                headers[name] = value
            shown = shown or (word.startswith("-s") and "i" in word)
        async with httpx2.AsyncClient() as http:
            answer = await http.get(words[-1], headers=headers)
        if not shown:
            assert answer.status_code == 200, answer.text
            return answer.text
        head = [f"HTTP/1.1 {answer.status_code} {answer.reason_phrase}"]
        return "\n".join(head + [f"{name}: {value}" for name, value in answer.headers.items()])


FILES = {"talk.mp4", "music/", "dataset.parquet", "film.ts", "talk.ts", "aurora.ts", "january.csv"}


def needed(page: Path) -> Iterator[str]:
    """Slugs of media that the commands of a page ask for and do not put on sale."""
    text = "\n".join(block.text for block in blocks(page) if block.language in ("sh", "console"))
    for slug in dict.fromkeys(re.findall(r"/hls/(\w+)/", text)):
        if f"package {slug}" not in text and f"stream create {slug}" not in text:
            yield slug


@asynccontextmanager
async def following(page: Path, tmp_path: Path, devnet: SharedDevnet) -> AsyncIterator[Follower]:
    """A server with what a page takes for granted, and a payer with money."""
    if "xbyte-live doctor" in page.read_text("utf-8"):
        await asyncio.to_thread(build)  # which it looks for
    gas, payer = devnet.new_account(wei=ETHER), devnet.new_account(usdc=50_000_000, wei=ETHER)
    payee = devnet.new_account().address
    folder = tmp_path / "here"
    for name in ("music", *(place.rpartition("/")[2] for place in SYSTEM_FOLDERS)):
        (folder / name).mkdir(parents=True, exist_ok=True)
    FILM.make(folder / "talk.mp4")
    TUNE.make(folder / "music" / "tune.m4a")
    (folder / "dataset.parquet").write_bytes(bytes(70_000))
    for block in blocks(page):
        if block.language == "toml":
            (folder / "xbyte-live" / "xbyte-live.toml").write_text(block.text)
    key = "0x" + bytes(gas.key).hex()
    async with a_server(tmp_path, devnet.rpc_url, payee, key, pull_private="allow") as server:
        follower = Follower(page, folder, server, payer)
        for slug in needed(page):
            await follower.run("package", str(folder / "talk.mp4"), "--slug", slug)
        sqlite3.connect(folder / "xbyte-live" / "xbyte.db").close()
        yield follower


def like(shown: str) -> re.Pattern[str]:
    """What a line of a transcript stands for: ``…`` is anything."""
    pattern = ".*".join(map(re.escape, shown.split("…")))
    return re.compile(re.sub(r"127\\\.0\\\.0\\\.1:\d+", r"127\\.0\\.0\\.1:\\d+", pattern))


@pytest.mark.parametrize("page", FOLLOWED, ids=lambda page: page.name)
async def test_a_page_can_be_followed(page: Path, tmp_path: Path, devnet: SharedDevnet) -> None:
    async with following(page, tmp_path, devnet) as follower:
        for block in blocks(page):
            if block.language not in ("sh", "console"):
                continue
            for command in commands(block):
                await follower.follow(command)
            if block.language == "console":
                said = iter(follower.said[block.line])
                for shown in output(block):  # in this order; more may be said between
                    assert any(like(shown).fullmatch(line) for line in said), shown


def block_of(name: str, language: str, number: int = 0) -> Block:
    return [block for block in blocks(DOCS / name) if block.language == language][number]


def a_part_of(shown: Any, said: Any) -> bool:
    """Whether everything that is shown is said, with values of the same kind."""
    if isinstance(shown, dict):
        return isinstance(said, dict) and all(
            key in said and a_part_of(value, said[key]) for key, value in shown.items()
        )
    if isinstance(shown, float | int) and not isinstance(shown, bool):
        return isinstance(said, float | int)
    return type(shown) is type(said)


async def test_json_and_tags_are_what_the_server_says(tmp_path: Path, devnet: SharedDevnet) -> None:
    shown = [
        json.loads(block.text) for block in blocks(DOCS / "api.md") if block.language == "json"
    ]
    pricing, wanted, session = shown
    async with (
        following(DOCS / "api.md", tmp_path, devnet) as follower,
        httpx2.AsyncClient() as http,
    ):
        server = follower.server
        await follower.run("package", str(follower.folder / "talk.mp4"), "--slug", "film")
        film = f"{server.url}/hls/film"
        said = (await http.get(f"{film}/pricing.json")).json()
        assert a_part_of(pricing, said)
        for name in ("slug", "price_per_mb", "bytes_per_mb", "quote_ttl_seconds", "schemes"):
            assert pricing[name] == said[name]
        unpaid = await http.post(f"{server.url}/api/v1/sessions", json=wanted)
        assert unpaid.status_code == 402
        bought = json.loads(
            await follower.run("session", f"{film}/index.m3u8", "--budget", "0.50", "--json")
        )
        assert a_part_of(session, bought)
        stands = (await http.get(f"{server.url}/s/{bought['token']}")).json()
        assert (stands["url"], stands["left"]) == (bought["url"], bought["left"])
        multivariant = (await http.get(f"{film}/index.m3u8")).text
        media = (await http.get(f"{film}/source/index.m3u8")).text
        lines = multivariant.splitlines() + media.splitlines()
        for name in ("api.md", "pricing.md"):
            for tag in block_of(name, "m3u8").text.splitlines():
                pattern = re.sub(r"\d+", r"\\d+", re.escape(tag))
                assert any(re.fullmatch(pattern, line) for line in lines), tag


async def test_a_webhook_is_as_it_is_shown_and_its_signature_holds() -> None:
    secret, received = "a long and random secret", []

    async def receive(request: Request) -> Response:
        received.append((request.headers["x-xbyte-signature"], await request.body()))
        return Response(status_code=204)

    program: dict[str, Any] = {}
    exec(block_of("going-live.md", "python").text, program)
    with serving(Starlette(routes=[Route("/hook", receive, methods=["POST"])])) as url:
        webhooks = Webhooks([f"{url}/hook"], secret)
        running = asyncio.create_task(webhooks.run())
        webhooks.send(WebhookEvent("stream.started", "concert", 1_798_761_600.0, {}))
        await webhooks.drain()
        running.cancel()
        await webhooks.close()
    ((header, body),) = received
    shown = json.loads(block_of("going-live.md", "json").text)
    assert shown.keys() == json.loads(body).keys()
    assert a_part_of(shown, json.loads(body))
    assert len(shown["id"]) == len(json.loads(body)["id"])
    is_ours = program["is_ours"]
    assert is_ours(secret.encode(), header, body)
    assert not is_ours(b"another", header, body)
    assert not is_ours(secret.encode(), header, body + b" ")


async def test_the_agent_buys_what_it_says(tmp_path: Path, devnet: SharedDevnet) -> None:
    program: dict[str, Any] = {}
    exec(block_of("players.md", "python").text, program)
    async with following(DOCS / "index.md", tmp_path, devnet) as follower:
        data = bytes(range(256)) * 500
        await follower.server.sell("paper", data, 1_000)
        key = "0x" + bytes(follower.account.key).hex()
        assert await program["read"](f"{follower.server.url}/objects/paper", key) == data[:65_536]


async def test_every_url_of_the_api_page_is_there(tmp_path: Path, devnet: SharedDevnet) -> None:
    """Also those that only a whole server has."""
    async with (
        following(DOCS / "index.md", tmp_path, devnet) as follower,
        httpx2.AsyncClient() as h,
    ):
        for path in ("/studio", "/api/v1/openapi.json"):
            assert (await h.get(follower.server.url + path)).status_code == 200
        answer = await h.get(f"{follower.server.url}/channels/0x{'ab' * 32}")
        assert answer.status_code == 404
        assert "channel" in answer.text
