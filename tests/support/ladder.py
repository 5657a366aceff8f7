"""A title of several renditions, as a packager that makes a ladder would publish it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.media import Recipe
from xbyte_live.media.vod.packager import PackageOptions, package
from xbyte_live.models import Rendition, Title, segment_key
from xbyte_live.money import Price
from xbyte_live.server.catalog_access import CatalogAccess

OPTIONS = PackageOptions(segment_target_us=2_000_000)


@dataclass(frozen=True, slots=True)
class Rung:
    """A rendition and the bytes of its segments, counted from 0."""

    rendition: Rendition
    duration_us: int
    segments: list[bytes]


def make_rung(name: str, recipe: Recipe, folder: Path) -> Rung:
    """Encode and package one."""
    segments: list[bytes] = []
    source = recipe.make(folder / f"{name}{recipe.suffix}")
    packaged = package(source, lambda _, __, data: segments.append(data), OPTIONS, lambda _: None)
    (rendition,) = packaged.renditions
    return Rung(replace(rendition, name=name), packaged.duration_us, segments)


async def add_ladder(
    access: CatalogAccess,
    slug: str,
    recipes: Mapping[str, Recipe],
    folder: Path,
    *,
    price: int = 1_000,
) -> Title:
    """Put it on sale: a rendition for each of ``recipes``, cut at the same times."""
    rungs = [make_rung(name, recipe, folder) for name, recipe in recipes.items()]
    import_ = await access.catalog.begin_import(slug, replace=False)
    first = import_.first_msn
    renditions = []
    for rung in rungs:
        for msn, data in enumerate(rung.segments, first):
            await access.store.put(segment_key(slug, rung.rendition.name, msn), data)
        numbered = tuple(replace(s, msn=first + s.msn) for s in rung.rendition.segments)
        renditions.append(replace(rung.rendition, segments=numbered))
    return await access.catalog.publish_title(
        import_,
        name="Ladder",
        renditions=tuple(renditions),
        duration_us=max(rung.duration_us for rung in rungs),
        poster=None,
        price=Price(price),
        pay_to=None,
        preview_us=0,
        rewatch="paid",
    )
