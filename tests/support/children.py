"""What tests run in processes of their own, some of them to be killed: ``python -m`` this."""

import asyncio
import itertools
import resource
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, insert, text, update

from tests.support.items import import_with_bytes
from xbyte_live.catalog.catalog import Catalog
from xbyte_live.errors import XByteError
from xbyte_live.storage.blobs.disk import DiskStore
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.db.tables import secrets

ROOT = Path(__file__).parents[2]


async def spawn(work: Callable[..., Awaitable[None]], *args: str) -> asyncio.subprocess.Process:
    """Start one of the works below in a process of its own, with pipes to talk."""
    command = (sys.executable, "-m", "tests.support.children", work.__name__, *args)
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=pipe, stdout=pipe)


async def run(work: Callable[..., Awaitable[None]], *args: str) -> list[str]:
    """Run one of the works below to its end; its lines, after it ended well."""
    child = await spawn(work, *args)
    output, _ = await child.communicate()
    assert child.returncode == 0
    return output.decode().splitlines()


async def kill_after(child: asyncio.subprocess.Process, lines: int) -> list[str]:
    """Kill a child at the moment it has said so many lines; everything it said."""
    assert child.stdout is not None
    said = [await child.stdout.readline() for _ in range(lines)]
    child.kill()
    said += (await child.stdout.read()).splitlines(keepends=True)
    await child.wait()
    return [line.decode().strip() for line in said if line.endswith(b"\n")]


def say(line: str) -> None:
    """One line to the parent, at once."""
    print(line, flush=True)


async def start(url: str) -> None:
    """Bring a database up and down again; says whether Alembic was needed."""
    database = Database(url)
    await database.start()
    await database.stop()
    say("migrated" if "alembic" in sys.modules else "was ready")


async def write_until_killed(url: str, mark: str) -> None:
    """Write rows, 16 at a time, and say the name of each once it is durable."""
    database = Database(url)
    await database.start()

    async def writer(number: int) -> None:
        for count in itertools.count():
            name = f"{mark}-{number}-{count}"
            await database.write(partial(add_row, name=name))
            say(name)

    await asyncio.gather(*(writer(number) for number in range(16)))


def add_row(db: Connection, name: str) -> None:
    """One row of 300 bytes."""
    db.execute(insert(secrets).values(name=name, value=b"x" * 300))


async def count_up(url: str, times: str) -> None:
    """Say so when ready, wait for a line, then raise the counter so many times, one by one."""
    database = Database(url)
    await database.start()
    say("ready")
    sys.stdin.readline()
    for _ in range(int(times)):
        await database.write(add_one)
    await database.stop()


def add_one(db: Connection) -> None:
    """Raise the counter by one."""
    db.execute(text("UPDATE imports SET first_msn = first_msn + 1 WHERE id = 1"))


async def fill_disk(url: str) -> None:
    """Write until a file may grow no more, then get room again; says what each write met."""
    database = Database(url)
    await database.start()

    def work(db: Connection) -> None:
        db.execute(update(secrets).values(value=b"y" * 2**20))

    row = insert(secrets).values(name="row", value=b"")
    await database.write(lambda db: db.execute(row).rowcount)
    limit(2**18)
    await report(database.write(work))
    limit(resource.RLIM_INFINITY)
    await report(database.write(work))
    await database.stop()


async def start_without_room(url: str) -> None:
    """Start a database where no file may grow."""
    limit(0)
    await report(Database(url).start())


async def put_without_room(root: str) -> None:
    """Store a value and a file that do not fit, then ones that do."""
    store = DiskStore(Path(root))
    source = Path(root).parent / "source"
    source.write_bytes(b"z" * 2**20)
    limit(2**18)
    await report(store.put("slug/source/0.ts", b"z" * 2**20))
    await report(store.put_file("slug/object/0", source))
    limit(resource.RLIM_INFINITY)
    await report(store.put("slug/source/0.ts", b"z" * 2**20))


async def put_until_killed(root: str) -> None:
    """Store values that tell their own length under a few keys, saying when each is there."""
    store = DiskStore(Path(root))

    async def writer(number: int) -> None:
        size = number + 1
        while True:
            size = size * 7919 % 1_000_003
            await store.put(f"slug/source/{number % 3}.ts", size.to_bytes(4, "big") * size)
            say("stored")

    await asyncio.gather(*(writer(number) for number in range(6)))


async def import_until_killed(url: str, root: str) -> None:
    """Replace a title again and again, saying when each version is on sale."""
    database = Database(url)
    await database.start()
    catalog, store = Catalog(database, lease=0.0), DiskStore(Path(root))
    version = 0
    while True:
        version += 1
        await import_with_bytes(catalog, store, "plasma", version, count=8)
        say("published")


async def report(attempt: Awaitable[None]) -> None:
    """Say ``done``, or the kind of error and its text."""
    try:
        await attempt
    except XByteError as error:
        say(f"{type(error).__name__}: {error}")
    else:
        say("done")


def limit(size: int) -> None:
    """Let no file of this process grow beyond ``size`` bytes."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


if __name__ == "__main__":
    works: dict[str, Callable[..., Awaitable[None]]] = {
        work.__name__: work
        for work in (
            start,
            write_until_killed,
            count_up,
            fill_disk,
            start_without_room,
            put_without_room,
            put_until_killed,
            import_until_killed,
        )
    }
    asyncio.run(works[sys.argv[1]](*sys.argv[2:]))
