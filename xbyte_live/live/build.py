"""Wiring: the live side: RTMP ports, feeds, pulled sources, webhooks, ends of broadcasts."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

from xbyte_live.catalog.catalog import Catalog
from xbyte_live.catalog.recordings import Recordings
from xbyte_live.catalog.streams import Streams
from xbyte_live.config import Settings
from xbyte_live.errors import ConfigError, FeedFailed
from xbyte_live.live.feed import AiringPolicy
from xbyte_live.live.publishers import Live, LivePolicy
from xbyte_live.live.pulls import Pulls
from xbyte_live.live.rtmp.publish import RtmpLimits
from xbyte_live.live.rtmp.server import RtmpServer
from xbyte_live.live.webhooks import Webhooks
from xbyte_live.media.live.messages import FeedOptions, Source
from xbyte_live.media.live.spawner import FeedSpawner
from xbyte_live.media.sources.source import check_source
from xbyte_live.runtime.aio import background
from xbyte_live.storage.blobs.store import Store
from xbyte_live.storage.db.engine import Database

BEATS_A_WINDOW = 4
BEAT_AT_MOST = 5.0  # seconds

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OnAir:
    """The running live side, as far as others look at it."""

    live: Live
    rtmp: RtmpServer
    recordings: Recordings


@asynccontextmanager
async def open_live(
    settings: Settings, database: Database, catalog: Catalog, store: Store
) -> AsyncIterator[OnAir]:
    """Take publishers until left; then every feed is closed with all it sent.

    Raises ``ConfigError`` for a port that is taken or a certificate that cannot be used.
    """
    streams = Streams(database, catalog)
    webhooks = Webhooks(
        settings.webhook_urls, settings.webhook_secret.reveal(), timeout=settings.webhook_timeout
    )
    spawner = FeedSpawner()
    live = Live(
        spawner=spawner,
        streams=streams,
        store=store,
        webhooks=webhooks,
        policy=live_policy(settings),
    )
    rtmp = RtmpServer(live, rtmp_limits(settings))
    recordings = Recordings(
        database,
        catalog,
        max_age=settings.recording_max_age,
        max_bytes=settings.recording_max_bytes,
    )
    pulls = Pulls(live, streams, lambda url: pulled(settings, url))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(webhooks.close)
        stack.push_async_callback(spawner.close)
        await live.start()
        stack.push_async_callback(live.stop)
        stack.push_async_callback(rtmp.stop)
        await _listen(settings, rtmp)
        await stack.enter_async_context(
            background(live.run(), pulls.run(), webhooks.run(), _warm_up(spawner))
        )
        try:
            yield OnAir(live, rtmp, recordings)
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(settings.webhook_timeout):
                    await webhooks.drain()


async def _warm_up(spawner: FeedSpawner) -> None:
    """Load the media library before the first publisher comes."""
    try:
        await spawner.warm_up()
    except FeedFailed as error:
        log.error("no feed can be packaged: %s", error)


async def _listen(settings: Settings, rtmp: RtmpServer) -> None:
    host = settings.rtmp_address
    ports = [(settings.rtmp_port, None)] if settings.rtmp_port else []
    secure = [(settings.rtmps_port, tls_context(settings))] if settings.rtmps_port else []
    for port, context in (*ports, *secure):
        try:
            await rtmp.start(host, port, ssl=context)
        except OSError as error:
            name = "rtmps_port" if context else "rtmp_port"
            raise ConfigError(
                f"port {port} on {host} cannot be used for RTMP ({error.strerror}); "
                f"set another {name}, or 0 for none"
            ) from None
        log.info("taking publishers on rtmp%s://%s:%d/live", "s" if context else "", host, port)


def tls_context(settings: Settings) -> ssl.SSLContext:
    """What RTMPS is served with; raises ``ConfigError`` when the certificate cannot be used."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.rtmps_certificate, settings.rtmps_key_file or None)
    except (OSError, ssl.SSLError):
        raise ConfigError(
            "rtmps_certificate and rtmps_key_file must be PEM files that belong together"
        ) from None
    return context


def live_policy(settings: Settings) -> LivePolicy:
    """The rules of going on air as the settings have them."""
    window = float(settings.republish_window)
    return LivePolicy(
        airing=AiringPolicy(
            options=FeedOptions(
                longest_segment_us=settings.live_longest_segment * 1_000_000,
                memory_bytes=settings.feed_memory,
                stall_timeout=float(settings.feed_timeout),
            ),
            restarts=settings.feed_restarts,
            beat_every=min(BEAT_AT_MOST, window / BEATS_A_WINDOW),
        ),
        take_over=settings.second_publisher == "take_over",
        republish_window=window,
        failures=settings.publish_failures,
        on_publish_url=settings.on_publish_url,
    )


def rtmp_limits(settings: Settings) -> RtmpLimits:
    """What the RTMP server allows a peer."""
    return RtmpLimits(
        handshake_timeout=settings.rtmp_handshake_timeout,
        publish_timeout=settings.rtmp_handshake_timeout,
        idle_timeout=settings.rtmp_idle_timeout,
        max_message=settings.rtmp_max_message,
        max_connections=settings.rtmp_connections,
        per_address=settings.rtmp_connections_per_address,
    )


def pulled(settings: Settings, url: str) -> Source:
    """A URL as a child may open it; raises ``SourceRefused``."""
    allow_private = settings.pull_private == "allow"
    check_source(url, settings.pull_schemes, allow_private)
    return Source(url, allow_private=allow_private)
