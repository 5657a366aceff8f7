"""Pure: JSON written by strangers."""

import json
from typing import Any

MAX_DOCUMENT = 64 * 1024  # bytes of a stranger's JSON that are read
_MAX_OPENED = 2000  # brackets and braces


def read_json(data: bytes) -> Any:
    """Read a small JSON document; raises ``ValueError`` for what is none, or large, or deep.

    Depth is bounded before parsing: a library that ``eth_account`` imports raises the recursion
    limit so far that the parser would overflow the C stack before it raised ``RecursionError``.
    """
    if len(data) > MAX_DOCUMENT:
        raise ValueError(f"larger than {MAX_DOCUMENT} bytes")
    if data.count(b"[") + data.count(b"{") > _MAX_OPENED:
        raise ValueError("nested too deep")
    return json.loads(data)
