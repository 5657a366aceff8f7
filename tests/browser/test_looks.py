"""Every page in every size and light: nobody is kept out, nothing jumps, nothing is refused."""

import asyncio
import json
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.async_api import Browser, expect

from tests.browser.axe import serious
from tests.browser.chrome import DESKTOP, IN_A_BROWSER, PHONE, Tab, a_tab
from tests.browser.test_size import PICTURE
from tests.browser.watching import WatchPage
from tests.support.demo import Demo

pytestmark = IN_A_BROWSER

PAGES = {
    "home": "/",
    "video": "/watch/aurora",
    "music": "/watch/nightwalk",
    "stream": "/watch/live",
    "docs": "/docs",
    "login": "/studio",
    "nothing": "/watch/no-such-thing",
}
Look = Callable[[Tab, str], Awaitable[None]]
FORMS: dict[str, dict[str, Any]] = {
    "phone": {"viewport": PHONE, "has_touch": True},
    "desktop": {"viewport": DESKTOP},
}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures of the pages are kept for whoever wants to look at them."""
    chosen = os.environ.get("XBYTE_SHOTS")
    folder = Path(chosen) if chosen else tmp_path_factory.mktemp("shots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def in_every_form(browser: Browser) -> Callable[[Look], Awaitable[None]]:
    """Has a look at something in a tab of each form, at the same time."""

    async def look(form: str, work: Look) -> None:
        async with a_tab(browser, **FORMS[form]) as tab:
            await work(tab, form)

    async def all_of_them(work: Look) -> None:
        async with asyncio.TaskGroup() as looks:
            for form in FORMS:
                looks.create_task(look(form, work))

    return all_of_them


@pytest.mark.parametrize("name", PAGES)
async def test_a_page_is_for_everybody(
    demo: Demo, in_every_form: Callable[[Look], Awaitable[None]], shots: Path, name: str
) -> None:
    async def look(tab: Tab, form: str) -> None:
        await tab.page.goto(demo.url + PAGES[name], wait_until="load")
        await expect(tab.page.get_by_role("heading", level=1)).to_be_visible()
        await look_at(tab, shots, f"{name}-{form}")
        # That there is no such page is said in the console too.
        await tab.check(expected={"nothing": ("404",)}.get(name, ()))

    await in_every_form(look)


async def test_the_meter_and_its_question_are_for_everybody(
    demo: Demo, in_every_form: Callable[[Look], Awaitable[None]], shots: Path
) -> None:
    async def look(tab: Tab, form: str) -> None:
        watch = WatchPage(tab, demo, "aurora")
        await watch.open()
        await watch.press_play()
        await expect(watch.page.get_by_role("dialog")).to_be_visible()
        await look_at(tab, shots, f"question-{form}", whole=False)
        await watch.agree("Test wallet")
        await watch.playing(7)
        if form == "desktop":  # the README's picture is a copy of this one
            await watch.page.screenshot(path=shots / PICTURE.name, type="jpeg", quality=85)
        await watch.pause()
        await watch.page.get_by_text("Receipts").first.click()
        await look_at(tab, shots, f"playing-{form}")
        await tab.check()

    await in_every_form(look)


async def test_the_studio_is_for_everybody(
    demo: Demo, in_every_form: Callable[[Look], Awaitable[None]], shots: Path
) -> None:
    async def look(tab: Tab, form: str) -> None:
        link = json.loads(await demo.manage("studio", "--json"))["login_url"]
        await tab.page.goto(link)
        figure = tab.page.locator("#earned")
        await expect(figure).to_have_attribute("data-amount", re.compile(r"\$"))
        await look_at(tab, shots, f"studio-{form}")
        await tab.check()

    await in_every_form(look)


async def look_at(tab: Tab, shots: Path, name: str, *, whole: bool = True) -> None:
    """Keep pictures of a page as it stands, and let axe read it, in both lights."""
    for scheme in SCHEMES:
        await tab.page.emulate_media(color_scheme=scheme)
        await tab.page.screenshot(path=shots / f"{name}-{scheme}.png", full_page=whole)
        found = await serious(tab.page)
        assert found == []
    sticks_out = "() => document.documentElement.scrollWidth - innerWidth"
    assert await tab.page.evaluate(sticks_out) <= 0
