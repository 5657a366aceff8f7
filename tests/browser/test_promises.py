"""What was agreed to holds: no price above it, and what is left goes back when one asks."""

from playwright.async_api import Browser, Route, expect

from tests.browser.chrome import IN_A_BROWSER
from tests.browser.watching import WatchPage, ledger_of, watching
from tests.support.demo import Demo
from xbyte_live.money import Price

pytestmark = IN_A_BROWSER


async def price_of(watch: WatchPage) -> Price:
    answer = await watch.page.request.get(f"{watch.demo.url}/hls/{watch.slug}/pricing.json")
    return Price.parse((await answer.json())["price_per_mb"])


async def test_a_price_raised_while_watching_is_not_paid_before_it_is_agreed_to(
    demo: Demo, browser: Browser
) -> None:
    async with watching(browser, demo, "live") as watch:
        old = await price_of(watch)
        new = Price(old.per_mib * 3)
        await watch.play("Test wallet")
        await watch.playing(1)
        try:
            await demo.manage("price", "live", str(new))
            notice = watch.page.locator("#notice")
            await expect(notice).to_contain_text("It costs more than you agreed to", timeout=60_000)
            at_old = watch.bought()
            assert await watch.settled() == sum(old.amount_for(one.size) for one in at_old)
            await expect(watch.page.locator("#spinner")).to_be_visible(timeout=60_000)  # run dry
            assert watch.bought() == at_old
            await expect(notice).to_contain_text("It costs more than you agreed to")

            await notice.get_by_role("button", name="See the new price").click()
            dialog = watch.page.get_by_role("dialog")
            await expect(dialog).to_contain_text(f"It was ${old} a MB when you agreed.")
            await expect(dialog).to_contain_text(f"${new} a MB")
            await watch.agree()
            await watch.playing(1)
            await expect(notice).to_be_hidden()
            await watch.pause()
            paid = await watch.settled()
            at_new = watch.bought()[len(at_old) :]
            assert new.amount_for(at_new[-1].size) in [
                row["amount"] for row in await ledger_of(demo, at_new[-1].payer)
            ]
            assert paid == sum(row["amount"] for row in await ledger_of(demo, at_new[-1].payer))
            await watch.tab.check()
        finally:
            await demo.manage("price", "live", str(old))


async def test_a_price_raised_before_a_title_is_agreed_to_is_asked_for_again(
    demo: Demo, browser: Browser
) -> None:
    async with watching(browser, demo, "orbit") as watch:
        old = await price_of(watch)
        new = Price(old.per_mib * 2)
        try:
            await demo.manage("price", "orbit", str(new))
            await watch.play("Test wallet")  # at the price of when the page was opened
            notice = watch.page.locator("#notice")
            await expect(notice).to_contain_text("It costs more than you agreed to")
            assert (await watch.settled(), watch.bought()) == (0, [])
            await notice.get_by_role("button", name="See the new price").click()
            await watch.agree()
            await watch.playing(1)
            await watch.pause()
            assert await watch.settled() == await watch.cost() > 0
            await watch.tab.check()
        finally:
            await demo.manage("price", "orbit", str(old))


async def test_what_is_listed_at_a_higher_price_than_that_of_now_can_be_agreed_to(
    demo: Demo, browser: Browser
) -> None:
    async with watching(browser, demo, "live") as watch:
        old = await price_of(watch)
        new = Price(old.per_mib // 4)

        async def lowered(route: Route) -> None:
            """As right after a price was lowered on air: what is listed stays what it was."""
            answer = await route.fetch()
            pricing = await answer.json() | {"price_per_mb": str(new)}
            await route.fulfill(response=answer, json=pricing)

        await watch.page.route("**/pricing.json", lowered)
        await watch.open()
        await watch.play("Test wallet")
        notice, dialog = watch.page.locator("#notice"), watch.page.get_by_role("dialog")
        await expect(notice).to_contain_text("It costs more than you agreed to")
        assert await watch.settled() == 0
        await notice.get_by_role("button", name="See the new price").click()
        await expect(dialog).to_contain_text(f"It was ${new} a MB when you agreed.")
        await expect(dialog).to_contain_text(f"Later parts cost ${new}.")
        await watch.agree("Test wallet")
        await watch.playing(1)
        await expect(notice).to_be_hidden()
        await watch.pause()
        paid, bought = await watch.settled(), watch.bought()
        assert paid == sum(old.amount_for(one.size) for one in bought) > 0
        await watch.tab.check()


async def test_what_is_left_goes_back_after_a_reload_and_nobody_is_asked_to_pay_for_it(
    demo: Demo, browser: Browser
) -> None:
    async with watching(browser, demo, "aurora") as watch:
        close, line = watch.page.locator("#close"), watch.page.locator("#channel-line")
        await expect(close).to_be_disabled()  # there is nothing yet
        await watch.play("Test wallet")
        await watch.playing(1)
        await watch.pause()
        await watch.settled()
        await watch.page.reload()
        await expect(line).to_contain_text("left from before")
        await close.click()
        await expect(line).to_contain_text("went back to your wallet", timeout=60_000)
        await expect(close).to_be_disabled()
        await expect(watch.page.get_by_role("dialog")).to_be_hidden()
        assert [one.deposits for one in watch.bought()].count(True) == 1
        await watch.tab.check(expected=("402",))


async def test_once_stopped_it_says_what_follows_costs_and_orders_nothing(
    demo: Demo, browser: Browser
) -> None:
    async with watching(browser, demo, "aurora") as watch:
        halt = watch.page.locator("#halt")
        await watch.play("Test wallet")
        await watch.playing(1)
        await watch.page.locator("#close").click()
        await expect(halt).to_contain_text("Stopped. What you did not use is back", timeout=60_000)
        bought = watch.bought()
        await watch.play_out()
        await expect(halt).to_be_hidden()
        await expect(halt).to_contain_text("What follows costs money.")
        await expect(halt).to_be_visible()
        await expect(watch.page.locator("#spinner")).to_be_hidden()
        await watch.settled()
        assert watch.bought() == bought
        await watch.page.get_by_role("button", name="See the price").click()
        await watch.agree("Test wallet")
        await watch.playing(1)
        await watch.tab.check(expected=("402",))


async def test_a_refund_that_fails_is_asked_for_again_and_orders_no_deposit(
    demo: Demo, browser: Browser
) -> None:
    async with watching(browser, demo, "aurora") as watch:
        await watch.play("Test wallet")
        await watch.playing(1)
        await watch.pause()
        await watch.settled()

        async def cut(route: Route) -> None:
            await route.abort()

        await watch.page.route("**/*.ts", cut)
        await watch.page.route("**/channels/**", cut)
        await watch.page.locator("#close").click()
        notice = watch.page.locator("#notice")
        again = notice.get_by_role("button", name="Try again")
        await expect(again).to_be_visible(timeout=60_000)
        await watch.page.unroute("**/*.ts", cut)
        await watch.page.unroute("**/channels/**", cut)
        await again.click()
        line = watch.page.locator("#channel-line")
        await expect(line).to_contain_text("went back to your wallet", timeout=60_000)
        await expect(notice).to_be_hidden()
        assert [one.deposits for one in watch.bought()].count(True) == 1
        await watch.tab.check(expected=("402", "ERR_FAILED"))
