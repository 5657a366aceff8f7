"""Adapter: hands finished segments on, in order, from a thread of its own.

Hashing and writing one segment overlaps with the packaging of the next. Few wait, so memory is
bounded and a slow taker slows the packager.
"""

import hashlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from xbyte_live.media.formats.mpegts import first_access_unit, starts_clean
from xbyte_live.media.poster import PosterSearch
from xbyte_live.media.vod.rendition import WrittenSegment

Take = Callable[[int, bytes], None]

_WAITING = 2


class SegmentWriter:
    """Passes each segment to ``take(index, segment)`` and notes how it begins.

    ``video_codec`` is ``h264`` or ``hevc``, ``None`` when there are no pictures; ``expected_us``
    is about how long the title will last.
    """

    def __init__(self, take: Take, *, video_codec: str | None, expected_us: int) -> None:
        self._take, self._codec = take, video_codec
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="segments")
        self._pending: deque[Future[WrittenSegment]] = deque()
        self._written: list[WrittenSegment] = []
        self._poster = PosterSearch(video_codec, expected_us) if video_codec else None

    def put(self, segment: bytes) -> None:
        """Queue a segment, waiting for room; raises what ``take`` raised for an earlier one."""
        if len(self._pending) >= _WAITING:
            self._written.append(self._pending.popleft().result())
        index = len(self._written) + len(self._pending)
        self._pending.append(self._thread.submit(self._pass_on, index, segment))

    def finish(self) -> list[WrittenSegment]:
        """Wait until all are taken; what is known of each. Raises what ``take`` raised."""
        while self._pending:
            self._written.append(self._pending.popleft().result())
        self._thread.shutdown()
        return self._written

    def abandon(self) -> None:
        """Pass on no more, and wait for the one being taken."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def poster(self) -> bytes | None:
        """The JPEG of a picture met on the way, once all is finished."""
        return self._poster.result() if self._poster else None

    def _pass_on(self, index: int, segment: bytes) -> WrittenSegment:
        unit = first_access_unit(segment, video=self._codec is not None)
        clean = True
        if self._codec:
            clean = unit is not None and starts_clean(self._codec, unit.head)
        self._take(index, segment)
        digest = hashlib.sha256(segment).hexdigest()
        if self._poster and unit:
            self._poster.consider(unit.pts, segment)
        return WrittenSegment(len(segment), digest, unit.pts if unit else None, clean)
