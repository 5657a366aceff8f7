"""Several qualities: each says what it costs, and what is chosen is what is paid."""

import asyncio

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, expect

from tests.browser.chrome import IN_A_BROWSER
from tests.browser.watching import (
    MINUTE_CAPS,
    NO_CAP,
    TICK_S,
    WatchPage,
    paid_in_full,
    slide,
    watching,
)
from tests.support.demo import Demo
from tests.support.ladder import add_ladder
from tests.support.media import Audio, Recipe, h264
from xbyte_live.config import Settings
from xbyte_live.server.catalog_access import open_catalog
from xbyte_live.web.pages.cards import money

pytestmark = IN_A_BROWSER

SECONDS = 40
LOW, MIDDLE, HIGH = "120p", "240p", "480p"
SIZES = {LOW: (160, 120, 100_000), MIDDLE: (320, 240, 700_000), HIGH: (640, 480, 2_000_000)}


def rung(width: int, height: int, bit_rate: int) -> Recipe:
    video = h264(width=width, height=height, bit_rate=bit_rate)
    return Recipe(".mp4", "mp4", video, Audio(rate=44100, bit_rate=64_000), seconds=SECONDS)


RUNGS = {name: rung(*size) for name, size in SIZES.items()}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ladder(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A title of three qualities on sale in the demo; its slug."""
    async with open_catalog(Settings(data_dir=demo.data_dir)) as shelf:
        title = await add_ladder(shelf, "ladder", RUNGS, tmp_path_factory.mktemp("ladder"))
    return title.slug


async def prices_of(watch: WatchPage) -> dict[str, str]:
    """What a minute of each costs by the price list, as a page says it."""
    answer = await watch.page.request.get(f"{watch.demo.url}/hls/{watch.slug}/pricing.json")
    rates = (await answer.json())["renditions"]
    assert len({rate["price_per_minute"] for rate in rates}) == len(RUNGS)
    return {rate["name"]: f"{money(rate['price_per_minute'])} a minute" for rate in rates}


def row_of(watch: WatchPage, name: str) -> Locator:
    return watch.page.locator(".quality-row", has_text=name).first


async def playing(watch: WatchPage, name: str) -> None:
    """Wait until that quality is what one sees."""
    await expect(row_of(watch, name)).to_have_attribute("data-playing", "", timeout=60_000)


async def buying(watch: WatchPage, name: str, before: int) -> None:
    """Wait until a segment of that quality is bought after the first ``before``."""
    async with asyncio.timeout(60):
        while name not in renditions_of(watch)[before:]:
            await asyncio.sleep(TICK_S)  # what it had bought of it before plays first


def renditions_of(watch: WatchPage) -> list[str]:
    """The rendition of each segment that was bought, in this order."""
    return [one.path.split("/")[-2] for one in watch.bought()]


async def test_each_says_its_price_and_another_one_changes_what_is_paid(
    demo: Demo, browser: Browser, ladder: str
) -> None:
    async with watching(browser, demo, ladder) as watch:
        prices = await prices_of(watch)
        rate = watch.page.locator("#minute-cap-fits")
        for name, price in prices.items():
            await expect(row_of(watch, name)).to_contain_text(price)
        await watch.play("Test wallet")
        await watch.playing(0.5)
        for name in (HIGH, LOW):
            before = len(watch.bought())
            await watch.page.get_by_role("radio", name=name).check()
            await expect(rate).to_have_text(f"it plays at {prices[name]}")
            await buying(watch, name, before)
            await playing(watch, name)
            await expect(row_of(watch, name)).to_contain_text(prices[name])
            await expect(watch.page.locator("#quality option:checked")).to_contain_text(name)
            later = renditions_of(watch)[before:]
            if later[0] != name:
                later = later[1:]  # one may have been under way
            assert set(later) == {name}
        await watch.pause()
        await paid_in_full(watch)
        paths = [one.path for one in watch.bought()]
        assert len(paths) == len(set(paths))  # nothing was thrown away and bought again
        moments = [path.rpartition("/")[2] for path in paths]
        assert len(moments) - len(set(moments)) <= 2  # at most where it changed
        await watch.tab.check()


async def test_by_itself_it_takes_the_best_that_fits_the_cap_of_a_minute(
    demo: Demo, browser: Browser, ladder: str
) -> None:
    async with watching(browser, demo, ladder) as watch:
        limit = watch.page.get_by_role("slider", name="At most")
        await slide(limit, 2_000, MINUTE_CAPS)
        await watch.play("Test wallet")
        await watch.playing(8)
        assert set(renditions_of(watch)) == {LOW}
        before = len(watch.bought())
        await slide(limit, NO_CAP, MINUTE_CAPS)
        await playing(watch, HIGH)
        assert HIGH in renditions_of(watch)[before:]
        await expect(watch.page.locator("#quality option:checked")).to_have_text(f"Auto ({HIGH})")
        await watch.pause()
        await paid_in_full(watch)
        await watch.tab.check()
