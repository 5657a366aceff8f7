"""Part: one feed: its tags go to a child process; each segment is stored, then listed."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from xbyte_live.catalog.streams import Streams
from xbyte_live.errors import (
    DatabaseUnavailable,
    FeedFailed,
    MediaError,
    PublishRefused,
    StoreError,
    XByteError,
)
from xbyte_live.live.feed_stats import FeedStats
from xbyte_live.live.keyframe_timer import KeyframeTimer
from xbyte_live.media.formats.flv import (
    SCRIPT,
    VIDEO,
    Tag,
    describe,
    encode_tag,
    file_header,
    may_begin,
)
from xbyte_live.media.live.messages import (
    FeedEvent,
    FeedOptions,
    FeedSegment,
    FeedTrack,
    FeedWarning,
)
from xbyte_live.media.live.process import FeedProcess
from xbyte_live.media.live.spawner import FeedSpawner
from xbyte_live.media.sources.url import Source
from xbyte_live.models import FeedLease, Listing, Rendition, Segment, segment_key
from xbyte_live.storage.blobs.store import Store

RENDITION = "source"
REJECTED = "NetStream.Publish.Rejected"

_RETRY_EVERY = 0.5  # seconds
_RETRY_FOR = 4.0  # seconds, for one segment; shorter than the stall timeout of a child
_FINISH_WITHIN = 10.0  # seconds, for the last segments of a child
_RESTART_WINDOW = 60.0  # seconds
_RENEW_EVERY = 5.0  # seconds

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedPolicy:
    """How a feed is run: its child restarts at most ``restarts`` times a minute.

    Its lease is renewed every ``renew_every`` seconds.
    """

    options: FeedOptions
    restarts: int
    renew_every: float = _RENEW_EVERY


class Feed:
    """A publisher's media from its first tag to its last segment: ``start``, ``write``, ``close``.

    It may also end by itself; ``ended`` then returns the reason.
    """

    def __init__(
        self,
        lease: FeedLease,
        *,
        policy: FeedPolicy,
        spawner: FeedSpawner,
        streams: Streams,
        store: Store,
        started: Callable[[FeedLease], None],
        encoder: str = "",
        source: Source | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.lease = lease
        self.stats = FeedStats(clock(), encoder=encoder[:80])
        self._policy = policy
        self._spawner = spawner
        self._streams = streams
        self._store = store
        self._started = started
        self._source = source
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[PublishRefused] = self._loop.create_future()
        self._closing: asyncio.Task[None] | None = None
        self._process: FeedProcess | None = None
        self._running: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._configs: dict[int, Tag] = {}
        self._failures: list[float] = []
        self._late = self._dropped = 0  # as counted by the present child
        self._doubtful: Listing | None = None
        self._writing = False
        self._track: FeedTrack | None = None
        self._next_msn = lease.next_msn
        self._last_end_us = lease.not_before_us
        self._declared = lease.target_duration_s
        self._broken = lease.next_msn > 0  # its first segment does not continue the last listed one
        self._begun = lease.resumed
        self._last_tag_at = self._loop.time()
        self._keyframes = KeyframeTimer()

    @property
    def silent_for(self) -> float:
        """Seconds since the publisher's last tag; 0 while a write waits for the packager."""
        return 0.0 if self._writing else self._loop.time() - self._last_tag_at

    @property
    def over(self) -> bool:
        """Whether it has ended, or is ending."""
        return self._closing is not None or self._ended.done()

    @property
    def closed(self) -> bool:
        """Whether its last segment is listed and its lease released."""
        return self._closing is not None and self._closing.done()

    async def start(self) -> None:
        """Start the child process; raises ``FeedFailed``."""
        self._process = await self._new_process()
        self._running = asyncio.create_task(self._run())
        self._renewing = asyncio.create_task(self._renew())

    async def write(self, tags: Sequence[Tag]) -> float:
        """Pass tags on, waiting while the child is behind; raises ``PublishRefused`` once ended.

        Returns how many seconds the next tags may be gathered.
        """
        if self._ended.done():
            raise self._ended.result()
        self._last_tag_at = self._loop.time()
        for tag in tags:
            self._remember(tag)
        process = self._process
        if process is None:
            self.stats.dropped += len(tags)
            return 0.0
        self._writing = True
        try:
            await process.write(b"".join(map(encode_tag, tags)))
        except FeedFailed:
            pass  # ``_run`` meets the same failure while it reads segments, and restarts the child
        finally:
            self._writing = False
            self._last_tag_at = self._loop.time()
        return self._keyframes.gather_seconds(self._loop.time())

    async def ended(self) -> PublishRefused:
        """Return the reason for its publisher, once the feed ended by itself."""
        return await asyncio.shield(self._ended)

    def cut(self, refusal: PublishRefused) -> None:
        """End it for this reason; it still has to be closed."""
        if not self._ended.done():
            self._ended.set_result(refusal)

    async def close(self, *, unpublished: bool) -> None:
        """List the last segments and release the lease; every caller waits until that is done."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(unpublished))
        await asyncio.shield(self._closing)

    async def _close(self, unpublished: bool) -> None:
        slug = self.lease.slug
        log.info("%s: %s", slug, "unpublished" if unpublished else "the publisher disconnected")
        self.cut(PublishRefused(REJECTED, "the feed has ended"))
        if self._renewing:
            self._renewing.cancel()
        if self._running is not None:
            await self._finish(self._running)
        try:
            await self._streams.release(self.lease, self._status())
        except DatabaseUnavailable as error:  # the lease runs out without its heartbeat
            log.error("%s: the lease of its feed could not be released: %s", slug, error)

    async def _finish(self, running: asyncio.Task[None]) -> None:
        """Let the child finish its last segments, and end it; one being restarted has none."""
        if self._process is None:
            running.cancel()
        else:
            with suppress(FeedFailed):
                await self._process.finish()
        _, late = await asyncio.wait([running], timeout=_FINISH_WITHIN)
        if late:
            log.warning("%s: its last segment took too long and was lost", self.lease.slug)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        if self._process is not None:
            await self._process.kill()

    async def _run(self) -> None:
        """Take the child's events; replace a child that fails, and end the feed if that fails."""
        try:
            while self._process is not None and self._closing is None:
                process = self._process
                try:
                    async for event in process.events():
                        await self._take(event)
                except FeedFailed as error:
                    await process.kill()
                    await self._restart(error)
                else:
                    self.cut(PublishRefused(REJECTED, "the feed has ended"))
                    return
        except Exception as error:
            self._end_with(error)

    def _end_with(self, error: Exception) -> None:
        if isinstance(error, PublishRefused):
            self.cut(error)
        elif isinstance(error, MediaError):
            self.stats.warn("media", str(error), self._clock())
            self._end(str(error))
        else:
            log.error("%s: its feed ended in an error", self.lease.slug, exc_info=error)
            self._end("an error in the server ended it")

    def _end(self, why: str) -> None:
        log.warning("%s: feed ended: %s", self.lease.slug, why)
        self.cut(PublishRefused(REJECTED, why))

    def _may_restart(self, error: FeedFailed) -> bool:
        now = self._loop.time()
        self._failures = [at for at in self._failures if now - at < _RESTART_WINDOW] + [now]
        self._broken = True
        self.stats.restarts += 1
        text = f"the packaging process failed and was started again: {error}"
        self.stats.warn("restarted", text, self._clock())
        log.error("%s: %s", self.lease.slug, error)
        return len(self._failures) <= self._policy.restarts

    async def _restart(self, error: FeedFailed) -> None:
        """Replace a child that failed, unless too many failed within a minute."""
        self._process = None  # tags that arrive meanwhile are dropped, and counted
        while not self.over and self._may_restart(error):
            try:
                self._process = await self._new_process()
                return
            except FeedFailed as again:
                error = again
        self._end(f"it cannot be packaged: {error}")

    async def _new_process(self) -> FeedProcess:
        declared = self._track.target_duration_s if self._track else self._declared
        process = await self._spawner.start(
            replace(
                self._policy.options,
                segment_target_us=self.lease.segment_target_us,
                target_duration_s=declared,
                not_before_us=self._last_end_us,
                source=self._source,
            )
        )
        try:
            await self._send_configuration(process)
        except BaseException:
            await process.kill()
            raise
        self._late = self._dropped = 0
        return process

    async def _send_configuration(self, process: FeedProcess) -> None:
        """Send a new child the FLV header and the codec configurations the feed began with."""
        if self._source is not None:
            return
        await process.write(file_header(audio=True, video=True))
        for tag in self._configs.values():
            await process.write(encode_tag(tag))

    def _remember(self, tag: Tag) -> None:
        """Remember codec configurations, for a child started in mid-feed, and keyframe times."""
        if not may_begin(tag):
            return
        facts = describe(tag)
        if tag.kind == SCRIPT or facts.is_config:
            self._configs[tag.kind] = tag
        elif tag.kind == VIDEO and facts.is_keyframe:
            self._keyframes.keyframe(self._last_tag_at)

    async def _take(self, event: FeedEvent) -> None:
        stats = self.stats
        if isinstance(event, FeedWarning):
            if stats.warn(event.code, event.text, self._clock()):
                log.warning("%s: %s", self.lease.slug, event.text)
        elif isinstance(event, FeedTrack):
            self._track = event
            stats.codecs, stats.frame_rate = event.codecs, event.frame_rate
            stats.width, stats.height = event.width, event.height
        else:
            stats.late += event.late - self._late
            stats.dropped += event.dropped - self._dropped
            self._late, self._dropped = event.late, event.dropped
            await self._publish(event)

    async def _publish(self, event: FeedSegment) -> None:
        """Store a segment, then list it; retry for a few seconds, then give it up."""
        give_up_at, listing = self._loop.time() + _RETRY_FOR, None
        while True:
            try:
                await self._list_doubtful()
                if listing is not None:
                    return
                fresh = self._listing(event)
                key = segment_key(self.lease.slug, RENDITION, fresh.segment.msn)
                await self._store.put(key, event.data)
                listing = self._doubtful = fresh
                self._broken = False
                continue
            except (StoreError, DatabaseUnavailable) as error:
                self._warn_not_published(error)
            if self._loop.time() >= give_up_at:
                if listing is None:
                    self.stats.lost += 1
                    self._broken = True
                return
            await asyncio.sleep(_RETRY_EVERY)

    async def _list_doubtful(self) -> None:
        """List the stored segment whose listing has an unknown outcome, until it is known.

        Until then no other bytes may be stored under its number: it may stand in the playlist,
        and be paid for.
        """
        if self._doubtful is None:
            return
        if not await self._streams.append(self.lease.slug, self._doubtful):
            raise PublishRefused(REJECTED, "the stream is no longer yours to publish")
        listing, self._doubtful = self._doubtful, None
        self._note_listed(listing)

    def _listing(self, event: FeedSegment) -> Listing:
        track, stats = self._track, self.stats
        assert track is not None, "a child sends its track first"
        stats.keyframe_interval_us = event.keyframe_interval_us
        if event.duration_us * 2 > self.lease.segment_target_us * 3:
            stats.keep_warning("keyframes", self._clock())
        bit_rate = len(event.data) * 8_000_000 // max(event.duration_us, 1)
        return Listing(
            feed=self.lease.feed,
            segment=Segment(
                msn=self._next_msn,
                size=len(event.data),
                start_us=0,
                duration_us=event.duration_us,
                sha256=event.sha256,
                discontinuity=self._broken or event.discontinuity,
                program_date_time_us=event.program_date_time_us,
            ),
            rendition=Rendition(
                name=RENDITION,
                codecs=track.codecs,
                bandwidth=bit_rate,
                average_bandwidth=stats.bit_rate or bit_rate,
                target_duration_s=track.target_duration_s,
                independent_segments=event.clean,
                segments=(),
                width=track.width,
                height=track.height,
                frame_rate=track.frame_rate,
            ),
            status=self._status(),
        )

    def _note_listed(self, listing: Listing) -> None:
        segment = listing.segment
        self.stats.add_segment(segment.size, segment.duration_us)
        if self._keyframes.last is not None:
            self.stats.listing_delay_s = self._loop.time() - self._keyframes.last
        self._next_msn += 1
        self._last_end_us = (segment.program_date_time_us or 0) + segment.duration_us
        if not self._begun:
            self._begun = True
            self._started(self.lease)

    def _warn_not_published(self, error: XByteError) -> None:
        code = "storage" if isinstance(error, StoreError) else "database"
        if self.stats.warn(code, f"segments cannot be stored or listed: {error}", self._clock()):
            log.error("%s: a segment cannot be stored or listed: %s", self.lease.slug, error)

    async def _renew(self) -> None:
        """Renew the lease until cancelled; end the feed once another one holds the stream."""
        while True:
            await asyncio.sleep(self._policy.renew_every)
            try:
                if await self._streams.renew(self.lease, self._status()):
                    continue
            except DatabaseUnavailable as error:
                self._warn_not_published(error)
                continue
            except Exception as error:
                return self._end_with(error)
            return self._end("the stream is no longer yours to publish")

    def _status(self) -> str:
        return json.dumps(self.stats.describe(self._clock()), separators=(",", ":"))
