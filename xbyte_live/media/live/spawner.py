"""Adapter: starts each feed's child process through a fork server with FFmpeg loaded."""

import asyncio
import logging
import os
import pickle
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from contextlib import suppress
from itertools import count
from pathlib import Path

from xbyte_live.errors import FeedFailed
from xbyte_live.media.live.messages import (
    ANSWER,
    EXITED,
    FORK,
    FORKED,
    KILL,
    REQUEST,
    FeedOptions,
)
from xbyte_live.media.live.process import Child, FeedProcess
from xbyte_live.runtime.processes import worker_environment

log = logging.getLogger(__name__)

_FORK_WITHIN = 30.0  # seconds, the start of the fork server included
_ROOT = str(Path(__file__).parents[3])
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from xbyte_live.media.live.fork_server import serve; serve(int(sys.argv[2]))"
)


class FeedSpawner:
    """Starts the child processes of feeds; ``close`` kills those that still run.

    The fork server starts with the first feed or with ``warm_up``, and is replaced if it dies.
    """

    def __init__(self) -> None:
        self._server: _ForkServer | None = None
        self._starting = asyncio.Lock()

    async def warm_up(self) -> None:
        """Start the fork server, so that the first feed need not wait for it."""
        await self._running()

    async def start(self, options: FeedOptions) -> FeedProcess:
        """Start a child process for one feed; raises ``FeedFailed`` if it cannot be started."""
        server = await self._running()
        try:
            return await _start(server, options)
        except FeedFailed:
            if not server.lost:
                raise
        return await _start(
            await self._running(), options
        )  # the fork server had died since the last feed

    async def close(self) -> None:
        """End the fork server and every child."""
        async with self._starting:
            server, self._server = self._server, None
            if server:
                await server.close()

    async def _running(self) -> "_ForkServer":
        async with self._starting:
            if self._server and self._server.lost:
                await self._server.close()
                self._server = None
            if self._server is None:
                self._server = await _launch()
            return self._server


async def _start(server: "_ForkServer", options: FeedOptions) -> FeedProcess:
    try:
        ours, theirs = socket.socketpair()
    except OSError as error:
        raise FeedFailed(f"no process can be started for it ({error.strerror})") from None
    ours.setblocking(False)
    try:
        with theirs:
            child = await server.fork(options, theirs)
        try:
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=1 << 20)
        except BaseException:
            child.kill()
            raise
    except BaseException:
        ours.close()
        raise
    return FeedProcess(reader, writer, child, options)


async def _launch() -> "_ForkServer":
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-c", _PROGRAM, _ROOT, str(theirs.fileno()),
            stdin=DEVNULL, stdout=DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True,
            env=worker_environment(os.environ),
        )  # fmt: skip
    except BaseException as error:
        ours.close()
        if isinstance(error, OSError):
            raise FeedFailed(f"no process can be started for it ({error.strerror})") from None
        raise
    finally:
        theirs.close()
    return _ForkServer(ours, process)


class _ForkServer:
    """The service's end of a fork server."""

    def __init__(self, control: socket.socket, process: Process) -> None:
        self._control, self._process = control, process
        self._loop = asyncio.get_running_loop()
        self._numbers = count(1)
        self._forked: dict[int, asyncio.Future[int]] = {}
        self._exited: dict[int, asyncio.Future[int | None]] = {}
        self._handles: dict[int, int] = {}  # a descriptor of each feed's process
        self.lost = False
        self._loop.add_reader(control, self._read)

    async def fork(self, options: FeedOptions, sock: socket.socket) -> Child:
        """Have a child forked that serves ``sock``."""
        number = next(self._numbers)
        forked: asyncio.Future[int] = self._loop.create_future()
        exited: asyncio.Future[int | None] = self._loop.create_future()
        self._forked[number], self._exited[number] = forked, exited
        try:
            self._send(FORK, number, pickle.dumps(options), sock)
            pid = await asyncio.wait_for(forked, _FORK_WITHIN)
        except BaseException as error:
            self._forked.pop(number, None)
            self._kill(number)
            self._exited.pop(number, None)
            if isinstance(error, ConnectionError):
                self._lose()
            if isinstance(error, TimeoutError | OSError):
                raise FeedFailed("no process can be started for it") from None
            raise
        return Child(pid, exited, lambda: self._kill(number))

    async def close(self) -> None:
        """End it, and its children with it; waits until they are gone."""
        if not self.lost:
            self._let_go()
            for number in tuple(self._handles):
                self._forget(number)
        try:
            await asyncio.wait_for(self._process.wait(), _FORK_WITHIN)
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def _send(self, what: int, number: int, body: bytes, sock: socket.socket | None) -> None:
        """Raises ``OSError`` when the fork server is gone or does not listen."""
        message = REQUEST.pack(what, len(body), number) + body
        descriptors = [sock.fileno()] if sock else []
        if socket.send_fds(self._control, [message], descriptors) != len(message):
            raise OSError("the fork server does not listen")

    def _kill(self, number: int) -> None:
        """Kill a child by its pidfd, since its process id may name another process by now."""
        if number in self._handles:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handles[number], signal.SIGKILL)
            self._forget(number)
        elif number in self._exited:
            with suppress(OSError):
                self._send(KILL, number, b"", None)

    def _forget(self, number: int) -> None:
        handle = self._handles.pop(number, None)
        if handle is not None:
            os.close(handle)

    def _read(self) -> None:
        try:
            # one answer at a time, so that a pidfd belongs to its feed
            data, descriptors, _, _ = socket.recv_fds(
                self._control, ANSWER.size, 1, socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, descriptors = b"", []
        if not data:
            self._lose()
            return
        what, number, pid, code = ANSWER.unpack(data)
        if descriptors:
            self._handles[number] = descriptors[0]
        self._take(what, number, pid, code)

    def _take(self, what: int, number: int, pid: int, code: int) -> None:
        if what == FORKED:
            forked = self._forked.pop(number, None)
            if forked and not forked.done():
                if pid:
                    forked.set_result(pid)
                else:
                    forked.set_exception(FeedFailed("the machine has no room for its process"))
            else:  # its start was given up
                self._kill(number)
        elif what == EXITED:
            self._forget(number)
            exited = self._exited.pop(number, None)
            if exited and not exited.done():
                exited.set_result(code)

    def _lose(self) -> None:
        """Note that the fork server died; its children run on until they are killed here."""
        if not self.lost:
            log.error("the fork server died; running feeds go on")
            self._let_go()

    def _let_go(self) -> None:
        """Close the control socket; the exit codes of its children stay unknown."""
        if self.lost:
            return
        self.lost = True
        self._loop.remove_reader(self._control)
        self._control.close()
        for forked in self._forked.values():
            if not forked.done():
                forked.set_exception(FeedFailed("its process could not be started"))
        for exited in self._exited.values():
            if not exited.done():
                exited.set_result(None)
        self._forked.clear()
        self._exited.clear()
