"""Adapter: one thread that commits all waiting writes of a database together.

A commit costs one flush to disk however many works are in it, so the thread takes everything
that has queued, runs it in one transaction, and answers each caller after the commit.
"""

from asyncio import AbstractEventLoop, Future, get_running_loop
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from sqlalchemy import Engine

from xbyte_live.errors import DatabaseOverloaded, DatabaseUnavailable
from xbyte_live.storage.db.transactions import Outcome, Transactions, Work

T = TypeVar("T")

BATCH_LIMIT = 512  # works in one transaction, so that none waits long for its neighbours


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
