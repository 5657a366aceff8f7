"""`xbyte-live bench`: it reports what the server charged, and spends no more than it was told."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from eth_account import Account
from eth_account.signers.local import LocalAccount
from sqlalchemy import text

from tests.support.chain import ETHER, SharedDevnet
from tests.support.media import Recipe, h264
from tests.support.server import Server, a_server
from xbyte_live.catalog.importer import Importer, SaleTerms
from xbyte_live.client.load_figures import LoadTally, figures_of, percentile
from xbyte_live.client.load_test import SparingChannelStore, salt_of
from xbyte_live.client.payer.channel import PayerChannel
from xbyte_live.evm.channels import ChannelConfig
from xbyte_live.media.vod.packager import PackageOptions
from xbyte_live.money import Price
from xbyte_live.server.catalog_access import open_catalog

in_module_loop = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parents[2]
FUNDS = 50_000_000


def test_percentiles() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, p) for p in (50, 90, 99, 100)] == [50, 90, 99, 100]
    assert percentile([3.0], 50) == 3
    assert percentile([], 99) == 0


def test_figures() -> None:
    tally = LoadTally([0.001, 0.002, 0.004], bytes=3000, amount=9, paid=2)
    tally.refusals["no"] += 1
    figures = figures_of(
        tally, viewers=2, seconds=2.0, cpu=1.0, cost=12, deposited=100, refunded=88,
        not_refunded=tally.refusals,
    )  # fmt: skip
    assert figures.segments_per_second == 1.5
    assert figures.bytes_per_second == 1500
    assert figures.latency_ms == {"p50": 2.0, "p90": 4.0, "p99": 4.0}
    assert (figures.client_cpu, figures.refusals) == (0.5, {"no": 1})


def test_every_viewer_has_a_channel_of_its_own_and_the_same_at_each_run() -> None:
    assert len({salt_of(number) for number in range(100)}) == 100
    assert salt_of(7) == salt_of(7)
    assert len(bytes.fromhex(salt_of(7)[2:])) == 32


class Disk:
    """Counts what is written."""

    def __init__(self) -> None:
        self.written: list[PayerChannel] = []

    def load(self) -> dict[str, PayerChannel]:
        return {}

    async def take(self, channel_id: str) -> PayerChannel | None:
        return self.written[-1] if self.written else None

    async def keep(self, channel: PayerChannel, *, sync: bool) -> None:
        assert sync
        self.written.append(channel)

    def give(self, channel_id: str) -> None:
        pass


async def test_only_what_moves_money_is_written_at_once() -> None:
    config = ChannelConfig(*("0x" + "1" * 40,) * 5, 900, "0x" + "0" * 64)
    disk = Disk()
    store = SparingChannelStore(disk)
    for charged, balance in ((0, 0), (1, 10), (2, 10), (3, 10), (4, 20)):
        assert await store.take("0x1") == (await store.take("0x1"))
        channel = PayerChannel("0x1", "eip155:1", config, charged=charged, balance=balance)
        await store.keep(channel, sync=True)
    assert [channel.charged for channel in disk.written] == [0, 1, 4]
    await store.rest()
    assert disk.written[-1].charged == 4
    assert (await SparingChannelStore(disk).take("0x1")) == disk.written[-1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(
    devnet: SharedDevnet, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    folder = tmp_path_factory.mktemp("bench")
    gas = devnet.new_account(wei=10 * ETHER)
    film = Recipe(".mp4", "mp4", h264(), seconds=9).make(folder / "film.mp4")
    async with a_server(
        folder,
        devnet.rpc_url,
        Account.create().address,
        "0x" + bytes(gas.key).hex(),
        deposit_floor="0.01",
        deposit_minutes="1",
    ) as running:
        async with open_catalog(running.settings) as shelf:
            options = PackageOptions(segment_target_us=2_000_000)
            importer = Importer(shelf.catalog, shelf.store)
            await importer.title(film, "film", SaleTerms(Price(50_000)), options)
        yield running


async def bench(
    server: Server,
    account: LocalAccount,
    home: Path,
    *args: str,
    path: str = "/hls/film/index.m3u8",
) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "xbyte_live", "bench", server.url + path, *args),
        env=server.environment
        | {
            "XBYTE_WALLET_KEY": "0x" + bytes(account.key).hex(),
            "XBYTE_WALLET": str(home / "wallet.json"),
        },
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complained = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode(), complained.decode()


async def charged(server: Server, account: LocalAccount) -> list[int]:
    """What each channel of an account was charged, by the server's own books."""
    payer = {"payer": account.address.lower()}
    query = text("SELECT charged FROM channels WHERE payer = :payer")
    async with open_catalog(server.settings) as shelf:
        return await shelf.database.read(lambda db: list(db.execute(query, payer).scalars()))


@in_module_loop
async def test_it_measures_and_pays_and_gives_back(
    server: Server, devnet: SharedDevnet, tmp_path: Path
) -> None:
    account = devnet.new_account(usdc=FUNDS)
    how = ("--viewers", "3", "--seconds", "2", "--budget", "5", "--json")
    code, said, complained = await bench(server, account, tmp_path, *how)
    assert code == 0, complained
    figures = json.loads(said)
    assert figures["viewers"] == 3
    assert figures["segments"] == figures["paid_segments"] > 10
    assert figures["refusals"] == figures["not_refunded"] == {}
    assert 0 < figures["latency_ms"]["p50"] <= figures["latency_ms"]["p99"]
    books = await charged(server, account)
    assert len(books) == 3
    assert sum(books) == figures["cost"]
    assert figures["deposited"] - figures["refunded"] == figures["cost"]
    assert devnet.usdc_balance(account.address) == FUNDS - figures["cost"]


@in_module_loop
async def test_it_spends_no_more_than_its_budget(
    server: Server, devnet: SharedDevnet, tmp_path: Path
) -> None:
    account = devnet.new_account(usdc=FUNDS)
    how = ("--viewers", "2", "--seconds", "20", "--json")
    code, said, complained = await bench(server, account, tmp_path, *how, "--budget", "0.4")
    assert code == 0, complained
    figures = json.loads(said)
    assert figures["cost"] <= figures["deposited"] <= 400_000
    assert figures["refusals"]["budget"] == 2
    assert figures["seconds"] < 15
    code, _, complained = await bench(server, account, tmp_path, *how, "--budget", "0.001")
    assert code == 1
    assert "for 2 viewers, and the budget is $0.001" in complained


@in_module_loop
async def test_what_is_left_is_used_by_the_next_run(
    server: Server, devnet: SharedDevnet, tmp_path: Path
) -> None:
    account = devnet.new_account(usdc=FUNDS)
    how = ("--viewers", "1", "--seconds", "0.3", "--budget", "5", "--rate", "realtime")
    code, said, complained = await bench(server, account, tmp_path, *how, "--no-refund")
    assert code == 0, complained
    assert "segments a second" in said
    before = devnet.usdc_balance(account.address)
    assert before < FUNDS
    code, said, complained = await bench(server, account, tmp_path, *how, "--json")
    assert code == 0, complained
    figures = json.loads(said)
    assert figures["deposited"] == 0
    assert figures["segments"] == 1
    assert devnet.usdc_balance(account.address) == before + figures["refunded"]
