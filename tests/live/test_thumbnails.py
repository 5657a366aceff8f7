"""Thumbnails of streams on air: real pictures, drawn seldom, and none without video."""

import asyncio
from dataclasses import replace
from pathlib import Path

import av
import pytest

from tests.fakes import MemoryStore
from tests.support.media import Audio, Recipe, h264
from tests.support.web import a_stream
from xbyte_live.live.thumbnails import Thumbnails
from xbyte_live.models import Segment, segment_key
from xbyte_live.storage.blobs.cache import SegmentCache


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def segment(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    recipe = Recipe(".ts", "mpegts", h264(group=25), Audio(), seconds=2)
    return recipe.make(tmp_path_factory.mktemp("media") / "segment.ts").read_bytes()


async def test_a_stream_is_shown_as_it_was_seconds_ago(segment: bytes, tmp_path: Path) -> None:
    store, clock = MemoryStore(), Clock()
    thumbnails = Thumbnails(SegmentCache(store, 1 << 20), clock, patience=30)
    stream = a_stream()
    empty = await thumbnails.of(replace(stream, slug="empty"))
    assert empty is None

    listed = Segment(7, len(segment), 0, 2_000_000, "")
    (rendition,) = stream.renditions
    on_air = replace(stream, renditions=(replace(rendition, segments=(listed,)),))
    store.files[segment_key("concert", "source", 7)] = segment
    picture = await thumbnails.of(on_air)
    assert picture is not None
    (tmp_path / "still.jpg").write_bytes(picture)
    with av.open(str(tmp_path / "still.jpg")) as still:
        assert still.streams.video[0].codec_context.name == "mjpeg"
    reads = store.reads
    store.files.clear()
    clock.now = 19.0
    assert await thumbnails.of(on_air) is picture
    assert store.reads == reads
    clock.now = 21.0
    gone = replace(rendition, segments=(replace(listed, msn=8),))  # cannot be read
    assert await thumbnails.of(replace(on_air, renditions=(gone,))) is picture
    clock.now = 42.0
    assert await thumbnails.of(replace(on_air, renditions=(rendition,))) is None


@pytest.mark.parametrize("data", [b"", b"no media at all" * 100, b"\x47" * 188_000])
async def test_what_cannot_be_decoded_has_no_picture(data: bytes) -> None:
    store = MemoryStore()
    stream = a_stream()
    (rendition,) = stream.renditions
    listed = Segment(7, len(data), 0, 2_000_000, "")
    store.files[segment_key("concert", "source", 7)] = data
    thumbnails = Thumbnails(SegmentCache(store, 1 << 20), patience=30)
    on_air = replace(stream, renditions=(replace(rendition, segments=(listed,)),))
    assert await thumbnails.of(on_air) is None


async def test_a_segment_that_is_gone_and_a_codec_nobody_knows_have_none() -> None:
    stream = a_stream()
    (rendition,) = stream.renditions
    listed = replace(rendition, segments=(Segment(7, 10, 0, 2_000_000, ""),))
    for shown in (listed, replace(listed, codecs="mp4a.40.2"), replace(listed, width=None)):
        thumbnails = Thumbnails(SegmentCache(MemoryStore(), 1 << 20), patience=30)
        assert await thumbnails.of(replace(stream, renditions=(shown,))) is None


class SlowStore(MemoryStore):
    """Hands nothing over until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = asyncio.Event()

    async def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        self.reads += 1
        await self.ready.wait()
        return self._file(key)


async def test_nobody_waits_long_and_the_line_is_short(segment: bytes) -> None:
    store, stream = SlowStore(), a_stream()
    (rendition,) = stream.renditions
    listed = Segment(7, len(segment), 0, 2_000_000, "")
    streams = [
        replace(
            stream,
            slug=f"concert-{number}",
            renditions=(replace(rendition, segments=(listed,)),),
        )
        for number in range(40)
    ]
    first = streams[0]  # the others' segments are gone when it is their turn
    store.files[segment_key(first.slug, "source", 7)] = segment
    thumbnails = Thumbnails(SegmentCache(store, 1 << 20), patience=0.05)

    async with asyncio.timeout(5):  # 40 drawings, one after another, would take 400 seconds
        assert set(await asyncio.gather(*map(thumbnails.of, streams))) == {None}
    assert store.reads == 1

    store.ready.set()
    async with asyncio.timeout(30):
        while await thumbnails.of(first) is None:
            await asyncio.sleep(0.01)  # it is drawn though nobody waits
        while store.reads < 16:
            await asyncio.sleep(0.01)
        while await thumbnails.of(streams[20]) is None and store.reads < 17:
            await asyncio.sleep(0.01)
    assert store.reads == 17  # the line was of 16, and took the next one when it was over
