import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbyte_live.errors import RangeNotSatisfiable
from xbyte_live.web.common.ranges import Span, accepts_gzip, names_tag, range_holds, read_range


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-999", 0, 1000),
        ("bytes=10-19", 10, 20),
        ("bytes=990-", 990, 1000),
        ("bytes=0-", 0, 1000),
        ("bytes=-1", 999, 1000),
        ("bytes=-1000", 0, 1000),
        ("bytes=-5000", 0, 1000),
        ("bytes=500-99999", 500, 1000),
        ("bytes=500-99999999999999999999999999999", 500, 1000),
        ("bytes=00000000000000000000000000010-0000000000000000000000000000019", 10, 20),
        ("Bytes=10-19", 10, 20),
        ("bytes= 10-19 ", 10, 20),
        ("bytes=,10-19,", 10, 20),
        ("bytes=-99999999999999999999999999999", 0, 1000),
    ],
)
def test_one_range_is_read(header: str, start: int, stop: int) -> None:
    assert read_range(header, 1000) == Span(start, stop)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=,",
        "bytes=a-b",
        "bytes=5-4",
        "bytes=0-1,3-4",
        "bytes=0-1, 3-4",
        "bytes=0-1,x",
        "bytes=1",
        "bytes=--1",
        "bytes=1--2",
        "bytes=+1-2",
        "bytes=1 -2",
        "bytes=0x1-0x2",
        "bytes=１-２",
        "bytes=1_0-2_0",
        "items=0-1",
        "bytes:0-1",
        "bytes=99999999999999999999-5",
    ],
)
def test_what_is_no_single_range_is_ignored(header: str | None) -> None:
    assert read_range(header, 1000) is None


@pytest.mark.parametrize(
    "header", ["bytes=1000-", "bytes=1000-2000", "bytes=99999999999999999999-", "bytes=-0"]
)
def test_a_range_outside_the_resource_cannot_be_satisfied(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable) as raised:
        read_range(header, 1000)
    assert raised.value.size == 1000


def test_an_empty_resource_has_no_ranges() -> None:
    assert read_range("bytes=0-", 0) is None
    assert read_range("bytes=-5", 0) is None


@given(st.integers(1, 2**40), st.integers(0, 2**41), st.integers(0, 2**41))
def test_every_pair_gives_what_rfc_9110_says(size: int, first: int, last: int) -> None:
    header = f"bytes={first}-{last}"
    if last < first:
        assert read_range(header, size) is None
    elif first >= size:
        with pytest.raises(RangeNotSatisfiable):
            read_range(header, size)
    else:
        span = read_range(header, size)
        assert span is not None
        assert (span.start, span.stop) == (first, min(last, size - 1) + 1)
        assert str(span) == f"{first}-{min(last, size - 1)}"


@given(st.text(st.sampled_from("bytes=0123456789-, x")) | st.text(), st.integers(0, 2**63 - 1))
def test_no_header_breaks_it_and_no_span_leaves_the_resource(header: str, size: int) -> None:
    try:
        span = read_range(header, size)
    except RangeNotSatisfiable:
        return
    assert span is None or 0 <= span.start < span.stop <= size


@pytest.mark.parametrize(
    ("header", "named"),
    [
        (None, False),
        ("", False),
        ("*", True),
        (" * ", True),
        ('"abc"', True),
        ('W/"abc"', True),
        ('"x", W/"abc" , "y"', True),
        ('"abcd"', False),
        ("abc", False),
        ('"x,"abc""', False),
        ('"a" "abc', False),
    ],
)
def test_if_none_match(header: str | None, named: bool) -> None:
    assert names_tag(header, '"abc"') is named


@pytest.mark.parametrize(
    ("header", "holds"),
    [
        (None, True),
        ('"abc"', True),
        ('W/"abc"', False),
        ('"other"', False),
        ("Sat, 22 Nov 2025 11:00:00 GMT", False),
        ("", False),
    ],
)
def test_if_range(header: str | None, holds: bool) -> None:
    assert range_holds(header, '"abc"') is holds


@pytest.mark.parametrize(
    ("header", "welcome"),
    [
        (None, False),
        ("", False),
        ("gzip", True),
        ("br, gzip, deflate", True),
        ("GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("*", True),
        ("*;q=0", False),
        ("*, gzip;q=0", False),
        ("identity", False),
        ("x-gzip", True),
        ("gzipped", False),
        ("gzip;q=banana", False),
    ],
)
def test_accept_encoding(header: str | None, welcome: bool) -> None:
    assert accepts_gzip(header) is welcome
