import asyncio
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import children
from xbyte_live.errors import StoreError
from xbyte_live.models import segment_key
from xbyte_live.storage.blobs.disk import DiskStore
from xbyte_live.storage.blobs.store import Store, check_prefix, is_key

KEY = "plasma/source/0.ts"
DATA = bytes(range(256)) * 1000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "segments"


@pytest.fixture(params=["disk"])
def store(request: pytest.FixtureRequest, root: Path) -> Store:
    """Each kind of store: what is tested with it holds for all."""
    return {"disk": DiskStore}[request.param](root)


async def streamed(store: Store, start: int, stop: int, chunk: int) -> list[bytes]:
    return [data async for data in store.stream(KEY, start, stop, chunk)]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def files_under(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


async def test_what_is_put_is_read(store: Store) -> None:
    await store.put(KEY, DATA)
    assert await store.read(KEY) == DATA
    await store.put(KEY, b"")
    assert await store.read(KEY) == b""


async def test_a_put_replaces(store: Store) -> None:
    await store.put(KEY, DATA)
    await store.put(KEY, b"new")
    assert await store.read(KEY) == b"new"


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, 1), (0, 256_000), (255_999, 256_000), (1000, 2000), (7, 7), (256_000, None), (10, None)],
)
async def test_spans_are_read(store: Store, start: int, stop: int | None) -> None:
    await store.put(KEY, DATA)
    assert await store.read(KEY, start, stop) == DATA[start:stop]


@pytest.mark.parametrize(("start", "stop"), [(0, 256_001), (300_000, 300_001), (-1, 5), (5, 4)])
async def test_spans_that_are_not_all_there_are_refused(
    store: Store, start: int, stop: int
) -> None:
    await store.put(KEY, DATA)
    with pytest.raises(StoreError):
        await store.read(KEY, start, stop)
    with pytest.raises(StoreError):
        await streamed(store, start, stop, 1000)


async def test_streams_come_in_pieces(store: Store) -> None:
    await store.put(KEY, DATA)
    pieces = await streamed(store, 5, 250_005, 100_000)
    assert [len(piece) for piece in pieces] == [100_000, 100_000, 50_000]
    assert b"".join(pieces) == DATA[5:250_005]
    assert await streamed(store, 9, 9, 100) == []


async def test_a_stream_that_ends_early_gives_what_there_is_first(store: Store) -> None:
    await store.put(KEY, DATA)
    stream = store.stream(KEY, 255_000, 257_000, 500)
    assert await anext(stream) + await anext(stream) == DATA[255_000:]
    with pytest.raises(StoreError, match="fewer bytes"):
        await anext(stream)


async def test_a_missing_key_is_said_to_be(store: Store) -> None:
    with pytest.raises(StoreError, match="does not hold"):
        await store.read(KEY)
    with pytest.raises(StoreError, match="does not hold"):
        await streamed(store, 0, 1, 1)
    await store.delete(KEY)
    assert await store.keys("") == []


async def test_files_are_put(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(DATA * 20)
    await store.put_file("paper/object/0", source)
    assert await store.read("paper/object/0") == DATA * 20
    with pytest.raises(StoreError):
        await store.put_file("paper/object/1", tmp_path / "nothing")
    assert await store.keys("paper/") == ["paper/object/0"]


async def test_keys_are_listed_by_what_they_start_with(store: Store) -> None:
    keys = ["a/source/0.ts", "a/source/1.ts", "a/poster/0.jpg", "ab/source/0.ts"]
    for key in keys:
        await store.put(key, b"x")
    assert await store.keys("") == sorted(keys)
    assert await store.keys("a/") == sorted(keys[:3])
    assert await store.keys("a/source/1") == ["a/source/1.ts"]
    assert await store.keys("a/so") == ["a/source/0.ts", "a/source/1.ts"]
    assert await store.keys("c/") == []


async def test_what_is_deleted_is_gone(store: Store) -> None:
    await store.put(KEY, DATA)
    await store.put("plasma/source/1.ts", DATA)
    await store.delete(KEY)
    assert await store.keys("") == ["plasma/source/1.ts"]
    with pytest.raises(StoreError):
        await store.read(KEY)


HOSTILE = [
    "",
    "/etc/passwd",
    "../secret",
    "a/../../secret",
    "a/./b",
    "a//b",
    "a/",
    "/",
    ".",
    "..",
    "a\\..\\b",
    "a/b\0",
    "a/b\n",
    ".incoming/0",
    "a/.hidden",
    "a/" + "b" * 129,
    "/".join("abcdefghi"),
    "ä/0.ts",
    "a/b c",
    "C:/x",
    "~/x",
]


@pytest.mark.parametrize("key", HOSTILE)
async def test_hostile_keys_are_refused(store: Store, root: Path, key: str) -> None:
    source = root.parent / "source"
    source.write_bytes(b"x")
    for attempt in (
        store.put(key, b"x"),
        store.put_file(key, source),
        store.read(key),
        anext(store.stream(key, 0, 1)),
        store.delete(key),
    ):
        with pytest.raises(StoreError):
            await attempt
    assert files_under(root.parent) == {"source"}


@given(st.text(st.sampled_from("aA0._-/\\\0~ :ä\n"), max_size=20))
def test_no_key_leads_out_of_the_root(key: str) -> None:
    if is_key(key):
        resolved = Path(os.path.normpath(Path("/root/of/store") / key))
        assert resolved.is_relative_to("/root/of/store")
        assert resolved != Path("/root/of/store")
        assert not any(part.startswith(".") for part in key.split("/"))
        assert check_prefix(key) == key


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?", fullmatch=True), st.integers(0, 2**63))
def test_segments_have_good_keys(slug: str, msn: int) -> None:
    assert is_key(segment_key(slug, "source", msn))


@pytest.mark.parametrize("prefix", ["../", "/", "a/../", ".incoming/", "a//"])
async def test_hostile_prefixes_are_refused(store: Store, prefix: str) -> None:
    with pytest.raises(StoreError):
        await store.keys(prefix)


async def test_many_puts_of_one_key_leave_one_of_them_whole(store: Store, root: Path) -> None:
    values = [bytes([n]) * (1000 * n) for n in range(1, 40)]
    await asyncio.gather(*(store.put(KEY, value) for value in values))
    assert await store.read(KEY) in values
    assert files_under(root) == {KEY}


async def test_puts_and_deletes_in_one_folder_do_not_break_each_other(store: Store) -> None:
    async def put_and_delete(number: int) -> None:
        for _ in range(20):
            await store.put(f"a/b/{number}.ts", b"x")
            await store.delete(f"a/b/{number}.ts")

    await asyncio.gather(*(put_and_delete(number) for number in range(8)))
    assert await store.keys("") == []


async def test_a_key_below_or_above_another_is_refused(store: Store) -> None:
    await store.put("a/b", b"x")
    for attempt in (
        store.put("a/b/c", b"y"),
        store.put("a", b"y"),
        store.read("a"),
        store.read("a/b/c"),
    ):
        with pytest.raises(StoreError):
            await attempt
    assert await store.keys("") == ["a/b"]


async def test_errors_do_not_say_where_the_store_is(store: Store, root: Path) -> None:
    root.write_text("a file where the folder should be")
    for attempt in (
        store.put(KEY, b"x"),
        store.read(KEY),
        store.delete(KEY),
        store.keys("plasma/source/"),
    ):
        with pytest.raises(StoreError) as caught:
            await attempt
        assert str(root) not in str(caught.value)


async def test_a_full_disk_leaves_nothing_half_written(root: Path) -> None:
    said = await children.run(children.put_without_room, str(root))
    assert said == [
        "StoreError: the store cannot be written: File too large",
        "StoreError: the store cannot be written: File too large",
        "done",
    ]
    assert files_under(root) == {"slug/source/0.ts"}


async def test_a_writer_killed_at_any_moment_leaves_whole_values(root: Path) -> None:
    store = DiskStore(root)
    for _ in range(4):
        child = await children.spawn(children.put_until_killed, str(root))
        await children.kill_after(child, random.randint(1, 30))
        for key in await store.keys(""):
            data = await store.read(key)
            size = int.from_bytes(data[:4], "big")
            assert data == size.to_bytes(4, "big") * size


async def test_tidying_takes_what_dead_writers_left_and_nothing_else(root: Path) -> None:
    store = DiskStore(root)
    await store.tidy()
    await store.put(KEY, DATA)
    dead, alive = root / ".incoming" / "dead", root / ".incoming" / "alive"
    for file in (dead, alive):
        file.write_bytes(b"half")
    os.utime(dead, (0, 0))
    await store.tidy()
    assert files_under(root) == {KEY, ".incoming/alive"}


async def test_a_cancelled_put_has_ended_when_its_caller_goes_on(root: Path) -> None:
    store = DiskStore(root)
    putting = asyncio.create_task(store.put(KEY, DATA * 100))
    await asyncio.sleep(0)
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    left = files_under(root) if root.exists() else set()
    assert left <= {KEY}
    await asyncio.get_running_loop().shutdown_default_executor()
    assert (files_under(root) if root.exists() else set()) == left


async def test_a_cancelled_copy_leaves_nothing(root: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    store = DiskStore(root)
    copying = asyncio.create_task(store.put_file("a/object/0", tmp_path / "pipe"))
    writer = await asyncio.to_thread(os.open, tmp_path / "pipe", os.O_WRONLY)
    os.write(writer, b"the beginning")
    copying.cancel()
    os.close(writer)
    with pytest.raises(asyncio.CancelledError):
        await copying
    assert files_under(root) == set()


async def test_an_abandoned_stream_closes_its_file(root: Path) -> None:
    store = DiskStore(root)
    await store.put(KEY, DATA)
    before = open_files()
    stream = store.stream(KEY, 0, len(DATA), 1000)
    await anext(stream)
    assert open_files() == before + 1
    await stream.aclose()  # type: ignore[attr-defined]
    assert open_files() == before
