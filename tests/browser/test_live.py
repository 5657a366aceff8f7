"""Live: back to what was, on to what is, and the end of it."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
from playwright.async_api import Browser, expect

from tests.browser.chrome import IN_A_BROWSER, a_tab
from tests.browser.watching import WatchPage, paid_in_full, press_play, watching
from tests.support.broadcaster import a_broadcaster
from tests.support.demo import Demo
from xbyte_live.devnet.publisher import URL_VARIABLE

pytestmark = IN_A_BROWSER

BACK = 30  # seconds
NEAR, FAR = 10, 15  # seconds behind live


@asynccontextmanager
async def on_air(url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The demo's publisher, broadcasting to ``url``."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "xbyte_live.devnet.publisher"),
        env=os.environ | {URL_VARIABLE: url},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def on_air_for(demo: Demo, seconds: int) -> None:
    """Return once one may go back so far in the demo's broadcast."""
    url = f"{demo.url}/hls/live/source/index.m3u8"
    async with httpx2.AsyncClient() as http, asyncio.timeout(120):
        while True:
            text = (await http.get(url)).text
            if sum(map(float, re.findall(r"#EXTINF:([0-9.]+)", text))) > seconds:
                return
            await asyncio.sleep(1)  # a segment lasts longer


async def behind(watch: WatchPage, test: str) -> None:
    """Return once the page says so many seconds behind live."""
    says = "!document.querySelector('#latency').hidden"
    seconds = "+document.querySelector('#latency').dataset.seconds"
    await watch.page.wait_for_function(f"() => {says} && {seconds} {test}", timeout=60_000)


async def test_one_may_go_back_and_to_what_is_live_again(demo: Demo, browser: Browser) -> None:
    await on_air_for(demo, BACK)
    async with watching(browser, demo, "live") as watch:
        button = watch.page.locator("#go-live")
        await watch.play("Test wallet")
        await behind(watch, f"< {NEAR}")
        await expect(button).to_have_text("Live")
        await watch.playing(1)

        before = watch.bought()
        oldest = float(await watch.page.locator("#seek").get_attribute("min") or 0)
        await watch.seek(oldest + 2)
        await behind(watch, f"> {FAR}")
        await expect(button).to_have_text("Go to live")
        await watch.playing(1)
        again = watch.bought()[len(before) :]
        assert {one.path for one in again} - {one.path for one in before}  # old parts cost too

        await watch.page.locator("#stage").hover(position={"x": 40, "y": 90})
        await button.click()
        await behind(watch, f"< {NEAR}")
        await expect(button).to_have_text("Live")
        await watch.playing(1)
        await watch.pause()
        await paid_in_full(watch)
        await watch.tab.check()


async def test_the_end_of_a_broadcast_is_said_with_a_way_out(
    browser: Browser, tmp_path: Path
) -> None:
    async with a_broadcaster(tmp_path, republish_window="1") as caster, a_tab(browser) as tab:
        key = await caster.stream("show")
        async with on_air(caster.rtmp(key)) as publisher:
            await caster.until(lambda status: status["state"] == "on_air", "show")
            await tab.page.goto(f"{caster.server.url}/watch/show")
            await press_play(tab.page)
            await tab.page.wait_for_function(
                "() => document.querySelector('video').currentTime > 2"
            )
            publisher.send_signal(signal.SIGINT)
            assert await publisher.wait() == 0
            notice = tab.page.locator("#notice")
            await expect(notice).to_contain_text("The broadcast has ended.", timeout=60_000)
            await expect(tab.page.locator("#off-air")).to_be_visible()
            await expect(tab.page.locator("#spinner")).to_be_hidden()
            await expect(tab.page.locator("#go-live")).to_be_hidden()
            await tab.check()
            await notice.get_by_role("button", name="See what else is on").click()
            await expect(tab.page.get_by_role("heading", level=1)).to_have_text(
                "Pay for what you play."
            )
