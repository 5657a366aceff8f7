"""A facilitator on a real loopback socket whose every answer the test sets."""

import asyncio
import json
import os
import select
import socket
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it came; ``operation`` is the last part of its path."""

    method: str
    operation: str
    headers: Mapping[str, str]
    body: dict[str, Any]


class Answer(Protocol):
    """What the double does with a request."""

    async def send(self, call: Call, writer: asyncio.StreamWriter) -> bool:
        """Answer; whether the connection can take another request."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole HTTP answer."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    async def send(self, call: Call, writer: asyncio.StreamWriter) -> bool:
        headers = {"content-type": "application/json", **self.headers}
        lines = [f"HTTP/1.1 {self.status} x", *(f"{k}: {v}" for k, v in headers.items())]
        if self.status != 204:
            lines.append(f"content-length: {len(self.body)}")
        writer.write("\r\n".join([*lines, "", ""]).encode() + self.body)
        await writer.drain()
        return True


class Endless:
    """Bytes that never end; ``sent`` counts them."""

    def __init__(self) -> None:
        self.sent = 0

    async def send(self, call: Call, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 x\r\ncontent-type: application/json\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" " * 65536)
            await writer.drain()
            self.sent += 65536
        return False


@dataclass(frozen=True, slots=True)
class HangUp:
    """So many bytes of an answer, then the connection is gone."""

    after: bytes = b""

    async def send(self, call: Call, writer: asyncio.StreamWriter) -> bool:
        writer.write(self.after)
        await writer.drain()
        return False


class Held:
    """An answer that waits until ``release`` is set; ``arrived`` is set when it is asked for."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.arrived = asyncio.Event()
        self.release = asyncio.Event()
        self._answer = answer or success()

    async def send(self, call: Call, writer: asyncio.StreamWriter) -> bool:
        self.arrived.set()
        await self.release.wait()
        return await self._answer.send(call, writer)


class Trickle:
    """A byte every ``pause`` seconds, so that no single read takes long."""

    def __init__(self, pause: float) -> None:
        self._pause = pause

    async def send(self, call: Call, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 x\r\ncontent-type: application/json\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(self._pause)
        return False


def as_json(value: Any, status: int = 200, **headers: str) -> Reply:
    """Any value as a JSON answer."""
    return Reply(status, json.dumps(value).encode(), headers)


def success(transaction: str | None = None, network: str = "eip155:84532") -> Reply:
    """The money moved, in this transaction or in a new one."""
    tx = transaction if transaction is not None else "0x" + os.urandom(32).hex()
    return as_json({"success": True, "transaction": tx, "network": network, "payer": "0x"})


def refusal(
    code: Any = "invalid_exact_evm_insufficient_balance", transaction: str = "", status: int = 200
) -> Reply:
    """The money did not move, for this reason."""
    body = {"success": False, "errorReason": code, "transaction": transaction, "network": ""}
    return as_json(body, status)


def valid() -> Reply:
    """The payment would settle."""
    return as_json({"isValid": True, "payer": "0x"})


def invalid(code: Any, status: int = 200) -> Reply:
    """The payment would not settle, for this reason."""
    return as_json({"isValid": False, "invalidReason": code, "payer": "0x"}, status)


def redirect(location: str, status: int = 308) -> Reply:
    """Try there."""
    return Reply(status, b"", {"location": location})


def rubbish() -> Reply:
    """What a captive portal says."""
    return Reply(200, b"<html>welcome</html>", {"content-type": "text/html"})


def supported() -> Reply:
    """What a facilitator says of itself."""
    kinds = [{"x402Version": 2, "scheme": "exact", "network": "eip155:84532"}]
    return as_json({"kinds": kinds, "extensions": [], "signers": {}})


class FacilitatorDouble:
    """Answers ``verify`` and ``supported`` well and settles, unless told otherwise."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._next: dict[str, deque[Answer]] = {}
        self._always: dict[str, Answer] = {"verify": valid(), "supported": supported()}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it listens."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()
        return f"http://{host}:{port}"

    def next(self, operation: str, *answers: Answer) -> None:
        """Give these answers to the next requests of an operation, one each."""
        self._next.setdefault(operation, deque()).extend(answers)

    def always(self, operation: str, answer: Answer) -> None:
        """Give this answer to all requests of an operation that have none of their own."""
        self._always[operation] = answer

    def count(self, operation: str) -> int:
        """How often an operation was asked for."""
        return sum(call.operation == operation for call in self.calls)

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def stop(self) -> None:
        """Listen no more, and drop every connection."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._answer(reader, writer):
                    pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        pairs = (line.partition(":") for line in head[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        operation = path.rpartition("/")[2]
        call = Call(method, operation, headers, json.loads(body or b"{}"))
        self.calls.append(call)
        waiting = self._next.get(operation)
        answer = waiting.popleft() if waiting else self._always.get(operation, success())
        return await answer.send(call, writer)


@asynccontextmanager
async def facilitator_double() -> AsyncIterator[FacilitatorDouble]:
    """A running double."""
    double = FacilitatorDouble()
    await double.start()
    try:
        yield double
    finally:
        await double.stop()


@contextmanager
def refusing_url() -> Iterator[str]:
    """A URL where connections are refused, as long as the block lasts."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # taken, but nobody listens
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@contextmanager
def silent_url() -> Iterator[str]:
    """A URL where a connection is neither taken nor refused: its waiting room is full."""
    with socket.socket() as held, socket.socket() as guest:
        held.bind(("127.0.0.1", 0))
        held.listen(0)  # room for one
        guest.connect(held.getsockname())
        # The guest is connected before it is in the room; whoever comes in between is let in too.
        select.select([held], [], [])
        yield f"http://127.0.0.1:{held.getsockname()[1]}"
