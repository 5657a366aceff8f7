"""The watch page as a viewer uses it, and the money beside it."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from playwright.async_api import Browser, Locator, Page, Response, expect

from tests.browser.chrome import Tab, a_tab
from tests.support.demo import Demo
from xbyte_live.money import Price

TICK_S = 0.25
CAPS = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 250_000, 500_000, 1_000_000)

NO_CAP = 0
MINUTE_CAPS = (
    100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, NO_CAP,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bought:
    """A delivery the browser paid for: what the answer held, not what the page made of it."""

    path: str
    size: int
    payer: str
    channel: str
    deposits: bool


@dataclass
class WatchPage:
    """One item's page; money in atomic units, times in seconds."""

    tab: Tab
    demo: Demo
    slug: str

    @property
    def page(self) -> Page:
        return self.tab.page

    async def open(self) -> None:
        """Open it, and wait until it can be used."""
        await self.page.goto(f"{self.demo.url}/watch/{self.slug}")
        await expect(self.page.locator("#start")).to_be_enabled()

    async def play(self, wallet: str | None = None, *, cap: int | None = None) -> None:
        """Press play, and agree to pay: with ``wallet`` and at most ``cap``, or as is proposed."""
        await self.press_play()
        await self.agree(wallet, cap=cap)

    async def press_play(self) -> None:
        """Press play alone."""
        await press_play(self.page)

    async def agree(self, wallet: str | None = None, *, cap: int | None = None) -> None:
        """Answer the question before the first cent with yes."""
        dialog = self.page.get_by_role("dialog")
        await expect(dialog).to_be_visible()
        if wallet is not None:
            await dialog.get_by_role("radio", name=wallet).check()
        if cap is not None:
            await slide(dialog.get_by_role("slider"), cap)
        await dialog.get_by_role("button", name="Start paying").click()

    async def pause(self) -> None:
        """Reach for the controls, which are away while nobody does, and pause."""
        await self.page.locator("#stage").hover(position={"x": 40, "y": 90})
        await self.page.get_by_role("button", name="Pause").click()

    async def playing(self, seconds: float = 0) -> None:
        """Wait until so much has been played since now."""
        begin = await self.position()
        async with asyncio.timeout(20 + 2 * seconds):
            while await self.position() <= begin + seconds:
                await asyncio.sleep(TICK_S)

    async def position(self) -> float:
        return float(await self.page.evaluate("() => document.querySelector('video').currentTime"))

    async def seek(self, seconds: float) -> None:
        """Move the position."""
        await self.page.get_by_role("slider", name="Position").fill(str(seconds))

    async def play_out(self, seconds: float = 1.5) -> None:
        """Play on from so long before all that is at hand is played; with the key for it."""
        await self.page.evaluate(
            """(left) => {
              const media = document.querySelector('video');
              const { buffered } = media;
              media.currentTime = buffered.end(buffered.length - 1) - left;
            }""",
            seconds,
        )
        await self.page.locator("#stage").press("k")

    async def paid(self) -> int:
        """What the meter says."""
        return int(await self.page.locator("#paid").get_attribute("data-amount") or 0)

    async def settled(self) -> int:
        """What the meter says once nothing moves any more: what is on its way has arrived."""
        return await at_rest(self.paid)

    def bought(self) -> list[Bought]:
        """What the tab has paid for, by the headers of requests and answers."""
        return [_bought(answer) for answer in self.tab.answers if _is_sale(answer)]

    async def cost(self) -> int:
        """What that should have cost, by the price of the item and the size of each answer."""
        answer = await self.page.request.get(f"{self.demo.url}/hls/{self.slug}/pricing.json")
        price = Price.parse((await answer.json())["price_per_mb"])
        return sum(price.amount_for(one.size) for one in self.bought())


async def press_play(page: Page) -> None:
    """Press play where it has not begun by itself.

    It has where a look at the page came first: what the driver evaluates in it counts as a
    person's click, after which a page may play.
    """
    start = page.locator("#start")
    await expect(start).to_be_enabled()
    if await start.is_visible():
        await start.click()


async def paid_in_full(watch: WatchPage) -> int:
    """What was paid, by the meter, the answers on the wire and the server's books alike."""
    paid = await watch.settled()
    bought = watch.bought()
    assert paid == await watch.cost() > 0
    rows = await ledger_of(watch.demo, bought[0].payer)
    assert paid == sum(row["amount"] for row in rows)
    assert sorted(row["resource"] for row in rows) == sorted(f"/{one.path}" for one in bought)
    return paid


async def at_rest(figure: Callable[[], Awaitable[int]]) -> int:
    """A figure once it has not moved for a while."""
    before, since = -1, time.monotonic()
    async with asyncio.timeout(30):
        while (now := await figure()) != before or time.monotonic() - since < 2:
            if now != before:
                before, since = now, time.monotonic()
            await asyncio.sleep(TICK_S)
    return now


async def slide(slider: Locator, cap: int, caps: tuple[int, ...] = CAPS) -> None:
    """Move a slider of caps to one of its steps."""
    await slider.fill(str(caps.index(cap)))


@asynccontextmanager
async def watching(
    browser: Browser, demo: Demo, slug: str, *scripts: str, **options: Any
) -> AsyncIterator[WatchPage]:
    """A viewer with a fresh profile on an item's page."""
    async with a_tab(browser, *scripts, **options) as tab:
        page = WatchPage(tab, demo, slug)
        await page.open()
        yield page


async def ledger_of(demo: Demo, payer: str) -> list[dict[str, Any]]:
    """What the server's books say of one payer, a row a delivery."""
    return [row for row in await _books(demo) if row["payer"].lower() == payer.lower()]


async def earned(demo: Demo) -> int:
    """What all viewers have brought in, by the server's books."""
    return sum(row["income"] for row in await _books(demo))


async def _books(demo: Demo) -> list[dict[str, Any]]:
    today = datetime.now(UTC).date()
    days = ("--from", str(today - timedelta(days=1)), "--to", str(today + timedelta(days=1)))
    rows: list[dict[str, Any]] = json.loads(
        await demo.manage("ledger", "export", *days, "--format", "json")
    )
    return rows


def _is_sale(answer: Response) -> bool:
    return answer.status in (200, 206) and "payment-response" in answer.headers


def _bought(answer: Response) -> Bought:
    header = answer.request.headers["payment-signature"]
    payload = json.loads(base64.b64decode(header))["payload"]
    return Bought(
        path=answer.url.partition("://")[2].partition("/")[2],
        size=int(answer.headers["content-length"]),
        payer=payload["channelConfig"]["payer"],
        channel=payload["voucher"]["channelId"],
        deposits=payload["type"] == "deposit",
    )
