"""Part: admits publishers by stream key; handles takeovers, reconnects and ends of broadcasts."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qs

from xbyte_live.catalog.streams import EndedBroadcast, KeyMatch, Streams
from xbyte_live.errors import DatabaseUnavailable, FeedFailed, ItemError, PublishRefused
from xbyte_live.live.feed import Feed, FeedPolicy
from xbyte_live.live.feed_stats import FeedStats
from xbyte_live.live.rtmp.events import PublishRequest
from xbyte_live.live.webhooks import WebhookEvent, Webhooks
from xbyte_live.media.live.spawner import FeedSpawner
from xbyte_live.media.sources.url import Source
from xbyte_live.models import FeedLease
from xbyte_live.runtime.rate_limit import RateLimiter, network_of
from xbyte_live.storage.blobs.store import Store

BAD_NAME = "NetStream.Publish.BadName"
DENIED = "NetStream.Publish.Denied"

_CHECK_EVERY = 5.0  # seconds
_SILENT_IF_GONE = 3.0  # seconds; a live publisher sends many tags in that time

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishPolicy:
    """The publishing rules; times in seconds.

    After ``failures`` wrong keys from a network in a minute, further ones are not logged.
    ``on_publish_url``, if set, is asked to allow each publisher.
    """

    feed: FeedPolicy
    take_over: bool
    republish_window: float
    failures: int
    on_publish_url: str = ""


class Publishers:
    """The feeds of this process: ``start``, then ``run`` beside the server, then ``stop``."""

    def __init__(
        self,
        *,
        spawner: FeedSpawner,
        streams: Streams,
        store: Store,
        webhooks: Webhooks,
        policy: PublishPolicy,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._spawner = spawner
        self._streams = streams
        self._store = store
        self._webhooks = webhooks
        self._policy = policy
        self._clock = clock
        self._limiter = RateLimiter(policy.failures)
        self._feeds: dict[str, Feed] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def start(self) -> None:
        """Let the broadcasts that were on air before a restart wait for their publishers."""
        await self._streams.resume_all()

    async def run(self) -> None:
        """End the broadcasts whose publishers stay away, until cancelled."""
        while True:
            try:
                window = self._policy.republish_window
                for ended in await self._streams.end_overdue(window, but_not=self._on_air()):
                    self._send_ended(ended)
            except DatabaseUnavailable as error:
                log.error("overdue broadcasts cannot be ended now: %s", error)
            except Exception:
                log.exception("ending overdue broadcasts failed and will be retried")
            await asyncio.sleep(min(_CHECK_EVERY, self._policy.republish_window / 4))

    async def stop(self) -> None:
        """Close every feed with its last segments listed; broadcasts may resume after a restart."""
        stopping = PublishRefused(DENIED, "the server is stopping; try again shortly")
        feeds = list(self._feeds.values())
        for feed in feeds:
            feed.cut(stopping)
        await asyncio.gather(*(feed.close(unpublished=False) for feed in feeds))

    async def publish(self, request: PublishRequest) -> Feed:
        """Admit a publisher and start its feed; raises ``PublishRefused`` with a reason to show."""
        try:
            match = await self._match_key(request)
            await self._ask_webhook(match.slug, request.address)
            return await self.begin(match.slug, match.key_id, encoder=request.encoder)
        except DatabaseUnavailable:
            raise PublishRefused(DENIED, "the server cannot take streams now") from None

    async def begin(
        self, slug: str, key_id: int | None, *, encoder: str = "", source: Source | None = None
    ) -> Feed:
        """Start a feed, pulled from ``source`` if there is one; raises ``PublishRefused``."""
        async with self._locks.setdefault(slug, asyncio.Lock()):
            await self._make_room(slug)
            try:
                lease = await self._streams.begin_feed(slug, key_id)
            except ItemError:
                raise PublishRefused(BAD_NAME, "there is no such stream any more") from None
            feed = Feed(
                lease,
                policy=self._policy.feed,
                spawner=self._spawner,
                streams=self._streams,
                store=self._store,
                started=self._send_started,
                encoder=encoder,
                source=source,
                clock=self._clock,
            )
            self._feeds[slug] = feed  # so that ``run`` does not end the broadcast meanwhile
            try:
                await feed.start()
            except BaseException as error:
                del self._feeds[slug]
                if not isinstance(error, FeedFailed):
                    raise
                log.error("%s: its feed cannot be started: %s", slug, error)
                await self._streams.release(lease, "")
                raise PublishRefused(DENIED, "the server cannot take streams now") from None
            log.info("%s: a feed %s", slug, "resumes" if lease.resumed else "begins")
            return feed

    def _on_air(self) -> set[str]:
        """The streams with a feed in this process, whatever their heartbeat in the database.

        A feed that is closing counts, since its last segments are still to be listed.
        """
        return {slug for slug, feed in self._feeds.items() if not feed.closed}

    def stats(self) -> dict[str, FeedStats]:
        """The figures of the running feeds, by slug."""
        return {slug: feed.stats for slug, feed in self._feeds.items() if not feed.over}

    async def _match_key(self, request: PublishRequest) -> KeyMatch:
        """The stream a publisher's key opens, given as the name, or as slug and ``?key=``.

        A right key is accepted however many wrong ones its network has tried: keys cannot be
        guessed, so the limit only keeps the log short.
        """
        slug, key = _slug_and_key(request)
        match = await self._streams.match_key(key)
        if match is not None and (not slug or match.slug == slug):
            return match
        network, now = network_of(request.address), asyncio.get_running_loop().time()
        if self._limiter.is_exhausted(network, now):
            raise PublishRefused(DENIED, "too many wrong stream keys")
        self._limiter.count_failure(network, now)
        log.warning("publisher %s: wrong stream key", request.address)
        raise PublishRefused(BAD_NAME, "this is no valid stream key")

    async def _ask_webhook(self, slug: str, address: str) -> None:
        if not self._policy.on_publish_url:
            return
        question = {"slug": slug, "address": address, "at": self._clock()}
        reason = await self._webhooks.veto(self._policy.on_publish_url, question)
        if reason is not None:
            log.warning("%s: the publish webhook refused a publisher: %s", slug, reason)
            raise PublishRefused(DENIED, reason)

    async def _make_room(self, slug: str) -> None:
        """End the stream's present feed, if takeovers are allowed or its publisher is gone."""
        current = self._feeds.get(slug)
        if current is None:
            return
        if not current.over:
            if not self._policy.take_over and current.silent_for < _SILENT_IF_GONE:
                raise PublishRefused(BAD_NAME, "this stream is on air already")
            current.cut(PublishRefused(DENIED, "another publisher took over"))
        try:
            await current.close(unpublished=False)
        finally:
            if current.closed:  # it is not if this wait was cancelled
                del self._feeds[slug]

    def _send_started(self, lease: FeedLease) -> None:
        self._webhooks.send(WebhookEvent("stream.started", lease.slug, self._clock(), {}))

    def _send_ended(self, ended: EndedBroadcast) -> None:
        log.info("%s: the broadcast has ended", ended.slug)
        about = {"broadcast": ended.broadcast, "duration_s": ended.duration_us / 1e6}
        now = self._clock()
        self._webhooks.send(WebhookEvent("stream.ended", ended.slug, now, about))
        if ended.recording:
            recording = {"recording": ended.recording}
            self._webhooks.send(WebhookEvent("recording.ready", ended.slug, now, about | recording))


def _slug_and_key(request: PublishRequest) -> tuple[str, str]:
    """(slug or an empty string, key) from a publisher's request."""
    try:
        given = parse_qs(request.query, max_num_fields=20).get("key")
    except ValueError:
        given = None
    return (request.name, given[0]) if given else ("", request.name)
