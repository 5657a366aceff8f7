"""The real server with a priced title, and a viewer with money."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from eth_account import Account
from eth_account.signers.local import LocalAccount

from tests.support.chain import ETHER, SharedDevnet
from tests.support.media import Recipe, h264
from tests.support.server import Server, a_server
from xbyte_live.catalog.importer import Importer, SaleTerms
from xbyte_live.media.vod.packager import PackageOptions
from xbyte_live.money import Price
from xbyte_live.server.catalog_access import open_catalog

SECONDS = 9


def a_film(folder: Path) -> Path:
    """A short film."""
    return Recipe(".mp4", "mp4", h264(), seconds=SECONDS).make(folder / "film.mp4")


@asynccontextmanager
async def a_cinema(
    tmp_path: Path, devnet: SharedDevnet, film: Path, **settings: str
) -> AsyncIterator[tuple[Server, LocalAccount, LocalAccount]]:
    """A server with a priced title, its payee, and a viewer with money."""
    payee: LocalAccount = Account.create()
    gas = devnet.new_account(wei=10 * ETHER)
    viewer = devnet.new_account(usdc=50_000_000, wei=ETHER)
    gas_key = "0x" + bytes(gas.key).hex()
    if settings.pop("payee_key", ""):
        settings["payee_key"] = "0x" + bytes(payee.key).hex()
    log = tmp_path / "server.log"
    async with a_server(
        tmp_path, devnet.rpc_url, payee.address, gas_key, log_level="debug", **settings
    ) as server:
        async with open_catalog(server.settings) as shelf:
            importer = Importer(shelf.catalog, shelf.store)
            options = PackageOptions(segment_target_us=2_000_000)
            await importer.title(film, "film", SaleTerms(Price(50_000)), options)
        await server.stop()
        server.log = log
        await server.start()
        yield server, payee, viewer
