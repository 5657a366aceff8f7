"""Files: bought once, for what was agreed to, and saved as often as one likes."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, Route, expect

from tests.browser.chrome import IN_A_BROWSER, a_tab
from tests.browser.watching import WatchPage
from tests.support.demo import Demo
from xbyte_live.money import Price

pytestmark = IN_A_BROWSER

SIZE = 3_500_000
CHEAPER, PRICE = Price.parse("0.005"), Price.parse("0.01")


@asynccontextmanager
async def a_file(
    demo: Demo, browser: Browser, folder: Path, name: str, *, before: Price = PRICE
) -> AsyncIterator[tuple[WatchPage, bytes]]:
    """Somebody who opened the page of a file when its price was that, and what is in it."""
    file, slug = folder / "file.bin", f"{name}-{folder.parent.name}"
    file.write_bytes(data := os.urandom(SIZE))
    await demo.manage("add", str(file), "--slug", slug, "--price", str(PRICE))
    async with a_tab(browser) as tab:

        async def tell(route: Route) -> None:
            answer = await route.fetch()
            whole = f"{before.amount_for(SIZE) / 10**6:.6f}"
            told = await answer.json() | {"price_per_mb": str(before), "price_whole": whole}
            await route.fulfill(response=answer, json=told)

        if before != PRICE:
            await tab.page.route("**/pricing.json", tell)
        await tab.page.goto(f"{demo.url}/watch/{slug}")
        await expect(tab.page.get_by_role("button", name="Buy")).to_be_enabled()
        await tab.page.unroute_all()
        yield WatchPage(tab, demo, slug), data


async def saved(watch: WatchPage, act: Callable[[], Awaitable[None]]) -> bytes:
    """The file that is handed over once that was done."""
    async with watch.page.expect_download(timeout=30_000) as download:
        await act()
    return (await (await download.value).path()).read_bytes()


async def test_it_is_bought_once_for_its_price_and_saved_again_for_nothing(
    demo: Demo, browser: Browser, tmp_path: Path
) -> None:
    async with a_file(demo, browser, tmp_path, "kept") as (watch, data):
        whole = PRICE.amount_for(SIZE)
        await watch.page.get_by_role("button", name="Buy").click()
        cap = watch.page.locator("#ask-cap-text")
        await expect(cap).to_have_text(f"${whole / 10**6:.6f}")  # not thirty times as much
        assert await saved(watch, watch.agree) == data
        assert await watch.settled() == whole
        again = watch.page.get_by_role("button", name="Save again")
        assert await saved(watch, again.click) == data
        assert await watch.settled() == whole
        assert len(watch.bought()) == 1
        await watch.tab.check()


async def test_a_price_that_went_up_is_shown_before_it_is_paid(
    demo: Demo, browser: Browser, tmp_path: Path
) -> None:
    async with a_file(demo, browser, tmp_path, "raised", before=CHEAPER) as (watch, data):
        await watch.page.get_by_role("button", name="Buy").click()
        await watch.agree()
        notice = watch.page.locator("#notice")
        await expect(notice).to_contain_text("It costs more than you agreed to")
        assert (await watch.settled(), watch.bought()) == (0, [])
        await notice.get_by_role("button", name="See the new price").click()
        dialog = watch.page.get_by_role("dialog")
        await expect(dialog).to_contain_text(f"It was ${CHEAPER} a MB when you agreed.")
        assert await saved(watch, watch.agree) == data
        assert await watch.settled() == PRICE.amount_for(SIZE)
        await watch.tab.check(expected=("402",))
