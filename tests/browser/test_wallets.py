"""Wallets of extensions: asked once, and every no of theirs is a sentence with a way out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, Route, expect

from tests.browser.chrome import IN_A_BROWSER, PHONE, a_tab
from tests.browser.wallet import NAME, ScriptedWallet
from tests.browser.watching import TICK_S, WatchPage, ledger_of, press_play, slide
from tests.support.demo import Demo
from xbyte_live.devnet.chain import DevChain

pytestmark = IN_A_BROWSER

SIGN, ACCOUNTS = "eth_signTypedData_v4", "eth_requestAccounts"
SWITCH, ADD = "wallet_switchEthereumChain", "wallet_addEthereumChain"
MAINNET = 1


@asynccontextmanager
async def a_wallet(
    demo: Demo, browser: Browser, *, holds: int = 1_000_000, chain_id: int | None = None
) -> AsyncIterator[tuple[ScriptedWallet, WatchPage]]:
    """Somebody whose wallet holds so much, on an item's page."""
    home: int = demo.described["chain_id"]
    wallet = ScriptedWallet(demo.described["rpc_url"], chain_id or home)
    async with DevChain(wallet.rpc_url) as chain, a_tab(browser) as tab:
        if holds:
            await chain.fund(wallet.account.address, usdc=holds)
        await wallet.join(tab.page)
        watch = WatchPage(tab, demo, "aurora")
        await watch.open()
        yield wallet, watch


async def test_it_signs_once_and_again_only_to_top_up(demo: Demo, browser: Browser) -> None:
    async with a_wallet(demo, browser) as (wallet, watch):
        await watch.play(NAME)
        await watch.playing(1)
        await wallet.switch(watch.page, MAINNET)  # vouchers are signed without it
        await watch.playing(7)
        assert wallet.asked.count(SIGN) == 1
        assert len(watch.bought()) > 2
        await watch.page.get_by_role("button", name="Top up").click()
        async with asyncio.timeout(30):
            while wallet.asked.count(SIGN) == 1:  # the next segment brings it along
                await asyncio.sleep(TICK_S)
        await watch.pause()
        paid = await watch.settled()
        assert paid == await watch.cost() > 0
        assert [one.deposits for one in watch.bought()].count(True) == 2
        rows = await ledger_of(demo, wallet.account.address)
        assert paid == sum(row["amount"] for row in rows)
        await watch.tab.check()


async def test_a_refusal_costs_nothing_and_can_be_thought_over(
    demo: Demo, browser: Browser
) -> None:
    async with a_wallet(demo, browser) as (wallet, watch):
        dialog, notice = watch.page.get_by_role("dialog"), watch.page.locator("#notice")
        wallet.rejects = {ACCOUNTS}
        await watch.play(NAME)
        await expect(dialog.get_by_role("alert")).to_contain_text("not allowed to sign")
        wallet.rejects = {SIGN}
        await watch.agree(NAME)
        await expect(notice).to_contain_text("Nothing was deposited")
        assert await watch.paid() == 0
        wallet.rejects = set()
        await notice.get_by_role("button", name="Try again").click()
        await watch.playing(1)
        assert await watch.paid() > 0
        await expect(notice).to_be_hidden()
        await watch.tab.check()


async def test_a_no_after_a_yes_is_a_no_until_there_is_another_yes(
    demo: Demo, browser: Browser
) -> None:
    async with a_wallet(demo, browser) as (wallet, watch):
        page, notice = watch.page, watch.page.locator("#notice")
        dialog, halt = page.get_by_role("dialog"), page.locator("#halt")
        await watch.play(NAME)
        await watch.playing(1)
        wallet.rejects = {SIGN}
        await page.get_by_role("button", name="Top up").click()
        await expect(notice).to_contain_text("not allowed to sign", timeout=20_000)
        paid = await watch.paid()
        async with asyncio.timeout(30):
            while await watch.paid() == paid:  # what is in the channel is played meanwhile
                await asyncio.sleep(TICK_S)
        await expect(notice).to_contain_text("not allowed to sign")

        await notice.get_by_role("button", name="Another wallet").click()
        await expect(dialog).to_be_visible()
        paid = await watch.settled()
        await dialog.get_by_role("button", name="Not now").click()
        await expect(halt).to_contain_text("Nothing more is charged.")
        await slide(page.get_by_role("slider", name="Stop at"), 1_000_000)
        await page.get_by_role("button", name="Top up").click()  # asks, and orders nothing
        await dialog.get_by_role("button", name="Not now").click()
        await watch.play_out()
        await expect(halt).to_be_hidden()
        await expect(halt).to_contain_text("Nothing more is charged.")
        await expect(halt).to_be_visible()
        await expect(page.locator("#spinner")).to_be_hidden()
        assert await watch.settled() == paid

        wallet.rejects = set()
        await page.get_by_role("button", name="See the price").click()
        await watch.agree(NAME)
        await watch.playing(1)
        assert paid < await watch.paid()
        await expect(notice).to_be_hidden()
        await watch.tab.check()


async def test_what_is_left_of_every_wallet_goes_back(demo: Demo, browser: Browser) -> None:
    async with a_wallet(demo, browser) as (_, watch):
        for name in ("Test wallet", NAME):
            await watch.play(name)
            await watch.playing(1)
            await watch.pause()
            await watch.settled()
            await watch.page.reload()
        line, close = watch.page.locator("#channel-line"), watch.page.locator("#close")
        await expect(line).to_contain_text("left from before")
        left = (await line.inner_text()).split("$")[1].split()[0]
        await watch.play(NAME)
        await watch.playing(1)
        await watch.pause()
        await watch.settled()
        paid = await watch.paid()
        await close.click()
        await expect(line).to_contain_text("went back to your wallet", timeout=60_000)
        back = (await line.inner_text()).split("$")[1].split()[0]
        assert int(float(back) * 1e6 + 0.5) == int(float(left) * 1e6 + 0.5) - paid
        await expect(close).to_be_disabled()
        await watch.tab.check(expected=("402",))


async def test_on_a_phone_without_a_wallet_it_is_sent_to_the_browser_of_one(
    demo: Demo, browser: Browser
) -> None:
    phone = "Mozilla/5.0 (Linux; Android 16; Pixel 10) Chrome/149.0.0.0 Mobile Safari/537.36"
    async with a_tab(browser, viewport=PHONE, user_agent=phone, is_mobile=True) as tab:

        async def public(route: Route) -> None:
            answer = await route.fetch()
            site = await answer.json()
            for network in site["networks"]:
                network["faucet_url"] = None
            await route.fulfill(response=answer, json=site)

        await tab.page.route("**/api/v1/site", public)
        await WatchPage(tab, demo, "aurora").open()
        await press_play(tab.page)
        problem = tab.page.get_by_role("dialog").get_by_role("alert")
        await expect(problem).to_contain_text("Open this page in your wallet’s own browser")
        await expect(problem).not_to_contain_text("MetaMask")
        await tab.check()


async def test_another_network_is_switched_or_said(demo: Demo, browser: Browser) -> None:
    async with a_wallet(demo, browser, chain_id=MAINNET) as (wallet, watch):
        wallet.rejects = {SWITCH, ADD}
        await watch.play(NAME)
        problem = watch.page.get_by_role("dialog").get_by_role("alert")
        await expect(problem).to_be_visible()
        assert SIGN not in wallet.asked
        wallet.rejects = set()
        await watch.agree(NAME)
        await watch.playing(1)
        assert wallet.chain_id == demo.described["chain_id"]
        await watch.tab.check()


async def test_a_network_the_wallet_does_not_know_is_added_to_it(
    demo: Demo, browser: Browser
) -> None:
    async with a_wallet(demo, browser, chain_id=MAINNET) as (wallet, watch):
        home: int = demo.described["chain_id"]
        wallet.unknown = {home}
        await watch.play(NAME)
        await watch.playing(1)
        assert wallet.chain_id == home
        assert [chain["chainId"] for chain in wallet.added] == [hex(home)]
        assert wallet.added[0]["rpcUrls"] == [demo.described["rpc_url"]]
        assert wallet.asked.count(SIGN) == 1
        await watch.tab.check()


async def test_a_network_it_cannot_be_told_of_is_named_for_its_owner_to_add(
    demo: Demo, browser: Browser
) -> None:
    async with a_wallet(demo, browser, chain_id=MAINNET) as (wallet, watch):
        home: int = demo.described["chain_id"]
        wallet.unknown = {home}

        async def public(route: Route) -> None:
            """Of a public network a server tells no node."""
            answer = await route.fetch()
            site = await answer.json()
            for network in site["networks"]:
                network |= {"name": "Base", "rpc_url": None, "faucet_url": None}
            await route.fulfill(response=answer, json=site)

        await watch.page.route("**/api/v1/site", public)
        await watch.open()
        await watch.play(NAME)
        problem = watch.page.get_by_role("dialog").get_by_role("alert")
        await expect(problem).to_contain_text("does not know the network")
        await expect(problem).to_contain_text(f"Add Base (chain id {home}) to it by hand")
        assert ADD not in wallet.asked and SIGN not in wallet.asked
        wallet.unknown = set()  # they did
        await watch.agree(NAME)
        await watch.playing(1)
        await watch.tab.check()


async def test_a_deposit_that_is_refused_is_handed_over_again_and_not_signed_again(
    demo: Demo, browser: Browser
) -> None:
    async with a_wallet(demo, browser) as (wallet, watch):

        async def refuse(route: Route) -> None:
            headers = {
                name: value
                for name, value in route.request.headers.items()
                if name != "payment-signature"
            }
            await route.fulfill(response=await route.fetch(headers=headers))

        await watch.page.route("**/*.ts", refuse)
        notice = watch.page.locator("#notice")
        await watch.play(NAME)
        await expect(notice).to_contain_text("The server refused the payment.")
        await notice.get_by_role("button", name="Try again").click()
        await expect(notice).to_contain_text("The server refused the payment.")
        await watch.open()
        await watch.play(NAME)
        await expect(notice).to_contain_text("The server refused the payment.")
        assert wallet.asked.count(SIGN) == 1

        await watch.page.unroute("**/*.ts", refuse)
        await watch.open()
        await watch.play(NAME)
        await watch.playing(1)
        assert wallet.asked.count(SIGN) == 1
        assert await watch.paid() > 0
        await watch.tab.check(expected=("402",))


async def test_an_empty_wallet_is_told_where_money_comes_from(demo: Demo, browser: Browser) -> None:
    async with a_wallet(demo, browser, holds=0) as (_, watch):
        await watch.play(NAME)
        notice = watch.page.locator("#notice")
        await expect(notice).to_contain_text("does not hold enough")
        await notice.get_by_role("button", name="Get test money").click()
        await watch.playing(1)
        await watch.tab.check()
