"""The frontend's library: its own checks, and its payments to a real server on a real chain."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from eth_account import Account
from sqlalchemy import create_engine, func, select

from tests.support.chain import ETHER, SharedDevnet
from tests.support.frontend import frontend_workspace, run_script
from tests.support.media import Recipe, h264
from tests.support.server import Server, a_server
from xbyte_live.catalog.importer import Importer, SaleTerms
from xbyte_live.media.vod.packager import PackageOptions
from xbyte_live.money import Price
from xbyte_live.server.catalog_access import open_catalog
from xbyte_live.storage.db.tables import deliveries

FUNDS = 20_000_000
PRICE = 1_000_000  # a dollar per MB


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return frontend_workspace(tmp_path_factory.mktemp("workspace"))


@pytest.fixture
async def server(devnet: SharedDevnet, tmp_path: Path) -> AsyncIterator[Server]:
    gas = devnet.new_account(wei=100 * ETHER)
    async with a_server(
        tmp_path,
        devnet.rpc_url,
        Account.create().address,
        "0x" + bytes(gas.key).hex(),
    ) as server:
        server.log = tmp_path / "log"
        await server.sell("large", os.urandom(1_000_000), PRICE)
        await server.sell("again", os.urandom(50_000), PRICE, rewatch="free")
        film = Recipe(".mp4", "mp4", h264(), seconds=8).make(tmp_path / "film.mp4")
        async with open_catalog(server.settings) as shelf:
            terms = SaleTerms(Price(PRICE), preview_us=1_000_000)
            options = PackageOptions(segment_target_us=2_000_000)
            await Importer(shelf.catalog, shelf.store).title(film, "film", terms, options)
        yield server


async def restarting(server: Server, flag: Path) -> None:
    """Kill the server and start it again whenever the flag is there."""
    while True:
        if flag.exists():
            await server.kill()
            await server.start()
            flag.unlink(missing_ok=True)
        await asyncio.sleep(0.02)  # there is no event in another process


def charged(server: Server) -> int:
    engine = create_engine(f"sqlite:///{server.data_dir / 'xbyte.db'}")
    with engine.connect() as db:
        total = db.execute(select(func.coalesce(func.sum(deliveries.c.amount), 0))).scalar_one()
    engine.dispose()
    return int(total)


@pytest.mark.timeout(600)
async def test_it_lints_and_type_checks(workspace: Path) -> None:
    await run_script(workspace, "run", "lint")


@pytest.mark.timeout(600)
async def test_it_spends_what_the_ledger_says_it_charged(
    workspace: Path, server: Server, devnet: SharedDevnet, tmp_path: Path
) -> None:
    account = devnet.new_account(usdc=FUNDS)
    world = {
        "url": server.url,
        "rpc": devnet.rpc_url,
        "network": devnet.network,
        "key": "0x" + bytes(account.key).hex(),
        "funds": FUNDS,
        "large": str(tmp_path / "large.bin"),
        "folder": str(tmp_path),
    }
    serving = asyncio.create_task(restarting(server, tmp_path / "restart"))
    try:
        await run_script(workspace, "test", env={"XBYTE_TEST_WORLD": json.dumps(world)})
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
    result = json.loads((tmp_path / "result.json").read_text())
    assert int(result["spent"]) == int(result["told"]) == charged(server) > 0
    assert int(result["refunded"]) > 0
    assert devnet.usdc_balance(account.address) == FUNDS - charged(server)
