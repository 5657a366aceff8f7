"""One process settles, and when it is killed another does; on both databases."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from xbyte_live.errors import DatabaseUnavailable
from xbyte_live.storage.coordination import LeaseLedger
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.leader import Leader

ROOT = Path(__file__).parents[2]
LEASE = 1.5


class Process:
    """A child that leads or waits."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def hears(self, word: str) -> None:
        """Wait until it says a word."""
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            while (line := await self.process.stdout.readline()).decode().strip() != word:
                assert line, f"it ended before it said {word}"


@asynccontextmanager
async def a_process(url: str) -> AsyncIterator[Process]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.leading_child", url, str(LEASE)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Process(child)
    finally:
        if child.returncode is None:
            os.kill(child.pid, signal.SIGKILL)
        await child.wait()


async def test_another_takes_over_within_the_lease_of_one_that_is_killed(
    database_url: str, database: Database
) -> None:
    async with a_process(database_url) as first:
        await first.hears("leads")
        async with a_process(database_url) as second:
            await first.hears("works")
            ledger = LeaseLedger(database)
            assert not await ledger.take("settlement", "a third", seconds=LEASE)
            first.process.kill()
            killed_at = time.monotonic()
            await second.hears("leads")
            assert time.monotonic() - killed_at < 20  # a lease and some, on a busy machine


async def test_one_that_was_frozen_stops_when_it_wakes_and_another_leads(
    sqlite_url: str,
) -> None:
    async with a_process(sqlite_url) as first:
        await first.hears("leads")
        async with a_process(sqlite_url) as second:
            os.kill(first.process.pid, signal.SIGSTOP)
            await second.hears("leads")
            os.kill(first.process.pid, signal.SIGCONT)
            await first.hears("rests")
            await second.hears("works")


class Broken(LeaseLedger):
    """A database that can be taken away."""

    away = False

    async def take(self, name: str, holder: str, *, seconds: float) -> bool:
        if self.away:
            raise DatabaseUnavailable("the database does not answer; try again shortly")
        return await super().take(name, holder, seconds=seconds)


async def test_work_ends_with_the_lease_when_the_database_is_away(database: Database) -> None:
    ledger = Broken(database)
    leader = Leader(ledger, seconds=0.6)
    working, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        working.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    running = asyncio.create_task(leader.run(work))
    async with asyncio.timeout(20):
        await working.wait()
        assert leader.leads
        ledger.away = True
        await ended.wait()
        working.clear()
        ledger.away = False
        await working.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await LeaseLedger(database).take("settlement", "the next", seconds=1)


async def test_work_that_fails_begins_again(database: Database) -> None:
    leader, begun = Leader(LeaseLedger(database), seconds=0.3), 0
    again = asyncio.Event()

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun == 2:
            again.set()
        raise RuntimeError("a fault of ours")

    running = asyncio.create_task(leader.run(work))
    async with asyncio.timeout(20):
        await again.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_watermarks_are_kept_by_network(database: Database) -> None:
    ledger = LeaseLedger(database)
    assert await ledger.watermark("eip155:1") is None
    for block in (7, 9, 3):
        await ledger.set_watermark("eip155:1", block)
        assert await ledger.watermark("eip155:1") == block
    assert await ledger.watermark("eip155:2") is None
