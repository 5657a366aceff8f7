"""A server, the database or the chain is away under load: nobody loses, and all goes on after."""

import asyncio
import os
import resource
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.support.channel_scene import Scene, a_scene, load

CHAIN_STOPPED = float(os.environ.get("XBYTE_TEST_CHAIN_STOPPED", "12"))  # seconds
REFUSING = 5.0  # seconds the database takes no write
LOCKED = 25.0  # seconds another program has its lock: longer than a transaction waits
SETTLED = 1.0  # seconds after which what was under way has been answered
MANY = 5_000  # pieces a deposit lasts for who is not to deposit again


@pytest.mark.timeout(1200)
async def test_of_two_servers_on_postgresql_one_is_killed_and_the_other_goes_on(
    tmp_path: Path, postgres_url: str
) -> None:
    async with a_scene(tmp_path, database_url=postgres_url) as scene:
        async with load(scene):
            await scene.each_deposits()
            for victim in scene.servers:  # the one that settles first, then the other one
                await victim.kill()
                await scene.each_buys(5)
                await scene.each_deposits()
                await scene.pays_out()
                await victim.start()
                await scene.each_buys(5)
        await scene.check()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["a full disk", "a lock", "read-only"])
async def test_without_a_durable_charge_no_byte_leaves(
    tmp_path: Path, request: pytest.FixtureRequest, how: str
) -> None:
    settings = {}
    if how == "read-only":
        settings["database_url"] = request.getfixturevalue("postgres_url")
    async with a_scene(tmp_path, **settings) as scene:
        async with load(scene):
            await scene.each_deposits()
            with refusing(scene, how):
                await asyncio.sleep(SETTLED)
                delivered, statuses = scene.delivered, scene.statuses
                await asyncio.sleep(REFUSING if how != "a lock" else LOCKED)
                assert scene.delivered == delivered
                said = scene.statuses - statuses
                assert said[503] >= 1
                assert set(said) == {503}
            await scene.each_buys(5)
            await scene.each_deposits()
        await scene.check()


@contextmanager
def refusing(scene: Scene, how: str) -> Iterator[None]:
    """The database takes no write of any server while the body runs."""
    with {"a full disk": full_disk, "a lock": locked, "read-only": read_only}[how](scene):
        yield


@contextmanager
def full_disk(scene: Scene) -> Iterator[None]:
    """No file of any server may grow, as on a disk without room."""
    pids = [server.process.pid for server in scene.servers if server.process is not None]
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids}
    for pid, (_, hard) in limits.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        for pid, limit in limits.items():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)


@contextmanager
def locked(scene: Scene) -> Iterator[None]:
    """Another program holds the write lock of the SQLite file."""
    path = scene.servers[0].settings.resolved_database_url.removeprefix("sqlite:///")
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


@contextmanager
def read_only(scene: Scene) -> Iterator[None]:
    """PostgreSQL takes no write of anybody, as a standby does not."""
    url = scene.servers[0].settings.resolved_database_url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        connection.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
            connection.execute("SELECT pg_reload_conf()")


@pytest.mark.timeout(900)
async def test_while_the_chain_stands_still_vouchers_go_on_and_the_chain_follows(
    tmp_path: Path,
) -> None:
    """Deposits wait for the chain; whoever has enough in a channel does not notice."""
    async with a_scene(tmp_path, settle_wait="5", facilitator_timeout="5") as scene:
        calm, needy = scene.watchers[:3], scene.watchers[3:]
        for watcher in calm:
            watcher.top_up = MANY
        async with load(scene):
            await scene.each_buys(20)
            await scene.pays_out()
            os.kill(scene.devnet.pid, signal.SIGSTOP)
            try:
                async with asyncio.timeout(CHAIN_STOPPED * 2):
                    stopped = asyncio.create_task(asyncio.sleep(CHAIN_STOPPED))
                    await scene.each_is_told(503, needy)
                    needed = [watcher.delivered for watcher in needy]
                    while not stopped.done():
                        await scene.each_buys(10, calm)
                    assert [watcher.delivered for watcher in needy] == needed
                    assert not any(watcher.statuses[503] for watcher in calm)
            finally:
                os.kill(scene.devnet.pid, signal.SIGCONT)
            await scene.pays_out()
            await scene.each_deposits(needy)
            await scene.each_buys(20)
        await scene.check()
