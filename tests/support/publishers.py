"""Publishers that people use, as processes of their own, and a wire to them that can be cut.

``python -m tests.support.publishers FILE URL`` is the one of PyAV.
"""

import asyncio
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import av
import imageio_ffmpeg

ROOT = Path(__file__).parents[2]

Command = Callable[[Path, str], list[str]]


def ffmpeg(file: Path, url: str, *, program: str | None = None) -> list[str]:
    """FFmpeg sends a file as it is, again and again, in real time."""
    program = program or imageio_ffmpeg.get_ffmpeg_exe()
    quiet = ("-hide_banner", "-loglevel", "error", "-nostdin")
    return [program, *quiet, "-re", "-stream_loop", "-1", "-i", str(file), *_COPY, url]


def debian_ffmpeg(file: Path, url: str) -> list[str]:
    """The same with FFmpeg 5, whose RTMP is another."""
    return ffmpeg(file, url, program=shutil.which("ffmpeg"))


def pyav(file: Path, url: str) -> list[str]:
    """PyAV sends a file once, in real time."""
    return [sys.executable, "-m", "tests.support.publishers", str(file), url]


def gstreamer(file: Path, url: str) -> list[str]:
    """GStreamer's ``rtmp2sink`` sends a file once, in real time."""
    return [
        *("gst-launch-1.0", "-q", "-e", "filesrc", f"location={file}", "!", "flvdemux", "name=in"),
        *("flvmux", "name=out", "streamable=true", "!", "rtmp2sink", f"location={url}"),
        *("sync=true", "in.video", "!", "queue", "!", "h264parse", "!", "out."),
        *("in.audio", "!", "queue", "!", "aacparse", "!", "out."),
    ]


_COPY = ("-c", "copy", "-f", "flv")

PUBLISHERS: dict[str, Command] = {"ffmpeg": ffmpeg, "pyav": pyav}
if shutil.which("ffmpeg"):
    PUBLISHERS["debian-ffmpeg"] = debian_ffmpeg
if shutil.which("gst-launch-1.0"):
    PUBLISHERS["gstreamer"] = gstreamer


@dataclass(slots=True)
class Publication:
    """A publisher at work."""

    process: asyncio.subprocess.Process

    async def ended(self, within: float = 20) -> tuple[int, str]:
        """Its exit code and what it said, once it has gone by itself."""
        _, said = await asyncio.wait_for(self.process.communicate(), within)
        assert self.process.returncode is not None
        return self.process.returncode, said.decode()

    async def stop(self) -> None:
        """Have it say goodbye."""
        self.process.send_signal(signal.SIGINT)
        await self.process.wait()

    async def kill(self) -> None:
        """Have it vanish."""
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    def freeze(self) -> None:
        """Have it hang, with its connection open."""
        self.process.send_signal(signal.SIGSTOP)


@asynccontextmanager
async def publishing(url: str, file: Path, command: Command = ffmpeg) -> AsyncIterator[Publication]:
    """A publisher that pushes a file to a URL until it is left."""
    process = await asyncio.create_subprocess_exec(
        *command(file, url), cwd=ROOT, stderr=asyncio.subprocess.PIPE
    )
    publication = Publication(process)
    try:
        yield publication
    finally:
        await publication.kill()


@dataclass(slots=True)
class Wire:
    """A TCP relay to a server, to which it has ``address``.

    Once ``limit`` bytes of a publisher have passed, it is cut there.
    """

    target: int
    address: str = "127.0.0.1"
    port: int = 0
    limit: int | None = None
    passed: int = 0
    began_at: float = 0.0
    cut_at: float = 0.0
    broken: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    def cut(self) -> None:
        """Cut every connection, as a cable is cut for whoever resets it."""
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()
        self.cut_at = time.time()
        self.broken.set()

    async def close(self) -> None:
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.began_at = time.time()
        there = await asyncio.open_connection(
            "127.0.0.1", self.target, local_addr=(self.address, 0)
        )
        self._open |= {writer, there[1]}
        for source, sink, counted in ((reader, there[1], True), (there[0], writer, False)):
            task = asyncio.create_task(self._relay(source, sink, counted))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _relay(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, counted: bool
    ) -> None:
        with suppress(OSError):
            while data := await source.read(1 << 14):
                if counted:
                    data = self._let_through(data)
                sink.write(data)
                await sink.drain()
                if counted and self.passed == self.limit:
                    await self._cut_after(sink)
            sink.close()

    def _let_through(self, data: bytes) -> bytes:
        if self.limit is not None:
            data = data[: self.limit - self.passed]
        self.passed += len(data)
        return data

    async def _cut_after(self, sink: asyncio.StreamWriter) -> None:
        """Cut once the last byte is on its way: a reset would take back what is not."""
        sink.close()
        with suppress(OSError):
            await sink.wait_closed()
        self.cut()


@asynccontextmanager
async def a_wire(
    target: int, limit: int | None = None, *, address: str = "127.0.0.1"
) -> AsyncIterator[Wire]:
    """A relay in front of a port."""
    wire = Wire(target, address, limit=limit)
    server = await asyncio.start_server(wire.carry, "127.0.0.1", 0)
    wire.port = server.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        server.close()
        await wire.close()


def push(file: str, url: str) -> None:
    """Send a file as it is, in real time."""
    with av.open(file) as source, av.open(url, "w", format="flv") as sink:
        tracks = {track.index: sink.add_stream_from_template(track) for track in source.streams}
        began = time.monotonic()
        for packet in source.demux():
            if packet.dts is None:  # the sign that a track is over
                continue
            due = began + float(packet.dts * packet.time_base)
            time.sleep(max(0.0, due - time.monotonic()))
            packet.stream = tracks[packet.stream.index]
            sink.mux(packet)


if __name__ == "__main__":
    push(*sys.argv[1:])
