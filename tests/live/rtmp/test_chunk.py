"""The chunk stream: header forms, interleaving, extended timestamps, limits, control messages."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbyte_live.errors import RtmpError
from xbyte_live.live.rtmp.chunk import MAX_CHUNK_STREAMS, ChunkReader, encode_message
from xbyte_live.live.rtmp.message import ABORT, AUDIO, VIDEO, Message, set_chunk_size

LIMIT = 1 << 20


def read(data: bytes, *, size: int = 0, reader: ChunkReader | None = None) -> list[Message]:
    """Every message, with the data given in pieces of a size (0: whole)."""
    reader = reader or ChunkReader(LIMIT)
    found = []
    for at in range(0, len(data), size or len(data) or 1):
        reader.receive_data(data[at : at + (size or len(data))])
        found += list(iter(reader.next_message, None))
    return found


def full(time: int, kind: int, payload: bytes, *, number: int = 4, stream: int = 1) -> bytes:
    head = time.to_bytes(3, "big") + len(payload).to_bytes(3, "big") + bytes((kind,))
    return bytes((number,)) + head + stream.to_bytes(4, "little") + payload


def test_the_four_header_forms_share_what_they_leave_out() -> None:
    data = (
        full(1000, AUDIO, b"one")
        + b"\x44" + (20).to_bytes(3, "big") + (2).to_bytes(3, "big") + bytes((VIDEO,)) + b"22"
        + b"\x84" + (30).to_bytes(3, "big") + b"33"
        + b"\xc4" + b"44"
    )  # fmt: skip
    expected = [
        Message(AUDIO, b"one", 1000, 1),
        Message(VIDEO, b"22", 1020, 1),
        Message(VIDEO, b"33", 1050, 1),
        Message(VIDEO, b"44", 1080, 1),
    ]
    assert read(data) == expected
    assert read(data, size=1) == expected


def test_a_bare_chunk_after_a_full_header_counts_its_time_again() -> None:
    times = [message.timestamp for message in read(full(23, AUDIO, b"a") + b"\xc4b" + b"\xc4c")]
    assert times == [23, 46, 69]  # 5.3.1.2.4


@pytest.mark.parametrize(
    "header", [b"\x00\x00", b"\x00\xff", b"\x01\x01\x01", b"\x01\xff\xff"], ids=bytes.hex
)
def test_wide_chunk_stream_numbers(header: bytes) -> None:
    payload = bytes(range(200))
    first = full(5, VIDEO, payload)[1:][: 11 + 128]
    again = bytes((header[0] | 0xC0,)) + header[1:]
    data = header + first + again + payload[128:]
    assert read(data) == read(data, size=1) == [Message(VIDEO, payload, 5, 1)]


def test_messages_of_several_streams_interleave() -> None:
    video, audio = random.Random(1).randbytes(1000), b"sound" * 30
    pictures, sounds = (
        encode_message(Message(VIDEO, video, 7, 1), 6, 128),
        encode_message(Message(AUDIO, audio, 8, 1), 4, 128),
    )
    cut = 12 + 128 + 2 * 129  # whole chunks
    data = pictures[:cut] + sounds[: 12 + 128] + pictures[cut : cut + 129] + sounds[12 + 128 :]
    data += pictures[cut + 129 :]
    expected = [Message(AUDIO, audio, 8, 1), Message(VIDEO, video, 7, 1)]
    assert read(data) == read(data, size=1) == expected


@pytest.mark.parametrize("time", [0xFFFFFE, 0xFFFFFF, 0x1000000, 0xFFFFFFFF])
@pytest.mark.parametrize("repeated", [True, False])
def test_extended_timestamps_repeated_or_not(time: int, repeated: bool) -> None:
    payload = bytes(range(256)) * 2
    message = Message(VIDEO, payload, time, 1)
    data = encode_message(message, 6, 128)
    if not repeated and time >= 0xFFFFFF:
        data = data.replace(b"\xc6" + time.to_bytes(4, "big"), b"\xc6")
    data += full(time % 1000, AUDIO, b"next")
    expected = [message, Message(AUDIO, b"next", time % 1000, 1)]
    assert read(data) == read(data, size=1) == expected


def test_an_extended_delta_and_the_wrap_of_32_bits() -> None:
    first = encode_message(Message(AUDIO, b"a", 0xFFFFFFF0, 1), 4, 128)
    step = b"\x84\xff\xff\xff" + (0x01000020).to_bytes(4, "big") + b"b"
    bare = b"\xc4" + (0x01000020).to_bytes(4, "big") + b"c"
    times = [message.timestamp for message in read(first + step + bare, size=1)]
    assert times == [0xFFFFFFF0, 0x01000010, 0x02000030]


def test_the_chunk_size_changes_between_chunks_of_another_message() -> None:
    payload = bytes(500)
    video = encode_message(Message(VIDEO, payload, 0, 1), 6, 128)
    change = encode_message(set_chunk_size(1000), 2, 128)
    data = video[: 12 + 128] + change + b"\xc6" + payload[128:]
    reader = ChunkReader(LIMIT)
    assert read(data, reader=reader, size=7) == [Message(VIDEO, payload, 0, 1)]
    assert reader.chunk_size == 1000


def test_abort_drops_what_was_under_way() -> None:
    video = encode_message(Message(VIDEO, bytes(500), 0, 1), 6, 128)[: 12 + 128]
    abort = encode_message(Message(ABORT, (6).to_bytes(4, "big")), 2, 128)
    nothing = encode_message(Message(ABORT, (99).to_bytes(4, "big")), 2, 128)
    reader = ChunkReader(LIMIT)
    assert read(video + abort + nothing, reader=reader) == []
    assert reader.held == 0
    assert read(full(9, AUDIO, b"x", number=6), reader=reader) == [Message(AUDIO, b"x", 9, 1)]


def test_obs_begins_its_control_stream_without_a_stream_id() -> None:
    data = b"\x42" + bytes(3) + (2).to_bytes(3, "big") + b"\x04" + b"\x00\x03"
    assert read(data) == [Message(4, b"\x00\x03", 0, 0)]


def test_empty_messages_are_messages() -> None:
    assert read(full(0, AUDIO, b"") * 3, size=1) == [Message(AUDIO, b"", 0, 1)] * 3


BROKEN = {
    "a bare chunk first": b"\xc4",
    "a delta first": b"\x84\0\0\0",
    "a header inside a message": full(0, VIDEO, bytes(200))[: 12 + 128] + full(0, VIDEO, b""),
    "too long": full(0, VIDEO, bytes(LIMIT + 1))[:12],
    "chunk size 0": encode_message(set_chunk_size(0), 2, 128),
    "chunk size 2**31": encode_message(set_chunk_size(2**31), 2, 128),
    "a short control message": full(0, 1, b"\0\0", number=2),
    "too many streams": b"".join(
        b"\x00" + bytes((n,)) + full(0, AUDIO, b"")[1:] for n in range(MAX_CHUNK_STREAMS + 1)
    ),
}  # fmt: skip


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_what_breaks_the_rules_is_refused(data: bytes) -> None:
    with pytest.raises(RtmpError):
        read(data)
    with pytest.raises(RtmpError):
        read(data, size=1)


def test_unfinished_messages_are_bounded_together() -> None:
    reader = ChunkReader(1000)
    for number in range(4, 11):
        data = full(0, VIDEO, bytes(900), number=number)[: 12 + 128]
        reader.receive_data(data)
        assert reader.next_message() is None
    assert reader.held == 7 * 128
    with pytest.raises(RtmpError, match="more than 1000"):
        read(full(0, VIDEO, bytes(900), number=11)[: 12 + 128], reader=reader)


messages = st.builds(
    Message,
    kind=st.sampled_from([AUDIO, VIDEO, 18, 20]),
    payload=st.integers(0, 2000).map(lambda size: random.Random(size).randbytes(size)),
    timestamp=st.integers(0, 2**32 - 1),
    stream_id=st.integers(0, 3),
)


@given(st.lists(messages, max_size=6), st.integers(1, 3000), st.integers(1, 5000))
def test_any_messages_in_any_chunks_and_pieces_come_back(
    sent: list[Message], chunk_size: int, piece: int
) -> None:
    data = encode_message(set_chunk_size(chunk_size), 2, 128)
    data += b"".join(encode_message(message, 4, chunk_size) for message in sent)
    assert read(data, size=piece) == sent
