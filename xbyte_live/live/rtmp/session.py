"""Adapter: one RTMP connection: from its first byte, through its broadcasts, to its last."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TypeVar, cast

from xbyte_live.errors import PublishRefused
from xbyte_live.live.rtmp.connection import Connection
from xbyte_live.live.rtmp.events import Connected, Event, Goodbye, PublishAsked, Unpublished
from xbyte_live.live.rtmp.publish import Desk, Feed, PublishRequest, RtmpCounters, RtmpLimits
from xbyte_live.media.formats.flv import Tag

READ_SIZE = 1 << 18
MOST_AT_ONCE = 256  # tags taken in one go
_Awaited = TypeVar("_Awaited", Connected, PublishAsked)
_LINGER = 2.0  # seconds a peer gets to read why it was refused
_STOPPING = PublishRefused("NetStream.Unpublish.Success", "The server is stopping; try again.")


class Gone(Exception):
    """The connection came to an end that is nobody's fault; the text says which."""


class Peer:
    """A connected client, served until it or we go."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        desk: Desk,
        limits: RtmpLimits,
        counters: RtmpCounters,
        address: str,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._desk = desk
        self._limits = limits
        self._counters = counters
        self._address = address
        self._last_read = 0  # bytes
        self._last_tag = 0.0  # when the last one was handed on, on the loop's clock
        self._heard: float | None = None  # the same, while it is the peer we wait for
        self._connection = Connection(
            app=limits.app, noise=os.urandom(3072), max_message=limits.max_message
        )

    async def serve(self) -> None:
        """Serve it. Raises Gone, RtmpError or OSError, never returns; its feed is closed then."""
        limits = self._limits
        async with _within(limits.handshake_timeout, "did not connect in time"):
            await self._wait_for(Connected)
        while True:
            async with _within(limits.publish_timeout, "did not publish in time"):
                asked = await self._wait_for(PublishAsked)
            await self._broadcast(asked)

    async def _broadcast(self, asked: PublishAsked) -> None:
        """One broadcast, from the question to the goodbye."""
        request = PublishRequest(
            asked.app, asked.name, asked.query, self._address, asked.encoder, asked.tc_url
        )
        unpublished = False
        try:
            feed = await self._desk.publish(request)
            try:
                self._connection.accept_publish()
                self._last_tag = asyncio.get_running_loop().time()
                await self._carry_until_ended(feed)
                unpublished = True
            finally:
                await feed.close(unpublished=unpublished)
        except PublishRefused as refused:
            self._counters.refused += 1
            self._connection.refuse(refused.code, str(refused))
            await self._say_goodbye()
            raise Gone(f"refused: {refused}") from None
        except asyncio.CancelledError:
            self._connection.refuse(_STOPPING.code, str(_STOPPING))
            if not self._writer.is_closing():
                self._writer.write(self._connection.data_to_send())
            raise

    async def _carry_until_ended(self, feed: Feed) -> None:
        """Carry tags until the publisher says goodbye; raises what ended it otherwise."""
        tasks = [
            asyncio.create_task(self._carry(feed)),
            asyncio.create_task(self._watch()),
            asyncio.create_task(_obey(feed)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await next(task for task in tasks if task.done())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry(self, feed: Feed) -> None:
        """Hand tags on as they come; nothing is read from the peer while the feed is full."""
        loop = asyncio.get_running_loop()
        while True:
            self._heard, patience = None, 0.0
            tags, end = self._next_tags()
            if tags:
                patience = await feed.write(tags)
                self._last_tag = loop.time()
            if isinstance(end, Unpublished):
                return
            if isinstance(end, Goodbye):
                await self._part(end)
            if len(tags) == MOST_AT_ONCE:
                await asyncio.sleep(0)  # there is more, and there are others
                continue
            self._heard = self._last_tag
            if patience and self._last_read < READ_SIZE // 4:  # a peer that is behind is not held
                await self._gather(patience)
            await self._read()

    async def _watch(self) -> None:
        """Ends when the peer, and not the feed, has let us wait for too long.

        One task that looks now and then: a deadline around each read costs more than parsing.
        """
        loop, idle = asyncio.get_running_loop(), self._limits.idle_timeout
        while True:
            left = idle if self._heard is None else self._heard + idle - loop.time()
            if left <= 0:
                raise Gone(f"sent no sound or picture for {idle:g} s")
            await asyncio.sleep(left)

    def _next_tags(self) -> tuple[list[Tag], Event | None]:
        """The tags that have come, and the event that ends them, if one does."""
        tags: list[Tag] = []
        while len(tags) < MOST_AT_ONCE and (event := self._connection.next_event()) is not None:
            if isinstance(event, Tag):
                tags.append(event)
            elif isinstance(event, Unpublished | Goodbye):
                return tags, event
        return tags, None

    async def _gather(self, seconds: float) -> None:
        """Let some more arrive in the system's buffers, without being woken for each packet."""
        transport = cast("asyncio.Transport", self._writer.transport)
        if transport.is_closing():
            return
        transport.pause_reading()
        try:
            await asyncio.sleep(seconds)
        finally:
            if not transport.is_closing():
                transport.resume_reading()

    async def _wait_for(self, kind: type[_Awaited]) -> _Awaited:
        """The next event of a kind; others are of no meaning here, but a goodbye is."""
        while True:
            event = self._connection.next_event()
            if isinstance(event, kind):
                return event
            if isinstance(event, Goodbye):
                await self._part(event)
            if event is None:
                await self._read()

    async def _read(self) -> None:
        """Send what is to be sent, and wait for bytes."""
        await self._send()
        data = await self._reader.read(READ_SIZE)
        if not data:
            raise Gone("closed the connection")
        self._last_read = len(data)
        self._counters.bytes_in += len(data)
        self._connection.receive_data(data)

    async def _send(self) -> None:
        if data := self._connection.data_to_send():
            self._writer.write(data)
            await self._writer.drain()

    async def _part(self, goodbye: Goodbye) -> None:
        await self._say_goodbye()
        raise Gone(goodbye.reason)

    async def _say_goodbye(self) -> None:
        """Let the peer read our last words: what it goes on sending would reset them away."""
        with suppress(OSError):
            async with asyncio.timeout(_LINGER):
                await self._send()
                if self._writer.can_write_eof():
                    self._writer.write_eof()
                while await self._reader.read(READ_SIZE):
                    pass


async def _obey(feed: Feed) -> None:
    raise await feed.ended()


@asynccontextmanager
async def _within(seconds: float, otherwise: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Gone(f"{otherwise} ({seconds:g} s)") from None
