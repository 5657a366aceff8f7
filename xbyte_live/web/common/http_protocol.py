"""Adapter: uvicorn's HTTP/1.1 protocol with a bounded head and one write per answer."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class BoundedHttp(HttpToolsProtocol):
    """Ends a connection whose request line and headers exceed the configured size.

    The parser keeps the head in memory until it is complete, so that without a limit one
    connection that never ends its headers fills the memory. The limit is
    ``h11_max_incomplete_event_size``, which uvicorn itself applies to its other protocol only.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limit = self.config.h11_max_incomplete_event_size or 65_536
        self._head = 0
        self._in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection behind a transport that joins head and body."""
        self._corked = _Corked(transport)
        super().connection_made(self._corked)  # type: ignore[arg-type]

    def eof_received(self) -> None:
        """The client sends no more: flush before the transport closes."""
        self._corked.flush()

    def data_received(self, data: bytes) -> None:
        """Parse data, unless its head is too long."""
        if self._in_head:
            self._head += len(data)
            if self._head > self._limit:
                self.transport.abort()
                return
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """The head has ended; the body follows."""
        self._in_head, self._head = False, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The message has ended; the next byte begins another head."""
        self._in_head = True
        super().on_message_complete()


class _Corked:
    """A transport that joins the head and the body of an answer into one write.

    uvicorn writes them apart, which costs a system call and wakes the client for the head alone.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._held: bytes | None = None
        self._loop = asyncio.get_running_loop()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send ``data`` behind the held bytes, or hold it until the event loop's next turn."""
        if self._held is not None:
            held, self._held = self._held, None
            self._transport.writelines((held, data))
        else:
            self._held = data
            self._loop.call_soon(self.flush)

    def close(self) -> None:
        """Flush, then close."""
        self.flush()
        self._transport.close()

    def flush(self) -> None:
        """Send the held bytes."""
        held, self._held = self._held, None
        if held is not None and not self._transport.is_closing():
            self._transport.write(held)
