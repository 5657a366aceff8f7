"""Sums that were tampered with are found and mended, to the unit, whatever arrives meanwhile."""

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from click.testing import CliRunner
from sqlalchemy import select, text

from tests.support.channel_parties import Payer
from tests.support.ledger_books import Busy, Shop, a_busy_shop
from xbyte_live.cli import main
from xbyte_live.payments.audit.rollups import RollupRebuild
from xbyte_live.payments.ledger import rollup
from xbyte_live.payments.ledger.periods import DAY
from xbyte_live.payments.ledger.rollup import MARGIN, _advance, drop_sums, read_mark
from xbyte_live.payments.reports.earnings import Earnings, Period
from xbyte_live.payments.x402.order import Order
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.db.tables import sums

EVER = Period(0.0, 1e11)
KINDS = ("all", "item", "payer", "resource")


@pytest.fixture
async def busy(database: Database) -> Busy:
    """Old days that were rolled up, younger ones that are summed, and what is not summed yet."""
    busy = await a_busy_shop(database)
    busy.shop.clock.now += MARGIN + 1
    assert await busy.shop.add_up()
    await busy.shop.charge(busy.plain, 21)
    assert await busy.shop.codes() == set()
    return busy


@pytest.fixture
def shop(database: Database) -> Shop:
    return Shop(database)


async def resum(shop: Shop) -> int:
    return await RollupRebuild(shop.database, clock=shop.clock).resum(lambda done, total: None)


async def all_sums(shop: Shop) -> list[Any]:
    """Every row, but for its number."""
    columns = [column for column in sums.c if column.name != "id"]
    order = (sums.c.kind, sums.c.scope, sums.c.span, sums.c.name, sums.c.at)
    query = select(*columns).order_by(*order)
    found = await shop.database.read(lambda db: db.execute(query).all())
    return [tuple(row) for row in found]


# What is found

_OLD = f"at < (SELECT min(at) FROM sums) + {DAY}"
_NEW = f"at >= (SELECT min(at) FROM sums) + {DAY}"
TAMPERED: dict[str, tuple[str, set[str]]] = {
    "an item that earned more": (
        f"UPDATE sums SET income = income + 1 WHERE kind = 'item' AND span = {DAY} AND {_NEW}",
        {"sums.item"},
    ),
    "a quarter of an hour that earned less": (
        "UPDATE sums SET amount = amount - 1 WHERE kind = 'all' AND span = 900",
        {"sums.all"},
    ),
    "a payer who bought more": (
        "UPDATE sums SET bytes = bytes + 1 WHERE kind = 'payer' AND scope = '*'",
        {"sums.payer"},
    ),
    "a payer of an item who is gone": (
        "DELETE FROM sums WHERE kind = 'payer' AND scope <> '*'",
        {"sums.payer"},
    ),
    "a moment that was played more": (
        "UPDATE sums SET plays = plays + 1 WHERE kind = 'resource'",
        {"sums.resource"},
    ),
    "somebody who never paid": (
        "INSERT INTO sums (kind, scope, span, name, at, deliveries, plays, bytes, amount, income,"
        f" first_at, last_at) SELECT kind, scope, span, '0x1', at + {DAY}, 1, 1, 1, 1, 1,"
        " first_at, last_at FROM sums WHERE kind = 'payer' LIMIT 1",
        {"sums.payer"},
    ),
    "a payer who came earlier": (
        "UPDATE sums SET first_at = first_at - 1 WHERE kind = 'payer'",
        {"sums.payer"},
    ),
    "an old day that earned more": (
        f"UPDATE sums SET income = income + 1 WHERE {_OLD}",
        {"sums.all", "sums.item"},
    ),
    "an old day that is gone": (
        f"DELETE FROM sums WHERE kind = 'item' AND {_OLD}",
        {"sums.item"},
    ),
    "everything gone": ("DELETE FROM sums", {f"sums.{kind}" for kind in KINDS}),
    "a delivery that was never summed": (
        "UPDATE deliveries SET created_at = created_at - 320 WHERE amount = 21",
        {f"sums.{kind}" for kind in KINDS},
    ),
}  # fmt: skip


@pytest.mark.parametrize("tampered", TAMPERED)
async def test_what_was_tampered_with_is_found_and_mended(busy: Busy, tampered: str) -> None:
    shop = busy.shop
    before, report = await all_sums(shop), await Earnings(shop.database).report(EVER, step=DAY)
    statement, codes = TAMPERED[tampered]
    await shop.sql(statement)
    assert await shop.codes() == codes

    await resum(shop)
    assert await shop.codes() == set()
    if "old day" not in tampered and "everything" not in tampered and "never" not in tampered:
        assert await all_sums(shop) == before
    assert (await Earnings(shop.database).report(EVER, step=DAY)).total == report.total


async def test_a_finding_says_which_sum_and_both_figures(busy: Busy) -> None:
    where = f"kind = 'item' AND name = 'plasma' AND span = {DAY} AND {_NEW}"
    right = "SELECT amount FROM sums WHERE " + where
    real = await busy.shop.database.read(lambda db: db.execute(text(right)).scalar_one())
    await busy.shop.sql(f"UPDATE sums SET amount = amount + 3 WHERE {where}")
    (found,) = (await busy.shop.audit()).disagreements
    assert (found.code, found.expected, found.found) == ("sums.item", real, real + 3)
    assert found.about.startswith("item plasma, 20") and len(found.about) == 23
    assert "amount" in found.says and "xbyte-live ledger resum" in found.says


async def test_quarters_of_an_hour_are_told_from_days(busy: Busy) -> None:
    await busy.shop.sql("UPDATE sums SET plays = 9 WHERE kind = 'all' AND span = 900")
    (found,) = (await busy.shop.audit()).disagreements
    assert found.about.startswith("all items by 15 min, 20")


# Summing again while the books are written


async def a_summed_shop(shop: Shop) -> Payer:
    payer = shop.payer()
    await shop.deposit(payer, 10_000_000)
    await shop.charge(payer, 7)
    shop.clock.now += MARGIN + 1
    await shop.add_up()
    return payer


async def income(shop: Shop) -> int:
    return (await Earnings(shop.database).report(EVER, step=DAY)).total.income


async def test_reports_are_right_while_sums_are_dropped(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollup, "DROPPED", 2)
    payer = await a_summed_shop(shop)
    await shop.sql("UPDATE sums SET income = income + 5, amount = amount + 5")
    assert await income(shop) == 12
    await shop.database.write(drop_sums)
    while (await shop.database.read(read_mark)).is_dropping:
        assert await income(shop) == 7
        await shop.database.write(partial(_advance, until=shop.clock.now - MARGIN))
    assert await all_sums(shop) == []
    await shop.charge(payer, 11)
    shop.clock.now += MARGIN + 1
    assert await shop.add_up() == 2
    assert await income(shop) == 18
    assert await shop.codes() == set()


async def test_what_is_given_back_late_meanwhile_is_not_lost(shop: Shop) -> None:
    await a_summed_shop(shop)
    session = await shop.exact_session(400)
    await shop.end(session)
    shop.clock.now += MARGIN + 1
    await shop.add_up()
    await shop.sql("DELETE FROM sums WHERE kind = 'item'")
    await shop.database.write(drop_sums)
    order = Order("budget=60", 60, digest=session.digest, key="again")
    paid = await shop.exact(60, slug="plasma", resource=order.resource)
    await shop.sessions.paid(paid, order)  # of a session that is over: it goes back, as of then

    await resum(shop)
    assert await shop.codes() == set()
    assert await income(shop) == 7


async def test_any_server_goes_on_where_one_that_was_killed_left_off(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollup, "DROPPED", 1)
    await a_summed_shop(shop)
    before = await all_sums(shop)
    await shop.sql("UPDATE sums SET plays = plays + 1", "DELETE FROM sums WHERE kind = 'item'")
    await shop.database.write(drop_sums)
    await shop.database.write(partial(_advance, until=shop.clock.now - MARGIN))
    await shop.add_up()
    assert await all_sums(shop) == before
    assert await shop.codes() == set()


async def test_two_that_sum_again_at_once_do_it_once(shop: Shop) -> None:
    await a_summed_shop(shop)
    before = await all_sums(shop)
    await shop.sql("UPDATE sums SET plays = plays + 1", "DELETE FROM sums WHERE kind = 'item'")
    await asyncio.gather(*(resum(shop) for _ in range(3)))
    assert await all_sums(shop) == before
    assert await shop.codes() == set()


async def test_mending_while_servers_sell_and_sum_and_roll_up_loses_nothing(
    database_url: str, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollup, "BATCH", 2)
    monkeypatch.setattr(rollup, "DROPPED", 2)
    payer = await a_summed_shop(shop)
    other = Shop(Database(database_url))  # another process, as far as the database can tell
    other.clock = shop.clock
    await other.database.start()
    sold = 7
    try:
        for round_ in range(3):
            await shop.sql("UPDATE sums SET income = income + 5, plays = plays + 1")
            if round_ % 2:
                await shop.sql("DELETE FROM sums WHERE kind IN ('item', 'payer')")

            async def sell(round_: int = round_) -> int:
                amounts = range(1 + round_, 7 + round_)
                for amount in amounts:
                    assert await shop.charge(payer, amount) == "charged"
                    shop.clock.now += MARGIN / 2
                    await other.add_up()
                return sum(amounts)

            more, *_ = await asyncio.gather(
                sell(), resum(shop), resum(other), other.roll_up(days=1), resum(other)
            )
            sold += more
            shop.clock.now += DAY / 3
        await resum(shop)
        assert await shop.codes() == set()
        report = await Earnings(shop.database).report(EVER, step=DAY)
        assert report.total.income == report.total.amount == sold
    finally:
        await other.database.stop()


# A mark that a wrong clock moved into the future


async def test_a_mark_in_the_future_is_brought_back(shop: Shop) -> None:
    payer = await a_summed_shop(shop)
    now = shop.clock.now
    shop.clock.now = now + 3 * DAY
    await shop.add_up()
    shop.clock.now = now
    await shop.charge(payer, 11)  # behind the mark: no report would ever tell of it
    assert await shop.codes() == {f"sums.{kind}" for kind in KINDS}

    await resum(shop)
    assert (await shop.database.read(read_mark)).until <= now
    await shop.charge(payer, 13)
    shop.clock.now += MARGIN + 1
    await shop.add_up()
    assert await shop.codes() == set()
    assert (await Earnings(shop.database).report(EVER, step=DAY)).total.income == 7 + 11 + 13


# The command line


def test_the_command_mends_what_the_audit_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> Any:
        return CliRunner().invoke(main, ("ledger", *args), env={"XBYTE_DATA_DIR": str(tmp_path)})

    with start_blocking_portal() as portal:
        database = Database(f"sqlite:///{tmp_path / 'xbyte.db'}")
        portal.call(database.start)
        busy = portal.call(a_busy_shop, database)
        portal.call(busy.shop.sql, "UPDATE sums SET income = income + 1")
        found = run("audit", "--no-chain")
        assert found.exit_code == 1 and "xbyte-live ledger resum" in found.stdout
        mended = run("resum", "--json")
        assert mended.exit_code == 0, mended.output
        assert set(json.loads(mended.stdout)) == {"rows"}
        assert run("audit", "--no-chain").exit_code == 0
        assert "summed again" in run("resum").stderr
        portal.call(database.stop)
