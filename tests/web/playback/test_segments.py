import base64
import json
from dataclasses import replace

import pytest

from tests.support.web import NOW, PAID, PAYEE, Site, a_title, segment_bytes
from xbyte_live.config import Settings
from xbyte_live.errors import (
    ChainUnavailable,
    DatabaseOverloaded,
    DatabaseUnavailable,
    FacilitatorMisbehaved,
    FacilitatorUnavailable,
    PaymentMalformed,
    PaymentPending,
    PaymentRefused,
    StoreError,
    XByteError,
)
from xbyte_live.models import Offer, Segment
from xbyte_live.money import Price

URL = "/hls/plasma/source/2.ts"
RESOURCE = "/hls/plasma/source/2.ts"
AMOUNT = 3815  # ceil(4000 × 1,000,000 / 2**20)


@pytest.fixture
def site() -> Site:
    site = Site()
    site.add_title(a_title())
    return site


async def test_an_unpaid_segment_is_refused_with_its_price(site: Site) -> None:
    async with site.client() as client:
        answer = await client.get(URL)
    assert answer.status_code == 402
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["accept-ranges"] == "bytes"
    v2 = json.loads(base64.b64decode(answer.headers["payment-required"]))
    assert v2["error"] == "payment_required"
    assert v2["resource"]["url"] == f"http://site.test{URL}"
    assert v2["resource"]["mimeType"] == "video/mp2t"
    assert [(r["amount"], r["payTo"]) for r in v2["accepts"]] == [(str(AMOUNT), PAYEE)]
    v1 = answer.json()
    assert v1["x402Version"] == 1
    assert v1["accepts"][0]["maxAmountRequired"] == str(AMOUNT)
    assert site.gate.asked == []
    assert site.store.reads == 0, "an unpaid request must not make the store work"


@pytest.mark.parametrize("header", ["PAYMENT-SIGNATURE", "X-PAYMENT"])
async def test_a_paid_segment_is_delivered_whole_with_its_receipt(site: Site, header: str) -> None:
    async with site.client() as client:
        answer = await client.get(URL, headers={header: "a payment"})
    segment = site.catalog.by_slug["plasma"].renditions[0].segments[2]  # type: ignore[union-attr]
    assert answer.status_code == 200
    assert answer.content == segment_bytes(2)
    assert answer.headers["content-type"] == "video/mp2t"
    assert answer.headers["content-length"] == "4000"
    assert answer.headers["etag"] == f'"{segment.sha256}"'
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["cache-control"] == "private, max-age=120"
    assert answer.headers["payment-response"] == "cmVjZWlwdA=="
    assert answer.headers["x-content-type-options"] == "nosniff"
    (sale,) = site.gate.asked
    assert (sale.resource, sale.slug, sale.size) == (RESOURCE, "plasma", 4000)
    assert [(q.size, q.price, q.pay_to) for q in sale.quotes] == [(4000, Price(1_000_000), PAYEE)]


async def test_a_range_is_priced_named_and_delivered_as_that_range(site: Site) -> None:
    async with site.client() as client:
        answer = await client.get(URL, headers={**PAID, "Range": "bytes=100-1099"})
        unpaid = await client.get(URL, headers={"Range": "bytes=100-1099"})
    assert answer.status_code == 206
    assert answer.content == segment_bytes(2)[100:1100]
    assert answer.headers["content-range"] == "bytes 100-1099/4000"
    assert answer.headers["content-length"] == "1000"
    assert site.gate.asked[0].resource == f"{RESOURCE}#bytes=100-1099"
    assert site.gate.asked[0].size == 1000
    assert unpaid.status_code == 402
    assert unpaid.json()["accepts"][0]["maxAmountRequired"] == "954"


@pytest.mark.parametrize(
    ("wanted", "resource", "size"),
    [
        ("bytes=-100", f"{RESOURCE}#bytes=3900-3999", 100),
        ("bytes=3000-", f"{RESOURCE}#bytes=3000-3999", 1000),
        ("bytes=3000-9999", f"{RESOURCE}#bytes=3000-3999", 1000),
        ("bytes=0-", RESOURCE, 4000),
        ("bytes=-4000", RESOURCE, 4000),
    ],
)
async def test_the_same_bytes_have_one_name(
    site: Site, wanted: str, resource: str, size: int
) -> None:
    async with site.client() as client:
        answer = await client.get(URL, headers={**PAID, "Range": wanted})
    assert answer.status_code == 206
    assert answer.content == segment_bytes(2)[-size:]
    assert (site.gate.asked[0].resource, site.gate.asked[0].size) == (resource, size)


@pytest.mark.parametrize("wanted", ["bytes=0-1,5-6", "bytes=9-1", "lines=1-2", "bytes=x"])
async def test_a_range_that_is_ignored_is_the_whole_and_priced_whole(
    site: Site, wanted: str
) -> None:
    async with site.client() as client:
        answer = await client.get(URL, headers={**PAID, "Range": wanted})
    assert (answer.status_code, len(answer.content)) == (200, 4000)
    assert "content-range" not in answer.headers
    assert (site.gate.asked[0].resource, site.gate.asked[0].size) == (RESOURCE, 4000)


async def test_a_range_outside_is_416_and_free(site: Site) -> None:
    async with site.client() as client:
        answer = await client.get(URL, headers={**PAID, "Range": "bytes=4000-"})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == "bytes */4000"
    assert answer.json()["error"] == "range_not_satisfiable"
    assert site.gate.asked == []


async def test_if_range_with_another_tag_gives_the_whole(site: Site) -> None:
    etag = site.catalog.by_slug["plasma"].renditions[0].segments[2].sha256  # type: ignore[union-attr]
    async with site.client() as client:
        part = {**PAID, "Range": "bytes=0-9"}
        same = await client.get(URL, headers={**part, "If-Range": f'"{etag}"'})
        other = await client.get(URL, headers={**part, "If-Range": '"another"'})
        dated = await client.get(URL, headers={**part, "If-Range": "Sat, 22 Nov 2025 11:00:00 GMT"})
    assert [a.status_code for a in (same, other, dated)] == [206, 200, 200]
    assert [sale.size for sale in site.gate.asked] == [10, 4000, 4000]


async def test_what_a_reader_has_already_costs_nothing(site: Site) -> None:
    etag = site.catalog.by_slug["plasma"].renditions[0].segments[2].sha256  # type: ignore[union-attr]
    async with site.client() as client:
        answer = await client.get(URL, headers={**PAID, "If-None-Match": f'"{etag}"'})
        changed = await client.get(URL, headers={"If-None-Match": '"another"'})
        outside = await client.get(
            URL, headers={"If-None-Match": f'"{etag}"', "Range": "bytes=9999-"}
        )
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == f'"{etag}"'
    assert answer.headers["cache-control"] == "private, max-age=120"
    assert "content-length" not in answer.headers
    assert changed.status_code == 402
    assert outside.status_code == 304
    assert site.gate.asked == []
    assert site.store.reads == 0


async def test_head_never_charges_and_never_delivers(site: Site) -> None:
    async with site.client() as client:
        head = await client.head(URL, headers=PAID)
        get = await client.get(URL)
    assert head.status_code == 402
    assert head.content == b""
    assert dict(head.headers) == dict(get.headers)
    assert site.gate.asked == []


async def test_head_of_a_free_segment_tells_its_size_and_reads_nothing(site: Site) -> None:
    site.add_title(a_title("gift", price=0))
    async with site.client() as client:
        head = await client.head("/hls/gift/source/2.ts")
        assert site.store.reads == 0
        ranged = await client.head("/hls/gift/source/2.ts", headers={"Range": "bytes=0-1"})
        get = await client.get("/hls/gift/source/2.ts")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == "4000"
    assert ranged.status_code == 200, "RFC 9110 14.2: a range is for GET only"
    assert dict(head.headers) == dict(get.headers)


async def test_free_segments_are_delivered_without_the_gate(site: Site) -> None:
    site.add_title(a_title("gift", price=0))
    async with site.client() as client:
        answer = await client.get("/hls/gift/source/2.ts", headers=PAID)
        part = await client.get("/hls/gift/source/2.ts", headers={"Range": "bytes=8-9"})
    assert (answer.status_code, answer.content) == (200, segment_bytes(2))
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert (part.status_code, part.content) == (206, segment_bytes(2)[8:10])
    assert site.gate.asked == []


async def test_segments_that_start_within_the_preview_are_free(site: Site) -> None:
    site.add_title(a_title("teaser", preview_us=7_000_000))
    async with site.client() as client:
        statuses = [
            (await client.get(f"/hls/teaser/source/{msn}.ts")).status_code for msn in range(3)
        ]
    assert statuses == [200, 200, 402]


async def test_a_preview_that_was_made_shorter_holds_as_long_as_a_quote(site: Site) -> None:
    old = Offer(Price(1_000_000), PAYEE, NOW - 999, preview_us=7_000_000)
    site.add_title(a_title(offers=(replace(old, since=NOW, preview_us=0), old)))
    url = "/hls/plasma/source/1.ts"
    async with site.client() as client:
        within = await client.get(url)
        site.now = NOW + 60
        after = await client.get(url)
    assert (within.status_code, after.status_code) == (200, 402)


async def test_what_is_off_sale_opens_only_for_what_was_paid_before(site: Site) -> None:
    title = a_title()
    site.add_title(title)
    segment = title.renditions[0].segments[2]
    site.catalog.by_slug.clear()
    site.catalog.removed["plasma"] = replace(title, renditions=())
    site.catalog.retired["plasma", "source", 2] = segment
    async with site.client() as client:
        assert (await client.get(URL)).status_code == 410
        assert (await client.head(URL, headers=PAID)).status_code == 410
        assert site.gate.asked == []
        assert (await client.get(URL, headers=PAID)).status_code == 200
        assert [sale.retry_only for sale in site.gate.asked] == [True]
        site.gate.verdict = PaymentRefused("not_for_sale")
        assert (await client.get(URL, headers=PAID)).status_code == 410
        assert (await client.get("/hls/plasma/index.m3u8")).status_code == 404
        assert (await client.get("/hls/plasma/source/007.ts", headers=PAID)).status_code == 404


async def test_a_raised_price_breaks_no_quote_within_its_time(site: Site) -> None:
    old, new = Offer(Price(1_000_000), PAYEE, NOW - 999), Offer(Price(5_000_000), PAYEE, NOW)
    site.add_title(a_title(offers=(new, old)))
    async with site.client() as client:
        await client.get(URL, headers=PAID)
        site.now = NOW + 60
        await client.get(URL, headers=PAID)
    within, after = site.gate.asked
    assert [quote.price.per_mib for quote in within.quotes] == [5_000_000, 1_000_000]
    assert [quote.price.per_mib for quote in after.quotes] == [5_000_000]


async def test_bytes_that_were_free_stay_free_as_long_as_a_quote(site: Site) -> None:
    old, new = Offer(Price(0), PAYEE, NOW - 999), Offer(Price(5_000_000), PAYEE, NOW)
    site.add_title(a_title(offers=(new, old)))
    async with site.client() as client:
        within = await client.get(URL)
        site.now = NOW + 60
        after = await client.get(URL)
    assert within.status_code == 200
    assert within.headers["cache-control"].startswith("private")
    assert after.status_code == 402


async def test_an_offer_from_a_clock_ahead_of_ours_is_not_free(site: Site) -> None:
    site.add_title(a_title(offers=(Offer(Price(1_000_000), PAYEE, NOW + 5),)))
    async with site.client() as client:
        assert (await client.get(URL)).status_code == 402


async def test_rewatch_reaches_the_gate_and_the_readers_cache(site: Site) -> None:
    site.add_title(a_title(rewatch="free"))
    async with site.client() as client:
        answer = await client.get(URL, headers={"XBYTE-RECEIPT": "1.abc", **PAID})
        receipt_only = await client.get(URL, headers={"XBYTE-RECEIPT": "1.abc"})
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert site.gate.asked[0].rewatch_free
    assert receipt_only.status_code == 402
    assert len(site.gate.asked) == 2, "a receipt alone is for the gate to judge"


async def test_a_public_url_stands_before_every_sale() -> None:
    site = Site(Settings(pay_to=PAYEE, public_url="https://tv.example/site/"))
    site.add_title(a_title())
    async with site.client() as client:
        answer = await client.get(URL + "?session=1")
    assert answer.json()["accepts"][0]["resource"] == f"https://tv.example/site{URL}"


@pytest.mark.parametrize(
    ("verdict", "status", "code", "retry_after"),
    [
        (PaymentMalformed("no JSON"), 400, "payment_malformed", None),
        (PaymentRefused("insufficient_funds"), 402, "insufficient_funds", None),
        (PaymentPending(7), 503, "payment_pending", "7"),
        (FacilitatorUnavailable("no answer"), 503, "facilitator_unavailable", "5"),
        (FacilitatorMisbehaved("no JSON"), 502, "facilitator_misbehaved", None),
        (ChainUnavailable("no answer"), 503, "chain_unavailable", "5"),
        (DatabaseOverloaded("too many"), 503, "overloaded", "1"),
        (DatabaseUnavailable("at /srv/secret.db"), 503, "database_unavailable", "2"),
        (XByteError("odd"), 500, "internal_error", None),
    ],
)
async def test_no_verdict_but_yes_opens_the_bytes(
    site: Site, verdict: XByteError, status: int, code: str, retry_after: str | None
) -> None:
    site.gate.verdict = verdict
    async with site.client() as client:
        answer = await client.get(URL, headers=PAID)
    assert answer.status_code == status
    assert answer.json()["error"] == code
    assert answer.headers.get("retry-after") == retry_after
    assert answer.headers["cache-control"] == "no-store"
    assert b"<2>" not in answer.content
    assert "secret" not in answer.text
    text = (await site.metrics.render()).decode()
    assert f'xbyte_payments_total{{result="{code}"}} 1.0' in text
    assert 'xbyte_delivered_bytes_total{paid="yes"} 0.0' in text


async def test_bytes_that_cannot_be_read_are_never_charged_for(site: Site) -> None:
    del site.store.files["plasma/source/2.ts"]
    async with site.client() as client:
        missing = await client.get(URL, headers=PAID)
        site.store.files["plasma/source/2.ts"] = segment_bytes(2)[:-1]
        truncated = await client.get(URL, headers=PAID)
        site.store.broken = StoreError("cannot open /srv/data/plasma")
        broken = await client.get("/hls/plasma/source/3.ts", headers=PAID)
    for answer in (missing, truncated, broken):
        assert answer.status_code == 503
        assert answer.json()["error"] == "store_unavailable"
        assert "/srv" not in answer.text
    assert site.gate.asked == []


async def test_a_retired_segment_is_sold_while_it_is_kept_and_gone_after(site: Site) -> None:
    site.add_title(a_title(first=100))
    retired = Segment(7, 4000, 0, 6_000_000, "ab" * 32)
    site.catalog.retired["plasma", "source", 7] = retired
    site.add_segment("plasma", "source", retired)
    async with site.client() as client:
        kept = await client.get("/hls/plasma/source/7.ts", headers=PAID)
        gone = await client.get("/hls/plasma/source/8.ts", headers=PAID)
        never = await client.get("/hls/plasma/source/105.ts", headers=PAID)
    assert (kept.status_code, kept.content) == (200, segment_bytes(7))
    assert gone.status_code == 410
    assert gone.json()["error"] == "gone"
    assert never.status_code == 404


async def test_a_retired_rendition_is_sold_while_it_is_kept(site: Site) -> None:
    retired = Segment(1, 4000, 0, 6_000_000, "ab" * 32)
    site.catalog.retired["plasma", "720p", 1] = retired
    site.add_segment("plasma", "720p", retired)
    async with site.client() as client:
        assert (await client.get("/hls/plasma/720p/1.ts", headers=PAID)).status_code == 200
        assert (await client.get("/hls/plasma/720p/2.ts", headers=PAID)).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/hls/plasma/source/5.ts",
        "/hls/plasma/source/007.ts",
        "/hls/plasma/source/00.ts",
        "/hls/plasma/source/-1.ts",
        "/hls/plasma/source/+1.ts",
        "/hls/plasma/source/1_0.ts",
        "/hls/plasma/source/1e0.ts",
        "/hls/plasma/source/９.ts",
        "/hls/plasma/source/²​.ts",
        "/hls/plasma/source/9223372036854775807.ts",
        "/hls/plasma/source/9223372036854775808.ts",
        "/hls/plasma/720p/9223372036854775808.ts",
        f"/hls/plasma/source/{'9' * 5000}.ts",
        "/hls/plasma/source/1.ts/",
        "/hls/plasma/source/1.TS",
        "/hls/plasma/SOURCE/1.ts",
        "/hls/plasma/720p/1.ts",
        "/hls/PLASMA/source/1.ts",
        "/hls/none/source/1.ts",
        f"/hls/{'a' * 60_000}/source/1.ts",
        "/hls/-a/source/1.ts",
        "/hls//source/1.ts",
        "/objects/plasma",
        "/objects/none",
    ],
)
async def test_what_is_not_there_is_not_found(site: Site, path: str) -> None:
    async with site.client() as client:
        answer = await client.get(path, headers=PAID)
    assert answer.status_code == 404
    assert set(answer.json()) == {"error", "message"}
    assert answer.json()["error"] == "not_found"
    assert site.gate.asked == []
    assert site.catalog.looks <= 2


async def test_names_nothing_can_have_cost_no_look_into_the_catalog(site: Site) -> None:
    async with site.client() as client:
        for slug in ("A", "a_b", "a" * 65, "..", "."):
            assert (await client.get(f"/hls/{slug}/source/1.ts")).status_code == 404
    assert site.catalog.looks == 0


async def test_an_object_is_sold_by_the_bytes_of_each_range(site: Site) -> None:
    data = bytes(range(256)) * 40
    item = site.add_object(data)
    async with site.client() as client:
        whole = await client.get("/objects/paper", headers=PAID)
        part = await client.get("/objects/paper", headers={**PAID, "Range": "bytes=256-511"})
        unpaid = await client.get("/objects/paper", headers={"Range": "bytes=256-511"})
    assert (whole.status_code, whole.content) == (200, data)
    assert (part.status_code, part.content) == (206, bytes(range(256)))
    assert unpaid.json()["accepts"][0]["maxAmountRequired"] == "245"
    identity = f"/objects/paper@{item.sha256[:16]}"
    assert [sale.resource for sale in site.gate.asked] == [identity, f"{identity}#bytes=256-511"]


async def test_another_file_in_an_objects_place_is_another_resource(site: Site) -> None:
    site.add_object(b"a" * 1000)
    async with site.client() as client:
        await client.get("/objects/paper", headers=PAID)
        site.add_object(b"b" * 1000, key="paper/object/1")
        answer = await client.get("/objects/paper", headers=PAID)
    assert answer.content == b"b" * 1000
    first, second = site.gate.asked
    assert first.resource != second.resource


async def test_a_large_object_is_streamed_in_pieces(site: Site) -> None:
    data = bytes(range(256)) * (17 * 4096)  # 17 MiB
    site.add_object(data)
    async with site.client() as client:
        whole = await client.get("/objects/paper", headers=PAID)
        part = await client.get("/objects/paper", headers={**PAID, "Range": "bytes=1000-9000000"})
        head = await client.head("/objects/paper", headers=PAID)
    assert whole.content == data
    assert whole.headers["content-length"] == str(len(data))
    assert part.content == data[1000:9000001]
    assert part.headers["content-length"] == "8999001"
    assert head.status_code == 402
    assert site.cache.bytes == 0, "a large object must not push segments out of memory"
    delivered = f'xbyte_delivered_bytes_total{{paid="yes"}} {len(data) + 8999001:.7e}'
    assert delivered.encode() in await site.metrics.render()


async def test_a_large_object_with_its_end_missing_is_never_charged_for(site: Site) -> None:
    data = bytes(17 * 2**20)
    item = site.add_object(data)
    site.store.files[item.key] = data[:-1]
    async with site.client() as client:
        answer = await client.get("/objects/paper", headers={**PAID, "Range": "bytes=0-9"})
    assert answer.status_code == 503
    assert site.gate.asked == []


async def test_an_empty_object_is_free(site: Site) -> None:
    site.add_object(b"")
    async with site.client() as client:
        answer = await client.get("/objects/paper", headers={"Range": "bytes=0-"})
    assert (answer.status_code, answer.content) == (200, b"")


async def test_a_free_object_may_be_kept_for_a_while_only(site: Site) -> None:
    site.add_object(b"hello", price=0)
    async with site.client() as client:
        answer = await client.get("/objects/paper")
    assert answer.headers["cache-control"] == "public, max-age=60"


async def test_a_file_of_unknown_making_cannot_act_on_our_origin(site: Site) -> None:
    site.add_object(b"<script>", content_type="text/html", name='we"b\r\nSet-Cookie: a=b/ü.html')
    async with site.client() as client:
        page = await client.get("/objects/paper", headers=PAID)
        site.add_object(b"\xff\xd8", slug="photo", content_type="image/jpeg")
        picture = await client.get("/objects/photo", headers=PAID)
    assert page.headers["content-security-policy"] == "sandbox"
    assert page.headers["content-disposition"].startswith("attachment; filename=")
    assert "set-cookie" not in page.headers
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "content-disposition" not in picture.headers
    assert picture.headers["content-security-policy"] == "sandbox"


async def test_a_title_may_be_replaced_while_it_is_played(site: Site) -> None:
    async with site.client() as client:
        assert (await client.get(URL, headers=PAID)).status_code == 200
        changed = replace(a_title(first=5), name="Plasma, second cut")
        site.add_title(changed)
        assert (await client.get(URL, headers=PAID)).status_code == 410
        assert (await client.get("/hls/plasma/source/5.ts", headers=PAID)).status_code == 200
