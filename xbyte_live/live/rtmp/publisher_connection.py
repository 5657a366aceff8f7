"""Adapter: one publisher's RTMP connection, served from its handshake to its end."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TypeVar, cast

from xbyte_live.errors import PublishRefused
from xbyte_live.live.rtmp.connection import Connection
from xbyte_live.live.rtmp.events import Connected, Event, Goodbye, PublishRequest, Unpublished
from xbyte_live.live.rtmp.publish import (
    FeedSink,
    Publish,
    RtmpCounters,
    RtmpLimits,
)
from xbyte_live.media.formats.flv import Tag

READ_SIZE = 1 << 18
MOST_AT_ONCE = 256  # tags in one write
_Awaited = TypeVar("_Awaited", Connected, PublishRequest)
_LINGER = 2.0  # seconds a publisher has to read why it was refused
_STOPPING = PublishRefused("NetStream.Unpublish.Success", "The server is stopping; try again.")


class ConnectionEnded(Exception):
    """The connection ended without an error on either side; the text says how."""


class PublisherConnection:
    """A connected publisher, whose tags go to a feed until either side ends it."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        publish: Publish,
        limits: RtmpLimits,
        counters: RtmpCounters,
        address: str,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._publish = publish
        self._limits = limits
        self._counters = counters
        self._address = address
        self._last_read = 0  # bytes
        self._last_tag = 0.0  # when the last one was handed on, on the loop's clock
        self._idle_since: float | None = None  # the same, while waiting for the publisher
        self._connection = Connection(
            app=limits.app, noise=os.urandom(3072), max_message=limits.max_message
        )

    async def serve(self) -> None:
        """Serve it to its end, with its feed closed.

        Never returns: raises ``ConnectionEnded``, ``RtmpError`` or ``OSError``.
        """
        limits = self._limits
        async with _within(limits.handshake_timeout, "did not connect in time"):
            await self._wait_for(Connected)
        while True:
            async with _within(limits.publish_timeout, "did not publish in time"):
                asked = await self._wait_for(PublishRequest)
            await self._broadcast(asked)

    async def _broadcast(self, asked: PublishRequest) -> None:
        """Serve one feed, from its publish request to its end."""
        request = replace(asked, address=self._address)
        unpublished = False
        try:
            feed = await self._publish(request)
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
            await self._send_last_answer()
            raise ConnectionEnded(f"refused: {refused}") from None
        except asyncio.CancelledError:
            self._connection.refuse(_STOPPING.code, str(_STOPPING))
            if not self._writer.is_closing():
                self._writer.write(self._connection.data_to_send())
            raise

    async def _carry_until_ended(self, feed: FeedSink) -> None:
        """Carry tags until the publisher unpublishes; raises whatever else ends the feed."""
        tasks = [
            asyncio.create_task(self._carry(feed)),
            asyncio.create_task(self._watch()),
            asyncio.create_task(_raise_when_ended(feed)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await next(task for task in tasks if task.done())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry(self, feed: FeedSink) -> None:
        """Pass tags on as they arrive; the socket is not read while the feed is full."""
        loop = asyncio.get_running_loop()
        while True:
            self._idle_since, gather_s = None, 0.0
            tags, end = self._next_tags()
            if tags:
                gather_s = await feed.write(tags)
                self._last_tag = loop.time()
            if isinstance(end, Unpublished):
                return
            if isinstance(end, Goodbye):
                await self._hang_up(end)
            if len(tags) == MOST_AT_ONCE:
                await asyncio.sleep(0)  # there is more, and there are others
                continue
            self._idle_since = self._last_tag
            if gather_s and self._last_read < READ_SIZE // 4:  # a full read means a backlog
                await self._gather(gather_s)
            await self._read()

    async def _watch(self) -> None:
        """Raise once the publisher, and not a busy feed, has been silent for too long.

        One task with one timer, because a deadline around each read costs more than parsing.
        """
        loop, idle = asyncio.get_running_loop(), self._limits.idle_timeout
        while True:
            left = idle if self._idle_since is None else self._idle_since + idle - loop.time()
            if left <= 0:
                raise ConnectionEnded(f"sent no sound or picture for {idle:g} s")
            await asyncio.sleep(left)

    def _next_tags(self) -> tuple[list[Tag], Event | None]:
        """The tags received so far, and the event that ends the feed, if one does."""
        tags: list[Tag] = []
        while len(tags) < MOST_AT_ONCE and (event := self._connection.next_event()) is not None:
            if isinstance(event, Tag):
                tags.append(event)
            elif isinstance(event, Unpublished | Goodbye):
                return tags, event
        return tags, None

    async def _gather(self, seconds: float) -> None:
        """Let more bytes arrive in the kernel's buffer, without waking for each packet."""
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
        """The next event of a kind; any other is skipped, but a goodbye ends the connection."""
        while True:
            event = self._connection.next_event()
            if isinstance(event, kind):
                return event
            if isinstance(event, Goodbye):
                await self._hang_up(event)
            if event is None:
                await self._read()

    async def _read(self) -> None:
        """Send the pending answers, then wait for bytes."""
        await self._send()
        data = await self._reader.read(READ_SIZE)
        if not data:
            raise ConnectionEnded("closed the connection")
        self._last_read = len(data)
        self._counters.bytes_in += len(data)
        self._connection.receive_data(data)

    async def _send(self) -> None:
        if data := self._connection.data_to_send():
            self._writer.write(data)
            await self._writer.drain()

    async def _hang_up(self, goodbye: Goodbye) -> None:
        await self._send_last_answer()
        raise ConnectionEnded(goodbye.reason)

    async def _send_last_answer(self) -> None:
        """Send the last answer and read on: closing with bytes unread would reset it away."""
        with suppress(OSError):
            async with asyncio.timeout(_LINGER):
                await self._send()
                if self._writer.can_write_eof():
                    self._writer.write_eof()
                while await self._reader.read(READ_SIZE):
                    pass


async def _raise_when_ended(feed: FeedSink) -> None:
    raise await feed.ended()


@asynccontextmanager
async def _within(seconds: float, otherwise: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise ConnectionEnded(f"{otherwise} ({seconds:g} s)") from None
