"""Sessions over HTTP, with real payments: bought, played, topped up, ended, and never leaked."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.types import Message

from tests.support.paying import a_payer
from tests.support.session_site import SessionSite, a_session_site, offers_of
from tests.support.web import NOW, a_title, segment_bytes
from xbyte_live.errors import DatabaseUnavailable
from xbyte_live.payments.ledger.charge import Exposure
from xbyte_live.payments.x402.requirements import SCHEME_CHANNELS, SCHEME_EXACT

PRICE = 3815  # of one segment: ceil(4000 × 1,000,000 / 2**20)
BOTH = pytest.mark.parametrize("scheme", [SCHEME_EXACT, SCHEME_CHANNELS])


@pytest.fixture
async def site(sqlite_url: str) -> AsyncIterator[SessionSite]:
    async with a_session_site(sqlite_url) as site:
        site.add(a_title())
        site.add(a_title("other"))
        site.add(a_title("gift", price=0))
        yield site


def path_of(bought: dict[str, Any], name: str = "") -> str:
    url: str = bought["url"]
    return url.replace("http://site.test", "").replace("index.m3u8", name)


def said(caplog: pytest.LogCaptureFixture) -> str:
    """What we logged; the test's own client logs its URLs."""
    form = logging.Formatter("%(message)s")
    return "\n".join(form.format(r) for r in caplog.records if r.name.startswith("xbyte_live"))


# Buying


async def test_a_session_is_sold_like_anything_else(site: SessionSite) -> None:
    async with site.client() as client:
        body = {"slug": "plasma", "budget": "0.50"}
        asked = await client.post("/api/v1/sessions", json=body)
    assert asked.status_code == 402
    offers = offers_of(asked)
    assert [offer["amount"] for offer in offers.values()] == ["500000", "500000"]
    assert asked.headers["cache-control"] == "no-store"
    v1 = asked.json()["accepts"]
    assert [(offer["scheme"], offer["maxAmountRequired"]) for offer in v1] == [("exact", "500000")]


@BOTH
async def test_what_was_bought_is_told_and_told_again(site: SessionSite, scheme: str) -> None:
    async with site.client() as client:
        bought = await site.buy(client, scheme, ttl=600)
        again = await client.post(
            "/api/v1/sessions", json=bought["body"], headers=bought["headers"]
        )
    assert bought["url"] == f"http://site.test/s/{bought['token']}/hls/plasma/index.m3u8"
    assert bought["topup_url"] == f"http://site.test/s/{bought['token']}/topup"
    assert (bought["budget"], bought["drawn"], bought["left"]) == ("0.02", "0", "0.02")
    assert bought["expires_at"] == int(NOW) + 600
    assert again.status_code == 201
    assert again.json()["token"] == bought["token"]
    assert again.headers["referrer-policy"] == "no-referrer"
    assert (await site.sessions.totals()).count == 1


async def test_a_v1_payer_buys_too(site: SessionSite) -> None:
    async with site.client() as client:
        body = {"slug": "plasma", "budget": 0.5}
        asked = await client.post("/api/v1/sessions", json=body)
        headers = site.by_v1(asked.json()["accepts"][0])
        bought = await client.post("/api/v1/sessions", json=body, headers=headers)
    assert (bought.status_code, bought.json()["budget"]) == (201, "0.5")
    assert "x-payment-response" in bought.headers


async def test_who_breaks_off_while_asking_is_no_fault_of_ours(
    site: SessionSite, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Message] = [
        {"type": "http.request", "body": b'{"slug": "pla', "more_body": True},
        {"type": "http.disconnect"},
    ]
    answered: list[Message] = []

    async def receive() -> Message:
        return told.pop(0)

    async def send(message: Message) -> None:
        answered.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/v1/sessions",
        "query_string": b"",
        "headers": [],
        "raw_path": b"/api/v1/sessions",
        "root_path": "",
        "scheme": "http",
        "server": ("site.test", 80),
        "client": ("192.0.2.1", 1234),
        "http_version": "1.1",
    }
    with caplog.at_level("INFO"):
        await site.app(scope, receive, send)

    assert (told, answered, caplog.messages) == ([], [], [])


@BOTH
async def test_50_retries_at_once_are_one_session(site: SessionSite, scheme: str) -> None:
    async with site.client() as client:
        body = {"slug": "plasma", "budget": "0.02"}
        offer = offers_of(await client.post("/api/v1/sessions", json=body))[scheme]
        pay = site.by_exact(offer) if scheme == SCHEME_EXACT else site.by_voucher(offer, 0)
        answers = await asyncio.gather(
            *(client.post("/api/v1/sessions", json=body, headers=pay) for _ in range(50))
        )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["token"] for answer in answers}) == 1
    assert (await site.sessions.totals()).left == 20_000


async def test_minutes_are_a_budget_at_the_items_rate_whatever_that_is_later(
    site: SessionSite,
) -> None:
    async with site.client() as client:
        body = {"slug": "plasma", "minutes": 1}
        asked = await client.post("/api/v1/sessions", json=body)
        offer = offers_of(asked)[SCHEME_EXACT]
        assert int(offer["amount"]) == -(-800_000 * 60 // 8 * 1_000_000 // 2**20)
        pay = site.by_exact(offer)
        site.add(a_title(price=2_000_000))  # asked again now, it would cost twice as much
        first = await client.post("/api/v1/sessions", json=body, headers=pay)
        again = await client.post("/api/v1/sessions", json=body, headers=pay)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["token"] == again.json()["token"]


async def test_an_idempotency_key_tells_like_orders_apart(site: SessionSite) -> None:
    async with site.client() as client:
        bought = await site.buy(client)
        other = await client.post(
            "/api/v1/sessions",
            json=bought["body"],
            headers={**bought["headers"], "Idempotency-Key": "second"},
        )
    assert other.status_code == 402, "one payment buys one order"


async def test_under_optimistic_a_session_waits_for_its_money(sqlite_url: str) -> None:
    async with a_session_site(sqlite_url, exposure=Exposure(10**9, 10**9)) as site:
        site.add(a_title())
        site.facilitator.script = ["moved, silent"]
        async with site.client() as client:
            await site.buy(client)
    assert len(site.facilitator.settled) == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"slug": "plasma"}, 400),
        ({"slug": "plasma", "budget": "0"}, 400),
        ({"slug": "plasma", "budget": "20.000001"}, 400),
        ({"slug": "plasma", "budget": "-1"}, 400),
        ({"slug": "plasma", "budget": "1e3"}, 400),
        ({"slug": "plasma", "budget": True}, 400),
        ({"slug": "plasma", "budget": "0.0000001"}, 400),
        ({"slug": "plasma", "budget": "1", "minutes": 1}, 400),
        ({"slug": "plasma", "minutes": 0}, 400),
        ({"slug": "plasma", "minutes": 1.5}, 400),
        ({"slug": "plasma", "budget": "1", "ttl": -1}, 400),
        ({"slug": "plasma", "budget": "1", "extra": 1}, 400),
        ({"slug": "gift", "budget": "1"}, 400),
        ({"slug": 1, "budget": "1"}, 400),
        ({"slug": "nothing", "budget": "1"}, 404),
        ({"slug": "../x", "budget": "1"}, 404),
        ([], 400),
        ("text", 400),
    ],
)
async def test_an_order_that_means_nothing_is_refused(
    site: SessionSite, body: Any, status: int
) -> None:
    async with site.client() as client:
        answer = await client.post("/api/v1/sessions", json=body)
    assert answer.status_code == status, answer.text


async def test_bodies_and_methods_are_bounded(site: SessionSite) -> None:
    async with site.client() as client:
        long = await client.post("/api/v1/sessions", content=b" " * 5000)
        odd = await client.post("/api/v1/sessions", content=b"[" * 3000)
        key = {"Idempotency-Key": "x" * 65}
        named = await client.post("/api/v1/sessions", json={"slug": "plasma"}, headers=key)
        get = await client.get("/api/v1/sessions")
    assert [a.status_code for a in (long, odd, named, get)] == [400, 400, 400, 405]
    assert get.headers["allow"] == "POST"


# Playing


@BOTH
async def test_a_player_plays_by_urls_alone(site: SessionSite, scheme: str) -> None:
    async with site.client() as client:
        bought = await site.buy(client, scheme)
        top = await client.get(bought["url"])
        assert "source/index.m3u8" in top.text.splitlines()
        media = await client.get(path_of(bought, "source/index.m3u8"))
        assert "2.ts" in media.text.splitlines()
        segment = await client.get(path_of(bought, "source/2.ts"))
        state = (await client.get(path_of(bought).partition("/hls/")[0])).json()
    assert (segment.status_code, segment.content) == (200, segment_bytes(2))
    assert segment.headers["content-type"] == "video/mp2t"
    assert (state["drawn"], state["left"]) == ("0.003815", "0.016185")
    for answer in (top, media, segment):
        assert answer.headers["cache-control"].startswith("private")
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["access-control-allow-origin"] == "*"
    if scheme == SCHEME_CHANNELS:
        channel = await site.channel()
        assert (channel.charged, channel.held, channel.claimable) == (20_000, 16_185, PRICE)


async def test_parts_retries_and_looks_cost_what_they_should(site: SessionSite) -> None:
    async with site.client() as client:
        bought = await site.buy(client)
        url = path_of(bought, "source/2.ts")
        head = await client.head(url)
        part = await client.get(url, headers={"Range": "bytes=0-999"})
        assert (part.status_code, part.content) == (206, segment_bytes(2)[:1000])
        assert (head.status_code, head.headers["content-length"]) == (200, "4000")
        await client.get(url, headers={"Range": "bytes=0-999"})
        assert (await site.sessions.totals()).left == 20_000 - 954
        await client.get(url)
        for wanted in ("bytes=5-9", "bytes=0-", "bytes=-1"):
            again = await client.get(url, headers={"Range": wanted})
            assert again.status_code == 206
        etag = {"If-None-Match": again.headers["etag"]}
        assert (await client.get(url, headers=etag)).status_code == 304
        outside = await client.get(url, headers={"Range": "bytes=4000-"})
        assert outside.status_code == 416
    assert (await site.sessions.totals()).left == 20_000 - 954 - PRICE


async def test_previews_are_free_and_watching_again_may_be(site: SessionSite) -> None:
    site.add(a_title(preview_us=7_000_000, rewatch="free"))
    async with site.client() as client:
        bought = await site.buy(client)
        for msn in (0, 1, 2, 2):
            assert (await client.get(path_of(bought, f"source/{msn}.ts"))).status_code == 200
        site.clock.now += 3600
        assert (await client.get(path_of(bought, "source/2.ts"))).status_code == 200
    assert (await site.sessions.totals()).left == 20_000 - PRICE


async def test_bytes_that_cannot_be_read_are_never_drawn(site: SessionSite) -> None:
    del site.store.files["plasma/source/2.ts"]
    async with site.client() as client:
        bought = await site.buy(client)
        answer = await client.get(path_of(bought, "source/2.ts"))
    assert answer.status_code == 503
    assert (await site.sessions.totals()).left == 20_000


async def test_without_the_database_no_byte_leaves(
    site: SessionSite, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_: object) -> None:
        raise DatabaseUnavailable("the database did not take the write")

    async with site.client() as client:
        bought = await site.buy(client)
        monkeypatch.setattr(site.sessions, "draw", broken)
        with caplog.at_level(logging.DEBUG):
            answer = await client.get(path_of(bought, "source/2.ts"))
    assert (answer.status_code, b"<2>" in answer.content) == (503, False)
    assert "answered 503" in said(caplog)
    assert bought["token"] not in said(caplog)


# Empty


@BOTH
async def test_an_empty_session_asks_for_more_and_a_payer_gives_it(
    site: SessionSite, scheme: str
) -> None:
    async with site.client() as client:
        bought = await site.buy(client, scheme, budget="0.0050")
        assert (await client.get(path_of(bought, "source/0.ts"))).status_code == 200
        url = path_of(bought, "source/1.ts")
        empty = await client.get(url)
        assert empty.status_code == 402
        shown = empty.json()
        assert shown["error"] == "session_empty"
        assert (shown["left"], shown["needed"]) == ("0.001185", "0.003815")
        topup = httpx2.URL(f"http://site.test{url}").join(shown["topup"])
        assert str(topup) == bought["topup_url"]
        offers = offers_of(empty)
        assert [(name, offer["amount"]) for name, offer in offers.items()] == [(scheme, "5000")]
        if scheme == SCHEME_EXACT:
            pay = site.by_exact(offers[scheme])
        else:
            pay = site.by_voucher(offers[scheme], (await site.channel()).charged)
        paid = await client.get(url, headers=pay)  # what any paying client does by itself
        assert (paid.status_code, paid.content) == (200, segment_bytes(1))
        assert "payment-response" in paid.headers
        same = await client.post(topup.path, headers=pay)
        assert (same.status_code, same.json()["budget"]) == (200, "0.01")
        more = await client.post(topup.path, json={"budget": "0.02"})
        assert offers_of(more)[scheme]["amount"] == "20000"


@BOTH
async def test_a_top_up_extends_budget_and_time(site: SessionSite, scheme: str) -> None:
    async with site.client() as client:
        bought = await site.buy(client, scheme, ttl=600)
        site.clock.now += 300
        url = bought["topup_url"]
        offer = offers_of(await client.post(url, json={"budget": "1"}))[scheme]
        if scheme == SCHEME_EXACT:
            pay = site.by_exact(offer)
        else:
            pay = site.by_voucher(offer, (await site.channel()).charged)
        answers = [await client.post(url, json={"budget": "1"}, headers=pay) for _ in range(3)]
    assert {(a.status_code, a.json()["budget"]) for a in answers} == {(200, "1.02")}
    assert answers[0].json()["expires_at"] == int(NOW) + 300 + 86_400


async def test_nobody_else_pays_into_a_session(site: SessionSite) -> None:
    async with site.client() as client:
        bought = await site.buy(client)
        offer = offers_of(await client.post(bought["topup_url"]))[SCHEME_EXACT]
        site.account = a_payer()
        refused = await client.post(bought["topup_url"], headers=site.by_exact(offer))
    assert refused.status_code == 402
    assert refused.json()["error"] == "payer_mismatch"
    assert len(site.facilitator.settled) == 1


# Ending


@BOTH
async def test_delete_gives_back_what_is_left_once(site: SessionSite, scheme: str) -> None:
    async with site.client() as client:
        bought = await site.buy(client, scheme)
        own = f"/s/{bought['token']}"
        await client.get(path_of(bought, "source/0.ts"))
        ended = await client.delete(own)
        assert (ended.status_code, ended.json()) == (
            200,
            {
                "drawn": "0.003815",
                "returned": "0.016185",
                "way": "channel" if scheme == SCHEME_CHANNELS else "credit",
            },
        )
        after = [
            await client.request(method, url)
            for method, url in (
                ("DELETE", own),
                ("GET", own),
                ("GET", bought["url"]),
                ("GET", path_of(bought, "source/0.ts")),
                ("POST", f"{own}/topup"),
            )
        ]
        assert {a.status_code for a in after} == {404}
        assert len({a.text for a in after}) == 1
        again = await client.post(
            "/api/v1/sessions", json=bought["body"], headers=bought["headers"]
        )
        if scheme == SCHEME_CHANNELS:
            channel = await site.channel()
            assert (channel.charged, channel.held) == (PRICE, 0)
        else:
            assert again.status_code == 410
            renewed = await site.buy(client, scheme)
            assert renewed["budget"] == "0.036185", "with the credit that was left"


async def test_a_session_that_expired_says_no_more_than_a_wrong_token(site: SessionSite) -> None:
    async with site.client() as client:
        bought = await site.buy(client, ttl=60)
        site.clock.now += 60
        url = path_of(bought, "source/0.ts")
        expired = await client.get(url)
        wrong = await client.get(url.replace(bought["token"], "A" * 43))
        odd = [
            (await client.get(url.replace(bought["token"], token))).status_code
            for token in ("A" * 44, "A", "%41" * 43, bought["token"] + "/..", "é" * 43)
        ]
        await site.sessions.sweep()
    assert expired.status_code == wrong.status_code == 404
    assert expired.text == wrong.text
    assert set(odd) == {404}
    assert (await site.sessions.totals()).count == 0


async def test_a_session_opens_no_other_item(site: SessionSite) -> None:
    async with site.client() as client:
        bought = await site.buy(client)
        for name in ("index.m3u8", "source/index.m3u8", "source/0.ts", "pricing.json"):
            own = await client.get(path_of(bought, name))
            other = await client.get(path_of(bought, name).replace("plasma", "other"))
            assert (own.status_code, other.status_code) == (200, 404), name


async def test_a_crash_between_payment_and_session_is_mended(site: SessionSite) -> None:
    async with site.client() as client:
        bought = await site.buy(client)
        with (
            pytest.MonkeyPatch.context() as patch,
            pytest.raises(AssertionError, match="internal_error"),
        ):
            patch.setattr(site.budgets, "paid", _die)
            await site.buy(client, budget="0.03")
    (charge,), _ = await site.budgets.unopened(0)
    await site.sessions.sweep()
    assert (await site.budgets.unopened(0))[0] == []
    mended = await site.budgets.bought(f"x{charge}")
    assert mended is not None and mended.budget == 30_000
    assert bought["budget"] == "0.02"


async def _die(*_: object) -> None:
    raise SystemError("the server died here")


# A shared link


async def test_a_session_plays_in_few_places(site: SessionSite) -> None:
    async with site.client() as client:
        bought = await site.buy(client)
    url = path_of(bought, "source/0.ts")
    statuses = []
    for number in range(1, 7):
        async with site.client(f"192.0.2.{number}") as other:
            statuses.append((await other.get(url)).status_code)
    assert statuses == [200] * 4 + [429] * 2
    site.clock.now += 120
    async with site.client("192.0.2.6") as other:
        assert (await other.get(url)).status_code == 200


async def test_few_requests_of_a_session_are_answered_at_a_time(site: SessionSite) -> None:
    async with site.client() as client:
        bought = await site.buy(client, budget="1")
        held = asyncio.Event()
        real = site.sessions.draw

        async def slow(new: Any) -> Any:
            await held.wait()
            return await real(new)

        site.sessions.draw = slow  # type: ignore[method-assign]
        waiting = [
            asyncio.create_task(client.get(path_of(bought, f"source/{n % 5}.ts")))
            for n in range(10)
        ]
        while sum(task.done() for task in waiting) < 6:
            await asyncio.sleep(0)
        held.set()
        answers = await asyncio.gather(*waiting)
        assert Counter(a.status_code for a in answers) == {200: 4, 429: 6}
        crowded = next(a for a in answers if a.status_code == 429)
        assert crowded.headers["retry-after"] == "5"
        assert (await client.get(path_of(bought, "source/0.ts"))).status_code == 200


# Nothing leaks


async def test_tokens_are_in_no_log_metric_or_database(
    site: SessionSite, caplog: pytest.LogCaptureFixture, sqlite_url: str
) -> None:
    with caplog.at_level(logging.DEBUG):
        async with site.client() as client:
            bought = await site.buy(client, SCHEME_CHANNELS)
            for name in ("index.m3u8", "source/index.m3u8", "source/0.ts", "source/99.ts"):
                await client.get(path_of(bought, name))
            await client.post(bought["topup_url"])
            site.store.files.clear()
            await client.get(path_of(bought, "source/1.ts"))
            metrics = (await client.get("/metrics")).text
            await client.delete(f"/s/{bought['token']}")
    assert bought["token"] not in said(caplog)
    assert bought["token"] not in metrics
    assert 'route="/s/{token}/hls/{slug}/{rendition}/{msn}.ts"' in metrics
    assert 'xbyte_session_draws_total{result="drawn"} 1.0' in metrics
    assert "xbyte_session_drawn_units_total 3815.0" in metrics
    file = sqlite_url.removeprefix("sqlite:///")
    for name in (file, f"{file}-wal"):
        assert bought["token"].encode() not in Path(name).read_bytes()
