"""Pure: RTMP messages, and reading and writing those a server uses (RTMP 1.0, 5.4 and 7)."""

import struct
from dataclasses import dataclass

from xbyte_live.errors import RtmpError
from xbyte_live.live.rtmp import amf0

SET_CHUNK_SIZE, ABORT, ACKNOWLEDGEMENT, USER_CONTROL = 1, 2, 3, 4
WINDOW_SIZE, PEER_BANDWIDTH = 5, 6
AUDIO, VIDEO = 8, 9
DATA_AMF3, COMMAND_AMF3, DATA, COMMAND, AGGREGATE = 15, 17, 18, 20, 22

# User control events.
STREAM_BEGIN = 0
PING_REQUEST, PING_RESPONSE = 6, 7

MAX_AGGREGATED = 1024  # messages in one
_SET_DATA_FRAME = amf0.encode("@setDataFrame")
_CLEAR_DATA_FRAME = amf0.encode("@clearDataFrame")
_DYNAMIC = 2  # the client may change its bandwidth limit itself


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a connection; ``timestamp`` is in milliseconds, modulo 2**32."""

    kind: int
    payload: bytes
    timestamp: int = 0
    stream_id: int = 0


@dataclass(frozen=True, slots=True)
class Command:
    """A call or an answer: its name, the transaction number that pairs them, and arguments."""

    name: str
    transaction: float
    arguments: tuple[amf0.Value, ...]

    def text(self, place: int) -> str:
        """The argument at that place if it is text, else an empty string."""
        found = self.arguments[place] if place < len(self.arguments) else None
        return found if isinstance(found, str) else ""


def read_command(message: Message) -> Command:
    """A command of either kind; of AMF3 the form all publishers use: a 0 byte, then AMF0."""
    values = amf0.decode_all(_without_amf3(message, COMMAND_AMF3))
    match values:
        case [str(name), float(transaction), *arguments]:
            return Command(name, transaction, tuple(arguments))
        case [str(name)]:
            return Command(name, 0.0, ())
    raise RtmpError("a command does not begin with its name and number")


def read_script(message: Message) -> bytes:
    """The body of an FLV script tag in a data message; empty when there is none.

    The value inside ``@setDataFrame`` is returned byte for byte.
    """
    payload = _without_amf3(message, DATA_AMF3)
    if payload.startswith(_CLEAR_DATA_FRAME):
        return b""
    return payload.removeprefix(_SET_DATA_FRAME)


def read_number(message: Message) -> int:
    """The 32-bit number a protocol control message begins with."""
    if len(message.payload) < 4:
        raise RtmpError("a control message is cut short")
    return int.from_bytes(message.payload[:4], "big")


def read_user_control(message: Message) -> tuple[int, bytes]:
    """The event of a user control message, and its data."""
    if len(message.payload) < 2:
        raise RtmpError("a user control message is cut short")
    return int.from_bytes(message.payload[:2], "big"), message.payload[2:]


def split_aggregate(message: Message) -> list[Message]:
    """The messages inside an aggregate message, on its clock (RTMP 1.0, 7.1.6)."""
    found: list[Message] = []
    data, at = message.payload, 0
    while at < len(data):
        end = at + 11 + int.from_bytes(data[at + 1 : at + 4], "big")
        if end > len(data) or len(found) == MAX_AGGREGATED:
            raise RtmpError("an aggregate message is cut short or holds too many")
        time = int.from_bytes(data[at + 4 : at + 7], "big") | data[at + 7] << 24
        found.append(Message(data[at], data[at + 11 : end], time, message.stream_id))
        at = end + 4  # the back pointer
    shift = message.timestamp - found[0].timestamp if found else 0
    return [
        Message(inner.kind, inner.payload, (inner.timestamp + shift) % 2**32, inner.stream_id)
        for inner in found
    ]


def set_chunk_size(size: int) -> Message:
    """Announce the size of our chunks from the next message on."""
    return Message(SET_CHUNK_SIZE, struct.pack(">I", size))


def acknowledgement(received: int) -> Message:
    """Acknowledge the number of received bytes, modulo 2**32."""
    return Message(ACKNOWLEDGEMENT, struct.pack(">I", received % 2**32))


def window_size(size: int) -> Message:
    """Ask the peer to acknowledge every ``size`` bytes."""
    return Message(WINDOW_SIZE, struct.pack(">I", size))


def peer_bandwidth(size: int) -> Message:
    """Limit the bytes the peer may send before an acknowledgement."""
    return Message(PEER_BANDWIDTH, struct.pack(">IB", size, _DYNAMIC))


def user_control(event: int, data: bytes) -> Message:
    """A user control event, such as the answer to a ping."""
    return Message(USER_CONTROL, struct.pack(">H", event) + data)


def command(name: str, transaction: float, *arguments: amf0.Value, stream_id: int = 0) -> Message:
    """A command in AMF0, which every client reads."""
    return Message(COMMAND, amf0.encode(name, transaction, *arguments), 0, stream_id)


def _without_amf3(message: Message, kind: int) -> bytes:
    if message.kind != kind:
        return message.payload
    if message.payload[:1] != b"\0":
        raise RtmpError("an AMF3 message does not begin with AMF0, as publishers' do")
    return message.payload[1:]
