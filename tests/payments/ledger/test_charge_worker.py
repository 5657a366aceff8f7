"""Vouchers charged in a process of its own, on SQLite and PostgreSQL: killed, hung, never twice."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace

import pytest
from eth_account import Account
from sqlalchemy import select

from tests.support.channel_children import AMOUNT, CHAIN_ID, WINDOW, a_config, a_voucher, opened
from tests.support.ledger_children import NOW
from tests.support.paying import Clock
from tests.support.server import is_there
from xbyte_live.errors import DatabaseUnavailable
from xbyte_live.evm.channels import channel_id_of, voucher_digest
from xbyte_live.evm.eip712 import SigningKey
from xbyte_live.payments.ledger import charge_worker as worker_module
from xbyte_live.payments.ledger.channel import Charging, NewDelivery
from xbyte_live.payments.ledger.channels import ChannelLedger
from xbyte_live.payments.ledger.charge_worker import ChargeWorker
from xbyte_live.runtime.aio import background
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.db.tables import deliveries

CROWD = 8  # vouchers that wait together in these tests
KEY = Account.from_key("0x" + "22" * 32)
SIGNER = (KEY.address.lower(), CHAIN_ID)


@pytest.fixture
async def charge_worker(database: Database, database_url: str) -> AsyncIterator[ChargeWorker]:
    """One that is running, but not charging yet."""
    charge_worker = ChargeWorker(database_url, retry_window=WINDOW, busy_from=CROWD)
    async with background(charge_worker.run()):
        yield charge_worker


@pytest.fixture
def ledger(database: Database, charge_worker: ChargeWorker) -> ChannelLedger:
    return ChannelLedger(database, retry_window=WINDOW, charger=charge_worker, clock=Clock(NOW))


async def until_it_charges(charge_worker: ChargeWorker, but: int | None = None) -> int:
    """The process that charges, once there is one, another than ``but``."""
    async with asyncio.timeout(30):
        while charge_worker.pid in (None, but):
            await asyncio.sleep(0.01)  # it tells nobody but the ledger
    assert charge_worker.pid is not None
    return charge_worker.pid


async def a_crowd(ledger: ChannelLedger, number: int = 9) -> list[Charging]:
    """So many of a channel's vouchers at once that a process is wanted for them."""
    await opened(ledger, number)
    return await asyncio.gather(
        *(ledger.charge(a_voucher(number, n * AMOUNT)) for n in range(1, CROWD + 1))
    )


def signed(ceiling: int, number: int = 1) -> NewDelivery:
    """A voucher that is still to be checked, and good."""
    channel_id = channel_id_of(a_config(number), CHAIN_ID)
    digest = voucher_digest(channel_id, ceiling, CHAIN_ID)
    text = "0x" + SigningKey(bytes(KEY.key)).sign(digest).hex()
    return a_voucher(number, ceiling, signature=text, signed_by=SIGNER)


async def ceilings(database: Database) -> list[tuple[int, int]]:
    """Channel and ceiling of every delivery, in order."""
    query = select(deliveries.c.channel, deliveries.c.cumulative).order_by(
        deliveries.c.channel, deliveries.c.cumulative
    )
    return await database.read(lambda db: [(row[0], row[1]) for row in db.execute(query)])


async def test_it_answers_as_the_ledger_alone_does(
    database: Database, ledger: ChannelLedger, charge_worker: ChargeWorker
) -> None:
    assert charge_worker.pid is None
    assert {one.outcome for one in await a_crowd(ledger)} == {"charged"}
    await until_it_charges(charge_worker)

    alone = ChannelLedger(database, retry_window=WINDOW, clock=Clock(NOW))
    forged = replace(signed(2 * AMOUNT), signature=signed(AMOUNT).signature)
    for number, own in ((1, ledger), (2, alone)):
        channel = await opened(own, number, balance=4 * AMOUNT)
        asked = [
            signed(AMOUNT, number),
            replace(forged, channel_id=channel.channel_id),
            replace(signed(3 * AMOUNT, number), oldest=NOW + 1),
            a_voucher(77, AMOUNT),
            signed(9 * AMOUNT, number),
        ]
        first = await asyncio.gather(*(own.charge(new) for new in asked))
        assert [one.outcome for one in first] == [
            *("charged", "forged", "stale", "missing", "mismatch"),
        ]
        again, stale, short = [
            await own.charge(asked[0]),
            await own.charge(replace(signed(2 * AMOUNT, number), oldest=NOW + 1)),
            await own.charge(replace(signed(5 * AMOUNT, number), amount=4 * AMOUNT)),
        ]
        assert (again.outcome, stale.outcome, short.outcome) == ("again", "stale", "balance")
        assert first[0].channel is not None
        kept = await own.find(channel.channel_id)
        assert kept == first[0].channel == again.channel == short.channel
        assert kept is not None
        assert (kept.charged, kept.signature) == (AMOUNT, asked[0].signature)
    assert charge_worker.pid is not None


async def test_it_charges_where_many_files_are_open(
    ledger: ChannelLedger, charge_worker: ChargeWorker
) -> None:
    await opened(ledger, 1)
    with ExitStack() as stack:
        for _ in range(1100):  # so that its socket's number is beyond what ``select`` takes
            stack.callback(os.close, os.dup(0))
        await a_crowd(ledger)
        pid = await until_it_charges(charge_worker)
        assert (await ledger.charge(signed(AMOUNT))).outcome == "charged"
        assert charge_worker.pid == pid


async def test_vouchers_are_charged_in_the_order_they_came(
    database: Database, ledger: ChannelLedger, charge_worker: ChargeWorker
) -> None:
    await a_crowd(ledger)
    await until_it_charges(charge_worker)
    await opened(ledger, 1)
    asked = []
    for n in range(1, 200):
        asked.append(asyncio.create_task(ledger.charge(signed(n * AMOUNT))))
        if n % 7 == 0:
            await asyncio.sleep(0)  # so that there are many batches, two of them under way
    assert {one.outcome for one in await asyncio.gather(*asked)} == {"charged"}


async def test_one_killed_in_the_middle_charges_nothing_twice(
    database: Database, ledger: ChannelLedger, charge_worker: ChargeWorker
) -> None:
    await a_crowd(ledger)
    pid = await until_it_charges(charge_worker)
    channels = [await opened(ledger, number) for number in range(1, 6)]
    news = [signed(AMOUNT, number) for number in range(1, 6)]
    waiting = [asyncio.create_task(ledger.charge(new)) for new in news]
    await asyncio.sleep(0)
    os.kill(pid, signal.SIGKILL)
    found = await asyncio.gather(*waiting, return_exceptions=True)
    for one in found:
        assert isinstance(one, DatabaseUnavailable) or one.outcome == "charged"  # type: ignore[union-attr]

    retried = await asyncio.gather(*(ledger.charge(new) for new in news))
    assert {one.outcome for one in retried} <= {"charged", "again"}
    assert await until_it_charges(charge_worker, but=pid) != pid
    assert {one.outcome for one in await asyncio.gather(*map(ledger.charge, news))} == {"again"}
    ours = {channel.id for channel in channels}
    assert [row for row in await ceilings(database) if row[0] in ours] == [
        (channel.id, AMOUNT) for channel in channels
    ]


async def test_one_that_hangs_is_replaced_and_its_charges_are_no_loss(
    ledger: ChannelLedger, charge_worker: ChargeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await a_crowd(ledger)
    pid = await until_it_charges(charge_worker)
    await opened(ledger, 1)
    monkeypatch.setattr(worker_module, "PATIENCE", 0.5)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(DatabaseUnavailable):
        await ledger.charge(signed(AMOUNT))
    monkeypatch.undo()
    assert (await ledger.charge(signed(AMOUNT))).outcome in ("charged", "again")
    await until_it_charges(charge_worker, but=pid)
    assert (await ledger.charge(signed(AMOUNT))).outcome == "again"
    assert not is_there(pid)


async def test_it_ends_with_the_server(database: Database, database_url: str) -> None:
    async with charging(database, database_url) as (ledger, charge_worker):
        await a_crowd(ledger)
        pid = await until_it_charges(charge_worker)
        assert is_there(pid)
    assert not is_there(pid)


@asynccontextmanager
async def charging(
    database: Database, url: str
) -> AsyncIterator[tuple[ChannelLedger, ChargeWorker]]:
    charge_worker = ChargeWorker(url, retry_window=WINDOW, busy_from=CROWD)
    async with background(charge_worker.run()):
        yield ChannelLedger(database, retry_window=WINDOW, charger=charge_worker), charge_worker


async def test_none_is_started_where_it_never_shall(database: Database, database_url: str) -> None:
    charge_worker = ChargeWorker(database_url, retry_window=WINDOW, busy_from=0)
    ledger = ChannelLedger(database, retry_window=WINDOW, charger=charge_worker, clock=Clock(NOW))
    work = asyncio.create_task(charge_worker.run())
    try:
        for number in range(1, 4):
            assert {one.outcome for one in await a_crowd(ledger, number)} == {"charged"}
        assert charge_worker.pid is None
        assert not work.done()
    finally:
        work.cancel()
