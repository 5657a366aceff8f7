"""Adapter: runs one command that must not outlive whoever started us; a script of its own.

    python -I guard.py LOCK_FILE COMMAND...

The command ends (SIGTERM, so that it can save its state) as soon as our standard input closes,
which the kernel does however our parent ends, ``kill -9`` included. Holding ``LOCK_FILE`` keeps
two of them from using one directory. The command's output goes to our standard output up to the
line that says it listens, and nowhere after that.
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import threading
from typing import IO

READY = b"Listening on "
LOCK_WAIT_S = 5  # long enough for one that is just ending to save its state
END_WAIT_S = 20
BUSY = 75  # exit status: somebody else holds the lock
_PR_SET_PDEATHSIG = 1


def main(lock_file: str, *command: str) -> int:
    """Run ``command`` until it ends or our parent does; the exit status is the command's."""
    lock = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o600)
    signal.signal(signal.SIGALRM, lambda *_: os._exit(BUSY))
    signal.alarm(LOCK_WAIT_S)
    fcntl.flock(lock, fcntl.LOCK_EX)
    signal.alarm(0)

    guard = os.getpid()
    child = subprocess.Popen(  # preexec_fn is safe here: we have no other thread yet
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: _die_with(guard),
    )
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: child.terminate())
    threading.Thread(target=_end_with_parent, args=(child,), daemon=True).start()
    assert child.stdout is not None
    _relay(child.pid, child.stdout)
    return child.wait()


def _die_with(guard: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != guard:
            os._exit(1)


def _end_with_parent(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    child.terminate()
    try:
        child.wait(END_WAIT_S)
    except subprocess.TimeoutExpired:
        child.kill()


def _relay(pid: int, output: IO[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, b"pid %d\n" % pid)
        for line in output:
            os.write(1, line)
            if line.startswith(READY):
                break
    while output.read(65536):
        pass


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
