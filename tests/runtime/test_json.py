"""JSON from strangers is a value or a ``ValueError``, never a crash."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbyte_live.runtime.json import MOST_OPENED, read_json


@pytest.fixture
def lifted_recursion_limit() -> Iterator[None]:
    """What the elliptic curve libraries do on import."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    yield
    sys.setrecursionlimit(before)


whole = st.integers(-(2**63), 2**64 - 1)


@given(st.recursive(st.none() | st.booleans() | whole | st.text(), st.lists))
def test_a_value_reads_back(value: Any) -> None:
    assert read_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1])
def test_a_number_beyond_64_bits_is_no_integer(value: int) -> None:
    """So it is no amount either: those come as text."""
    assert isinstance(read_json(str(value).encode()), float)


@given(st.binary(max_size=100))
def test_any_bytes_are_json_or_a_value_error(text: bytes) -> None:
    try:
        read_json(text)
    except ValueError:
        return
    json.loads(text)


@pytest.mark.parametrize("opener", [b"[", b'{"":', b'[{"":'])
@pytest.mark.parametrize("depth", [MOST_OPENED, 10**5, 10**6])
@pytest.mark.usefixtures("lifted_recursion_limit")
def test_absurd_nesting_is_refused_before_the_stack_overflows(opener: bytes, depth: int) -> None:
    with pytest.raises(ValueError):
        read_json(opener * depth)


def test_reasonable_nesting_is_read() -> None:
    value = read_json(b"[" * 500 + b"]" * 500)
    for _ in range(499):
        (value,) = value
    assert value == []


@pytest.mark.parametrize("text", [b"NaN", b"[Infinity]", b'{"a": -Infinity}'])
def test_what_is_no_json_number_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        read_json(text)
