"""Adapter: the database as two verbs, ``read`` and ``write``, on SQLite or PostgreSQL."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from xbyte_live.errors import DatabaseOverloaded, DatabaseUnavailable
from xbyte_live.storage.db.connect import (
    cause_of,
    is_outage,
    parse_url,
    reader_engine,
    writer_engine,
)
from xbyte_live.storage.db.upgrade import upgrade
from xbyte_live.storage.db.writer import GroupWriter

T = TypeVar("T")

_READERS = 4

_log = logging.getLogger(__name__)


class Database:
    """One database for one process; several processes on one SQLite file are normal.

    ``write_queue`` bounds the writes that wait, and the reads. Raises ``ConfigError`` for a URL
    that is neither SQLite nor PostgreSQL; opens nothing before ``start``.
    """

    def __init__(self, url: str, *, write_queue: int = 4096) -> None:
        self._url = parse_url(url)
        self._limit = write_queue
        self._writer: GroupWriter | None = None
        self._reader: Engine | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._reading = 0

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self._url.get_backend_name()

    @property
    def limit(self) -> int:
        """Writes that may wait."""
        return self._limit

    @property
    def waiting(self) -> int:
        """Writes that wait for the next commit."""
        return self._writer.waiting if self._writer else 0

    async def start(self) -> None:
        """Bring the schema to this version's, prove that a write is taken, start the writer.

        Raises ``DatabaseUnavailable`` saying what is wrong with the place, ``ConfigError`` for a
        missing driver or a database made by a newer version.
        """
        if self._writer is not None:
            return
        await asyncio.to_thread(upgrade, self._url)
        self._reader = reader_engine(self._url, _READERS)
        self._threads = ThreadPoolExecutor(_READERS, thread_name_prefix="xbyte-db-reader")
        self._writer = GroupWriter(writer_engine(self._url), self._limit)
        self._writer.start()

    async def stop(self) -> None:
        """Finish the writes that wait, then close every connection."""
        writer, reader, threads = self._writer, self._reader, self._threads
        self._writer = self._reader = self._threads = None
        if writer is not None:
            await asyncio.to_thread(writer.stop)
        if threads is not None:
            await asyncio.to_thread(threads.shutdown)
        if reader is not None:
            reader.dispose()

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a thread, on one snapshot of the database, and return what it returns.

        Raises ``DatabaseUnavailable`` when the database fails; else what ``work`` raises.
        """
        if self._threads is None or self._reader is None:
            raise DatabaseUnavailable("the database is closed")
        if self._reading >= self._limit:
            raise DatabaseOverloaded("too many database reads are waiting; try again shortly")
        loop = asyncio.get_running_loop()
        self._reading += 1
        try:
            return await loop.run_in_executor(self._threads, _read, self._reader, work)
        finally:
            self._reading -= 1

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a transaction shared with all waiting writes; return once durable.

        ``work`` may be run more than once, each time on what was committed before it, so it
        must have no effect but through its connection. A refusal that is expected is better
        returned than raised: a raising work costs its neighbours a second run. Raises
        ``DatabaseOverloaded`` when too many wait, ``DatabaseUnavailable`` when the database fails
        (the write may then have been made or not), else what ``work`` raises. A cancelled write
        is made whole or not at all.
        """
        if self._writer is None:
            raise DatabaseUnavailable("the database is closed")
        return await self._writer.submit(work)


def _read(engine: Engine, work: Callable[[Connection], T]) -> T:
    try:
        try:
            with engine.begin() as connection:
                return work(connection)
        except SQLAlchemyError as error:
            if not getattr(error, "connection_invalidated", False):
                raise
        with engine.begin() as connection:  # the server went and came back: once more
            return work(connection)
    except SQLAlchemyError as error:
        if not is_outage(error):
            raise
        _log.error("database read failed: %s", cause_of(error))
        raise DatabaseUnavailable("the database does not answer; try again shortly") from None
