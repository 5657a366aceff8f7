"""A wall clock that is set while a process runs: as many seconds off as ``PYTHON_TEST_CLOCK`` says.

Python imports this at its start where the folder stands in ``PYTHONPATH``. The name is one that
processes get which decode, too.
"""

import os
import time
from pathlib import Path

_real_time, _real_time_ns = time.time, time.time_ns


_file = Path(os.environ["PYTHON_TEST_CLOCK"])


def _seconds_off() -> int:
    try:
        return int(_file.read_text() or 0)
    except FileNotFoundError:
        return 0


time.time = lambda: _real_time() + _seconds_off()
time.time_ns = lambda: _real_time_ns() + _seconds_off() * 10**9
