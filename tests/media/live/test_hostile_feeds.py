"""Feeds made to do harm: whatever comes, it is dropped or refused, in bounded time and memory."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.flv import Fed, encode, is_frame, is_key, package, shifted, tags_of
from tests.support.media import Audio, Recipe
from xbyte_live.errors import FeedFailed, MediaError
from xbyte_live.media.formats.flv import (
    AUDIO,
    SCRIPT,
    VIDEO,
    Tag,
    describe,
    encode_tag,
    file_header,
)
from xbyte_live.media.live.messages import FeedOptions
from xbyte_live.media.live.process import FeedProcess
from xbyte_live.media.live.spawner import FeedSpawner

MP3 = Recipe(".flv", "flv", None, Audio("libmp3lame", 44100), seconds=5)
BASES: tuple[Recipe | str, ...] = ("flv", "hevc", "silent", "ac3", MP3)
SEEDS = range(240)


def holds(fed: Fed, tags: list[Tag]) -> None:
    """What is true of the worst of feeds."""
    assert len({track.target_duration_s for track in fed.tracks}) <= 1
    assert len(fed.segments) <= len(tags)
    at = 0
    for segment in fed.segments:
        assert segment.duration_us > 0
        assert int(segment.duration_us / 1e6 + 0.5) <= fed.tracks[0].target_duration_s
        assert segment.program_date_time_us >= at
        assert len(segment.data) % 188 == 0
        at = segment.program_date_time_us + segment.duration_us


def damaged(chance: random.Random) -> list[Tag]:
    """Real tags with a kind of damage done to one or to many of them."""
    tags = tags_of(chance.choice(BASES))[: chance.choice((60, 200, 400))]
    kind = chance.randrange(9)
    for _ in range(chance.choice((1, 3, 20, 80))):
        _damage(tags, chance.randrange(8) if kind == 8 else kind, chance)
    return tags


def _damage(tags: list[Tag], kind: int, chance: random.Random) -> None:
    at = chance.randrange(len(tags))
    tag = tags[at]
    if kind == 0:
        reach = chance.choice((1, 8, 60, len(tag.payload)))
        tags[at] = replace(tag, payload=_flipped(tag.payload, 0, reach, chance))
    elif kind == 1:
        tags[at] = replace(tag, payload=tag.payload[: chance.randrange(len(tag.payload) + 1)])
    elif kind == 2:
        near = tag.timestamp + chance.randrange(-3000, 12_000)
        time = chance.choice((0, 2**31, 2**32 - 1, chance.randrange(2**32), near))
        tags[at] = replace(tag, timestamp=time)
    elif kind == 3:
        tags.insert(at, chance.choice(tags))
    elif kind == 4:
        junk = chance.randbytes(chance.choice((0, 1, 5, 50, 5000)))
        tags.insert(at, Tag(chance.choice((AUDIO, VIDEO, SCRIPT, 31)), tag.timestamp, junk))
    elif kind == 5 and len(tags) > 1:
        del tags[at]
    elif kind == 6:
        headers = [n for n, other in enumerate(tags[:8]) if describe(other).is_config]
        for number in headers[:1]:
            payload = tags[number].payload
            tags[number] = replace(tags[number], payload=_flipped(payload, 2, 99, chance))
    elif kind == 7:
        tags.insert(at, chance.choice(tags_of(chance.choice(BASES))))


def _flipped(payload: bytes, start: int, stop: int, chance: random.Random) -> bytes:
    data = bytearray(payload)
    if len(data) > start:
        data[chance.randrange(start, max(start + 1, min(stop, len(data))))] = chance.randrange(256)
    return bytes(data)


@pytest.mark.parametrize("part", range(4))
def test_damaged_feeds(part: int) -> None:
    for seed in SEEDS[part::4]:
        tags = damaged(random.Random(seed))
        with suppress(MediaError):
            holds(package(tags), tags)


@given(st.lists(st.tuples(st.sampled_from((AUDIO, VIDEO)), st.binary(max_size=60)), max_size=30))
@settings(max_examples=60)
def test_payloads_of_any_bytes(payloads: list[tuple[int, bytes]]) -> None:
    tags = [Tag(kind, 40 * number, data) for number, (kind, data) in enumerate(payloads)]
    with suppress(MediaError):
        holds(package(tags), tags)


@given(st.data())
@settings(max_examples=40)
def test_timestamps_of_any_order(data: st.DataObject) -> None:
    tags = tags_of("flv")[:120]
    times = st.one_of(st.integers(0, 2**32), st.integers(0, 30_000))
    for number in data.draw(st.sets(st.integers(0, 119), max_size=40)):
        tags[number] = replace(tags[number], timestamp=data.draw(times))
    with suppress(MediaError):
        holds(package(tags), tags)


def test_a_clock_that_jumps_with_every_keyframe_is_refused() -> None:
    keys = [tag for tag in tags_of("flv") if is_key(tag)]
    headers = [tag for tag in tags_of("flv") if describe(tag).is_config]
    flapping = [replace(keys[0], timestamp=number * 100_000) for number in range(1000)]
    fed = []
    with pytest.raises(MediaError, match="restart the encoder"):
        fed.append(package(headers + flapping))


def test_two_feeds_on_one_connection_are_refused() -> None:
    """Every other tag is of another clock, so every keyframe would be a discontinuity."""
    tags = tags_of("flv")
    mixed = [tag for pair in zip(tags, shifted(tags, 10**7), strict=True) for tag in pair]
    with pytest.raises(MediaError, match="restart the encoder"):
        package(mixed * 5)


def test_a_sound_on_another_clock_is_left_out() -> None:
    tags = [
        replace(tag, timestamp=tag.timestamp + 3_600_000) if tag.kind == AUDIO else tag
        for tag in tags_of("flv")
    ]
    fed = package(tags)
    assert len(fed.runs) <= 2
    assert fed.seconds >= 7


def test_composition_offsets_of_any_size() -> None:
    for offset in (b"\x7f\xff\xff", b"\x80\0\0", b"\0\x4e\x20"):
        tags = [
            replace(tag, payload=tag.payload[:2] + offset + tag.payload[5:])
            if tag.kind == VIDEO and is_frame(tag) and number % 5 == 0
            else tag
            for number, tag in enumerate(tags_of("flv"))
        ]
        with suppress(MediaError):
            holds(package(tags), tags)


def test_one_segment_cannot_grow_without_end() -> None:
    """Two hundred megabytes in a second are cut by policy."""
    tags = tags_of("flv")[:200]
    key = next(tag for tag in tags if is_key(tag))
    filler = (2 << 20).to_bytes(4, "big") + b"\x0c" + bytes([255]) * ((2 << 20) - 1)
    big = replace(key, payload=key.payload + filler)
    headers = [tag for tag in tags if describe(tag).is_config and tag.kind == VIDEO]
    fed = package([*headers, *(replace(big, timestamp=number * 10) for number in range(100))])
    assert len(fed.segments) > 3
    assert max(len(segment.data) for segment in fed.segments) < 80 << 20


@pytest_asyncio.fixture
async def spawner() -> AsyncIterator[FeedSpawner]:
    spawner = FeedSpawner()
    yield spawner
    await spawner.close()


async def survives(feed: FeedProcess, chunks: Iterator[bytes]) -> int:
    """Push until refused or through; the most memory (bytes) the child has used."""
    peak = [0]

    async def push() -> None:
        with suppress(FeedFailed):
            for chunk in chunks:
                await feed.write(chunk)
                with suppress(OSError):
                    status = Path(f"/proc/{feed.pid}/status").read_text()
                    if "VmHWM:" in status:  # one that has just ended has no memory any more
                        peak[0] = int(status.partition("VmHWM:")[2].split()[0]) << 10
            await feed.finish()

    async def collect() -> None:
        with suppress(MediaError, FeedFailed):
            async for _ in feed.events():
                pass

    await asyncio.gather(push(), collect())
    await feed.kill()
    return peak[0]


def garbage() -> Iterator[bytes]:
    chance = random.Random(7)
    yield file_header(audio=True, video=True)
    for _ in range(200):
        yield chance.randbytes(1 << 16)


def endless_script() -> Iterator[bytes]:
    yield file_header(audio=True, video=True)
    tag = encode_tag(Tag(SCRIPT, 0, bytes(4 << 20)))
    for _ in range(40):
        yield tag


def a_tag_without_end() -> Iterator[bytes]:
    yield file_header(audio=True, video=True) + b"\x09\xff\xff\xff\0\0\0\0\0\0\0\x17\x01\0\0\0"
    for _ in range(400):
        yield bytes(1 << 16)


def no_keyframe_and_much_of_it() -> Iterator[bytes]:
    yield file_header(audio=True, video=True)
    for number in range(100):
        yield encode_tag(Tag(VIDEO, number, b"\x27\x01\0\0\0" + bytes(1 << 20)))


def headers_without_frames() -> Iterator[bytes]:
    yield file_header(audio=True, video=True)
    chance = random.Random(8)
    for number in range(2000):
        yield encode_tag(Tag(VIDEO, number, b"\x17\0\0\0\0\x01" + chance.randbytes(1 << 14)))


@pytest.mark.parametrize(
    "chunks",
    [
        garbage,
        endless_script,
        a_tag_without_end,
        no_keyframe_and_much_of_it,
        headers_without_frames,
    ],
)
async def test_the_child_stays_small(
    spawner: FeedSpawner, chunks: Callable[[], Iterator[bytes]]
) -> None:
    feed = await spawner.start(FeedOptions())
    assert await survives(feed, chunks()) < 160 << 20
    again = await spawner.start(FeedOptions())
    await again.write(encode(tags_of("flv")))
    await again.finish()
    assert len([event async for event in again.events()]) == 6
