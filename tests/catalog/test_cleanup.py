import asyncio
import hashlib
import random
from pathlib import Path

import pytest

from tests.support import children
from tests.support.items import Clock, add_object, import_with_bytes, publish
from xbyte_live.catalog.catalog import Catalog
from xbyte_live.catalog.cleanup import CleanupResult, abandon, clean_up, discard
from xbyte_live.errors import ItemError
from xbyte_live.models import Title, segment_key
from xbyte_live.storage.blobs.disk import DiskStore
from xbyte_live.storage.db.engine import Database


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalog(database: Database, clock: Clock) -> Catalog:
    return Catalog(database, clock=clock)


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path / "store")


def keys_of(title: Title) -> list[str]:
    """Everything a title lists."""
    keys = [
        segment_key(title.slug, part.name, segment.msn)
        for part in title.renditions
        for segment in part.segments
    ]
    return sorted([*keys, title.poster] if title.poster else keys)


async def test_what_nobody_can_buy_any_more_goes(
    catalog: Catalog, store: DiskStore, clock: Clock
) -> None:
    await import_with_bytes(catalog, store, "plasma", 1, count=4)
    clock.now += 10
    title = await import_with_bytes(catalog, store, "plasma", 2, count=3)
    clock.now += 299
    assert await clean_up(catalog, store) == CleanupResult(0, 0)
    assert len(await store.keys("")) == 9
    clock.now += 1
    assert await clean_up(catalog, store) == CleanupResult(0, 5)
    assert await store.keys("") == keys_of(title)
    assert await clean_up(catalog, store) == CleanupResult(0, 0)


async def test_a_dead_import_leaves_nothing(
    catalog: Catalog, store: DiskStore, clock: Clock
) -> None:
    title = await import_with_bytes(catalog, store, "plasma", 1, count=2)
    neighbour = await import_with_bytes(catalog, store, "plasma-2", 1, count=2)
    dead = await catalog.begin_import("plasma", replace=True)
    await store.put(segment_key("plasma", "source", dead.first_msn), b"x")
    await store.put(segment_key("plasma", "audio", dead.first_msn + 900), b"x")
    await store.put(dead.poster_key, b"x")
    clock.now += 59
    assert await clean_up(catalog, store) == CleanupResult(0, 0)
    clock.now += 1
    assert await clean_up(catalog, store) == CleanupResult(1, 3)
    assert await store.keys("") == sorted(keys_of(title) + keys_of(neighbour))
    assert (await catalog.begin_import("plasma", replace=True)).first_msn == dead.first_msn


async def test_an_import_that_lives_is_left_alone(
    catalog: Catalog, store: DiskStore, clock: Clock
) -> None:
    import_ = await catalog.begin_import("plasma", replace=False)
    await store.put("plasma/source/0.ts", b"x")
    for _ in range(5):
        clock.now += 50
        await catalog.heartbeat(import_)
        assert await clean_up(catalog, store) == CleanupResult(0, 0)
    await publish(catalog, import_, count=1, poster=None)
    clock.now += 10_000
    await clean_up(catalog, store)
    assert await store.keys("") == ["plasma/source/0.ts"]


async def test_an_import_begins_on_clean_ground(
    catalog: Catalog, store: DiskStore, clock: Clock
) -> None:
    dead = await catalog.begin_import("plasma", replace=False)
    for msn in range(6):
        await store.put(segment_key("plasma", "source", msn), b"of the dead one")
    clock.now += 61
    title = await import_with_bytes(catalog, store, "plasma", 2, count=2)
    assert await store.keys("") == keys_of(title)
    assert await abandon(catalog, store, dead) == 0
    assert await store.keys("") == keys_of(title)


async def test_an_abandoned_import_leaves_nothing(catalog: Catalog, store: DiskStore) -> None:
    import_ = await catalog.begin_import("plasma", replace=False)
    await store.put("plasma/source/0.ts", b"x")
    assert await abandon(catalog, store, import_) == 1
    assert await store.keys("") == []
    assert (await catalog.begin_import("plasma", replace=False)).first_msn == 0


async def test_abandoning_what_was_published_deletes_nothing(
    catalog: Catalog, store: DiskStore
) -> None:
    import_ = await catalog.begin_import("plasma", replace=False)
    await store.put("plasma/source/0.ts", b"x")
    await publish(catalog, import_, count=1)
    assert await abandon(catalog, store, import_) == 0
    with pytest.raises(ItemError):
        await discard(catalog, store, import_)
    assert await store.keys("") == ["plasma/source/0.ts"]


async def test_a_publication_that_was_cancelled_is_whole_or_nothing(
    catalog: Catalog, store: DiskStore
) -> None:
    for steps in range(12):
        slug = f"item-{steps}"
        import_ = await catalog.begin_import(slug, replace=False)
        await store.put(segment_key(slug, "source", 0), b"x")
        publishing = asyncio.create_task(publish(catalog, import_, count=1, poster=None))
        for _ in range(steps):
            await asyncio.sleep(0)
        publishing.cancel()
        await asyncio.wait([publishing])
        await abandon(catalog, store, import_)
        item = await Catalog(catalog_database(catalog)).item(slug)
        assert await store.keys(f"{slug}/") == ([] if item is None else [f"{slug}/source/0.ts"])


def catalog_database(catalog: Catalog) -> Database:
    return catalog._database


async def test_old_objects_go_too(catalog: Catalog, store: DiskStore, clock: Clock) -> None:
    for version in range(3):
        await store.put(f"paper/object/{version}", b"paper")
        await add_object(catalog)
    clock.now += 301
    assert await clean_up(catalog, store) == CleanupResult(0, 2)
    assert await store.keys("") == ["paper/object/2"]


async def test_several_sweeps_at_once_do_no_harm(
    catalog: Catalog, store: DiskStore, clock: Clock
) -> None:
    for version in range(4):
        title = await import_with_bytes(catalog, store, "plasma", version, count=20)
    await catalog.begin_import("orbit", replace=False)
    await store.put("orbit/source/0.ts", b"x")
    clock.now += 301
    results = await asyncio.gather(*(clean_up(catalog, store) for _ in range(3)))
    assert sum(result.imports for result in results) == 1
    assert await store.keys("") == keys_of(title)


async def test_a_process_killed_while_it_imports_leaves_one_whole_title(
    database_url: str, tmp_path: Path
) -> None:
    store = DiskStore(tmp_path / "store")
    clock = Clock()
    published = 0
    for _ in range(3):
        child = await children.spawn(
            children.import_until_killed, database_url, str(tmp_path / "store")
        )
        published += len(await children.kill_after(child, random.randint(1, 12)))
        database = Database(database_url)
        await database.start()
        catalog = Catalog(database, clock=clock, lease=0.0)
        title = await catalog.item("plasma")
        assert isinstance(title, Title)
        await check_bytes(title, store)
        clock.now += 10**9  # far beyond any grace: only what is listed may stay
        await clean_up(catalog, store)
        assert await store.keys("") == keys_of(title)
        await check_bytes(title, store)
        await database.stop()
    assert title.renditions[0].segments[0].msn >= 8 * (published - 1)


async def check_bytes(title: Title, store: DiskStore) -> None:
    """All segments of one version, each with the bytes its row tells."""
    (part,) = title.renditions
    version = title.name.removeprefix("Version ")
    assert len(part.segments) == 8
    for index, segment in enumerate(part.segments):
        data = await store.read(segment_key(title.slug, part.name, segment.msn))
        assert data.startswith(f"version {version} segment {index} ".encode())
        assert (len(data), hashlib.sha256(data).hexdigest()) == (segment.size, segment.sha256)
    assert title.offers[0].price.per_mib == int(version)
    assert title.poster is not None
    assert await store.read(title.poster) == f"poster {version}".encode()
