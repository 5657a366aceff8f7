"""The ledger of sessions on both databases: bought, drawn, topped up, ended, each once."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from tests.support.sessions import (
    ASSET,
    DELAY,
    NETWORK,
    PAYEE,
    PAYER,
    SECRET,
    Books,
    a_draw,
    an_order,
    open_books,
)
from xbyte_live.payments.ledger.actions import ActionLedger
from xbyte_live.payments.ledger.session import Session
from xbyte_live.payments.reports.earnings import Earnings, Period
from xbyte_live.payments.reports.export import Entry, Export
from xbyte_live.payments.x402.order import charge_origin, digest_of, read_order, token_of
from xbyte_live.storage.db.engine import Database


@pytest.fixture
def books(database: Database) -> Books:
    return open_books(database)


async def outcomes(books: Books, *draws: object) -> list[str]:
    drawn = await asyncio.gather(*(books.draws.draw(draw) for draw in draws))  # type: ignore[arg-type]
    return [answer.outcome for answer in drawn]


# Bought by a voucher


async def test_a_voucher_buys_a_session_whose_money_is_held(books: Books) -> None:
    channel = await books.channel()
    session = await books.buy(channel, 100)
    after = await books.fresh(channel)
    assert (session.budget, session.drawn, session.left) == (100, 0, 100)
    assert (session.slug, session.payer, session.pay_to) == ("plasma", PAYER, PAYEE)
    assert session.expires_at == books.clock() + 3600
    assert (after.charged, after.held, after.claimable) == (100, 100, 0)
    await books.held()


async def test_the_same_voucher_again_is_the_same_session(books: Books) -> None:
    channel, order = await books.channel(), an_order()
    new = books.voucher(channel, 100, order)
    charged = await asyncio.gather(*(books.sessions.charge(new, order) for _ in range(50)))
    made = {(await books.bought(charging, new)).id for charging in charged}
    assert Counter(c.outcome for c in charged if c) == {"charged": 1, "again": 49}
    assert len(made) == 1
    assert (await books.fresh(channel)).held == 100
    await books.held()


async def test_a_session_that_the_channel_cannot_pay_is_not_made(books: Books) -> None:
    channel, order = await books.channel(balance=99), an_order()
    charging = await books.sessions.charge(books.voucher(channel, 100, order), order)
    assert charging is not None and charging.outcome == "balance"
    assert (await books.sessions.totals()).count == 0
    await books.held()


async def test_a_top_up_adds_to_budget_and_time(books: Books) -> None:
    channel = await books.channel()
    session = await books.buy(channel, 100)
    books.clock.now += 600
    more = an_order(digest=session.digest)
    again = await books.buy(channel, 50, more)
    assert (again.id, again.budget) == (session.id, 150)
    assert again.expires_at == session.expires_at + 600
    assert (await books.fresh(channel)).held == 150
    await books.held()


async def test_a_top_up_by_another_channel_is_not_charged(books: Books) -> None:
    one, other = await books.channel(1), await books.channel(2)
    session = await books.buy(one)
    more = an_order(digest=session.digest)
    assert await books.sessions.charge(books.voucher(other, 50, more), more) is None
    assert (await books.fresh(other)).charged == 0
    await books.held()


async def test_a_session_that_is_over_is_not_topped_up(books: Books) -> None:
    channel = await books.channel()
    session = await books.buy(channel)
    await books.sessions.end(session)
    more = an_order(digest=session.digest)
    new = books.voucher(await books.fresh(channel), 50, more)
    assert await books.sessions.charge(new, more) is None
    assert (await books.fresh(channel)).charged == 0


# Drawn


async def test_a_draw_lets_go_what_was_held(books: Books) -> None:
    channel = await books.channel()
    session = await books.buy(channel, 100)
    drawn = await books.draws.draw(a_draw(session, amount=30))
    after = await books.fresh(channel)
    assert (drawn.outcome, drawn.amount) == ("drawn", 30)
    assert drawn.session is not None and drawn.session.left == 70
    assert (after.charged, after.held, after.claimable) == (100, 70, 30)
    await books.held()


@pytest.mark.parametrize("by_channel", [True, False])
async def test_300_parallel_draws_of_a_session_with_room_for_ten(
    books: Books, by_channel: bool
) -> None:
    if by_channel:
        session = await books.buy(await books.channel(), 109)
    else:
        session = await books.sessions.paid(await books.paid(109), an_order())
    found = await outcomes(books, *(a_draw(session, msn) for msn in range(300)))
    assert Counter(found) == {"drawn": 10, "empty": 290}
    after = await books.sessions.find(session.digest)
    assert after is not None and (after.drawn, after.left) == (100, 9)
    await books.held()


async def test_300_parallel_requests_for_one_segment_draw_once(books: Books) -> None:
    session = await books.buy(await books.channel(), 100)
    found = await outcomes(books, *(a_draw(session, 7) for _ in range(300)))
    assert Counter(found) == {"drawn": 1, "again": 299}
    await books.held()


async def test_several_servers_draw_no_more_than_there_is(
    books: Books, database: Database, database_url: str
) -> None:
    session = await books.buy(await books.channel(), 100)
    other = Database(database_url)
    await other.start()
    try:
        second = open_books(other)
        both = await asyncio.gather(
            outcomes(books, *(a_draw(session, msn) for msn in range(0, 40, 2))),
            outcomes(second, *(a_draw(session, msn) for msn in range(1, 41, 2))),
        )
    finally:
        await other.stop()
    assert Counter(both[0] + both[1]) == {"drawn": 10, "empty": 30}
    await books.held()


async def test_the_same_bytes_are_free_within_the_retry_window_and_parts_of_them(
    books: Books,
) -> None:
    session = await books.buy(await books.channel(), 100)
    whole = a_draw(session)
    part = replace(whole, resource=f"{whole.whole}#bytes=0-9", amounts={PAYEE: 1})
    assert await outcomes(books, whole) == ["drawn"]
    assert await outcomes(books, whole, part) == ["again", "again"]
    books.clock.now += 120
    assert await outcomes(books, part) == ["drawn"]
    assert await outcomes(books, part, whole) == ["again", "drawn"]
    await books.held()


async def test_what_may_be_watched_again_is_drawn_once_a_session(books: Books) -> None:
    session = await books.buy(await books.channel(), 100)
    draw = a_draw(session, repeats=True)
    assert await outcomes(books, draw) == ["drawn"]
    books.clock.now += 3000
    assert await outcomes(books, draw) == ["again"]


async def test_a_session_opens_one_item_for_one_payee(books: Books) -> None:
    session = await books.buy(await books.channel(), 100)
    found = await outcomes(
        books,
        a_draw(session, slug="other"),
        a_draw(session, amounts={"0x" + "12" * 20: 1}),
        a_draw(session, retry_only=True),
        a_draw(replace(session, digest="00" * 32)),
        a_draw(session, amount=101),
    )
    assert found == ["over", "unsold", "unsold", "over", "empty"]


async def test_nothing_is_drawn_once_the_time_is_over(books: Books) -> None:
    session = await books.buy(await books.channel(), 100)
    assert await outcomes(books, a_draw(session)) == ["drawn"]
    books.clock.now = session.expires_at
    assert await outcomes(books, a_draw(session), a_draw(session, 1)) == ["over", "over"]


async def test_nothing_is_drawn_that_could_not_be_claimed_before_a_withdrawal(
    books: Books,
) -> None:
    session = await books.buy(await books.channel(), 100)
    requested = int(books.clock())
    books.clock.now += 1
    await books.channel(leaving=requested)
    assert await outcomes(books, a_draw(session, 1)) == ["drawn"]
    books.clock.now = requested + DELAY / 2 + 1
    assert await outcomes(books, a_draw(session, 2)) == ["leaving"]


# Ended


async def test_the_rest_of_a_channels_session_is_never_claimed(books: Books) -> None:
    channel = await books.channel()
    session = await books.buy(channel, 100)
    await books.draws.draw(a_draw(session, amount=30))
    ended = await books.sessions.end(session)
    after = await books.fresh(channel)
    assert ended is not None and (ended.session.returned, ended.way) == (70, "channel")
    assert (after.charged, after.held, after.claimable, after.epoch) == (30, 0, 30, 1)
    assert (after.signed, after.signature) == (100, "0x64"), "the highest voucher is kept"
    assert await outcomes(books, a_draw(session, 5)) == ["over"]
    await books.held()


async def test_after_the_end_the_payer_goes_on_from_what_was_charged(books: Books) -> None:
    channel = await books.channel()
    session = await books.buy(channel, 100)
    await books.sessions.end(session)
    stale = books.voucher(replace(await books.fresh(channel), charged=100), 10, an_order())
    refused = await books.channels.charge(stale)
    assert refused.outcome == "mismatch"
    assert refused.channel is not None and refused.channel.charged == 0
    again = await books.buy(channel, 100)
    assert again.id != session.id
    assert again.digest != session.digest, "the same voucher, in another epoch"
    await books.held()


async def test_a_session_ends_once(books: Books) -> None:
    session = await books.sessions.paid(await books.paid(100), an_order())
    ended = await asyncio.gather(*(books.sessions.end(session) for _ in range(20)))
    assert sum(one is not None for one in ended) == 1
    assert await books.sessions.credit(NETWORK, ASSET, PAYER, PAYEE) == 100


async def test_draws_and_the_end_together_lose_nothing(books: Books) -> None:
    channel = await books.channel()
    session = await books.buy(channel, 100)
    _, found = await asyncio.gather(
        books.sessions.end(session), outcomes(books, *(a_draw(session, msn) for msn in range(20)))
    )
    after = await books.fresh(channel)
    assert after.charged == 10 * found.count("drawn")
    await books.held()


async def test_only_what_has_expired_is_ended_by_the_sweep(books: Books) -> None:
    channel = await books.channel()
    session = await books.buy(channel, 100, an_order(ttl=60))
    assert await books.sessions.expired(10) == []
    books.clock.now += 60
    (found,) = await books.sessions.expired(10)
    assert found.id == session.id
    books.clock.now -= 1
    assert await books.sessions.end(found, expired=True) is None
    books.clock.now += 1
    assert await books.sessions.end(found, expired=True) is not None
    await books.held()


# Bought with exact


async def test_a_charge_buys_one_session_however_often_it_comes(books: Books) -> None:
    charge, order = await books.paid(100), an_order()
    made = await asyncio.gather(*(books.sessions.paid(charge, order) for _ in range(50)))
    assert {session.id for session in made} == {made[0].id}
    assert (made[0].budget, made[0].channel, made[0].payer) == (100, None, PAYER)
    assert made[0].digest == digest_of(token_of(SECRET, charge_origin(charge.id)))
    await books.held()


async def test_a_charge_tops_up_once(books: Books) -> None:
    session = await books.sessions.paid(await books.paid(100), an_order())
    more = an_order(digest=session.digest)
    charge = await books.paid(50, more)
    made = await asyncio.gather(*(books.sessions.paid(charge, more) for _ in range(50)))
    assert {one.budget for one in made} == {150}
    await books.held()


async def test_what_comes_too_late_for_its_session_goes_back(books: Books) -> None:
    session = await books.sessions.paid(await books.paid(100), an_order())
    await books.sessions.end(session)
    more = an_order(digest=session.digest)
    charge = await books.paid(50, more)
    for _ in range(2):
        after = await books.sessions.paid(charge, more)
        assert (after.budget, after.returned, after.left) == (150, 150, 0)
    assert await books.sessions.credit(NETWORK, ASSET, PAYER, PAYEE) == 150


async def test_credit_goes_into_the_payers_next_session_once(books: Books) -> None:
    session = await books.sessions.paid(await books.paid(100), an_order())
    await books.draws.draw(a_draw(session, amount=40))
    ended = await books.sessions.end(session)
    assert ended is not None and ended.way == "credit"
    other = await books.sessions.paid(await books.paid(10, payer="0x" + "77" * 20), an_order())
    charge = await books.paid(100)
    made = [await books.sessions.paid(charge, an_order()) for _ in range(2)]
    assert other.budget == 10, "another payer has no part in it"
    assert [one.budget for one in made] == [160, 160]
    assert await books.sessions.credit(NETWORK, ASSET, PAYER, PAYEE) == 0
    assert await books.sessions.price(made[0]) == 100
    await books.held()


async def test_with_the_payees_key_the_rest_is_an_action_and_no_credit(database: Database) -> None:
    books = open_books(database, payees=(PAYEE,))
    rows = ActionLedger(database, clock=books.clock)
    session = await books.sessions.paid(await books.paid(100), an_order())
    await books.draws.draw(a_draw(session, amount=40))
    ended = await books.sessions.end(session)
    (action,) = await rows.due(10, returns=True)
    assert ended is not None and ended.way == "transfer"
    assert (action.kind, action.amount, action.payer, action.pay_to) == (
        "return", 60, PAYER, PAYEE,
    )  # fmt: skip
    assert await rows.due(10) == [], "nobody else looks after it"
    assert await books.sessions.credit(NETWORK, ASSET, PAYER, PAYEE) == 0


async def test_an_empty_session_gives_nothing_back(database: Database) -> None:
    books = open_books(database, payees=(PAYEE,))
    session = await books.sessions.paid(await books.paid(40), an_order())
    await books.draws.draw(a_draw(session, amount=40))
    assert await books.sessions.end(session) is not None
    assert await ActionLedger(database).due(10, returns=True) == []


async def test_what_was_paid_and_not_opened_is_found(books: Books) -> None:
    opened = await books.paid(100)
    await books.sessions.paid(opened, an_order())
    lost = await books.paid(100)
    await books.paid(5, replace(an_order(), slug="x"))
    found, seen = await books.sessions.unopened(0)
    assert found == [lost.id, lost.id + 1]
    assert seen == lost.id - 1
    for number in found:
        charge = await books.charges.get(number)
        assert charge is not None
        order = read_order(charge.resource)
        assert order is not None
        await books.sessions.paid(charge, order)
    assert await books.sessions.unopened(seen) == ([], lost.id + 1)


@pytest.mark.parametrize(
    "order",
    [
        an_order(),
        an_order(asked="budget=500000", key="A.b_c-1"),
        an_order(asked="minutes=10", ttl=1),
        an_order(digest="ab" * 32, asked="budget=1"),
    ],
)
def test_an_order_is_what_its_resource_says(order: object) -> None:
    assert isinstance(order, type(an_order()))
    found = read_order(order.resource)
    assert found == (replace(order, slug="") if order.digest else order)


def test_tokens_are_long_and_nobodys_guess() -> None:
    token = token_of(SECRET, "x1")
    assert len(token) == 43
    assert token != token_of(SECRET, "x2") != token_of(b"t" * 32, "x2")
    assert digest_of(token) == digest_of(token)
    for odd in ("", "a", token + "a", token[:-1], token[:-1] + "!", "é" * 43, token + "\n"):
        assert digest_of(odd) is None


async def test_totals_tell_what_is_open(books: Books) -> None:
    first: Session = await books.buy(await books.channel(), 100)
    await books.buy(await books.channel(2), 50)
    await books.draws.draw(a_draw(first, amount=30))
    totals = await books.sessions.totals()
    assert (totals.count, totals.left) == (2, 120)


async def test_credit_that_buys_another_session_is_income_again(
    database: Database, books: Books
) -> None:
    """What was paid is income in the end, however often its rest went around."""
    earnings, export = Earnings(database), Export(database)
    session = await books.sessions.paid(await books.paid(100), an_order())
    await books.draws.draw(a_draw(session, amount=40))
    for _ in range(4):  # each takes along what the one before gave back
        await books.sessions.end(session)
        session = await books.sessions.paid(await books.paid(1), an_order())
    await books.draws.draw(a_draw(session, msn=3, amount=session.budget))
    await books.sessions.end(session)

    total = (await earnings.report(Period(0.0, 1e11), step=10**9)).total
    rows: list[Entry] = []
    await export.entries(0.0, 1e11, rows.append, lambda *_: None)

    assert (total.amount, total.income) == (104, 104)
    assert sum(row.income for row in rows) == 104
    assert sum(row.amount for row in rows if row.kind == "credit") == 60 + 61 + 62 + 63
