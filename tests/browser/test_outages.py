"""What the server cannot do for now is said in plain words, costs nothing, and passes."""

from pathlib import Path

from eth_account import Account
from playwright.async_api import Browser, expect

from tests.browser.chrome import IN_A_BROWSER, a_tab
from tests.browser.wallet import NAME, ScriptedWallet
from tests.browser.watching import press_play
from tests.support.chain import ETHER, SharedDevnet
from tests.support.media import Audio, Recipe, h264
from tests.support.rpc_proxy import rpc_proxy
from tests.support.server import a_server
from xbyte_live.catalog.importer import Importer, SaleTerms
from xbyte_live.media.vod.packager import PackageOptions
from xbyte_live.money import Price
from xbyte_live.server.catalog_access import open_catalog

pytestmark = IN_A_BROWSER

FILM = Recipe(".mp4", "mp4", h264(), Audio(rate=44100), seconds=20)
FUNDS = 5_000_000


async def test_a_server_without_its_payment_service_says_so_and_goes_on_when_it_is_back(
    devnet: SharedDevnet, browser: Browser, tmp_path: Path
) -> None:
    wallet = ScriptedWallet(devnet.rpc_url, devnet.asset.chain_id)
    devnet.fund(wallet.account.address, usdc=FUNDS)
    gas = devnet.new_account(wei=100 * ETHER)
    payee, key = Account.create().address, "0x" + bytes(gas.key).hex()
    with rpc_proxy(devnet.rpc_url) as node:
        async with a_server(tmp_path, node.url, payee, key) as server, a_tab(browser) as tab:
            async with open_catalog(server.settings) as shelf:
                film = FILM.make(tmp_path / "film.mp4")
                terms = SaleTerms(Price(1_000))
                await Importer(shelf.catalog, shelf.store).title(
                    film, "film", terms, PackageOptions()
                )
            await wallet.join(tab.page)
            await tab.page.goto(f"{server.url}/watch/film")
            await press_play(tab.page)
            dialog, notice = tab.page.get_by_role("dialog"), tab.page.locator("#notice")
            await dialog.get_by_role("radio", name=NAME).check()
            node.fails = {"*"}
            await dialog.get_by_role("button", name="Start paying").click()
            await expect(notice).to_contain_text("cannot reach its payment service", timeout=60_000)
            await expect(notice).to_contain_text("No money has moved.")
            assert await tab.page.locator("#paid").get_attribute("data-amount") == "0"
            assert devnet.usdc_balance(wallet.account.address) == FUNDS

            node.fails = set()
            again = notice.get_by_role("button", name="Try again")
            await again.or_(tab.page.locator("#notice[hidden]")).first.wait_for(state="attached")
            if await again.is_visible():
                await again.click()
            await tab.page.wait_for_function(
                "() => +document.querySelector('#paid').dataset.amount > 0", timeout=60_000
            )
            await expect(notice).to_be_hidden()
            assert wallet.asked.count("eth_signTypedData_v4") == 1  # nobody was asked twice
            assert (await tab.seen())["violations"] == []
