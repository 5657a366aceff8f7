"""The player in a real browser: what paying costs a viewer, in time.

    python -m tests.bench.player [--starts 15] [--seconds 60]

Against a running demo, with hls.js from npm on a page of another origin: milliseconds to sign a
voucher; from play to the first frame, paid (the channel is open already) beside the same title
for nothing; how often and how long the broadcast halts, paid and for nothing; and how large the
scripts of the pages are. All in one run, so that the ratios hold whatever the machine does.
"""

import argparse
import asyncio
import gzip
import json
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from tests.browser.chrome import a_browser, a_tab
from tests.browser.wallet import ScriptedWallet
from tests.support.chain import serving
from tests.support.demo import Demo
from xbyte_live.devnet import npm
from xbyte_live.devnet.chain import DevChain
from xbyte_live.frontend.bundle import FRONTEND, STATIC, build

TITLE, STREAM = "aurora", "live"
PRICE = "0.001"
SIGNATURES = 300
BUDGETS = {"signing": 3.0, "start": 1.5, "script": 350_000}

SIGNING = """
import { Key } from './src/lib/keys';
import { voucherDigest } from './src/lib/typed';

const key = new Key(`0x${'11'.repeat(32)}`);
export async function sign(count: number): Promise<number[]> {
  const times: number[] = [];
  for (let ceiling = 1; ceiling <= count; ceiling += 1) {
    const begin = performance.now();
    await key.sign(voucherDigest(`0x${'22'.repeat(32)}`, BigInt(ceiling), 84532));
    times.push(performance.now() - begin);
  }
  return times;
}
"""

PAGE = """<!doctype html><title>Bench</title><video muted></video>
<script type="module">
import Hls from '/hls.mjs';
import { Payer, injectedWallets, xbyteLoader } from '@demo/static/xbyte-hls.js';

const video = document.querySelector('video');
const [wallet] = await injectedWallets();
const payer = new Payer({ wallet, budget: { total: 10_000_000n } });
let hls;
window.begin = async (slug, paid) => {
  hls = new Hls(paid ? { fLoader: xbyteLoader(payer) } : {});
  window.halts = { count: 0, ms: 0 };
  const began = performance.now();
  const shown = new Promise((resolve) => video.requestVideoFrameCallback(resolve));
  hls.loadSource(`@demo/hls/${slug}/index.m3u8`);
  hls.attachMedia(video);
  void video.play();
  await shown;
  return performance.now() - began;
};
let since;
video.addEventListener('waiting', () => { since = performance.now(); window.halts.count += 1; });
video.addEventListener('playing', () => {
  if (since !== undefined) window.halts.ms += performance.now() - since;
  since = undefined;
});
window.end = () => { hls.destroy(); since = undefined; return window.halts; };
window.ready = true;
</script>"""


def elsewhere(demo: Demo, modules: Path) -> Starlette:
    """A site of another origin with the page and hls.js."""

    async def page(_: Request) -> Response:
        return HTMLResponse(PAGE.replace("@demo", demo.url))

    async def script(_: Request) -> Response:
        text = (modules / "hls.js" / "dist" / "hls.mjs").read_text("utf-8")
        return Response(text, media_type="text/javascript")

    return Starlette(routes=[Route("/", page), Route("/hls.mjs", script)])


def signing_script(folder: Path, modules: Path) -> str:
    """What signs vouchers with the library's own parts, as a script that defines ``Signing``."""
    shutil.copytree(FRONTEND / "src", folder / "src")
    (folder / "node_modules").symlink_to(modules, target_is_directory=True)
    (folder / "signing.ts").write_text(SIGNING)
    esbuild = (npm.node_tools().node, str(modules / "esbuild" / "bin" / "esbuild"))
    options = ("--bundle", "--minify", "--format=iife", "--global-name=Signing")
    run = subprocess.run(
        (*esbuild, "signing.ts", *options), cwd=folder, capture_output=True, text=True, check=True
    )
    return run.stdout


async def signing(page: Page, script: str) -> float:
    """Milliseconds a voucher, the median."""
    await page.goto("about:blank")
    await page.add_script_tag(content=script)
    await page.evaluate("() => Signing.sign(50)")
    return statistics.median(await page.evaluate(f"() => Signing.sign({SIGNATURES})"))


async def start(page: Page, *, paid: bool) -> float:
    """Milliseconds from play to the first frame."""
    took: float = await page.evaluate("(wanted) => begin(...wanted)", [TITLE, paid])
    await page.evaluate("() => end()")
    return took


async def halts(page: Page, seconds: float, *, paid: bool) -> dict[str, Any]:
    """How often and how long the broadcast halted after it had begun."""
    await page.evaluate("(wanted) => begin(...wanted)", [STREAM, paid])
    await page.evaluate("() => { window.halts = { count: 0, ms: 0 }; }")
    await asyncio.sleep(seconds)
    found: dict[str, Any] = await page.evaluate("() => end()")
    return found


def sizes() -> dict[str, int]:
    """Bytes of each script as it travels."""
    return {file.name: len(gzip.compress(file.read_bytes(), 6)) for file in STATIC.glob("*.js")}


@asynccontextmanager
async def a_demo(folder: Path) -> AsyncIterator[Demo]:
    """A running demo."""
    demo = Demo(folder / "demo")
    await demo.start()
    try:
        yield demo
    finally:
        await demo.end()


async def measure(starts: int, seconds: float) -> dict[str, Any]:
    """Everything, with prices set to nothing and back."""
    build()
    lock = json.loads((FRONTEND / "package-lock.json").read_text())
    modules = npm.install("frontend", lock, dev=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with a_demo(folder) as demo, a_browser() as browser, a_tab(browser) as tab:
            wallet = ScriptedWallet(demo.described["rpc_url"], demo.described["chain_id"])
            async with DevChain(wallet.rpc_url) as chain:
                await chain.fund(wallet.account.address, usdc=10_000_000)
            await wallet.join(tab.page)
            (folder / "signing").mkdir()
            found: dict[str, Any] = {
                "signing ms": await signing(tab.page, signing_script(folder / "signing", modules))
            }
            with serving(elsewhere(demo, modules)) as origin:
                await tab.page.goto(origin)
                await tab.page.wait_for_function("() => window.ready")
                for kind, price in (("paid", PRICE), ("unpaid", "0")):
                    for slug in (TITLE, STREAM):
                        await demo.manage("price", slug, price)
                    await asyncio.sleep(15)  # what the broadcast lists has the new price by then
                    paid = kind == "paid"
                    await start(tab.page, paid=paid)  # opens the channel, warms what is warmed
                    times = [await start(tab.page, paid=paid) for _ in range(starts)]
                    found[f"start {kind} ms"] = statistics.median(times)
                    found[f"halts {kind}"] = await halts(tab.page, seconds, paid=paid)
    return found | {"gzipped": sizes()}


def report(found: dict[str, Any]) -> None:
    """Say it, each beside its budget."""
    ratio = found["start paid ms"] / found["start unpaid ms"]
    print(f"signing a voucher      {found['signing ms']:.2f} ms  (budget {BUDGETS['signing']} ms)")
    print(
        f"play to first frame    {found['start paid ms']:.0f} ms paid, "
        f"{found['start unpaid ms']:.0f} ms unpaid: {ratio:.2f}×  (budget {BUDGETS['start']}×)"
    )
    for kind in ("paid", "unpaid"):
        halted = found[f"halts {kind}"]
        print(f"halts, {kind:15} {halted['count']}, {halted['ms']:.0f} ms")
    for name, size in sorted(found["gzipped"].items()):
        print(f"{name:22} {size / 1000:.0f} kB gzipped  (budget {BUDGETS['script'] / 1000:.0f} kB)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--starts", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    report(asyncio.run(measure(given.starts, given.seconds)))
