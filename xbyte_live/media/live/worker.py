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
_PARTING = 5.0


class Pipe:
    """The child's end of the socket pair: media in, events out.

    What was taken is reported once a second at most, so that the parent can tell a feed that
    has nothing to do from one that hangs.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._taken = self._reported = 0
        self._due = 0.0
        sock.settimeout(None)
        # the kernel's own timeout costs no call besides ``recv``
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(_REPORT_SECONDS, 0))

    def read(self) -> bytes:
        """What has arrived; empty when there will be no more."""
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
        """Send an event; waits while the parent is busy."""
        head, body = messages.pack(event)
        self._send(head)
        if body:
            self._send(body)

    def wanted(self) -> bool:
        """Whether the parent wants more of a feed that is pulled; asked once a second."""
        if time.monotonic() >= self._due:
            self._report()
            with suppress(BlockingIOError):
                return bool(self._sock.recv(1, socket.MSG_DONTWAIT))
        return True

    def refuse(self, text: str) -> None:
        """The media cannot be carried, and why; returns once the parent knows."""
        self._send(messages.frame(messages.REFUSED, {"text": text}))
        # closing with input unread would break the connection before that is read
        until = time.monotonic() + _PARTING
        while time.monotonic() < until:
            with suppress(BlockingIOError):
                if not self._sock.recv(_CHUNK):
                    return

    def end(self) -> None:
        """Everything has been handed out."""
        self._send(messages.frame(messages.END))

    def _report(self) -> None:
        self._reported = self._taken
        self._due = time.monotonic() + _REPORT_SECONDS
        self._send(messages.frame(messages.TAKEN, {"bytes": self._taken}))

    def _send(self, data: bytes) -> None:
        self._sock.sendall(data)


def steady_clock() -> Callable[[], int]:
    """Unix time in microseconds, read once and counted on from there: it never jumps."""
    offset = time.time_ns() - time.monotonic_ns()
    return lambda: (offset + time.monotonic_ns()) // 1000


def run(sock: socket.socket, options: FeedOptions) -> int:
    """Package a feed that comes through ``sock`` until it ends; return the exit code."""
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
    """What a forked child does; never returns. Its descriptors but ``sock`` and 0-2 are closed."""
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
    """Let go of what was inherited, and bound what may be used."""
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
