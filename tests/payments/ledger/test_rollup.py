"""Reports from sums are, to the unit, what the rows alone would say, whatever came when."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, select

from tests.support.channel_parties import Payer
from tests.support.ledger_books import PAY_TO, Shop
from xbyte_live.payments.audit.rollups import WrongSum, wrong_sums
from xbyte_live.payments.ledger.periods import DAY, SLOT, Summed
from xbyte_live.payments.ledger.retention import Retention
from xbyte_live.payments.ledger.rollup import BATCH, MARGIN, _advance, read_mark
from xbyte_live.payments.ledger.session import Session
from xbyte_live.payments.reports import earnings as reports
from xbyte_live.payments.reports.earnings import Earned, Earnings, Moment, Period
from xbyte_live.payments.x402.order import Order
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.db.tables import (
    channels,
    charges,
    deliveries,
    draws,
    purchases,
    sessions,
    sums,
)

NAMES = [f"/hls/plasma/source/{number}.ts" for number in range(3)]
PARTS = ("", "#bytes=0-9", "#bytes=10-19")


_Row = tuple[str, int, float]  # SQLite may give the number of a row that is gone to another


@dataclass(frozen=True)
class Was:
    """What one row says happened; ``resource`` is empty for what are no bytes."""

    at: float
    slug: str
    payer: str
    earned: Earned
    resource: str = ""


@dataclass
class Memory:
    """All that ever was in the tables, each row as it was seen last; summed by plain loops."""

    rows: dict[_Row, Was] = field(default_factory=dict)
    detailed: int = 0

    async def look(self, database: Database) -> None:
        """See what is there now."""
        self.rows |= await database.read(_all_rows)
        self.detailed = (await database.read(read_mark)).detailed

    def within(self, period: Period) -> list[tuple[float, Was]]:
        """What counts, and when: what has no details any more does as its day begins."""
        found = []
        for row in self.rows.values():
            at = row.at if row.at >= self.detailed else row.at // DAY * DAY
            if period.since <= at < period.until and period.slug in (None, row.slug):
                found.append((at, row))
        return found

    def report(self, period: Period, step: int) -> tuple[dict[int, Earned], dict[str, Earned]]:
        steps: defaultdict[int, Earned] = defaultdict(Earned)
        items: defaultdict[str, Earned] = defaultdict(Earned)
        for at, row in self.within(period):
            steps[int((at - period.since) // step)] += row.earned
            items[row.slug] += row.earned
        return steps, items

    def moments(self, period: Period, names: Sequence[str]) -> tuple[dict[str, Moment], Moment]:
        segments: defaultdict[str, Moment] = defaultdict(Moment)
        elsewhere = Moment()
        for at, row in self.within(period):
            name, _, part = row.resource.partition("#")
            plays = row.earned.deliveries if not part or part.startswith("bytes=0-") else 0
            moment = Moment(plays, row.earned.bytes, row.earned.amount)
            if name in names and row.at >= self.detailed and at == row.at:
                segments[name] += moment
            else:
                elsewhere += moment
        return {k: m for k, m in segments.items() if m != Moment()}, elsewhere

    def payers(self, period: Period) -> dict[str, tuple[Earned, float, float]]:
        found: dict[str, list[Was]] = defaultdict(list)
        for _, row in self.within(period):
            if row.payer and row.at >= self.detailed:
                found[row.payer].append(row)
        return {
            payer: (
                sum((row.earned for row in rows), Earned()),
                min(row.at for row in rows),
                max(row.at for row in rows),
            )
            for payer, rows in found.items()
        }


def _all_rows(db: Connection) -> dict[_Row, Was]:
    def owned(table: Any, owners: Any, row: Any, name: str) -> str:
        query = select(owners.c[name]).where(owners.c.id == row[table])
        return str(db.execute(query).scalar_one())

    found: dict[_Row, Was] = {}
    for row in db.execute(select(deliveries)).mappings():
        payer = owned("channel", channels, row, "payer")
        found["delivery", row["id"], row["created_at"]] = _paid(row, row["created_at"], payer)
    for row in db.execute(select(charges).where(charges.c.state == "settled")).mappings():
        found["charge", row["id"], row["settled_at"]] = _paid(row, row["settled_at"], row["payer"])
    for row in db.execute(select(draws)).mappings():
        slug, payer = (owned("session_id", sessions, row, name) for name in ("slug", "payer"))
        earned = Earned(1, row["size"], row["amount"], 0)
        found["draw", row["id"], row["created_at"]] = Was(
            row["created_at"], slug, payer, earned, row["resource"]
        )
    for row in db.execute(select(sessions).where(sessions.c.returned > 0)).mappings():
        earned = Earned(income=-row["returned"])
        found["return", row["id"], row["closed_at"]] = Was(
            row["closed_at"], row["slug"], "", earned
        )
    for row in db.execute(select(purchases)).mappings():
        if row["origin"].startswith("credit-"):
            slug = owned("session_id", sessions, row, "slug")
            earned = Earned(income=row["amount"])
            found["credit", row["id"], row["created_at"]] = Was(row["created_at"], slug, "", earned)
    return found


def _paid(row: Any, at: float, payer: str) -> Was:
    resource, amount = row["resource"], row["amount"]
    if resource.startswith(("/api/v1/sessions/", "/sessions/")):
        return Was(at, row["slug"], payer, Earned(income=amount))
    if resource.startswith("/debts/"):
        return Was(at, row["slug"], payer, Earned(amount=amount, income=amount))
    return Was(at, row["slug"], payer, Earned(1, row["size"], amount, amount), resource)


STEPS = (
    "charge", "charge", "charge", "exact", "exact", "exact open", "exact fails", "repay",
    "session", "exact session", "draw", "draw", "end", "exact end", "late", "add up", "add up",
    "roll up", "minute", "quarter", "hours", "days",
)  # fmt: skip
Step = tuple[str, int, int, int]


class Life:
    """One shop for all examples; each step may carry a clock that is behind by some seconds."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.memory = Memory()
        self.payers: list[Payer] = []
        self.open: list[Session] = []
        self.exact: list[Session] = []
        self.ended: list[Session] = []

    async def begin(self) -> None:
        self.payers = [self.shop.payer() for _ in range(2)]
        for payer in self.payers:
            await self.shop.deposit(payer, 10**9)

    async def step(self, step: str, behind: int, which: int, amount: int) -> None:
        shop, payer = self.shop, self.payers[which % 2]
        passing = {"minute": 60, "quarter": SLOT, "hours": 5 * 3600 + 7, "days": 3 * DAY + 11}
        if step in passing:
            shop.clock.now += passing[step]
            return
        if step == "add up":
            await shop.add_up()
            return
        if step == "roll up":
            await self.memory.look(shop.database)
            await shop.roll_up(days=2)
            return
        now = shop.clock.now
        shop.clock.now -= behind
        try:
            await self._happen(step, payer, which, amount)
        finally:
            shop.clock.now = now

    async def _happen(self, step: str, payer: Payer, which: int, amount: int) -> None:
        shop = self.shop
        resource = NAMES[which % 3] + PARTS[amount % 3]
        slug = ("plasma", "paper")[amount % 2]
        bytes_ = {"slug": slug, "resource": resource, "valid_before": 0}
        match step:
            case "charge":
                new = replace(await shop.delivery(payer, amount, resource), slug=slug)
                assert (await shop.channels.charge(new)).outcome == "charged"
            case "exact":
                await shop.exact(amount, **bytes_)
            case "exact open":
                await shop.exact(amount, lands=False, **bytes_)
            case "exact fails":
                await shop.debt(amount, "0x" + "99" * 20)
            case "repay":
                await shop.exact(amount, slug="", resource=f"/debts/0x{'99' * 20}/{PAY_TO}")
            case "session":
                bought = await shop.session(payer, 3 * amount, ttl=10**8)
                assert bought is not None
                self.open.append(bought)
            case "exact session":
                self.exact.append(await shop.exact_session(amount + 1))
            case "draw":
                for session in (*self.open, *self.exact):
                    await shop.draw(session, amount)
            case "end":
                if self.open:
                    await shop.end(self.open.pop())
            case "exact end":
                if self.exact:
                    self.ended.append(self.exact.pop())
                    await shop.end(self.ended[-1])
            case "late":
                for session in self.ended[-1:]:
                    order = Order(f"budget={amount}", 60, digest=session.digest, key=shop.tx()[-8:])
                    charge = await shop.exact(amount, slug="plasma", resource=order.resource)
                    await shop.sessions.paid(charge, order)

    async def compare(self, period: Period, step: int) -> None:
        """Each report is what the memory says."""
        earnings = Earnings(self.shop.database)
        report = await earnings.report(period, step=step)
        steps, items = self.memory.report(period, step)
        assert (report.steps, dict(report.items)) == (steps, items)
        assert report.total == sum(steps.values(), Earned())
        payers = await earnings.payers(period, limit=10**6)
        by_name = {p.payer: (p.earned, p.first_at, p.last_at) for p in payers.top}
        assert by_name == self.memory.payers(period)
        assert payers.count == len(payers.top)
        if period.slug is not None:
            moments = await earnings.moments(period, NAMES[:2])
            segments = {k: m for k, m in moments.segments.items() if m != Moment()}
            assert (segments, moments.elsewhere) == self.memory.moments(period, NAMES[:2])


PERIODS = (
    (10 * DAY, DAY), (3 * DAY, 4 * 3600), (3600, 60), (2 * DAY + 17, 900), (DAY, 3600 + 7),
)  # fmt: skip


def test_reports_are_what_the_rows_say_to_the_unit(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "_PAGE", 1)
    monkeypatch.setattr("xbyte_live.payments.ledger.rollup.BATCH", 2)
    database = Database(database_url)
    with asyncio.Runner() as runner:
        runner.run(database.start())
        life = Life(Shop(database))
        runner.run(life.begin())
        step = st.tuples(
            st.sampled_from(STEPS), st.integers(0, int(MARGIN)), st.integers(0, 5),
            st.integers(1, 60),
        )  # fmt: skip

        # Examples share a ledger, so that a smaller one would be another one.
        @settings(max_examples=12, phases=(Phase.explicit, Phase.generate))
        @given(
            st.lists(step, min_size=8, max_size=30),
            st.sampled_from(PERIODS),
            st.sampled_from((0, 1, 450, SLOT, 7 * 3600, 2 * DAY)),
            st.sampled_from((None, "plasma", "paper")),
        )
        @example(
            [
                ("exact session", 0, 0, 30), ("exact end", 0, 0, 1), ("hours", 0, 0, 1),
                ("add up", 0, 0, 1), ("late", 0, 0, 7), ("charge", 300, 0, 5),
                ("charge", 0, 1, 6), ("add up", 0, 0, 1),
            ],
            PERIODS[0], 0, "plasma",
        )  # fmt: skip
        def reports_agree(
            steps: list[Step], length: tuple[int, int], ago: int, slug: str | None
        ) -> None:
            runner.run(lived(life, steps, length, ago, slug))

        try:
            reports_agree()
        finally:
            runner.run(database.stop())


def all_wrong_sums(db: Connection) -> list[WrongSum]:
    """Where the sums themselves are not what the rows say."""
    return list(wrong_sums(db))


async def lived(
    life: Life, steps: list[Step], length: tuple[int, int], ago: int, slug: str | None
) -> None:
    for step in steps:
        await life.step(*step)
    await life.memory.look(life.shop.database)
    assert await life.shop.database.read(all_wrong_sums) == []
    until = life.shop.clock.now + 1 - ago
    aligned = -(-until // SLOT) * SLOT
    for end in (until, aligned, aligned // DAY * DAY):
        await life.compare(Period(max(0.0, end - length[0]), end, slug), length[1])
    await life.compare(Period(0.0, 1e11, slug), DAY)


# The mark


@pytest.fixture
def shop(database: Database) -> Shop:
    return Shop(database)


async def test_what_is_over_is_summed_once_by_however_many(shop: Shop) -> None:
    payer = shop.payer()
    await shop.deposit(payer, 10_000)
    for amount in (3, 4, 5):
        await shop.charge(payer, amount)
    assert await shop.add_up() == 0  # it may still be that another node is a little behind
    shop.clock.now += MARGIN + 1
    counts = await asyncio.gather(*(shop.add_up() for _ in range(4)))
    assert sum(counts) == 3
    assert await shop.add_up() == 0
    found = await shop.database.read(
        lambda db: db.execute(
            select(sums.c.deliveries, sums.c.amount).where(sums.c.kind == "all")
        ).all()
    )
    assert found == [(3, 12)] * 2  # a day, and a slot


async def test_a_batch_that_is_broken_off_leaves_nothing(database: Database, shop: Shop) -> None:
    payer = shop.payer()
    await shop.deposit(payer, 10_000)
    await shop.charge(payer, 3)
    shop.clock.now += MARGIN + 1

    def broken_off(db: Connection) -> None:
        assert _advance(db, shop.clock.now - MARGIN) == 1
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        await database.write(broken_off)
    assert await database.read(read_mark) == Summed()
    assert await database.read(lambda db: db.execute(select(sums.c.id)).all()) == []
    assert await shop.add_up() == 1


async def test_details_go_with_what_is_rolled_up(database: Database, shop: Shop) -> None:
    payer = shop.payer()
    await shop.deposit(payer, 10_000)
    await shop.charge(payer, 3)
    shop.pass_days(10)
    await shop.charge(payer, 4)
    assert await shop.roll_up(days=5) == 1
    shop.clock.now += MARGIN + 1
    await shop.add_up()
    kinds = select(sums.c.kind, sums.c.span, sums.c.amount).order_by(sums.c.amount)
    found = [tuple(row) for row in await database.read(lambda db: db.execute(kinds).all())]
    assert sorted(row for row in found if row[2] == 3) == [("all", DAY, 3), ("item", DAY, 3)]
    payers = await Earnings(database).payers(Period(0.0, 1e11), limit=5)
    assert [one.earned.amount for one in payers.top] == [4]


async def test_nothing_goes_that_is_not_summed(database: Database, shop: Shop) -> None:
    payer = shop.payer()
    await shop.deposit(payer, 10_000)
    await shop.charge(payer, 3)
    shop.pass_days(10)
    retention = Retention(database, days=5, retry_window=120, clock=shop.clock)
    assert await retention.roll_up() == 0


async def test_more_rows_of_one_moment_than_a_batch_are_summed(shop: Shop) -> None:
    payer = shop.payer()
    await shop.deposit(payer, 100_000)
    await shop.charge(payer, 1)
    await shop.database.write(partial(_copy_delivery, copies=2 * BATCH))
    shop.clock.now += MARGIN + 1
    assert await shop.add_up() == 2 * BATCH + 1
    report = await Earnings(shop.database).report(Period(0.0, 1e11), step=DAY)
    assert report.total.deliveries == 2 * BATCH + 1


def _copy_delivery(db: Connection, copies: int) -> int:
    first = dict(db.execute(select(deliveries)).mappings().one())
    del first["id"]
    rows = [{**first, "epoch": 9, "cumulative": number} for number in range(1, copies + 1)]
    return db.execute(deliveries.insert(), rows).rowcount
