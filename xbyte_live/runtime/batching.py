"""Adapter: whatever waits while something is being done is done together next."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from xbyte_live.errors import DatabaseOverloaded

T = TypeVar("T")
R = TypeVar("R")


class Batched(Generic[T, R]):
    """Hands all that waits, ``most`` at a time, to ``work``, which answers each in its order.

    So many batches are worked on ``at_once``, and ``limit`` may wait. An error of ``work`` is
    everybody's.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        most: int = 512,
        at_once: int = 1,
        limit: int = 4096,
    ) -> None:
        self._work = work
        self._most = most
        self._at_once = at_once
        self._limit = limit
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._working: set[asyncio.Task[None]] = set()

    async def do(self, one: T) -> R:
        """Have one done with the others; it is done whole even if its caller goes.

        Raises ``DatabaseOverloaded`` when too many wait.
        """
        if len(self._waiting) >= self._limit:
            raise DatabaseOverloaded("too many payments are waiting; try again shortly")
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((one, answer))
        if len(self._working) < self._at_once and len(self._waiting) == 1:
            self._working.add(asyncio.create_task(self._run(), name="work on a batch"))
        return await answer

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                await self._answer([pair for pair in batch if not pair[1].done()])
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._working.discard(task)

    async def _answer(self, batch: Sequence[tuple[T, "asyncio.Future[R]"]]) -> None:
        try:
            results = await self._work([one for one, _ in batch])
            if len(results) != len(batch):
                raise AssertionError("a batch was answered in another number")
        except Exception as error:
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), result in zip(batch, results, strict=True):
            if not answer.done():  # its caller has gone
                answer.set_result(result)
