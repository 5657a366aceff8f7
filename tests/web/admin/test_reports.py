"""The studio's API: what it says is what the ledger holds, as the document has it."""

import asyncio
import csv
import io
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from openapi_schema_validator import OAS31Validator
from sqlalchemy import insert

from tests.support.items import a_rendition, add_object, add_title
from tests.support.ledger_books import Busy, Shop, a_busy_shop
from tests.support.studio_site import TOKEN, StudioSite, a_studio_site, told
from xbyte_live.models import Rendition, Segment
from xbyte_live.payments.ledger.periods import DAY
from xbyte_live.payments.reports.earnings import Earnings, Period
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.db.tables import deliveries
from xbyte_live.web.admin import events as live
from xbyte_live.web.admin.periods import read_period
from xbyte_live.web.admin.reports import MOMENTS
from xbyte_live.web.api.openapi import document

DESCRIBED = document("")
EVER = {"from": "2000-01-01", "to": "2100-01-01", "step": str(400 * DAY)}


@pytest.fixture
async def site(sqlite_url: str) -> AsyncIterator[StudioSite]:
    async with a_studio_site(sqlite_url) as site:
        yield site


@pytest.fixture
async def client(site: StudioSite) -> AsyncIterator[httpx2.AsyncClient]:
    async with site.admin() as client:
        yield client


def conforms(reply: httpx2.Response, schema: str, status: int = 200) -> dict[str, Any]:
    """The answer, which must be what the document says."""
    assert reply.status_code == status, reply.text
    wanted = {"$ref": f"#/components/schemas/{schema}", "components": DESCRIBED["components"]}
    answer: dict[str, Any] = reply.json()
    OAS31Validator(wanted).validate(answer)
    return answer


@asynccontextmanager
async def a_busy_site(url: str) -> AsyncIterator[tuple[Busy, httpx2.AsyncClient]]:
    async with a_studio_site(url) as site, site.admin() as client:
        yield await a_busy_shop(site.database), client


async def test_earnings_are_the_audits_to_the_unit(database_url: str) -> None:
    async with a_busy_site(database_url) as (busy, client):
        earned = conforms(await client.get("/api/v1/earnings", params=EVER), "Earnings")
        settled = conforms(await client.get("/api/v1/settlement"), "Settlement")
        audit = await busy.shop.audit(chain=False)

    channels, exact = settled["payees"]
    sums = sorted(audit.sums, key=lambda one: one.scheme)
    assert [(p["charged"], p["claimed"], p["settled"]) for p in settled["payees"]] == [
        (str(s.charged), str(s.claimed), str(s.settled)) for s in sums
    ]
    assert sum(int(step["income"]) for step in earned["series"]) == int(earned["total"]["income"])
    assert sum(int(step["amount"]) for step in earned["series"]) == int(earned["total"]["amount"])
    assert int(earned["total"]["amount"]) == int(earned["total"]["income"]) - int(channels["held"])
    assert earned["total"]["dollars"] == f"0.{int(earned['total']['amount']):06}"
    assert exact["archived"] == "40"


async def test_steps_are_round_unless_named(client: httpx2.AsyncClient) -> None:
    day = conforms(await client.get("/api/v1/earnings"), "Earnings")
    assert (day["to"] - day["from"], day["step"]) == (DAY, 900)
    ever = conforms(
        await client.get("/api/v1/earnings", params={"from": "1970-01-01", "to": "9999-12-31"}),
        "Earnings",
    )
    assert (ever["to"] - ever["from"]) / ever["step"] <= 2000


def test_a_period_that_is_not_named_is_round() -> None:
    assert read_period({}, 10 * DAY + 1.5) == (9 * DAY + 900, 10 * DAY + 900)
    assert read_period({}, 10 * DAY + 900.0) == (9 * DAY + 900, 10 * DAY + 900)
    assert read_period({}, 40 * DAY + 1.5, days=30) == (10 * DAY, 40 * DAY + 900)
    assert read_period({"from": "7"}, 901.5) == (7, 1800)
    assert read_period({"to": "90001"}, 1.0) == (3601, 90001)


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("earnings", {"from": "yesterday"}),
        ("earnings", {"from": "2026-01-02", "to": "2026-01-01"}),
        ("earnings", {"from": "2026-01-01", "to": "2026-01-02", "step": "1"}),
        ("earnings", {"step": "0"}),
        ("earnings", {"step": "x"}),
        ("earnings", {"to": "0"}),
        ("payers", {"limit": "501"}),
        ("payers", {"limit": "0"}),
        ("export", {}),
        ("export", {"from": "2026-01-01"}),
        ("export", {"from": "2026-01-01T01:00:00", "to": "2026-01-02"}),
        ("export", {"from": "2026-01-01", "to": "2026-01-02", "format": "xml"}),
    ],
)
async def test_a_question_that_means_nothing_is_told_so(
    client: httpx2.AsyncClient, path: str, params: dict[str, str]
) -> None:
    conforms(await client.get(f"/api/v1/{path}", params=params), "Problem", 400)


async def test_a_sum_is_not_worked_out_again_at_once(
    site: StudioSite, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    slow = site.studio.dashboard._earnings.settlement

    async def settlement() -> Any:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.1)
        return await slow()

    monkeypatch.setattr(site.studio.dashboard._earnings, "settlement", settlement)
    await asyncio.gather(*(client.get("/api/v1/settlement") for _ in range(20)))
    assert asked == 1


async def sell(site: StudioSite, shop: Shop, *rows: tuple[str, int]) -> None:
    """Deliveries through the first channel: rendition and number, amount."""
    payer = shop.payer()
    await shop.deposit(payer, 10_000)
    values = [
        {
            "channel": 1, "epoch": 9, "cumulative": 1000 + number, "amount": amount,
            "slug": "plasma", "resource": f"/hls/plasma/{name}.ts", "size": 10 * amount,
            "created_at": time.time() - 60,
        }
        for number, (name, amount) in enumerate(rows)
    ]  # fmt: skip
    await site.database.write(lambda db: db.execute(insert(deliveries), values).rowcount)


async def test_moments_show_what_is_played_again(
    site: StudioSite, client: httpx2.AsyncClient
) -> None:
    title = await add_title(
        site.catalog,
        renditions=[a_rendition(0, 3, "source"), a_rendition(0, 3, "low", width=640, height=360)],
    )
    sold = (("source/0", 3), ("source/1", 3), ("low/1", 1), ("source/1", 3), ("source/77", 5))
    await sell(site, Shop(site.database), *sold)
    found = conforms(await client.get("/api/v1/earnings/plasma/moments"), "Moments")

    assert [(m["start_seconds"], m["plays"], m["amount"]) for m in found["moments"]] == [
        (0.0, 1, "3"), (6.0, 3, "7"), (12.0, 0, "0"),
    ]  # fmt: skip
    assert found["elsewhere"] == {"plays": 1, "bytes": 50, "amount": "5", "dollars": "0.000005"}
    assert (found["duration_seconds"], found["merged_seconds"]) == (title.duration_us / 1e6, None)


async def test_moments_of_a_long_title_are_merged(
    site: StudioSite, client: httpx2.AsyncClient
) -> None:
    count = 2 * MOMENTS + 1
    segments = tuple(Segment(n, 10, n * 1_000_000, 1_000_000, "0" * 64) for n in range(count))
    await add_title(
        site.catalog,
        renditions=[Rendition("source", "mp4a.40.2", 1, 1, 1, True, segments)],
        duration_us=count * 1_000_000,
    )
    await sell(site, Shop(site.database), ("source/0", 3), (f"source/{count - 1}", 4))
    found = conforms(await client.get("/api/v1/earnings/plasma/moments"), "Moments")
    assert len(found["moments"]) <= MOMENTS and found["merged_seconds"] > 2
    assert [m["amount"] for m in found["moments"] if m["plays"]] == ["3", "4"]


async def test_an_item_that_is_not_there_has_no_moments(client: httpx2.AsyncClient) -> None:
    conforms(await client.get("/api/v1/earnings/nothing/moments"), "Problem", 404)
    conforms(await client.get("/api/v1/earnings/NOT_A_SLUG/moments"), "Problem", 404)


async def test_payers_are_named_most_first(sqlite_url: str) -> None:
    async with a_busy_site(sqlite_url) as (_, client):
        params = {"from": "2000-01-01", "to": "2100-01-01", "limit": "2"}
        found = conforms(await client.get("/api/v1/payers", params=params), "Payers")
    amounts = [int(payer["amount"]) for payer in found["payers"]]
    assert found["count"] == 4 and len(amounts) == 2 and amounts == sorted(amounts, reverse=True)


@pytest.mark.parametrize("form", ["csv", "json"])
async def test_an_export_is_the_commands(sqlite_url: str, form: str) -> None:
    async with a_busy_site(sqlite_url) as (busy, client):
        day = datetime.fromtimestamp(busy.shop.clock(), UTC).date()
        params = {"from": str(day), "to": str(day + timedelta(1)), "format": form}
        reply = await client.get("/api/v1/export", params=params)
        head = await client.head("/api/v1/export", params=params)
    assert reply.status_code == head.status_code == 200
    assert reply.headers["content-disposition"] == f'attachment; filename="xbyte-live.{form}"'
    assert not head.content
    rows = (
        list(csv.DictReader(io.StringIO(reply.text)))
        if form == "csv"
        else json.loads(reply.content)
    )
    assert {row["kind"] for row in rows} == {"delivery", "purchase", "draw", "return"}
    report = await expected_income(busy, day)
    assert sum(int(row["income"]) for row in rows) == report


async def expected_income(busy: Busy, day: Any) -> int:
    database: Database = busy.shop.database
    await database.start()
    try:
        since = datetime.combine(day, datetime.min.time(), UTC).timestamp()
        period = Period(since, since + DAY)
        return (await Earnings(database).report(period, step=DAY)).total.income
    finally:
        await database.stop()


# Streams, keys and prices


async def test_a_stream_is_made_with_its_key(site: StudioSite, client: httpx2.AsyncClient) -> None:
    wanted = {
        "slug": "show", "name": "The show", "price_per_mb": "0.002", "preview_seconds": 10,
        "playlist": "event", "segment_seconds": 4, "record": True, "rewatch": "free",
    }  # fmt: skip
    made = conforms(await client.post("/api/v1/streams", json=wanted), "NewKey", 201)
    assert made["rtmp_url"] == "rtmp://127.0.0.1:1935/live"
    match = await site.streams.match_key(made["stream_key"])
    assert match is not None and match.slug == "show"
    item = conforms(await client.get("/api/v1/items/show"), "Item")
    assert (item["price_per_mb"], item["preview_seconds"]) == ("0.002", 10)
    assert (item["playlist"], item["recording"], item["rewatch"]) == ("event", True, "free")
    conforms(await client.post("/api/v1/streams", json=wanted), "Problem", 409)


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"slug": "NO"},
        {"slug": "x", "price_per_mb": "free"},
        {"slug": "x", "pay_to": "me"},
        {"slug": "x", "playlist": "all"},
        {"slug": "x", "segment_seconds": 11},
        {"slug": "x", "window_seconds": True},
        {"slug": "x", "preview_seconds": -1},
        {"slug": "x", "surprise": 1},
        {"slug": "x", "source": "file:///etc/passwd"},
        {"slug": "x", "source": "http://127.0.0.1/"},
    ],
)
async def test_a_stream_that_cannot_be_is_not_made(
    site: StudioSite, client: httpx2.AsyncClient, wanted: dict[str, Any]
) -> None:
    conforms(await client.post("/api/v1/streams", json=wanted), "Problem", 400)
    assert await site.catalog.items() == []


async def test_keys_are_made_shown_once_and_revoked(
    site: StudioSite, client: httpx2.AsyncClient
) -> None:
    first = (await client.post("/api/v1/streams", json={"slug": "show"})).json()["stream_key"]
    second = conforms(
        await client.post("/api/v1/streams/show/keys", json={"expires_seconds": 60}), "NewKey", 201
    )["stream_key"]
    keys = conforms(await client.get("/api/v1/streams/show/keys"), "Keys")
    assert [key["hint"] for key in keys["keys"]] == [first[-4:], second[-4:]]
    assert first not in str(keys) and second not in str(keys)

    path = f"/api/v1/streams/show/keys/{keys['keys'][0]['id']}"
    conforms(await client.delete(path), "Revoked")
    conforms(await client.delete(path), "Problem", 404)
    assert await site.streams.match_key(first) is None
    third = conforms(await client.post("/api/v1/streams/show/keys/rotate"), "NewKey")["stream_key"]
    assert await site.streams.match_key(second) is None
    assert await site.streams.match_key(third) is not None


@pytest.mark.parametrize("path", ["keys", "keys/rotate"])
async def test_a_stream_that_is_not_there_has_no_keys(
    client: httpx2.AsyncClient, path: str
) -> None:
    conforms(await client.post(f"/api/v1/streams/nothing/{path}"), "Problem", 404)
    conforms(await client.delete("/api/v1/streams/nothing/keys/1"), "Problem", 404)
    conforms(await client.delete("/api/v1/streams/nothing/keys/zero"), "Problem", 404)
    conforms(await client.get("/api/v1/streams/nothing/keys"), "Problem", 404)


async def test_terms_are_changed_as_the_command_does(
    site: StudioSite, client: httpx2.AsyncClient
) -> None:
    await add_title(site.catalog)
    changed = conforms(
        await client.patch(
            "/api/v1/items/plasma",
            json={"price_per_mb": "0.5", "preview_seconds": 30, "rewatch": "free"},
        ),
        "Item",
    )
    assert (changed["price_per_mb"], changed["preview_seconds"]) == ("0.5", 30)
    item = await site.catalog.item("plasma")
    assert item is not None and item.rewatch == "free" and str(item.offers[0].price) == "0.5"
    back = conforms(await client.patch("/api/v1/items/plasma", json={"pay_to": ""}), "Item")
    assert back["pays_default"] and back["pay_to"] == site.settings.pay_to


@pytest.mark.parametrize(
    "terms",
    [{}, {"price_per_mb": "-1"}, {"price_per_mb": 1}, {"rewatch": "maybe"}, {"pay_to": "0x12"}],
)
async def test_terms_that_cannot_be_change_nothing(
    site: StudioSite, client: httpx2.AsyncClient, terms: dict[str, Any]
) -> None:
    await add_title(site.catalog)
    conforms(await client.patch("/api/v1/items/plasma", json=terms), "Problem", 400)


async def test_items_of_every_kind_are_shown_and_removed(
    site: StudioSite, client: httpx2.AsyncClient
) -> None:
    await add_title(site.catalog)
    await add_object(site.catalog)
    await client.post("/api/v1/streams", json={"slug": "show"})
    for slug in ("plasma", "paper", "show"):
        conforms(await client.get(f"/api/v1/items/{slug}"), "Item")
        conforms(await client.delete(f"/api/v1/items/{slug}"), "Removed")
        conforms(await client.get(f"/api/v1/items/{slug}"), "Problem", 404)
        conforms(await client.delete(f"/api/v1/items/{slug}"), "Problem", 404)


async def test_a_body_too_long_or_no_json_is_refused(client: httpx2.AsyncClient) -> None:
    for body in (b"x" * 20_000, b"[]", b"{", b'{"slug": null}'):
        conforms(await client.post("/api/v1/streams", content=body), "Problem", 400)


# Live


async def test_figures_are_told_live(site: StudioSite, client: httpx2.AsyncClient) -> None:
    shop = Shop(site.database)
    shop.clock.now = time.time()
    payer = shop.payer()
    await shop.deposit(payer, 10_000)
    await shop.charge(payer, 42)
    await client.post("/api/v1/streams", json={"slug": "show"})
    retry, figures = await told(site, client, 2)

    assert retry == b"retry: 2000\n\n"
    head, _, data = figures.partition(b"\ndata: ")
    assert head == b"event: figures"
    answer = conforms(httpx2.Response(200, content=data), "Figures")
    assert answer["total"]["amount"] == "42"
    assert [(one["slug"], one["payers"]) for one in answer["items"]] == [("plasma", 1)]
    assert [stream["slug"] for stream in answer["streams"]] == ["show"]
    assert site.studio.events.subscribers == 0


async def test_only_so_many_pages_follow(sqlite_url: str) -> None:
    async with a_studio_site(sqlite_url, event_subscribers=0) as site, site.admin() as client:
        reply = conforms(await client.get("/api/v1/events"), "Problem", 503)
        assert reply["error"] == "overloaded"
        assert (await client.head("/api/v1/events")).status_code == 200


async def test_what_stays_the_same_is_a_heartbeat(
    site: StudioSite, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "HEARTBEAT", 0.0)
    site.studio.events._every = 0.01
    chunks = await told(site, client, 4)
    assert chunks[2:] == [b": still here\n\n"] * 2 or chunks[1:3] == [b": still here\n\n"] * 2


async def test_they_end_with_the_server(site: StudioSite, client: httpx2.AsyncClient) -> None:
    following = asyncio.create_task(told(site, client, 1000))
    while not site.studio.events.subscribers:
        await asyncio.sleep(0.01)
    site.app.state.leaving.set()
    async with asyncio.timeout(10):
        assert await following
    assert site.studio.events.subscribers == 0


async def test_the_page_is_for_everyone_and_tells_nothing(site: StudioSite) -> None:
    async with site.client() as client:
        reply = await client.get("/studio")
    assert reply.status_code == 200
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert TOKEN not in reply.text and "<script>" not in reply.text and "style=" not in reply.text
