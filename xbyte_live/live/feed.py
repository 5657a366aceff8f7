"""Part: one feed on air: packaged in a child process, each segment stored, then listed."""

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
_PATIENCE = 4.0  # seconds one segment is tried for; less than a child may be held up
_LAST_WORDS = 10.0  # seconds a child may take to finish
_RESTARTS_COUNTED = 60.0  # seconds
_BEAT_EVERY = 5.0  # seconds

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedPolicy:
    """How feeds are run; ``beat_every`` seconds a feed says that it lives."""

    options: FeedOptions
    restarts: int
    beat_every: float = _BEAT_EVERY


class Feed:
    """A feed from its first tag to its last segment; ``write``, then ``close``.

    It ends when it is closed, or by itself: ``ended`` then returns why.
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
        self._beating: asyncio.Task[None] | None = None
        self._configs: dict[int, Tag] = {}
        self._failures: list[float] = []
        self._late = self._dropped = 0  # what the present child has counted of these
        self._doubtful: Listing | None = None
        self._writing = False
        self._track: FeedTrack | None = None
        self._next_msn = lease.next_msn
        self._last_end_us = lease.not_before_us
        self._declared = lease.target_duration_s
        self._broken = lease.next_msn > 0  # whatever was listed before, this does not go on there
        self._begun = lease.resumed
        self._heard_at = self._loop.time()
        self._keyframes = KeyframeTimer()

    @property
    def silent_for(self) -> float:
        """Seconds since the publisher last sent something; 0 while it waits for us."""
        return 0.0 if self._writing else self._loop.time() - self._heard_at

    @property
    def over(self) -> bool:
        """Whether it has ended, or is about to."""
        return self._closing is not None or self._ended.done()

    @property
    def closed(self) -> bool:
        """Whether all that is left of it is listed, and the stream let go."""
        return self._closing is not None and self._closing.done()

    async def start(self) -> None:
        """Start the child process; raises ``FeedFailed``."""
        self._process = await self._new_process()
        self._running = asyncio.create_task(self._run())
        self._beating = asyncio.create_task(self._beat())

    async def write(self, tags: Sequence[Tag]) -> float:
        """Take tags, waiting while the child is behind; raises ``PublishRefused`` once over.

        Returns for how many seconds no more is needed.
        """
        if self._ended.done():
            raise self._ended.result()
        self._heard_at = self._loop.time()
        for tag in tags:
            self._look_at(tag)
        process = self._process
        if process is None:
            self.stats.dropped += len(tags)
            return 0.0
        self._writing = True
        try:
            await process.write(b"".join(map(encode_tag, tags)))
        except FeedFailed:
            pass  # whoever reads its segments meets that too, and decides
        finally:
            self._writing = False
            self._heard_at = self._loop.time()
        return self._keyframes.patience(self._loop.time())

    async def ended(self) -> PublishRefused:
        """Return once it ended by itself, with the reason for the publisher."""
        return await asyncio.shield(self._ended)

    def cut(self, refusal: PublishRefused) -> None:
        """End it from our side; it still has to be closed."""
        if not self._ended.done():
            self._ended.set_result(refusal)

    async def close(self, *, unpublished: bool) -> None:
        """List what is left and let the stream go; whoever else closes it waits for the same."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(unpublished))
        await asyncio.shield(self._closing)

    async def _close(self, unpublished: bool) -> None:
        slug = self.lease.slug
        log.info("%s: %s", slug, "unpublished" if unpublished else "the publisher is gone")
        self.cut(PublishRefused(REJECTED, "the feed has ended"))
        if self._beating:
            self._beating.cancel()
        if self._running is not None:
            await self._finish(self._running)
        try:
            await self._streams.release(self.lease, self._status())
        except DatabaseUnavailable as error:  # its heartbeat stops, so it ends all the same
            log.error("%s: the end of its feed was not noted: %s", slug, error)

    async def _finish(self, running: asyncio.Task[None]) -> None:
        """Let the child hand out the rest; one that is only being started again has none."""
        if self._process is None:
            running.cancel()
        else:
            with suppress(FeedFailed):
                await self._process.finish()
        _, late = await asyncio.wait([running], timeout=_LAST_WORDS)
        if late:
            log.warning("%s: its last segment took too long and is lost", self.lease.slug)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        if self._process is not None:
            await self._process.kill()

    async def _run(self) -> None:
        """Take what the child makes; start another where one fails, and end where more fails."""
        try:
            while self._process is not None and self._closing is None:
                process = self._process
                try:
                    async for made in process.events():
                        await self._take(made)
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
            self._end("something went wrong on our side")

    def _end(self, why: str) -> None:
        log.warning("%s: feed ended: %s", self.lease.slug, why)
        self.cut(PublishRefused(REJECTED, why))

    def _may_restart(self, error: FeedFailed) -> bool:
        now = self._loop.time()
        self._failures = [at for at in self._failures if now - at < _RESTARTS_COUNTED] + [now]
        self._broken = True
        self.stats.restarts += 1
        text = f"the packaging process failed and was started again: {error}"
        self.stats.warn("restarted", text, self._clock())
        log.error("%s: %s", self.lease.slug, error)
        return len(self._failures) <= self._policy.restarts

    async def _restart(self, error: FeedFailed) -> None:
        """Start another child for the one that failed, as often as that may be tried."""
        self._process = None  # what comes meanwhile is dropped, and counted
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
            await self._introduce(process)
        except BaseException:
            await process.kill()
            raise
        self._late = self._dropped = 0
        return process

    async def _introduce(self, process: FeedProcess) -> None:
        """Tell a new child what those before it were told first."""
        if self._source is not None:
            return
        await process.write(file_header(audio=True, video=True))
        for tag in self._configs.values():
            await process.write(encode_tag(tag))

    def _look_at(self, tag: Tag) -> None:
        """Remember what a decoder needs first, for a child that starts in the middle."""
        if not may_begin(tag):
            return
        facts = describe(tag)
        if tag.kind == SCRIPT or facts.is_config:
            self._configs[tag.kind] = tag
        elif tag.kind == VIDEO and facts.is_keyframe:
            self._keyframes.keyframe(self._heard_at)

    async def _take(self, made: FeedEvent) -> None:
        stats = self.stats
        if isinstance(made, FeedWarning):
            if stats.warn(made.code, made.text, self._clock()):
                log.warning("%s: %s", self.lease.slug, made.text)
        elif isinstance(made, FeedTrack):
            self._track = made
            stats.codecs, stats.frame_rate = made.codecs, made.frame_rate
            stats.width, stats.height = made.width, made.height
        else:
            stats.late += made.late - self._late
            stats.dropped += made.dropped - self._dropped
            self._late, self._dropped = made.late, made.dropped
            await self._keep(made)

    async def _keep(self, made: FeedSegment) -> None:
        """Store a segment, then list it; for a while again and again, if that does not work."""
        give_up_at, listing = self._loop.time() + _PATIENCE, None
        while True:
            try:
                await self._clear_doubt()
                if listing is not None:
                    return
                fresh = self._listing(made)
                key = segment_key(self.lease.slug, RENDITION, fresh.segment.msn)
                await self._store.put(key, made.data)
                listing = self._doubtful = fresh
                self._broken = False
                continue
            except (StoreError, DatabaseUnavailable) as error:
                self._say_not_kept(error)
            if self._loop.time() >= give_up_at:
                if listing is None:
                    self.stats.lost += 1
                    self._broken = True
                return
            await asyncio.sleep(_RETRY_EVERY)

    async def _clear_doubt(self) -> None:
        """List what is stored, until it is known to be listed: only then is its number used up.

        Bytes of another segment may not be stored under that number before, since those who
        see the playlist may have paid for it.
        """
        if self._doubtful is None:
            return
        if not await self._streams.append(self.lease.slug, self._doubtful):
            raise PublishRefused(REJECTED, "the stream is no longer yours to publish")
        listing, self._doubtful = self._doubtful, None
        self._after(listing)

    def _listing(self, made: FeedSegment) -> Listing:
        track, stats = self._track, self.stats
        assert track is not None, "a child names its track first"
        stats.keyframe_interval_us = made.keyframe_interval_us
        if made.duration_us * 2 > self.lease.segment_target_us * 3:
            stats.still("keyframes", self._clock())
        bit_rate = len(made.data) * 8_000_000 // max(made.duration_us, 1)
        return Listing(
            feed=self.lease.feed,
            segment=Segment(
                msn=self._next_msn,
                size=len(made.data),
                start_us=0,
                duration_us=made.duration_us,
                sha256=made.sha256,
                discontinuity=self._broken or made.discontinuity,
                program_date_time_us=made.program_date_time_us,
            ),
            rendition=Rendition(
                name=RENDITION,
                codecs=track.codecs,
                bandwidth=bit_rate,
                average_bandwidth=stats.bit_rate or bit_rate,
                target_duration_s=track.target_duration_s,
                independent_segments=made.clean,
                segments=(),
                width=track.width,
                height=track.height,
                frame_rate=track.frame_rate,
            ),
            status=self._status(),
        )

    def _after(self, listing: Listing) -> None:
        segment = listing.segment
        self.stats.listed(segment.size, segment.duration_us)
        if self._keyframes.last is not None:
            self.stats.listing_delay_s = self._loop.time() - self._keyframes.last
        self._next_msn += 1
        self._last_end_us = (segment.program_date_time_us or 0) + segment.duration_us
        if not self._begun:
            self._begun = True
            self._started(self.lease)

    def _say_not_kept(self, error: XByteError) -> None:
        code = "storage" if isinstance(error, StoreError) else "database"
        if self.stats.warn(code, f"segments cannot be kept: {error}", self._clock()):
            log.error("%s: a segment cannot be kept: %s", self.lease.slug, error)

    async def _beat(self) -> None:
        """Say again and again that the feed lives; end it where it lost the stream."""
        while True:
            await asyncio.sleep(self._policy.beat_every)
            try:
                if await self._streams.beat(self.lease, self._status()):
                    continue
            except DatabaseUnavailable as error:
                self._say_not_kept(error)
                continue
            except Exception as error:
                return self._end_with(error)
            return self._end("the stream is no longer yours to publish")

    def _status(self) -> str:
        return json.dumps(self.stats.describe(self._clock()), separators=(",", ":"))
