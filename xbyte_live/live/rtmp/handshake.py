"""Pure: the server's side of the RTMP handshake, plain and with digests."""

import hmac

from xbyte_live.errors import RtmpError

VERSION = 3
SIZE = 1536  # of C1, C2, S1 and S2
DIGEST_SIZE = 32

_CRUD = bytes.fromhex("f0eec24a8068bee82e00d0d1029e7e576eec5d2d29806fab93b8e636cfeb31ae")
PLAYER_KEY = b"Genuine Adobe Flash Player 001"
SERVER_KEY = b"Genuine Adobe Flash Media Server 001"

# The offsets of the four bytes that encode the digest's place, in the two known layouts.
LAYOUTS = (772, 8)
_SERVER_VERSION = bytes((5, 0, 1, 1))  # what asks the client for digests must be 3 or later


class Handshake:
    """Takes C0, C1 and C2, split anywhere, and answers S0, S1 and S2 (RTMP 1.0, 5.2).

    A client that signs its C1 is answered with signatures in the same layout; any other gets
    the plain echo. ``noise`` are 3,072 random bytes.
    """

    def __init__(self, noise: bytes) -> None:
        assert len(noise) == 2 * SIZE
        self.done = False
        self._noise = noise
        self._received = bytearray()
        self._answered = False

    def receive_data(self, data: bytes) -> tuple[bytes, bytes]:
        """The bytes to send now, and the bytes received behind the handshake.

        Raises ``RtmpError`` when the peer does not speak RTMP.
        """
        received = self._received
        received += data
        if received and received[0] != VERSION:
            raise RtmpError(f"not RTMP: the first byte is {received[0]:#04x}, not 0x03")
        answer = b""
        if not self._answered and len(received) > SIZE:
            self._answered = True
            answer = bytes((VERSION,)) + _answer(bytes(received[1 : 1 + SIZE]), self._noise)
        if len(received) < 1 + 2 * SIZE:
            return answer, b""
        self.done = True
        # C2 is not compared: known clients fill it with other bytes.
        return answer, bytes(received[1 + 2 * SIZE :])


def digest_place(block: bytes, layout: int) -> int:
    """The offset of the 32-byte digest of a C1 or S1 in this layout."""
    return layout + 4 + sum(block[layout : layout + 4]) % 728


def digest_of(block: bytes, place: int, key: bytes) -> bytes:
    """The digest of a C1 or S1 over all its bytes but the digest itself."""
    return _hmac(key, block[:place] + block[place + DIGEST_SIZE :])


def second_digest(first: bytes, body: bytes, key: bytes) -> bytes:
    """The last 32 bytes of a C2 or S2, computed from the other side's digest."""
    return _hmac(_hmac(key + _CRUD, first), body)


def _answer(c1: bytes, noise: bytes) -> bytes:
    """S1 and S2 for a C1."""
    for layout in LAYOUTS if any(c1[4:8]) else ():
        place = digest_place(c1, layout)
        found = c1[place : place + DIGEST_SIZE]
        if hmac.compare_digest(found, digest_of(c1, place, PLAYER_KEY)):
            return _signed(layout, found, noise)
    return bytes(8) + noise[8:SIZE] + c1


def _signed(layout: int, digest: bytes, noise: bytes) -> bytes:
    s1 = bytes(4) + _SERVER_VERSION + noise[8:SIZE]
    place = digest_place(s1, layout)
    own = digest_of(s1, place, SERVER_KEY)
    s2 = noise[SIZE : 2 * SIZE - DIGEST_SIZE]
    return s1[:place] + own + s1[place + DIGEST_SIZE :] + s2 + second_digest(digest, s2, SERVER_KEY)


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")
