"""Adapter: tells other servers what happened, signed and in order, and asks one for its leave."""

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

import httpx

from xbyte_live.errors import ConfigError
from xbyte_live.runtime.aio import backoff

SIGNATURE_HEADER = "X-XByte-Signature"
WAIT_LEAST, WAIT_MOST = 1.0, 60.0  # seconds between attempts
PASSING = frozenset({408, 425, 429})  # "not now"; the other 4xx are no better a minute later

log = logging.getLogger(__name__)

EventKind = Literal["stream.started", "stream.ended", "recording.ready"]


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """Something that happened to an item at ``at`` (Unix seconds); ``data`` goes into JSON."""

    kind: EventKind
    slug: str
    at: float
    data: Mapping[str, Any] = field(default_factory=dict)


class _Declined(Exception):
    """Not taken, for this reason; ``lasting`` if asking again would not help."""

    def __init__(self, reason: str, *, lasting: bool = False) -> None:
        super().__init__(reason)
        self.lasting = lasting


class Webhooks:
    """Sends every event to every URL: to each in order, at least once, or not at all if it is down.

    The body is JSON ``{id, kind, slug, at, data}``; ``id`` is the same at every attempt, so that
    a receiver can tell a repetition. ``X-XByte-Signature: t=<Unix seconds>,v1=<hex>`` holds the
    HMAC-SHA256 of ``<t>.<body>`` under ``secret``. An attempt takes at most ``timeout`` seconds;
    up to ``queue`` events wait for each URL, then the oldest is dropped. Redirects are not
    followed and answers are not read. Nothing waits across a restart.
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
        self._lines = [_Line(url, queue) for url in dict.fromkeys(urls)]
        self._secret = secret.encode()
        self._timeout = timeout
        self._attempts = attempts
        self._wait = wait
        self._clock = clock
        self._http = httpx.AsyncClient(
            timeout=timeout,
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )
        self.delivered = 0
        self.failed = 0  # given up
        self.dropped = 0  # never tried, as too many were waiting

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
        for line in self._lines:
            if line.waiting.full():
                line.waiting.get_nowait()
                line.waiting.task_done()
                self.dropped += 1
                log.warning("%s is too far behind: its oldest event is dropped", line.host)
            line.waiting.put_nowait((event.kind, body))

    async def run(self) -> None:
        """Deliver what is queued, for ever; a receiver that is down holds up no other."""
        async with asyncio.TaskGroup() as group:
            for line in self._lines:
                group.create_task(self._serve(line), name=f"webhooks to {line.host}")

    async def drain(self) -> None:
        """Wait until everything queued is delivered or given up; the caller bounds the time."""
        await asyncio.gather(*(line.waiting.join() for line in self._lines))

    async def veto(self, url: str, question: Mapping[str, Any]) -> str | None:
        """Ask ``url`` whether something may be: ``None`` for a 2xx answer, else why not.

        Asked once, within ``timeout`` seconds; whatever is not a clear yes is a no. ``question``
        is sent as JSON, signed like an event. The reason is fit for whoever wanted it.
        """
        if not self._secret:
            return "the server cannot ask whether it may be: webhook_secret is not set"
        try:
            await self._post(url, _encode(question))
        except _Declined as declined:
            log.warning("%s did not allow it: it %s", _host(url), declined)
            return "it was not allowed by the server's on_publish check"
        return None

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _serve(self, line: "_Line") -> None:
        while True:
            kind, body = await line.waiting.get()
            try:
                await self._deliver(line, kind, body)
            finally:
                line.waiting.task_done()

    async def _deliver(self, line: "_Line", kind: str, body: bytes) -> None:
        for attempt in range(1, self._attempts + 1):
            try:
                await self._post(line.url, body)
            except _Declined as declined:
                if declined.lasting or attempt == self._attempts:
                    log.error("%s was not told of %s: it %s", line.host, kind, declined)
                    break
                log.warning("%s is told of %s later: it %s", line.host, kind, declined)
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
            lasting = status < 500 and status not in PASSING
            raise _Declined(f"answered with status {status}", lasting=lasting)


class _Line:
    """A receiver and the events that wait for it."""

    def __init__(self, url: str, limit: int) -> None:
        self.url = url
        self.host = _host(url)
        self.waiting: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(limit)


def _host(url: str) -> str:
    """What may be logged of a URL, for its path and query often are the password."""
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        return "the webhook"
    return f"{parts.scheme}://{parts.netloc.decode('ascii')}"


def _encode(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
