"""The server's side of a connection: what each command is answered, and what media becomes."""

import pytest

from tests.support.rtmp import (
    CAPTURES,
    NOISE,
    SOURCE,
    capture,
    chunks,
    events_of,
    frames,
    hello,
    publishing,
    tags_of,
)
from xbyte_live.errors import RtmpError
from xbyte_live.live.rtmp import message
from xbyte_live.live.rtmp.amf0 import decode_all, encode
from xbyte_live.live.rtmp.chunk import ChunkReader
from xbyte_live.live.rtmp.connection import COMMAND_LIMIT, FOURCC, WINDOW, Connection
from xbyte_live.live.rtmp.events import Connected, Event, Goodbye, PublishRequest, Unpublished
from xbyte_live.live.rtmp.message import Command, Message, command
from xbyte_live.media.formats.flv import AUDIO, SCRIPT, VIDEO, Tag, describe

MEDIA = Message(VIDEO, b"\x17\x01\0\0\0", 40, 1)


class Client:
    """Both ends in memory: bytes go to a connection, its answers are read back."""

    def __init__(self, max_message: int = 1 << 20) -> None:
        self.connection = Connection(app="live", noise=NOISE, max_message=max_message)
        self.answers = ChunkReader(1 << 20)
        self.greeted = False

    def send(self, data: bytes) -> list[Event]:
        self.connection.receive_data(data)
        return list(events_of(self.connection))

    def heard(self) -> list[Message]:
        data = self.connection.data_to_send()
        if not self.greeted:
            data, self.greeted = data[3073:], True
        self.answers.receive_data(data)
        return list(iter(self.answers.next_message, None))

    def commands(self) -> list[Command]:
        return [message.read_command(m) for m in self.heard() if m.kind == message.COMMAND]


def on_air() -> Client:
    client = Client()
    assert [type(event) for event in client.send(publishing())] == [Connected, PublishRequest]
    client.heard()
    return client


def info(answer: Command) -> dict[str, object]:
    assert isinstance(answer.arguments[1], dict)
    return answer.arguments[1]


def test_connect_and_create_stream_are_answered() -> None:
    client = Client()
    assert client.send(hello()) == [Connected()]
    heard = client.heard()
    assert [m.kind for m in heard] == [
        message.WINDOW_SIZE, message.PEER_BANDWIDTH, message.COMMAND, message.COMMAND
    ]  # fmt: skip
    connected, created = map(message.read_command, heard[2:])
    assert (connected.name, connected.transaction) == ("_result", 1)
    assert info(connected)["code"] == "NetConnection.Connect.Success"
    assert created == Command("_result", 2, (None, 1.0))
    assert client.answers.chunk_size == 65536


def test_publish_is_asked_and_begins_when_accepted() -> None:
    client = Client()
    _, asked = client.send(publishing("stream?key=abc&x=%20"))
    assert asked == PublishRequest(
        "live", "stream", "key=abc&x=%20", "test", "rtmp://localhost/live"
    )
    assert "abc" not in repr(asked) and "stream" not in repr(asked)
    heard = client.heard()
    assert heard[-2] == message.user_control(message.STREAM_BEGIN, b"\0\0\0\1")
    assert heard[-1].stream_id == 1
    assert info(message.read_command(heard[-1]))["code"] == "NetStream.Publish.Start"


def test_the_query_may_stand_in_the_application() -> None:
    client = Client()
    data = hello("live/?key=abc") + chunks(command("publish", 3, None, "name", stream_id=1))
    asked = client.send(data)[1]
    assert isinstance(asked, PublishRequest)
    assert (asked.app, asked.name, asked.query) == ("live", "name", "key=abc")


@pytest.mark.parametrize("app", ["other", "live/other", ""])
def test_another_application_is_rejected(app: str) -> None:
    client = Client()
    events = client.send(hello(app))
    assert isinstance(events[0], Goodbye)
    answer = client.commands()[0]
    assert answer.name == "_error"
    assert info(answer)["code"] == "NetConnection.Connect.Rejected"
    assert "rtmp://host/live" in str(info(answer)["description"])


def test_enhanced_rtmp_is_offered_to_who_asks() -> None:
    old, new = Client(), Client()
    old.send(hello())
    new.send(hello(fourCcList=["hvc1"], capsEx=15))
    assert "fourCcList" not in old.commands()[0].arguments[0]  # type: ignore[operator]
    properties = new.commands()[0].arguments[0]
    assert isinstance(properties, dict)
    assert properties["fourCcList"] == list(FOURCC)


def test_a_refused_publisher_is_told_the_code_and_the_reason() -> None:
    client = Client()
    client.connection.receive_data(publishing("secret"))
    while not isinstance(client.connection.next_event(), PublishRequest):
        pass
    client.connection.refuse("NetStream.Publish.BadName", "No such key.")
    status = client.commands()[-1]
    assert (status.name, info(status)) == ("onStatus", {
        "level": "error", "code": "NetStream.Publish.BadName", "description": "No such key.",
    })  # fmt: skip
    assert client.send(chunks(MEDIA)) == []


def test_playing_is_refused_in_words() -> None:
    client = Client()
    events = client.send(hello() + chunks(command("play", 4, None, "key", stream_id=1)))
    assert events[1:] == [Goodbye("wanted to play over RTMP")]
    assert info(client.commands()[-1])["code"] == "NetStream.Play.Failed"


@pytest.mark.parametrize("name", ["releaseStream", "_checkbw", "getStreamLength", "somethingElse"])
def test_other_calls_are_answered_with_nothing(name: str) -> None:
    client = Client()
    client.send(hello())
    client.heard()
    client.send(chunks(command(name, 7, None, "key"), command(name, 0, None)))
    assert client.commands() == [Command("_result", 7, (None,))]


def test_fcpublish_is_answered_and_announced() -> None:
    client = Client()
    client.send(hello())
    client.heard()
    client.send(chunks(command("FCPublish", 5, None, "key")))
    assert [answer.name for answer in client.commands()] == ["_result", "onFCPublish"]


@pytest.mark.parametrize("name", ["FCUnpublish", "closeStream", "deleteStream"])
def test_each_goodbye_ends_the_broadcast_once(name: str) -> None:
    client = on_air()
    assert client.send(chunks(command(name, 0, None, 1.0))) == [Unpublished()]
    assert client.send(chunks(command("deleteStream", 0, None, 1.0), MEDIA)) == []
    again = chunks(command("publish", 9, None, "key", "live", stream_id=2))
    assert [type(event) for event in client.send(again)] == [PublishRequest]


def test_media_becomes_tags_and_metadata_keeps_its_bytes() -> None:
    client = on_air()
    body = encode("onMetaData", {"width": 640})
    script = Message(message.DATA, encode("@setDataFrame") + body, 0, 1)
    modern = Message(message.DATA_AMF3, b"\0" + body, 0, 1)
    cleared = Message(message.DATA, encode("@clearDataFrame", "onMetaData"), 0, 1)
    empty = Message(AUDIO, b"", 41, 1)
    events = client.send(chunks(MEDIA, script, modern, cleared, empty))
    assert events == [Tag(VIDEO, 40, MEDIA.payload), Tag(SCRIPT, 40, body), Tag(SCRIPT, 40, body)]


def test_commands_in_amf3_dress_are_understood() -> None:
    client = Client()
    plain = command("connect", 1, {"app": "live"})
    dressed = Message(message.COMMAND_AMF3, b"\0" + plain.payload)
    assert client.send(hello()[:3073] + chunks(dressed)) == [Connected()]
    with pytest.raises(RtmpError, match="AMF3"):
        client.send(chunks(Message(message.COMMAND_AMF3, b"\x11" + plain.payload)))


def test_an_aggregate_is_taken_apart_on_its_own_clock() -> None:
    def inner(kind: int, time: int, payload: bytes) -> bytes:
        size = len(payload)
        head = bytes((kind,)) + size.to_bytes(3, "big") + (time & 0xFFFFFF).to_bytes(3, "big")
        return head + bytes((time >> 24, 0, 0, 0)) + payload + (size + 11).to_bytes(4, "big")

    client = on_air()
    body = inner(VIDEO, 500, b"v") + inner(AUDIO, 520, b"a")
    events = client.send(chunks(Message(message.AGGREGATE, body, 1000, 1)))
    assert events == [Tag(VIDEO, 1000, b"v"), Tag(AUDIO, 1020, b"a")]
    for broken in (body[:-8], inner(VIDEO, 0, b"") * 2000):
        with pytest.raises(RtmpError, match="aggregate"):
            on_air().send(chunks(Message(message.AGGREGATE, broken, 0, 1)))


def test_time_goes_on_over_32_bits_and_sound_stays_with_pictures() -> None:
    client = on_air()
    times = [(VIDEO, 2**32 - 20), (AUDIO, 5), (VIDEO, 2**32 - 5), (VIDEO, 20), (AUDIO, 2**31)]
    times += [(VIDEO, 2**32 - 1), (VIDEO, 100)]
    events = client.send(chunks(*(Message(kind, b"x", time, 1) for kind, time in times)))
    unwrapped = [event.timestamp - 2**32 for event in events if isinstance(event, Tag)]
    assert unwrapped == [-20, 5, -5, 20, 2**31, 2**32 - 1, 2**32 + 100]


def test_pings_windows_and_acknowledgements() -> None:
    client = on_air()
    client.send(chunks(message.user_control(message.PING_REQUEST, b"\0\0\1\2")))
    assert client.heard() == [message.user_control(message.PING_RESPONSE, b"\0\0\1\2")]
    client.send(chunks(message.peer_bandwidth(5000), message.window_size(1000)))
    assert client.heard() == [message.window_size(5000)]
    client.send(chunks(Message(VIDEO, bytes(1500), 0, 1)))
    (acknowledged,) = client.heard()
    assert acknowledged.kind == message.ACKNOWLEDGEMENT
    assert message.read_number(acknowledged) > len(publishing())
    client.send(chunks(Message(message.USER_CONTROL, b"\0\3" + bytes(8)), MEDIA))
    assert client.heard() == []


def test_a_window_is_kept_though_the_peer_named_none() -> None:
    client = on_air()
    client.send(chunks(*[Message(VIDEO, bytes(500_000), 0, 1)] * 5))
    assert [m.kind for m in client.heard()] == [message.ACKNOWLEDGEMENT]
    assert WINDOW == 2_500_000


BROKEN = {
    "publish before connect": hello()[:3073] + chunks(command("publish", 1, None, "key")),
    "connect twice": hello() + chunks(command("connect", 1, {"app": "live"})),
    "connect without an object": hello()[:3073] + chunks(command("connect", 1, None)),
    "publish twice": publishing() + chunks(command("publish", 1, None, "key")),
    "a command without a name": hello() + chunks(Message(message.COMMAND, encode(1, 2))),
    "a short window": hello() + chunks(Message(message.WINDOW_SIZE, b"\0")),
    "a short event": hello() + chunks(Message(message.USER_CONTROL, b"\0")),
    "much before publishing": hello() + chunks(Message(VIDEO, bytes(COMMAND_LIMIT + 1))),
    "much while publishing": publishing() + chunks(Message(VIDEO, bytes((1 << 20) + 1))),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_what_breaks_the_protocol_is_refused(data: bytes) -> None:
    with pytest.raises(RtmpError):
        Client().send(data)


@pytest.mark.parametrize("name", CAPTURES)
@pytest.mark.parametrize("piece", [1, 1000, 1 << 20])
def test_captures_are_read_in_pieces_of_any_size(name: str, piece: int) -> None:
    client, data = Client(), capture(name)
    events: list[Event] = []
    for at in range(0, len(data), piece):
        events += client.send(data[at : at + piece])
    assert isinstance(events[0], Connected)
    asked = events[1]
    assert isinstance(asked, PublishRequest)
    assert (asked.app, asked.name, asked.query) == ("live", "key", "token=1")
    assert events[-1] == Unpublished()
    tags = [event for event in events if isinstance(event, Tag)]
    assert decode_all(tags[0].payload)[0] == "onMetaData"
    if name == "pyav-hevc":
        assert {describe(tag).codec for tag in tags if tag.kind == VIDEO} == {"hevc"}
    else:
        for kind in (VIDEO, AUDIO):
            assert frames(tags, kind) == frames(tags_of(SOURCE), kind)
    assert client.connection.held == 0


def test_a_flood_of_messages_that_lead_to_nothing_is_no_rtmp() -> None:
    connection = Connection(app="live", noise=bytes(3072), max_message=1 << 20)
    connection.receive_data(b"\x03" + bytes(1536) + bytes(1536))
    first = b"\x04" + bytes(3) + b"\x00\x00\x01" + b"\x08" + bytes(4) + b"\x27"
    connection.receive_data(first + b"\xc4\x27" * 100_000)
    with pytest.raises(RtmpError, match="too many messages"):
        while connection.next_event() is None:
            pass
