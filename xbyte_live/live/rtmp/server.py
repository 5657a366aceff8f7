"""Adapter: the RTMP port: accepts connections within its limits and serves each in a task."""

import asyncio
import logging
import socket
from collections import Counter
from contextlib import suppress
from ssl import SSLContext

from xbyte_live.errors import RtmpError
from xbyte_live.live.rtmp.publish import Desk, Feed, PublishRequest, RtmpCounters, RtmpLimits
from xbyte_live.live.rtmp.session import Gone, Peer
from xbyte_live.runtime.rate_limit import network_of

__all__ = ["Desk", "Feed", "PublishRequest", "RtmpCounters", "RtmpLimits", "RtmpServer"]

log = logging.getLogger(__name__)

_BUFFER = 1 << 16  # bytes read ahead of what is taken; twice as many at most
_CLOSING = 2.0  # seconds a peer gets to take what was written to it last
_REST = 1.0  # seconds without accepting
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))


class RtmpServer:
    """Listens for publishers; ``counters`` and ``connections`` say what it sees."""

    def __init__(self, desk: Desk, limits: RtmpLimits) -> None:
        self.counters = RtmpCounters()
        self._desk = desk
        self._limits = limits
        self._ports: list[socket.socket] = []
        self._peers: dict[asyncio.Task[None], str] = {}  # where each comes from

    @property
    def connections(self) -> int:
        """How many peers are connected now."""
        return len(self._peers)

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
        peers = list(self._peers)
        for task in peers:
            task.cancel()
        await asyncio.gather(*peers, return_exceptions=True)

    def _listen(self, port: socket.socket, context: SSLContext | None) -> None:
        if port in self._ports:
            asyncio.get_running_loop().add_reader(port, self._accept, port, context)

    def _accept(self, port: socket.socket, context: SSLContext | None) -> None:
        """Take one connection; without descriptors left, rest until some are given back."""
        try:
            sock, address = port.accept()
        except (BlockingIOError, ConnectionError):
            return  # the peer thought better of it
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
        same = Counter(self._peers.values())[network]
        if len(self._peers) >= limits.max_connections or same >= limits.per_address:
            self.counters.turned_away += 1
            log.warning("publisher %s: turned away, too many connections", address)
            sock.close()
            return
        self.counters.accepted += 1
        task = asyncio.create_task(self._serve(sock, address, context))
        self._peers[task] = network
        task.add_done_callback(lambda done: self._forget(done, sock))

    def _forget(self, task: asyncio.Task[None], sock: socket.socket) -> None:
        del self._peers[task]
        sock.close()  # a task that is cancelled before its first step has not closed it

    async def _serve(self, sock: socket.socket, address: str, context: SSLContext | None) -> None:
        """One connection from beginning to end, and a line of the log about its end."""
        try:
            reader, writer = await _open(sock, context, self._limits.handshake_timeout)
        except OSError as error:
            log.info("publisher %s: no connection came about: %s", address, error)
            return
        try:
            peer = Peer(reader, writer, self._desk, self._limits, self.counters, address)
            await peer.serve()
        except Gone as gone:
            log.info("publisher %s: %s", address, gone)
        except RtmpError as error:
            self.counters.broken += 1
            log.info("publisher %s: broke the protocol: %s", address, error)
        except OSError as error:
            log.info("publisher %s: connection lost: %s", address, error.strerror or error)
        except Exception:
            log.exception("publisher %s: dropped by a fault of ours", address)
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
    """Close it, at once if the peer does not take what is still to be sent."""
    writer.close()
    with suppress(OSError):
        async with asyncio.timeout(_CLOSING):
            await writer.wait_closed()
    writer.transport.abort()
