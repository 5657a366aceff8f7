"""The server goes away and comes back while somebody watches."""

from playwright.async_api import Browser

from tests.browser.chrome import IN_A_BROWSER
from tests.browser.watching import ledger_of, watching
from tests.support.demo import Demo

pytestmark = IN_A_BROWSER


async def test_it_plays_on_and_pays_on_when_the_server_is_back(
    demo: Demo, browser: Browser
) -> None:
    async with watching(browser, demo, "aurora") as watch:
        await watch.play("Test wallet")
        await watch.playing(1)
        before = len(watch.bought())
        await demo.end()
        await demo.start()
        await watch.playing(25)  # more than the player had
        await watch.pause()
        paid, bought = await watch.settled(), watch.bought()
        assert len(bought) > before
        assert [one.deposits for one in bought] == [True] + [False] * (len(bought) - 1)
        assert paid == await watch.cost()
        rows = await ledger_of(demo, bought[0].payer)
        assert paid == sum(row["amount"] for row in rows)
        assert (await watch.tab.seen())["violations"] == []
