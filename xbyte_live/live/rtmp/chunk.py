"""Pure: the chunk stream of RTMP: bytes to messages, and messages to bytes (RTMP 1.0, 5.3)."""

import struct
from dataclasses import dataclass, field

from xbyte_live.errors import RtmpError
from xbyte_live.live.rtmp.message import ABORT, SET_CHUNK_SIZE, Message, read_number

DEFAULT_CHUNK_SIZE = 128
MAX_CHUNK_STREAMS = 64  # publishers use three to six
_EXTENDED = 0xFFFFFF
_HEADER_SIZES = (11, 7, 3, 0)


@dataclass(slots=True)
class _Stream:
    """One chunk stream: the header its next chunk may leave out, and the message under way."""

    number: int
    kind: int = 0
    stream_id: int = 0
    timestamp: int = 0
    delta: int = 0
    length: int = 0
    extended: bytes = b""  # the extended timestamp as it was sent, which later chunks repeat
    missing: int = 0
    partial: bytearray = field(default_factory=bytearray)
    open: bool = False


class ChunkReader:
    """Takes the bytes of a connection, split anywhere, and returns its messages.

    ``limit`` bounds the bytes of all unfinished messages together, and so of each message; it
    may be changed between messages. SetChunkSize and Abort are handled here and not returned.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.chunk_size = DEFAULT_CHUNK_SIZE
        self.held = 0  # bytes of unfinished messages
        self._streams: dict[int, _Stream] = {}
        self._data = b""
        self._at = 0
        self._current: _Stream | None = None  # whose chunk is being read
        self._chunk_left = 0

    def receive_data(self, data: bytes) -> None:
        """Take received bytes, to be parsed by ``next_message``."""
        rest = self._data[self._at :]
        self._data = rest + data if rest else data
        self._at = 0

    def next_message(self) -> Message | None:
        """The next whole message, ``None`` until more bytes are received; raises ``RtmpError``."""
        while True:
            stream = self._current or self._read_header()
            if stream is None or not self._read_chunk(stream):
                return None
            if not stream.missing:
                message = self._finish(stream)
                if message.kind == SET_CHUNK_SIZE:
                    self._set_chunk_size(read_number(message))
                elif message.kind == ABORT:
                    self._abort(read_number(message))
                else:
                    return message

    def _read_chunk(self, stream: _Stream) -> bool:
        """Move what is there of a chunk into its message; True when the chunk is complete."""
        at = self._at
        piece = self._data[at : at + self._chunk_left]
        size = len(piece)
        self._hold(stream, piece)
        self._at = at + size
        self._chunk_left -= size
        if self._chunk_left:
            self._current = stream
            return False
        self._current = None
        if stream.missing > self.chunk_size:
            self._read_run(stream)
        return True

    def _read_run(self, stream: _Stream) -> None:
        """Move all whole chunks that follow on the same stream at once.

        With 128-byte chunks, which some publishers keep, this is most of the work of a feed.
        """
        data, at, stride = self._data, self._at, self.chunk_size + 1
        count = min(stream.missing // self.chunk_size, (len(data) - at) // stride)
        if count < 2 or stream.extended or stream.number > 63:
            return
        headers = data[at : at + count * stride : stride]
        count -= len(headers.lstrip(bytes((0xC0 | stream.number,))))
        run = bytearray(data[at : at + count * stride])
        del run[::stride]
        self._hold(stream, run)
        self._at = at + count * stride

    def _hold(self, stream: _Stream, piece: bytes | bytearray) -> None:
        self.held += len(piece)
        if self.held > self.limit:
            raise RtmpError(f"unfinished messages hold more than {self.limit} bytes")
        stream.partial += piece
        stream.missing -= len(piece)

    def _finish(self, stream: _Stream) -> Message:
        payload = bytes(stream.partial)
        self._drop(stream)
        return Message(stream.kind, payload, stream.timestamp, stream.stream_id)

    def _drop(self, stream: _Stream) -> None:
        self.held -= len(stream.partial)
        stream.partial = bytearray()
        stream.missing = 0
        stream.open = False

    def _read_header(self) -> _Stream | None:
        """The stream of the next chunk, ready to take its bytes; None when the header is cut."""
        data, at = self._data, self._at
        if at >= len(data):
            return None
        form, number = data[at] >> 6, data[at] & 0x3F
        at += 1
        if number < 2:
            wide = number + 1
            if len(data) < at + wide:
                return None
            number = 64 + int.from_bytes(data[at : at + wide], "little")
            at += wide
        stream = self._streams.get(number)
        if form == 3:
            return self._continue(stream, at)
        if stream is not None and stream.open:
            raise RtmpError("a message began before the one under way had ended")
        return self._begin(stream, form, number, at)

    def _continue(self, stream: _Stream | None, at: int) -> _Stream | None:
        """A chunk without a header: more of a message, or the next one with the same header."""
        if stream is None:
            raise RtmpError("a chunk stream began without a header")
        if stream.extended:
            # Repeated by ffmpeg, OBS and the specification; left out by some: then what
            # stands there differs from it (but for one chance in 2**32).
            found = self._data[at : at + 4]
            if found == stream.extended:
                at += 4
            elif stream.extended.startswith(found):
                return None
        if not stream.open:
            self._open(stream)
        return self._start_chunk(stream, at)

    def _begin(self, stream: _Stream | None, form: int, number: int, at: int) -> _Stream | None:
        """A chunk with a header, which begins a message."""
        data = self._data
        end = at + _HEADER_SIZES[form]
        time = int.from_bytes(data[at : at + 3], "big")
        extended = b""
        if time == _EXTENDED:
            extended = data[end : end + 4]
            time = int.from_bytes(extended, "big")
            end += 4
        if len(data) < end:
            return None
        stream = stream or self._new_stream(form, number)
        stream.extended, stream.delta = extended, time
        if form < 2:
            stream.length = int.from_bytes(data[at + 3 : at + 6], "big")
            stream.kind = data[at + 6]
        if form == 0:
            stream.stream_id = int.from_bytes(data[at + 7 : at + 11], "little")
            stream.timestamp = 0
        self._open(stream)
        return self._start_chunk(stream, end)

    def _new_stream(self, form: int, number: int) -> _Stream:
        # librtmp, and so OBS, begins its control stream with the form that has no stream id.
        if form > 1:
            raise RtmpError("a chunk stream began without a length")
        if len(self._streams) >= MAX_CHUNK_STREAMS:
            raise RtmpError(f"more than {MAX_CHUNK_STREAMS} chunk streams")
        return self._streams.setdefault(number, _Stream(number))

    def _open(self, stream: _Stream) -> None:
        if stream.length > self.limit:
            raise RtmpError(f"a message of {stream.length} bytes, more than {self.limit}")
        # After a full header the delta is the timestamp itself (5.3.1.2.4), as ffmpeg counts.
        stream.timestamp = (stream.timestamp + stream.delta) % 2**32
        stream.missing = stream.length
        stream.open = True

    def _start_chunk(self, stream: _Stream, at: int) -> _Stream:
        self._at = at
        self._chunk_left = min(stream.missing, self.chunk_size)
        return stream

    def _set_chunk_size(self, size: int) -> None:
        if not 1 <= size < 2**31:
            raise RtmpError(f"a chunk size of {size}")
        self.chunk_size = size

    def _abort(self, number: int) -> None:
        if number in self._streams:
            self._drop(self._streams[number])


def encode_message(message: Message, number: int, chunk_size: int) -> bytes:
    """The chunks of a message on chunk stream ``number`` (2 to 63), with a full header."""
    time = min(message.timestamp, _EXTENDED)
    extended = struct.pack(">I", message.timestamp) if time == _EXTENDED else b""
    payload = message.payload
    header = time.to_bytes(3, "big") + len(payload).to_bytes(3, "big") + bytes((message.kind,))
    out = bytearray((number,))
    out += header + message.stream_id.to_bytes(4, "little") + extended + payload[:chunk_size]
    for at in range(chunk_size, len(payload), chunk_size):
        out.append(0xC0 | number)
        out += extended + payload[at : at + chunk_size]
    return bytes(out)
