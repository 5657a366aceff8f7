"""The README's lines, word for word, on a page of somebody else's: they play, and they pay."""

import json
import re
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, ConsoleMessage
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests.browser.chrome import IN_A_BROWSER, a_tab
from tests.browser.wallet import ScriptedWallet
from tests.browser.watching import WatchPage, at_rest, ledger_of
from tests.support.chain import serving
from tests.support.demo import ROOT, Demo
from xbyte_live.devnet import npm
from xbyte_live.devnet.chain import DevChain
from xbyte_live.frontend.bundle import FRONTEND

pytestmark = IN_A_BROWSER

HOST, ITEM, SLUG = "https://media.example", "/hls/film/", "aurora"
PAGE = """<!doctype html><html lang="en"><title>Elsewhere</title>
<script type="importmap">{"imports": {"hls.js": "/hls.mjs"}}</script>
%s</html>"""
PAGES = (ROOT / "README.md", ROOT / "xbyte_live/docs/embedding.md", FRONTEND / "README.md")


def snippet_of(page: Path) -> str:
    """What a page tells people to paste."""
    (snippet,) = re.findall(r"```html\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    return str(snippet)


def elsewhere(snippet: str, demo: Demo) -> Starlette:
    """A site that has nothing but that page, and hls.js where its import map says."""
    assert HOST in snippet and ITEM in snippet
    html = PAGE % snippet.replace(HOST, demo.url).replace(ITEM, f"/hls/{SLUG}/")
    lock = json.loads((FRONTEND / "package-lock.json").read_text())
    player = npm.install("frontend", lock, dev=False) / "hls.js" / "dist" / "hls.mjs"

    async def page(_: Request) -> Response:
        return HTMLResponse(html)

    async def script(_: Request) -> Response:
        return PlainTextResponse(player.read_text("utf-8"), media_type="text/javascript")

    return Starlette(routes=[Route("/", page), Route("/hls.mjs", script)])


async def test_all_pages_tell_the_same_lines() -> None:
    assert len({snippet_of(page) for page in PAGES}) == 1


async def test_a_page_of_another_origin_plays_and_pays(demo: Demo, browser: Browser) -> None:
    wallet = ScriptedWallet(demo.described["rpc_url"], demo.described["chain_id"])
    async with DevChain(wallet.rpc_url) as chain, a_tab(browser) as tab:
        await chain.fund(wallet.account.address, usdc=5_000_000)
        await wallet.join(tab.page)
        told = [0]

        def heard(said: ConsoleMessage) -> None:
            total = re.fullmatch(r"(\d+) spent", said.text)
            told.extend([int(total[1])] if total else [])

        async def last_told() -> int:
            return told[-1]

        tab.page.on("console", heard)
        preflights: list[str] = []
        wire = await tab.page.context.new_cdp_session(tab.page)

        def asked_before(sent: dict[str, Any]) -> None:
            if sent["request"]["method"] == "OPTIONS":
                preflights.append(sent["request"]["url"])

        wire.on("Network.requestWillBeSent", asked_before)
        await wire.send("Network.enable")
        with serving(elsewhere(snippet_of(PAGES[0]), demo)) as origin:
            await tab.page.goto(origin)
            watch = WatchPage(tab, demo, SLUG)
            await tab.page.mouse.click(5, 5)  # a page may play with sound after a click
            await tab.page.evaluate("() => document.querySelector('#video').play()")
            await watch.playing(5)
            await tab.page.evaluate("() => document.querySelector('#video').pause()")
            paid = await at_rest(last_told)
            assert paid == await watch.cost() > 0
            assert wallet.asked.count("eth_signTypedData_v4") == 1
            bought = [f"{demo.url}/{one.path}" for one in watch.bought()]
            assert set(bought) <= set(preflights)
            rows = await ledger_of(demo, wallet.account.address)
            assert paid == sum(row["amount"] for row in rows)
            await tab.check(expected=("favicon",))
