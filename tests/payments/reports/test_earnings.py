"""What was earned adds up to the books to the unit, on both databases."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import insert

from tests.support.ledger_books import DAYS, PAY_TO, Busy, Shop, a_busy_shop
from xbyte_live.payments.ledger.periods import DAY
from xbyte_live.payments.reports.earnings import Balance, Earned, Earnings, Moment, Period
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.db.tables import deliveries

EVER = Period(0.0, 1e11)
RETURNED_BY_EXACT = 330  # what the session bought with exact gave back; no channel knows of it


@pytest.fixture
async def busy(database: Database) -> Busy:
    return await a_busy_shop(database)


@pytest.fixture
def shop(database: Database) -> Shop:
    return Shop(database)


@pytest.fixture
def earnings(database: Database) -> Earnings:
    return Earnings(database)


def by_scheme(rows: list[Balance]) -> tuple[Balance, Balance]:
    channels, exact = rows
    assert (channels.scheme, exact.scheme) == ("batch-settlement", "exact")
    return channels, exact


async def test_the_series_adds_up_to_what_the_audit_says(busy: Busy, earnings: Earnings) -> None:
    audit = await busy.shop.audit(chain=False)
    channels, exact = sorted(audit.sums, key=lambda sums: sums.scheme)
    report = await earnings.report(EVER, step=DAY)
    settled = by_scheme(await earnings.settlement())

    income = sum(earned.income for earned in report.steps.values())
    assert income == report.total.income
    assert income == (
        channels.charged + exact.settled + settled[1].archived - RETURNED_BY_EXACT
    )  # to the unit


async def test_what_bytes_cost_is_what_was_charged_less_what_sessions_hold(
    busy: Busy, earnings: Earnings
) -> None:
    channels, _ = by_scheme(await earnings.settlement())
    report = await earnings.report(EVER, step=DAY)

    assert channels.held == 300 - 60
    assert report.total.amount == report.total.income - channels.held
    assert report.total.amount == sum(earned.amount for earned in report.steps.values())
    assert report.total.amount == sum(earned.amount for _, earned in report.items)


async def test_settlement_says_what_the_audit_says(busy: Busy, earnings: Earnings) -> None:
    audit = await busy.shop.audit(chain=False)
    for sums, row in zip(
        sorted(audit.sums, key=lambda sums: sums.scheme),
        by_scheme(await earnings.settlement()),
        strict=True,
    ):
        assert (row.network, row.asset, row.pay_to) == (sums.network, sums.asset, sums.pay_to)
        assert (row.charged, row.claimed, row.settled) == (
            sums.charged, sums.claimed, sums.settled,
        )  # fmt: skip


async def test_settlement_tells_what_waits_and_what_is_owed(busy: Busy, earnings: Earnings) -> None:
    await busy.shop.charge(busy.plain, 21)
    await busy.shop.claim(busy.plain, lands=False)
    channels, exact = by_scheme(await earnings.settlement())

    assert channels.unclaimed == 11 + 21 + 12  # nothing is claimed before it has landed
    assert (channels.waiting, channels.in_doubt) == (11 + 21, 0)
    assert (exact.waiting, exact.in_doubt, exact.owed) == (16, 0, 14)
    assert exact.archived == 40


async def test_steps_hold_what_happened_in_them(shop: Shop, earnings: Earnings) -> None:
    payer = shop.payer()
    await shop.deposit(payer, 10_000)
    begin = shop.clock.now
    for seconds, amount in ((0.0, 1), (9.9, 2), (10.0, 4), (35.0, 8)):
        shop.clock.now = begin + seconds
        await shop.charge(payer, amount)
    report = await earnings.report(Period(begin, begin + 35), step=10)

    assert {number: earned.amount for number, earned in report.steps.items()} == {0: 3, 1: 4}
    assert report.total == Earned(3, 70, 7, 7)  # the end is not included


async def test_older_days_stay_with_their_day(busy: Busy, earnings: Earnings) -> None:
    before = await earnings.report(EVER, step=DAY)
    busy.shop.pass_days(DAYS + 1)
    await busy.shop.roll_up()
    after = await earnings.report(EVER, step=DAY)

    assert after == before


async def test_items_come_by_amount_and_one_may_be_asked_for(
    shop: Shop, earnings: Earnings, database: Database
) -> None:
    payer = shop.payer()
    await shop.deposit(payer, 10_000)
    await shop.charge(payer, 5)
    await shop.exact(50, slug="paper", resource="/objects/paper@0123456789abcdef", size=7)
    report = await earnings.report(EVER, step=DAY)
    alone = await earnings.report(replace(EVER, slug="paper"), step=DAY)

    assert [(slug, earned.amount) for slug, earned in report.items] == [
        ("paper", 50),
        ("plasma", 5),
    ]
    assert alone.total == Earned(1, 7, 50, 50)
    assert [slug for slug, _ in alone.items] == ["paper"]


async def test_a_debt_that_is_paid_has_no_bytes_of_its_own(shop: Shop, earnings: Earnings) -> None:
    debtor = "0x" + "99" * 20
    await shop.debt(13, debtor)
    assert (await earnings.report(EVER, step=DAY)).total == Earned()
    await shop.exact(13, resource=f"/debts/{debtor}/{PAY_TO}", slug="", size=2**20)
    assert (await earnings.report(EVER, step=DAY)).total == Earned(0, 0, 13, 13)


async def add_deliveries(database: Database, *rows: tuple[str, int, int]) -> None:
    """Deliveries of the first channel: resource, amount, size."""
    values = [
        {
            "channel": 1, "epoch": 9, "cumulative": 1000 + number, "amount": amount,
            "slug": "plasma", "resource": resource, "size": size, "created_at": 5.0,
        }
        for number, (resource, amount, size) in enumerate(rows)
    ]  # fmt: skip
    await database.write(lambda db: db.execute(insert(deliveries), values).rowcount)


async def test_moments_count_every_play(shop: Shop, earnings: Earnings, database: Database) -> None:
    payer = shop.payer()
    await shop.deposit(payer, 10_000)
    await add_deliveries(
        database,
        ("/hls/plasma/source/0.ts", 3, 30),
        ("/hls/plasma/source/0.ts", 3, 30),
        ("/hls/plasma/source/1.ts#bytes=0-9", 1, 10),
        ("/hls/plasma/source/1.ts#bytes=10-29", 2, 20),
        ("/hls/plasma/source/900.ts", 7, 70),
    )
    names = ["/hls/plasma/source/0.ts", "/hls/plasma/source/1.ts", "/hls/plasma/source/2.ts"]
    found = await earnings.moments(Period(0.0, 10.0, "plasma"), names)

    assert found.segments == {names[0]: Moment(2, 60, 6), names[1]: Moment(1, 30, 3)}
    assert found.elsewhere == Moment(1, 70, 7)


async def test_moments_add_up_to_what_an_item_earned(busy: Busy, earnings: Earnings) -> None:
    report = await earnings.report(EVER, step=DAY)
    moments = await earnings.moments(Period(0.0, 1e11, "plasma"), ["/hls/plasma/source/0.ts"])
    found = sum((*moments.segments.values(), moments.elsewhere), Moment())
    amounts = dict(report.items)

    assert found.amount == amounts["plasma"].amount
    assert found.bytes == amounts["plasma"].bytes


async def test_payers_come_by_what_they_paid(shop: Shop, earnings: Earnings) -> None:
    small, large = shop.payer(), shop.payer()
    begin = shop.clock.now
    for payer in (small, large):
        await shop.deposit(payer, 10_000)
    await shop.charge(small, 5)
    session = await shop.session(large, 100)
    assert session is not None
    shop.clock.now += 60
    await shop.draw(session, 30)
    await shop.charge(large, 7)
    await shop.exact(6, payer="0x" + "77" * 20)
    found = await earnings.payers(EVER, limit=2)

    assert found.count == 3
    assert [(p.payer, p.earned.amount) for p in found.top] == [
        (large.config.payer.lower(), 37), ("0x" + "77" * 20, 6),
    ]  # fmt: skip
    assert (found.top[0].first_at, found.top[0].last_at) == (begin, begin + 60)
    assert found.top[0].earned == Earned(2, 370, 37, 107)


async def test_lately_says_who_pays_for_what_now(shop: Shop, earnings: Earnings) -> None:
    one, other = shop.payer(), shop.payer()
    for payer in (one, other):
        await shop.deposit(payer, 10_000)
        await shop.charge(payer, 5)
    await shop.charge(one, 5)
    found = await earnings.lately(Period(shop.clock.now - 60, shop.clock.now + 1))

    assert [(lately.slug, lately.earned.amount, lately.payers) for lately in found] == [
        ("", 15, 2), ("plasma", 15, 2),
    ]  # fmt: skip


async def test_an_empty_ledger_earned_nothing(earnings: Earnings) -> None:
    answers: list[Any] = [
        (await earnings.report(EVER, step=60)).total,
        (await earnings.moments(Period(0, 1, "plasma"), [])).elsewhere,
        (await earnings.payers(EVER, limit=5)).top,
        await earnings.settlement(),
        (await earnings.lately(EVER))[1:],
    ]
    assert answers == [Earned(), Moment(), [], [], []]
