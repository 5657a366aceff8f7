"""Imports into a real catalog and store: whole, or not at all."""

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.items import PAYEE
from tests.support.media import RECIPES, Audio, Recipe, h264
from xbyte_live.catalog.catalog import Catalog
from xbyte_live.catalog.cleanup import clean_up
from xbyte_live.catalog.importer import Importer, PackagedTitle, SaleTerms
from xbyte_live.errors import ItemExists, MediaError, StoreError, TranscodeRequired
from xbyte_live.media.vod.packager import PackageOptions
from xbyte_live.models import Object, Title, segment_key
from xbyte_live.money import Price
from xbyte_live.storage.blobs.disk import DiskStore
from xbyte_live.storage.db.engine import Database

ROOT = Path(__file__).parents[2]
SHORT = Recipe(".mp4", "mp4", h264(group=25), Audio(), seconds=6)
TERMS = SaleTerms(Price(2500), pay_to=PAYEE, preview_us=1_000_000)
BY_TWO = PackageOptions(segment_target_us=2_000_000)


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SHORT.make(tmp_path_factory.mktemp("film") / "film.mp4")


@pytest.fixture(scope="session")
def vorbis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return RECIPES["ogg"].make(tmp_path_factory.mktemp("sound") / "sound.ogg")


@pytest.fixture
async def database(sqlite_url: str) -> AsyncIterator[Database]:
    database = Database(sqlite_url)
    await database.start()
    yield database
    await database.stop()


@pytest.fixture
def catalog(database: Database) -> Catalog:
    return Catalog(database, refresh=0.0, grace=0.0, lease=60.0)


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path / "store")


@pytest.fixture
def importer(catalog: Catalog, store: DiskStore) -> Importer:
    return Importer(catalog, store)


def keys_of(title: Title) -> list[str]:
    keys = [
        segment_key(title.slug, part.name, segment.msn)
        for part in title.renditions
        for segment in part.segments
    ]
    return sorted([*keys, title.poster] if title.poster else keys)


async def is_whole(title: Title, store: DiskStore) -> bool:
    """Whether the store holds exactly what a title lists."""
    for part in title.renditions:
        for segment in part.segments:
            data = await store.read(segment_key(title.slug, part.name, segment.msn))
            assert len(data) == segment.size
            assert hashlib.sha256(data).hexdigest() == segment.sha256
            assert data[0] == 0x47
    assert title.poster is None or (await store.read(title.poster))[:2] == b"\xff\xd8"
    return await store.keys(f"{title.slug}/") == keys_of(title)


async def nothing_is_left(slug: str, catalog: Catalog, store: DiskStore) -> bool:
    """Whether no item, no bytes and no claim on the slug remain."""
    assert await catalog.item(slug) is None
    assert await catalog.items() == []
    assert await store.keys("") == []
    assert not await asyncio.to_thread(remains, store)
    await catalog.abandon_import(await catalog.begin_import(slug, replace=False))
    return True


def remains(store: DiskStore) -> list[Path]:
    """Files in a store, half-written ones too."""
    return [path for path in store._root.rglob("*") if path.is_file()]


async def test_a_title_is_published_whole(
    importer: Importer, catalog: Catalog, store: DiskStore, film: Path
) -> None:
    progress: list[float] = []
    packaged = await importer.title(film, "film", TERMS, BY_TWO, progress=progress.append)
    title = packaged.title
    assert isinstance(packaged, PackagedTitle)
    assert (packaged.transcoded, packaged.notes) == (False, ())
    assert await catalog.item("film") == title
    assert await is_whole(title, store)
    assert title.poster == "film/poster/0.jpg"
    (rendition,) = title.renditions
    assert [segment.msn for segment in rendition.segments] == [0, 1, 2]
    assert sum(segment.duration_us for segment in rendition.segments) == title.duration_us
    assert abs(title.duration_us - 6_000_000) <= 50_000
    assert (title.name, title.rewatch) == ("film", "paid")
    offer = title.offers[0]
    assert (offer.price, offer.pay_to, offer.preview_us) == (Price(2500), PAYEE, 1_000_000)
    assert progress[-1] == 1.0


async def test_sound_alone_is_re_encoded_and_says_so(
    importer: Importer, store: DiskStore, vorbis: Path
) -> None:
    packaged = await importer.title(vorbis, "sound", TERMS, PackageOptions(), name="A sound")
    assert packaged.transcoded
    assert any("Opus" in note for note in packaged.notes)
    assert packaged.title.name == "A sound"
    assert packaged.title.poster is None
    assert packaged.title.renditions[0].name == "audio"
    assert await is_whole(packaged.title, store)


async def test_a_failing_source_leaves_nothing(
    importer: Importer, catalog: Catalog, store: DiskStore, vorbis: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no film")
    with pytest.raises(MediaError):
        await importer.title(text, "film", TERMS, BY_TWO)
    assert await nothing_is_left("film", catalog, store)
    with pytest.raises(TranscodeRequired):
        await importer.title(vorbis, "film", TERMS, PackageOptions(transcode=False))
    assert await nothing_is_left("film", catalog, store)


async def test_a_source_that_fails_half_way_leaves_nothing(
    importer: Importer, catalog: Catalog, store: DiskStore, tmp_path: Path
) -> None:
    whole = Recipe(".flac", "flac", None, Audio("flac"), seconds=13).make(tmp_path / "a.flac")
    cut = tmp_path / "cut.flac"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 4])
    with pytest.raises(MediaError, match="cut off"):
        await importer.title(cut, "film", TERMS, BY_TWO)
    assert await nothing_is_left("film", catalog, store)


class FullStore(DiskStore):
    """A store with room for two values."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._left = 2

    async def put(self, key: str, data: bytes) -> None:
        if not self._left:
            raise StoreError("the store cannot be written: no space left")
        self._left -= 1
        await super().put(key, data)


async def test_a_full_store_leaves_nothing(catalog: Catalog, film: Path, tmp_path: Path) -> None:
    store = FullStore(tmp_path / "store")
    with pytest.raises(StoreError, match="no space left"):
        await Importer(catalog, store).title(film, "film", TERMS, BY_TWO)
    assert await nothing_is_left("film", catalog, store)


async def test_a_slug_is_taken_once(
    importer: Importer, catalog: Catalog, store: DiskStore, film: Path, tmp_path: Path
) -> None:
    title = (await importer.title(film, "film", TERMS, BY_TWO)).title
    with pytest.raises(ItemExists):
        await importer.title(film, "film", TERMS, BY_TWO)
    with pytest.raises(ItemExists):
        await importer.object(film, "film", TERMS)
    assert await catalog.item("film") == title
    assert await is_whole(title, store)


async def test_two_at_once_are_one(importer: Importer, store: DiskStore, film: Path) -> None:
    outcomes = await asyncio.gather(
        *(importer.title(film, "film", TERMS, BY_TWO) for _ in range(3)), return_exceptions=True
    )
    (packaged,) = (outcome for outcome in outcomes if isinstance(outcome, PackagedTitle))
    assert sum(isinstance(outcome, ItemExists) for outcome in outcomes) == 2
    assert await is_whole(packaged.title, store)


async def test_a_replacement_counts_on_and_retires_the_old(
    importer: Importer, catalog: Catalog, store: DiskStore, film: Path
) -> None:
    old = (await importer.title(film, "film", TERMS, BY_TWO)).title
    terms = SaleTerms(Price(1000))
    new = (await importer.title(film, "film", terms, BY_TWO, replace_old=True)).title
    assert [segment.msn for segment in new.renditions[0].segments] == [3, 4, 5]
    assert [offer.price for offer in new.offers] == [Price(1000), Price(2500)]
    patient = Catalog(catalog._database, grace=300.0)
    for segment in old.renditions[0].segments:
        assert await patient.retired_segment("film", "source", segment.msn) is not None
    assert set(keys_of(old)) < set(await store.keys("film/"))
    await clean_up(catalog, store)
    assert await is_whole(new, store)


async def test_a_failed_replacement_leaves_the_old_on_sale(
    importer: Importer, catalog: Catalog, store: DiskStore, film: Path, tmp_path: Path
) -> None:
    old = (await importer.title(film, "film", TERMS, BY_TWO)).title
    full = FullStore(tmp_path / "store")
    with pytest.raises(StoreError):
        await Importer(catalog, full).title(film, "film", TERMS, BY_TWO, replace_old=True)
    assert await catalog.item("film") == old
    assert await is_whole(old, store)


class HaltingStore(DiskStore):
    """A store that says when its first value is there, and goes on when it is let."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.stored, self.go_on = asyncio.Event(), asyncio.Event()

    async def put(self, key: str, data: bytes) -> None:
        await super().put(key, data)
        self.stored.set()
        await self.go_on.wait()


async def test_cancelled_half_way_it_leaves_nothing(
    catalog: Catalog, film: Path, tmp_path: Path
) -> None:
    store = HaltingStore(tmp_path / "store")
    task = asyncio.create_task(Importer(catalog, store).title(film, "film", TERMS, BY_TWO))
    await store.stored.wait()
    assert await store.keys("") == ["film/source/0.ts"]
    task.cancel()
    store.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await nothing_is_left("film", catalog, store)


async def test_killed_half_way_it_leaves_no_item(
    database: Database, sqlite_url: str, store: DiskStore, film: Path
) -> None:
    command = (
        sys.executable,
        "-m",
        "tests.catalog.test_importer",
        sqlite_url,
        str(store._root),
        str(film),
    )
    child = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    assert await child.stdout.readline() == b"stored\n"
    child.kill()
    await child.communicate()
    catalog = Catalog(database, refresh=0.0)
    assert await catalog.item("film") is None
    assert await store.keys("") == ["film/source/0.ts"]
    with pytest.raises(ItemExists):  # until its lease ends
        await Importer(catalog, store).title(film, "film", TERMS, BY_TWO)

    later = Catalog(database, refresh=0.0, lease=0.0)
    assert (await clean_up(later, store)).imports == 1
    assert await nothing_is_left("film", later, store)
    title = (await Importer(catalog, store).title(film, "film", TERMS, BY_TWO)).title
    assert await is_whole(title, store)


async def test_a_dead_import_is_taken_over_without_a_sweep(
    database: Database, store: DiskStore, film: Path
) -> None:
    dead = await Catalog(database).begin_import("film", replace=False)
    await store.put("film/source/77.ts", b"left behind")
    await store.put(dead.poster_key, b"left behind")
    later = Catalog(database, refresh=0.0, lease=0.0)
    title = (await Importer(later, store).title(film, "film", TERMS, BY_TWO)).title
    assert await is_whole(title, store)


async def test_an_object_is_sold_as_it_is(
    importer: Importer, catalog: Catalog, store: DiskStore, tmp_path: Path
) -> None:
    source = tmp_path / "paper é.pdf"
    source.write_bytes(data := bytes(range(256)) * 9000)
    item = await importer.object(source, "paper", TERMS)
    assert isinstance(item, Object)
    assert await catalog.item("paper") == item
    assert await store.read(item.key) == data
    assert (item.size, item.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (item.name, item.content_type) == ("paper é.pdf", "application/pdf")
    assert item.offers[0].price == Price(2500)
    assert await store.keys("") == [item.key]


async def test_an_object_replaces_a_title(
    importer: Importer, catalog: Catalog, store: DiskStore, film: Path
) -> None:
    await importer.title(film, "film", TERMS, BY_TWO)
    item = await importer.object(film, "film", TERMS, replace_old=True, content_type="x/y")
    assert (item.content_type, await catalog.item("film")) == ("x/y", item)
    await clean_up(catalog, store)
    assert await store.keys("") == [item.key]


async def test_an_empty_file_is_no_object(
    importer: Importer, catalog: Catalog, store: DiskStore, tmp_path: Path
) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(MediaError, match="empty is empty; there is nothing to sell"):
        await importer.object(tmp_path / "empty", "paper", TERMS)
    for name in ("missing", ""):
        with pytest.raises(MediaError, match="not a file that can be read") as refusal:
            await importer.object(tmp_path / name, "paper", TERMS)
        assert str(tmp_path.parent) not in str(refusal.value)
    assert await nothing_is_left("paper", catalog, store)


class TellingStore(DiskStore):
    """A store that says when its first value is there, and waits to be killed."""

    async def put(self, key: str, data: bytes) -> None:
        await super().put(key, data)
        print("stored", flush=True)
        await asyncio.Event().wait()


async def import_until_killed(url: str, root: str, film: str) -> None:
    database = Database(url)
    await database.start()
    importer = Importer(Catalog(database), TellingStore(Path(root)))
    await importer.title(Path(film), "film", TERMS, BY_TWO)


if __name__ == "__main__":
    asyncio.run(import_until_killed(*sys.argv[1:]))
