"""Adapter: one thread that commits all waiting writes of a database together.

A commit costs one flush to disk however many works are in it, so the thread takes everything
that has queued, runs it in one transaction, and answers each caller after the commit. Each work
has an outcome of its own: one that fails takes back what it did and nothing else, one that meets
another process's is run again.
"""

import logging
from asyncio import AbstractEventLoop, Future, get_running_loop
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from xbyte_live.errors import DatabaseOverloaded, DatabaseUnavailable
from xbyte_live.storage.db.connect import cause_of, is_conflict, is_outage

T = TypeVar("T")
Work: TypeAlias = Callable[[Connection], T]

BATCH_LIMIT = 512  # works in one transaction, so that none waits long for its neighbours
_CONFLICT_RETRIES = 5

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a work returned, or the ``error`` it ended in; ``outage`` is the driver's word of it."""

    value: Any = None
    error: BaseException | None = None
    outage: str | None = None


class _NoSecondTryError(Exception):
    """The transaction could not begin, or its commit did not return: no second try."""


@dataclass(frozen=True, slots=True, eq=False)
class _Write:
    work: Work[Any]
    answer: "Future[Any]"
    loop: AbstractEventLoop


class GroupWriter:
    """Runs works on one connection of ``engine``, at most ``limit`` of them waiting."""

    def __init__(self, engine: Engine, limit: int) -> None:
        self._transactions = Transactions(engine)
        self._limit = limit
        self._queue: SimpleQueue[_Write | None] = SimpleQueue()
        self._closed = False
        self._thread = Thread(target=self._run, name="xbyte-db-writer", daemon=True)

    @property
    def waiting(self) -> int:
        """Works that wait for the next transaction."""
        return self._queue.qsize()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, work: Work[T]) -> "Future[T]":
        """Queue ``work`` from a coroutine; the future is answered once it is durable.

        Raises ``DatabaseOverloaded`` when the queue is full, ``DatabaseUnavailable`` when closed.
        """
        if self._closed:
            raise DatabaseUnavailable("the database is closed")
        if self._queue.qsize() >= self._limit:
            raise DatabaseOverloaded("too many database writes are waiting; try again shortly")
        loop = get_running_loop()
        answer: Future[T] = loop.create_future()
        self._queue.put(_Write(work, answer, loop))
        return answer

    def stop(self) -> None:
        """Take no more works, finish those that wait, close; blocks until it is done."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        more = True
        while more:
            batch, more = self._gather()
            writes = [write for write in batch if not write.answer.cancelled()]
            if writes:
                _answer(writes, self._transactions.run([write.work for write in writes]))
        self._transactions.close()

    def _gather(self) -> tuple[list[_Write], bool]:
        batch: list[_Write] = []
        try:
            write = self._queue.get()
            while write is not None:
                batch.append(write)
                if len(batch) == BATCH_LIMIT:
                    return batch, True
                write = self._queue.get_nowait()
        except Empty:
            return batch, True
        return batch, False


def _answer(writes: Sequence[_Write], outcomes: Sequence[Outcome]) -> None:
    """Wake each loop once, with all its answers."""
    by_loop: dict[AbstractEventLoop, list[tuple[Future[Any], Outcome]]] = {}
    for write, outcome in zip(writes, outcomes, strict=True):
        by_loop.setdefault(write.loop, []).append((write.answer, outcome))
    for loop, answers in by_loop.items():
        with suppress(RuntimeError):  # that loop is closed: nobody is left to hear
            loop.call_soon_threadsafe(_deliver, answers)


def _deliver(answers: Sequence[tuple["Future[Any]", Outcome]]) -> None:
    for answer, outcome in answers:
        if answer.done():
            continue
        if outcome.error is None:
            answer.set_result(outcome.value)
        elif isinstance(outcome.error, StopIteration):  # no future can carry one
            answer.set_exception(RuntimeError("a database work raised StopIteration"))
        else:
            answer.set_exception(outcome.error)


class Transactions:
    """Runs works on one connection of ``engine``, which is made when there is none; ``close`` it.

    For one thread at a time.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None

    def run(self, works: Sequence[Work[Any]]) -> Sequence[Outcome]:
        """Run works in one transaction, here and now; the outcome of each. Never raises."""
        try:
            outcomes = self._together(works)
        except Exception as error:
            if is_conflict(error):
                outcomes = [self._alone(work) for work in works]
            else:
                outcomes = [_unavailable(error)] * len(works)
        outages = [outcome.outage for outcome in outcomes if outcome.outage]
        if outages:
            _log.error("%d database writes failed: %s", len(outages), outages[0])
        return outcomes

    def _together(self, works: Sequence[Work[Any]]) -> Sequence[Outcome]:
        """All works in one transaction; once more, behind savepoints, when one of them raises."""
        try:
            return self._transaction(works, _plain)
        except _NoSecondTryError:
            raise
        except BaseException as error:  # a connection lost before the commit comes here too
            if len(works) == 1 and not is_outage(error):
                return [Outcome(error=error)]
        return self._transaction(works, _fenced)

    def _alone(self, work: Work[Any]) -> Outcome:
        """One work in its own transaction, again while it meets another process's."""
        for _ in range(_CONFLICT_RETRIES):
            try:
                return self._transaction([work], _fenced)[0]
            except Exception as error:
                failure = error
                if not is_conflict(error):
                    break
        return _unavailable(failure)

    def _transaction(
        self, works: Sequence[Work[Any]], run: Callable[[Connection, Work[Any]], Outcome]
    ) -> Sequence[Outcome]:
        connection = self._begin()
        try:
            outcomes = [run(connection, work) for work in works]
        except BaseException:
            self._roll_back(connection)
            raise
        try:
            connection.commit()
        except Exception as error:
            self.close()
            raise _NoSecondTryError from error
        return outcomes

    def _begin(self) -> Connection:
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
            self._connection.begin()
        except Exception as error:
            self.close()
            raise _NoSecondTryError from error
        return self._connection

    def _roll_back(self, connection: Connection) -> None:
        try:
            connection.rollback()
        except SQLAlchemyError:
            self.close()
        else:
            if connection.invalidated:
                self.close()

    def close(self) -> None:
        """Let go of the connection; the next transaction makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SQLAlchemyError):
                connection.close()


def _plain(connection: Connection, work: Work[Any]) -> Outcome:
    return Outcome(work(connection))


def _fenced(connection: Connection, work: Work[Any]) -> Outcome:
    savepoint = connection.begin_nested()
    try:
        value = work(connection)
        savepoint.commit()
    except BaseException as error:
        if is_conflict(error):
            raise
        savepoint.rollback()  # raises when the whole transaction is gone
        return _unavailable(error) if is_outage(error) else Outcome(error=error)
    return Outcome(value)


def _unavailable(error: BaseException) -> Outcome:
    return Outcome(
        error=DatabaseUnavailable("the database did not take the write; try again shortly"),
        outage=cause_of(error.__cause__ or error),
    )
