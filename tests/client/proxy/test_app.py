"""The local paying proxy: players that cannot pay play what costs money, and nothing else."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx2
import pytest
import pytest_asyncio
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st

from tests.support.broadcaster import PRICE, Broadcaster, a_broadcaster
from tests.support.chain import ETHER, SharedDevnet
from tests.support.media import Audio, Recipe, h264
from tests.support.paid_site import KEY, Shop, open_shop
from tests.support.players import stock
from tests.support.proxying import Played, a_proxy, uris
from tests.support.publishers import publishing
from tests.support.stock_players import PLAYERS, path_to
from xbyte_live.catalog.importer import Importer, SaleTerms
from xbyte_live.client.http.purchase import Patience
from xbyte_live.client.payer.budget import Budget
from xbyte_live.client.payer.payer import Payer
from xbyte_live.client.pieces import Scope, scope_of
from xbyte_live.client.proxy.app import ProxyOptions
from xbyte_live.client.proxy.http import is_range, listen_on_loopback, span_of
from xbyte_live.client.proxy.prefetch import Prefetched
from xbyte_live.client.proxy.rewrite import rewrite, wanted_variants
from xbyte_live.client.proxy.spend_meter import Meter
from xbyte_live.errors import ConfigError, DeliveryFailed, MediaError
from xbyte_live.media.formats.playlist import read_media_playlist
from xbyte_live.media.vod.packager import PackageOptions
from xbyte_live.money import Price
from xbyte_live.server.catalog_access import open_catalog

ROOT = Path(__file__).parents[3]
SIZES = [30_000, 50_000, 40_000, 20_000, 60_000, 10_000, 45_000, 35_000]
HASTY = Patience(tries=3, first_wait=0.01, longest_wait=0.05)
BASE = "https://tv.example/a/hls/film/source/index.m3u8"
FILM = Scope("https://tv.example", "/a/hls/film/")

# rewriting


def test_a_media_playlist_is_rewritten() -> None:
    text = (
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:7\n"
        "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=12,PART-HOLD-BACK=1\n"
        '#EXT-X-PART:DURATION=1,URI="7.0.ts"\n# a remark\n#EXT-X-KEY:METHOD=AES-128,URI="k?a=1"\n'
        "#EXT-X-XBYTE-SEGMENT:BYTES=100,AMOUNT=3\n#EXTINF:2.000000,a name\n7.ts\n"
        "#EXT-X-DISCONTINUITY\n#EXTINF:1.5,\n/a/hls/film/source/8.ts?x=%2F\n#EXT-X-ENDLIST\n"
    )
    page = rewrite(text, BASE, FILM, "/s/")
    first, second = page.listed.values()
    assert (first.size, first.amount, first.duration_us) == (100, 3, 2_000_000)
    assert (second.url, second.amount) == ("https://tv.example/a/hls/film/source/8.ts?x=%2F", None)
    (key,) = (r for r in page.resources.values() if r.kind == "other")
    assert key.url == "https://tv.example/a/hls/film/source/k?a=1"
    names = {resource.url: name for name, resource in page.resources.items()}
    assert page.text == (
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:7\n"
        "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES\n"
        f'#EXT-X-KEY:METHOD=AES-128,URI="/s/{names[key.url]}"\n'
        f"#EXTINF:2.000000,a name\n/s/{names[first.url]}\n"
        f"#EXT-X-DISCONTINUITY\n#EXTINF:1.5,\n/s/{names[second.url]}\n#EXT-X-ENDLIST\n"
    )
    assert page.ended
    assert not page.multivariant


MULTIVARIANT = (
    '#EXTM3U\n#EXT-X-SESSION-DATA:DATA-ID="live.xbyte.pricing",URI="pricing.json"\n'
    '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="x, y",URI="audio/index.m3u8"\n'
    "#EXT-X-STREAM-INF:BANDWIDTH=900000\nhigh/index.m3u8\n"
    "#EXT-X-STREAM-INF:BANDWIDTH=300000\nlow/index.m3u8\n"
    "#EXT-X-STREAM-INF:BANDWIDTH=100000\nleast/index.m3u8\n"
)


@pytest.mark.parametrize(
    ("rendition", "max_bandwidth", "best", "kept"),
    [
        (None, None, False, ["high", "low", "least"]),
        (None, None, True, ["high"]),
        ("low", None, False, ["low"]),
        (None, 400_000, False, ["low", "least"]),
        (None, 400_000, True, ["low"]),
    ],
)
def test_only_wanted_renditions_are_left(
    rendition: str | None, max_bandwidth: int | None, best: bool, kept: list[str]
) -> None:
    wanted = wanted_variants(
        MULTIVARIANT, rendition=rendition, max_bandwidth=max_bandwidth, best=best
    )
    base = "https://tv.example/a/hls/film/index.m3u8"
    page = rewrite(MULTIVARIANT, base, FILM, "/s/", variants=wanted)
    found = [page.resources[uri.removeprefix("/s/")].url for uri in uris(page.text)]
    assert found == [urljoin(base, f"{name}/index.m3u8") for name in kept]
    assert page.text.count("#EXT-X-STREAM-INF") == len(kept)
    assert 'NAME="x, y",URI="/s/' in page.text
    assert "pricing" not in page.text


def test_a_rendition_that_is_not_there_is_said() -> None:
    with pytest.raises(DeliveryFailed, match="high, low, least"):
        wanted_variants(MULTIVARIANT, rendition="huge", max_bandwidth=None, best=False)


@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example/a/hls/film/0.ts",
        "http://tv.example/a/hls/film/0.ts",
        "https://tv.example:444/a/hls/film/0.ts",
        "https://u@tv.example/a/hls/film/0.ts",
        "//evil.example/a/hls/film/0.ts",
        "/a/hls/other/0.ts",
        "../../other/0.ts",
        "../%2e%2e/other/0.ts",
        "..%2f..%2f..%2fapi",
        "..%5c..%5capi",
        "https://[/",
        "file:///etc/passwd",
        "data:,x",
        "skd://key",
    ],
)
def test_what_is_not_of_the_item_is_never_listed(uri: str) -> None:
    for text in (
        f"#EXTM3U\n#EXTINF:1,\n{uri}\n",
        f'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{uri}"\n#EXTINF:1,\n0.ts\n',
    ):
        with pytest.raises(MediaError, match="not its own"):
            rewrite(text, BASE, FILM, "/s/")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>",
        "#EXTM3U\n#EXT-X-BYTERANGE:1@2\n#EXTINF:1,\n0.ts\n",
        "#EXTM3U\n#EXT-X-SKIP:SKIPPED-SEGMENTS=3\n",
        '#EXTM3U\n#EXT-X-DEFINE:NAME="a",VALUE="b"\n',
        "#EXTM3U\n#EXTINF:x,\n0.ts\n",
        "#EXTM3U\n#EXT-X-XBYTE-SEGMENT:BYTES=1,AMOUNT=-1\n#EXTINF:1,\n0.ts\n",
        "#EXTM3U\n#EXT-X-XBYTE-SEGMENT:BYTES=1\n#EXTINF:1,\n0.ts\n",
        "#EXTM3U\n#EXT-X-KEY:what\n",
        "#EXTM3U\n#EXTINF:1,\n0\x07.ts\n",
        "#EXTM3U\n" + "x" * 5000 + "\n",
    ],
)
def test_what_cannot_be_rewritten_is_refused(text: str) -> None:
    with pytest.raises(MediaError):
        rewrite(text, BASE, FILM, "/s/")


PIECES = st.sampled_from(
    [
        "#EXTINF:2,", "#EXT-X-STREAM-INF:BANDWIDTH=1", "#EXT-X-KEY:METHOD=AES-128,URI=",
        "#EXT-X-MEDIA:URI=", "#EXT-X-MAP:URI=", "#EXT-X-PART:URI=", "#EXT-X-PRELOAD-HINT:URI=",
        "#EXT-X-CONTENT-STEERING:SERVER-URI=", "#EXT-X-DATERANGE:X-ASSET-URI=",
        "#EXT-X-SESSION-DATA:URI=", "#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,URI=", "#", "",
        "https://evil.example/", "//evil.example/", "/a/hls/film/", "../", "%2e%2e/", "0.ts",
        "http:", "?q=1", "\\", '"', ",", ":", "@evil.example", "#EXT-X-ENDLIST", "{$x}", "é", " ",
    ]
)  # fmt: skip
LINES = st.lists(PIECES, max_size=5).map("".join)


@given(st.lists(LINES | st.text(max_size=40), max_size=12), st.booleans())
def test_whatever_a_server_writes_nothing_leads_elsewhere(lines: list[str], crlf: bool) -> None:
    text = ("\r\n" if crlf else "\n").join(["#EXTM3U", *lines])
    try:
        page = rewrite(text, BASE, FILM, "/secret/")
    except MediaError:
        return
    for line in page.text.splitlines():
        if not line.startswith("#"):
            local = urljoin("http://127.0.0.1:1/secret/index.m3u8", line)
            assert local.startswith("http://127.0.0.1:1/secret/")
            assert page.resources[local.rpartition("/")[2]]
        if line.startswith(("#EXT-X-MEDIA:", "#EXT-X-KEY", "#EXT-X-MAP")):
            assert line.count("URI=") == line.count('URI="/secret/')
    for resource in page.resources.values():
        seen = httpx2.URL(resource.url)
        assert (seen.scheme, seen.host, seen.port) == ("https", "tv.example", None)
        assert seen.path.startswith("/a/hls/film/")


def test_what_belongs_to_an_item() -> None:
    assert scope_of("https://tv.example/a/hls/film/index.m3u8") == FILM
    assert scope_of("https://tv.example/a/hls/film/source/index.m3u8") == FILM
    assert scope_of("https://tv.example/s/tok/hls/film/index.m3u8").path == "/s/tok/hls/film/"
    assert scope_of("https://cdn.example/x/y.m3u8?z").path == "/x/"
    assert scope_of("https://cdn.example/hls/y.m3u8").path == "/hls/"


def test_ranges() -> None:
    assert span_of(None, 10) == (0, 10)
    assert span_of("bytes=2-4", 10) == (2, 5)
    assert span_of("bytes=2-", 10) == (2, 10)
    assert span_of("bytes=-3", 10) == (7, 10)
    assert span_of("bytes=-99", 10) == (0, 10)
    assert span_of("bytes=8-99", 10) == (8, 10)
    assert span_of("bytes=10-", 10) is None
    assert span_of("bytes=-0", 10) is None
    assert span_of("bytes=0-1,3-4", 10) == (0, 10)
    assert not is_range("bytes=0-1,3-4")


def test_the_meter() -> None:
    meter = Meter(cap=100)
    meter.bought(10, now=0)
    meter.bought(20, now=50)
    meter.received(7)
    assert (meter.read(59).paid, meter.read(59).minute) == (30, 30)
    assert (meter.read(61).paid, meter.read(61).minute) == (30, 20)
    assert (meter.read(61).segments, meter.read(61).bytes, meter.read(61).cap) == (2, 7, 100)


async def test_what_is_bought_can_be_read_by_several_as_it_comes() -> None:
    bought = Prefetched(6)

    async def read(start: int) -> bytes:
        return b"".join([chunk async for chunk in bought.read(start, 6)])

    readers = [asyncio.create_task(read(start)) for start in (0, 0, 4)]
    for chunk in (b"ab", b"cd", b"ef"):
        await asyncio.sleep(0)
        bought.add(chunk)
    bought.end()
    assert await asyncio.gather(*readers) == [b"abcdef", b"abcdef", b"ef"]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "localhost", "example.org"])
def test_only_this_machine_is_listened_to(host: str) -> None:
    with pytest.raises(ConfigError):
        listen_on_loopback(0, host)


# against a shop with faults on order


@pytest.fixture(scope="module")
def open_for_all() -> Iterator[Shop]:
    with open_shop() as shop:
        yield shop


@pytest.fixture
def shop(open_for_all: Shop) -> Shop:
    open_for_all.reset()
    return open_for_all


def a_payer(budget: int = 10_000_000) -> Payer:
    return Payer(Account.from_key(KEY), Budget(budget))


def asked(shop: Shop) -> list[str]:
    """The segments that were paid for, in order."""
    return [seen.path.rpartition("/")[2] for seen in shop.payments]


async def until(holds: object) -> None:
    async with asyncio.timeout(10):
        while not holds():  # type: ignore[operator]
            await asyncio.sleep(0.005)  # the shop is in another thread


@pytest.fixture
async def film(shop: Shop) -> AsyncIterator[Played]:
    url = shop.add_title("film", SIZES)
    async with a_proxy(url, a_payer(), options=ProxyOptions(patience=HASTY)) as played:
        yield played


async def test_all_of_it_is_played_for_what_it_costs(shop: Shop, film: Played) -> None:
    data = b""
    for url in await film.segments():
        answer = await film.http.get(url)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "video/mp2t"
        data += answer.content
    assert data == shop.whole("film")
    assert shop.paid == film.proxy.spent.paid == sum(map(shop.amount, SIZES))
    assert len(shop.charges) == len(SIZES)
    assert film.proxy.spent.bytes == sum(SIZES)
    unpaid = [s for s in shop.seen if s.path.endswith(".ts") and not s.nonce]
    assert len(unpaid) <= 2  # this shop has no price list, so the first ones ask


async def test_what_is_asked_again_is_not_bought_again(shop: Shop, film: Played) -> None:
    urls = await film.segments()
    whole = (await film.http.get(urls[2])).content
    await until(lambda: film.proxy.spent.ahead == 3)
    paid = shop.paid
    for headers, part, status in (
        ({}, whole, 200),
        ({"range": "bytes=5-9"}, whole[5:10], 206),
        ({"range": "bytes=-7"}, whole[-7:], 206),
        ({"range": "bytes=0-1,5-6"}, whole, 200),
        ({"range": "bytes=99999999-"}, b"", 416),
        ({"range": "bytes=5-9", "if-range": '"x"'}, whole, 200),
    ):
        answer = await film.http.get(urls[2], headers=headers)
        assert (answer.status_code, answer.content) == (status, part)
    answer = await film.http.get(urls[2], headers={"range": "bytes=5-9"})
    assert answer.headers["content-range"] == f"bytes 5-9/{SIZES[2]}"
    both = await asyncio.gather(*(film.http.get(urls[3]) for _ in range(5)))
    assert {answer.content for answer in both} == {shop.files["/hls/film/source/3.ts"]}
    await until(lambda: film.proxy.spent.ahead == 3)
    assert shop.paid == paid + shop.amount(SIZES[6])  # one more ahead, and nothing again


async def test_a_look_costs_nothing(shop: Shop, film: Played) -> None:
    urls = await film.segments()
    answer = await film.http.head(urls[0])
    assert answer.headers["content-length"] == str(SIZES[0])
    assert (await film.http.head(film.url)).status_code == 200
    assert not shop.payments


async def test_only_what_follows_is_bought_ahead_also_after_a_seek(
    shop: Shop, film: Played
) -> None:
    urls = await film.segments()
    await film.http.get(urls[0])
    await until(lambda: film.proxy.spent.ahead == 3)
    assert sorted(asked(shop)) == ["0.ts", "1.ts", "2.ts", "3.ts"]
    await asyncio.sleep(0.05)
    assert len(shop.payments) == 4  # and no more while nobody asks
    await film.http.get(urls[6])
    await until(lambda: film.proxy.spent.ahead == 1)
    assert sorted(asked(shop)[4:]) == ["6.ts", "7.ts"]


async def test_a_seek_drops_what_was_not_begun(shop: Shop) -> None:
    url = shop.add_title("film", SIZES)
    shop.faults.extend(["ok", "hold"])  # the second segment hangs
    async with a_proxy(url, a_payer()) as film:
        urls = await film.segments()
        await film.http.get(urls[0])
        await until(shop.held.is_set)
        first = asyncio.create_task(film.http.get(urls[6]))
        assert (await first).status_code == 200
        shop.release.set()
        await until(lambda: film.proxy.spent.ahead == 1)
    assert sorted(asked(shop)) == ["0.ts", "1.ts", "6.ts", "7.ts"]


async def test_memory_is_bounded(shop: Shop) -> None:
    url = shop.add_title("film", [50_000] * 12)
    async with a_proxy(url, a_payer(), options=ProxyOptions(room=200_000)) as film:
        held = film.proxy._ahead
        for segment in await film.segments():
            await film.http.get(segment)
            assert held.held <= 200_000 + 2 * 50_000
        await until(lambda: held.held <= 200_000)
        assert len(shop.charges) == 12


async def test_the_cap_stops_it(shop: Shop) -> None:
    url = shop.add_title("film", SIZES)
    cap = sum(map(shop.amount, SIZES[:3])) + 1
    async with a_proxy(url, a_payer(cap)) as film:
        statuses = []
        for segment in await film.segments():
            answer = await film.http.get(segment)
            statuses.append(answer.status_code)
        assert statuses[:3] == [200] * 3
        assert set(statuses[3:]) <= {402, 200}
        assert statuses.count(402) >= 4
        assert "budget" in answer.text
        assert film.told.reasons
        assert "is left of the budget" in film.told.reasons[0]
        assert film.proxy.spent.paid == shop.paid <= cap
        again = await film.http.get((await film.segments())[0])
        assert again.status_code == 200  # what was paid for can be seen again


async def test_nobody_else_gets_anything(shop: Shop, film: Played) -> None:
    (segment, *_) = await film.segments()
    name = segment.rpartition("/")[2]
    shop.files["/hls/film/source/other.ts"] = b"x"
    secret = film.proxy.path.split("/")[1]
    assert len(secret) >= 22  # 128 bits and more
    for path, status in (
        ("/", 404),
        ("/index.m3u8", 404),
        (f"/{name}", 404),
        (f"/{secret[:-1]}/{name}", 404),
        (f"/{secret}x/{name}", 404),
        (f"/{secret}/", 404),
        (f"/{secret}/source/0.ts", 404),
        (f"/{secret}/source/other.ts", 404),
        (f"/{secret}/../{secret}/{name}", 404),
        (f"/{secret}/%2e%2e/{name}", 404),
        (f"/{secret}/{shop.url}/hls/film/source/0.ts", 404),
    ):
        request = httpx2.Request("GET", film.origin, extensions={"target": path.encode()})
        answer = await film.http.send(request)
        assert answer.status_code == status, path
    for host in ("evil.example", "127.0.0.1", "127.0.0.1:1", "evil.example:80", ""):
        answer = await film.http.get(segment, headers={"host": host})
        assert answer.status_code in (400, 403), host
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "CONNECT"):
        assert (await film.http.request(method, segment)).status_code == 405
        assert (await film.http.request(method, film.origin)).status_code == 404
    assert not shop.payments
    assert "access-control-allow-origin" not in (await film.http.get(film.url)).headers


async def test_a_playlist_that_leads_elsewhere_is_not_passed_on(shop: Shop) -> None:
    url = shop.add_title("film", SIZES)
    shop.texts["/hls/film/source/index.m3u8"] += "#EXTINF:1,\n/hls/other/0.ts\n"
    async with a_proxy(url, a_payer()) as film:
        entry = uris((await film.http.get(film.url)).text)
        answer = await film.http.get(film.origin + entry[0])
        assert answer.status_code == 502
        assert "not its own" in answer.text
        assert film.told.reasons


async def test_a_segment_that_is_gone_is_404_or_410(shop: Shop, film: Played) -> None:
    urls = await film.segments()
    del shop.files["/hls/film/source/5.ts"]
    assert (await film.http.get(urls[5])).status_code == 404
    assert (await film.http.get(urls[6])).status_code == 200
    assert not film.told.reasons


async def test_a_server_that_is_down_is_502_and_then_it_plays_on(shop: Shop) -> None:
    url = shop.add_title("film", SIZES)
    down = Flaky()
    async with a_proxy(url, a_payer(), inner=down, options=ProxyOptions(patience=HASTY)) as film:
        urls = await film.segments()
        assert (await film.http.get(urls[0])).status_code == 200
        await until(lambda: film.proxy.spent.ahead == 3)
        down.is_down = True
        assert (await film.http.get(urls[1])).status_code == 200  # it was bought ahead
        assert (await film.http.get(urls[7])).status_code == 502
        assert (await film.http.get(film.url)).status_code == 502
        down.is_down = False
        assert (await film.http.get(urls[7])).content == shop.files["/hls/film/source/7.ts"]
        assert (await film.http.get(film.url)).status_code == 200
    assert len(shop.charges) == len({resource for resource, _ in shop.charges.values()})


class Flaky(httpx2.AsyncHTTPTransport):
    """A way to the shop that can be closed."""

    is_down = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self.is_down:
            raise httpx2.ConnectError("down", request=request)
        return await super().handle_async_request(request)


async def test_a_refusal_of_the_server_is_passed_on(shop: Shop) -> None:
    url = shop.add_title("film", SIZES)
    shop.faults.extend(["refuse:insufficient_funds"] * 9)
    async with a_proxy(url, a_payer(), options=ProxyOptions(patience=HASTY, ahead=0)) as film:
        answer = await film.http.get((await film.segments())[0])
        assert answer.status_code == 402
        assert "insufficient_funds" in answer.text
        assert "insufficient_funds" in film.told.reasons[0]


async def test_only_playlists_can_be_played(shop: Shop) -> None:
    shop.add_title("film", SIZES)
    for url, error in (
        (f"{shop.url}/hls/film/source/0.ts", DeliveryFailed),
        ("ftp://tv.example/index.m3u8", ConfigError),
        (f"{shop.url}/hls/nothing/index.m3u8", DeliveryFailed),
    ):
        with pytest.raises(error):
            async with a_proxy(url, a_payer()):
                pass


async def test_a_watch_page_and_a_media_playlist_are_played_too(shop: Shop) -> None:
    shop.add_title("film", SIZES)
    async with a_proxy(f"{shop.url}/watch/film", a_payer()) as film:
        assert len(await film.segments()) == len(SIZES)
    async with a_proxy(f"{shop.url}/hls/film/source/index.m3u8", a_payer()) as film:
        text = (await film.http.get(film.url)).text
        assert len(uris(text)) == len(SIZES)
        assert read_media_playlist(text).ended


async def test_a_live_playlist_is_followed_and_bought_ahead(shop: Shop) -> None:
    url = shop.add_title("live", SIZES, ended=False)
    shop.list_segments("live", range(2), ended=False)
    async with a_proxy(url, a_payer()) as live:
        first, second = await live.segments()
        await live.http.get(first)
        await until(lambda: live.proxy.spent.ahead == 1)
        shop.list_segments("live", range(1, 4), ended=False)
        fresh = await live.segments()
        assert fresh[0] == second
        await until(lambda: live.proxy.spent.ahead == 3)
        assert asked(shop) == ["0.ts", "1.ts", "2.ts", "3.ts"]
        shop.list_segments("live", range(2, 5), ended=False)  # it goes on, but nobody asks
        await live.segments()
        shop.list_segments("live", range(4, 8), ended=False)
        later = await live.segments()
        await asyncio.sleep(0.05)
        assert len(shop.payments) == 4
        assert (await live.http.get(later[3])).status_code == 200


# with real servers, chain and players


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Recipe(".flv", "flv", h264(group=25), Audio(rate=44100), seconds=12)
    return recipe.make(tmp_path_factory.mktemp("clips") / "clip.flv")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def air(
    devnet: SharedDevnet, clip: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Broadcaster]:
    gas = devnet.new_account(wei=10 * ETHER)
    async with a_broadcaster(
        tmp_path_factory.mktemp("air"),
        pay_to=Account.create().address,
        rpc_urls=f"eip155:84532={devnet.rpc_url}",
        gas_key="0x" + bytes(gas.key).hex(),
        facilitators="",
    ) as running:
        async with open_catalog(running.server.settings) as shelf:
            options = PackageOptions(segment_target_us=2_000_000)
            await Importer(shelf.catalog, shelf.store).title(
                clip, "film", SaleTerms(Price(50_000)), options
            )
        yield running


class Command:
    """`xbyte-live proxy` or `play` in a process of its own, with a wallet of its own."""

    def __init__(self, air: Broadcaster, devnet: SharedDevnet, home: Path) -> None:
        account = devnet.new_account(usdc=50_000_000)
        self.env = air.server.environment | {
            "XBYTE_WALLET_KEY": "0x" + bytes(account.key).hex(),
            "XBYTE_WALLET": str(home / "wallet.json"),
            "SDL_AUDIODRIVER": "dummy",
            "SDL_VIDEODRIVER": "dummy",
        }
        self.events: list[dict[str, object]] = []

    async def start(self, *args: str) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "xbyte_live", *args, "--json"),
            env=self.env,
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )

    async def until(self, event: str) -> dict[str, object]:
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            while line := await self.process.stdout.readline():
                self.events.append(json.loads(line))
                if self.events[-1]["event"] == event:
                    return self.events[-1]
        raise AssertionError(f"it ended, and never was {event}")

    async def end(self) -> dict[str, object]:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGINT)
        ended = await self.until("ended")
        assert await asyncio.wait_for(self.process.wait(), 20) == 0
        return ended


async def price_of(air: Broadcaster, slug: str) -> int:
    text = (await air.http.get(f"{air.server.url}/hls/{slug}/source/index.m3u8")).text
    return sum(s.amount or 0 for s in read_media_playlist(text).segments)


@pytest.mark.asyncio(loop_scope="module")
async def test_ffmpeg_plays_a_priced_title_through_the_command(
    air: Broadcaster, devnet: SharedDevnet, tmp_path: Path
) -> None:
    command = Command(air, devnet, tmp_path)
    await command.start("proxy", f"{air.server.url}/hls/film/index.m3u8", "--budget", "5")
    url = str((await command.until("ready"))["url"])
    assert urlsplit(url).hostname == "127.0.0.1"
    played = await stock(url)
    assert played.picture.length == pytest.approx(12, abs=0.3)
    assert played.picture.corrupt == played.sound.corrupt == 0
    await stock(url)  # once more, from what is kept
    ended = await command.end()
    price = await price_of(air, "film")
    assert ended["paid"] == ended["signed"] == price > 0
    assert [event["event"] for event in command.events].count("stopped") == 0


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("player", "program"), PLAYERS)
async def test_play_starts_a_player_and_ends_with_it(
    air: Broadcaster, devnet: SharedDevnet, tmp_path: Path, player: str, program: str
) -> None:
    command = Command(air, devnet, tmp_path)
    command.env["PATH"] = path_to(program, tmp_path)
    url = f"{air.server.url}/watch/film"
    await command.start("play", url, "--player", player, "--budget", "5")
    ended = await command.until("ended")
    assert await asyncio.wait_for(command.process.wait(), 20) == 0
    assert ended["paid"] == await price_of(air, "film")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_broadcast_is_followed_through_the_proxy(
    air: Broadcaster, devnet: SharedDevnet, tmp_path: Path, clip: Path
) -> None:
    key = await air.stream(free=False, price=PRICE)
    command = Command(air, devnet, tmp_path)
    viewer = air.viewer()
    async with publishing(air.rtmp(key), clip):
        await viewer.until_last(1, within=20)
        await command.start("proxy", f"{air.server.url}/hls/live/index.m3u8", "--budget", "5")
        url = str((await command.until("ready"))["url"])
        played = await stock(url, pictures=25 * 6)
        assert played.picture.jumps == []
        entry = uris((await air.http.get(url)).text)
        media = urljoin(url, entry[0])
        last = len(uris((await air.http.get(media)).text))
        blocked = await air.http.get(media, params={"_HLS_msn": str(last)})
        assert len(uris(blocked.text)) >= last  # it waited for the next one
    ended = await command.end()
    await viewer.reload()
    amounts = [segment.amount for segment in viewer.segments]
    assert ended["paid"] == sum(amounts[: int(str(ended["segments"]))])


@pytest.mark.asyncio(loop_scope="module")
async def test_the_cap_is_said_and_the_player_stops(
    air: Broadcaster, devnet: SharedDevnet, tmp_path: Path
) -> None:
    command = Command(air, devnet, tmp_path)
    cap = await price_of(air, "film") // 2
    url = f"{air.server.url}/hls/film/index.m3u8"
    await command.start("proxy", url, "--budget", f"0.{cap:06}")
    url = str((await command.until("ready"))["url"])
    async with httpx2.AsyncClient(timeout=30) as http:
        entry = uris((await http.get(url)).text)
        listed = uris((await http.get(urljoin(url, entry[0]))).text)
        answers = [await http.get(urljoin(url, segment)) for segment in listed]
    assert answers[-1].status_code == 402
    ended = await command.end()
    assert int(str(ended["paid"])) <= cap
    assert any(event["event"] == "stopped" for event in command.events)


async def test_a_player_that_is_not_there_is_named(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "xbyte_live", "play", "http://127.0.0.1:9/watch/film"),
        env={"PATH": str(tmp_path), "XBYTE_WALLET_KEY": KEY, "HOME": str(tmp_path)},
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 1
    assert b"none of mpv, vlc and ffplay is installed; install mpv" in said
