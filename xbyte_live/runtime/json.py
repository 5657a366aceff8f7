"""Pure: JSON from strangers, read without harm (RFC 8259 9)."""

from typing import Any

import orjson

MAX_DOCUMENT = 64 * 1024  # bytes of a small document
MOST_OPENED = 4096  # brackets; libraries we hand such values to walk them recursively


def read_json(data: bytes, *, limit: int | None = None) -> Any:
    """Read a JSON value; an integer beyond 64 bits comes as a float.

    Raises ``ValueError`` for anything else, for absurd nesting, and above ``limit`` bytes.
    """
    if limit is not None and len(data) > limit:
        raise ValueError(f"larger than {limit} bytes")
    if data.count(b"[") + data.count(b"{") > MOST_OPENED:
        raise ValueError("nested too deeply")
    return orjson.loads(data)
