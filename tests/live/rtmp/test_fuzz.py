"""Any bytes are read or refused as bad RTMP; nothing else happens, and little is kept."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.rtmp import CAPTURES, NOISE, capture, events_of, hello, publishing
from xbyte_live.errors import RtmpError
from xbyte_live.live.rtmp.connection import COMMAND_LIMIT, Connection
from xbyte_live.live.rtmp.events import Event

HANDSHAKE = 3073
MAX_MESSAGE = 1 << 18


def heard(data: bytes, piece: int) -> tuple[list[Event], str]:
    """What a connection makes of bytes, given in pieces, and how it ended."""
    connection = Connection(app="live", noise=NOISE, max_message=MAX_MESSAGE)
    events: list[Event] = []
    try:
        for at in range(0, len(data), piece):
            connection.receive_data(data[at : at + piece])
            for event in events_of(connection):
                events.append(event)
                assert len(events) <= len(data)
            connection.data_to_send()
            assert connection.held <= MAX_MESSAGE
    except RtmpError as error:
        return events, str(error)
    return events, ""


def same_whole_and_in_pieces(data: bytes, piece: int) -> None:
    """Two readings of the same bytes must agree, up to the error too."""
    assert heard(data, len(data) or 1) == heard(data, piece)


pieces = st.sampled_from([1, 2, 3, 7, 100, 1447])


@given(st.binary(max_size=3000), pieces)
@example(b"GET / HTTP/1.1\r\n\r\n", 1)
def test_garbage_from_the_first_byte(data: bytes, piece: int) -> None:
    same_whole_and_in_pieces(data, piece)


@given(
    st.sampled_from([hello()[:HANDSHAKE], hello(), publishing()]), st.binary(max_size=2000), pieces
)
def test_garbage_after_a_good_beginning(beginning: bytes, data: bytes, piece: int) -> None:
    same_whole_and_in_pieces(beginning + data, piece)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A capture with bytes flipped, dropped, doubled or moved, and cut somewhere."""
    data = bytearray(capture(draw(st.sampled_from(CAPTURES))))
    places = st.one_of(st.integers(HANDSHAKE, HANDSHAKE + 1500), st.integers(0, len(data) - 1))
    for _ in range(draw(st.integers(0, 6))):
        at = min(draw(places), len(data) - 1)
        size = draw(st.integers(1, 40))
        match draw(st.sampled_from(["flip", "drop", "double", "noise"])):
            case "flip":
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "drop":
                del data[at : at + size]
            case "double":
                data[at:at] = data[at : at + size]
            case _:
                data[at : at + size] = draw(st.binary(min_size=size, max_size=size))
    return bytes(data[: draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))])


@given(damaged(), pieces)
def test_damaged_captures(data: bytes, piece: int) -> None:
    same_whole_and_in_pieces(data, piece)


def test_unfinished_messages_of_many_streams_are_refused_before_they_are_kept() -> None:
    connection = Connection(app="live", noise=NOISE, max_message=MAX_MESSAGE)
    size = COMMAND_LIMIT.to_bytes(3, "big")
    begun = [bytes((n, 0, 0, 0)) + size + bytes((9, 0, 0, 0, 0)) + bytes(128) for n in range(4, 60)]
    more = [bytes((0xC0 | n,)) + bytes(128) for n in range(4, 60)] * 100
    kept = []
    with pytest.raises(RtmpError, match=str(COMMAND_LIMIT)):
        for data in [hello(), *begun, *more]:
            connection.receive_data(data)
            list(events_of(connection))
            kept.append(connection.held)
    assert max(kept) <= COMMAND_LIMIT
