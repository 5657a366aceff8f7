"""The RTMP port: real publishers, limits, deadlines, refusals, and peers that break off."""

import asyncio
import logging
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.rtmp import (
    SOURCE,
    Publish,
    RecordingFeed,
    RecordingPublishers,
    capture,
    chunks,
    debian_ffmpeg,
    ffmpeg,
    frames,
    gstreamer,
    has,
    hello,
    publishing,
    pyav,
    serving,
    tags_of,
)
from xbyte_live.errors import PublishRefused
from xbyte_live.live.rtmp.message import Message, command
from xbyte_live.media.formats.flv import AUDIO, SCRIPT, VIDEO, describe

PUBLISHERS = [pytest.param(ffmpeg, id="ffmpeg"), pytest.param(pyav, id="pyav")]
if has("ffmpeg"):
    PUBLISHERS.append(pytest.param(debian_ffmpeg, id="debian-ffmpeg"))
if has("gst-launch-1.0"):
    PUBLISHERS.append(pytest.param(gstreamer, id="gstreamer"))
TAKEN_OVER = PublishRefused("NetStream.Publish.BadName", "Another publisher has taken over.")
MEDIA = chunks(Message(VIDEO, b"\x17\x01\0\0\0", 40, 1))


@asynccontextmanager
async def client(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection whose bytes the test writes itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def on_air(publishers: RecordingPublishers, writer: asyncio.StreamWriter) -> RecordingFeed:
    writer.write(publishing() + MEDIA)
    await publishers.arrived.wait()
    await publishers.feeds[0].came.wait()
    return publishers.feeds[0]


@pytest.fixture(autouse=True)
async def soon() -> AsyncIterator[None]:
    """No test here waits for long."""
    async with asyncio.timeout(60):
        yield


@pytest.mark.parametrize("publish", PUBLISHERS)
async def test_every_frame_of_a_publisher_arrives_unchanged(publish: Publish) -> None:
    publishers = RecordingPublishers()
    async with serving(publishers) as (server, port):
        code, errors = await publish(f"rtmp://127.0.0.1:{port}/live/stream?key=abc")
        assert code == 0, errors
        feed = publishers.feeds[0]
        await feed.closed.wait()
        assert server.counters.bytes_in > SOURCE.stat().st_size
    request = publishers.requests[0]
    assert (request.app, request.name, request.query) == ("live", "stream", "key=abc")
    assert (request.address, request.tc_url) == ("127.0.0.1", f"rtmp://127.0.0.1:{port}/live")
    for kind in (AUDIO, VIDEO):
        assert frames(feed.tags, kind) == frames(tags_of(SOURCE), kind)
    assert feed.payloads(SCRIPT)
    assert feed.closings == [True]


async def test_hevc_arrives_as_enhanced_rtmp() -> None:
    publishers, source = RecordingPublishers(), SOURCE.with_name("source-hevc.flv")
    async with serving(publishers) as (_, port):
        code, errors = await pyav(f"rtmp://127.0.0.1:{port}/live/key", source)
        assert code == 0, errors
        await publishers.feeds[0].closed.wait()
    tags = publishers.feeds[0].tags
    assert frames(tags, VIDEO) == frames(tags_of(source), VIDEO)
    assert {describe(tag).codec for tag in tags if tag.kind == VIDEO} == {"hevc"}
    assert all(tag.payload[0] & 0x80 for tag in tags if tag.kind == VIDEO)


@pytest.mark.parametrize(
    ("path", "said"),
    [("live/bad", "This stream key is not known here."), ("other/key", "rtmp://host/live")],
)
async def test_a_refused_publisher_reads_why(path: str, said: str) -> None:
    publishers = RecordingPublishers()
    async with serving(publishers) as (_, port):
        code, errors = await ffmpeg(f"rtmp://127.0.0.1:{port}/{path}")
    assert code != 0
    assert said in errors
    assert publishers.feeds == []


async def test_a_feed_that_cannot_be_sold_ends_with_the_reason() -> None:
    publishers = RecordingPublishers()
    refusal = PublishRefused("NetStream.Publish.Rejected", "VP9 cannot be carried.")
    publishers.prepare = lambda feed: setattr(feed, "refusal", refusal)
    async with serving(publishers) as (server, port):
        code, errors = await ffmpeg(f"rtmp://127.0.0.1:{port}/live/key", SOURCE, "-re")
        assert server.counters.refused == 1
    assert (code != 0, "VP9 cannot be carried." in errors) == (True, True)
    assert publishers.feeds[0].closings == [False]


async def test_a_publisher_is_told_when_we_end_its_feed() -> None:
    publishers = RecordingPublishers()
    async with serving(publishers) as (_, port):
        url = f"rtmp://127.0.0.1:{port}/live/key"
        publisher = asyncio.create_task(ffmpeg(url, SOURCE, "-re", "-stream_loop", "-1"))
        await publishers.arrived.wait()
        await publishers.feeds[0].came.wait()
        publishers.feeds[0].end(TAKEN_OVER)
        code, errors = await publisher
        await publishers.feeds[0].closed.wait()
    assert (code != 0, "Another publisher has taken over." in errors) == (True, True)
    assert publishers.feeds[0].closings == [False]


async def test_stopping_the_server_hangs_up_on_everyone() -> None:
    publishers = RecordingPublishers()
    async with serving(publishers) as (server, port):
        url = f"rtmp://127.0.0.1:{port}/live/key"
        publisher = asyncio.create_task(ffmpeg(url, SOURCE, "-re", "-stream_loop", "-1"))
        await publishers.arrived.wait()
        async with client(port) as (reader, _):
            await server.stop()
            assert await reader.read() == b""
        assert publishers.feeds[0].closings == [False]
        assert server.connections == 0
        code, _ = await publisher
    assert code != 0


CUTS = {
    "nothing": 0,
    "in C1": 700,
    "in C2": 2000,
    "after the handshake": 3073,
    "in connect": 3100,
    "in a chunk": len(capture("ffmpeg")) // 2,
    "in a message": len(capture("gstreamer")) * 3 // 4,
}


@pytest.mark.parametrize("name", ["ffmpeg", "gstreamer"])
@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_connection_cut_anywhere_ends_cleanly(name: str, cut: int, reset: bool) -> None:
    publishers = RecordingPublishers()
    async with serving(publishers) as (server, port), client(port) as (_, writer):
        writer.write(capture(name)[:cut])
        await writer.drain()
        if cut > 3200:
            await publishers.arrived.wait()
        if reset:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        for feed in publishers.feeds:
            await feed.closed.wait()
    assert server.connections == 0
    assert [feed.closings for feed in publishers.feeds] == [[False]] * len(publishers.feeds)


@pytest.mark.parametrize(
    ("data", "limit", "said"),
    [
        (b"", "handshake_timeout", "did not connect in time"),
        (capture("ffmpeg")[:3100], "handshake_timeout", "did not connect in time"),
        (hello(), "publish_timeout", "did not publish in time"),
        (publishing() + MEDIA, "idle_timeout", "sent no sound or picture"),
    ],
    ids=["silent", "in connect", "connected", "on air"],
)
async def test_who_stalls_is_cut_off(
    data: bytes, limit: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    publishers = RecordingPublishers()
    async with serving(publishers, **{limit: 0.2}) as (_, port), client(port) as (reader, writer):
        writer.write(data)
        await reader.read()
    assert said in caplog.text
    assert all(feed.closings == [False] for feed in publishers.feeds)


async def test_pings_do_not_keep_a_silent_publisher_on_air() -> None:
    publishers = RecordingPublishers()
    async with serving(publishers, idle_timeout=0.3) as (_, port), client(port) as (_, writer):
        feed = await on_air(publishers, writer)
        while not feed.closed.is_set():
            writer.write(chunks(Message(4, b"\0\6" + bytes(4))))
            await asyncio.wait([asyncio.ensure_future(feed.closed.wait())], timeout=0.05)
    assert feed.closings == [False]


async def test_a_full_feed_stops_the_reading_and_is_not_the_publishers_fault() -> None:
    publishers = RecordingPublishers()
    publishers.prepare = lambda feed: feed.door.clear()
    frame = chunks(Message(VIDEO, bytes(50_000), 0, 1))
    async with serving(publishers, idle_timeout=0.2) as (server, port), client(port) as (_, writer):
        writer.transport.set_write_buffer_limits(1 << 20)
        writer.write(publishing())
        await publishers.arrived.wait()
        feed = publishers.feeds[0]
        count = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(0.6):
                while True:
                    writer.write(frame)
                    count += 1
                    await writer.drain()
        assert (feed.tags, feed.closings) == ([], [])
        assert server.counters.bytes_in < 1_000_000 < count * len(frame)
        feed.door.set()
        await writer.drain()
        writer.write(chunks(command("deleteStream", 0, None, 1)))
        await feed.closed.wait()
    assert len(feed.payloads(VIDEO)) == count
    assert feed.closings == [True]


async def test_one_connection_may_publish_again() -> None:
    publishers = RecordingPublishers()
    async with serving(publishers) as (_, port), client(port) as (_, writer):
        first = await on_air(publishers, writer)
        publishers.arrived.clear()
        writer.write(chunks(command("FCUnpublish", 5, None, "key")))
        writer.write(chunks(command("publish", 6, None, "again", "live", stream_id=2)) + MEDIA)
        await publishers.arrived.wait()
        await publishers.feeds[1].came.wait()
    assert [request.name for request in publishers.requests] == ["key", "again"]
    assert (first.closings, publishers.feeds[1].closings) == ([True], [False])


async def test_connections_are_limited_in_all_and_per_address() -> None:
    for limits in ({"max_connections": 2}, {"per_address": 2}):
        async with serving(RecordingPublishers(), **limits) as (server, port):
            async with client(port) as (_, one), client(port), client(port) as (third, _):
                assert await third.read() == b""
                assert (server.connections, server.counters.turned_away) == (2, 1)
                one.write(b"GET / HTTP/1.1\r\n\r\n")  # makes room
                while server.connections == 2:
                    async with client(port) as (probe, _):
                        await probe.read(1)
            async with client(port) as (reader, writer):
                writer.write(hello())
                assert await reader.readexactly(3073)
            assert server.counters.broken == 1


async def test_the_log_names_the_publisher_and_the_reason_never_the_key(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    publishers = RecordingPublishers()
    async with serving(publishers) as (_, port):
        async with client(port) as (reader, writer):
            name = command("publish", 3, None, "secret-key?key=hush", "live", stream_id=1)
            writer.write(hello(tcUrl="rtmp://host/live/secret-key") + chunks(name) + b"\xc9garbage")
            await reader.read()
        async with client(port) as (reader, writer):
            writer.write(b"GET /secret-key HTTP/1.1\r\n\r\n")
            await reader.read()
    lines = [record.getMessage() for record in caplog.records if "rtmp" in record.name]
    assert len(lines) == 2
    assert all(line.startswith("publisher 127.0.0.1: broke the protocol: ") for line in lines)
    assert "secret" not in caplog.text and "hush" not in caplog.text


async def test_a_fault_of_ours_ends_one_connection_and_closes_its_feed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    publishers = RecordingPublishers()
    publishers.prepare = lambda feed: setattr(feed, "refusal", RuntimeError("a bug"))
    async with serving(publishers) as (_, port), client(port) as (reader, writer):
        writer.write(publishing() + MEDIA)
        await reader.read()
    assert "an error in the server" in caplog.text
    assert publishers.feeds[0].closings == [False]


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate with its key in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    begin = datetime.now(UTC) - timedelta(days=1)
    built = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), begin, begin + timedelta(days=9)
    ).sign(key, hashes.SHA256())
    file = tmp_path / "both.pem"
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    file.write_bytes(key.private_bytes(pem, *form) + built.public_bytes(pem))
    return file


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


async def test_rtmps_carries_the_same(tls: ssl.SSLContext) -> None:
    publishers = RecordingPublishers()
    async with serving(publishers, ssl=tls) as (_, port):
        code, errors = await pyav(f"rtmps://127.0.0.1:{port}/live/key")
        assert code == 0, errors
        await publishers.feeds[0].closed.wait()
    for kind in (AUDIO, VIDEO):
        assert frames(publishers.feeds[0].tags, kind) == frames(tags_of(SOURCE), kind)
    assert publishers.feeds[0].closings == [True]


@pytest.mark.parametrize("data", [b"", hello()], ids=["silent", "plain RTMP"])
async def test_who_speaks_no_tls_is_cut_off(tls: ssl.SSLContext, data: bytes) -> None:
    async with serving(RecordingPublishers(), ssl=tls, handshake_timeout=0.3) as (server, port):
        async with client(port) as (reader, writer):
            writer.write(data)
            with suppress(ConnectionError):
                await reader.read()
        assert server.counters.bytes_in == 0
