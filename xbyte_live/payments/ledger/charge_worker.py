"""Adapter: a process of its own that checks and charges vouchers for a busy server.

Checking signatures and writing charges takes the interpreter as much time as answering does. The
process does both, on its own connection to the same database, so that a server answers while it
charges. One that dies takes no answer with it that a retry would not bring back (money rule 4).
"""

import asyncio
import logging
import os
import random
import select
import socket
import struct
from asyncio import StreamReader, StreamWriter
from collections import deque
from collections.abc import Awaitable, Sequence
from contextlib import closing, suppress
from functools import partial
from multiprocessing.context import SpawnProcess
from typing import Any, TypeAlias

import orjson

from xbyte_live.errors import DatabaseUnavailable
from xbyte_live.payments.ledger.channel import Charging, NewDelivery, channel_from
from xbyte_live.payments.ledger.channels import charge_all, in_their_order
from xbyte_live.runtime.aio import backoff
from xbyte_live.runtime.logs import log_to_stderr
from xbyte_live.runtime.processes import child_process, seal
from xbyte_live.storage.db.connect import parse_url, writer_engine
from xbyte_live.storage.db.writer import Outcome, Transactions

PATIENCE = 90.0  # seconds a batch may take; a database is waited for less long

_SIZE = struct.Struct("!I")
_READY = b"ready"
_LONG_LIFE = 30.0  # seconds; one that ends sooner again and again is started less and less often

_Batch: TypeAlias = tuple[list[NewDelivery], float]

log = logging.getLogger(__name__)


class ChargeWorker:
    """Charges in a process of its own once ``busy_from`` vouchers have waited together.

    0 is never. Nothing is charged there before ``run`` runs.
    """

    def __init__(
        self, url: str, *, retry_window: float, busy_from: int, log_level: str = "warning"
    ) -> None:
        self._args = (url, retry_window, log_level)
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
        if link is None or link.given_up:
            return None
        return _answered(link, link.ask(_encode_batch(news, now)))

    async def run(self) -> None:
        """Keep the process running from the moment there is need for it."""
        await self._busy.wait()
        loop, failures = asyncio.get_running_loop(), 0
        while True:
            began = loop.time()
            try:
                why = await self._live()
            except OSError as error:
                why = error.strerror or type(error).__name__
            failures = 1 if loop.time() - began > _LONG_LIFE else failures + 1
            log.error("the process that charges is gone (%s) and is started again", why)
            await asyncio.sleep(backoff(failures, random.random(), least=1.0, most=_LONG_LIFE))  # noqa: S311

    async def _live(self) -> str:
        """Start a process and use it until it ends; why it ended."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            async with child_process(serve, (theirs, *self._args), "charge worker") as process:
                theirs.close()
                reader, writer = await asyncio.open_unix_connection(sock=ours)
                try:
                    await self._use(_Link(process, reader, writer))
                finally:
                    writer.close()
        return f"status {process.exitcode}"

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
        self.given_up = False
        self._asked: deque[asyncio.Future[bytes]] = deque()

    def ask(self, body: bytes) -> "asyncio.Future[bytes]":
        """Ask, and have the answer once it is there; ``EOFError`` when the process ends first."""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._asked.append(answer)
        self.writer.write(_SIZE.pack(len(body)) + body)
        return answer

    def give_up(self) -> None:
        """End the process: whatever it still does, nobody would hear of it."""
        self.given_up = True
        self.process.kill()

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
        link.give_up()
        raise DatabaseUnavailable("charges are not answered; try again shortly") from None


def serve(sock: socket.socket, url: str, retry_window: float, log_level: str) -> None:
    """Charge what comes through a socket, until its other end is closed; a process's program."""
    seal()
    os.setsid()  # Ctrl-C is for the server, which ends us
    log_to_stderr(log_level)
    transactions = Transactions(writer_engine(parse_url(url)))
    with sock, closing(transactions), suppress(OSError, EOFError):
        _send(sock, _READY)
        while True:
            batches = [_decode_batch(body) for body in _arrived(sock)]
            for answer in _charged(transactions, batches, retry_window):
                _send(sock, answer)


def _charged(
    transactions: Transactions, batches: Sequence[_Batch], retry_window: float
) -> Sequence[bytes]:
    """Charge batches in one transaction."""
    signed = [[new.is_signed for new in news] for news, _ in batches]
    works = [
        partial(
            charge_all,
            news=[new for new, is_good in zip(news, good, strict=True) if is_good],
            now=now,
            retry_window=retry_window,
        )
        for (news, now), good in zip(batches, signed, strict=True)
    ]
    some = any(map(any, signed))
    outcomes = transactions.run(works) if some else [Outcome(())] * len(works)
    return [
        _encode_answer(in_their_order(good, outcome.value))
        if outcome.error is None
        else _encode_error(outcome.error)
        for good, outcome in zip(signed, outcomes, strict=True)
    ]


def _arrived(sock: socket.socket) -> list[bytes]:
    """What has come by now, at least one; waits for that. ``EOFError`` when no more will."""
    bodies = [_receive(sock)]
    more = select.poll()  # ``select`` takes no descriptor above 1023
    more.register(sock, select.POLLIN)
    while more.poll(0):
        bodies.append(_receive(sock))
    return bodies


def _receive(sock: socket.socket) -> bytes:
    (size,) = _SIZE.unpack(_exactly(sock, _SIZE.size))
    return _exactly(sock, size)


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = sock.recv(size, socket.MSG_WAITALL)
    if len(data) < size:
        raise EOFError
    return data


def _send(sock: socket.socket, body: bytes) -> None:
    sock.sendall(_SIZE.pack(len(body)) + body)


async def _read(reader: StreamReader) -> bytes:
    (size,) = _SIZE.unpack(await reader.readexactly(_SIZE.size))
    return await reader.readexactly(size)


def _encode_batch(news: Sequence[NewDelivery], now: float) -> bytes:
    return orjson.dumps((now, news))


def _decode_batch(body: bytes) -> _Batch:
    now, rows = orjson.loads(body)
    return [_delivery(**fields) for fields in rows], now


def _delivery(*, signed_by: list[Any] | None, **fields: Any) -> NewDelivery:
    key = (signed_by[0], signed_by[1]) if signed_by else None
    return NewDelivery(**fields, signed_by=key)


def _encode_answer(charged: Sequence[Charging]) -> bytes:
    return orjson.dumps(charged)


def _encode_error(error: BaseException) -> bytes:
    if isinstance(error, DatabaseUnavailable):
        return orjson.dumps(str(error))
    log.error("charging ended in an error", exc_info=error)
    return orjson.dumps("charges are not answered; try again shortly")


def _decode_answer(body: bytes) -> list[Charging]:
    answer = orjson.loads(body)
    if isinstance(answer, str):
        raise DatabaseUnavailable(answer)
    return [
        Charging(one["outcome"], one["channel"] and channel_from(one["channel"]), one["epoch"])
        for one in answer
    ]
