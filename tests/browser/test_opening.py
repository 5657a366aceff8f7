"""From the front door: two clicks to what one came for, and not a cent before the second."""

import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, Route, expect

from tests.browser.chrome import IN_A_BROWSER, a_tab
from tests.browser.watching import WatchPage, ledger_of
from tests.support.demo import Demo
from tests.support.media import Audio, Recipe, h264

pytestmark = IN_A_BROWSER

CLIP = Recipe(".mp4", "mp4", h264(group=25), Audio(rate=44100), seconds=20)


async def open_card(watch: WatchPage) -> None:
    """The first click: what one wants to see, on the page whose URL the demo prints."""
    await watch.page.goto(watch.demo.url)
    await watch.page.locator(f"#item-{watch.slug} a").click()


@pytest.mark.parametrize("slug", ["live", "aurora", "nightwalk"])
async def test_two_clicks_play_it_and_the_meter_moves(
    demo: Demo, browser: Browser, slug: str
) -> None:
    async with a_tab(browser) as tab:
        watch = WatchPage(tab, demo, slug)
        await open_card(watch)
        dialog = watch.page.get_by_role("dialog")
        await expect(dialog).to_be_visible(timeout=30_000)
        assert (await watch.paid(), watch.bought()) == (0, [])
        await dialog.get_by_role("button", name="Start paying").click()  # the second
        await expect(watch.page.locator("#paid")).not_to_have_attribute(
            "data-amount", "0", timeout=30_000
        )
        await watch.playing(1)
        assert not await watch.page.evaluate("() => document.querySelector('video').muted")
        paid = await watch.paid()
        await watch.pause()
        assert 0 < paid <= await watch.settled() == await watch.cost()
        rows = await ledger_of(demo, watch.bought()[0].payer)
        assert sum(row["amount"] for row in rows) == await watch.cost()
        await watch.tab.check()


async def test_what_is_free_plays_at_one_click_and_then_it_asks(
    demo: Demo, browser: Browser, tmp_path: Path
) -> None:
    clip, slug = CLIP.make(tmp_path / "clip.mp4"), f"preview-{tmp_path.parent.name}"
    await demo.manage("package", str(clip), "--slug", slug, "--preview", "6")
    async with a_tab(browser) as tab:
        watch = WatchPage(tab, demo, slug)
        await open_card(watch)
        badge, dialog = watch.page.locator("#free-badge"), watch.page.get_by_role("dialog")
        await watch.playing(1)
        await expect(badge).to_be_visible()
        await expect(dialog).to_be_hidden()
        await expect(dialog).to_be_visible(timeout=30_000)
        await expect(dialog).to_contain_text("Nothing has been charged so far.")
        assert (await watch.paid(), watch.bought()) == (0, [])
        await dialog.get_by_role("button", name="Not now").click()
        await expect(watch.page.locator("#halt")).to_contain_text("What follows costs money.")
        assert (await watch.settled(), watch.bought()) == (0, [])
        await watch.page.get_by_role("button", name="See the price").click()
        await watch.agree()
        await watch.playing(1)
        assert await watch.paid() > 0
        await watch.tab.check()


async def test_without_a_click_on_this_site_it_waits_for_one(demo: Demo, browser: Browser) -> None:
    async with a_tab(browser) as tab:
        watch = WatchPage(tab, demo, "aurora")
        await watch.open()
        await watch.page.wait_for_load_state("networkidle")
        asked = [answer.url for answer in tab.answers]
        await expect(watch.page.get_by_role("dialog")).to_be_hidden()
        assert not [url for url in asked if url.endswith((".m3u8", ".ts"))]
        await watch.tab.check()


async def test_what_the_browser_cannot_play_is_said_and_not_waited_for(
    demo: Demo, browser: Browser
) -> None:
    async def as_hevc(route: Route) -> None:
        answer = await route.fetch()
        text = re.sub(r'CODECS="[^"]*"', 'CODECS="hvc1.2.4.L153.B0"', await answer.text())
        await route.fulfill(response=answer, body=text)

    none = "delete window.MediaSource; delete window.ManagedMediaSource"
    for scripts, told in (((), "xbyte-live play"), ((none,), "xbyte-live session")):
        async with a_tab(browser, *scripts) as tab:
            watch = WatchPage(tab, demo, "aurora")
            await tab.page.route("**/hls/aurora/index.m3u8", as_hevc)
            await watch.open()
            await watch.press_play()
            notice = tab.page.locator("#notice")
            await expect(notice).to_contain_text("This browser cannot play this.")
            await expect(notice).to_contain_text(told)
            await expect(tab.page.locator("#spinner")).to_be_hidden()
            await tab.check()


async def test_without_https_it_says_what_is_missing(demo: Demo, browser: Browser) -> None:
    async with a_tab(browser) as tab:

        async def plain(route: Route) -> None:
            path = route.request.url.removeprefix("http://tv.example")
            await route.fulfill(response=await route.fetch(url=demo.url + path))

        await tab.page.route("http://tv.example/**", plain)
        await tab.page.goto("http://tv.example/watch/aurora")
        watch = WatchPage(tab, demo, "aurora")
        await watch.play()
        told = tab.page.get_by_role("alert").filter(visible=True)
        await expect(told).to_contain_text("https")
        await expect(told).not_to_contain_text("private mode")
        assert await watch.paid() == 0
