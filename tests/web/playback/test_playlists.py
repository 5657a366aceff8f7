import asyncio
import gzip
from dataclasses import replace

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from tests.support.web import NOW, PAYEE, Site, a_title
from xbyte_live.config import Settings
from xbyte_live.media.formats.playlist import (
    is_multivariant,
    read_media_playlist,
    read_multivariant_playlist,
)
from xbyte_live.models import Offer
from xbyte_live.money import Price
from xbyte_live.web.common.resolver import Resolver
from xbyte_live.web.playback.blocking_reload import BlockingReloads
from xbyte_live.web.playback.playlists import Playlists

URL = "/hls/plasma/source/index.m3u8"


def alone(site: Site) -> tuple[Playlists, httpx2.AsyncClient]:
    """The playlists of a site by themselves, and a client of them."""
    resolver = Resolver(site.catalog, limit=100)  # type: ignore[arg-type]
    reloads = BlockingReloads(site.catalog, limit=10)
    playlists = Playlists(settings=site.settings, resolver=resolver, reloads=reloads)
    app = Starlette(routes=[Route("/hls/{slug}/{rendition}/index.m3u8", playlists.media)])
    transport = httpx2.ASGITransport(app)
    return playlists, httpx2.AsyncClient(transport=transport, base_url="http://site.test")


@pytest.fixture
def site() -> Site:
    site = Site()
    site.add_title(a_title(preview_us=6_000_000))
    return site


async def test_the_media_playlist_says_what_each_segment_costs(site: Site) -> None:
    async with site.client() as client:
        answer = await client.get(URL)
        listed = read_media_playlist(answer.text)
        asked = await client.get(f"/hls/plasma/source/{listed.segments[1].uri}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/vnd.apple.mpegurl"
    assert answer.headers["cache-control"] == "public, max-age=30"
    assert [segment.uri for segment in listed.segments] == [f"{n}.ts" for n in range(5)]
    assert [segment.size for segment in listed.segments] == [4000] * 5
    assert [segment.amount for segment in listed.segments] == [0, 3815, 3815, 3815, 3815]
    assert listed.ended
    assert asked.json()["accepts"][0]["maxAmountRequired"] == "3815"


async def test_the_multivariant_playlist_leads_to_the_renditions(site: Site) -> None:
    async with site.client() as client:
        answer = await client.get("/hls/plasma/index.m3u8")
        (variant,) = read_multivariant_playlist(answer.text)
        media = await client.get(f"/hls/plasma/{variant.uri}")
    assert answer.headers["content-type"] == "application/vnd.apple.mpegurl"
    assert is_multivariant(answer.text)
    assert 'DATA-ID="live.xbyte.pricing",URI="pricing.json"' in answer.text
    assert media.status_code == 200


async def test_a_new_price_is_in_the_next_playlist(site: Site) -> None:
    title = site.catalog.by_slug["plasma"]
    async with site.client() as client:
        before = await client.get(URL)
        offers = (Offer(Price(2_000_000), PAYEE, NOW + 10), *title.offers)
        site.catalog.by_slug["plasma"] = replace(title, offers=offers)
        early = await client.get(URL)
        site.now = NOW + 10
        late = await client.get(URL)
    amounts = [read_media_playlist(a.text).segments[1].amount for a in (before, early, late)]
    assert amounts == [3815, 3815, 7630]
    assert before.headers["etag"] == early.headers["etag"] != late.headers["etag"]


async def test_a_reader_with_the_newest_text_gets_304(site: Site) -> None:
    async with site.client() as client:
        first = await client.get(URL)
        again = await client.get(URL, headers={"If-None-Match": first.headers["etag"]})
        head = await client.head(URL)
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert (head.status_code, head.content) == (200, b"")
    assert dict(head.headers) == dict(first.headers)


async def test_a_long_playlist_travels_packed_where_welcome() -> None:
    site = Site()
    site.add_title(a_title(count=300))
    async with site.client() as client:
        async with client.stream("GET", URL, headers={"Accept-Encoding": "gzip"}) as answer:
            raw = b"".join([chunk async for chunk in answer.aiter_raw()])
        plain = await client.get(URL, headers={"Accept-Encoding": "identity"})
        again = await client.get(
            URL,
            headers={"Accept-Encoding": "gzip", "If-None-Match": answer.headers["etag"]},
        )
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    assert "content-encoding" not in plain.headers
    assert gzip.decompress(raw) == plain.content
    assert len(raw) * 4 < len(plain.content)
    assert answer.headers["etag"] != plain.headers["etag"], "two encodings, two strong tags"
    assert again.status_code == 304


async def test_a_hundred_readers_at_once_cause_one_rendering(site: Site) -> None:
    playlists, client = alone(site)
    async with client:
        answers = await asyncio.gather(*(client.get(URL) for _ in range(100)))
    assert {a.status_code for a in answers} == {200}
    assert len({a.content for a in answers}) == 1
    assert playlists.rendered == 1


async def test_the_memory_for_texts_is_bounded() -> None:
    site = Site(Settings(pay_to=PAYEE, cache_bytes=8 * 20_000))
    playlists, client = alone(site)
    async with client:
        for number in (*range(30), *range(30)):
            site.add_title(a_title(f"title-{number}", count=20))
            answer = await client.get(f"/hls/title-{number}/source/index.m3u8")
            assert len(read_media_playlist(answer.text).segments) == 20
            assert len(answer.content) <= playlists.held <= 20_000


async def test_no_memory_for_texts_still_serves_them() -> None:
    site = Site(Settings(pay_to=PAYEE, cache_bytes=0))
    site.add_title(a_title())
    async with site.client() as client:
        assert (await client.get(URL)).status_code == 200
        assert (await client.get(URL)).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/hls/none/index.m3u8", "/hls/plasma/720p/index.m3u8", "/hls/plasma/SOURCE/index.m3u8"],
)
async def test_what_is_not_there_is_not_found(site: Site, path: str) -> None:
    async with site.client() as client:
        answer = await client.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"] == "not_found"
