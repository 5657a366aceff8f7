"""Adapter: the fork server, a process with the media library loaded that forks a child a feed.

``multiprocessing`` has one too, but its children import the main program again, and starting it
blocks. Requests come over a socket, each with the descriptor of the pipe its child shall serve;
answers are the child's process id with a descriptor of the process, and how it ended.
"""

import gc
import os
import pickle
import select
import signal
import socket
from contextlib import suppress

from xbyte_live.media.live import worker
from xbyte_live.media.live.messages import (
    ANSWER,
    EXITED,
    FORK,
    FORKED,
    KILL,
    REQUEST,
    FeedOptions,
)


class ForkServer:
    """Serves one socket until its other end is closed, then ends every child."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._feeds: dict[int, int] = {}  # process id -> number of the feed
        self._wake, wake_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def run(self) -> None:
        """Serve until the service is gone."""
        try:
            while self._wait():
                pass
        finally:
            for pid in self._feeds:
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)

    def _wait(self) -> bool:
        control = self._control.fileno()
        ready, _, _ = select.select([control, self._wake], [], [])
        if self._wake in ready:
            with suppress(BlockingIOError):
                os.read(self._wake, 4096)
        self._reap()
        return control not in ready or self._serve()

    def _serve(self) -> bool:
        """Answer one request; whether there may be more."""
        try:
            head, descriptors, _, _ = socket.recv_fds(self._control, REQUEST.size, 1)
            if not head:
                return False
            head += self._exactly(REQUEST.size - len(head))
            what, size, feed = REQUEST.unpack(head)
            body = self._exactly(size)
            if what == FORK and not descriptors:  # none was left to receive it with
                self._answer(FORKED, feed, 0, 0)
            elif what == FORK:
                self._fork(feed, socket.socket(fileno=descriptors[0]), body)
            elif what == KILL:
                self._kill(feed)
        except ConnectionError:
            return False
        return True

    def _fork(self, feed: int, sock: socket.socket, body: bytes) -> None:
        # from the service, over a socket nobody else has
        options: FeedOptions = pickle.loads(body)  # noqa: S301
        try:
            pid = os.fork()
        except OSError:
            sock.close()
            self._answer(FORKED, feed, 0, 0)
            return
        if pid == 0:
            worker.start(sock, options)
        sock.close()
        self._feeds[pid] = feed
        self._answer_forked(feed, pid)

    def _kill(self, feed: int) -> None:
        # only a child not reaped yet, so no other process can have its id
        for pid, number in self._feeds.items():
            if number == feed:
                os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        while self._feeds:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            feed = self._feeds.pop(pid, None)
            if feed is not None:
                self._answer(EXITED, feed, pid, os.waitstatus_to_exitcode(status))

    def _answer_forked(self, feed: int, pid: int) -> None:
        """Say so, with a descriptor of the child, which stands for no other that has its id later.

        It is made here because only here the child is not reaped yet. Without one, which takes
        a free descriptor and Linux 5.3, nobody but this process ends the child by force.
        """
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            self._answer(FORKED, feed, pid, 0)
            return
        try:
            with suppress(ConnectionError):
                socket.send_fds(self._control, [ANSWER.pack(FORKED, feed, pid, 0)], [handle])
        finally:
            os.close(handle)

    def _answer(self, what: int, feed: int, pid: int, code: int) -> None:
        with suppress(ConnectionError):
            self._control.sendall(ANSWER.pack(what, feed, pid, code))

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            part = self._control.recv(size)
            if not part:
                raise ConnectionError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def serve(descriptor: int) -> None:
    """Run the fork server on an inherited socket; the program of its process."""
    # the service ends it by closing the socket; a signal to the whole group must not
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    server = ForkServer(socket.socket(fileno=descriptor))
    # what is loaded now stays shared with the children, since no collection touches it
    gc.collect()
    gc.freeze()
    gc.disable()
    server.run()
