"""Pure: JSON as strangers send it, read without harm (RFC 8259 9)."""

import json
from typing import Any

MOST_OPENED = 4096  # brackets; libraries we use lift Python's own limit until the stack overflows


def read_json(text: bytes) -> Any:
    """Read a JSON value; raises ``ValueError`` for anything else and for absurd nesting."""
    if text.count(b"[") + text.count(b"{") > MOST_OPENED:
        raise ValueError("nested too deeply")
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _no_constant(name: str) -> float:
    raise ValueError(name)
