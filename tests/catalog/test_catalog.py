import asyncio
from dataclasses import replace
from fractions import Fraction

import pytest
from sqlalchemy import Engine, event

from tests.support.items import (
    PAYEE,
    Clock,
    a_rendition,
    add_object,
    add_title,
    publish,
    publish_object,
)
from xbyte_live.catalog.catalog import Catalog
from xbyte_live.errors import DatabaseUnavailable, ItemError, ItemExists, ItemNotFound
from xbyte_live.models import Object, Offer, Segment, Title
from xbyte_live.money import Price
from xbyte_live.storage.db.engine import Database


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalog(database: Database, clock: Clock) -> Catalog:
    return Catalog(database, clock=clock)


@pytest.fixture
def other(database: Database, clock: Clock) -> Catalog:
    """The catalog as another process sees it: with a memory of its own."""
    return Catalog(database, clock=clock)


async def fresh(database: Database, slug: str) -> Title | Object | None:
    """What the database holds, whatever anybody remembers."""
    return await Catalog(database).item(slug)


# Publishing


async def test_a_title_is_read_as_it_was_published(
    catalog: Catalog, other: Catalog, clock: Clock
) -> None:
    import_ = await catalog.begin_import("plasma", replace=False)
    parts = [
        a_rendition(0, 4, "720p", bandwidth=2_000_000),
        a_rendition(0, 3, "audio", width=None, height=None, frame_rate=None),
    ]
    assert await catalog.item("plasma") is None
    title = await publish(
        catalog, import_, name="Plasma", renditions=parts, preview_us=9, rewatch="free"
    )
    assert title == Title(
        slug="plasma",
        name="Plasma",
        created_at=clock.now,
        duration_us=30_000_000,
        renditions=tuple(parts),
        offers=(Offer(Price(1000), PAYEE, clock.now, preview_us=9),),
        rewatch="free",
        poster="plasma/poster/0.jpg",
    )
    assert title.renditions[0].frame_rate == Fraction(30000, 1001)
    assert await catalog.item("plasma") is title
    assert await other.item("plasma") == title


async def test_an_object_is_read_as_it_was_published(
    catalog: Catalog, other: Catalog, clock: Clock
) -> None:
    published = await add_object(catalog, "paper", content_type="application/pdf")
    assert published == Object(
        slug="paper",
        name="paper.pdf",
        created_at=clock.now,
        size=5,
        content_type="application/pdf",
        sha256=published.sha256,
        key="paper/object/0",
        offers=(Offer(Price(1000), None, clock.now),),
        rewatch="free",
    )
    assert await other.item("paper") == published


async def test_numbers_go_on_when_a_title_is_replaced(
    catalog: Catalog, other: Catalog, clock: Clock
) -> None:
    old = await add_title(catalog, count=5)
    clock.now += 60
    import_ = await catalog.begin_import("plasma", replace=True)
    assert import_.first_msn == 5
    assert await catalog.item("plasma") == old  # on sale until the new one is whole
    new = await publish(catalog, import_, count=2, name="New", poster=None)
    assert [segment.msn for segment in new.renditions[0].segments] == [5, 6]
    assert (new.name, new.poster, new.created_at) == ("New", None, old.created_at)
    clock.now += 1
    assert await other.item("plasma") == new
    assert (await catalog.begin_import("plasma", replace=True)).first_msn == 7


async def test_renditions_that_are_no_longer_there_are_gone(catalog: Catalog) -> None:
    await add_title(catalog, renditions=[a_rendition(0, 2, "720p"), a_rendition(0, 2, "audio")])
    title = await add_title(catalog, renditions=[a_rendition(2, 3, "480p")])
    assert [part.name for part in title.renditions] == ["480p"]


async def test_replaced_segments_stay_readable_for_the_grace(
    catalog: Catalog, clock: Clock
) -> None:
    old = await add_title(catalog, count=3)
    assert await catalog.retired_segment("plasma", "source", 1) is None  # it is listed
    await add_title(catalog, count=3)
    assert await catalog.retired_segment("plasma", "source", 1) == old.renditions[0].segments[1]
    for slug, rendition, msn in [
        ("plasma", "source", 3),
        ("plasma", "audio", 1),
        ("x", "source", 1),
        ("x\0", "source", 1),
        ("plasma", "source", -1),
        ("plasma", "source", 2**63),
    ]:
        assert await catalog.retired_segment(slug, rendition, msn) is None
    clock.now += 299
    assert await catalog.retired_segment("plasma", "source", 1) is not None
    clock.now += 2
    assert await catalog.retired_segment("plasma", "source", 1) is None


async def test_a_title_may_become_an_object_and_back(catalog: Catalog) -> None:
    await add_title(catalog, "thing", count=4)
    became = await add_object(catalog, "thing")
    assert became.key == "thing/object/4"
    assert isinstance(await catalog.item("thing"), Object)
    title = await add_title(catalog, "thing", renditions=[a_rendition(5, 1)])
    assert isinstance(title, Title)
    assert await catalog.retired_segment("thing", "source", 0) is not None


async def test_segments_below_the_import_are_refused(catalog: Catalog) -> None:
    await add_title(catalog, count=5)
    import_ = await catalog.begin_import("plasma", replace=True)
    with pytest.raises(ValueError, match="from 5 on"):
        await publish(catalog, import_, renditions=[a_rendition(4, 2)])
    assert (await publish(catalog, import_)).renditions[0].segments[0].msn == 5


@pytest.mark.parametrize("count", [2, 1])
async def test_what_cannot_be_published_whole_changes_nothing(
    catalog: Catalog, database: Database, count: int
) -> None:
    old = await add_title(catalog, count=3)
    import_ = await catalog.begin_import("plasma", replace=True)
    part = a_rendition(3, 3)
    twice = replace(part, segments=part.segments[:1] * count)
    broken = [twice, a_rendition(3, 3, "no/name" if count == 1 else "audio")]
    with pytest.raises(Exception, match=r"no rendition name|UNIQUE|unique"):
        await publish(catalog, import_, renditions=broken)
    assert await fresh(database, "plasma") == old
    assert (await publish(catalog, import_, count=3)).renditions[0].segments[0].msn == 3


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("Plain", "Plain"),
        ("Größe: 東京 🎬", "Größe: 東京 🎬"),
        ("two\nlines\t\x1b[31mred", "two lines [31mred"),
        ("nul\x00and half \udcff", "nul and half"),
        ("  \u202e ", "plasma"),
        ("", "plasma"),
        ("x" * 1000, "x" * 300),
    ],
)
async def test_names_are_one_line_that_any_database_takes(
    catalog: Catalog, database: Database, given: str, kept: str
) -> None:
    assert (await add_title(catalog, name=given)).name == kept
    found = await fresh(database, "plasma")
    assert found is not None
    assert found.name == kept


async def test_a_content_type_without_end_is_refused(catalog: Catalog) -> None:
    with pytest.raises(ItemError, match="content type"):
        await add_object(catalog, content_type="x" * 256)


# Imports


async def test_a_slug_on_sale_is_not_taken_unasked(catalog: Catalog) -> None:
    await add_title(catalog)
    with pytest.raises(ItemExists, match="on sale already"):
        await catalog.begin_import("plasma", replace=False)
    assert (await catalog.begin_import("plasma", replace=True)).slug == "plasma"


async def test_one_import_of_a_slug_at_a_time(catalog: Catalog, other: Catalog) -> None:
    import_ = await catalog.begin_import("plasma", replace=False)
    for replacing in (True, False):
        with pytest.raises(ItemExists, match="being imported"):
            await other.begin_import("plasma", replace=replacing)
    assert (await other.begin_import("orbit", replace=False)).first_msn == 0
    await catalog.abandon_import(import_)
    assert (await other.begin_import("plasma", replace=False)).first_msn == 0


async def test_of_many_imports_at_once_one_begins(database_url: str) -> None:
    databases = [Database(database_url) for _ in range(3)]
    for database in databases:
        await database.start()
    try:
        attempts = [
            Catalog(database).begin_import("plasma", replace=True)
            for database in databases
            for _ in range(5)
        ]
        begun = await asyncio.gather(*attempts, return_exceptions=True)
    finally:
        for database in databases:
            await database.stop()
    assert sum(isinstance(result, ItemExists) for result in begun) == 14


@pytest.mark.parametrize("slug", ["", "Plasma", "-x", "a/b", "..", "x" * 65, "a\0"])
async def test_malformed_slugs_are_refused(catalog: Catalog, slug: str) -> None:
    with pytest.raises(ItemError):
        await catalog.begin_import(slug, replace=False)
    assert await catalog.item(slug) is None


async def test_a_silent_import_loses_its_slug(
    catalog: Catalog, other: Catalog, clock: Clock
) -> None:
    silent = await catalog.begin_import("plasma", replace=False)
    clock.now += 59
    await catalog.heartbeat(silent)
    clock.now += 59
    with pytest.raises(ItemExists):
        await other.begin_import("plasma", replace=False)
    clock.now += 2
    taken = await other.begin_import("plasma", replace=False)
    assert taken.id != silent.id
    with pytest.raises(ItemError, match="lost its place"):
        await catalog.heartbeat(silent)
    with pytest.raises(ItemError, match="lost its place"):
        await publish(catalog, silent)
    await catalog.abandon_import(silent)  # has no hold on the other one
    assert (await publish(other, taken)).slug == "plasma"


async def test_a_late_import_may_still_publish_if_nobody_took_its_slug(
    catalog: Catalog, clock: Clock
) -> None:
    import_ = await catalog.begin_import("plasma", replace=False)
    clock.now += 1000
    assert (await publish(catalog, import_)).slug == "plasma"


async def test_an_import_is_published_once(catalog: Catalog) -> None:
    import_ = await catalog.begin_import("paper", replace=False)
    await publish_object(catalog, import_)
    with pytest.raises(ItemError, match="lost its place"):
        await publish_object(catalog, import_)


async def test_dead_imports_are_taken_over_by_who_asks_first(
    catalog: Catalog, other: Catalog, clock: Clock
) -> None:
    await add_title(catalog, count=3)
    dead = await catalog.begin_import("plasma", replace=True)
    clock.now += 30
    await catalog.begin_import("orbit", replace=True)
    clock.now += 31
    (stale,) = await other.stale_imports()
    assert (stale.slug, stale.first_msn) == ("plasma", 3)
    assert stale.id != dead.id
    assert await catalog.stale_imports() == []
    with pytest.raises(ItemExists):
        await catalog.begin_import("plasma", replace=True)
    clock.now += 61  # whoever took it died too
    assert {stale.slug for stale in await catalog.stale_imports()} == {"plasma", "orbit"}


# Terms


async def test_new_terms_are_a_new_offer(catalog: Catalog, clock: Clock) -> None:
    await add_title(catalog)
    clock.now += 10
    dearer = await catalog.set_terms("plasma", price=Price(2000), pay_to=None)
    assert dearer.offers == (
        Offer(Price(2000), PAYEE, clock.now),
        Offer(Price(1000), PAYEE, clock.now - 10),
    )
    elsewhere = await catalog.set_terms("plasma", price=None, pay_to="0x" + "bb" * 20)
    assert elsewhere.offers[0] == Offer(Price(2000), "0x" + "bb" * 20, clock.now)
    default = await catalog.set_terms("plasma", price=None, pay_to="")
    assert default.offers[0] == Offer(Price(2000), None, clock.now)
    assert len(default.offers) == 4
    free = await catalog.set_terms("plasma", price=Price(0), pay_to=None)
    assert free.offers[0].price.is_free


async def test_the_same_terms_are_no_new_offer(catalog: Catalog) -> None:
    title = await add_title(catalog)
    assert await catalog.set_terms("plasma", price=Price(1000), pay_to=PAYEE) is title
    assert await catalog.set_terms("plasma", price=None, pay_to=None) is title


async def test_rewatch_changes_without_an_offer(catalog: Catalog) -> None:
    title = await add_title(catalog)
    item = await catalog.set_terms("plasma", price=None, pay_to=None, rewatch="free")
    assert item == replace(title, rewatch="free")


async def test_another_preview_is_another_offer(catalog: Catalog, clock: Clock) -> None:
    title = await add_title(catalog)
    clock.now += 1
    item = await catalog.set_terms("plasma", price=None, pay_to=None, preview_us=12_000_000)
    [before] = title.offers
    assert item.offers == (replace(before, since=clock.now, preview_us=12_000_000), before)


async def test_what_is_removed_can_be_found_for_a_grace(catalog: Catalog, clock: Clock) -> None:
    title = await add_title(catalog)
    assert await catalog.removed_item("plasma") is None
    await catalog.remove("plasma")
    assert await catalog.item("plasma") is None
    assert await catalog.removed_item("plasma") == replace(title, renditions=())
    clock.now += 301
    assert await catalog.removed_item("plasma") is None


async def test_an_offer_never_comes_before_the_one_it_follows(
    catalog: Catalog, clock: Clock
) -> None:
    await add_title(catalog)
    since = clock.now
    clock.now -= 100  # another node's clock
    item = await catalog.set_terms("plasma", price=Price(2), pay_to=None)
    assert [offer.price for offer in item.offers] == [Price(2), Price(1000)]
    assert item.offers[0].since == since


async def test_price_history_goes_on_when_a_title_is_replaced(
    catalog: Catalog, clock: Clock
) -> None:
    await add_title(catalog, price=Price(1))
    clock.now += 1
    assert len((await add_title(catalog, price=Price(1))).offers) == 1
    offers = (await add_title(catalog, price=Price(2))).offers
    assert [offer.price for offer in offers] == [Price(2), Price(1)]


async def test_terms_of_nothing_are_refused(catalog: Catalog) -> None:
    with pytest.raises(ItemNotFound):
        await catalog.set_terms("plasma", price=Price(1), pay_to=None)
    await add_title(catalog)
    await catalog.remove("plasma")
    with pytest.raises(ItemNotFound):
        await catalog.set_terms("plasma", price=Price(1), pay_to=None)


# Removing


async def test_a_removed_item_is_gone_and_its_numbers_go_on(
    catalog: Catalog, other: Catalog, clock: Clock
) -> None:
    old = await add_title(catalog, count=5)
    await catalog.remove("plasma")
    assert await catalog.item("plasma") is None
    assert await other.items() == []
    assert await catalog.retired_segment("plasma", "source", 0) == old.renditions[0].segments[0]
    with pytest.raises(ItemNotFound):
        await catalog.remove("plasma")
    clock.now += 1
    import_ = await catalog.begin_import("plasma", replace=False)
    assert import_.first_msn == 5
    again = await publish(catalog, import_)
    assert again.created_at == clock.now
    assert await other.item("plasma") == again


async def test_removing_nothing_is_refused(catalog: Catalog) -> None:
    with pytest.raises(ItemNotFound):
        await catalog.remove("plasma")


# Looking


async def test_everything_on_sale_is_listed_without_segments(
    catalog: Catalog, clock: Clock
) -> None:
    assert await catalog.items() == []
    title = await add_title(catalog, "zebra")
    clock.now += 1
    paper = await add_object(catalog, "ant")
    await add_title(catalog, "gone")
    await catalog.remove("gone")
    await catalog.set_terms("zebra", price=Price(5), pay_to=None)
    bare = replace(title.renditions[0], segments=())
    offers = (Offer(Price(5), PAYEE, clock.now), *title.offers)
    assert await catalog.items() == [replace(title, renditions=(bare,), offers=offers), paper]


async def test_a_change_elsewhere_is_seen_when_it_is_time(
    catalog: Catalog, other: Catalog, clock: Clock
) -> None:
    await add_title(catalog)
    before = await other.item("plasma")
    await catalog.set_terms("plasma", price=Price(7), pay_to=None)
    clock.now += 0.4
    assert await other.item("plasma") is before
    clock.now += 0.2
    after = await other.item("plasma")
    assert after is not None
    assert after.offers[0].price == Price(7)
    await catalog.remove("plasma")
    assert await other.item("plasma") is after
    clock.now += 0.6
    assert await other.item("plasma") is None
    await add_object(catalog, "plasma")
    assert isinstance(await other.item("plasma"), Object)  # what is missing is not remembered


async def test_a_clock_that_went_back_does_not_freeze_what_is_seen(
    catalog: Catalog, other: Catalog, clock: Clock
) -> None:
    await add_title(catalog)
    await other.item("plasma")
    await catalog.set_terms("plasma", price=Price(7), pay_to=None)
    clock.now -= 3600
    found = await other.item("plasma")
    assert found is not None
    assert found.offers[0].price == Price(7)


async def test_looking_costs_one_statement_when_nothing_changed(
    catalog: Catalog, other: Catalog, clock: Clock
) -> None:
    await add_title(catalog, count=50)
    title = await other.item("plasma")
    statements: list[str] = []

    def note(*args: object) -> None:
        statements.append(str(args[2]))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        assert await other.item("plasma") is title
        assert statements == []
        clock.now += 1
        found = await asyncio.gather(*(other.item("plasma") for _ in range(100)))
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert all(item is title for item in found)
    assert len([text for text in statements if text.startswith("SELECT")]) == 1


async def test_who_gives_up_looking_does_not_break_the_others(
    catalog: Catalog, other: Catalog
) -> None:
    title = await add_title(catalog)
    first, second = (asyncio.create_task(other.item("plasma")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    assert await second == title


async def test_memory_holds_so_many_items(database: Database, clock: Clock) -> None:
    small = Catalog(database, clock=clock, item_cache=2)
    for slug in "abc":
        await add_object(small, slug)
    b, c = await small.item("b"), await small.item("c")
    assert await small.item("b") is b
    a = await small.item("a")
    assert await small.item("b") is b
    assert await small.item("c") is not c
    assert await small.item("a") is not a


async def test_a_closed_database_is_said_to_be(
    catalog: Catalog, database: Database, clock: Clock
) -> None:
    await add_title(catalog)
    await database.stop()
    clock.now += 1
    for attempt in (catalog.item("plasma"), catalog.items(), catalog.remove("plasma")):
        with pytest.raises(DatabaseUnavailable):
            await attempt


async def test_a_long_title_loads_whole(catalog: Catalog, database: Database) -> None:
    title = await add_title(catalog, count=5000)
    assert await fresh(database, "plasma") == title
    assert isinstance(title.renditions[0].segments[4999], Segment)
    assert title.renditions[0].segments[4999].msn == 4999


# Retired bytes


async def test_bytes_expire_after_the_grace_and_are_forgotten(
    catalog: Catalog, clock: Clock
) -> None:
    await add_title(catalog, count=2)
    await add_object(catalog)
    clock.now += 10
    await add_title(catalog, count=2)
    await add_object(catalog)
    assert await catalog.expired_keys() == []
    clock.now += 300
    keys = await catalog.expired_keys()
    assert sorted(keys) == [
        "paper/object/0",
        "plasma/poster/0.jpg",
        "plasma/source/0.ts",
        "plasma/source/1.ts",
    ]
    await catalog.forget(keys[:2])
    assert sorted(await catalog.expired_keys()) == sorted(keys[2:])
    await catalog.forget(keys)
    assert await catalog.expired_keys() == []
    await catalog.forget([])


async def test_what_is_on_sale_cannot_be_forgotten(catalog: Catalog, database: Database) -> None:
    title, paper = await add_title(catalog, count=2), await add_object(catalog)
    await catalog.forget(["plasma/source/0.ts", "plasma/poster/0.jpg", "paper/object/0", "x"])
    assert await fresh(database, "plasma") == title
    assert await fresh(database, "paper") == paper


async def test_a_key_that_is_named_again_does_not_expire(catalog: Catalog, clock: Clock) -> None:
    await add_object(catalog, key="paper/fixed")
    await catalog.remove("paper")
    await add_object(catalog, key="paper/fixed")
    await add_object(catalog, key="paper/fixed")
    clock.now += 1000
    assert await catalog.expired_keys() == []
    await catalog.remove("paper")
    clock.now += 1000
    assert await catalog.expired_keys() == ["paper/fixed"]
