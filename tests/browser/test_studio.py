"""The studio: what viewers paid is what the publisher sees, to the unit."""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, Route, expect

from tests.browser.chrome import IN_A_BROWSER, Tab, a_tab
from tests.browser.watching import TICK_S, earned, watching
from tests.support.demo import Demo

pytestmark = IN_A_BROWSER

ANY_AMOUNT = re.compile(r"\$")


def dollars(amount: int) -> str:
    return f"${amount // 10**6}.{amount % 10**6:06}"


@asynccontextmanager
async def a_studio(demo: Demo, browser: Browser) -> AsyncIterator[Tab]:
    """Somebody who is logged in and sees what there is."""
    link = json.loads(await demo.manage("studio", "--json"))["login_url"]
    async with a_tab(browser) as tab:
        await tab.page.goto(link)
        await expect(tab.page.locator("#earned")).to_have_attribute("data-amount", ANY_AMOUNT)
        yield tab


async def asked(page: Page, path: str) -> dict[str, Any]:
    """What the server's API says to this page."""
    answer = await page.request.get(page.url.partition("/studio")[0] + path)
    found: dict[str, Any] = await answer.json()
    return found


async def test_it_shows_what_the_books_say_and_counts_on(demo: Demo, browser: Browser) -> None:
    link = json.loads(await demo.manage("studio", "--json"))["login_url"]
    async with a_tab(browser) as tab:
        await tab.page.goto(link)
        figure = tab.page.locator("#earned")
        await expect(figure).to_have_attribute("data-amount", dollars(await earned(demo)))
        async with watching(browser, demo, "orbit") as watch:
            await watch.play("Test wallet")
            await watch.playing(1)
            await watch.pause()
            assert await watch.settled() > 0
        await expect(figure).to_have_attribute("data-amount", dollars(await earned(demo)))
        await tab.check()


async def test_a_price_that_is_changed_there_is_the_price(
    demo: Demo, browser: Browser, tmp_path: Path
) -> None:
    file, slug = tmp_path / "file.bin", f"priced-{tmp_path.parent.name}"
    file.write_bytes(os.urandom(1000))
    await demo.manage("add", str(file), "--slug", slug, "--title", slug, "--price", "0.01")
    async with a_studio(demo, browser) as tab:
        price = tab.page.get_by_label(f"Dollars per MB of {slug}")
        save = tab.page.get_by_role("button", name=f"Save the price of {slug}")
        await expect(price).to_have_value("0.01")
        await expect(save).to_be_disabled()
        await price.fill("a lot")
        await expect(save).to_be_disabled()
        await price.fill("0.025")
        await tab.page.get_by_label(f"Watching again of {slug}").select_option("free")
        await save.click()
        await expect(save).to_have_text("Saved")
        found = await asked(tab.page, f"/objects/{slug}/pricing.json")
        assert (found["price_per_mb"], found["rewatch"]) == ("0.025", "free")
        async with asyncio.timeout(30):
            while await listed(tab.page, slug) != "0.025":  # the list is made anew now and then
                await asyncio.sleep(TICK_S)
        await tab.page.reload()
        await expect(price).to_have_value("0.025")
        await tab.check()


async def listed(page: Page, slug: str) -> str:
    """The price of an item in the catalog."""
    items = (await asked(page, "/api/v1/catalog"))["items"]
    return next(str(item["price_per_mb"]) for item in items if item["slug"] == slug)


async def test_a_stream_is_made_and_its_key_is_shown_once_and_revoked(
    demo: Demo, browser: Browser, tmp_path: Path
) -> None:
    slug = f"show-{tmp_path.parent.name}"
    keys = f"/api/v1/streams/{slug}/keys"
    async with a_studio(demo, browser) as tab:
        page = tab.page
        # as on plain http
        await page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
        await page.get_by_role("button", name="New stream").click()
        await page.get_by_label("Name in URLs").fill(slug)
        await page.get_by_label("Name people see").fill("A show")
        await page.get_by_role("button", name="Make it").click()
        card = page.locator(f"#stream-{slug}")
        fresh = card.get_by_role("status")
        await expect(fresh).to_contain_text("shown this once")
        key = await fresh.locator("code").inner_text()
        copy = card.get_by_role("button", name="Copy the stream key")
        await copy.click()
        await expect(copy).to_have_text("Press Ctrl+C")
        assert await page.evaluate("() => String(getSelection())") == key
        await expect(card.get_by_role("heading")).to_have_text("A show")
        (kept,) = (await asked(page, keys))["keys"]
        assert key.endswith(kept["hint"])
        await card.get_by_role("button", name=f"Revoke the key that ends in {kept['hint']}").click()
        sure = page.get_by_role("dialog")
        await sure.get_by_role("button", name="Cancel").click()
        assert len((await asked(page, keys))["keys"]) == 1
        await card.get_by_role("button", name="Revoke the key").click()
        await sure.get_by_role("button", name="Revoke it").click()
        await expect(card.get_by_role("button", name="Revoke the key")).to_have_count(0)
        assert (await asked(page, keys))["keys"] == []
        await expect(card).not_to_contain_text(key)
        await tab.check()
    await demo.manage("stream", "remove", slug)


async def test_what_is_exported_is_what_the_books_hold(demo: Demo, browser: Browser) -> None:
    async with watching(browser, demo, "orbit") as watch:
        await watch.play("Test wallet")
        await watch.playing(1)
        await watch.pause()
        assert await watch.settled() > 0
    async with a_studio(demo, browser) as tab:
        days = [await tab.page.get_by_label(name).input_value() for name in ("First day", "Stop")]
        for format in ("CSV", "JSON"):
            async with tab.page.expect_download() as download:
                await tab.page.get_by_role("button", name=format, exact=True).click()
            saved = (await (await download.value).path()).read_text()
            options = ("--from", days[0], "--to", days[1], "--format", format.lower())
            assert saved.splitlines() == (await _export(demo, *options)).splitlines()
            assert len(saved.splitlines()) > 1
        await tab.check()


async def _export(demo: Demo, *options: str) -> str:
    return await demo.manage("ledger", "export", *options)


async def test_a_server_that_fails_is_not_asked_again_and_again(
    demo: Demo, browser: Browser
) -> None:
    async with a_studio(demo, browser) as tab:
        asks = 0

        async def fail(route: Route) -> None:
            nonlocal asks
            asks += "/earnings?" in route.request.url
            await route.fulfill(status=503, json={"message": "it is being restarted"})

        await tab.page.clock.install()
        await tab.page.route("**/api/v1/**", fail)
        await tab.page.reload()
        for _ in range(60):
            await tab.page.clock.run_for(1_000)
        await expect(tab.page.locator("#problem")).to_contain_text("It is being restarted")
        assert 3 <= asks <= 8  # after 1, 2, 4, 8, 16 and 30 seconds
        await tab.page.unroute("**/api/v1/**", fail)
        await tab.page.clock.run_for(31_000)
        await expect(tab.page.locator("#problem")).to_be_hidden()
        await expect(tab.page.locator("#live-text")).to_have_text("Live")
