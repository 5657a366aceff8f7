"""Adapter: the child process that packages one live feed, from its first byte to its exit code."""

import gc
import os
import resource
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress

from xbyte_live.errors import MediaError
from xbyte_live.media.formats.flv import TagReader
from xbyte_live.media.live import messages
from xbyte_live.media.live.flv_demuxer import FlvDemuxer
from xbyte_live.media.live.messages import (
    EXIT_FAILED,
    EXIT_MEMORY,
    EXIT_PARENT_GONE,
    FeedEvent,
    FeedOptions,
)
from xbyte_live.media.live.pull import pull
from xbyte_live.media.live.state import LiveState

_CHUNK = 1 << 16
_REPORT_SECONDS = 1
_TIMEVAL = struct.Struct("ll")
_READ_REFUSAL_WITHIN = 5.0  # seconds


class Pipe:
    """The child's end of the socket pair: media in, events out.

    The number of bytes read is reported at most once a second, so that the parent can tell an
    idle child from one that hangs.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._taken = self._reported = 0
        self._due = 0.0
        sock.settimeout(None)
        # the kernel's own timeout costs no call besides ``recv``
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(_REPORT_SECONDS, 0))

    def read(self) -> bytes:
        """Wait for media and return it; empty at its end."""
        while True:
            try:
                data = self._sock.recv(_CHUNK)
                break
            except BlockingIOError:
                if self._taken != self._reported:
                    self._report()
        self._taken += len(data)
        if time.monotonic() >= self._due:
            self._report()
        return data

    def put(self, event: FeedEvent) -> None:
        """Send an event, waiting while the parent is busy."""
        head, body = messages.pack(event)
        self._send(head)
        if body:
            self._send(body)

    def wanted(self) -> bool:
        """Whether the parent still wants a pulled feed; checked once a second."""
        if time.monotonic() >= self._due:
            self._report()
            with suppress(BlockingIOError):
                return bool(self._sock.recv(1, socket.MSG_DONTWAIT))
        return True

    def refuse(self, text: str) -> None:
        """Tell the parent why the media cannot be carried; returns once it has read that."""
        self._send(messages.frame(messages.REFUSED, {"text": text}))
        # closing with input unread would reset the connection before it is read
        until = time.monotonic() + _READ_REFUSAL_WITHIN
        while time.monotonic() < until:
            with suppress(BlockingIOError):
                if not self._sock.recv(_CHUNK):
                    return

    def end(self) -> None:
        """Tell the parent that no event follows."""
        self._send(messages.frame(messages.END))

    def _report(self) -> None:
        self._reported = self._taken
        self._due = time.monotonic() + _REPORT_SECONDS
        self._send(messages.frame(messages.READ, {"bytes": self._taken}))

    def _send(self, data: bytes) -> None:
        self._sock.sendall(data)


def steady_clock() -> Callable[[], int]:
    """A clock of Unix time in microseconds that follows the monotonic clock and never jumps."""
    offset = time.time_ns() - time.monotonic_ns()
    return lambda: (offset + time.monotonic_ns()) // 1000


def run(sock: socket.socket, options: FeedOptions) -> int:
    """Package the feed that arrives through ``sock`` to its end; return the exit code."""
    pipe = Pipe(sock)
    try:
        _package(pipe, options)
        pipe.end()
    except MediaError as error:
        with suppress(OSError):
            pipe.refuse(str(error))
    except MemoryError:
        return EXIT_MEMORY
    except OSError:
        return EXIT_PARENT_GONE
    return 0


def _package(pipe: Pipe, options: FeedOptions) -> None:
    state = LiveState(options, pipe, steady_clock())
    if options.source is None:
        _receive(pipe, FlvDemuxer(state))
    else:
        pull(options.source, state)


def _receive(pipe: Pipe, feed: FlvDemuxer) -> None:
    reader = TagReader()
    try:
        while data := pipe.read():
            reader.feed(data)
            while tag := reader.next_tag():
                feed.take(tag)
        feed.finish()
    finally:
        feed.abandon()


def start(sock: socket.socket, options: FeedOptions) -> None:
    """Run a forked child and exit, with all descriptors but ``sock`` and 0-2 closed."""
    code = EXIT_FAILED
    try:
        _isolate(sock, options)
        code = run(sock, options)
    except MemoryError:
        code = EXIT_MEMORY
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


def _isolate(sock: socket.socket, options: FeedOptions) -> None:
    """Drop inherited signals and descriptors, and limit resources."""
    gc.enable()
    # the service ends its feeds itself, by closing their pipes, so that no segment is lost
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.closerange(3, sock.fileno())
    os.closerange(sock.fileno() + 1, 1 << 16)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    resource.setrlimit(resource.RLIMIT_DATA, (options.memory_bytes, options.memory_bytes))
