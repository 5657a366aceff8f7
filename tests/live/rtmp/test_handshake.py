"""The handshake: plain and signed in both layouts, whole and byte by byte, and what is refused."""

import pytest

from tests.support.rtmp import CAPTURES, NOISE, capture
from xbyte_live.errors import RtmpError
from xbyte_live.live.rtmp.handshake import (
    DIGEST_SIZE,
    LAYOUTS,
    PLAYER_KEY,
    SERVER_KEY,
    SIZE,
    Handshake,
    digest_of,
    digest_place,
    second_digest,
)

PLAIN = bytes(8) + bytes(range(200)) * 8
PLAIN = PLAIN[:SIZE]


def signed_c1(layout: int) -> bytes:
    """A C1 as a Flash player or ffmpeg signs it."""
    block = bytes(4) + bytes((9, 0, 124, 2)) + NOISE[100 : 100 + SIZE - 8]
    place = digest_place(block, layout)
    digest = digest_of(block, place, PLAYER_KEY)
    return block[:place] + digest + block[place + DIGEST_SIZE :]


def answer_to(c1: bytes) -> tuple[bytes, bytes]:
    answer, rest = Handshake(NOISE).receive_data(b"\x03" + c1)
    assert (answer[:1], len(answer), rest) == (b"\x03", 1 + 2 * SIZE, b"")
    return answer[1 : 1 + SIZE], answer[1 + SIZE :]


def test_a_plain_client_gets_its_own_bytes_back() -> None:
    s1, s2 = answer_to(PLAIN)
    assert s1[4:8] == bytes(4)
    assert s2 == PLAIN


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_signed_client_can_check_both_our_signatures(layout: int) -> None:
    c1 = signed_c1(layout)
    s1, s2 = answer_to(c1)
    assert s1[4] >= 3
    place = digest_place(s1, layout)
    assert s1[place : place + DIGEST_SIZE] == digest_of(s1, place, SERVER_KEY)
    client = digest_place(c1, layout)
    proof = second_digest(c1[client : client + DIGEST_SIZE], s2[:-DIGEST_SIZE], SERVER_KEY)
    assert s2[-DIGEST_SIZE:] == proof


def test_a_wrong_signature_is_answered_plainly() -> None:
    c1 = signed_c1(LAYOUTS[0])
    broken = c1[:-1] + bytes((c1[-1] ^ 1,))
    assert answer_to(broken)[1] == broken


@pytest.mark.parametrize("c1", [PLAIN, signed_c1(8)], ids=["plain", "signed"])
def test_byte_by_byte_is_the_same(c1: bytes) -> None:
    whole, single = Handshake(NOISE), Handshake(NOISE)
    data = b"\x03" + c1 + bytes(SIZE) + b"beyond"
    expected = whole.receive_data(data)
    out, rest = b"", b""
    for place in range(len(data)):
        if single.done:
            rest += data[place : place + 1]
            continue
        answer, over = single.receive_data(data[place : place + 1])
        out, rest = out + answer, rest + over
    assert (out, rest) == expected
    assert whole.done and single.done


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1", b"\x16\x03\x01", b"\x06", b"\x00"])
def test_other_protocols_are_refused_at_the_first_byte(first: bytes) -> None:
    with pytest.raises(RtmpError, match="not RTMP"):
        Handshake(NOISE).receive_data(first)


@pytest.mark.parametrize("name", CAPTURES)
def test_captured_handshakes_are_done(name: str) -> None:
    handshake = Handshake(NOISE)
    handshake.receive_data(capture(name)[: 1 + 2 * SIZE])
    assert handshake.done
