import asyncio

import pytest

from tests.support.broadcasts import SECOND, a_listing, create, list_segments
from tests.support.items import Clock, add_title
from xbyte_live.catalog.catalog import Catalog
from xbyte_live.catalog.streams import KEY_PREFIX, EndedBroadcast, KeyMatch, Streams
from xbyte_live.errors import ItemError, ItemExists, ItemNotFound
from xbyte_live.models import Item, Rendition, Stream
from xbyte_live.money import Price
from xbyte_live.storage.db.engine import Database


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalog(database: Database, clock: Clock) -> Catalog:
    return Catalog(database, clock=clock, refresh=0.05)


@pytest.fixture
def streams(database: Database, catalog: Catalog, clock: Clock) -> Streams:
    return Streams(database, catalog, clock=clock)


def stream_of(item: Item | None) -> Stream:
    assert isinstance(item, Stream)
    return item


async def listed(catalog: Catalog, slug: str = "concert") -> Rendition:
    rendition = stream_of(await catalog.item(slug)).rendition("source")
    assert rendition is not None
    return rendition


def msns(rendition: Rendition) -> list[int]:
    return [segment.msn for segment in rendition.segments]


# Streams and keys


async def test_a_new_stream_is_idle_and_opens_with_its_key(
    streams: Streams, catalog: Catalog
) -> None:
    key = await create(streams, recording=True, window_us=30 * SECOND)
    stream = stream_of(await catalog.item("concert"))
    assert (stream.state, stream.renditions, stream.ended) == ("idle", (), True)
    assert (stream.recording, stream.window_us, stream.name) == (True, 30 * SECOND, "Concert")
    assert key.startswith(KEY_PREFIX) and len(key) == len(KEY_PREFIX) + 40
    [kept] = await streams.keys("concert")
    assert await streams.match_key(key) == KeyMatch(kept.id, "concert")
    assert key.endswith(kept.hint) and kept.used_at is None


async def test_a_key_itself_is_stored_nowhere(streams: Streams, database: Database) -> None:
    key = await create(streams)
    rows = await database.read(
        lambda db: [
            str(row)
            for table in ("items", "streams", "stream_keys")
            for row in db.exec_driver_sql(f"SELECT * FROM {table}")
        ]
    )
    assert rows and not any(key in row for row in rows)


@pytest.mark.parametrize("wrong", ["", "concert", "xb_", "xb_" + "0" * 40, "x" * 10_000])
async def test_nothing_else_opens_a_stream(streams: Streams, wrong: str) -> None:
    await create(streams)
    assert await streams.match_key(wrong) is None


async def test_a_slug_is_taken_once(streams: Streams, catalog: Catalog) -> None:
    await add_title(catalog, "concert")
    with pytest.raises(ItemExists):
        await create(streams)
    await catalog.remove("concert")
    await create(streams)
    with pytest.raises(ItemExists):
        await create(streams)
    with pytest.raises(ItemExists):
        await catalog.begin_import("concert", replace=False)


async def test_a_title_replaces_a_stream_once_it_is_removed(
    streams: Streams, catalog: Catalog
) -> None:
    key = await create(streams)
    lease = await streams.begin_feed("concert", None)
    await list_segments(streams, lease, 3)
    with pytest.raises(ItemExists, match="is a stream"):
        await catalog.begin_import("concert", replace=True)
    await catalog.remove("concert")
    title = await add_title(catalog, "concert")
    assert title.renditions[0].segments[0].msn == 4  # 3 may be stored by the feed that was cut
    assert await streams.match_key(key) is None
    assert not await streams.append("concert", a_listing(lease, 8))
    with pytest.raises(ItemError, match="is no stream"):
        await streams.add_key("concert")


async def test_keys_expire_and_are_revoked_one_by_one(streams: Streams, clock: Clock) -> None:
    first = await create(streams)
    second = await streams.add_key("concert", lasts=60)
    assert await streams.match_key(second) is not None
    clock.now += 60
    assert await streams.match_key(second) is None
    [kept, _] = await streams.keys("concert")
    assert await streams.revoke("concert", [kept.id, 999]) == [kept.id]
    assert await streams.match_key(first) is None
    with pytest.raises(ItemNotFound):
        await streams.keys("nothing")


async def test_rotating_revokes_every_key_and_cuts_who_is_on_air(streams: Streams) -> None:
    old = [await create(streams), await streams.add_key("concert")]
    match = await streams.match_key(old[0])
    assert match is not None
    lease = await streams.begin_feed("concert", match.key_id)
    assert await streams.renew(lease, "{}")
    new = await streams.rotate("concert")
    assert [await streams.match_key(key) for key in old] == [None, None]
    assert await streams.match_key(new) is not None
    assert not await streams.renew(lease, "{}")
    assert not await streams.append("concert", a_listing(lease, 0))


async def test_keys_know_when_they_were_used(streams: Streams, clock: Clock) -> None:
    await create(streams)
    [key] = await streams.keys("concert")
    await streams.begin_feed("concert", key.id)
    assert (await streams.keys("concert"))[0].used_at == clock.now


# Broadcasts


async def test_the_first_segment_begins_a_broadcast(
    streams: Streams, catalog: Catalog, clock: Clock
) -> None:
    await create(streams)
    lease = await streams.begin_feed("concert", None)
    assert (lease.resumed, lease.next_msn, lease.target_duration_s) == (False, 0, 0)
    assert stream_of(await catalog.item("concert")).state == "idle"
    await list_segments(streams, lease, 2)
    stream = stream_of(await catalog.item("concert"))
    assert (stream.state, stream.broadcast, stream.started_at) == ("on_air", 1, clock.now)
    [first, second] = stream.renditions[0].segments
    assert (first.start_us, second.start_us) == (0, 2 * SECOND)
    assert first.offer is not None and first.offer.price == Price(1000)
    assert stream.status == '{"segments": 1}'


async def test_the_same_segment_again_is_listed_once(streams: Streams, catalog: Catalog) -> None:
    await create(streams)
    lease = await streams.begin_feed("concert", None)
    assert await streams.append("concert", a_listing(lease, 0))
    assert await streams.append("concert", a_listing(lease, 0))
    assert not await streams.append("concert", a_listing(lease, 7))
    assert msns(await listed(catalog)) == [0]


async def test_each_segment_keeps_the_price_it_was_listed_at(
    streams: Streams, catalog: Catalog, clock: Clock
) -> None:
    await create(streams)
    lease = await streams.begin_feed("concert", None)
    for msn in range(3):
        await streams.append("concert", a_listing(lease, msn))
        clock.now += 2
        await catalog.set_terms("concert", price=Price(2000 + msn), pay_to=None)
    prices = [s.offer.price.per_mib for s in (await listed(catalog)).segments if s.offer]
    assert prices == [1000, 2000, 2001]
    fresh = Catalog(catalog._database, clock=clock)
    again = [s.offer.price.per_mib for s in (await listed(fresh)).segments if s.offer]
    assert again == prices


async def test_more_price_changes_than_are_read_lose_no_price(
    streams: Streams, catalog: Catalog, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xbyte_live.catalog.sql.items._OFFERS_READ", 2)
    await test_each_segment_keeps_the_price_it_was_listed_at(streams, catalog, clock)


async def test_the_window_slides_and_counts_the_discontinuities_it_leaves(
    streams: Streams, catalog: Catalog, clock: Clock
) -> None:
    await create(streams, window_us=10 * SECOND)
    lease = await streams.begin_feed("concert", None)
    for msn in range(12):
        cut = msn in (2, 4, 11)
        await streams.append("concert", a_listing(lease, msn, discontinuity=cut))
        rendition = await listed(catalog)
        assert sum(s.duration_us for s in rendition.segments) <= 10 * SECOND
        gone = [n for n in (2, 4, 11) if n < rendition.segments[0].msn]
        assert rendition.discontinuity_sequence == len(gone)
    assert msns(rendition) == [7, 8, 9, 10, 11]
    retired = await catalog.retired_segment("concert", "source", 6)
    assert retired is not None and retired.offer is not None
    clock.now += 300 + 9  # the grace, and the window's own length
    assert await catalog.retired_segment("concert", "source", 6) is not None
    clock.now += 1
    assert await catalog.retired_segment("concert", "source", 6) is None


async def test_a_short_window_still_lists_three_segments(
    streams: Streams, catalog: Catalog
) -> None:
    await create(streams, window_us=6 * SECOND)
    lease = await streams.begin_feed("concert", None)
    for msn in range(4):
        await streams.append("concert", a_listing(lease, msn, duration_us=8 * SECOND))
    assert msns(await listed(catalog)) == [1, 2, 3]


async def test_an_event_keeps_everything(streams: Streams, catalog: Catalog) -> None:
    await create(streams, playlist="event", window_us=6 * SECOND)
    await list_segments(streams, await streams.begin_feed("concert", None), 30)
    assert msns(await listed(catalog)) == list(range(30))


async def test_another_process_sees_what_is_listed_and_what_left(
    database: Database, streams: Streams, catalog: Catalog, clock: Clock
) -> None:
    other = Catalog(database, clock=clock, refresh=0)
    await create(streams, window_us=10 * SECOND)
    lease = await streams.begin_feed("concert", None)
    for msn in range(15):
        await streams.append("concert", a_listing(lease, msn))
        assert (await listed(other)).segments == (await listed(catalog)).segments
        clock.now += 1


async def test_a_reconnect_goes_on_where_the_broadcast_stood(
    streams: Streams, catalog: Catalog, clock: Clock
) -> None:
    await create(streams)
    first = await streams.begin_feed("concert", None)
    await list_segments(streams, first, 3)
    await streams.release(first, "{}")
    assert stream_of(await catalog.item("concert")).state == "waiting"
    clock.now += 119
    assert await streams.end_overdue(120) == []
    second = await streams.begin_feed("concert", None)
    assert (second.resumed, second.next_msn) == (True, 3)
    assert second.target_duration_s == 2
    assert second.not_before_us == (1_760_000_000 + 6) * SECOND
    clock.now += 60
    assert await streams.end_overdue(120) == []
    await streams.append("concert", a_listing(second, 3, discontinuity=True))
    stream = stream_of(await catalog.item("concert"))
    assert (stream.state, stream.broadcast, msns(stream.renditions[0])) == (
        *("on_air", 1),
        [0, 1, 2, 3],
    )
    assert stream.renditions[0].segments[3].start_us == 6 * SECOND


async def test_a_broadcast_nobody_comes_back_to_ends_and_the_next_has_new_numbers(
    streams: Streams, catalog: Catalog, clock: Clock
) -> None:
    await create(streams)
    lease = await streams.begin_feed("concert", None)
    await list_segments(streams, lease, 3)
    await streams.release(lease, "{}")
    clock.now += 120
    assert await streams.end_overdue(120) == [EndedBroadcast("concert", 1, 6 * SECOND, None)]
    assert await streams.end_overdue(120) == []
    stream = stream_of(await catalog.item("concert"))
    assert (stream.state, stream.ended, msns(stream.renditions[0])) == ("ended", True, [0, 1, 2])
    again = await streams.begin_feed("concert", None)
    assert (again.resumed, again.next_msn) == (False, 3)
    assert stream_of(await catalog.item("concert")).ended  # until a segment is there
    await streams.append("concert", a_listing(again, 3, discontinuity=True, codecs="mp4a.40.2"))
    stream = stream_of(await catalog.item("concert"))
    assert (stream.state, stream.broadcast, stream.ended) == ("on_air", 2, False)
    [rendition] = stream.renditions
    assert (msns(rendition), rendition.codecs) == ([3], "mp4a.40.2")
    assert rendition.segments[0].start_us == 0


async def test_a_feed_that_never_listed_anything_ends_nothing(
    streams: Streams, catalog: Catalog, clock: Clock
) -> None:
    await create(streams)
    lease = await streams.begin_feed("concert", None)
    await streams.release(lease, "{}")
    clock.now += 1000
    assert await streams.end_overdue(120) == []
    assert stream_of(await catalog.item("concert")).state == "idle"


async def test_after_a_restart_broadcasts_get_their_whole_time(
    streams: Streams, catalog: Catalog, clock: Clock
) -> None:
    await create(streams)
    lease = await streams.begin_feed("concert", None)
    await list_segments(streams, lease, 2)
    clock.now += 599  # the server was down
    await streams.resume_all()
    assert await streams.end_overdue(120) == []
    assert not await streams.append("concert", a_listing(lease, 2))  # that feed is history
    again = await streams.begin_feed("concert", None)
    assert again.resumed and again.next_msn == 2


async def test_a_broadcast_of_yesterday_is_over(
    streams: Streams, catalog: Catalog, clock: Clock
) -> None:
    await create(streams)
    await list_segments(streams, await streams.begin_feed("concert", None), 2)
    clock.now += 86_400
    await streams.resume_all()
    assert await streams.end_overdue(120) == [EndedBroadcast("concert", 1, 4 * SECOND, None)]


async def test_the_newest_feed_has_the_stream(streams: Streams) -> None:
    await create(streams)
    first = await streams.begin_feed("concert", None)
    second = await streams.begin_feed("concert", None)
    assert not await streams.append("concert", a_listing(first, 0))
    assert not await streams.renew(first, "{}")
    assert await streams.append("concert", a_listing(second, 0))
    await streams.release(first, "late")  # says nothing about the second
    assert await streams.renew(second, "{}")


async def test_removing_a_stream_ends_its_feed_and_keys(streams: Streams, catalog: Catalog) -> None:
    key = await create(streams)
    lease = await streams.begin_feed("concert", None)
    await list_segments(streams, lease, 2)
    await catalog.remove("concert")
    assert not await streams.append("concert", a_listing(lease, 2))
    assert not await streams.renew(lease, "{}")
    assert await streams.match_key(key) is None
    assert await catalog.removed_item("concert") is not None
    assert await catalog.retired_segment("concert", "source", 1) is not None
    await create(streams)
    again = await streams.begin_feed("concert", None)
    assert (again.next_msn, again.resumed) == (3, False)


async def test_figures_of_a_broadcast_only_grow(streams: Streams, catalog: Catalog) -> None:
    await create(streams)
    lease = await streams.begin_feed("concert", None)
    await streams.append("concert", a_listing(lease, 0))
    await streams.append("concert", a_listing(lease, 1, independent_segments=False))
    await streams.append("concert", a_listing(lease, 2, target_duration_s=1))
    rendition = await listed(catalog)
    assert (rendition.independent_segments, rendition.target_duration_s) == (False, 2)


# Waiting for news


async def test_who_waits_is_woken_by_the_next_segment(streams: Streams, catalog: Catalog) -> None:
    await create(streams)
    lease = await streams.begin_feed("concert", None)
    await list_segments(streams, lease, 1)
    known = await catalog.item("concert")
    assert known is not None
    waiting = [asyncio.create_task(catalog.changed("concert", known)) for _ in range(100)]
    await asyncio.sleep(0)
    await streams.append("concert", a_listing(lease, 1))
    async with asyncio.timeout(5):
        found = await asyncio.gather(*waiting)
    assert {id(item) for item in found} == {id(await catalog.item("concert"))}
    assert found[0] is not known


async def test_what_another_process_lists_wakes_too(
    database: Database, streams: Streams, catalog: Catalog, clock: Clock
) -> None:
    await create(streams)
    known = await catalog.item("concert")
    assert known is not None
    waiting = asyncio.create_task(catalog.changed("concert", known))
    elsewhere = Streams(database, Catalog(database, clock=clock), clock=clock)
    lease = await elsewhere.begin_feed("concert", None)
    await list_segments(elsewhere, lease, 1)
    clock.now += 1  # what is known grows old
    async with asyncio.timeout(5):
        item = await waiting
    assert stream_of(item).state == "on_air"


async def test_nobody_looks_when_nobody_waits(streams: Streams, catalog: Catalog) -> None:
    await create(streams)
    known = await catalog.item("concert")
    assert known is not None
    waiting = asyncio.create_task(catalog.changed("concert", known))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    cache = catalog._cache
    async with asyncio.timeout(5):
        while cache._watching:
            await asyncio.gather(*cache._watching.values())
    assert not cache._waiting
