"""RTMP publishers, a double that records their tags, and captures of their connections.

``python -m tests.support.rtmp`` records ``tests/data/rtmp`` again.
"""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from ssl import SSLContext

import av
import imageio_ffmpeg

from tests.support.media import Audio, Recipe, Video, h264
from xbyte_live.errors import PublishRefused
from xbyte_live.live.rtmp.chunk import encode_message
from xbyte_live.live.rtmp.connection import Connection
from xbyte_live.live.rtmp.events import Event, PublishRequest
from xbyte_live.live.rtmp.handshake import SIZE
from xbyte_live.live.rtmp.message import Message, command
from xbyte_live.live.rtmp.publish import RtmpLimits
from xbyte_live.live.rtmp.server import RtmpServer
from xbyte_live.media.formats import flv
from xbyte_live.media.formats.flv import Tag

DATA = Path(__file__).parents[1] / "data" / "rtmp"
SOURCE = DATA / "source.flv"
CAPTURES = ("ffmpeg", "pyav", "pyav-hevc", "gstreamer")
NOISE = bytes(range(256)) * 12
BAD_KEY = PublishRefused("NetStream.Publish.BadName", "This stream key is not known here.")

Publish = Callable[[str], Awaitable[tuple[int, str]]]


class RecordingFeed:
    """Keeps every tag; the test may close its door, refuse what comes, or end it."""

    def __init__(self) -> None:
        self.tags: list[Tag] = []
        self.door = asyncio.Event()
        self.door.set()
        self.refusal: PublishRefused | None = None
        self.closings: list[bool] = []
        self.closed = asyncio.Event()
        self.came = asyncio.Event()
        self._end: asyncio.Future[PublishRefused] = asyncio.get_running_loop().create_future()

    async def write(self, tags: Sequence[Tag]) -> float:
        await self.door.wait()
        if self.refusal is not None:
            raise self.refusal
        self.tags.extend(tags)
        self.came.set()
        return 0.0

    async def close(self, *, unpublished: bool) -> None:
        self.closings.append(unpublished)
        self.closed.set()

    async def ended(self) -> PublishRefused:
        return await asyncio.shield(self._end)

    def end(self, why: PublishRefused) -> None:
        self._end.set_result(why)

    def payloads(self, kind: int) -> list[bytes]:
        return [tag.payload for tag in self.tags if tag.kind == kind]


class RecordingPublishers:
    """Accepts every key but ``bad``."""

    def __init__(self) -> None:
        self.requests: list[PublishRequest] = []
        self.feeds: list[RecordingFeed] = []
        self.arrived = asyncio.Event()
        self.prepare: Callable[[RecordingFeed], None] = lambda feed: None

    async def publish(self, request: PublishRequest) -> RecordingFeed:
        self.requests.append(request)
        if request.name == "bad":
            raise BAD_KEY
        feed = RecordingFeed()
        self.prepare(feed)
        self.feeds.append(feed)
        self.arrived.set()
        return feed


@asynccontextmanager
async def serving(
    publishers: RecordingPublishers, *, ssl: SSLContext | None = None, **limits: float
) -> AsyncIterator[tuple[RtmpServer, int]]:
    """A server on a free port, stopped at the end."""
    server = RtmpServer(publishers.publish, RtmpLimits(**limits))  # type: ignore[arg-type]
    port = await server.start("127.0.0.1", ssl=ssl)
    try:
        yield server, port
    finally:
        await server.stop()


async def run(*arguments: str) -> tuple[int, str]:
    """A program's exit code and what it complained of."""
    process = await asyncio.create_subprocess_exec(
        *arguments, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(60):
            _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, errors.decode(errors="replace")


async def ffmpeg(url: str, source: Path = SOURCE, *options: str) -> tuple[int, str]:
    """Publish with the ffmpeg command line."""
    return await run(imageio_ffmpeg.get_ffmpeg_exe(), *_copying(url, source, *options))


async def debian_ffmpeg(url: str, source: Path = SOURCE) -> tuple[int, str]:
    """Publish with the ffmpeg of the system, often an older one."""
    return await run("ffmpeg", *_copying(url, source))


def _copying(url: str, source: Path, *options: str) -> tuple[str, ...]:
    head = ("-nostdin", "-v", "error", *options, "-i", str(source))
    return (*head, "-c", "copy", "-f", "flv", url)


async def gstreamer(url: str, source: Path = SOURCE) -> tuple[int, str]:
    """Publish with GStreamer's rtmp2sink."""
    pipeline = (
        f"filesrc location={source} ! flvdemux name=demux "
        "demux.video ! queue ! h264parse ! mux. demux.audio ! queue ! aacparse ! mux. "
        f"flvmux name=mux streamable=true ! rtmp2sink location={url}"
    )
    return await run("gst-launch-1.0", "-q", *pipeline.split())


async def pyav(url: str, source: Path = SOURCE) -> tuple[int, str]:
    """Publish with the FFmpeg that PyAV brings; in a process, as PyAV holds the interpreter."""
    return await run(sys.executable, "-m", "tests.support.rtmp", str(source), url)


def remux(source: Path, url: str) -> None:
    """Copy the packets of a file into an FLV file or connection."""
    with av.open(str(source)) as given, av.open(url, "w", format="flv") as output:
        tracks = {s.index: output.add_stream_from_template(s) for s in given.streams}
        for packet in given.demux():
            if packet.dts is not None:
                packet.stream = tracks[packet.stream.index]
                output.mux(packet)


def has(program: str) -> bool:
    """Whether a program is on this machine."""
    return shutil.which(program) is not None


def tags_of(file: Path) -> list[Tag]:
    """The tags of an FLV file."""
    reader = flv.TagReader()
    reader.feed(file.read_bytes())
    return list(iter(reader.next_tag, None))


def frames(tags: list[Tag], kind: int) -> list[bytes]:
    """The coded media of a track, without what remuxers write anew around it."""
    facts = ((tag, flv.describe(tag)) for tag in tags if tag.kind == kind)
    return [tag.payload[fact.body :] for tag, fact in facts if fact.is_frame]


def events_of(connection: Connection) -> Iterator[Event]:
    """Every event there is now, with each publisher accepted."""
    while (event := connection.next_event()) is not None:
        yield event
        if isinstance(event, PublishRequest):
            connection.accept_publish()


def capture(name: str) -> bytes:
    """What a publisher once sent, from its first byte to its last."""
    return (DATA / f"{name}.rtmp").read_bytes()


def hello(app: str = "live", **properties: object) -> bytes:
    """The bytes of a plain client up to its ``createStream``."""
    client = {"app": app, "flashVer": "test", "tcUrl": f"rtmp://localhost/{app}"} | properties
    handshake = b"\x03" + bytes(SIZE) + bytes(SIZE)
    return handshake + chunks(command("connect", 1, client), command("createStream", 2, None))


def publishing(name: str = "key") -> bytes:
    """The bytes of a plain client up to its ``publish``."""
    return hello() + chunks(command("publish", 3, None, name, "live", stream_id=1))


def chunks(*messages: Message) -> bytes:
    """Messages in chunks of 128 bytes, each with a full header."""
    return b"".join(encode_message(message, 3, 128) for message in messages)


def make_sources(folder: Path) -> tuple[Path, Path]:
    """A second of H.264 with AAC, and of HEVC, small enough to be kept."""
    small = h264(b_frames=2, options={"crf": "40"})
    hevc = {"preset": "ultrafast", "crf": "40", "x265-params": "log-level=none:pools=1"}
    plain = Recipe(".flv", "flv", small, Audio(rate=44100, bit_rate=32_000), seconds=1)
    modern = Recipe(".flv", "flv", Video("libx265", options=hevc), None, seconds=1)
    return plain.make(folder / "source.flv"), modern.make(folder / "source-hevc.flv")


async def record(name: str, publish: Publish) -> None:
    """Keep what a publisher sends to a server of ours, which listens behind a tap."""
    heard = bytearray()
    publishers = RecordingPublishers()
    async with serving(publishers) as (_, port):

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                if reader is not tapped[0]:
                    heard.extend(data)
                writer.write(data)
                await writer.drain()
            writer.close()

        tapped: list[asyncio.StreamReader] = []

        async def tap(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            back, forth = await asyncio.open_connection("127.0.0.1", port)
            tapped.append(back)
            await asyncio.gather(pump(reader, forth), pump(back, writer))

        front = await asyncio.start_server(tap, "127.0.0.1", 0)
        url = f"rtmp://127.0.0.1:{front.sockets[0].getsockname()[1]}/live/key?token=1"
        code, errors = await publish(url)
        assert code == 0, errors
        await publishers.feeds[0].closed.wait()
        front.close()
    (DATA / f"{name}.rtmp").write_bytes(heard)
    print(name, len(heard), "bytes,", len(publishers.feeds[0].tags), "tags")


async def main() -> None:
    DATA.mkdir(parents=True, exist_ok=True)
    _, hevc = make_sources(DATA)
    await record("ffmpeg", ffmpeg)
    await record("pyav", pyav)
    await record("pyav-hevc", lambda url: pyav(url, hevc))
    await record("gstreamer", gstreamer)


if __name__ == "__main__":
    if sys.argv[1:]:
        remux(Path(sys.argv[1]), sys.argv[2])
    else:
        asyncio.run(main())
