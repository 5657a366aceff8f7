from pathlib import Path

import pytest

from tests.support.broadcasts import SECOND, create, data_of, list_segments
from tests.support.items import Clock, add_title
from xbyte_live.catalog.catalog import Catalog
from xbyte_live.catalog.cleanup import clean_up
from xbyte_live.catalog.recordings import Recordings
from xbyte_live.catalog.streams import EndedBroadcast, Streams
from xbyte_live.models import Title, segment_key
from xbyte_live.storage.blobs.disk import DiskStore
from xbyte_live.storage.db.engine import Database

LONG = 10_000.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalog(database: Database, clock: Clock) -> Catalog:
    return Catalog(database, clock=clock, refresh=0)


@pytest.fixture
def streams(database: Database, catalog: Catalog, clock: Clock) -> Streams:
    return Streams(database, catalog, clock=clock)


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path / "store")


async def broadcast(
    streams: Streams, store: DiskStore, clock: Clock, count: int = 12, slug: str = "concert"
) -> EndedBroadcast:
    """A whole broadcast, from its first segment to its end."""
    lease = await streams.begin_feed(slug, None)
    await list_segments(streams, lease, count, store)
    await streams.release(lease, "{}")
    clock.now += 120
    [ended] = await streams.end_overdue(120)
    return ended


async def recording_of(catalog: Catalog, ended: EndedBroadcast) -> Title:
    assert ended.recording is not None
    title = await catalog.item(ended.recording)
    assert isinstance(title, Title)
    return title


def key(slug: str, msn: int) -> str:
    return segment_key(slug, "source", msn)


async def test_a_recorded_broadcast_becomes_a_title_of_the_same_bytes(
    streams: Streams, catalog: Catalog, store: DiskStore, clock: Clock
) -> None:
    await create(streams, recording=True, window_us=6 * SECOND)
    before = await catalog.item("concert")
    assert before is not None
    ended = await broadcast(streams, store, clock)
    assert ended == EndedBroadcast("concert", 1, 24 * SECOND, "concert-20251009-085320")
    title = await recording_of(catalog, ended)
    assert (title.recorded_from, title.duration_us) == ("concert", 24 * SECOND)
    assert title.name == "Concert, 2025-10-09 08:53 UTC"
    [part] = title.renditions
    assert [s.msn for s in part.segments] == list(range(12))
    assert [s.start_us for s in part.segments] == [n * 2 * SECOND for n in range(12)]
    assert {s.stored_under for s in part.segments} == {"concert"}
    assert {s.offer for s in part.segments} == {None}
    assert [o.price for o in title.offers] == [before.offers[0].price]
    for msn in range(12):
        assert await store.read(key("concert", msn)) == data_of("concert", msn)


async def test_bytes_of_a_recording_outlive_the_stream_and_go_with_the_title(
    streams: Streams, catalog: Catalog, store: DiskStore, clock: Clock
) -> None:
    await create(streams, recording=True, window_us=6 * SECOND)
    title = await recording_of(catalog, await broadcast(streams, store, clock))
    clock.now += LONG
    await clean_up(catalog, store)
    assert len(await store.keys("concert/")) == 12
    await catalog.remove("concert")
    clock.now += LONG
    await clean_up(catalog, store)
    assert len(await store.keys("concert/")) == 12
    await catalog.remove(title.slug)
    await clean_up(catalog, store)
    assert len(await store.keys("concert/")) == 12  # who paid may come back for a while
    assert await catalog.retired_segment(title.slug, "source", 3) is not None
    clock.now += LONG
    await clean_up(catalog, store)
    assert await store.keys("") == []


async def test_the_title_may_go_first(
    streams: Streams, catalog: Catalog, store: DiskStore, clock: Clock
) -> None:
    await create(streams, recording=True, window_us=6 * SECOND)
    title = await recording_of(catalog, await broadcast(streams, store, clock))
    await catalog.remove(title.slug)
    clock.now += LONG
    await clean_up(catalog, store)
    assert await store.keys("") == [key("concert", msn) for msn in (10, 11, 9)]  # still listed


async def test_while_it_is_recorded_nothing_is_deleted(
    streams: Streams, catalog: Catalog, store: DiskStore, clock: Clock
) -> None:
    await create(streams, recording=True, window_us=6 * SECOND)
    lease = await streams.begin_feed("concert", None)
    await list_segments(streams, lease, 12, store)
    clock.now += LONG
    await streams.renew(lease, "{}")
    await clean_up(catalog, store)
    assert len(await store.keys("")) == 12


async def test_what_is_not_recorded_goes_once_it_left_the_window(
    streams: Streams, catalog: Catalog, store: DiskStore, clock: Clock
) -> None:
    await create(streams, window_us=6 * SECOND)
    lease = await streams.begin_feed("concert", None)
    await list_segments(streams, lease, 12, store)
    await clean_up(catalog, store)
    assert len(await store.keys("")) == 12
    clock.now += LONG
    await clean_up(catalog, store)
    assert sorted(await store.keys("")) == [key("concert", msn) for msn in (10, 11, 9)]


async def test_each_broadcast_has_its_own_title(
    streams: Streams, catalog: Catalog, store: DiskStore, clock: Clock
) -> None:
    await create(streams, recording=True)
    first = await recording_of(catalog, await broadcast(streams, store, clock, 3))
    second = await recording_of(catalog, await broadcast(streams, store, clock, 4))
    assert [s.msn for s in first.renditions[0].segments] == [0, 1, 2]
    assert [s.msn for s in second.renditions[0].segments] == [3, 4, 5, 6]
    assert second.renditions[0].segments[0].discontinuity is False
    clock.now += LONG
    await clean_up(catalog, store)
    assert len(await store.keys("")) == 7


async def test_a_taken_name_gets_a_number(
    streams: Streams, catalog: Catalog, store: DiskStore, clock: Clock
) -> None:
    await add_title(catalog, "concert-20251009-085320")
    await create(streams, recording=True)
    ended = await broadcast(streams, store, clock, 3)
    assert ended.recording == "concert-20251009-085320-2"


async def test_a_long_slug_still_makes_a_slug(
    streams: Streams, catalog: Catalog, store: DiskStore, clock: Clock
) -> None:
    slug = "a" * 47 + "-" + "b" * 16
    await create(streams, slug, recording=True)
    ended = await broadcast(streams, store, clock, 3, slug)
    assert ended.recording == "a" * 47 + "-20251009-085320"
    await recording_of(catalog, ended)


async def test_the_oldest_go_by_age_and_by_room(
    database: Database, streams: Streams, catalog: Catalog, store: DiskStore, clock: Clock
) -> None:
    await create(streams, recording=True)
    kept = []
    for _ in range(4):
        kept.append(await recording_of(catalog, await broadcast(streams, store, clock, 3)))
        clock.now += 1000
    await add_title(catalog, "plasma")  # no recording, so nothing is done to it
    sizes = [sum(s.size for s in title.renditions[0].segments) for title in kept]

    def retention(max_age: float, max_bytes: int) -> Recordings:
        return Recordings(database, catalog, max_age=max_age, max_bytes=max_bytes, clock=clock)

    assert await retention(0, 0).retain() == []
    assert await retention(0, sum(sizes)).retain() == []
    assert await retention(0, sum(sizes) - 1).retain() == [kept[0].slug]
    assert await retention(2500, 0).retain() == [kept[1].slug]
    assert await retention(0, 1).retain() == [kept[2].slug, kept[3].slug]
    assert await catalog.item("plasma") is not None
    assert await catalog.item("concert") is not None


async def test_removing_a_stream_keeps_what_was_recorded_of_it(
    streams: Streams, catalog: Catalog, store: DiskStore, clock: Clock
) -> None:
    await create(streams, recording=True, window_us=6 * SECOND)
    lease = await streams.begin_feed("concert", None)
    await list_segments(streams, lease, 8, store)
    await catalog.remove("concert")
    [title] = [item for item in await catalog.items() if isinstance(item, Title)]
    clock.now += LONG
    await clean_up(catalog, store)
    assert len(await store.keys("concert/")) == 8
    whole = await catalog.item(title.slug)
    assert isinstance(whole, Title)
    assert [s.msn for s in whole.renditions[0].segments] == list(range(8))
