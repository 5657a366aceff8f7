"""Pure: the server's side of one RTMP connection: bytes in, events and bytes to send out."""

from collections import deque
from collections.abc import Mapping

from xbyte_live.errors import RtmpError
from xbyte_live.live.rtmp import amf0, message
from xbyte_live.live.rtmp.chunk import ChunkReader, encode_message
from xbyte_live.live.rtmp.events import Connected, Event, Goodbye, PublishRequest, Unpublished
from xbyte_live.live.rtmp.handshake import Handshake
from xbyte_live.live.rtmp.message import Command, Message
from xbyte_live.media.formats.flv import SCRIPT, Tag

OUR_CHUNK_SIZE = 65536  # ffmpeg adopts the size we announce; fewer chunks are less work
WINDOW = 2_500_000
COMMAND_LIMIT = 65536  # bytes of a message before publishing, while the client is unknown
PUBLISH_START = "NetStream.Publish.Start"

# The enhanced RTMP codecs that are parsed; not all of them can be packaged.
FOURCC = ("avc1", "hvc1", "av01", "vp09", "mp4a", ".mp3", "Opus", "fLaC", "ac-3", "ec-3")

_CONTROL, _COMMANDS, _STATUS = 2, 3, 5  # the chunk streams we send on
_ENHANCED = ("fourCcList", "videoFourCcInfoMap", "audioFourCcInfoMap", "capsEx")

MOST_IDLE = 500  # messages in a row without an event; a publisher sends a handful


class Connection:
    """Takes received bytes, returns events, and keeps the bytes to send.

    ``noise`` are 3,072 random bytes; ``max_message`` bounds one message and all unfinished
    ones together, in bytes. A ``PublishRequest`` must be answered before the next event is read.
    """

    def __init__(self, *, app: str, noise: bytes, max_message: int) -> None:
        self._app = app
        self._max_message = max_message
        self._handshake: Handshake | None = Handshake(noise)
        self._chunks = ChunkReader(COMMAND_LIMIT)
        self._events: deque[Event] = deque()
        self._out = bytearray()
        self._out_chunk_size = 128
        self._received = 0
        self._acknowledged = 0
        self._window = WINDOW
        self._client: Mapping[str, amf0.Value] | None = None  # the object of its ``connect``
        self._streams = 0
        self._publishing: int | None = None  # the message stream
        self._clock: int | None = None  # the last media timestamp, unwrapped
        self._idle = 0  # messages since the last event

    @property
    def held(self) -> int:
        """Bytes of unfinished messages."""
        return self._chunks.held

    def receive_data(self, data: bytes) -> None:
        """Take received bytes; raises ``RtmpError`` when the peer does not speak RTMP."""
        self._received += len(data)
        if self._handshake is not None:
            answer, data = self._handshake.receive_data(data)
            self._out += answer
            if not self._handshake.done:
                return
            self._handshake = None
        self._chunks.receive_data(data)
        if self._received - self._acknowledged >= self._window:
            self._acknowledged = self._received
            self._send(message.acknowledgement(self._received))

    def next_event(self) -> Event | None:
        """The next event, ``None`` until more bytes are received.

        Raises ``RtmpError``, after which the connection must be closed.
        """
        while not self._events:
            received = self._chunks.next_message()
            if received is None:
                return None
            self._idle += 1
            if self._idle > MOST_IDLE:
                raise RtmpError("too many messages that lead to nothing")
            self._take(received)
        self._idle = 0
        return self._events.popleft()

    def data_to_send(self) -> bytes:
        """The bytes to send now, each returned once."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def accept_publish(self) -> None:
        """Accept the publisher; its media follows as ``Tag`` events."""
        self._chunks.limit = self._max_message
        self._clock = None
        stream = self._publishing or 0
        self._send(message.user_control(message.STREAM_BEGIN, stream.to_bytes(4, "big")))
        self._status("status", PUBLISH_START, "On air.")

    def refuse(self, code: str, text: str) -> None:
        """Tell the publisher why its feed is refused or ended; the caller hangs up after that."""
        self._status("error", code, text)
        self._publishing = None

    def _take(self, received: Message) -> None:
        kind = received.kind
        if kind in (message.AUDIO, message.VIDEO):
            self._take_media(received)
        elif kind in (message.COMMAND, message.COMMAND_AMF3):
            self._take_command(message.read_command(received), received.stream_id)
        elif kind in (message.DATA, message.DATA_AMF3):
            self._take_script(received)
        elif kind == message.AGGREGATE:
            for inner in message.split_aggregate(received):
                if inner.kind in (message.AUDIO, message.VIDEO):
                    self._take_media(inner)
        else:
            self._take_control(received)

    def _take_media(self, received: Message) -> None:
        if self._publishing is not None and received.payload:
            self._clock = self._unwrapped(received.timestamp)
            self._events.append(Tag(received.kind, self._clock, received.payload))

    def _unwrapped(self, timestamp: int) -> int:
        """The unwrapped time nearest to the last one with these 32 bits.

        Audio and video share one clock, so they stay together when only one has wrapped.
        """
        if self._clock is None:
            return timestamp
        return self._clock + (timestamp - self._clock + 2**31) % 2**32 - 2**31

    def _take_script(self, received: Message) -> None:
        # Publishers always stamp metadata 0, so it gets the time of the last media.
        if self._publishing is not None and (body := message.read_script(received)):
            self._events.append(Tag(SCRIPT, self._clock or 0, body))

    def _take_control(self, received: Message) -> None:
        if received.kind == message.WINDOW_SIZE:
            self._window = message.read_number(received) or WINDOW
        elif received.kind == message.PEER_BANDWIDTH:
            self._send(message.window_size(message.read_number(received)))
        elif received.kind == message.USER_CONTROL:
            event, data = message.read_user_control(received)
            if event == message.PING_REQUEST:
                self._send(message.user_control(message.PING_RESPONSE, data[:4]))
        # Acknowledgements need no answer, and other kinds are for players.

    def _take_command(self, asked: Command, stream_id: int) -> None:
        match asked.name:
            case "connect":
                self._connect(asked)
            case _ if self._client is None:
                raise RtmpError("a command came before connect")
            case "createStream":
                self._streams += 1
                self._answer(asked, None, float(self._streams))
            case "publish":
                self._publish(asked, stream_id)
            case "FCUnpublish" | "closeStream" | "deleteStream":
                self._unpublish(asked)
            case "play" | "play2" | "FCSubscribe":
                self._refuse_play(stream_id)
            case "FCPublish":
                self._answer(asked, None)
                self._call("onFCPublish", PUBLISH_START, "", 0)
            case name if not name.startswith(("on", "_result", "_error")) and asked.transaction:
                # releaseStream, _checkbw, getStreamLength and unknown commands
                self._answer(asked, None)

    def _connect(self, asked: Command) -> None:
        client = asked.arguments[0] if asked.arguments else None
        if self._client is not None or not isinstance(client, Mapping):
            raise RtmpError("connect came twice, or without its object")
        self._client = client
        self._send(message.window_size(WINDOW))
        self._send(message.peer_bandwidth(WINDOW))
        self._send(message.set_chunk_size(OUR_CHUNK_SIZE))
        self._out_chunk_size = OUR_CHUNK_SIZE
        if self._client_text("app").partition("?")[0].strip("/") != self._app:
            text = f"Publish to the application {self._app}: rtmp://host/{self._app} and the key."
            info = _information("error", "NetConnection.Connect.Rejected", text)
            self._send(message.command("_error", asked.transaction, None, info))
            self._events.append(Goodbye("asked for an application that is not here"))
            return
        server: dict[str, amf0.Value] = {"fmsVer": "FMS/3,5,7,7009", "capabilities": 31, "mode": 1}
        if any(name in client for name in _ENHANCED):
            server |= {"fourCcList": FOURCC, "capsEx": 0}
        info = _information("status", "NetConnection.Connect.Success", "Connected.")
        self._answer(asked, server, info | {"objectEncoding": 0})
        self._events.append(Connected())

    def _publish(self, asked: Command, stream_id: int) -> None:
        if self._publishing is not None:
            raise RtmpError("publish came twice")
        self._publishing = stream_id
        name, _, query = asked.text(1).partition("?")
        app, _, app_query = self._client_text("app").partition("?")
        encoder, tc_url = self._client_text("flashVer"), self._client_text("tcUrl")
        request = PublishRequest(app.strip("/"), name, query or app_query, encoder, tc_url)
        self._events.append(request)

    def _unpublish(self, asked: Command) -> None:
        if asked.name == "FCUnpublish":
            self._call("onFCUnpublish", "NetStream.Unpublish.Success", "", 0)
        if self._publishing is not None:
            if asked.name == "closeStream":
                self._status("status", "NetStream.Unpublish.Success", "Off air.")
            self._publishing = None
            self._events.append(Unpublished())

    def _refuse_play(self, stream_id: int) -> None:
        text = "Broadcasts are taken in over RTMP and watched over HLS: open the watch page."
        self._call("onStatus", "NetStream.Play.Failed", text, stream_id, level="error")
        self._events.append(Goodbye("wanted to play over RTMP"))

    def _client_text(self, name: str) -> str:
        found = (self._client or {}).get(name)
        return found if isinstance(found, str) else ""

    def _status(self, level: str, code: str, text: str) -> None:
        self._call("onStatus", code, text, self._publishing or 0, level=level)

    def _call(
        self, name: str, code: str, text: str, stream_id: int, *, level: str = "status"
    ) -> None:
        info = _information(level, code, text)
        self._send(message.command(name, 0, None, info, stream_id=stream_id))

    def _answer(self, asked: Command, *values: amf0.Value) -> None:
        self._send(message.command("_result", asked.transaction, *values))

    def _send(self, answer: Message) -> None:
        if answer.kind != message.COMMAND:
            number = _CONTROL
        else:
            number = _STATUS if answer.stream_id else _COMMANDS
        self._out += encode_message(answer, number, self._out_chunk_size)


def _information(level: str, code: str, text: str) -> dict[str, amf0.Value]:
    return {"level": level, "code": code, "description": text}
