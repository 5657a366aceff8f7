"""Keys: the player's where it has the focus, the page's everywhere else."""

from playwright.async_api import Browser, expect

from tests.browser.chrome import IN_A_BROWSER, PHONE
from tests.browser.watching import watching
from tests.support.demo import Demo

pytestmark = IN_A_BROWSER


async def test_arrows_seek_in_the_player_and_scroll_beside_it(demo: Demo, browser: Browser) -> None:
    async with watching(browser, demo, "aurora", viewport=PHONE) as watch:
        page, video = watch.page, watch.page.locator("video")
        await watch.play("Test wallet")
        await watch.playing(1)
        await page.keyboard.press("m")
        await expect(video).to_have_js_property("muted", True)
        before = await watch.position()
        await page.keyboard.press("ArrowRight")
        assert await watch.position() >= before + 5

        await page.get_by_role("heading", level=1).click()
        await page.keyboard.press("ArrowDown")
        await page.wait_for_function("() => scrollY > 0")
        await page.keyboard.press("m")
        await expect(video).to_have_js_property("volume", 1)
        await expect(video).to_have_js_property("muted", True)

        await page.get_by_role("button", name="Mute").focus()
        await page.keyboard.press("ArrowDown")
        await expect(video).to_have_js_property("volume", 0.9)
        await watch.tab.check()
