import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.items import Clock, import_with_bytes
from tests.support.web import PAID, PAYEE, Site, a_title, segment_bytes, serving
from xbyte_live.catalog.catalog import Catalog
from xbyte_live.config import Settings
from xbyte_live.errors import DatabaseUnavailable, StoreError
from xbyte_live.media.formats.playlist import read_media_playlist
from xbyte_live.money import Price
from xbyte_live.storage.blobs.disk import DiskStore
from xbyte_live.storage.db.engine import Database
from xbyte_live.web.common.health import Readiness, store_check
from xbyte_live.web.common.metrics import Levels, Metrics

SEGMENT = "/hls/plasma/source/2.ts"
EXPOSED = (
    "PAYMENT-REQUIRED, PAYMENT-RESPONSE, X-PAYMENT-RESPONSE, "
    "Content-Length, Content-Range, ETag, Retry-After"
)


@pytest.fixture
def site() -> Site:
    site = Site()
    site.add_title(a_title(poster="plasma/poster/0.jpg"))
    site.store.files["plasma/poster/0.jpg"] = b"\xff\xd8 a picture"
    site.add_object(b"a paper")
    return site


async def raw(host: str, port: int, request: bytes) -> bytes:
    """What a server answers to bytes that no HTTP client would send."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(request)
    if writer.can_write_eof():
        writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


# --- the list, the prices, the poster


async def test_the_catalog_tells_clients_where_everything_is(site: Site) -> None:
    async with site.client() as client:
        answer = await client.get("/api/v1/catalog")
        title, paper = answer.json()["items"]
        for url in (title["url"], title["pricing_url"], title["poster_url"], paper["pricing_url"]):
            assert (await client.get(url)).status_code == 200
        assert (await client.get(paper["url"])).status_code == 402
    assert answer.headers["content-type"] == "application/json"
    assert title == {
        "slug": "plasma",
        "name": "Plasma",
        "price_per_mb": "1",
        "rewatch": "paid",
        "price_per_minute": "5.722046",
        "has_video": True,
        "kind": "title",
        "duration_seconds": 30.0,
        "preview_seconds": 0.0,
        "url": "/hls/plasma/index.m3u8",
        "pricing_url": "/hls/plasma/pricing.json",
        "poster_url": "/hls/plasma/poster.jpg",
    }
    assert (paper["kind"], paper["bytes"]) == ("object", 7)
    assert paper["content_type"] == "application/pdf"


async def test_the_catalog_is_read_once_a_second_however_often_it_is_asked_for(
    site: Site,
) -> None:
    async with site.client() as client:
        answers = await asyncio.gather(*(client.get("/api/v1/catalog") for _ in range(50)))
        assert site.catalog.looks == 1
        site.add_object(b"more", slug="more")
        site.now += 1
        later = await client.get("/api/v1/catalog")
    assert {len(a.json()["items"]) for a in answers} == {2}
    assert len(later.json()["items"]) == 3


async def test_catalog_urls_are_whole_when_the_public_url_is_known() -> None:
    site = Site(Settings(pay_to=PAYEE, public_url="https://tv.example"))
    site.add_title(a_title())
    async with site.client() as client:
        (title,) = (await client.get("/api/v1/catalog")).json()["items"]
    assert title["url"] == "https://tv.example/hls/plasma/index.m3u8"
    assert title["poster_url"] is None


@pytest.mark.parametrize("path", ["/hls/plasma/pricing.json", "/objects/paper/pricing.json"])
async def test_pricing_says_all_a_payer_needs(site: Site, path: str) -> None:
    async with site.client() as client:
        answer = await client.get(path)
        again = await client.get(path, headers={"If-None-Match": answer.headers["etag"]})
    terms = answer.json()
    assert answer.headers["cache-control"] == "public, max-age=30"
    assert terms["price_per_mb"] == "1"
    assert terms["bytes_per_mb"] == 1_048_576
    assert terms["quote_ttl_seconds"] == 60
    assert terms["pay_to"] == PAYEE
    assert terms["networks"] == ["eip155:84532"]
    assert terms["schemes"] == ["exact"]
    (method,) = terms["payment_methods"]
    assert method["amount_per_mb"] == "1000000"
    assert method["asset"] == terms["asset"] == "0x036CbD53842c5426634e7929541eC2318f3dCF7e"
    assert again.status_code == 304


async def test_the_poster_is_free(site: Site) -> None:
    site.add_title(a_title("plain"))
    async with site.client() as client:
        answer = await client.get("/hls/plasma/poster.jpg")
        none = await client.get("/hls/plain/poster.jpg")
    assert (answer.status_code, answer.content) == (200, b"\xff\xd8 a picture")
    assert answer.headers["content-type"] == "image/jpeg"
    assert none.status_code == 404


async def test_titles_and_objects_do_not_answer_for_each_other(site: Site) -> None:
    async with site.client() as client:
        for path in (
            "/hls/paper/index.m3u8",
            "/hls/paper/pricing.json",
            "/hls/paper/poster.jpg",
            "/objects/plasma/pricing.json",
        ):
            assert (await client.get(path)).status_code == 404


# --- other sites' pages


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (SEGMENT, {}, 402),
        (SEGMENT, PAID, 200),
        (SEGMENT, {"Range": "bytes=9999-"}, 416),
        ("/hls/plasma/source/99.ts", {}, 404),
        ("/hls/plasma/index.m3u8", {}, 200),
        ("/hls/plasma/pricing.json", {}, 200),
        ("/objects/paper", {}, 402),
        ("/api/v1/catalog", {}, 200),
        ("/channels/0x" + "00" * 32, {}, 404),
    ],
)
async def test_any_page_may_read_every_playback_answer(
    site: Site, path: str, headers: dict[str, str], status: int
) -> None:
    async with site.client() as client:
        asked = await client.get(path, headers={**headers, "Origin": "https://page.test"})
        plain = await client.get(path, headers=headers)
    for answer in (asked, plain):
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-expose-headers"] == EXPOSED


async def test_pages_can_read_our_failures_too(site: Site) -> None:
    async with site.client() as client:
        site.catalog.broken = DatabaseUnavailable("down")
        known = await client.get(SEGMENT)
        site.catalog.broken = ZeroDivisionError("at /srv/secret.py")  # type: ignore[assignment]
        unknown = await client.get(SEGMENT)
    assert (known.status_code, unknown.status_code) == (503, 500)
    for answer in (known, unknown):
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["cache-control"] == "no-store"
    assert unknown.json() == {
        "error": "internal_error",
        "message": "something went wrong on the server",
    }


async def test_a_preflight_allows_what_payers_send(site: Site) -> None:
    async with site.client() as client:
        answer = await client.options(
            SEGMENT,
            headers={
                "Origin": "https://page.test",
                "Access-Control-Request-Method": "GET",
                "Access-Control-Request-Headers": "payment-signature,range",
            },
        )
    allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-methods"] == "GET, HEAD, POST, DELETE"
    assert answer.headers["access-control-max-age"] == "86400"
    assert {"payment-signature", "x-payment", "range"} <= set(allowed)
    # what the official fetch wrappers add to a paid request
    assert "access-control-expose-headers" in allowed


async def test_named_origins_only() -> None:
    site = Site(Settings(pay_to=PAYEE, cors_origins=("https://tv.example",)))
    site.add_title(a_title())
    async with site.client() as client:
        ours = await client.get(SEGMENT, headers={"Origin": "https://tv.example"})
        other = await client.get(SEGMENT, headers={"Origin": "https://evil.example"})
        preflight = await client.options(SEGMENT, headers={"Origin": "https://evil.example"})
    assert ours.headers["access-control-allow-origin"] == "https://tv.example"
    assert "access-control-allow-origin" not in other.headers
    assert "access-control-allow-origin" not in preflight.headers
    assert {a.headers["vary"] for a in (ours, other, preflight)} == {"Origin"}


async def test_the_operators_urls_are_not_for_pages(site: Site) -> None:
    async with site.client() as client:
        for path in ("/healthz", "/readyz", "/metrics"):
            answer = await client.get(path, headers={"Origin": "https://page.test"})
            assert answer.status_code == 200
            assert "access-control-allow-origin" not in answer.headers
            assert (await client.options(path)).status_code == 405


# --- what no client should send


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"])
@pytest.mark.parametrize("path", [SEGMENT, "/hls/plasma/index.m3u8", "/metrics"])
async def test_other_methods_are_refused(site: Site, method: str, path: str) -> None:
    async with site.client() as client:
        answer = await client.request(method, path, headers=PAID, content=b"x" * 1000)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"
    assert answer.json()["error"] == "method_not_allowed"
    assert site.gate.asked == []


@pytest.mark.parametrize(
    "path",
    ["/watch", "/hls", "/hls/", "/hls/plasma", "/hls/plasma/", "/static/", "/api/v1", "/objects/"],
)
async def test_other_urls_are_not_found_and_lead_nowhere(site: Site, path: str) -> None:
    async with site.client() as client:
        answer = await client.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"] == "not_found"


ODD_PATHS = [
    b"/hls/plasma/source/2.ts%0A",
    b"/hls/plasma/source/2.ts%00",
    b"/hls/plasma%2Fsource%2F2.ts",
    b"/hls/plasma/source/%32.ts",
    b"/hls/%70lasma/source/2.ts",
    b"/hls/plasma/source/..%2f..%2f2.ts",
    b"/hls/plasma/source/%2e%2e/2.ts",
    b"/hls/../hls/plasma/source/2.ts",
    b"/hls/plasma/source/../source/2.ts",
    b"/hls/plasma/./source/2.ts",
    b"//hls/plasma/source/2.ts",
    b"/hls/plasma/source/%D9%A2.ts",
    b"/hls/plasma/source/2.ts;x=1",
    b"/hls/plasma/source\\2.ts",
    b"/hls/plasma/source/2.ts\x00",
    b"/objects/..%2f..%2fetc%2fpasswd",
    b"/objects/%zz",
]


async def test_a_resource_has_one_url_only(site: Site) -> None:
    async with serving(site.app) as (host, port):
        for path in ODD_PATHS:
            answer = await raw(
                host,
                port,
                b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nPAYMENT-SIGNATURE: y\r\n"
                b"Connection: close\r\n\r\n",
            )
            assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400")), path
    assert site.gate.asked == []
    assert site.store.reads == 0


NONSENSE = [
    b"\x00\x01\x02\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET /hls/\xff\xfe/index.m3u8 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET http://other/hls/plasma/source/99.ts HTTP/1.1\r\nConnection: close\r\n\r\n",
    b"GET /hls/plasma/source/99.ts HTTP/1.1\r\nHost: \xff<>\r\nConnection: close\r\n\r\n",
    b"GET /hls/plasma/source/2.ts HTTP/1.1\r\nHost: \xff<>\r\nConnection: close\r\n\r\n",
    b"GET /hls/plasma/source/2.ts HTTP/1.1\r\nHost: [::\r\nConnection: close\r\n\r\n",
    b"GET /hls/plasma/source/2.ts HTTP/1.1\r\nHost: x:y:z@/?#\r\nConnection: close\r\n\r\n",
    b"GET /hls/plasma/source/2.ts HTTP/1.0\r\n\r\n",
    b"GET /hls/plasma/source/2.ts HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
]
FLOODS = [
    b"GET /hls/plasma/source/2.ts HTTP/1.1\r\n"
    + b"".join(b"X-%d: y\r\n" % n for n in range(500))
    + b"Connection: close\r\n\r\n",
    b"GET /hls/plasma/source/2.ts HTTP/1.1\r\nX: " + b"y" * 60_000 + b"\r\n"
    b"Connection: close\r\n\r\n",
]


async def test_a_flood_of_headers_is_turned_away(site: Site) -> None:
    async with serving(site.app) as (host, port):
        for flood in FLOODS:
            assert (await raw(host, port, flood)).startswith(b"HTTP/1.1 431")
    assert site.catalog.looks == 0


async def test_nonsense_gets_a_4xx_and_the_server_goes_on(site: Site) -> None:
    async with serving(site.app) as (host, port), httpx2.AsyncClient() as client:
        for request in NONSENSE:
            answer = await raw(host, port, request)
            assert answer.startswith(b"HTTP/1.1 4"), request
            assert b"Traceback" not in answer
            assert (await client.get(f"http://{host}:{port}/healthz")).status_code == 200


async def test_a_websocket_is_closed(site: Site) -> None:
    sent: list[str] = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, str]) -> None:
        sent.append(message["type"])

    await site.app({"type": "websocket", "path": SEGMENT, "headers": []}, receive, send)  # type: ignore[arg-type]
    assert sent == ["websocket.close"]


async def send_raw(site: Site, scope: dict[str, Any]) -> list[dict[str, Any]]:
    """What the application sends for an ASGI scope, however odd."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    usual = {
        "type": "http",
        "method": "GET",
        "query_string": b"",
        "headers": [],
        "scheme": "http",
        "server": ("site.test", 80),
        "asgi": {"version": "3.0", "spec_version": "2.3"},
    }
    await site.app({**usual, **scope}, receive, send)  # type: ignore[arg-type]
    return sent


@pytest.mark.parametrize("path", [SEGMENT, "/hls/plasma/index.m3u8", "/nowhere", "/metrics"])
async def test_head_sends_no_body_whatever_the_server_does_with_it(site: Site, path: str) -> None:
    sent = await send_raw(site, {"method": "HEAD", "path": path})
    assert b"".join(message.get("body", b"") for message in sent) == b""
    assert int(dict(sent[0]["headers"])[b"content-length"]) > 0


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(["hls", "objects", "plasma", "source", "2.ts", ".."]) | st.text()),
    st.dictionaries(
        st.sampled_from(["Range", "If-Range", "If-None-Match", "Accept-Encoding", "X-Payment"]),
        st.text(st.characters(min_codepoint=32, max_codepoint=126)),
    ),
)
async def test_no_request_makes_it_stumble(parts: list[str], headers: dict[str, str]) -> None:
    site = Site()
    site.add_title(a_title())
    path = "/" + "/".join(parts)
    sent = await send_raw(
        site,
        {
            "path": path,
            "raw_path": path.encode("utf-8", "surrogatepass"),
            "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
        },
    )
    assert sent[0]["status"] in (200, 206, 304, 402, 404, 416)


# --- over a real catalog and a real disk


async def test_what_the_catalog_and_the_disk_hold_is_what_is_served(
    tmp_path: Path, sqlite_url: str
) -> None:
    database, clock = Database(sqlite_url), Clock()
    await database.start()
    catalog, store = Catalog(database, clock=clock), DiskStore(tmp_path / "store")
    site = Site(catalog=catalog, store=store, now=clock.now)
    try:
        await import_with_bytes(catalog, store, "plasma", 1, count=3)
        async with site.client() as client:
            first = await client.get("/hls/plasma/source/index.m3u8")
            urls = [f"/hls/plasma/source/{s.uri}" for s in read_media_playlist(first.text).segments]
            unpaid = [await client.get(url) for url in urls]
            paid = [await client.get(url, headers=PAID) for url in urls]
            poster = await client.get("/hls/plasma/poster.jpg")
            assert [a.status_code for a in unpaid] == [402] * 3
            assert [a.content[:19] for a in paid] == [b"version 1 segment %d" % n for n in range(3)]
            assert poster.content == b"poster 1"

            clock.now += 10
            await import_with_bytes(catalog, store, "plasma", 2, count=3)
            again = await client.get("/hls/plasma/source/index.m3u8")
            retired = await client.get(urls[0], headers=PAID)
            new_poster = await client.get("/hls/plasma/poster.jpg")
            listed = [s.uri for s in read_media_playlist(again.text).segments]
            assert listed == ["3.ts", "4.ts", "5.ts"]
            assert retired.content == paid[0].content, "sold bytes stay for the retry"
            assert new_poster.content == b"poster 2"

            clock.now += 1000
            assert (await client.get(urls[0], headers=PAID)).status_code == 410
            await catalog.set_terms("plasma", price=Price(0), pay_to=None)
            site.now = clock.now
            assert (await client.get("/hls/plasma/source/3.ts")).status_code == 200
            await catalog.remove("plasma")
            assert (await client.get("/hls/plasma/source/3.ts")).status_code == 410
            assert (await client.get("/api/v1/catalog")).json() == {"items": []}
    finally:
        await database.stop()
    async with site.client() as client:
        clock.now += 10
        assert (await client.get("/hls/plasma/source/3.ts")).status_code == 503


# --- over a real socket


async def test_paid_bytes_over_a_socket(site: Site) -> None:
    async with (
        serving(site.app) as (host, port),
        httpx2.AsyncClient(base_url=f"http://{host}:{port}") as client,
    ):
        unpaid = await client.get(SEGMENT)
        paid = await client.get(SEGMENT, headers=PAID)
        part = await client.get(SEGMENT, headers={**PAID, "Range": "bytes=-10"})
        head = await client.head(SEGMENT)
        bodied = await client.request("GET", SEGMENT, headers=PAID, content=b"x" * 200_000)
    assert unpaid.json()["accepts"][0]["resource"] == f"http://{host}:{port}{SEGMENT}"
    assert paid.content == segment_bytes(2)
    assert part.content == segment_bytes(2)[-10:]
    assert (head.status_code, head.content) == (402, b"")
    assert head.headers["content-length"] == unpaid.headers["content-length"]
    assert bodied.content == segment_bytes(2)


async def test_large_objects_over_a_socket(site: Site) -> None:
    data = bytes(range(256)) * (20 * 4096)
    site.add_object(data, slug="large")
    async with (
        serving(site.app) as (host, port),
        httpx2.AsyncClient(base_url=f"http://{host}:{port}") as client,
    ):
        answer = await client.get("/objects/large", headers=PAID)
    assert answer.content == data


async def test_a_stream_that_breaks_is_cut_not_completed(site: Site) -> None:
    data = bytes(20 * 2**20)
    item = site.add_object(data, slug="large")
    async with (
        serving(site.app) as (host, port),
        httpx2.AsyncClient(base_url=f"http://{host}:{port}") as client,
    ):
        async with client.stream("GET", "/objects/large", headers=PAID) as answer:
            del site.store.files[item.key]
            with pytest.raises(httpx2.RemoteProtocolError):
                await answer.aread()
        assert (await client.get("/healthz")).status_code == 200


# --- the operator's side


async def test_alive_and_ready(site: Site) -> None:
    async with site.client() as client:
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        assert (await client.get("/readyz")).json() == {"status": "ready"}
        site.problems["part"] = "the part is missing"
        site.catalog.broken = DatabaseUnavailable("down")
        alive, ready = await client.get("/healthz"), await client.get("/readyz")
    assert alive.status_code == 200
    assert ready.status_code == 503
    assert ready.json() == {
        "status": "not ready",
        "problems": {"part": "the part is missing"},
    }


async def test_readiness_survives_whatever_a_check_does() -> None:
    async def fine() -> str | None:
        return None

    async def known() -> str | None:
        raise StoreError("the disk is full")

    async def unknown() -> str | None:
        raise RuntimeError("token=secret")

    async def hangs() -> str | None:
        await asyncio.Event().wait()
        return None

    readiness = Readiness(
        {"fine": fine, "known": known, "unknown": unknown, "hangs": hangs}, timeout=0.05
    )
    assert await readiness.problems() == {
        "known": "the disk is full",
        "unknown": "the check itself failed; see the log",
        "hangs": "no answer within 0.05 seconds",
    }


async def test_asking_often_checks_once() -> None:
    asked, now = [], 0.0

    async def check() -> str | None:
        asked.append(now)
        return "no"

    readiness = Readiness({"check": check}, keep=1.0, monotonic=lambda: now)
    verdicts = await asyncio.gather(*(readiness.problems() for _ in range(20)))
    assert verdicts == [{"check": "no"}] * 20
    now = 1.0
    await readiness.problems()
    assert asked == [0.0, 1.0]


async def test_the_store_check_writes_reads_and_leaves_nothing(site: Site) -> None:
    before = dict(site.store.files)
    assert await store_check(site.store)() is None  # type: ignore[arg-type]
    assert site.store.files == before
    site.store.broken = StoreError("the disk is full")
    with pytest.raises(StoreError):
        await store_check(site.store)()  # type: ignore[arg-type]


async def test_metrics_count_by_route_and_never_by_name(site: Site) -> None:
    site.levels = Levels(
        cache_hits=3, cache_misses=2, cache_bytes=1000, database_queue=4, charges={"queued": 5}
    )
    async with site.client() as client:
        await client.get(SEGMENT)
        await client.get(SEGMENT, headers=PAID)
        for number in range(100):
            await client.get(f"/hls/unknown-{number}/source/1.ts")
            await client.get(f"/nowhere/{number}")
        await client.get("/hls/%41/source/1.ts")
        text = (await client.get("/metrics")).text
    for line in (
        'xbyte_http_requests_total{route="/hls/{slug}/{rendition}/{msn}.ts",status="402"} 1.0',
        'xbyte_http_requests_total{route="/hls/{slug}/{rendition}/{msn}.ts",status="200"} 1.0',
        'xbyte_http_requests_total{route="/hls/{slug}/{rendition}/{msn}.ts",status="404"} 100.0',
        'xbyte_http_requests_total{route="none",status="404"} 101.0',
        'xbyte_http_request_seconds_count{route="none"} 101.0',
        'xbyte_delivered_bytes_total{paid="yes"} 4000.0',
        'xbyte_payments_total{result="accepted"} 1.0',
        "xbyte_cache_hits_total 3.0",
        "xbyte_cache_misses_total 2.0",
        "xbyte_cache_bytes 1000.0",
        "xbyte_database_queue 4.0",
        'xbyte_charges{state="queued"} 5.0',
    ):
        assert line in text.splitlines()
    assert "unknown-" not in text
    assert "nowhere" not in text


async def test_error_codes_from_outside_cannot_flood_the_metrics() -> None:
    metrics = Metrics()
    for number in range(1000):
        metrics.charged(f"invented_{number}")
    text = (await metrics.render()).decode()
    assert text.count("xbyte_payments_total{") <= 65
    assert 'xbyte_payments_total{result="other"}' in text


async def test_two_applications_share_nothing() -> None:
    first, second = Site(), Site()
    async with first.client() as client:
        await client.get("/healthz")
    assert b'route="/healthz"' in await first.metrics.render()
    assert b'route="/healthz"' not in await second.metrics.render()
