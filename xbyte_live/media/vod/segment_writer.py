"""Adapter: a thread that writes and hashes finished segments in order.

It works on one segment while the next is packaged. At most two wait, so memory is bounded and a
slow store slows the packager.
"""

import hashlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from xbyte_live.media.formats.mpegts import first_access_unit, starts_clean
from xbyte_live.media.poster import PosterSearch
from xbyte_live.media.vod.rendition import WrittenSegment

Write = Callable[[int, bytes], None]

_MAX_QUEUED = 2


class SegmentWriter:
    """Passes each segment to ``write(index, segment)`` and notes how it begins.

    ``video_codec`` is ``h264`` or ``hevc``, ``None`` without video; ``expected_us`` is the
    expected duration of the title.
    """

    def __init__(self, write: Write, *, video_codec: str | None, expected_us: int) -> None:
        self._write, self._codec = write, video_codec
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="segments")
        self._pending: deque[Future[WrittenSegment]] = deque()
        self._written: list[WrittenSegment] = []
        self._poster = PosterSearch(video_codec, expected_us) if video_codec else None

    def put(self, segment: bytes) -> None:
        """Queue a segment, waiting for room; raises what ``write`` raised for an earlier one."""
        if len(self._pending) >= _MAX_QUEUED:
            self._written.append(self._pending.popleft().result())
        index = len(self._written) + len(self._pending)
        self._pending.append(self._thread.submit(self._process, index, segment))

    def finish(self) -> list[WrittenSegment]:
        """Wait until all are written, and return them; raises what ``write`` raised."""
        while self._pending:
            self._written.append(self._pending.popleft().result())
        self._thread.shutdown()
        return self._written

    def abandon(self) -> None:
        """Drop the queued segments, and wait for the one being written."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def poster(self) -> bytes | None:
        """The poster as a JPEG, after ``finish``; ``None`` if no picture was found."""
        return self._poster.result() if self._poster else None

    def _process(self, index: int, segment: bytes) -> WrittenSegment:
        unit = first_access_unit(segment, video=self._codec is not None)
        clean = True
        if self._codec:
            clean = unit is not None and starts_clean(self._codec, unit.head)
        self._write(index, segment)
        digest = hashlib.sha256(segment).hexdigest()
        if self._poster and unit:
            self._poster.consider(unit.pts, segment)
        return WrittenSegment(len(segment), digest, unit.pts if unit else None, clean)
