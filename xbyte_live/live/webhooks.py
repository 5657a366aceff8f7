"""Adapter: sends signed events to webhook URLs in order, and asks one to allow publishers."""

import asyncio
import hashlib
import hmac
import json
import logging
import random
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Literal

import httpx2

from xbyte_live.errors import ConfigError
from xbyte_live.runtime.aio import backoff

SIGNATURE_HEADER = "X-XByte-Signature"
WAIT_LEAST, WAIT_MOST = 1.0, 60.0  # seconds between attempts
RETRIED_4XX = frozenset({408, 425, 429})  # worth a retry; any other 4xx is final

log = logging.getLogger(__name__)

EventKind = Literal["stream.started", "stream.ended", "recording.ready"]


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """An event of an item at ``at`` (Unix seconds); ``data`` is sent as JSON."""

    kind: EventKind
    slug: str
    at: float
    data: Mapping[str, Any] = field(default_factory=dict)


class _Declined(Exception):
    """A request that was not answered with 2xx, and why; ``lasting`` if a retry would not help."""

    def __init__(self, reason: str, *, lasting: bool = False) -> None:
        super().__init__(reason)
        self.lasting = lasting


class Webhooks:
    """Sends every event to every URL, in order and at least once, unless the URL stays down.

    The body is JSON ``{id, kind, slug, at, data}``; ``id`` is the same at every attempt, so that
    a receiver can drop a repetition. ``X-XByte-Signature: t=<Unix seconds>,v1=<hex>`` holds the
    HMAC-SHA256 of ``<t>.<body>`` under ``secret``. An attempt takes at most ``timeout`` seconds;
    up to ``queue`` events wait for each URL, then the oldest is dropped. Redirects are not
    followed and answers are not read. Queued events are lost at a restart.
    """

    def __init__(
        self,
        urls: Sequence[str],
        secret: str,
        *,
        timeout: float = 10.0,
        attempts: int = 8,
        queue: int = 1000,
        wait: float = WAIT_LEAST,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if urls and not secret:
            raise ConfigError("webhook_urls needs webhook_secret, which signs what is sent")
        if not all(url.startswith(("http://", "https://")) for url in urls):
            raise ConfigError("webhook_urls must begin with http:// or https://")
        self._queues = [_Queue(url, queue) for url in dict.fromkeys(urls)]
        self._secret = secret.encode()
        self._timeout = timeout
        self._attempts = attempts
        self._wait = wait
        self._clock = clock
        self._http = httpx2.AsyncClient(
            timeout=timeout,
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )
        self.delivered = 0
        self.failed = 0  # after the last attempt
        self.dropped = 0  # from a full queue

    def send(self, event: WebhookEvent) -> None:
        """Queue an event for every URL; returns at once."""
        message = {
            "id": secrets.token_hex(16),
            "kind": event.kind,
            "slug": event.slug,
            "at": event.at,
            "data": dict(event.data),
        }
        body = _encode(message)
        for queue in self._queues:
            if queue.waiting.full():
                queue.waiting.get_nowait()
                queue.waiting.task_done()
                self.dropped += 1
                log.warning(
                    "webhook %s is too far behind: its oldest event was dropped", queue.host
                )
            queue.waiting.put_nowait((event.kind, body))

    async def run(self) -> None:
        """Deliver queued events until cancelled; a URL that is down delays no other."""
        async with asyncio.TaskGroup() as group:
            for queue in self._queues:
                group.create_task(self._serve(queue), name=f"webhooks to {queue.host}")

    async def drain(self) -> None:
        """Wait until every queued event is delivered or given up; the caller bounds the time."""
        await asyncio.gather(*(queue.waiting.join() for queue in self._queues))

    async def veto(self, url: str, question: Mapping[str, Any]) -> str | None:
        """Ask ``url`` to allow something: ``None`` for a 2xx answer, else a reason to show.

        Asked once, within ``timeout`` seconds; no answer is a refusal. ``question`` is sent as
        JSON, signed like an event.
        """
        if not self._secret:
            return "the server cannot ask whether it may be: webhook_secret is not set"
        try:
            await self._post(url, _encode(question))
        except _Declined as declined:
            log.warning("webhook %s refused: it %s", _host(url), declined)
            return "it was not allowed by the server's on_publish check"
        return None

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _serve(self, queue: "_Queue") -> None:
        while True:
            kind, body = await queue.waiting.get()
            try:
                await self._deliver(queue, kind, body)
            finally:
                queue.waiting.task_done()

    async def _deliver(self, queue: "_Queue", kind: str, body: bytes) -> None:
        for attempt in range(1, self._attempts + 1):
            try:
                await self._post(queue.url, body)
            except _Declined as declined:
                if declined.lasting or attempt == self._attempts:
                    log.error("webhook %s did not get %s: it %s", queue.host, kind, declined)
                    break
                log.warning("webhook %s gets %s later: it %s", queue.host, kind, declined)
            else:
                self.delivered += 1
                return
            pause = backoff(attempt, random.random(), least=self._wait, most=WAIT_MOST)  # noqa: S311
            await asyncio.sleep(pause)
        self.failed += 1

    async def _post(self, url: str, body: bytes) -> None:
        """Post once; raises ``_Declined`` unless the answer is a 2xx."""
        stamp = int(self._clock())
        signed = hmac.new(self._secret, b"%d.%s" % (stamp, body), hashlib.sha256).hexdigest()
        headers = {
            "content-type": "application/json",
            SIGNATURE_HEADER: f"t={stamp},v1={signed}",
        }
        try:
            request = self._http.build_request("POST", url, content=body, headers=headers)
            async with asyncio.timeout(self._timeout):
                response = await self._http.send(request, stream=True)
                await response.aclose()  # what it says besides its status does not matter
        except TimeoutError:
            raise _Declined("took too long") from None
        except Exception as error:
            # by its name only, since messages of the HTTP library may hold the URL
            raise _Declined(f"could not be asked ({type(error).__name__})") from None
        status = response.status_code
        if not response.is_success:
            lasting = status < 500 and status not in RETRIED_4XX
            raise _Declined(f"answered with status {status}", lasting=lasting)


class _Queue:
    """A URL and the events queued for it."""

    def __init__(self, url: str, limit: int) -> None:
        self.url = url
        self.host = _host(url)
        self.waiting: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(limit)


def _host(url: str) -> str:
    """The scheme and host of a URL, for the log: path and query are often its password."""
    try:
        parts = httpx2.URL(url)
    except httpx2.InvalidURL:
        return "the webhook"
    return f"{parts.scheme}://{parts.netloc.decode('ascii')}"


def _encode(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
