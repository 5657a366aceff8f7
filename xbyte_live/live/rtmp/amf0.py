"""Pure: encodes and decodes AMF0, the values of RTMP commands and metadata."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xbyte_live.errors import RtmpError

NUMBER, BOOLEAN, STRING, OBJECT = 0x00, 0x01, 0x02, 0x03
NULL, UNDEFINED, ECMA_ARRAY, OBJECT_END = 0x05, 0x06, 0x08, 0x09
STRICT_ARRAY, DATE, LONG_STRING, UNSUPPORTED = 0x0A, 0x0B, 0x0C, 0x0D
XML_DOCUMENT, TYPED_OBJECT = 0x0F, 0x10

MAX_DEPTH = 16
MAX_VALUES = 4096  # of one message: what publishers send has under a hundred

_END = b"\x00\x00\x09"


@dataclass(frozen=True, slots=True)
class Date:
    """A date, in milliseconds since the Unix epoch (UTC)."""

    milliseconds: float


class EcmaArray(dict[str, "Value"]):
    """An object that is encoded as an ECMA array, as metadata is."""


Value = float | bool | str | None | Date | Mapping[str, "Value"] | Sequence["Value"]


def decode_all(data: bytes) -> list[Value]:
    """Every value of a message, one after another (AMF0 specification, 2).

    Null, undefined and unsupported are None; bad UTF-8 is replaced, as metadata of old
    encoders holds any 8-bit text. Raises RtmpError for what is cut short, unknown, or deeper
    or more than ``MAX_DEPTH`` and ``MAX_VALUES``.
    """
    reader = _Reader(data)
    values = []
    while reader.at < len(data):
        values.append(reader.value(0))
    return values


def encode(*values: Value) -> bytes:
    """The bytes of the values, one after another; a mapping becomes an object."""
    out = bytearray()
    for value in values:
        _write(out, value)
    return bytes(out)


class _Reader:
    """A place in the bytes of a message, and how many values may still come."""

    __slots__ = ("at", "data", "left")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.left = MAX_VALUES

    def take(self, size: int) -> bytes:
        start = self.at
        self.at = start + size
        if self.at > len(self.data):
            raise RtmpError("an AMF0 value is cut short")
        return self.data[start : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def double(self) -> float:
        return float(struct.unpack(">d", self.take(8))[0])

    def text(self, prefix: int) -> str:
        return self.take(self.number(prefix)).decode("utf-8", "replace")

    def value(self, depth: int) -> Value:
        self.left -= 1
        if depth > MAX_DEPTH or self.left < 0:
            raise RtmpError("a message holds too many AMF0 values, or too deep")
        kind = self.number(1)
        if kind == NUMBER:
            return self.double()
        if kind == BOOLEAN:
            return self.number(1) != 0
        if kind == STRING:
            return self.text(2)
        if kind in (NULL, UNDEFINED, UNSUPPORTED):
            return None
        if kind in (LONG_STRING, XML_DOCUMENT):
            return self.text(4)
        return self.composite(kind, depth)

    def composite(self, kind: int, depth: int) -> Value:
        if kind == OBJECT:
            return self.properties(depth)
        if kind == ECMA_ARRAY:
            self.number(4)  # a hint of the count, often 0; the end marker decides
            return EcmaArray(self.properties(depth))
        if kind == STRICT_ARRAY:
            return [self.value(depth + 1) for _ in range(self.number(4))]
        if kind == DATE:
            date = Date(self.double())
            self.take(2)  # the time zone, which is reserved and 0
            return date
        if kind == TYPED_OBJECT:
            self.text(2)
            return self.properties(depth)
        raise RtmpError(f"AMF0 has no type {kind:#04x} that a publisher may send")

    def properties(self, depth: int) -> dict[str, Value]:
        found: dict[str, Value] = {}
        while self.data[self.at : self.at + 3] != _END:
            name = self.text(2)
            found[name] = self.value(depth + 1)
        self.at += 3
        return found


def _write(out: bytearray, value: Value) -> None:
    if value is None:
        out.append(NULL)
    elif isinstance(value, bool):
        out += bytes((BOOLEAN, value))
    elif isinstance(value, int | float):
        out += struct.pack(">Bd", NUMBER, value)
    elif isinstance(value, str):
        _write_string(out, value.encode())
    elif isinstance(value, Date):
        out += struct.pack(">Bdh", DATE, value.milliseconds, 0)
    elif isinstance(value, Mapping):
        _write_properties(out, value)
    else:
        out += struct.pack(">BI", STRICT_ARRAY, len(value))
        for item in value:
            _write(out, item)


def _write_string(out: bytearray, text: bytes) -> None:
    if len(text) <= 0xFFFF:
        out += struct.pack(">BH", STRING, len(text))
    else:
        out += struct.pack(">BI", LONG_STRING, len(text))
    out += text


def _write_properties(out: bytearray, value: Mapping[str, Value]) -> None:
    if isinstance(value, EcmaArray):
        out += struct.pack(">BI", ECMA_ARRAY, len(value))
    else:
        out.append(OBJECT)
    for name, item in value.items():
        key = name.encode()
        out += struct.pack(">H", len(key)) + key
        _write(out, item)
    out += _END
