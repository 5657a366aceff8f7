"""Pure: the ``Range``, ``If-*`` and ``Accept-Encoding`` headers (RFC 9110 12 to 14)."""

import re
from dataclasses import dataclass

from xbyte_live.errors import RangeNotSatisfiable

_RANGE = re.compile(r"(?:([0-9]+)-([0-9]*)|-([0-9]+))")
_ENTITY_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_CODING = re.compile(r"\s*(gzip|x-gzip|\*)\s*(?:;\s*q\s*=\s*([01](?:\.[0-9]{0,3})?))?\s*")
_ENORMOUS = 10**19  # beyond every size there is; longer numbers need no arithmetic


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes ``[start, stop)`` of a resource; never empty."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """The number of bytes."""
        return self.stop - self.start

    def __str__(self) -> str:
        return f"{self.start}-{self.stop - 1}"


def read_range(header: str | None, size: int) -> Span | None:
    """The one range a ``Range`` header asks of ``size`` bytes, or ``None`` for the whole.

    Other units and several ranges are ignored, as RFC 9110 14.2 allows; so is any range of an
    empty resource. Raises ``RangeNotSatisfiable``.
    """
    if header is None or size == 0:
        return None
    unit, _, ranges = header.partition("=")
    wanted = [part for part in (part.strip(" \t") for part in ranges.split(",")) if part]
    if unit.strip(" \t").lower() != "bytes" or len(wanted) != 1:
        return None
    match = _RANGE.fullmatch(wanted[0])
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        start, stop = max(0, size - _position(suffix)), size
    else:
        start, stop = _position(first), min(_position(last) + 1, size) if last else size
        if last and _position(last) < start:
            return None
    if start >= size:
        raise RangeNotSatisfiable(size)
    return Span(start, stop)


def names_tag(header: str | None, etag: str) -> bool:
    """Whether ``If-None-Match`` names ``etag``, by the weak comparison (RFC 9110 13.1.2)."""
    if not header:
        return False
    return header.strip() == "*" or etag in _ENTITY_TAG.findall(header)


def range_holds(if_range: str | None, etag: str) -> bool:
    """Whether ``If-Range`` lets a ``Range`` be honoured: none, or exactly ``etag``.

    The comparison is strong, and a date never matches, as nothing here has one (RFC 9110 13.1.5).
    """
    return if_range is None or if_range.strip() == etag


def accepts_gzip(header: str | None) -> bool:
    """Whether ``Accept-Encoding`` welcomes gzip (RFC 9110 12.5.3)."""
    if not header:
        return False
    quality: dict[str, float] = {}
    for part in header.lower().split(","):
        match = _CODING.fullmatch(part)
        if match:
            quality[match[1]] = float(match[2] or 1)
    return max(quality.get("gzip", quality.get("*", 0)), quality.get("x-gzip", 0)) > 0


def _position(digits: str) -> int:
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) < 20 else _ENORMOUS
