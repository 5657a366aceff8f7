"""Sessions under several processes and kill -9: what is held, drawn and owed always agrees."""

import asyncio
import random
from collections import Counter

import pytest
from sqlalchemy import func, select

from tests.support.session_children import draw_many, live_until_killed, spawn
from tests.support.sessions import Books, an_order, open_books
from xbyte_live.payments.x402.order import read_order
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.db.tables import charges, credits, purchases, sessions


@pytest.mark.parametrize("by_channel", [True, False])
async def test_several_processes_draw_a_session_to_the_last_unit(
    database_url: str, by_channel: bool
) -> None:
    database = Database(database_url)
    await database.start()
    books = open_books(database)
    if by_channel:
        session = await books.buy(await books.channel(), 105)
    else:
        session = await books.sessions.paid(await books.paid(105), an_order())
    children = await asyncio.gather(
        *(spawn(draw_many, database_url, session.digest, str(n), "100", "3") for n in range(3))
    )
    for child in children:
        child.go()
    said = await asyncio.gather(*(child.rest() for child in children))
    assert sum(int(number) for (number,) in said) == 10
    after = await books.sessions.find(session.digest)
    assert after is not None and after.drawn == 100
    await books.held()
    await database.stop()


async def test_killed_at_any_moment_nothing_is_lost_or_taken_twice(database_url: str) -> None:
    chance = random.Random(4)
    drawn: Counter[str] = Counter()
    for crash in range(5):
        child = await spawn(live_until_killed, database_url, str(1 + 10 * (crash % 2)))
        child.go()
        for _ in range(chance.randrange(5, 60)):
            digest, amount = (await child.line()).split()
            drawn[digest] += int(amount)
        for line in await child.kill():
            digest, amount = line.split()
            drawn[digest] += int(amount)
        database = Database(database_url)
        await database.start()
        await check(open_books(database), drawn)
        await database.stop()
    assert sum(drawn.values()) > 0


async def check(books: Books, drawn: Counter[str]) -> None:
    await books.held()
    for digest, amount in drawn.items():
        session = await books.sessions.find(digest)
        assert session is not None and session.drawn >= amount, "bytes left, so it is drawn"
    found, _ = await books.sessions.unopened(0, limit=1000)
    for number in found:
        charge = await books.charges.get(number)
        order = read_order(charge.resource) if charge else None
        assert charge is not None and order is not None
        await books.sessions.paid(charge, order)
    assert (await books.sessions.unopened(0))[0] == []
    paid, bought, kept, credit = await books.database.read(
        lambda db: [
            int(db.execute(query).scalar() or 0)
            for query in (
                select(func.sum(charges.c.amount)).where(charges.c.state == "settled"),
                select(func.sum(purchases.c.amount)).where(purchases.c.charge_id.is_not(None)),
                select(func.sum(sessions.c.budget - sessions.c.returned)).where(
                    sessions.c.channel.is_(None)
                ),
                select(func.sum(credits.c.amount)),
            )
        ]
    )
    assert paid == bought, "every settled charge gave its session its money, once"
    assert paid == kept + credit, "what was paid is in sessions, or the payers' credit"
    await books.held()
