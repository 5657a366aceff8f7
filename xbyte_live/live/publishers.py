"""Part: who goes on air: keys, second publishers, reconnects and ends of broadcasts."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qs

from xbyte_live.catalog.streams import Ended, Holder, Streams
from xbyte_live.errors import DatabaseUnavailable, FeedFailed, ItemError, PublishRefused
from xbyte_live.live.feed import Airing, AiringPolicy
from xbyte_live.live.feed_stats import Vitals
from xbyte_live.live.rtmp.publish import PublishRequest
from xbyte_live.live.webhooks import Event, Webhooks
from xbyte_live.media.live.messages import Source
from xbyte_live.media.live.spawner import FeedSpawner
from xbyte_live.models import Airtime
from xbyte_live.runtime.rate_limit import RateLimiter, network_of
from xbyte_live.storage.blobs.store import Store

BAD_NAME = "NetStream.Publish.BadName"
DENIED = "NetStream.Publish.Denied"

_LOOK_EVERY = 5.0  # seconds
_SURELY_GONE = 3.0  # seconds: a publisher that lives sends sound or pictures many times in them

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LivePolicy:
    """The rules of going on air; times in seconds.

    ``failures`` is how many wrong keys an address may try in a minute, before those that follow
    are no news; ``on_publish_url`` is asked for its leave, if there is one.
    """

    airing: AiringPolicy
    take_over: bool
    republish_window: float
    failures: int
    on_publish_url: str = ""


class Live:
    """The broadcasts of this process: ``start``, then ``run`` beside the server, then ``stop``."""

    def __init__(
        self,
        *,
        spawner: FeedSpawner,
        streams: Streams,
        store: Store,
        webhooks: Webhooks,
        policy: LivePolicy,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._spawner = spawner
        self._streams = streams
        self._store = store
        self._webhooks = webhooks
        self._policy = policy
        self._clock = clock
        self._limiter = RateLimiter(policy.failures)
        self._airings: dict[str, Airing] = {}
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
                    self._say_ended(ended)
            except DatabaseUnavailable as error:
                log.error("broadcasts cannot be ended now: %s", error)
            except Exception:
                log.exception("ending broadcasts failed; it is tried again")
            await asyncio.sleep(min(_LOOK_EVERY, self._policy.republish_window / 4))

    async def stop(self) -> None:
        """Close every feed with all it has sent; the broadcasts wait for the next start."""
        stopping = PublishRefused(DENIED, "the server is stopping; try again shortly")
        airings = list(self._airings.values())
        for airing in airings:
            airing.cut(stopping)
        await asyncio.gather(*(airing.close(unpublished=False) for airing in airings))

    async def publish(self, request: PublishRequest) -> Airing:
        """Take a publisher on; raises ``PublishRefused`` with what it may be told."""
        try:
            holder = await self._opened_by(request)
            await self._ask_leave(holder.slug, request.address)
            return await self.begin(holder.slug, holder.key_id, encoder=request.encoder)
        except DatabaseUnavailable:
            raise PublishRefused(DENIED, "the server cannot take streams now") from None

    async def begin(
        self, slug: str, key_id: int | None, *, encoder: str = "", source: Source | None = None
    ) -> Airing:
        """Put a feed on air, pulled from ``source`` if there is one; raises ``PublishRefused``."""
        async with self._locks.setdefault(slug, asyncio.Lock()):
            await self._make_room(slug)
            try:
                airtime = await self._streams.begin_feed(slug, key_id)
            except ItemError:
                raise PublishRefused(BAD_NAME, "there is no such stream any more") from None
            airing = Airing(
                airtime,
                policy=self._policy.airing,
                spawner=self._spawner,
                streams=self._streams,
                store=self._store,
                started=self._say_started,
                encoder=encoder,
                source=source,
                clock=self._clock,
            )
            self._airings[slug] = airing  # a broadcast that goes on is not ended meanwhile
            try:
                await airing.start()
            except BaseException as error:
                del self._airings[slug]
                if not isinstance(error, FeedFailed):
                    raise
                log.error("%s: no feed can be started: %s", slug, error)
                await self._streams.release(airtime, "")
                raise PublishRefused(DENIED, "the server cannot take streams now") from None
            log.info("%s: a feed %s", slug, "goes on" if airtime.resumed else "begins")
            return airing

    def _on_air(self) -> set[str]:
        """Streams whose feeds are known to live, whatever clock and database say of them.

        One that is closing lives, since its last segments are still to be listed.
        """
        return {slug for slug, airing in self._airings.items() if not airing.closed}

    def vitals(self) -> dict[str, Vitals]:
        """How the feeds on air are doing, by slug."""
        return {slug: airing.vitals for slug, airing in self._airings.items() if not airing.over}

    async def _opened_by(self, request: PublishRequest) -> Holder:
        """The stream a publisher has a key of: the key alone, or a slug and ``?key=``.

        A right key is always taken, whoever else tries wrong ones from the same network: nobody
        guesses one, so all a limit is good for is to say less of it.
        """
        slug, key = _names(request)
        holder = await self._streams.holder(key)
        if holder is not None and (not slug or holder.slug == slug):
            return holder
        network, now = network_of(request.address), asyncio.get_running_loop().time()
        if self._limiter.is_exhausted(network, now):
            raise PublishRefused(DENIED, "too many wrong stream keys")
        self._limiter.count_failure(network, now)
        log.warning("a publisher at %s came with a wrong stream key", request.address)
        raise PublishRefused(BAD_NAME, "this is no valid stream key")

    async def _ask_leave(self, slug: str, address: str) -> None:
        if not self._policy.on_publish_url:
            return
        question = {"slug": slug, "address": address, "at": self._clock()}
        reason = await self._webhooks.veto(self._policy.on_publish_url, question)
        if reason is not None:
            log.warning("%s: publishing was not allowed: %s", slug, reason)
            raise PublishRefused(DENIED, reason)

    async def _make_room(self, slug: str) -> None:
        """End the feed a stream has already, if that is the rule or its publisher is gone."""
        current = self._airings.get(slug)
        if current is None:
            return
        if not current.over:
            if not self._policy.take_over and current.silent_for < _SURELY_GONE:
                raise PublishRefused(BAD_NAME, "this stream is on air already")
            current.cut(PublishRefused(DENIED, "another publisher took over"))
        try:
            await current.close(unpublished=False)
        finally:
            if current.closed:  # and not only waited for in vain
                del self._airings[slug]

    def _say_started(self, airtime: Airtime) -> None:
        self._webhooks.send(Event("stream.started", airtime.slug, self._clock(), {}))

    def _say_ended(self, ended: Ended) -> None:
        log.info("%s: the broadcast has ended", ended.slug)
        about = {"broadcast": ended.broadcast, "duration_s": ended.duration_us / 1e6}
        now = self._clock()
        self._webhooks.send(Event("stream.ended", ended.slug, now, about))
        if ended.recording:
            recording = {"recording": ended.recording}
            self._webhooks.send(Event("recording.ready", ended.slug, now, about | recording))


def _names(request: PublishRequest) -> tuple[str, str]:
    """(slug or nothing, key) as a publisher gave them."""
    try:
        given = parse_qs(request.query, max_num_fields=20).get("key")
    except ValueError:
        given = None
    return (request.name, given[0]) if given else ("", request.name)
