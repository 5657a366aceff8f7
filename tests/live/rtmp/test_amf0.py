"""AMF0: the table of values that drives both directions, and what is refused."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbyte_live.errors import RtmpError
from xbyte_live.live.rtmp.amf0 import (
    MAX_DEPTH,
    MAX_VALUES,
    Date,
    EcmaArray,
    Value,
    decode_all,
    encode,
)

TABLE: list[tuple[str, str, Value]] = [
    ("number", "00 4059000000000000", 100.0),
    ("true", "01 01", True),
    ("false", "01 00", False),
    ("string", "02 0003 6b6579", "key"),
    ("object", "03 0003 617070 02 0004 6c697665 000009", {"app": "live"}),
    ("null", "05", None),
    ("array", "08 00000001 0005 7769647468 00 4094000000000000 000009", EcmaArray(width=1280.0)),
    ("list", "0a 00000002 05 0101", [None, True]),
    ("date", "0b 4270000000000000 0000", Date(2.0**40)),
    ("long string", "0c 00010000" + "61" * 65536, "a" * 65536),
]
READ_ONLY: list[tuple[str, str, Value]] = [
    ("undefined", "06", None),
    ("unsupported", "0d", None),
    ("xml", "0f 00000002 3c3e", "<>"),
    ("typed object", "10 0001 43 0001 61 0101 000009", {"a": True}),
    ("count that lies", "08 ffffffff 000009", {}),
    ("latin-1", "02 0001 e9", "�"),
]


@pytest.mark.parametrize(("name", "data", "value"), TABLE, ids=[row[0] for row in TABLE])
def test_values_are_read_and_written(name: str, data: str, value: Value) -> None:
    assert encode(value) == bytes.fromhex(data)
    assert decode_all(bytes.fromhex(data)) == [value]


@pytest.mark.parametrize(("name", "data", "value"), READ_ONLY, ids=[row[0] for row in READ_ONLY])
def test_what_publishers_may_also_send_is_read(name: str, data: str, value: Value) -> None:
    assert decode_all(bytes.fromhex(data)) == [value]


@pytest.mark.parametrize("data", [row[1] for row in TABLE if len(row[1]) > 2], ids=len)
def test_what_is_cut_short_is_refused(data: str) -> None:
    whole = bytes.fromhex(data)
    for end in range(1, min(len(whole), 40)):
        with pytest.raises(RtmpError):
            decode_all(whole[:end])


def test_depth_number_and_strange_types_are_limited() -> None:
    nested: Value = None
    for _ in range(MAX_DEPTH):
        nested = [nested]
    assert decode_all(encode(nested)) == [nested]
    with pytest.raises(RtmpError, match="too deep"):
        decode_all(encode([nested]))
    with pytest.raises(RtmpError, match="too many"):
        decode_all(b"\x05" * (MAX_VALUES + 1))
    with pytest.raises(RtmpError, match="0x11"):
        decode_all(b"\x11")


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | texts | st.floats(0, 2e12).map(Date),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(texts.filter(bool), inner, max_size=4)
        | st.dictionaries(texts.filter(bool), inner, max_size=4).map(EcmaArray)
    ),
    max_leaves=12,
)


@given(st.lists(values, max_size=5))
def test_any_values_come_back(given_values: list[Value]) -> None:
    assert decode_all(encode(*given_values)) == given_values


@given(st.binary(max_size=400))
def test_garbage_is_read_or_refused(data: bytes) -> None:
    with suppress(RtmpError):
        decode_all(data)
