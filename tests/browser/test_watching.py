"""Watching: it plays without a pause, and costs exactly what was delivered."""

import asyncio
import time
from pathlib import Path

from playwright.async_api import Browser

from tests.browser.chrome import IN_A_BROWSER
from tests.browser.watching import WatchPage, ledger_of, paid_in_full, watching
from tests.support.demo import Demo
from tests.support.media import Audio, Recipe, h264

pytestmark = IN_A_BROWSER

LONG = 30  # seconds
CLIP = Recipe(".mp4", "mp4", h264(group=25), Audio(rate=44100), seconds=8)
SLACK = 1.0  # what looking at it four times a second may add
NEXT_TO_NOTHING = 1.0  # seconds of media at hand: no decoder has to wait with more


async def play_for_long(browser: Browser, demo: Demo, slug: str) -> None:
    """Play without a pause; then page, wire and books agree on each cent."""
    async with watching(browser, demo, slug) as watch:
        await watch.play("Test wallet")
        await watch.playing()
        assert await halts_of(watch) == []
        await watch.pause()
        await paid_in_full(watch)
        await watch.tab.check()


async def halts_of(watch: WatchPage) -> list[str]:
    """What kept it from playing for a while in one go.

    A machine that is too busy to decode what is at hand makes it wait too; that is no halt of
    ours, and the only thing that may make it late.
    """
    before, begin = len((await watch.tab.seen())["waits"]), time.monotonic()
    await watch.playing(LONG)
    late = time.monotonic() - begin - LONG
    waits: list[float] = (await watch.tab.seen())["waits"][before:]
    halts = [f"it waited with {ahead:.1f} s" for ahead in waits if ahead < NEXT_TO_NOTHING]
    return halts + ([f"it came {late:.1f} s late"] if late > SLACK and not waits else [])


async def test_live_and_a_video_play_without_a_pause_and_cost_what_they_are(
    demo: Demo, browser: Browser
) -> None:
    async with asyncio.TaskGroup() as both:
        both.create_task(play_for_long(browser, demo, "live"))
        both.create_task(play_for_long(browser, demo, "aurora"))


async def test_going_back_costs_nothing_while_it_is_in_the_player_and_again_after_a_reload(
    demo: Demo, browser: Browser
) -> None:
    async with watching(browser, demo, "aurora") as watch:
        await watch.play("Test wallet")
        await watch.playing(3)
        await watch.pause()
        paid, bought = await watch.settled(), watch.bought()
        await watch.seek(0)
        await watch.page.get_by_role("button", name="Play", exact=True).click()
        await watch.playing(1)
        assert await watch.position() < 3
        assert (await watch.settled(), watch.bought()) == (paid, bought)

        await watch.page.reload()
        await watch.play("Test wallet")
        await watch.playing(1)
        await watch.pause()
        await watch.settled()
        again = watch.bought()[len(bought) :]
        assert bought[0].path in {one.path for one in again}  # sold a second time
        assert {one.channel for one in bought + again} == {bought[0].channel}
        assert [one.deposits for one in bought + again] == [True] + [False] * (
            len(bought + again) - 1
        )
        rows = await ledger_of(demo, bought[0].payer)
        assert sum(row["amount"] for row in rows) == await watch.cost()
        await watch.tab.check()


async def test_what_was_bought_once_plays_again_free_where_the_item_says_so(
    demo: Demo, browser: Browser, tmp_path: Path
) -> None:
    clip = CLIP.make(tmp_path / "clip.mp4")
    slug = f"clip-{tmp_path.parent.name}"
    await demo.manage("package", str(clip), "--slug", slug, "--rewatch", "free")
    async with watching(browser, demo, slug) as watch:
        await watch.play("Test wallet")
        await watch.playing(1)
        await watch.pause()
        assert await watch.settled() > 0
        bought = watch.bought()
        await watch.page.reload()
        await watch.press_play()  # and nobody is asked for anything
        await watch.playing(1)
        assert await watch.settled() == 0
        assert watch.bought() == bought
        await watch.tab.check()
