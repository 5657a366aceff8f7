"""Adapter: the proxy's listening socket and its answers as ASGI messages (ASGI 3, RFC 9110)."""

import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from xbyte_live.errors import ConfigError

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class ProxyResponse:
    """One answer; nothing of it may be stored or taken for another type."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def start(self) -> Message:
        """Its head."""
        shown = {
            **self.headers,
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
        }
        headers = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in shown.items()]
        return {"type": "http.response.start", "status": self.status, "headers": headers}


async def say(send: Send, answer: ProxyResponse, method: str) -> None:
    """Send an answer that is here as a whole."""
    headers = answer.headers
    if method != "HEAD":
        headers = {**headers, "content-length": str(len(answer.body))}
    await send(ProxyResponse(answer.status, headers).start)
    body = b"" if method == "HEAD" else answer.body
    await send({"type": "http.response.body", "body": body})


def plain_answer(status: int, text: str, headers: Mapping[str, str] | None = None) -> ProxyResponse:
    """A sentence for people."""
    shown = {"content-type": "text/plain; charset=utf-8", **(headers or {})}
    return ProxyResponse(status, shown, f"{text}\n".encode())


def head_answer(size: int | None) -> ProxyResponse:
    """What a look says of bytes that nobody bought."""
    length = {} if size is None else {"content-length": str(size)}
    return ProxyResponse(200, {"accept-ranges": "bytes", **length})


def is_range(wanted: str) -> bool:
    """Whether a ``Range`` is one range of bytes; any other is ignored (RFC 9110 14.2)."""
    return _RANGE.fullmatch(wanted) is not None and wanted != "bytes=-"


def span_of(wanted: str | None, size: int | None) -> tuple[int, int | None] | None:
    """From where to where (excluded) a ``Range`` wants; ``None`` if nothing is there."""
    found = _RANGE.fullmatch(wanted or "")
    if found is None or found[0] == "bytes=-" or size is None:
        return 0, size
    if not found[1]:
        start, stop = max(0, size - int(found[2])), size
    else:
        start, stop = int(found[1]), min(size, int(found[2] or size - 1) + 1)
    return (start, stop) if start < stop else None


def listen_on_loopback(port: int, host: str = "127.0.0.1") -> tuple[socket.socket, str]:
    """A socket of this machine alone, and its ``host:port``.

    Raises ``ConfigError`` for any address that others could reach, and for a port in use.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ConfigError(f"{host!r} is no address; the proxy listens on 127.0.0.1") from None
    if not address.is_loopback:
        raise ConfigError("the proxy spends your money, so it listens on this machine only")
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise ConfigError(
            f"port {port} on {host} cannot be used ({error.strerror}); choose another with --port"
        ) from None
    shown = f"[{host}]" if address.version == 6 else host
    return listener, f"{shown}:{listener.getsockname()[1]}"
