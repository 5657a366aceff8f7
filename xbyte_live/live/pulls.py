"""Part: pulled streams: each source is connected, and reconnected, until its stream is removed."""

import asyncio
import logging
import random
from collections.abc import Callable

from xbyte_live.catalog.streams import Streams
from xbyte_live.errors import DatabaseUnavailable, PublishRefused, SourceRefused
from xbyte_live.live.publishers import Publishers
from xbyte_live.media.sources.url import Source
from xbyte_live.runtime.aio import backoff

_LOOK_EVERY = 5.0  # seconds
_WAIT_LEAST, _WAIT_MOST = 1.0, 60.0  # seconds between attempts

log = logging.getLogger(__name__)


class Pulls:
    """Keeps a feed running for every stream that has a source; ``run`` until cancelled.

    ``source`` checks a URL and returns its ``Source``; it raises ``SourceRefused``.
    """

    def __init__(
        self, publishers: Publishers, streams: Streams, source: Callable[[str], Source]
    ) -> None:
        self._publishers = publishers
        self._streams = streams
        self._source = source
        self._pulling: dict[str, tuple[str, asyncio.Task[None]]] = {}

    async def run(self) -> None:
        """Pull new sources, and stop those that were removed or changed."""
        try:
            while True:
                try:
                    wanted = await self._streams.sources()
                except DatabaseUnavailable as error:
                    log.error("sources cannot be read now: %s", error)
                else:
                    await self._follow(wanted)
                await asyncio.sleep(_LOOK_EVERY)
        finally:
            await self._follow({})

    async def _follow(self, wanted: dict[str, str]) -> None:
        over = {
            slug: task
            for slug, (url, task) in self._pulling.items()
            if wanted.get(slug) != url or task.done()
        }
        for slug, task in over.items():
            del self._pulling[slug]
            task.cancel()
        for slug, ended in zip(
            over, await asyncio.gather(*over.values(), return_exceptions=True), strict=True
        ):
            if isinstance(ended, Exception):
                log.error("%s: pulling its source failed", slug, exc_info=ended)
        for slug, url in wanted.items():
            if slug not in self._pulling:
                self._pulling[slug] = (url, asyncio.create_task(self._pull(slug, url)))

    async def _pull(self, slug: str, url: str) -> None:
        attempt = 0
        while True:
            listed = await self._pull_once(slug, url)
            attempt = 1 if listed else attempt + 1
            chance = random.random()  # noqa: S311
            await asyncio.sleep(backoff(attempt, chance, least=_WAIT_LEAST, most=_WAIT_MOST))

    async def _pull_once(self, slug: str, url: str) -> bool:
        """Pull until the source ends; return whether a segment was listed."""
        try:
            source = await asyncio.to_thread(self._source, url)  # it resolves host names
            feed = await self._publishers.begin(slug, None, source=source)
        except (PublishRefused, SourceRefused, DatabaseUnavailable) as error:
            log.warning("%s: its source cannot be pulled: %s", slug, error)
            return False
        try:
            ended = await feed.ended()
            log.info("%s: its source ended: %s", slug, ended)
        finally:
            await feed.close(unpublished=False)
        return feed.stats.segments > 0
