import asyncio
from collections.abc import AsyncIterator

import httpx2
import m3u8
import pytest

from tests.support.broadcasts import SECOND, a_listing, create, list_segments
from tests.support.items import Clock
from tests.support.web import PAYEE, Site
from xbyte_live.catalog.catalog import Catalog
from xbyte_live.catalog.streams import Streams
from xbyte_live.config import Settings
from xbyte_live.models import FeedLease
from xbyte_live.money import Price
from xbyte_live.storage.db.engine import Database

URL = "/hls/concert/source/index.m3u8"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalog(database: Database, clock: Clock) -> Catalog:
    return Catalog(database, clock=clock, refresh=0.05)


@pytest.fixture
def streams(database: Database, catalog: Catalog, clock: Clock) -> Streams:
    return Streams(database, catalog, clock=clock)


@pytest.fixture
async def client(catalog: Catalog, clock: Clock) -> AsyncIterator[httpx2.AsyncClient]:
    site = Site(Settings(pay_to=PAYEE, waiting_readers=2), now=clock.now, catalog=catalog)
    async with site.client() as client:
        yield client


async def on_air(streams: Streams, count: int = 3, **changes: object) -> FeedLease:
    await create(streams, **changes)
    lease = await streams.begin_feed("concert", None)
    await list_segments(streams, lease, count)
    return lease


async def test_a_live_playlist_says_what_is_needed(
    streams: Streams, client: httpx2.AsyncClient
) -> None:
    lease = await on_air(streams)
    await streams.append("concert", a_listing(lease, 3, discontinuity=True))
    answer = await client.get(URL)
    assert answer.headers["cache-control"] == "public, max-age=1"
    assert answer.text.splitlines()[:8] == [
        "#EXTM3U",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-VERSION:3",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        "#EXT-X-TARGETDURATION:2",
        "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES",
        "#EXT-X-XBYTE-SEGMENT:BYTES=400,AMOUNT=1",
        "#EXT-X-PROGRAM-DATE-TIME:2025-10-09T08:53:20.000+00:00",
    ]
    playlist = m3u8.loads(answer.text)
    assert [s.uri for s in playlist.segments] == ["0.ts", "1.ts", "2.ts", "3.ts"]
    assert [s.discontinuity for s in playlist.segments] == [False, False, False, True]
    assert not playlist.is_endlist
    multivariant = await client.get("/hls/concert/index.m3u8")
    assert "source/index.m3u8" in multivariant.text


async def test_a_window_that_slid_says_how_far(
    streams: Streams, client: httpx2.AsyncClient
) -> None:
    lease = await on_air(streams, 1, window_us=6 * SECOND)
    for msn in range(1, 9):
        await streams.append("concert", a_listing(lease, msn, discontinuity=msn == 2))
    playlist = m3u8.loads((await client.get(URL)).text)
    assert (playlist.media_sequence, playlist.discontinuity_sequence) == (6, 1)
    assert [s.uri for s in playlist.segments] == ["6.ts", "7.ts", "8.ts"]


async def test_an_event_only_grows_and_an_end_is_an_end(
    streams: Streams, client: httpx2.AsyncClient, clock: Clock
) -> None:
    lease = await on_air(streams, 5, playlist="event")
    before = (await client.get(URL)).text
    assert "#EXT-X-PLAYLIST-TYPE:EVENT" in before
    await streams.append("concert", a_listing(lease, 5))
    after = (await client.get(URL)).text
    assert after.startswith(before)
    await streams.release(lease, "{}")
    assert (await client.get(URL)).text == after
    clock.now += 120
    await streams.end_overdue(120)
    assert (await client.get(URL)).text == after + "#EXT-X-ENDLIST\n"


async def test_lines_once_listed_never_change(
    streams: Streams, catalog: Catalog, client: httpx2.AsyncClient, clock: Clock
) -> None:
    lease = await on_air(streams, 3, price=10_000_000)
    before = (await client.get(URL)).text
    clock.now += 1
    await catalog.set_terms("concert", price=Price(90_000_000), pay_to=None)
    assert (await client.get(URL)).text == before
    await streams.append("concert", a_listing(lease, 3))
    amounts = [
        line.partition("AMOUNT=")[2]
        for line in (await client.get(URL)).text.splitlines()
        if "AMOUNT=" in line
    ]
    assert amounts == ["3815", "3815", "3815", "34333"]


@pytest.mark.parametrize("path", ["/hls/concert/index.m3u8", URL])
async def test_before_the_first_broadcast_there_is_nothing(
    streams: Streams, client: httpx2.AsyncClient, path: str
) -> None:
    await create(streams)
    answer = await client.get(path)
    assert answer.status_code == 404
    assert answer.json()["message"] == "this stream has not been on air yet"


# Blocking reload (RFC 8216bis 6.2.5.2)


async def test_what_is_listed_is_answered_at_once(
    streams: Streams, client: httpx2.AsyncClient
) -> None:
    await on_air(streams)
    answer = await client.get(URL, params={"_HLS_msn": "2"})
    assert answer.text == (await client.get(URL)).text


async def test_a_reload_waits_for_the_segment_it_names(
    streams: Streams, client: httpx2.AsyncClient
) -> None:
    lease = await on_air(streams)
    for ahead in (0, 1):
        msn = lease.next_msn + 3 + ahead
        waiting = asyncio.create_task(client.get(URL, params={"_HLS_msn": str(msn)}))
        for number in range(3, msn):
            await streams.append("concert", a_listing(lease, number))
            assert not waiting.done()
        await streams.append("concert", a_listing(lease, msn))
        async with asyncio.timeout(5):
            answer = await waiting
        assert f"\n{msn}.ts\n" in answer.text


async def test_who_waits_too_long_gets_what_there_is(
    streams: Streams, client: httpx2.AsyncClient
) -> None:
    lease = await on_air(streams, 0)
    await streams.append("concert", a_listing(lease, 0, target_duration_s=1, duration_us=SECOND))
    began = asyncio.get_running_loop().time()
    answer = await client.get(URL, params={"_HLS_msn": "1"})
    assert answer.status_code == 200
    assert answer.text.endswith("\n0.ts\n")
    assert asyncio.get_running_loop().time() - began >= 3


async def test_the_end_wakes_those_who_wait(
    streams: Streams, client: httpx2.AsyncClient, clock: Clock
) -> None:
    lease = await on_air(streams)
    waiting = asyncio.create_task(client.get(URL, params={"_HLS_msn": "3"}))
    await streams.release(lease, "{}")
    clock.now += 120
    await streams.end_overdue(120)
    async with asyncio.timeout(5):
        assert "#EXT-X-ENDLIST" in (await waiting).text
    assert (await client.get(URL, params={"_HLS_msn": "3"})).status_code == 200


async def test_removal_wakes_those_who_wait(
    streams: Streams, catalog: Catalog, client: httpx2.AsyncClient
) -> None:
    await on_air(streams)
    waiting = asyncio.create_task(client.get(URL, params={"_HLS_msn": "3"}))
    while not catalog._cache._waiting:
        await asyncio.sleep(0)
    await catalog.remove("concert")
    async with asyncio.timeout(5):
        assert (await waiting).status_code == 404


@pytest.mark.parametrize("msn", ["-1", "01", "x", "", "1" * 30, "5", "1e3", "２"])
async def test_what_makes_no_sense_is_a_bad_request(
    streams: Streams, client: httpx2.AsyncClient, msn: str
) -> None:
    await on_air(streams)
    answer = await client.get(URL, params={"_HLS_msn": msn})
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")
    assert (await client.get(URL, params={"_HLS_part": "0"})).status_code == 400


async def test_only_so_many_may_wait(
    streams: Streams, catalog: Catalog, client: httpx2.AsyncClient
) -> None:
    lease = await on_air(streams)
    waiting = [asyncio.create_task(client.get(URL, params={"_HLS_msn": "3"})) for _ in range(2)]
    while catalog._cache._waiting["concert"] < 2:
        await asyncio.sleep(0)
    answer = await client.get(URL, params={"_HLS_msn": "3"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    await streams.append("concert", a_listing(lease, 3))
    async with asyncio.timeout(5):
        assert {a.status_code for a in await asyncio.gather(*waiting)} == {200}


# Status


async def test_the_status_of_a_stream_is_free_and_says_no_secret(
    streams: Streams, client: httpx2.AsyncClient
) -> None:
    await create(streams, source="rtsp://user:password@camera.example/1")
    answer = await client.get("/api/v1/streams")
    [stream] = answer.json()["streams"]
    assert (stream["slug"], stream["state"], stream["feed"]) == ("concert", "idle", None)
    assert stream["pulled"] is True and "camera" not in answer.text
    assert (await client.get("/api/v1/streams/nothing")).status_code == 404
