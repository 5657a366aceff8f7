"""Adapter: a process of its own that checks and charges vouchers, for a server that is busy.

Checking signatures and writing charges takes the interpreter as much time as answering does. The
process does both, on its own connection to the same database, so that a server answers while it
charges. One that dies takes no answer with it that a retry would not bring back (money rule 4).
"""

import asyncio
import logging
import os
import socket
import struct
from asyncio import StreamReader, StreamWriter
from collections import deque
from collections.abc import Awaitable, Sequence
from multiprocessing.context import SpawnProcess

import orjson
import uvloop

from xbyte_live.db.engine import Database
from xbyte_live.errors import DatabaseUnavailable
from xbyte_live.helping import AGAIN_AFTER, a_process
from xbyte_live.ledger.channels import Charging, NewDelivery, channel_of, charge_checked, row_of

PATIENCE = 90.0  # seconds a batch may take; a database is waited for less long

_SIZE = struct.Struct("!I")
_READY = b"ready"

log = logging.getLogger(__name__)


class Cashier:
    """Charges in a process of its own once ``busy_from`` vouchers have waited together.

    0 is never. Nothing is charged there before ``run`` runs.
    """

    def __init__(self, url: str, *, retry_window: float, busy_from: int) -> None:
        self._args = (url, retry_window)
        self._busy_from = busy_from
        self._busy = asyncio.Event()
        self._link: _Link | None = None

    @property
    def pid(self) -> int | None:
        """The id of the process, while there is one to charge."""
        return self._link.process.pid if self._link else None

    def hand_over(
        self, news: Sequence[NewDelivery], now: float
    ) -> Awaitable[Sequence[Charging]] | None:
        """Have them charged as ``charge_checked`` does, after those handed over before.

        ``None`` while no process is there for it. What is awaited raises ``DatabaseUnavailable``,
        also where the process gives no answer: they may then have been charged or not.
        """
        if self._busy_from and len(news) >= self._busy_from:
            self._busy.set()
        link = self._link
        return None if link is None else _answered(link, link.ask(_encode_batch(news, now)))

    async def run(self) -> None:
        """Keep the process running from the moment there is need for it."""
        await self._busy.wait()
        while True:
            status = await self._live()
            log.error("the process that charges ended with status %s and is started again", status)
            await asyncio.sleep(AGAIN_AFTER)

    async def _live(self) -> int | None:
        """Start a process and use it until it ends; its exit status."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            async with a_process(serve, (theirs, *self._args), "cashier") as process:
                theirs.close()
                reader, writer = await asyncio.open_unix_connection(sock=ours)
                try:
                    await self._use(_Link(process, reader, writer))
                finally:
                    writer.close()
        return process.exitcode

    async def _use(self, link: "_Link") -> None:
        try:
            await _read(link.reader)
        except (OSError, EOFError):
            return
        log.info("vouchers are charged in a process of their own from now on")
        self._link = link
        try:
            await link.listen()
        finally:
            self._link = None


class _Link:
    """A process that charges, and the way to it: it answers in the order it is asked."""

    def __init__(self, process: SpawnProcess, reader: StreamReader, writer: StreamWriter) -> None:
        self.process, self.reader, self.writer = process, reader, writer
        self._asked: deque[asyncio.Future[bytes]] = deque()

    def ask(self, body: bytes) -> "asyncio.Future[bytes]":
        """Ask, and have the answer once it is there; ``EOFError`` when the process ends first."""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._asked.append(answer)
        self.writer.write(_SIZE.pack(len(body)) + body)
        return answer

    async def listen(self) -> None:
        """Take the answers until the process is gone."""
        try:
            while True:
                body = await _read(self.reader)
                answer = self._asked.popleft()
                if not answer.done():
                    answer.set_result(body)
        except (OSError, EOFError):
            pass
        finally:
            for answer in self._asked:
                if not answer.done():
                    answer.set_exception(EOFError())


async def _answered(link: _Link, answer: "asyncio.Future[bytes]") -> Sequence[Charging]:
    try:
        async with asyncio.timeout(PATIENCE):
            return _decode_answer(await answer)
    except (TimeoutError, EOFError):
        link.process.kill()  # whatever it still does, nobody would hear of it
        raise DatabaseUnavailable("charges are not answered; try again shortly") from None


def serve(sock: socket.socket, url: str, retry_window: float) -> None:
    """Charge what comes through a socket, until its other end is closed; a process's program."""
    os.setsid()  # Ctrl-C is for the server, which ends us
    uvloop.run(_serve(sock, url, retry_window))


async def _serve(sock: socket.socket, url: str, retry_window: float) -> None:
    database = Database(url)
    await database.start()
    reader, writer = await asyncio.open_unix_connection(sock=sock)
    try:
        await _write(writer, _READY)
        while True:
            news, now = _decode_batch(await _read(reader))
            try:
                answer = _encode_answer(await charge_checked(database, news, now, retry_window))
            except DatabaseUnavailable as error:
                answer = orjson.dumps(str(error))
            await _write(writer, answer)
    except (OSError, EOFError):
        pass  # the server is gone
    finally:
        writer.close()
        await database.stop()


async def _write(writer: StreamWriter, body: bytes) -> None:
    writer.write(_SIZE.pack(len(body)) + body)
    await writer.drain()


async def _read(reader: StreamReader) -> bytes:
    (size,) = _SIZE.unpack(await reader.readexactly(_SIZE.size))
    return await reader.readexactly(size)


def _encode_batch(news: Sequence[NewDelivery], now: float) -> bytes:
    return orjson.dumps(
        [
            now,
            [
                (
                    new.channel_id,
                    new.ceiling,
                    new.signature,
                    new.amount,
                    new.slug,
                    new.resource,
                    new.size,
                    new.oldest,
                    new.signed_by,
                )
                for new in news
            ],
        ]
    )


def _decode_batch(body: bytes) -> tuple[list[NewDelivery], float]:
    now, rows = orjson.loads(body)
    news = []
    for *fields, signed_by in rows:
        fields.append((signed_by[0], signed_by[1]) if signed_by else None)
        news.append(NewDelivery(*fields))
    return news, now


def _encode_answer(charged: Sequence[Charging]) -> bytes:
    return orjson.dumps(
        [
            (one.outcome, one.epoch, row_of(one.channel) if one.channel is not None else None)
            for one in charged
        ]
    )


def _decode_answer(body: bytes) -> list[Charging]:
    answer = orjson.loads(body)
    if isinstance(answer, str):
        raise DatabaseUnavailable(answer)
    return [
        Charging(outcome, channel_of(row) if row is not None else None, epoch)
        for outcome, epoch, row in answer
    ]
