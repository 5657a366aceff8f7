"""Pure: JSON written by strangers."""

from typing import Any

from xbyte_live.runtime import wire

MAX_DOCUMENT = 64 * 1024  # bytes of a stranger's JSON that are read


def read_json(data: bytes) -> Any:
    """Read a small JSON document; raises ``ValueError`` for what is none, or large, or deep."""
    if len(data) > MAX_DOCUMENT:
        raise ValueError(f"larger than {MAX_DOCUMENT} bytes")
    return wire.read_json(data)
