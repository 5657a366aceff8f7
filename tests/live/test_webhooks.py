"""Webhooks: what is sent in which order, and receivers that refuse, fail or never answer."""

import asyncio
import hashlib
import hmac
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.facilitator_double import (
    Answer,
    Endless,
    FacilitatorDouble,
    HangUp,
    Held,
    Reply,
    Trickle,
    facilitator_double,
    redirect,
    refusing_url,
    silent_url,
)
from xbyte_live.errors import ConfigError
from xbyte_live.live.webhooks import WebhookEvent, Webhooks
from xbyte_live.runtime.aio import backoff

SECRET = "a long and random secret"
NOW = 1_763_821_273.5
STARTED = WebhookEvent("stream.started", "plasma", NOW, {"title": "Plasma – live"})
ENDED = WebhookEvent("stream.ended", "plasma", NOW + 60)
OK = Reply(204)
BUSY = Reply(503)
QUESTION = {"slug": "plasma", "address": "192.0.2.7", "at": NOW}


@pytest.fixture
async def receiver() -> AsyncIterator[FacilitatorDouble]:
    async with facilitator_double() as running:
        running.always("hook", OK)
        yield running


@pytest.fixture
async def other() -> AsyncIterator[FacilitatorDouble]:
    async with facilitator_double() as running:
        running.always("hook", OK)
        yield running


def hook(receiver: FacilitatorDouble) -> str:
    return receiver.url + "/hook"


@asynccontextmanager
async def sending(*urls: str, **options: Any) -> AsyncIterator[Webhooks]:
    """Webhooks at work, in a hurry."""
    webhooks = Webhooks(urls, SECRET, **{"timeout": 5.0, "wait": 0.01} | options)
    running = asyncio.create_task(webhooks.run())
    try:
        yield webhooks
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await webhooks.close()


async def told(*events: WebhookEvent, to: str, **options: Any) -> Webhooks:
    async with sending(to, **options) as webhooks:
        for event in events:
            webhooks.send(event)
        await webhooks.drain()
    return webhooks


def outcome(webhooks: Webhooks) -> tuple[int, int, int]:
    return webhooks.delivered, webhooks.failed, webhooks.dropped


def kinds(receiver: FacilitatorDouble) -> list[str]:
    return [call.body["kind"] for call in receiver.calls]


async def asked(url: str, *, timeout: float = 5.0) -> str | None:
    webhooks = Webhooks((), SECRET, timeout=timeout)
    try:
        return await webhooks.veto(url, QUESTION)
    finally:
        await webhooks.close()


async def test_an_event_arrives_as_json(receiver: FacilitatorDouble) -> None:
    webhooks = await told(STARTED, to=hook(receiver))
    (call,) = receiver.calls
    assert call.method == "POST"
    assert call.headers["content-type"] == "application/json"
    assert len(call.body.pop("id")) == 32
    assert call.body == {
        "kind": "stream.started",
        "slug": "plasma",
        "at": NOW,
        "data": {"title": "Plasma – live"},
    }
    assert outcome(webhooks) == (1, 0, 0)


async def test_the_signature_covers_the_time_and_the_exact_bytes_of_the_body() -> None:
    seen: list[tuple[str, bytes]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers["content-length"]))
        seen.append((headers["x-xbyte-signature"], body))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server:
        await told(STARTED, to=f"http://{host}:{port}/", clock=lambda: NOW)
    ((signature, body),) = seen
    stamp, digest = (part.partition("=")[2] for part in signature.split(","))
    assert stamp == "1763821273"
    expected = hmac.new(SECRET.encode(), stamp.encode() + b"." + body, hashlib.sha256)
    assert hmac.compare_digest(digest, expected.hexdigest())
    assert json.loads(body)["slug"] == "plasma"


async def test_what_fails_is_sent_again_with_the_same_id_and_a_fresh_signature(
    receiver: FacilitatorDouble,
) -> None:
    times = iter([100.0, 200.0, 300.0])
    receiver.next("hook", Reply(500), Reply(502), OK)
    webhooks = await told(STARTED, to=hook(receiver), clock=lambda: next(times))
    assert outcome(webhooks) == (1, 0, 0)
    assert len({call.body["id"] for call in receiver.calls}) == 1
    stamps = [call.headers["x-xbyte-signature"].partition(",")[0] for call in receiver.calls]
    assert stamps == ["t=100", "t=200", "t=300"]


@pytest.mark.parametrize(
    "passing", [Reply(500), Reply(429), Reply(408), HangUp(), HangUp(b"HTTP/1.1 2")], ids=repr
)
async def test_a_passing_failure_is_tried_again(
    receiver: FacilitatorDouble, passing: Answer
) -> None:
    receiver.next("hook", passing)
    assert outcome(await told(STARTED, to=hook(receiver))) == (1, 0, 0)
    assert receiver.count("hook") == 2


@pytest.mark.parametrize("status", [300, 304, 400, 401, 404, 410, 413])
async def test_a_lasting_refusal_is_not(receiver: FacilitatorDouble, status: int) -> None:
    receiver.next("hook", Reply(status))
    assert outcome(await told(STARTED, ENDED, to=hook(receiver))) == (1, 1, 0)
    assert kinds(receiver) == ["stream.started", "stream.ended"]


async def test_after_so_many_attempts_it_is_given_up_and_the_next_one_sent(
    receiver: FacilitatorDouble,
) -> None:
    receiver.next("hook", BUSY, BUSY, BUSY)
    assert outcome(await told(STARTED, ENDED, to=hook(receiver), attempts=3)) == (1, 1, 0)
    assert kinds(receiver) == ["stream.started"] * 3 + ["stream.ended"]


async def test_events_keep_their_order_while_one_is_retried(receiver: FacilitatorDouble) -> None:
    receiver.next("hook", BUSY, BUSY, OK, BUSY)
    ready = WebhookEvent("recording.ready", "plasma", NOW)
    assert outcome(await told(STARTED, ENDED, ready, to=hook(receiver))) == (3, 0, 0)
    order = ["stream.started"] * 3 + ["stream.ended"] * 2 + ["recording.ready"]
    assert kinds(receiver) == order


async def test_a_receiver_that_hangs_holds_up_no_other(
    receiver: FacilitatorDouble, other: FacilitatorDouble
) -> None:
    held, second = Held(OK), Held(OK)
    receiver.next("hook", held)
    other.next("hook", OK, second)
    async with sending(hook(receiver), hook(other)) as webhooks:
        webhooks.send(STARTED)
        await held.arrived.wait()
        webhooks.send(ENDED)
        await second.arrived.wait()
        second.release.set()
        assert receiver.count("hook") == 1
        held.release.set()
        await webhooks.drain()
    assert kinds(receiver) == kinds(other) == ["stream.started", "stream.ended"]


async def test_silence_ends_with_the_timeout(receiver: FacilitatorDouble) -> None:
    receiver.next("hook", Held())
    assert outcome(await told(STARTED, to=hook(receiver), timeout=0.2)) == (1, 0, 0)
    assert receiver.count("hook") == 2


@pytest.mark.parametrize("answer", [Endless(), Trickle(0.01)], ids=["endless", "trickle"])
async def test_the_body_of_an_answer_is_not_waited_for(
    receiver: FacilitatorDouble, answer: Answer
) -> None:
    receiver.next("hook", answer)
    assert outcome(await told(STARTED, to=hook(receiver))) == (1, 0, 0)
    assert receiver.count("hook") == 1
    if isinstance(answer, Endless):
        assert answer.sent < 64 << 20


async def test_nobody_listening_is_a_failure_that_ends() -> None:
    with refusing_url() as url:
        assert outcome(await told(STARTED, to=url, attempts=2)) == (0, 1, 0)


async def test_redirects_are_not_followed(
    receiver: FacilitatorDouble, other: FacilitatorDouble
) -> None:
    receiver.always("hook", redirect(hook(other), 307))
    assert outcome(await told(STARTED, to=hook(receiver))) == (0, 1, 0)
    assert await asked(hook(receiver)) is not None
    assert other.calls == []


async def test_when_too_many_wait_the_oldest_are_dropped_and_counted(
    receiver: FacilitatorDouble,
) -> None:
    held = Held(OK)
    receiver.next("hook", held)
    async with sending(hook(receiver), queue=2) as webhooks:
        webhooks.send(STARTED)
        await held.arrived.wait()
        for number in range(5):
            webhooks.send(WebhookEvent("stream.ended", f"s{number}", NOW))
        held.release.set()
        await webhooks.drain()
    assert [call.body["slug"] for call in receiver.calls] == ["plasma", "s3", "s4"]
    assert outcome(webhooks) == (3, 0, 3)


async def test_cookies_are_not_kept(receiver: FacilitatorDouble) -> None:
    receiver.always("hook", Reply(200, b"", {"set-cookie": "a=b"}))
    await told(STARTED, ENDED, to=hook(receiver))
    assert all("cookie" not in call.headers for call in receiver.calls)


async def test_on_publish_is_told_who_wants_to_and_may_say_yes(receiver: FacilitatorDouble) -> None:
    assert await asked(hook(receiver)) is None
    (call,) = receiver.calls
    assert call.body == QUESTION
    assert call.headers["x-xbyte-signature"].startswith("t=")


@pytest.mark.parametrize("answer", [Reply(403), Reply(500), HangUp(), Reply(304)], ids=repr)
async def test_whatever_is_not_a_yes_is_a_no_and_not_asked_again(
    receiver: FacilitatorDouble, answer: Answer
) -> None:
    receiver.next("hook", answer)
    assert await asked(hook(receiver)) == "it was not allowed by the server's on_publish check"
    assert receiver.count("hook") == 1


@pytest.mark.parametrize("nobody", [refusing_url, silent_url])
async def test_no_answer_is_a_no(nobody: Callable[[], Any]) -> None:
    with nobody() as url:
        assert await asked(url, timeout=0.3) is not None


async def test_a_trickled_head_is_a_no_in_time(receiver: FacilitatorDouble) -> None:
    receiver.next("hook", Held())
    async with asyncio.timeout(10):
        assert await asked(hook(receiver), timeout=0.2) is not None


@pytest.mark.parametrize("url", ["", "nonsense", "ftp://host/x", "http://", "https://[::"])
async def test_a_url_that_cannot_be_asked_is_a_no(url: str) -> None:
    assert await asked(url) is not None


async def test_without_a_secret_nothing_is_sent() -> None:
    with pytest.raises(ConfigError, match="webhook_secret"):
        Webhooks(["https://example.com/"], "")
    webhooks = Webhooks((), "")
    assert "webhook_secret" in (await webhooks.veto("http://127.0.0.1:9/", QUESTION) or "")
    await webhooks.close()


def test_only_web_addresses_are_taken() -> None:
    with pytest.raises(ConfigError, match="http"):
        Webhooks(["file:///etc/passwd"], SECRET)


async def test_logs_hold_neither_the_secret_nor_what_is_private_in_a_url(
    receiver: FacilitatorDouble, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "xbyte_live")
    url = hook(receiver).replace("http://", "http://user:hunter2@") + "?token=hush"
    receiver.always("hook?token=hush", BUSY)
    assert outcome(await told(STARTED, to=url, attempts=2)) == (0, 1, 0)
    assert await asked(url) is not None
    said = "\n".join(record.getMessage() for record in caplog.records if "xbyte" in record.name)
    assert receiver.url in said
    assert "status 503" in said
    for private in (SECRET, "hunter2", "hush", "/hook"):
        assert private not in said


@given(st.integers(-5, 10**6), st.floats(0, 1), st.floats(0.001, 10), st.floats(10, 1000))
def test_backoff_rises_to_a_limit(attempt: int, chance: float, least: float, most: float) -> None:
    wait = backoff(attempt, chance, least=least, most=most)
    assert least / 2 <= wait <= most
    assert backoff(attempt + 1, chance, least=least, most=most) >= wait


def test_backoff_doubles() -> None:
    assert [backoff(n, 0, least=1, most=60) for n in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff(3, 1, least=1, most=60) == 2
