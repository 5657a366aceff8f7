"""Caps: what was said to be the most is the most, and raising it goes on."""

from playwright.async_api import Browser, expect

from tests.browser.chrome import IN_A_BROWSER
from tests.browser.watching import MINUTE_CAPS, paid_in_full, slide, watching
from tests.support.demo import Demo

pytestmark = IN_A_BROWSER


async def test_it_stops_at_the_cap_and_goes_on_when_that_is_raised(
    demo: Demo, browser: Browser
) -> None:
    async with watching(browser, demo, "aurora") as watch:
        await watch.play("Test wallet", cap=1_000)
        halted = watch.page.get_by_text("your cap of $0.001 is reached")
        await expect(halted).to_be_visible(timeout=30_000)
        paid = await watch.settled()
        assert 0 < paid <= 1_000
        at = await watch.position()
        await watch.page.get_by_role("button", name="Raise it").first.click()
        await watch.playing(2)
        assert await watch.position() > at
        await expect(halted).to_be_hidden()
        await slide(watch.page.get_by_role("slider", name="Stop at"), 1_000)
        await watch.pause()
        assert paid < await watch.settled() <= 2_000
        await watch.tab.check()


async def test_it_pauses_at_the_cap_of_a_minute_and_goes_on_when_that_is_raised(
    demo: Demo, browser: Browser
) -> None:
    async with watching(browser, demo, "aurora") as watch:
        slider = watch.page.get_by_role("slider", name="At most")
        await slide(slider, 1_000, MINUTE_CAPS)
        await expect(watch.page.locator("#minute-cap-fits")).to_contain_text("it will pause")
        await watch.play("Test wallet")
        halted = watch.page.get_by_text("your cap of $0.001 a minute is reached")
        await expect(halted).to_be_visible(timeout=30_000)
        await expect(halted).to_contain_text("It goes on in")
        notice = watch.page.locator("#notice")
        await expect(notice).to_contain_text("It goes on by itself when the minute is over")
        at, paid = await watch.position(), await watch.settled()
        assert 0 < paid <= 1_000
        await notice.get_by_role("button", name="Raise it to $0.002").click()
        await watch.playing(1)
        assert await watch.position() > at
        await expect(halted).to_be_hidden()
        await expect(watch.page.locator("#minute-cap-text")).to_have_text("$0.002")
        await watch.pause()
        assert paid < await paid_in_full(watch) <= 2_000
        await watch.tab.check()
