"""Adapter: closes a process that holds keys to the others of its user (money rule 10).

What decodes hostile bytes runs as the same user, and may be taken over by them.
"""

import ctypes
import sys

_PR_SET_DUMPABLE = 4


def seal() -> None:
    """Let nobody but root read our memory, environment or descriptors, or have a core of us.

    Linux only (prctl(2)); a program that is started has to do it again.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
