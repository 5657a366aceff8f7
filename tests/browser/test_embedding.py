"""The library on a page of somebody else's, from another origin."""

import json
from pathlib import Path

from playwright.async_api import Browser
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests.browser.chrome import IN_A_BROWSER, a_tab
from tests.browser.wallet import ScriptedWallet
from tests.browser.watching import WatchPage, ledger_of
from tests.support.chain import serving
from tests.support.demo import Demo
from xbyte_live.devnet import npm
from xbyte_live.devnet.chain import Chain
from xbyte_live.player.bundle import PLAYER

pytestmark = IN_A_BROWSER

HTML = """<!doctype html><html lang="en"><title>Elsewhere</title>
<video controls muted></video><output data-amount="0" id="paid"></output>
<script type="module">
import Hls from '/hls.mjs';
import {{ Payer, injectedWallets, xbyteLoader }} from '{demo}/static/xbyte-hls.js';

const [wallet] = await injectedWallets();
const payer = new Payer({{ wallet, budget: {{ total: 50_000n }} }});
payer.addEventListener('spend', ({{ detail }}) => {{
  document.querySelector('output').dataset.amount = String(detail.total);
}});
const hls = new Hls({{ fLoader: xbyteLoader(payer) }});
hls.loadSource('{demo}/hls/aurora/index.m3u8');
hls.attachMedia(document.querySelector('video'));
await document.querySelector('video').play();
</script></html>"""


def elsewhere(demo: Demo) -> Starlette:
    """A site that has nothing but a page, and hls.js."""
    lock = json.loads((PLAYER / "package-lock.json").read_text())
    player = npm.install("player", lock, dev=False) / "hls.js" / "dist" / "hls.mjs"

    async def page(_: Request) -> Response:
        return HTMLResponse(HTML.format(demo=demo.url))

    async def script(_: Request) -> Response:
        return PlainTextResponse(Path(player).read_text("utf-8"), media_type="text/javascript")

    return Starlette(routes=[Route("/", page), Route("/hls.mjs", script)])


async def test_a_page_of_another_origin_plays_and_pays(demo: Demo, browser: Browser) -> None:
    wallet = ScriptedWallet(demo.described["rpc_url"], demo.described["chain_id"])
    async with Chain(wallet.rpc_url) as chain, a_tab(browser) as tab:
        await chain.fund(wallet.account.address, usdc=1_000_000)
        await wallet.join(tab.page)
        with serving(elsewhere(demo)) as origin:
            await tab.page.goto(origin)
            watch = WatchPage(tab, demo, "aurora")
            await watch.playing(5)
            await tab.page.evaluate("() => document.querySelector('video').pause()")
            paid = await watch.settled()
            assert paid == await watch.cost() > 0
            rows = await ledger_of(demo, wallet.account.address)
            assert paid == sum(row["amount"] for row in rows)
            await tab.check(expected=("favicon",))
