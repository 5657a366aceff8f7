"""Adapter: child processes: their start, restart and end, their environment, their secrecy."""

import asyncio
import ctypes
import logging
import multiprocessing
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from multiprocessing.context import SpawnProcess
from typing import Any

from xbyte_live.runtime.aio import background

RESTART_AFTER = 1.0  # seconds before a worker process that died is started again
_END_WAIT = 60.0  # seconds a process has to end by itself, with answers under way
_SPAWN = multiprocessing.get_context("spawn")
_PR_SET_DUMPABLE = 4

_NEEDED = frozenset(
    {"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD"}
    | {"SSL_CERT_FILE", "SSL_CERT_DIR", "VIRTUAL_ENV"}
)
_NEEDED_PREFIXES = ("LC_", "PYTHON")
_OURS = "XBYTE_"

log = logging.getLogger(__name__)


@asynccontextmanager
async def worker_processes(
    target: Callable[..., None], args: Sequence[tuple[Any, ...]]
) -> AsyncIterator[None]:
    """Keep a process for each of ``args`` running ``target`` while the body runs.

    A process that ends is started again after ``RESTART_AFTER`` seconds.
    """
    async with background(*(_keep(target, own) for own in args)):
        yield


async def _keep(target: Callable[..., None], args: tuple[Any, ...]) -> None:
    while True:
        async with child_process(target, args, "worker") as process:
            await ended(process)
            log.error(
                "a worker process ended with status %s; it is started again", process.exitcode
            )
        await asyncio.sleep(RESTART_AFTER)


@asynccontextmanager
async def child_process(
    target: Callable[..., None], args: tuple[Any, ...], name: str
) -> AsyncIterator[SpawnProcess]:
    """A child process that runs ``target`` while the body runs; it may end earlier by itself."""
    process = _SPAWN.Process(target=target, args=args, name=name)
    starting = asyncio.create_task(asyncio.to_thread(process.start))
    try:
        await asyncio.shield(starting)
        yield process
    finally:
        await asyncio.shield(_end(process, starting))


async def _end(process: SpawnProcess, starting: asyncio.Task[None]) -> None:
    """End a process, also one that is still starting; kill it if it does not end in time."""
    await asyncio.wait([starting])
    if starting.exception() is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(ended(process), _END_WAIT)
    except TimeoutError:
        process.kill()
        await ended(process)


async def ended(process: SpawnProcess) -> None:
    """Return once a process has ended and was waited for."""
    gone, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(process.sentinel, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(process.sentinel)
    process.join()


@contextmanager
def when_parent_ends(act: Callable[[], None]) -> Iterator[None]:
    """In a child process: call ``act`` once the process that started it has ended."""
    parent = multiprocessing.parent_process()
    if parent is None:
        raise AssertionError("this process has no parent")
    loop, sentinel = asyncio.get_running_loop(), parent.sentinel

    def on_end() -> None:
        loop.remove_reader(sentinel)
        act()

    loop.add_reader(sentinel, on_end)
    try:
        yield
    finally:
        loop.remove_reader(sentinel)


def worker_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child of ours that decodes strangers' bytes: what it needs to start.

    It holds no key and no setting (money rule 10).
    """
    return {
        name: value
        for name, value in environ.items()
        if name in _NEEDED or name.startswith(_NEEDED_PREFIXES)
    }


def without_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program of the user's: all but our settings, which hold the keys."""
    return {n: value for n, value in environ.items() if not n.upper().startswith(_OURS)}


def seal() -> None:
    """Keep other processes of our user from reading our memory, environment and descriptors.

    A child that decodes hostile bytes runs as the same user and may be taken over by them, while
    we hold keys (money rule 10). No core is dumped either. Linux only (prctl(2)); a program that
    is executed has to do it again.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
