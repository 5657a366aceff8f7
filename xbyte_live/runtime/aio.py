"""Adapter: asyncio work beside other work, in batches, and again after a failure."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeAlias, TypeVar

from xbyte_live.errors import DatabaseOverloaded

T = TypeVar("T")
R = TypeVar("R")
Work: TypeAlias = Coroutine[Any, Any, None]

log = logging.getLogger(__name__)


@asynccontextmanager
async def background(*work: Work) -> AsyncIterator[None]:
    """Run ``work`` while the body runs, then cancel it and wait until it has stopped."""
    tasks = [asyncio.create_task(_logged(job)) for job in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _logged(job: Work) -> None:
    try:
        await job
    except Exception:
        log.exception("a background task ended in an error")


def backoff(attempt: int, chance: float, *, least: float, most: float) -> float:
    """Seconds to wait after failure number ``attempt`` (from 1): ``least``, doubled each time.

    ``chance``, a random number from 0 to 1, takes up to half of it away, so that many who failed
    at the same moment do not come back at the same moment. The wait is never more than ``most``.
    """
    doubled = least * 2 ** min(max(attempt - 1, 0), 60)
    return float(min(most, doubled)) * (1 - chance / 2)


class BatchQueue(Generic[T, R]):
    """Collects calls while ``work`` is busy and gives them to it as one batch.

    ``work`` gets at most ``most`` items and returns a result for each, in their order. At most
    ``at_once`` batches run at a time, and at most ``limit`` items wait. An error of ``work`` is
    raised in every call of its batch.
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
        """Return the result for one item; the work goes on even if the caller is cancelled.

        Raises ``DatabaseOverloaded`` when too many items wait.
        """
        if len(self._waiting) >= self._limit:
            raise DatabaseOverloaded("too many payments are waiting; try again shortly")
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((one, answer))
        if len(self._working) < self._at_once and len(self._waiting) == 1:
            self._working.add(asyncio.create_task(self._run(), name="batch"))
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
                raise AssertionError("a batch got another number of results")
        except Exception as error:
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), result in zip(batch, results, strict=True):
            if not answer.done():  # its caller was cancelled
                answer.set_result(result)
