"""Pure: what every store of bytes offers, and which keys it takes."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from xbyte_live.errors import StoreError

CHUNK = 256 * 2**10

_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"  # never hidden, never "..", the same on any system
_KEY = re.compile(rf"{_PART}(?:/{_PART}){{0,7}}")
_PREFIX = re.compile(rf"(?:{_PART}/){{0,7}}(?:{_PART})?")


class Store(Protocol):
    """Bytes under keys such as ``slug/source/0.ts``; every method raises ``StoreError``."""

    async def put(self, key: str, data: bytes) -> None:
        """Store ``data`` whole and durably, replacing what was there; atomic for readers."""
        ...

    async def put_file(self, key: str, path: Path) -> None:
        """Store a copy of a file of any size, as ``put`` does."""
        ...

    async def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes ``[start, stop)``, to the end without ``stop``; never fewer than asked for."""
        ...

    def stream(self, key: str, start: int, stop: int, chunk: int = CHUNK) -> AsyncIterator[bytes]:
        """The bytes ``[start, stop)`` in pieces of at most ``chunk``; never fewer in sum."""
        ...

    async def delete(self, key: str) -> None:
        """Remove a key; nothing happens if it is not there."""
        ...

    async def keys(self, prefix: str) -> list[str]:
        """The stored keys that start with ``prefix``, sorted."""
        ...

    async def tidy(self) -> None:
        """Remove what writers that died half-way left behind."""
        ...


def is_key(key: str) -> bool:
    """Whether ``key`` names one place inside a store: relative, without ``..`` or hidden parts."""
    return _KEY.fullmatch(key) is not None


def check_key(key: str) -> str:
    """Return ``key`` if it is one, else raise ``StoreError``."""
    if not is_key(key):
        raise StoreError(f"{key[:80]!r} is no key of a store")
    return key


def check_prefix(prefix: str) -> str:
    """Return ``prefix`` if keys can start with it, else raise ``StoreError``."""
    if _PREFIX.fullmatch(prefix) is None:
        raise StoreError(f"{prefix[:80]!r} is no beginning of a store's keys")
    return prefix


def check_span(start: int, stop: int | None) -> None:
    """Raise ``StoreError`` unless ``[start, stop)`` can be a span of bytes."""
    if start < 0 or (stop is not None and stop < start):
        raise StoreError("the bytes asked for end before they begin")
