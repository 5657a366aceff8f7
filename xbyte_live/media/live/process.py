"""Adapter: the server's end of a child process that packages one live feed."""

import asyncio
import signal
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass

from xbyte_live.errors import FeedFailed, MediaError, XByteError
from xbyte_live.media.live import messages
from xbyte_live.media.live.messages import EXIT_MEMORY, FeedEvent, FeedOptions

_EXIT_WITHIN = 5.0  # seconds of its last message


@dataclass(frozen=True, slots=True)
class Child:
    """A forked process: ``exited`` gets its exit code (``-signal``), ``None`` if it is unknown."""

    pid: int
    exited: "asyncio.Future[int | None]"
    kill: Callable[[], None]


class FeedProcess:
    """One child: FLV in, events out. ``kill`` it in the end in any case.

    Made by ``FeedSpawner.start``.
    """

    def __init__(
        self, reader: StreamReader, writer: StreamWriter, child: Child, options: FeedOptions
    ) -> None:
        self._reader, self._writer, self._child = reader, writer, child
        self._options = options
        self._loop = asyncio.get_running_loop()
        silence = 3 * options.source.timeout_s if options.source else 0
        self._stall = options.stall_timeout + silence
        self._written = self._taken = 0
        self._pulled, self._finishing = options.source is not None, False
        self._reading = False
        self._since = self._loop.time()
        self._error: XByteError | None = None
        self._ended = False
        self._timer = self._loop.call_later(self._stall / 4, self._watch)

    @property
    def pid(self) -> int:
        """The id of the child process."""
        return self._child.pid

    async def write(self, data: bytes) -> None:
        """Write FLV bytes, waiting while the child is busy or its events are not read.

        Raises ``FeedFailed`` when the child is gone, as ``events`` does.
        """
        if self._error or self._ended:
            raise FeedFailed(str(self._error or "the feed has ended"))
        if self._written == self._taken:
            self._since = self._loop.time()
        self._written += len(data)
        try:
            self._writer.write(data)
            await self._writer.drain()
        except (ConnectionError, RuntimeError):
            raise FeedFailed(str(await self._failure())) from None

    async def finish(self) -> None:
        """End the input; the last events still arrive through ``events``."""
        if not self._finishing and not self._ended:
            self._finishing = True
            self._since = self._loop.time()
            with suppress(OSError, RuntimeError):
                self._writer.write_eof()

    async def events(self) -> AsyncGenerator[FeedEvent]:
        """Every event of the child, once; ends after ``finish``.

        Raises ``FeedFailed`` when the child crashed, hung or was killed, ``MediaError`` when the
        media cannot be carried.
        """
        try:
            while True:
                kind, meta, body = await self._next()
                if kind == messages.END:
                    break
                if kind == messages.REFUSED:
                    raise MediaError(messages.text_of(meta))
                yield messages.unpack(kind, meta, body)
        except (EOFError, ConnectionError):
            raise await self._failure() from None
        except XByteError as error:
            self._error = self._error or error
            await self.kill()
            raise
        await self._close()

    async def kill(self) -> None:
        """Kill the child, unless it has exited, and wait until it is gone."""
        self._child.kill()
        await self._close()

    async def _next(self) -> tuple[int, bytes, bytes]:
        """The next message other than a report of bytes read."""
        read = self._reader.readexactly
        while True:
            self._since, self._reading = self._loop.time(), True
            kind, meta_size, body_size = messages.sizes(await read(messages.HEAD.size))
            meta = await read(meta_size)
            if kind == messages.READ:
                self._taken = messages.bytes_read(meta)
                continue
            body = await self._read(body_size)
            self._reading = False
            return kind, meta, body

    async def _read(self, size: int) -> bytes:
        """Exactly ``size`` bytes, in parts: ``readexactly`` copies its buffer again and again."""
        parts = []
        while size:
            part = await self._reader.read(size)
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _watch(self) -> None:
        """Kill a child that has input or must finish, and makes no progress."""
        owes = self._pulled or self._finishing or self._written > self._taken
        if self._reading and owes and self._loop.time() - self._since > self._stall:
            self._error = FeedFailed(f"its packaging hung for {self._stall:g} seconds")
            self._child.kill()
            return
        self._timer = self._loop.call_later(self._stall / 4, self._watch)

    async def _failure(self) -> XByteError:
        """The reason why the child exited."""
        await self._close()
        code = self._child.exited.result() if self._child.exited.done() else None
        if self._error is None:
            self._error = FeedFailed(_reason(code, self._options.memory_bytes))
        return self._error

    async def _close(self) -> None:
        """Close the pipe and wait for the child; kill one that does not exit in time."""
        self._ended = True
        self._timer.cancel()
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()
        exited = asyncio.shield(self._child.exited)
        try:
            await asyncio.wait_for(exited, _EXIT_WITHIN)
        except TimeoutError:
            self._child.kill()
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._child.exited), _EXIT_WITHIN)


def _reason(code: int | None, memory_bytes: int) -> str:
    if code == EXIT_MEMORY:
        return f"its packaging needed more than {memory_bytes >> 20} MiB of memory"
    if code == -signal.SIGKILL:
        return "its packaging was killed, perhaps because the machine ran out of memory"
    if code is not None and code < 0:
        return f"its packaging crashed ({signal.Signals(-code).name})"
    return "its packaging failed; the log of the server says how"
