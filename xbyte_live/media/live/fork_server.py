"""Adapter: the fork server, a process with FFmpeg loaded that forks one child a feed.

That of ``multiprocessing`` imports the main program in each child, and starting it blocks. A
request arrives over a socket with the descriptor of the child's pipe; the answers are the child's
process id with a pidfd, and later its exit code.
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
    """Serves one socket until its other end is closed, then kills every child."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._feeds: dict[int, int] = {}  # process id -> number of the feed
        self._wake, wake_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def run(self) -> None:
        """Serve until the server closes the socket."""
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
        """Serve one request; return whether more may follow."""
        try:
            head, descriptors, _, _ = socket.recv_fds(self._control, REQUEST.size, 1)
            if not head:
                return False
            head += self._exactly(REQUEST.size - len(head))
            what, size, feed = REQUEST.unpack(head)
            body = self._exactly(size)
            if what == FORK and not descriptors:  # this process had none free to receive it
                self._answer(FORKED, feed, 0, 0)
            elif what == FORK:
                self._fork(feed, socket.socket(fileno=descriptors[0]), body)
            elif what == KILL:
                self._kill(feed)
        except ConnectionError:
            return False
        return True

    def _fork(self, feed: int, sock: socket.socket, body: bytes) -> None:
        # from the server, over a socket nobody else has
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
        # a child not reaped yet, so its id names no other process
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
        """Answer with the process id and a pidfd, which never names another process.

        It is opened here, before the child can be reaped. Without one (it takes a free
        descriptor and Linux 5.3) only this process can kill the child.
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
    """Run the fork server on an inherited socket; the main program of its process."""
    # the server ends it by closing the socket; a signal to the process group must not
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    server = ForkServer(socket.socket(fileno=descriptor))
    # loaded objects stay in pages shared with the children, since no collection touches them
    gc.collect()
    gc.freeze()
    gc.disable()
    server.run()
