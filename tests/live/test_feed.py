"""A feed when the store, the database or its child fails: doubtful segments and counts."""

import hashlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from tests.fakes import FakeFeed, FakeSpawner
from tests.support.broadcasts import SECOND, create
from xbyte_live.catalog.catalog import Catalog
from xbyte_live.catalog.streams import Streams
from xbyte_live.errors import DatabaseUnavailable, FeedFailed, PublishRefused
from xbyte_live.live.feed import Feed, FeedPolicy
from xbyte_live.media.live.messages import FeedOptions, FeedSegment, FeedTrack
from xbyte_live.media.live.spawner import FeedSpawner
from xbyte_live.models import FeedLease, Listing, Segment, Stream
from xbyte_live.storage.blobs.disk import DiskStore
from xbyte_live.storage.db.engine import Database


class ForgetfulStreams(Streams):
    """Its database takes everything, and for a while says so to nobody."""

    silent = False

    async def append(self, slug: str, listing: Listing) -> bool:
        listed = await super().append(slug, listing)
        if self.silent:
            raise DatabaseUnavailable("the database does not answer; try again shortly")
        return listed


@pytest.fixture
def catalog(database: Database) -> Catalog:
    return Catalog(database)


@pytest.fixture
def streams(database: Database, catalog: Catalog) -> ForgetfulStreams:
    return ForgetfulStreams(database, catalog)


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path / "store")


@pytest.fixture
async def feed(
    streams: ForgetfulStreams, store: DiskStore, monkeypatch: pytest.MonkeyPatch
) -> Feed:
    monkeypatch.setattr("xbyte_live.live.feed._RETRY_FOR", 0.0)
    await create(streams)
    feed = Feed(
        await streams.begin_feed("concert", None),
        policy=FeedPolicy(options=FeedOptions(), restarts=0),
        spawner=FeedSpawner(),
        streams=streams,
        store=store,
        started=started.append,
    )
    await feed._take(TRACK)
    started.clear()
    return feed


TRACK = FeedTrack(codecs="avc1.64001f", frame_rate=Fraction(30), target_duration_s=2)
started: list[FeedLease] = []


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


async def listed(catalog: Catalog, store: DiskStore) -> list[bytes]:
    """The bytes behind each line of the playlist, which must be those that were listed."""
    await catalog.renew("concert")
    item = await catalog.item("concert")
    assert isinstance(item, Stream)
    found = []
    for segment in item.renditions[0].segments:
        data = await store.read(f"concert/source/{segment.msn}.ts")
        assert_same(segment, data)
        found.append(data[:5])
    return found


def assert_same(segment: Segment, data: bytes) -> None:
    assert (len(data), hashlib.sha256(data).hexdigest()) == (segment.size, segment.sha256)


async def test_what_may_be_listed_is_never_overwritten(
    feed: Feed, streams: ForgetfulStreams, catalog: Catalog, store: DiskStore
) -> None:
    await feed._take(a_segment("first"))
    streams.silent = True
    await feed._take(a_segment("doubt"))
    await feed._take(a_segment("lost!"))
    assert await listed(catalog, store) == [b"first", b"doubt"]
    streams.silent = False
    await feed._take(a_segment("after"))
    assert await listed(catalog, store) == [b"first", b"doubt", b"after"]
    assert (feed.stats.segments, feed.stats.lost) == (3, 1)
    assert len(started) == 1


async def test_a_segment_that_was_lost_leaves_a_discontinuity(
    feed: Feed, streams: ForgetfulStreams, catalog: Catalog
) -> None:
    await feed._take(a_segment("first"))
    streams.silent = True
    await feed._take(a_segment("doubt"))
    await feed._take(a_segment("lost!"))
    streams.silent = False
    await feed._take(a_segment("after"))
    item = await catalog.item("concert")
    assert isinstance(item, Stream)
    assert [s.discontinuity for s in item.renditions[0].segments] == [False, False, True]


async def test_a_feed_that_lost_the_stream_stores_nothing_more(
    feed: Feed, streams: ForgetfulStreams, catalog: Catalog, store: DiskStore
) -> None:
    await feed._take(a_segment("first"))
    await streams.begin_feed("concert", None)
    with pytest.raises(PublishRefused):
        await feed._take(a_segment("other"))
    assert await listed(catalog, store) == [b"first"]


async def test_packets_are_counted_on_when_the_child_is_another(
    streams: ForgetfulStreams, store: DiskStore
) -> None:
    await create(streams)
    first, second = FakeFeed(), FakeFeed()
    feed = Feed(
        await streams.begin_feed("concert", None),
        policy=FeedPolicy(options=FeedOptions(), restarts=1),
        spawner=FakeSpawner(first, second),
        streams=streams,
        store=store,
        started=started.append,
    )
    counted = [
        replace(a_segment(f"segment {late}"), late=late, dropped=dropped)
        for late, dropped in ((2, 1), (5, 1), (0, 3), (4, 3))
    ]
    first.put(TRACK, *counted[:2], FeedFailed("it was killed"))
    second.put(TRACK, *counted[2:], None)
    await feed.start()
    await feed.ended()
    await feed.close(unpublished=True)
    assert feed.stats.restarts == 1
    assert (feed.stats.late, feed.stats.dropped) == (5 + 4, 1 + 3)
