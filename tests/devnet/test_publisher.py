"""The demo's broadcast: over real RTMP, in real time, with a clock that can be read."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import av
import pytest
from av.video.frame import VideoFrame

from tests.support.facilitator_double import refusing_url
from tests.support.rtmp import RecordingPublishers, serving
from xbyte_live.devnet import publisher, samples
from xbyte_live.errors import PublishRefused

KEY = "a-very-secret-key"
SECONDS = 5


@dataclass(slots=True)
class Received:
    """What a listener was sent: per track the times of its packets, and some pictures."""

    codecs: dict[str, str] = field(default_factory=dict)
    size: tuple[int, int] = (0, 0)
    keyframes: list[float] = field(default_factory=list)
    times: dict[str, list[float]] = field(default_factory=dict)
    octets: int = 0
    pictures: list[tuple[float, VideoFrame]] = field(default_factory=list)
    arrived: list[float] = field(default_factory=list)


def listen(url: str, seconds: float) -> Received:
    """Take one publisher for so many seconds of its media, then hang up."""
    got = Received()
    with av.open(url, "r", options={"listen": "1"}, timeout=30) as container:
        for stream in container.streams:
            got.codecs[stream.type] = stream.codec_context.name
        video = container.streams.video[0]
        got.size = (video.width, video.height)
        for packet in container.demux():
            if packet.pts is None:
                break
            at, kind = float(packet.pts * packet.time_base), packet.stream.type
            got.times.setdefault(kind, []).append(at)
            got.octets += packet.size
            if kind == "video":
                got.arrived.append(time.monotonic())
                if packet.is_keyframe:
                    got.keyframes.append(at)
                now = time.time()
                got.pictures += [(now, frame) for frame in video.decode(packet)]
            if at > seconds:
                break
    return got


def free_port() -> int:
    """A port nothing listens on right now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def start(url: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, publisher.URL_VARIABLE: url}
    command = [sys.executable, "-m", "xbyte_live.devnet.publisher", *arguments]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def broadcast() -> Iterator[tuple[Received, int, str]]:
    """One broadcast that the listener ended: what came, the exit status, the last words."""
    url = f"rtmp://127.0.0.1:{free_port()}/live/{KEY}"
    with ThreadPoolExecutor(1) as pool:
        listening: Future[Received] = pool.submit(listen, url, SECONDS)
        while True:
            running = start(url)
            _, said = running.communicate(timeout=60)
            if "refused" not in said:  # until the listener is ready
                break
            assert not listening.done()
        yield listening.result(), running.returncode, said


def test_it_is_what_obs_would_send(broadcast: tuple[Received, int, str]) -> None:
    got, _, _ = broadcast
    assert got.codecs == {"video": "h264", "audio": "aac"}
    assert got.size == (640, 360)
    gaps = [b - a for a, b in zip(got.keyframes, got.keyframes[1:], strict=False)]
    assert len(gaps) >= 2
    assert gaps == pytest.approx([2] * len(gaps), abs=0.01)
    for kind in ("video", "audio"):
        assert got.times[kind] == sorted(set(got.times[kind]))
    assert 0.5e6 < got.octets * 8 / SECONDS < 1.5e6


def test_it_comes_in_real_time(broadcast: tuple[Received, int, str]) -> None:
    got, _, _ = broadcast
    media = got.times["video"][-1] - got.times["video"][30]
    assert media == pytest.approx(got.arrived[-1] - got.arrived[30], abs=1)


def test_the_time_of_day_can_be_read_off_the_picture(
    broadcast: tuple[Received, int, str],
) -> None:
    got, _, _ = broadcast
    read = [(now, clock_of(frame)) for now, frame in got.pictures[30:]]
    assert len({text for _, text in read}) > 30  # tenths of a second
    for now, text in read:
        shown = [time.localtime(now - back) for back in range(3)]
        assert text[:8] in [time.strftime("%H:%M:%S", at) for at in shown]


def test_something_moves(broadcast: tuple[Received, int, str]) -> None:
    got, _, _ = broadcast
    places = {bar_of(frame) for _, frame in got.pictures[:30]}
    assert len(places) > 20


def test_a_machine_that_stands_still_for_a_while_costs_no_keyframe() -> None:
    url = f"rtmp://127.0.0.1:{free_port()}/live/{KEY}"
    with ThreadPoolExecutor(1) as pool:
        listening: Future[Received] = pool.submit(listen, url, 9)
        while True:
            running = start(url)
            with suppress(subprocess.TimeoutExpired):
                running.wait(4)  # by then it broadcasts
            if running.returncode is None:
                break
            assert not listening.done()
        for _ in range(2):
            running.send_signal(signal.SIGSTOP)
            with suppress(subprocess.TimeoutExpired):
                running.wait(1.4)
            running.send_signal(signal.SIGCONT)
            with suppress(subprocess.TimeoutExpired):
                running.wait(0.7)  # less than it takes to catch up picture by picture
        got = listening.result()
        running.communicate(timeout=60)
    gaps = [b - a for a, b in zip(got.keyframes, got.keyframes[1:], strict=False)]
    assert len(gaps) >= 4
    assert max(gaps) <= 2.2
    shown = got.times["video"]
    assert len(shown) < 30 * shown[-1]  # pictures were left out indeed


def test_when_the_server_hangs_up_it_says_so_and_ends(
    broadcast: tuple[Received, int, str],
) -> None:
    _, status, said = broadcast
    assert status == 1
    assert said.startswith("the server ended the broadcast (")
    assert said.count("\n") == 1
    assert KEY not in said


def test_where_nobody_listens_it_says_so_and_ends() -> None:
    with refusing_url() as nobody:
        running = start(nobody.replace("http", "rtmp") + "/live/" + KEY)
        _, said = running.communicate(timeout=60)
    assert (running.returncode, said) == (
        1,
        "the server did not take the broadcast (Connection refused)\n",
    )


def test_it_wants_a_url() -> None:
    running = start("")
    _, said = running.communicate(timeout=60)
    assert running.returncode == 2
    assert publisher.URL_VARIABLE in said


TAKEN_OVER = PublishRefused("NetStream.Publish.Rejected", "Another publisher took over.")


async def published(
    publishers: RecordingPublishers,
    end: Callable[[asyncio.subprocess.Process], None],
    *,
    key: str = KEY,
) -> tuple[int | None, str]:
    """Broadcast to our own server; ``end`` is called once media has come."""
    async with serving(publishers) as (_, port), asyncio.timeout(60):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "xbyte_live.devnet.publisher"),
            env={**os.environ, publisher.URL_VARIABLE: f"rtmp://127.0.0.1:{port}/live/{key}"},
            stderr=asyncio.subprocess.PIPE,
        )
        if key != "bad":
            await publishers.arrived.wait()
            await publishers.feeds[0].came.wait()
            end(process)
        _, said = await process.communicate()
        if publishers.feeds:
            await publishers.feeds[0].closed.wait()
    return process.returncode, said.decode()


async def test_an_interrupt_ends_it_as_a_streamer_would() -> None:
    publishers = RecordingPublishers()
    assert await published(publishers, lambda p: p.send_signal(signal.SIGINT)) == (0, "")
    assert publishers.feeds[0].closings == [True]


async def test_it_ends_when_our_server_ends_it() -> None:
    publishers = RecordingPublishers()
    status, said = await published(publishers, lambda _: publishers.feeds[0].end(TAKEN_OVER))
    assert (status, said.count("\n")) == (1, 1)
    assert said.startswith("the server ended the broadcast (")
    assert publishers.feeds[0].closings == [False]


async def test_it_ends_when_our_server_refuses_the_key() -> None:
    status, said = await published(RecordingPublishers(), lambda _: None, key="bad")
    assert (status, said.count("\n")) == (1, 1)
    assert said.startswith("the server did not take the broadcast (")


def test_digits_can_be_told_apart() -> None:
    frame = VideoFrame(640, 360, "yuv420p")
    samples.burn(frame, "01:23:45.6", left=76, top=48, dot=8)
    assert clock_of(frame) == "01:23:45.6"
    samples.burn(frame, "17:58:49.0", left=76, top=48, dot=8)
    assert clock_of(frame) == "17:58:49.0"


def clock_of(frame: VideoFrame) -> str:
    """What a reader sees on the plate: the glyph most like each place."""
    plane = frame.planes[0]
    pixels, dot = bytes(plane), 8
    shapes = {text: shape_of(text) for text in "0123456789:."}
    read = ""
    for place in range(10):
        seen = [
            pixels[
                (48 + (row + 1) * dot + 4) * plane.line_size + 76 + (1 + 6 * place + x) * dot + 4
            ]
            > 128
            for row in range(8)
            for x in range(5)
        ]
        read += min(
            shapes, key=lambda text: sum(a != b for a, b in zip(shapes[text], seen, strict=True))
        )
    return read


def shape_of(text: str) -> list[bool]:
    """The dots of one glyph, as they are drawn."""
    frame = VideoFrame(64, 64, "gray")
    samples.burn(frame, text, left=0, top=0, dot=1)
    pixels, wide = bytes(frame.planes[0]), frame.planes[0].line_size
    return [pixels[(1 + row) * wide + 1 + x] > 128 for row in range(8) for x in range(5)]


def bar_of(frame: VideoFrame) -> int:
    """Where the bar is, to 8 pixels."""
    plane = frame.planes[0]
    row = bytes(plane)[(360 - 36) * plane.line_size :][:640]
    return max(range(600), key=lambda x: sum(row[x : x + 40])) // 8
