"""Adapter: the RTMP port, which accepts connections within limits and serves each in a task."""

import asyncio
import logging
import socket
from collections import Counter
from contextlib import suppress
from ssl import SSLContext

from xbyte_live.errors import RtmpError
from xbyte_live.live.rtmp.publish import Publish, RtmpCounters, RtmpLimits
from xbyte_live.live.rtmp.publisher_connection import ConnectionEnded, PublisherConnection
from xbyte_live.runtime.rate_limit import network_of

log = logging.getLogger(__name__)

_BUFFER = 1 << 16  # bytes read ahead; asyncio reads twice as many at most
_CLOSING = 2.0  # seconds a publisher has to read the last bytes written to it
_REST = 1.0  # seconds without accepting
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))


class RtmpServer:
    """Listens for publishers and counts them in ``counters`` and ``connections``."""

    def __init__(self, publish: Publish, limits: RtmpLimits) -> None:
        self.counters = RtmpCounters()
        self._publish = publish
        self._limits = limits
        self._ports: list[socket.socket] = []
        self._networks: dict[asyncio.Task[None], str] = {}  # of each connection

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._networks)

    async def start(
        self,
        host: str = "",
        port: int = 0,
        *,
        sock: socket.socket | None = None,
        ssl: SSLContext | None = None,
    ) -> int:
        """Listen on an address, or on a bound socket; with ``ssl`` it is an RTMPS port.

        May be called once for each port. Returns the port; raises OSError when it is taken.
        """
        if sock is None:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            sock = socket.create_server((host, port), family=family)
        sock.listen(128)
        sock.setblocking(False)
        self._ports.append(sock)
        self._listen(sock, ssl)
        return int(sock.getsockname()[1])

    async def stop(self) -> None:
        """Close the ports and every connection; returns when each feed has been closed."""
        for port in self._ports:
            asyncio.get_running_loop().remove_reader(port)
            port.close()
        self._ports.clear()
        tasks = list(self._networks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _listen(self, port: socket.socket, context: SSLContext | None) -> None:
        if port in self._ports:
            asyncio.get_running_loop().add_reader(port, self._accept, port, context)

    def _accept(self, port: socket.socket, context: SSLContext | None) -> None:
        """Accept one connection; pause accepting for a moment when no descriptor is left."""
        try:
            sock, address = port.accept()
        except (BlockingIOError, ConnectionError):
            return  # the publisher gave up meanwhile
        except OSError as error:
            log.warning("no connection can be accepted: %s", error.strerror)
            loop = asyncio.get_running_loop()
            loop.remove_reader(port)
            loop.call_later(_REST, self._listen, port, context)
            return
        sock.setblocking(False)
        self._admit(sock, str(address[0]), context)

    def _admit(self, sock: socket.socket, address: str, context: SSLContext | None) -> None:
        limits, network = self._limits, network_of(address)
        same = Counter(self._networks.values())[network]
        if len(self._networks) >= limits.max_connections or same >= limits.per_address:
            self.counters.turned_away += 1
            log.warning("publisher %s: turned away, too many connections", address)
            sock.close()
            return
        self.counters.accepted += 1
        task = asyncio.create_task(self._serve(sock, address, context))
        self._networks[task] = network
        task.add_done_callback(lambda done: self._forget(done, sock))

    def _forget(self, task: asyncio.Task[None], sock: socket.socket) -> None:
        del self._networks[task]
        sock.close()  # a task that is cancelled before its first step has not closed it

    async def _serve(self, sock: socket.socket, address: str, context: SSLContext | None) -> None:
        """Serve one connection to its end, and log why it ended."""
        try:
            reader, writer = await _open(sock, context, self._limits.handshake_timeout)
        except OSError as error:
            log.info("publisher %s: the connection could not be opened: %s", address, error)
            return
        try:
            connection = PublisherConnection(
                reader, writer, self._publish, self._limits, self.counters, address
            )
            await connection.serve()
        except ConnectionEnded as ended:
            log.info("publisher %s: %s", address, ended)
        except RtmpError as error:
            self.counters.broken += 1
            log.info("publisher %s: broke the protocol: %s", address, error)
        except OSError as error:
            log.info("publisher %s: connection lost: %s", address, error.strerror or error)
        except Exception:
            log.exception("publisher %s: dropped because of an error in the server", address)
        finally:
            await _close(writer)


async def _open(
    sock: socket.socket, context: SSLContext | None, timeout: float
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Streams over an accepted socket. Raises OSError, of which SSLError is one."""
    loop = asyncio.get_running_loop()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    reader = asyncio.StreamReader(limit=_BUFFER)
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.connect_accepted_socket(
        lambda: protocol,
        sock,
        ssl=context,
        ssl_handshake_timeout=timeout if context else None,
        ssl_shutdown_timeout=_CLOSING if context else None,
    )
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def _close(writer: asyncio.StreamWriter) -> None:
    """Close a connection, and abort it if the publisher does not read the last bytes in time."""
    writer.close()
    with suppress(OSError):
        async with asyncio.timeout(_CLOSING):
            await writer.wait_closed()
    writer.transport.abort()
