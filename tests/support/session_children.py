"""What session tests run in processes of their own: ``python -m`` this, to be killed."""

import asyncio
import sys
from collections.abc import Awaitable, Callable

from tests.support.ledger_children import ROOT, Child, say
from tests.support.sessions import Books, a_draw, an_order, open_books
from xbyte_live.storage.db.engine import Database


async def spawn(work: Callable[..., Awaitable[None]], *args: str) -> Child:
    """Start one of the works below and wait until it is ready."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.session_children", work.__name__, *args),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    child = Child(process)
    assert await child.line() == "ready"
    return child


async def draw_many(books: Books, digest: str, first: str, count: str, step: str) -> None:
    """Draw for that many segments at once; says how many were drawn."""
    session = await books.sessions.find(digest)
    assert session is not None
    numbers = range(int(first), int(first) + int(count) * int(step), int(step))
    drawn = await asyncio.gather(*(books.draws.draw(a_draw(session, n)) for n in numbers))
    say(sum(one.outcome == "drawn" for one in drawn))


async def live_until_killed(books: Books, salt: str) -> None:
    """Buy, draw, top up and end sessions by voucher and by charge, for ever; says every draw."""

    async def by_voucher(number: int) -> None:
        channel = await books.channel(number, balance=10**12)
        while True:
            session = await books.buy(channel, 100)
            drawn = [books.draws.draw(a_draw(session, msn)) for msn in range(4)]
            more = books.buy(channel, 30, an_order(digest=session.digest))
            for answer in await asyncio.gather(*drawn):
                assert answer.outcome == "drawn"
                say(f"{session.digest} 10")
            await more
            await books.sessions.end(session)

    async def by_charge(number: int) -> None:
        payer = f"0x{number:040x}"
        while True:
            charge = await books.paid(100, payer=payer)
            session = await books.sessions.paid(charge, an_order())
            for answer in await asyncio.gather(
                *(books.draws.draw(a_draw(session, msn)) for msn in range(4))
            ):
                assert answer.outcome == "drawn"
                say(f"{session.digest} 10")
            more = an_order(digest=session.digest)
            await books.sessions.paid(await books.paid(30, more, payer), more)
            await books.sessions.end(session)

    first = int(salt)
    await asyncio.gather(
        *(by_voucher(first + n) for n in range(3)), *(by_charge(first + 5 + n) for n in range(3))
    )


async def main(work: Callable[..., Awaitable[None]], url: str, *args: str) -> None:
    database = Database(url)
    await database.start()
    say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    await work(open_books(database), *args)
    await database.stop()


if __name__ == "__main__":
    works: dict[str, Callable[..., Awaitable[None]]] = {
        work.__name__: work for work in (draw_many, live_until_killed)
    }
    asyncio.run(main(works[sys.argv[1]], *sys.argv[2:]))
