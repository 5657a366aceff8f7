"""Adapter: uvicorn's HTTP/1.1 protocol with a limit on what comes before a request's body."""

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class BoundedHttp(HttpToolsProtocol):
    """Ends a connection whose request line and headers exceed the configured size.

    The parser keeps what it has read of them, so that without a limit one connection that never
    ends its headers fills the memory. The limit is ``h11_max_incomplete_event_size``, which
    uvicorn itself applies to its other protocol only.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limit = self.config.h11_max_incomplete_event_size or 65_536
        self._head = 0
        self._in_head = True

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless the head it belongs to is too long."""
        if self._in_head:
            self._head += len(data)
            if self._head > self._limit:
                self.transport.abort()
                return
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """The head is over; what follows is body."""
        self._in_head, self._head = False, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The next byte begins another head."""
        self._in_head = True
        super().on_message_complete()
