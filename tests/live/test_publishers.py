"""The rules of publishing: keys, takeovers, ends of broadcasts, without media or sockets."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest

from tests.fakes import FakeFeed, FakeSpawner
from tests.support.broadcasts import SECOND, create
from xbyte_live.catalog.catalog import Catalog
from xbyte_live.catalog.streams import EndedBroadcast, Streams
from xbyte_live.errors import FeedFailed, PublishRefused
from xbyte_live.live.feed import FeedPolicy
from xbyte_live.live.publishers import Publishers, PublishPolicy
from xbyte_live.live.rtmp.events import PublishRequest
from xbyte_live.live.webhooks import Webhooks
from xbyte_live.media.live.messages import FeedOptions, FeedSegment, FeedTrack
from xbyte_live.models import Listing, Stream
from xbyte_live.storage.blobs.disk import DiskStore
from xbyte_live.storage.db.engine import Database

MOST = 3  # wrong keys
WINDOW = 0.05  # seconds
WRONG = "xb_" + "0" * 40
TRACK = FeedTrack(codecs="avc1.64001f", frame_rate=Fraction(30), target_duration_s=2)


@dataclass(slots=True)
class Clock:
    """A wall clock that somebody sets."""

    now: float = 1_760_000_000.0

    def __call__(self) -> float:
        return self.now


class WatchedStreams(Streams):
    """Says when a segment was listed, and when it was looked for broadcasts that are over."""

    def __init__(self, database: Database, catalog: Catalog, clock: Clock) -> None:
        super().__init__(database, catalog, clock=clock)
        self.listed: asyncio.Queue[int] = asyncio.Queue()
        self.looked: asyncio.Queue[list[EndedBroadcast]] = asyncio.Queue()

    async def append(self, slug: str, listing: Listing) -> bool:
        done = await super().append(slug, listing)
        self.listed.put_nowait(listing.segment.msn)
        return done

    async def end_overdue(
        self, republish_window: float, *, but_not: Collection[str] = ()
    ) -> list[EndedBroadcast]:
        ended = await super().end_overdue(republish_window, but_not=but_not)
        self.looked.put_nowait(ended)
        return ended


class SlowStore(DiskStore):
    """Takes what is put into it while ``gate`` is set."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.gate, self.waiting = asyncio.Event(), asyncio.Event()
        self.gate.set()

    async def put(self, key: str, data: bytes) -> None:
        if not self.gate.is_set():
            self.waiting.set()
        await self.gate.wait()
        await super().put(key, data)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalog(database: Database) -> Catalog:
    return Catalog(database)


@pytest.fixture
def streams(database: Database, catalog: Catalog, clock: Clock) -> WatchedStreams:
    return WatchedStreams(database, catalog, clock)


@pytest.fixture
def store(tmp_path: Path) -> SlowStore:
    return SlowStore(tmp_path / "store")


@pytest.fixture
def feeds() -> list[FakeFeed]:
    return [FakeFeed() for _ in range(3)]


@pytest.fixture
def spawner(feeds: list[FakeFeed]) -> FakeSpawner:
    return FakeSpawner(*feeds)


@pytest.fixture
async def publishers(
    spawner: FakeSpawner, streams: WatchedStreams, store: SlowStore, clock: Clock
) -> AsyncIterator[Publishers]:
    webhooks = Webhooks([], "")
    yield Publishers(
        spawner=spawner,
        streams=streams,
        store=store,
        webhooks=webhooks,
        policy=PublishPolicy(
            feed=FeedPolicy(options=FeedOptions(), restarts=0),
            take_over=True,
            republish_window=WINDOW,
            failures=MOST,
        ),
        clock=clock,
    )
    await webhooks.close()


def asks(key: str, address: str = "192.0.2.1") -> PublishRequest:
    return PublishRequest("live", key, "", "", "", address)


def a_segment(text: str) -> FeedSegment:
    data = text.encode() * 100
    return FeedSegment(
        data=data,
        sha256=hashlib.sha256(data).hexdigest(),
        duration_us=2 * SECOND,
        program_date_time_us=1_760_000_000 * SECOND,
        discontinuity=False,
        clean=True,
        keyframe_interval_us=2 * SECOND,
        late=0,
        dropped=0,
    )


# Wrong keys


async def refusal(publishers: Publishers, request: PublishRequest) -> str:
    with pytest.raises(PublishRefused) as refused:
        await publishers.publish(request)
    return str(refused.value)


async def test_a_right_key_is_taken_whoever_else_there_tries_wrong_ones(
    publishers: Publishers,
    streams: WatchedStreams,
    feeds: list[FakeFeed],
    caplog: pytest.LogCaptureFixture,
) -> None:
    key = await create(streams)
    with caplog.at_level(logging.WARNING, "xbyte_live.live.publishers"):
        for _ in range(MOST):
            assert "no valid stream key" in await refusal(publishers, asks(WRONG))
        for _ in range(2 * MOST):
            assert "too many wrong stream keys" in await refusal(publishers, asks(WRONG))
    assert len(caplog.records) == MOST
    feed = await publishers.publish(asks(key))
    feeds[0].put(None)
    await feed.close(unpublished=True)


async def test_wrong_keys_are_counted_by_network_whatever_the_clock_is_set_to(
    publishers: Publishers, streams: WatchedStreams, clock: Clock
) -> None:
    await create(streams)
    for number in range(MOST):
        clock.now += 3600
        assert "no valid" in await refusal(publishers, asks(WRONG, f"2001:db8::{number}"))
    clock.now += 3600
    assert "too many" in await refusal(publishers, asks(WRONG, "2001:db8::ffff:1"))
    assert "no valid" in await refusal(publishers, asks(WRONG, "2001:db8:0:1::1"))


# Ends of broadcasts


@asynccontextmanager
async def running(publishers: Publishers) -> AsyncIterator[None]:
    task = asyncio.create_task(publishers.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def looked_twice(streams: WatchedStreams) -> list[EndedBroadcast]:
    """What was ended by a look that began after this."""
    return [*await streams.looked.get(), *await streams.looked.get()]


async def state(catalog: Catalog) -> tuple[str, int]:
    """Of the stream, and how many segments it lists."""
    await catalog.renew("concert")
    item = await catalog.item("concert")
    assert isinstance(item, Stream)
    return item.state, len(item.renditions[0].segments)


async def on_air(publishers: Publishers, streams: WatchedStreams, feed: FakeFeed) -> None:
    """A broadcast with one segment listed."""
    await create(streams)
    await publishers.begin("concert", None)
    feed.put(TRACK, a_segment("first"))
    assert await streams.listed.get() == 0


@pytest.mark.parametrize("taken_over", [False, True])
async def test_a_broadcast_is_on_while_its_last_segment_is_stored(
    publishers: Publishers,
    streams: WatchedStreams,
    catalog: Catalog,
    store: SlowStore,
    feeds: list[FakeFeed],
    clock: Clock,
    taken_over: bool,
) -> None:
    await on_air(publishers, streams, feeds[0])
    store.gate.clear()
    feeds[0].put(a_segment("last"), None)
    await store.waiting.wait()
    [feed] = publishers._feeds.values()
    closing = asyncio.create_task(
        publishers.begin("concert", None) if taken_over else feed.close(unpublished=True)
    )
    clock.now += 3600
    async with running(publishers):
        assert await looked_twice(streams) == []
    store.gate.set()
    await closing
    assert await state(catalog) == ("waiting", 2)
    feeds[1].put(None)
    await publishers.stop()
    clock.now += 3600
    async with running(publishers):
        assert [ended.slug for ended in await looked_twice(streams)] == ["concert"]


async def test_a_broadcast_is_on_while_its_next_feed_starts(
    publishers: Publishers,
    streams: WatchedStreams,
    catalog: Catalog,
    spawner: FakeSpawner,
    feeds: list[FakeFeed],
    clock: Clock,
) -> None:
    await on_air(publishers, streams, feeds[0])
    feeds[0].put(None)
    await publishers.stop()
    spawner.gate.clear()
    spawner.begun.clear()
    beginning = asyncio.create_task(publishers.begin("concert", None))
    await spawner.begun.wait()
    clock.now += 3600
    async with running(publishers):
        assert await looked_twice(streams) == []
    spawner.gate.set()
    await beginning
    feeds[1].put(TRACK, a_segment("second"), None)
    assert await streams.listed.get() == 1
    await publishers.stop()
    assert await state(catalog) == ("waiting", 2)


async def test_a_feed_that_cannot_start_keeps_no_broadcast_on(
    publishers: Publishers,
    streams: WatchedStreams,
    spawner: FakeSpawner,
    feeds: list[FakeFeed],
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(options: FeedOptions) -> None:
        raise FeedFailed("no process can be started for it")

    await on_air(publishers, streams, feeds[0])
    feeds[0].put(None)
    monkeypatch.setattr(spawner, "start", fail)
    with pytest.raises(PublishRefused, match="cannot take streams"):
        await publishers.begin("concert", None)
    clock.now += 3600
    async with running(publishers):
        assert [ended.slug for ended in await looked_twice(streams)] == ["concert"]
