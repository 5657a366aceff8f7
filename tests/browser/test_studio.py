"""The studio: what viewers paid is what the publisher sees, to the unit."""

import json

from playwright.async_api import Browser, expect

from tests.browser.chrome import IN_A_BROWSER, a_tab
from tests.browser.watching import earned, watching
from tests.support.demo import Demo

pytestmark = IN_A_BROWSER


def dollars(amount: int) -> str:
    return f"${amount // 10**6}.{amount % 10**6:06}"


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
