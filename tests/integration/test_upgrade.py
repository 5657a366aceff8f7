"""A database and data folder made by the version before are opened by this one, to the unit."""

import json
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from tests.fakes import USDC
from tests.support.broadcasts import data_of
from tests.support.channel_model import Event, ModelChain
from xbyte_live.catalog.catalog import Catalog
from xbyte_live.cli.main import main
from xbyte_live.evm.channels import ChannelPayment, deposit_nonce, read_channel_payment
from xbyte_live.models import Object, Title, segment_key
from xbyte_live.payments.audit.audit import Auditor
from xbyte_live.payments.facilitators.local import LocalFacilitator
from xbyte_live.payments.ledger.actions import Action, ActionLedger
from xbyte_live.payments.ledger.channels import ChannelLedger
from xbyte_live.payments.ledger.charges import ChargeLedger
from xbyte_live.payments.reports.earnings import Earnings, Period
from xbyte_live.payments.settlement.channel_actions import ActionPolicy, Actions
from xbyte_live.payments.settlement.channel_sync import ChannelSync
from xbyte_live.payments.settlement.proofs import Proofs
from xbyte_live.storage.blobs.disk import DiskStore
from xbyte_live.storage.db.engine import Database

BEFORE = Path(__file__).parents[1] / "data" / "before"
SENT = "0x" + "ab" * 32  # what the version before sent for its open deposit


@pytest.fixture(scope="session")
def told() -> dict[str, Any]:
    """What the version before read from its own database."""
    return dict(json.loads((BEFORE / "told.json").read_text()))


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A copy of its data folder."""
    with tarfile.open(BEFORE / "data.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.fixture
async def database(data_dir: Path) -> AsyncIterator[Database]:
    """Its database, brought to this version's schema."""
    database = Database(f"sqlite:///{data_dir / 'xbyte.db'}")
    await database.start()
    yield database
    await database.stop()


async def test_items_and_their_bytes_are_there(
    database: Database, data_dir: Path, told: dict[str, Any]
) -> None:
    catalog, store = Catalog(database, refresh=0), DiskStore(data_dir / "store")
    film, paper = await catalog.item("film"), await catalog.item("paper")
    assert isinstance(film, Title) and isinstance(paper, Object)
    assert (film.name, [s.msn for s in film.renditions[0].segments]) == ("Version 1", [0, 1, 2])
    for segment in film.renditions[0].segments:
        data = await store.read(segment_key("film", "source", segment.msn))
        assert data is not None and len(data) == segment.size
    assert (paper.size, await store.read(paper.key)) == (5, b"paper")

    recording = await catalog.item(told["recording"])
    assert isinstance(recording, Title)
    assert (recording.recorded_from, recording.duration_us) == ("concert", 24_000_000)
    assert [s.msn for s in recording.renditions[0].segments] == list(range(12))
    for msn in range(12):
        assert await store.read(segment_key("concert", "source", msn)) == data_of("concert", msn)
    assert await catalog.item("concert") is not None


@pytest.mark.parametrize(
    "table",
    json.loads((BEFORE / "told.json").read_text())["tables"],
)
async def test_every_row_is_what_it_was(
    database: Database, told: dict[str, Any], table: str
) -> None:
    rows = await database.read(
        lambda db: [
            dict(row)
            for row in db.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2, 3")).mappings()
        ]
    )
    assert rows == told["tables"][table]


async def test_reports_say_what_they_said(database: Database, told: dict[str, Any]) -> None:
    earnings = Earnings(database)
    report = await earnings.report(Period(*told["period"]), step=86_400)
    assert {
        "items": [[slug, asdict(earned)] for slug, earned in report.items],
        "total": asdict(report.total),
        "steps": {str(step): asdict(earned) for step, earned in report.steps.items()},
    } == told["report"]
    assert [asdict(one) for one in await earnings.settlement()] == told["balances"]
    totals = await ChargeLedger(database).totals()
    assert sorted([one.state, one.count, one.amount] for one in totals) == told["totals"]


async def test_the_audit_is_clean(database: Database) -> None:
    outcome = await Auditor(database, {}).audit(chain=False)
    assert list(outcome.disagreements) == []
    assert sum(one.charged for one in outcome.sums) == 448 + 444 + 500


def test_the_audit_of_the_command_line_is_clean(data_dir: Path) -> None:
    env = {"XBYTE_DATA_DIR": str(data_dir)}
    result = CliRunner().invoke(main, ["ledger", "audit", "--no-chain", "--json"], env=env)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["clean"] is True


@asynccontextmanager
async def an_engine(database: Database, chain: ModelChain) -> AsyncIterator[Actions]:
    """This version's settlement on the old database."""
    channels, network = ChannelLedger(database, retry_window=120), USDC.network
    facilitator = LocalFacilitator({network: chain}, {})
    actions = Actions(
        ActionLedger(database),
        channels,
        facilitator,
        {network: chain},
        Proofs({network: chain}, {network: chain}),
        ChannelSync(channels, {network: chain}),
        [],
        ActionPolicy(lease=30.0, wait=0.3, max_gas_price=0, parallel=8),
    )
    try:
        yield actions
    finally:
        await actions.drain()
        await facilitator.close()


async def open_deposit(database: Database, told: dict[str, Any]) -> tuple[Action, ChannelPayment]:
    action = await ActionLedger(database).get(told["deposit"]["id"])
    assert action is not None
    assert (action.kind, action.state, action.in_doubt) == ("deposit", "pending", True)
    assert (action.amount, action.tx_hash) == (told["deposit"]["amount"], SENT)
    return action, read_channel_payment(action.document["payload"])


async def test_an_open_deposit_that_landed_is_found(
    database: Database, told: dict[str, Any]
) -> None:
    action, payment = await open_deposit(database, told)
    channel_id, deposit = told["deposit"]["channel_id"], payment.deposit
    assert deposit is not None
    chain = ModelChain()
    chain.used[deposit_nonce(channel_id, deposit.salt)] = SENT
    chain.events.append(Event(SENT, "Deposited", channel_id))
    chain.move(channel_id, balance=deposit.amount)
    async with an_engine(database, chain) as engine:
        done = await engine.look_after(action)
    assert (done.id, done.state, done.tx_hash) == (action.id, "settled", SENT)
    assert chain.sent == 0


async def test_an_open_deposit_that_was_lost_is_sent_when_its_payer_comes_again(
    database: Database, told: dict[str, Any]
) -> None:
    action, payment = await open_deposit(database, told)
    chain = ModelChain()
    chain.tokens[told["deposit"]["payer"]] = 7000
    async with an_engine(database, chain) as engine:
        assert (await engine.look_after(action)).state == "pending"  # nobody asks for it
        done = await engine.deposit(
            payment,
            network=USDC.network,
            asset=USDC,
            requirements=action.requirements,
            document=action.document,
        )
    assert (done.id, done.state) == (action.id, "settled")
    assert chain.tokens[told["deposit"]["payer"]] == 7000 - 5000
    channel = await ChannelLedger(database, retry_window=120).find(payment.voucher.channel_id)
    assert channel is not None and channel.chain.balance == 5000
