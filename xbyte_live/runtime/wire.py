"""Pure: JSON as strangers send it, read without harm (RFC 8259 9)."""

from typing import Any

import orjson

MOST_OPENED = 4096  # brackets; libraries we hand such values to walk them recursively


def read_json(text: bytes) -> Any:
    """Read a JSON value; raises ``ValueError`` for anything else and for absurd nesting.

    A number beyond 64 bits comes as a float.
    """
    if text.count(b"[") + text.count(b"{") > MOST_OPENED:
        raise ValueError("nested too deeply")
    return orjson.loads(text)
