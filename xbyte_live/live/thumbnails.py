"""Part: what a stream on air looks like now, decoded in a process of its own."""

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

_KEPT = 20.0  # seconds a picture stands for its stream
_PATIENCE = 10.0  # seconds that drawing one may take
_LINE = 16  # streams whose pictures are being drawn or waited for
_STREAMS = 256  # whose pictures are held
_CODECS = {"avc1": "h264", "hvc1": "hevc", "hev1": "hevc"}


class Thumbnails:
    """Pictures of streams, each at most 20 seconds old, one drawn at a time.

    Whoever asks waits ``patience`` seconds for theirs at most; it is drawn all the same, and there
    the next time. Of a long line of streams the last are not drawn until they are asked for again.
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
        self._line: dict[str, asyncio.Task[None]] = {}
        self._pen = asyncio.Lock()

    async def of(self, stream: Stream) -> bytes | None:
        """A JPEG of what is on air, or was last; ``None`` where there is nothing to see yet."""
        if self._held(stream.slug) is None and (drawing := self._drawing(stream)):
            await asyncio.wait({drawing}, timeout=self._patience)
        found = self._held(stream.slug)
        return found[1] if found else self._before(stream)

    def _drawing(self, stream: Stream) -> asyncio.Task[None] | None:
        """What draws this stream, now or when it is its turn; ``None`` where the line is full."""
        drawing = self._line.get(stream.slug)
        if drawing is None and len(self._line) < _LINE:
            drawing = self._line[stream.slug] = asyncio.create_task(self._redraw(stream))
            drawing.add_done_callback(lambda _: self._line.pop(stream.slug))
        return drawing

    async def _redraw(self, stream: Stream) -> None:
        async with self._pen:
            began = self._clock()
            self._drawn[stream.slug] = began, await self._draw(stream) or self._before(stream)
        self._drawn.move_to_end(stream.slug)
        if len(self._drawn) > _STREAMS:
            self._drawn.popitem(last=False)

    def _before(self, stream: Stream) -> bytes | None:
        """The picture that stands until another one can be drawn."""
        on_air = any(rendition.segments for rendition in stream.renditions)
        return self._drawn.get(stream.slug, (0.0, None))[1] if on_air else None

    def _held(self, slug: str) -> tuple[float, bytes | None] | None:
        found = self._drawn.get(slug)
        return found if found and self._clock() - found[0] < _KEPT else None

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
        start_new_session=True,  # Ctrl-C is for us to pass on
    )
    try:
        async with asyncio.timeout(_PATIENCE):
            picture, _ = await child.communicate(segment)
    except TimeoutError:
        return None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return picture if child.returncode == 0 and picture else None
