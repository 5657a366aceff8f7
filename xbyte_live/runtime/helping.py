"""Adapter: processes that answer HTTP beside the one that leads, started again when they die."""

import asyncio
import logging
import multiprocessing
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from multiprocessing.context import SpawnProcess
from typing import Any

from xbyte_live.runtime.tasks import background

AGAIN_AFTER = 1.0  # seconds before a helper that died is started again
_PARTING = 60.0  # seconds a process has to go by itself, with answers under way
_SPAWN = multiprocessing.get_context("spawn")

log = logging.getLogger(__name__)


@asynccontextmanager
async def helpers(
    target: Callable[..., None], args: Sequence[tuple[Any, ...]]
) -> AsyncIterator[None]:
    """Keep a process for each of ``args`` running ``target`` while the body runs; then end them."""
    async with background(*(_keep(target, own) for own in args)):
        yield


async def _keep(target: Callable[..., None], args: tuple[Any, ...]) -> None:
    while True:
        async with a_process(target, args, "helper") as process:
            await ended(process)
            log.error("a helper ended with status %s and is started again", process.exitcode)
        await asyncio.sleep(AGAIN_AFTER)


@asynccontextmanager
async def a_process(
    target: Callable[..., None], args: tuple[Any, ...], name: str
) -> AsyncIterator[SpawnProcess]:
    """A process that runs ``target`` while the body runs, unless it ends before."""
    process = _SPAWN.Process(target=target, args=args, name=name)
    starting = asyncio.create_task(asyncio.to_thread(process.start))
    try:
        await asyncio.shield(starting)
        yield process
    finally:
        await asyncio.shield(_end(process, starting))


async def _end(process: SpawnProcess, starting: asyncio.Task[None]) -> None:
    """End a process, by force if it does not go, also one that is still being started."""
    await asyncio.wait([starting])
    if starting.exception() is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(ended(process), _PARTING)
    except TimeoutError:
        process.kill()
        await ended(process)


async def ended(process: SpawnProcess) -> None:
    """Return once a process has ended, and its remains are cleared up."""
    gone, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(process.sentinel, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(process.sentinel)
    process.join()


@contextmanager
def when_the_leader_goes(do: Callable[[], None]) -> Iterator[None]:
    """In a helper: have something done once the process that started it is no more."""
    leader = multiprocessing.parent_process()
    if leader is None:
        raise AssertionError("this process helps nobody")
    loop, sentinel = asyncio.get_running_loop(), leader.sentinel

    def gone() -> None:
        loop.remove_reader(sentinel)
        do()

    loop.add_reader(sentinel, gone)
    try:
        yield
    finally:
        loop.remove_reader(sentinel)
