"""Adapter: blocking playlist reload: requests that wait for a segment (RFC 8216bis 6.2.5.2)."""

import asyncio
import re
from collections.abc import Mapping

from xbyte_live.catalog.catalog import Catalog
from xbyte_live.errors import BadRequest, ItemNotFound, Overloaded
from xbyte_live.models import Stream

_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_AHEAD = 2  # segments a client may ask for beyond the last one
_TARGETS_WAITED = 3


class BlockingReloads:
    """Holds requests until a stream lists their segment, at most ``limit`` at once.

    ``waiting`` is the number of requests held now.
    """

    def __init__(self, catalog: Catalog, *, limit: int) -> None:
        self._catalog = catalog
        self._limit = limit
        self.waiting = 0

    async def wait(self, stream: Stream, rendition: str, msn: int) -> Stream:
        """The stream once it lists segment ``msn``, has ended, or three target durations passed.

        In the last case the answer is the playlist as it is, where the specification has a 503:
        players give up on errors, and a publisher that reconnects takes longer than that.
        Raises ``BadRequest`` for a number too far ahead, ``Overloaded`` when too many wait.
        """
        listed = stream.rendition(rendition)
        if listed is None or not listed.segments or stream.ended:
            return stream
        if msn > listed.segments[-1].msn + _AHEAD:
            raise BadRequest("_HLS_msn is too far ahead of the playlist")
        if msn <= listed.segments[-1].msn:
            return stream
        if self.waiting >= self._limit:
            raise Overloaded("too many readers wait for playlists; ask again without _HLS_msn")
        self.waiting += 1
        try:
            async with asyncio.timeout(_TARGETS_WAITED * listed.target_duration_s):
                while not _lists(stream, rendition, msn):
                    item = await self._catalog.changed(stream.slug, stream)
                    if not isinstance(item, Stream):
                        raise ItemNotFound("this stream was removed")
                    stream = item
        except TimeoutError:
            pass
        finally:
            self.waiting -= 1
        return stream


def read_directives(query: Mapping[str, str]) -> int | None:
    """The msn that a request waits for, if any; raises ``BadRequest`` for malformed directives."""
    msn = query.get("_HLS_msn")
    if msn is None:
        if "_HLS_part" in query:
            raise BadRequest("_HLS_part needs _HLS_msn")
        return None
    if _NUMBER.fullmatch(msn) is None:
        raise BadRequest("_HLS_msn is no media sequence number")
    return int(msn)


def _lists(stream: Stream, rendition: str, msn: int) -> bool:
    listed = stream.rendition(rendition)
    if stream.ended or listed is None or not listed.segments:
        return True
    return listed.segments[-1].msn >= msn
