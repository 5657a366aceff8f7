"""Used login codes and ended logins are remembered while they could be shown, and no longer."""

from sqlalchemy import select, text, update

from xbyte_live.storage.coordination import _KEPT, LeaseLedger, Logins
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.db.tables import leases

HOUR = 3600.0


async def names(database: Database) -> set[str]:
    query = select(leases.c.name)
    return set(await database.read(lambda db: db.execute(query).scalars().all()))


async def pass_time(database: Database, seconds: float) -> None:
    """As leases see it: time is the database's, so theirs comes nearer."""
    statement = update(leases).values(until=leases.c.until - seconds)
    await database.write(lambda db: db.execute(statement).rowcount)


async def test_a_code_is_used_once_and_a_login_ends_for_good(database: Database) -> None:
    here, elsewhere = Logins(database), Logins(database)
    assert await here.use("a" * 24, seconds=HOUR)
    assert not await elsewhere.use("a" * 24, seconds=HOUR)
    await here.end("b" * 24, seconds=HOUR)
    assert await elsewhere.has_ended("b" * 24) and not await elsewhere.has_ended("a" * 24)


async def test_what_could_still_be_shown_is_kept(database: Database) -> None:
    logins = Logins(database)
    await logins.use("a" * 24, seconds=HOUR)
    await logins.end("b" * 24, seconds=HOUR)
    for passed in (HOUR - 60, 60 + _KEPT - 60):  # by a clock that is not every node's
        await pass_time(database, passed)
        assert await logins.forget() == 0
        assert await logins.has_ended("b" * 24)
    assert len(await names(database)) == 2


async def test_what_nobody_can_show_any_more_is_forgotten_and_nothing_else(
    database: Database,
) -> None:
    logins = Logins(database)
    await LeaseLedger(database).take("settlement", "a node", seconds=1)
    await LeaseLedger(database).take("loginX", "no login", seconds=1)
    await logins.use("a" * 24, seconds=HOUR)
    await logins.end("b" * 24, seconds=HOUR)
    await logins.end("c" * 24, seconds=9 * HOUR)
    await pass_time(database, HOUR + _KEPT + 1)
    assert await logins.forget() == 2
    assert await names(database) == {"settlement", "loginX", "logout " + "c" * 24}


async def test_many_are_forgotten_bit_by_bit(database: Database) -> None:
    fill = text("INSERT INTO leases (name, holder, until) VALUES (:name, 'x', 0)")
    rows = [{"name": f"logout {number:024x}"} for number in range(1500)]
    await database.write(lambda db: db.execute(fill, rows).rowcount)
    logins = Logins(database)
    assert [await logins.forget() for _ in range(3)] == [1000, 500, 0]
