"""Wallets of extensions: asked once, and every no of theirs is a sentence with a way out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, Route, expect

from tests.browser.chrome import IN_A_BROWSER, a_tab
from tests.browser.wallet import NAME, ScriptedWallet
from tests.browser.watching import TICK_S, WatchPage, ledger_of
from tests.support.demo import Demo
from xbyte_live.devnet.chain import Chain

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
    async with Chain(wallet.rpc_url) as chain, a_tab(browser) as tab:
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
        await expect(notice).to_contain_text("Nothing was charged")
        assert await watch.paid() == 0
        wallet.rejects = set()
        await notice.get_by_role("button", name="Try again").click()
        await watch.playing(1)
        assert await watch.paid() > 0
        await expect(notice).to_be_hidden()
        await watch.tab.check()


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
