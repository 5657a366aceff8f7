import asyncio
from pathlib import Path

import pytest

from xbyte_live.errors import StoreError
from xbyte_live.storage.blobs.cache import SegmentCache
from xbyte_live.storage.blobs.disk import DiskStore


class WatchedStore(DiskStore):
    """A store on disk that counts its reads, and holds them while ``gate`` is closed."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.gate = asyncio.Event()
        self.gate.set()
        self.reads: list[str] = []

    async def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        self.reads.append(key)
        await self.gate.wait()
        return await super().read(key, start, stop)


@pytest.fixture
async def store(tmp_path: Path) -> WatchedStore:
    store = WatchedStore(tmp_path)
    for name in "abcd":
        await store.put(f"{name}/0", name.encode() * 1000)
    return store


async def test_a_second_look_reads_nothing(store: WatchedStore) -> None:
    cache = SegmentCache(store, 10_000)
    first = await cache.get("a/0")
    assert first == b"a" * 1000
    assert await cache.get("a/0") is first
    assert store.reads == ["a/0"]
    assert (cache.hits, cache.misses, cache.bytes) == (1, 1, 1000)


async def test_a_hit_waits_for_nobody(store: WatchedStore) -> None:
    cache = SegmentCache(store, 10_000)
    await cache.get("a/0")
    with pytest.raises(StopIteration) as done:
        cache.get("a/0").send(None)  # ends at its first step: no loop, no thread
    assert done.value.value == b"a" * 1000


async def test_a_hundred_at_once_read_once(store: WatchedStore) -> None:
    cache = SegmentCache(store, 10_000)
    found = await asyncio.gather(*(cache.get("a/0") for _ in range(100)))
    assert set(found) == {b"a" * 1000}
    assert store.reads == ["a/0"]
    assert (cache.hits, cache.misses) == (0, 100)


async def test_who_gives_up_does_not_break_the_others(store: WatchedStore) -> None:
    cache = SegmentCache(store, 10_000)
    store.gate.clear()
    first, *others = (asyncio.create_task(cache.get("a/0")) for _ in range(3))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    store.gate.set()
    assert await asyncio.gather(*others) == [b"a" * 1000] * 2
    assert store.reads == ["a/0"]


async def test_when_all_give_up_the_next_one_is_served(store: WatchedStore) -> None:
    cache = SegmentCache(store, 10_000)
    store.gate.clear()
    alone = asyncio.create_task(cache.get("a/0"))
    await asyncio.sleep(0)
    alone.cancel()
    await asyncio.wait([alone])
    store.gate.set()
    assert await cache.get("a/0") == b"a" * 1000
    assert store.reads == ["a/0"]


async def test_the_longest_unused_goes_first(store: WatchedStore) -> None:
    cache = SegmentCache(store, 3000)
    for name in "abc":
        await cache.get(f"{name}/0")
    await cache.get("a/0")
    await cache.get("d/0")
    assert cache.bytes == 3000
    store.reads.clear()
    for name in "acd":
        await cache.get(f"{name}/0")
    assert store.reads == []
    await cache.get("b/0")
    assert store.reads == ["b/0"]


async def test_what_is_larger_than_the_limit_passes_through(store: WatchedStore) -> None:
    cache = SegmentCache(store, 1500)
    await cache.get("a/0")
    await store.put("big/0", b"x" * 1501)
    for _ in range(2):
        assert len(await cache.get("big/0")) == 1501
    assert store.reads.count("big/0") == 2
    assert cache.bytes == 1000  # and nothing was dropped for it


async def test_a_cache_of_no_bytes_holds_none(store: WatchedStore) -> None:
    cache = SegmentCache(store, 0)
    assert await cache.get("a/0") == b"a" * 1000
    assert cache.bytes == 0


async def test_a_failed_read_is_told_to_all_and_tried_again(store: WatchedStore) -> None:
    cache = SegmentCache(store, 10_000)
    failed = await asyncio.gather(*(cache.get("e/0") for _ in range(3)), return_exceptions=True)
    assert all(isinstance(error, StoreError) for error in failed)
    assert store.reads == ["e/0"]
    await store.put("e/0", b"e")
    assert await cache.get("e/0") == b"e"
    assert cache.bytes == 1
