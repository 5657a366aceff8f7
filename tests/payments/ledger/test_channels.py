"""One contract for the ledger of channels on SQLite and PostgreSQL (money rules 2, 3, 4 and 6)."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select, update

from tests.support import channel_children as children
from tests.support.channel_children import (
    AMOUNT,
    WINDOW,
    a_config,
    a_voucher,
    opened,
)
from tests.support.ledger_children import NOW, all_at_once, spawn
from tests.support.paying import Clock
from xbyte_live.errors import DatabaseUnavailable
from xbyte_live.payments.ledger.channel import Channel, Charging
from xbyte_live.payments.ledger.channels import ChannelLedger
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.db.tables import channels, deliveries


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
def ledger(database: Database, clock: Clock) -> ChannelLedger:
    return ChannelLedger(database, retry_window=WINDOW, clock=clock)


@asynccontextmanager
async def started(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    await database.start()
    try:
        yield database
    finally:
        await database.stop()


async def now_of(ledger: ChannelLedger, channel: Channel) -> Channel:
    found = await ledger.find(channel.channel_id)
    assert found is not None
    return found


async def rows(database: Database, channel: int) -> list[tuple[int, int]]:
    """Ceiling and amount of all deliveries of a channel, in order."""
    query = (
        select(deliveries.c.cumulative, deliveries.c.amount)
        .where(deliveries.c.channel == channel)
        .order_by(deliveries.c.cumulative)
    )
    return await database.read(lambda db: [(row[0], row[1]) for row in db.execute(query)])


async def adds_up(database: Database, channel: Channel) -> list[int]:
    """Assert money rule 6 for a channel nothing was given back of; the ceilings charged."""
    found = await rows(database, channel.id)
    at = channel.opening
    for ceiling, amount in found:
        assert ceiling == at + amount  # each follows on the one before
        at = ceiling
    assert at == channel.charged <= channel.signed
    assert channel.charged <= channel.chain.balance
    return [ceiling for ceiling, _ in found]


def outcomes(found: list[Charging]) -> list[str]:
    return [charging.outcome for charging in found]


# One voucher, one charge


async def test_300_parallel_requests_with_one_voucher_are_one_charge(
    ledger: ChannelLedger, database: Database
) -> None:
    channel = await opened(ledger)

    found = await asyncio.gather(*(ledger.charge(a_voucher(1, AMOUNT)) for _ in range(300)))

    assert sorted(outcomes(found)) == ["again"] * 299 + ["charged"]
    assert await rows(database, channel.id) == [(AMOUNT, AMOUNT)]
    after = await now_of(ledger, channel)
    assert (after.charged, after.signed) == (AMOUNT, AMOUNT)
    assert all(charging.channel == after for charging in found)


async def test_one_voucher_for_two_resources_pays_for_one(
    ledger: ChannelLedger, database: Database
) -> None:
    channel = await opened(ledger)
    news = [a_voucher(1, AMOUNT, resource=f"/{number}") for number in range(50)]

    found = await asyncio.gather(*map(ledger.charge, news))

    assert sorted(outcomes(found)) == ["charged"] + ["mismatch"] * 49
    assert len(await rows(database, channel.id)) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"resource": "/hls/plasma/source/100.ts#bytes=0-9"},
        {"size": 999},
        {"amount": 99},
        {"amount": 101},
        {"ceiling": AMOUNT - 1},
        {"ceiling": AMOUNT + 1},
        {"ceiling": 0},
    ],
)
async def test_what_is_not_the_same_request_is_no_retry(
    ledger: ChannelLedger, database: Database, change: dict[str, Any]
) -> None:
    channel = await opened(ledger)
    first = a_voucher(1, AMOUNT)
    await ledger.charge(first)
    if change.get("amount") == 101:
        change = {**change, "ceiling": AMOUNT}

    charging = await ledger.charge(replace(first, **change))

    assert charging.outcome == "mismatch"
    assert charging.channel is not None and charging.channel.charged == AMOUNT
    assert len(await rows(database, channel.id)) == 1


async def test_vouchers_in_any_order_within_a_batch_are_all_charged(
    ledger: ChannelLedger, database: Database
) -> None:
    made = [await opened(ledger, number) for number in range(1, 5)]
    news = [a_voucher(n, ceiling * AMOUNT) for n in range(1, 5) for ceiling in range(1, 31)]
    random.Random(7).shuffle(news)
    news += news[:40]

    found = await asyncio.gather(*map(ledger.charge, news))

    assert sorted(outcomes(found)) == ["again"] * 40 + ["charged"] * 120
    for channel in made:
        ceilings = await adds_up(database, await now_of(ledger, channel))
        assert ceilings == [n * AMOUNT for n in range(1, 31)]


async def test_a_gap_stops_what_lies_behind_it(ledger: ChannelLedger) -> None:
    channel = await opened(ledger)

    found = await asyncio.gather(*(ledger.charge(a_voucher(1, n * AMOUNT)) for n in (4, 2, 1, 5)))

    assert outcomes(found) == ["mismatch", "charged", "charged", "mismatch"]
    assert (await now_of(ledger, channel)).charged == 2 * AMOUNT
    assert (await ledger.charge(a_voucher(1, 3 * AMOUNT))).outcome == "charged"


async def test_a_channel_that_is_none_is_missing(ledger: ChannelLedger) -> None:
    assert await ledger.charge(a_voucher(1, AMOUNT)) == Charging("missing", None)
    assert await ledger.find(a_voucher(1, 0).channel_id) is None


async def test_more_than_a_batch_at_once(ledger: ChannelLedger, database: Database) -> None:
    channel = await opened(ledger)

    found = await asyncio.gather(*(ledger.charge(a_voucher(1, n * AMOUNT)) for n in range(1, 1301)))

    assert set(outcomes(found)) == {"charged"}
    assert len(await adds_up(database, await now_of(ledger, channel))) == 1300


async def test_who_leaves_is_charged_all_the_same_and_nobody_else_is_hurt(
    ledger: ChannelLedger,
) -> None:
    channel = await opened(ledger)
    first = asyncio.create_task(ledger.charge(a_voucher(1, AMOUNT)))
    await asyncio.sleep(0)
    leaving = asyncio.create_task(ledger.charge(a_voucher(1, 2 * AMOUNT)))
    third = asyncio.create_task(ledger.charge(a_voucher(1, 2 * AMOUNT)))
    await asyncio.sleep(0)
    leaving.cancel()

    assert (await first).outcome == "charged"
    assert (await third).outcome in ("charged", "again")
    assert (await now_of(ledger, channel)).charged == 2 * AMOUNT


# Several processes


async def test_two_processes_charge_each_voucher_once(
    ledger: ChannelLedger, database: Database, database_url: str
) -> None:
    made = [await opened(ledger, number) for number in (1, 2)]

    said = await all_at_once(children.charge_all, 2, database_url, "250", "2")

    told = [line for lines in said for line in lines]
    assert len(told) == len(set(told)) == 500
    for channel in made:
        assert len(await adds_up(database, await now_of(ledger, channel))) == 250


async def test_two_processes_race_for_one_channel(
    ledger: ChannelLedger, database: Database, database_url: str
) -> None:
    channel = await opened(ledger)
    racers = [await spawn(children.charge_next, database_url, name, "60") for name in "ab"]
    for racer in racers:
        racer.go()

    said = await asyncio.gather(*(racer.rest() for racer in racers))

    ceilings = await adds_up(database, await now_of(ledger, channel))
    assert sorted(int(line) for lines in said for line in lines) == ceilings
    assert all(said)  # each came to its turn


async def test_kill_9_under_load_loses_and_doubles_nothing(
    ledger: ChannelLedger, database: Database, database_url: str
) -> None:
    """Rule 2: whatever may have been delivered is in the ledger, and nothing half charged."""
    made = [await opened(ledger, number) for number in range(1, 6)]
    told: set[tuple[int, int]] = set()
    for round_ in range(3):
        child = await spawn(children.charge_until_killed, database_url, "5")
        child.go()
        lines = [await child.line() for _ in range(15 + 40 * round_)]
        for line in [*lines, *await child.kill()]:
            channel, _, ceiling = line.partition("-")
            told.add((int(channel), int(ceiling)))
    there: set[tuple[int, int]] = set()
    for number, one in enumerate(made, 1):
        there |= {(number, c) for c in await adds_up(database, await now_of(ledger, one))}
    assert told <= there
    assert len(there - told) <= 3 * 5  # charged, and killed before it was told


async def test_a_charge_and_its_retry_outlive_a_restart(database_url: str, clock: Clock) -> None:
    async with started(database_url) as database:
        ledger = ChannelLedger(database, retry_window=WINDOW, clock=clock)
        await opened(ledger)
        first = await ledger.charge(a_voucher(1, AMOUNT))
    async with started(database_url) as database:
        ledger = ChannelLedger(database, retry_window=WINDOW, clock=clock)
        again = await ledger.charge(a_voucher(1, AMOUNT))
        assert (first.outcome, again.outcome) == ("charged", "again")
        assert again.channel == first.channel


async def test_without_a_database_nothing_is_charged(database_url: str, clock: Clock) -> None:
    async with started(database_url) as database:
        ledger = ChannelLedger(database, retry_window=WINDOW, clock=clock)
        channel = await opened(ledger)
    with pytest.raises(DatabaseUnavailable):
        await ledger.charge(a_voucher(1, AMOUNT))
    async with started(database_url) as database:
        ledger = ChannelLedger(database, retry_window=WINDOW, clock=clock)
        assert (await now_of(ledger, channel)).charged == 0


# Retries


async def test_a_retry_is_free_within_its_window_and_no_longer(
    ledger: ChannelLedger, clock: Clock
) -> None:
    await opened(ledger)
    first, second = a_voucher(1, AMOUNT), a_voucher(1, 2 * AMOUNT)
    await ledger.charge(first)
    await ledger.charge(second)

    clock.now += WINDOW
    assert outcomes([await ledger.charge(first), await ledger.charge(second)]) == ["again"] * 2
    clock.now += 0.01
    found = [await ledger.charge(first), await ledger.charge(second)]
    assert outcomes(found) == ["mismatch"] * 2
    assert all(charging.channel and charging.channel.charged == 2 * AMOUNT for charging in found)


async def test_a_retry_needs_no_balance_and_no_time(ledger: ChannelLedger, clock: Clock) -> None:
    """What was paid for is served again, though the channel has nothing more to give."""
    await opened(ledger, balance=AMOUNT)
    await ledger.charge(a_voucher(1, AMOUNT))
    gone = {"claimed": AMOUNT, "withdraw_requested_at": int(NOW) - 800}
    await opened(ledger, balance=AMOUNT, at=NOW + 1, **gone)

    assert (await ledger.charge(a_voucher(1, AMOUNT))).outcome == "again"


# What a channel has


async def test_no_more_is_charged_than_the_channel_holds(
    ledger: ChannelLedger, database: Database
) -> None:
    channel = await opened(ledger, balance=10 * AMOUNT - 1)

    found = await asyncio.gather(*(ledger.charge(a_voucher(1, n * AMOUNT)) for n in range(1, 13)))

    assert outcomes(found) == ["charged"] * 9 + ["balance"] + ["mismatch"] * 2
    assert len(await adds_up(database, await now_of(ledger, channel))) == 9


async def test_what_is_reserved_is_not_charged(ledger: ChannelLedger, database: Database) -> None:
    channel = await opened(ledger, balance=3 * AMOUNT)
    reserve = update(channels).where(channels.c.id == channel.id).values(reserved=AMOUNT + 1)
    await database.write(lambda db: db.execute(reserve))

    found = await asyncio.gather(*(ledger.charge(a_voucher(1, n * AMOUNT)) for n in (1, 2)))

    assert outcomes(found) == ["charged", "balance"]
    assert (await now_of(ledger, channel)).spendable == 2 * AMOUNT - 1


async def test_what_a_top_up_brings_can_be_charged(ledger: ChannelLedger) -> None:
    await opened(ledger, balance=AMOUNT)
    await ledger.charge(a_voucher(1, AMOUNT))
    assert (await ledger.charge(a_voucher(1, 2 * AMOUNT))).outcome == "balance"

    await opened(ledger, balance=2 * AMOUNT, at=NOW + 1)

    assert (await ledger.charge(a_voucher(1, 2 * AMOUNT))).outcome == "charged"


async def test_who_is_leaving_pays_until_half_of_the_delay_is_over(
    ledger: ChannelLedger, clock: Clock
) -> None:
    await opened(ledger, withdraw_requested_at=int(NOW))

    clock.now = NOW + 450
    assert (await ledger.charge(a_voucher(1, AMOUNT))).outcome == "charged"
    clock.now = NOW + 450.5
    assert (await ledger.charge(a_voucher(1, 2 * AMOUNT))).outcome == "balance"
    await opened(ledger, at=clock.now)  # the payer has thought better of it
    assert (await ledger.charge(a_voucher(1, 2 * AMOUNT))).outcome == "charged"


async def test_the_highest_voucher_is_kept_with_its_signature(ledger: ChannelLedger) -> None:
    channel = await opened(ledger)
    assert not channel.voucher.is_signed

    await asyncio.gather(*(ledger.charge(a_voucher(1, n * AMOUNT)) for n in (2, 3, 1)))

    after = await now_of(ledger, channel)
    assert after.signature == a_voucher(1, 3 * AMOUNT).signature
    assert (after.signed, after.claimable, after.claim.total) == (300, 300, 300)


# The mirror


async def test_a_new_channel_begins_at_what_was_claimed(ledger: ChannelLedger) -> None:
    channel = await opened(ledger, balance=1000, claimed=700)

    assert (channel.opening, channel.charged, channel.signed) == (700, 700, 700)
    assert channel.claim.total == 700 and not channel.voucher.is_signed
    assert (await ledger.charge(a_voucher(1, AMOUNT))).outcome == "mismatch"
    assert (await ledger.charge(a_voucher(1, 800))).outcome == "charged"


async def test_an_older_reading_replaces_no_newer_one(ledger: ChannelLedger) -> None:
    await opened(ledger, balance=500, at=NOW + 10, refund_nonce=2)

    late = await opened(ledger, balance=900, at=NOW + 9.9, refund_nonce=1)
    assert (late.chain.balance, late.chain.refund_nonce, late.chain.at) == (500, 2, NOW + 10)
    same = await opened(ledger, balance=600, at=NOW + 10)
    assert same.chain.balance == 600
    newer = await opened(ledger, balance=400, at=NOW + 11)  # a refund, or the chain went back
    assert newer.chain.balance == 400


async def test_readings_in_any_order_leave_the_newest(ledger: ChannelLedger) -> None:
    times = list(range(1, 41))
    random.Random(3).shuffle(times)

    await asyncio.gather(*(opened(ledger, balance=1000 + at, at=NOW + at) for at in times))

    found = await ledger.find(a_voucher(1, 0).channel_id)
    assert found is not None and found.chain.balance == 1040


async def test_charges_and_readings_do_not_undo_each_other(
    ledger: ChannelLedger, database: Database
) -> None:
    channel = await opened(ledger)

    async def read() -> None:
        for at in range(1, 60):
            await opened(ledger, balance=10**9 + at, at=NOW + at)

    async def pay() -> None:
        for n in range(1, 60):
            assert (await ledger.charge(a_voucher(1, n * AMOUNT))).outcome == "charged"

    await asyncio.gather(read(), pay())

    after = await now_of(ledger, channel)
    assert after.chain.balance == 10**9 + 59
    assert len(await adds_up(database, after)) == 59


async def test_a_ledger_restored_from_an_old_copy_goes_on_from_the_chain(
    ledger: ChannelLedger, database: Database
) -> None:
    channel = await opened(ledger)
    for n in range(1, 4):
        await ledger.charge(a_voucher(1, n * AMOUNT))

    restored = await opened(ledger, claimed=10 * AMOUNT, at=NOW + 1)

    assert (restored.charged, restored.signed) == (10 * AMOUNT, 10 * AMOUNT)
    assert not restored.voucher.is_signed  # the signature we have is of less
    assert restored.opening == 7 * AMOUNT  # what was forgotten; the deliveries known of count
    total = sum(amount for _, amount in await rows(database, channel.id))
    assert restored.opening + total == restored.charged
    assert (await ledger.charge(a_voucher(1, 4 * AMOUNT))).outcome == "mismatch"
    assert (await ledger.charge(a_voucher(1, 11 * AMOUNT))).outcome == "charged"


async def test_a_restored_ledger_that_had_seen_a_higher_voucher_keeps_it(
    ledger: ChannelLedger, database: Database
) -> None:
    channel = await opened(ledger)
    await ledger.charge(a_voucher(1, AMOUNT))
    higher = update(channels).where(channels.c.id == channel.id).values(signed=900, signature="0x9")
    await database.write(lambda db: db.execute(higher))

    restored = await opened(ledger, claimed=500, at=NOW + 1)

    assert (restored.charged, restored.signed, restored.signature) == (500, 900, "0x9")


async def test_config_and_identity_are_kept_as_they_are(ledger: ChannelLedger) -> None:
    channel = await opened(ledger, 77)

    assert channel.config == a_config(77)
    assert channel == await ledger.find(channel.channel_id)
    assert (await opened(ledger, 77, at=NOW + 1)).id == channel.id
