"""Feeds in child processes: everything handed out, every way a child may end, nothing left over."""

import asyncio
import gc
import hashlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.flv import Fed, check, encode, is_frame, is_key, package, tags_of
from tests.support.media import RECIPES, Recipe, h264
from xbyte_live.errors import FeedFailed, MediaError
from xbyte_live.media.formats.flv import VIDEO, Tag, encode_tag, file_header
from xbyte_live.media.live import messages as frames
from xbyte_live.media.live.messages import (
    FeedEvent,
    FeedOptions,
    FeedSegment,
    FeedTrack,
    FeedWarning,
)
from xbyte_live.media.live.process import FeedProcess
from xbyte_live.media.live.spawner import FeedSpawner
from xbyte_live.media.sources.url import Source

ENDLESS_HEAD = file_header(audio=True, video=True)


@pytest_asyncio.fixture
async def spawner() -> AsyncIterator[FeedSpawner]:
    spawner = FeedSpawner()
    yield spawner
    await spawner.close()


async def push(feed: FeedProcess, data: bytes, *, size: int = 1 << 16) -> None:
    for at in range(0, len(data), size):
        await feed.write(data[at : at + size])
    await feed.finish()


async def collect(feed: FeedProcess) -> Fed:
    return Fed([event async for event in feed.events()])


async def through(feed: FeedProcess, data: bytes, *, size: int = 1 << 16) -> Fed:
    _, fed = await asyncio.gather(push(feed, data, size=size), collect(feed))
    return fed


def gone(pid: int) -> bool:
    """No such process, and no zombie of it."""
    return not Path(f"/proc/{pid}").exists()


def open_files() -> int:
    """How many; what else lives in this process may connect anew, or close what it had."""
    gc.collect()
    return sum(entry.is_symlink() for entry in Path("/proc/self/fd").iterdir())


async def test_a_feed_comes_out_as_it_does_in_one_process(spawner: FeedSpawner) -> None:
    tags = tags_of("flv")
    feed = await spawner.start(FeedOptions())
    fed = await through(feed, encode(tags))
    check(fed)
    here = package(tags)
    assert [s.data for s in fed.segments] == [s.data for s in here.segments]
    assert [s.sha256 for s in fed.segments] == [
        hashlib.sha256(s.data).hexdigest() for s in fed.segments
    ]
    assert fed.tracks == here.tracks
    await feed.kill()
    assert gone(feed.pid)


async def test_a_segment_is_handed_out_while_the_feed_goes_on(spawner: FeedSpawner) -> None:
    tags = tags_of("flv")
    second = [number for number, tag in enumerate(tags) if is_key(tag)][1]
    feed = await spawner.start(FeedOptions())
    await feed.write(encode(tags[: second + 6]))
    events = feed.events()
    assert isinstance(await anext(events), FeedTrack)
    segment = await anext(events)
    assert isinstance(segment, FeedSegment)
    assert segment.duration_us == 2_000_000
    await feed.kill()


async def test_several_feeds_at_once(spawner: FeedSpawner) -> None:
    data = encode(tags_of("flv"))
    feeds = await asyncio.gather(*(spawner.start(FeedOptions()) for _ in range(4)))
    made = await asyncio.gather(*(through(feed, data, size=5000) for feed in feeds))
    assert len({feed.pid for feed in feeds}) == 4
    assert {tuple(segment.sha256 for segment in fed.segments) for fed in made} == {
        tuple(segment.sha256 for segment in made[0].segments)
    }


async def test_nothing_but_a_header_is_no_feed_and_no_error(spawner: FeedSpawner) -> None:
    for data in (b"", ENDLESS_HEAD):
        feed = await spawner.start(FeedOptions())
        assert (await through(feed, data)).events == []
        assert gone(feed.pid)


async def test_media_that_cannot_be_carried(spawner: FeedSpawner) -> None:
    feed = await spawner.start(FeedOptions())
    tag = encode_tag(Tag(VIDEO, 0, b"\x91av01" + bytes(1000)))

    async def push_on() -> None:
        await feed.write(ENDLESS_HEAD)
        while True:
            await feed.write(tag)

    pushing = asyncio.create_task(push_on())
    with pytest.raises(MediaError, match=r"its video is AV1.*choose H.264 in OBS"):
        await collect(feed)
    with pytest.raises(FeedFailed, match="AV1"):
        await pushing
    assert gone(feed.pid)


async def test_what_is_not_flv(spawner: FeedSpawner) -> None:
    feed = await spawner.start(FeedOptions())
    await push(feed, bytes(100))
    with pytest.raises(MediaError, match="it is not FLV"):
        await collect(feed)
    assert gone(feed.pid)


@pytest.mark.parametrize(
    ("number", "text"),
    [(signal.SIGKILL, "killed, perhaps because"), (signal.SIGSEGV, r"crashed \(SIGSEGV\)")],
)
async def test_a_child_that_dies(spawner: FeedSpawner, number: int, text: str) -> None:
    tags = tags_of("flv")
    feed = await spawner.start(FeedOptions())
    await feed.write(encode(tags[:200]))
    events = feed.events()
    assert isinstance(await anext(events), FeedTrack)
    os.kill(feed.pid, number)
    with pytest.raises(FeedFailed, match=text):
        async for _ in events:
            pass
    with pytest.raises(FeedFailed, match=text):
        await feed.write(b"more")
    assert gone(feed.pid)
    again = await spawner.start(FeedOptions())
    assert check(await through(again, encode(tags)))


async def test_a_child_that_hangs(spawner: FeedSpawner) -> None:
    feed = await spawner.start(FeedOptions(stall_timeout=0.5))
    await feed.write(ENDLESS_HEAD)
    os.kill(feed.pid, signal.SIGSTOP)

    async def push_on() -> None:
        while True:
            await feed.write(bytes(1 << 16))

    pushing = asyncio.create_task(push_on())
    with pytest.raises(FeedFailed, match=r"hung for 0\.5 seconds"):
        await collect(feed)
    with pytest.raises(FeedFailed, match="hung"):
        await pushing
    assert gone(feed.pid)


async def test_a_child_that_hangs_at_the_end(spawner: FeedSpawner) -> None:
    feed = await spawner.start(FeedOptions(stall_timeout=0.5))
    os.kill(feed.pid, signal.SIGSTOP)
    await feed.finish()
    with pytest.raises(FeedFailed, match="hung"):
        await collect(feed)
    assert gone(feed.pid)


async def test_a_silent_publisher_is_no_hung_child(spawner: FeedSpawner) -> None:
    tags = tags_of("flv")
    feed = await spawner.start(FeedOptions(stall_timeout=1.2))
    collecting = asyncio.create_task(collect(feed))
    await feed.write(encode(tags[:100]))
    done, _ = await asyncio.wait([collecting], timeout=2.5)
    assert not done
    await feed.write(b"".join(map(encode_tag, tags[100:])))
    await feed.finish()
    assert len((await collecting).segments) == 5


async def test_a_slow_reader_holds_the_publisher_up_and_nobody_is_ended(
    spawner: FeedSpawner,
) -> None:
    data = encode(tags_of(Recipe(".flv", "flv", h264(bit_rate=8_000_000), seconds=13)))
    feed = await spawner.start(FeedOptions(stall_timeout=0.4))
    events = feed.events()
    pushing = asyncio.create_task(push(feed, data))
    first = await anext(events)
    done, _ = await asyncio.wait([pushing], timeout=1.5)
    assert not done  # waits, however long its events stay unread
    fed = Fed([first, *[event async for event in events]])
    await pushing
    assert len(fed.segments) == 7


async def test_a_child_that_outgrows_its_memory(spawner: FeedSpawner) -> None:
    feed = await spawner.start(FeedOptions(memory_bytes=48 << 20))
    tags = tags_of("flv")
    grown = [
        replace(tag, payload=tag.payload + bytes(12 << 20)) if is_frame(tag) else tag
        for tag in tags[:20]
    ]
    with pytest.raises(FeedFailed, match="more than 48 MiB of memory"):
        await through(feed, encode(grown), size=1 << 20)
    assert gone(feed.pid)


async def test_kill_in_the_middle_leaves_nothing(spawner: FeedSpawner) -> None:
    await spawner.warm_up()
    await (await spawner.start(FeedOptions())).kill()
    before = open_files()
    for _ in range(5):
        feed = await spawner.start(FeedOptions())
        collecting = asyncio.create_task(collect(feed))
        await feed.write(encode(tags_of("flv")[:300]))
        await feed.kill()
        await feed.kill()
        with pytest.raises(FeedFailed):
            await collecting
        assert gone(feed.pid)
    assert open_files() <= before


async def test_feeds_that_ended_leave_nothing(spawner: FeedSpawner) -> None:
    data = encode(tags_of("flv"))
    await through(await spawner.start(FeedOptions()), data)
    before = open_files()
    for _ in range(5):
        feed = await spawner.start(FeedOptions())
        await through(feed, data)
        assert gone(feed.pid)
    assert open_files() <= before


async def test_closing_the_spawner_ends_every_feed() -> None:
    before = open_files()
    spawner = FeedSpawner()
    feeds = [await spawner.start(FeedOptions()) for _ in range(3)]
    for feed in feeds:
        await feed.write(ENDLESS_HEAD)
        os.kill(feed.pid, signal.SIGSTOP)
    await spawner.close()
    for feed in feeds:
        with pytest.raises(FeedFailed):
            await collect(feed)
        await feed.kill()
    await until_gone(*(feed.pid for feed in feeds))
    await spawner.close()
    assert open_files() <= before


async def until_gone(*pids: int) -> None:
    async with asyncio.timeout(20):
        while not all(map(gone, pids)):
            await asyncio.sleep(0.02)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def test_a_fork_server_that_died_is_replaced(spawner: FeedSpawner) -> None:
    first = await spawner.start(FeedOptions())
    os.kill(parent_of(first.pid), signal.SIGKILL)
    fed = await through(first, encode(tags_of("flv")))  # it goes on without
    assert len(fed.segments) == 5
    second = await spawner.start(FeedOptions())
    assert len((await through(second, encode(tags_of("flv")))).segments) == 5


async def test_a_feed_is_never_killed_by_its_number(
    spawner: FeedSpawner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the fork server is gone, the number may be another program's by then."""
    before = open_files()
    orphans = [await spawner.start(FeedOptions()) for _ in range(2)]
    os.kill(parent_of(orphans[0].pid), signal.SIGKILL)
    for orphan in orphans:
        with suppress(FeedFailed):
            await orphan.write(ENDLESS_HEAD)
    os.kill(orphans[0].pid, signal.SIGKILL)
    await until_gone(orphans[0].pid)
    os.kill(orphans[1].pid, signal.SIGSTOP)  # it does not end by itself
    child = await spawner.start(FeedOptions())
    killed: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", lambda pid, number: killed.append(pid))
        for feed in (*orphans, child):
            await feed.kill()
    assert killed == []
    await until_gone(orphans[1].pid, child.pid)
    await spawner.close()
    assert open_files() <= before


async def test_a_terminal_interrupt_ends_no_feed(spawner: FeedSpawner) -> None:
    feed = await spawner.start(FeedOptions())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(feed.pid, number)
        os.kill(parent_of(feed.pid), number)
    assert len((await through(feed, encode(tags_of("flv")))).segments) == 5


async def test_a_child_holds_no_file_but_its_own(spawner: FeedSpawner) -> None:
    others = [await spawner.start(FeedOptions()) for _ in range(3)]
    feed = await spawner.start(FeedOptions())
    await feed.write(encode(tags_of("flv")[:200]))
    await anext(feed.events())
    held = sorted(int(entry.name) for entry in Path(f"/proc/{feed.pid}/fd").iterdir())
    assert held[:3] == [0, 1, 2]
    assert len(held) == 4
    for one in (*others, feed):
        await one.kill()


PROGRAM = """
import asyncio, os, sys
from xbyte_live.media.live.messages import FeedOptions
from xbyte_live.media.live.spawner import FeedSpawner
from xbyte_live.media.sources.url import Source

async def main():
    feed = await FeedSpawner().start(FeedOptions())
    print(feed.pid, flush=True)
    sys.stdin.read(1)
    os._exit(0)

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["-c", "script"])
async def test_a_child_ends_with_the_service(tmp_path: Path, how: str) -> None:
    """Started as any kind of program; a main module is not imported a second time."""
    (tmp_path / "program").write_text(PROGRAM)
    arguments = ["-c", PROGRAM] if how == "-c" else [str(tmp_path / "program")]
    service = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert service.stdin and service.stdout
    pid = int(await service.stdout.readline())
    server = parent_of(pid)
    os.kill(pid, signal.SIGSTOP)  # even one that hangs
    service.stdin.write(b"x")
    await service.wait()
    await until_gone(pid, server)


async def test_starting_does_not_hold_the_loop_up() -> None:
    """The media library loads elsewhere, while this loop goes on turning."""
    spawner = FeedSpawner()
    loop = asyncio.get_running_loop()
    starting = asyncio.create_task(spawner.start(FeedOptions()))
    longest, last = 0.0, loop.time()
    while not starting.done():
        await asyncio.sleep(0)
        longest, last = max(longest, loop.time() - last), loop.time()
    await (await starting).kill()
    await spawner.close()
    assert longest < 1


@pytest.mark.parametrize("program", ["/bin/false", "/nonexistent"])
async def test_a_fork_server_that_cannot_start(
    monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    before = open_files()
    spawner = FeedSpawner()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", program)
        with pytest.raises(FeedFailed, match="process"):
            await spawner.start(FeedOptions())
    feed = await spawner.start(FeedOptions())  # nothing is spoilt for the next
    await feed.kill()
    await spawner.close()
    assert open_files() <= before


async def test_a_feed_that_is_pulled(spawner: FeedSpawner, tmp_path: Path) -> None:
    media = RECIPES["ts"].make(tmp_path / "media.ts").read_bytes()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(media)
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        source = Source(f"tcp://127.0.0.1:{port}", allow_private=True)
        feed = await spawner.start(FeedOptions(source=source))
        events = feed.events()
        assert isinstance(await anext(events), FeedTrack)
        segment = await anext(events)
        assert isinstance(segment, FeedSegment)
        assert segment.clean
        await feed.finish()  # no more is wanted: what there is, and then the end
        async with asyncio.timeout(20):
            rest = [event async for event in events]
        assert len(rest) < 6
    assert gone(feed.pid)


EVENTS: tuple[FeedEvent, ...] = (
    FeedWarning(code="keyframes", text="keyframe every 10 s: …"),
    FeedTrack(codecs="mp4a.40.2", target_duration_s=2),
    package(tags_of("flv")).tracks[0],
    package(tags_of("flv")).segments[0],
)


@pytest.mark.parametrize("event", EVENTS, ids=["warning", "sound", "track", "segment"])
def test_events_survive_the_pipe(event: FeedEvent) -> None:
    head, body = frames.pack(event)
    kind, meta, size = frames.sizes(head[: frames.HEAD.size])
    assert (len(head) - frames.HEAD.size, len(body)) == (meta, size)
    assert frames.unpack(kind, head[frames.HEAD.size :], body) == event


@pytest.mark.parametrize(
    "meta", [b"", b"{", b"[]", b"{}", b"null", b'{"codecs":1,"frame_rate":[1,0]}']
)
def test_damaged_answers_are_a_failure_of_the_feed(meta: bytes) -> None:
    for kind in (frames.TRACK, frames.SEGMENT, frames.WARNING):
        with pytest.raises(FeedFailed):
            frames.unpack(kind, meta, b"")
    with pytest.raises(FeedFailed):
        frames.text_of(meta)
    with pytest.raises(FeedFailed):
        frames.bytes_read(meta)


@pytest.mark.parametrize("head", [(0, 0, 0), (9, 0, 0), (1, 1 << 20, 0), (2, 0, 1 << 30)])
def test_answers_of_absurd_size_are_a_failure_of_the_feed(head: tuple[int, int, int]) -> None:
    with pytest.raises(FeedFailed):
        frames.sizes(frames.HEAD.pack(*head))
