"""Part: recent thumbnails of streams on air, each decoded by a child process."""

import asyncio
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Callable

from xbyte_live.errors import StoreError
from xbyte_live.models import Rendition, Stream, segment_key
from xbyte_live.runtime.processes import worker_environment
from xbyte_live.storage.blobs.cache import SegmentCache

_FRESH_FOR = 20.0  # seconds a thumbnail is shown before it is drawn again
_TIMEOUT = 10.0  # seconds for the child to draw one
_MAX_QUEUED = 16  # streams whose thumbnails are being drawn
_MAX_KEPT = 256  # streams whose thumbnails are kept
_CODECS = {"avc1": "h264", "hvc1": "hevc", "hev1": "hevc"}


class Thumbnails:
    """Thumbnails of streams, each at most 20 seconds old, drawn one at a time.

    A caller waits at most ``patience`` seconds; drawing goes on for the next one who asks. Beyond
    16 queued streams a thumbnail is not drawn until it is asked for again.
    """

    def __init__(
        self,
        cache: SegmentCache,
        clock: Callable[[], float] = time.monotonic,
        *,
        patience: float = 1.0,
    ) -> None:
        self._cache = cache
        self._clock = clock
        self._patience = patience
        self._drawn: OrderedDict[str, tuple[float, bytes | None]] = OrderedDict()
        self._queue: dict[str, asyncio.Task[None]] = {}
        self._drawing_lock = asyncio.Lock()

    async def of(self, stream: Stream) -> bytes | None:
        """The latest thumbnail of a stream as a JPEG, ``None`` if there is none yet."""
        if self._fresh(stream.slug) is None and (drawing := self._queued(stream)):
            await asyncio.wait({drawing}, timeout=self._patience)
        found = self._fresh(stream.slug)
        return found[1] if found else self._previous(stream)

    def _queued(self, stream: Stream) -> asyncio.Task[None] | None:
        """The task that draws this stream in its turn, ``None`` if the queue is full."""
        drawing = self._queue.get(stream.slug)
        if drawing is None and len(self._queue) < _MAX_QUEUED:
            drawing = self._queue[stream.slug] = asyncio.create_task(self._redraw(stream))
            drawing.add_done_callback(lambda _: self._queue.pop(stream.slug))
        return drawing

    async def _redraw(self, stream: Stream) -> None:
        async with self._drawing_lock:
            began = self._clock()
            self._drawn[stream.slug] = began, await self._draw(stream) or self._previous(stream)
        self._drawn.move_to_end(stream.slug)
        if len(self._drawn) > _MAX_KEPT:
            self._drawn.popitem(last=False)

    def _previous(self, stream: Stream) -> bytes | None:
        """The previous thumbnail, while the stream still lists segments."""
        on_air = any(rendition.segments for rendition in stream.renditions)
        return self._drawn.get(stream.slug, (0.0, None))[1] if on_air else None

    def _fresh(self, slug: str) -> tuple[float, bytes | None] | None:
        found = self._drawn.get(slug)
        return found if found and self._clock() - found[0] < _FRESH_FOR else None

    async def _draw(self, stream: Stream) -> bytes | None:
        rendition = next((r for r in stream.renditions if r.has_video and r.segments), None)
        codec = _codec_of(rendition) if rendition else None
        if rendition is None or codec is None:
            return None
        newest = rendition.segments[-1]
        key = segment_key(newest.stored_under or stream.slug, rendition.name, newest.msn)
        try:
            return await _picture(codec, await self._cache.get(key))
        except StoreError:
            return None


def _codec_of(rendition: Rendition) -> str | None:
    names = (name.partition(".")[0] for name in rendition.codecs.split(","))
    return next((_CODECS[name] for name in names if name in _CODECS), None)


async def _picture(codec: str, segment: bytes) -> bytes | None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "xbyte_live.media.poster", codec),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=worker_environment(os.environ),
        start_new_session=True,  # the server, not the terminal, ends it on Ctrl-C
    )
    try:
        async with asyncio.timeout(_TIMEOUT):
            picture, _ = await child.communicate(segment)
    except TimeoutError:
        return None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return picture if child.returncode == 0 and picture else None
