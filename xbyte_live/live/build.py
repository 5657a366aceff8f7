"""Wiring: builds and runs the live side: RTMP ports, publishers, pulled sources and webhooks."""

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
from xbyte_live.live.feed import FeedPolicy
from xbyte_live.live.publishers import Publishers, PublishPolicy
from xbyte_live.live.pulls import Pulls
from xbyte_live.live.rtmp.publish import RtmpLimits
from xbyte_live.live.rtmp.server import RtmpServer
from xbyte_live.live.webhooks import Webhooks
from xbyte_live.media.live.messages import FeedOptions
from xbyte_live.media.live.spawner import FeedSpawner
from xbyte_live.media.sources.source import check_source
from xbyte_live.media.sources.url import Source
from xbyte_live.runtime.aio import background
from xbyte_live.storage.blobs.store import Store
from xbyte_live.storage.db.engine import Database

_RENEWALS_A_WINDOW = 4
_LONGEST_RENEWAL = 5.0  # seconds

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LiveSide:
    """The running parts of the live side that the server reads."""

    publishers: Publishers
    rtmp: RtmpServer
    recordings: Recordings


@asynccontextmanager
async def open_live(
    settings: Settings, database: Database, catalog: Catalog, store: Store
) -> AsyncIterator[LiveSide]:
    """Accept publishers inside the context; on leaving it, list the rest of every feed and close.

    Raises ``ConfigError`` for a port that is taken or a certificate that cannot be used.
    """
    streams = Streams(database, catalog)
    webhooks = Webhooks(
        settings.webhook_urls, settings.webhook_secret.reveal(), timeout=settings.webhook_timeout
    )
    spawner = FeedSpawner()
    publishers = Publishers(
        spawner=spawner,
        streams=streams,
        store=store,
        webhooks=webhooks,
        policy=publish_policy(settings),
    )
    rtmp = RtmpServer(publishers.publish, rtmp_limits(settings))
    recordings = Recordings(
        database,
        catalog,
        max_age=settings.recording_max_age,
        max_bytes=settings.recording_max_bytes,
    )
    pulls = Pulls(publishers, streams, lambda url: pull_source(settings, url))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(webhooks.close)
        stack.push_async_callback(spawner.close)
        await publishers.start()
        stack.push_async_callback(publishers.stop)
        stack.push_async_callback(rtmp.stop)
        await _listen(settings, rtmp)
        await stack.enter_async_context(
            background(publishers.run(), pulls.run(), webhooks.run(), _warm_up(spawner))
        )
        try:
            yield LiveSide(publishers, rtmp, recordings)
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(settings.webhook_timeout):
                    await webhooks.drain()


async def _warm_up(spawner: FeedSpawner) -> None:
    """Start the fork server before the first publisher arrives."""
    try:
        await spawner.warm_up()
    except FeedFailed as error:
        log.error("the fork server cannot start, so no feed can be packaged: %s", error)


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
    """The TLS context of RTMPS; raises ``ConfigError`` when the certificate cannot be used."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.rtmps_certificate, settings.rtmps_key_file or None)
    except (OSError, ssl.SSLError):
        raise ConfigError(
            "rtmps_certificate and rtmps_key_file must be PEM files that belong together"
        ) from None
    return context


def publish_policy(settings: Settings) -> PublishPolicy:
    """The publishing rules of the settings."""
    window = float(settings.republish_window)
    return PublishPolicy(
        feed=FeedPolicy(
            options=FeedOptions(
                longest_segment_us=settings.live_longest_segment * 1_000_000,
                memory_bytes=settings.feed_memory,
                stall_timeout=float(settings.feed_timeout),
            ),
            restarts=settings.feed_restarts,
            renew_every=min(_LONGEST_RENEWAL, window / _RENEWALS_A_WINDOW),
        ),
        take_over=settings.second_publisher == "take_over",
        republish_window=window,
        failures=settings.publish_failures,
        on_publish_url=settings.on_publish_url,
    )


def rtmp_limits(settings: Settings) -> RtmpLimits:
    """The limits of the RTMP port in the settings."""
    return RtmpLimits(
        handshake_timeout=settings.rtmp_handshake_timeout,
        publish_timeout=settings.rtmp_handshake_timeout,
        idle_timeout=settings.rtmp_idle_timeout,
        max_message=settings.rtmp_max_message,
        max_connections=settings.rtmp_connections,
        per_address=settings.rtmp_connections_per_address,
    )


def pull_source(settings: Settings, url: str) -> Source:
    """A source a child process may pull; raises ``SourceRefused`` for a URL the settings forbid."""
    allow_private = settings.pull_private == "allow"
    check_source(url, settings.pull_schemes, allow_private)
    return Source(url, allow_private=allow_private)
