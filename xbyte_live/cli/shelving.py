"""Wiring: the commands that fill and change the catalog, with what they show."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import Progress, TaskID

from xbyte_live.catalog.importer import Importer, SaleTerms
from xbyte_live.cli.output import print_json, print_table, progress_bar, warn
from xbyte_live.config import Settings
from xbyte_live.errors import ConfigError, ItemNotFound, XByteError
from xbyte_live.evm.keys import is_address
from xbyte_live.media.vod.packager import PackageOptions
from xbyte_live.models import (
    Item,
    Object,
    Rewatch,
    Stream,
    Title,
    check_slug,
    kind_of,
    slug_of,
)
from xbyte_live.money import PRICE_DECIMALS, Price, format_decimal
from xbyte_live.runtime.format import clock, size_text
from xbyte_live.server.service import open_shelf

MEDIA_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".flv", ".ts", ".m2ts", ".mts", ".avi", ".mpg"}
    | {".mpeg", ".ogv", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".oga", ".opus", ".wav"}
)


@dataclass(frozen=True, slots=True)
class _Result:
    """What became of one file of a batch."""

    source: Path
    title: Title | None = None
    error: str = ""
    notes: tuple[str, ...] = ()


async def package_all(
    settings: Settings,
    sources: Sequence[Path],
    *,
    slug: str | None,
    name: str | None,
    preview: int,
    no_transcode: bool,
    pay_to: str | None,
    rewatch: Rewatch,
    replace_old: bool,
    as_json: bool,
) -> int:
    """Package every file; returns how many could not be. One bad file does not stop the rest."""
    files = list(_media_files(sources))
    if not files:
        raise ConfigError(f"no media files were found in {sources[0]}")
    if len(files) > 1 and (slug or name):
        raise ConfigError("--slug and --title name one item; give a single file with them")
    terms = replace(_terms(settings, pay_to, rewatch), preview_us=preview * 1_000_000)
    options = PackageOptions(
        segment_target_us=settings.segment_target * 1_000_000, transcode=not no_transcode
    )
    results = []
    async with open_shelf(settings) as shelf:
        importer = Importer(shelf.catalog, shelf.store)
        with progress_bar(quiet=as_json) as bars:
            for file in files:
                task = bars.add_task(file.name, total=1.0)
                try:
                    packaged = await importer.title(
                        file,
                        check_slug(slug) if slug else slug_of(file.stem),
                        terms,
                        options,
                        name=name,
                        replace_old=replace_old,
                        progress=partial(_advance, bars, task),
                    )
                    results.append(_Result(file, packaged.title, notes=packaged.notes))
                except XByteError as error:
                    results.append(_Result(file, error=str(error)))
                bars.remove_task(task)
    _report(results, as_json=as_json)
    return sum(1 for result in results if result.error)


async def add_object(
    settings: Settings,
    file: Path,
    *,
    slug: str | None,
    name: str | None,
    content_type: str | None,
    pay_to: str | None,
    rewatch: Rewatch,
    replace_old: bool,
    as_json: bool,
) -> None:
    """Put one file on sale as it is."""
    async with open_shelf(settings) as shelf:
        item = await Importer(shelf.catalog, shelf.store).object(
            file,
            check_slug(slug) if slug else slug_of(file.stem),
            _terms(settings, pay_to, rewatch),
            name=name,
            content_type=content_type,
            replace_old=replace_old,
        )
    _show([item], as_json=as_json)


async def list_catalog(settings: Settings, *, as_json: bool) -> None:
    """Show every item."""
    async with open_shelf(settings) as shelf:
        found = [await shelf.catalog.item(item.slug) for item in await shelf.catalog.items()]
    items = [item for item in found if item is not None]
    if items or as_json:
        _show(items, as_json=as_json)
    else:
        warn("nothing is for sale yet; put files on sale with `xbyte-live package FILE`")


async def change_terms(
    settings: Settings,
    *,
    slug: str,
    price: str | None,
    pay_to: str | None,
    preview: int | None,
    rewatch: Rewatch | None,
    as_json: bool,
) -> None:
    """Change what is given of an item's terms, then show the item."""
    async with open_shelf(settings) as shelf:
        if price is None and pay_to is None and preview is None and rewatch is None:
            item = await shelf.catalog.item(check_slug(slug))
            if item is None:
                raise ItemNotFound(f"there is no item {slug!r}; see `xbyte-live list`")
        else:
            item = await shelf.catalog.set_terms(
                check_slug(slug),
                price=None if price is None else Price.parse(price),
                pay_to=payee(pay_to),
                preview_us=None if preview is None else preview * 1_000_000,
                rewatch=rewatch,
            )
    _show([item], as_json=as_json)


async def remove_items(settings: Settings, slugs: Sequence[str]) -> None:
    """Take items off sale."""
    async with open_shelf(settings) as shelf:
        for slug in slugs:
            await shelf.catalog.remove(check_slug(slug))
            warn(f"{slug} is off sale")


def _advance(bars: Progress, task: TaskID, done: float) -> None:
    bars.update(task, completed=done)


def _media_files(sources: Sequence[Path]) -> Iterator[Path]:
    for source in sources:
        if not source.is_dir():
            yield source
            continue
        for file in sorted(source.rglob("*")):
            if file.suffix.lower() in MEDIA_SUFFIXES and file.is_file():
                yield file


def _terms(settings: Settings, pay_to: str | None, rewatch: Rewatch) -> SaleTerms:
    return SaleTerms(settings.default_price, payee(pay_to), rewatch=rewatch)


def payee(pay_to: str | None) -> str | None:
    """The address of ``--pay-to``, if it was given; raises ``ConfigError`` if it is none."""
    if pay_to is not None and not is_address(pay_to):
        raise ConfigError("--pay-to takes an address: 0x and 40 hex digits")
    return pay_to


def _report(results: Sequence[_Result], *, as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {"source": str(r.source), "error": r.error}
                if r.title is None
                else {"source": str(r.source), "notes": list(r.notes), **_described(r.title)}
                for r in results
            ]
        )
        return
    packaged = [r.title for r in results if r.title is not None]
    if packaged:
        _show(packaged, as_json=False)
    for result in results:
        for note in result.notes:
            warn(f"{result.source.name}: {note}")
        if result.error:
            named = result.error.startswith(f"{result.source.name}:")
            warn(f"Error: {'' if named else result.source.name + ': '}{result.error}")


def _show(items: Sequence[Item], *, as_json: bool) -> None:
    if as_json:
        print_json([_described(item) for item in items])
        return
    columns = ["slug", "kind", "name", ">length", ">size", ">$/MB", ">$ whole"]
    print_table(columns, [_row(item) for item in items])


def _row(item: Item) -> list[str]:
    price = item.offers[0].price
    return [
        item.slug,
        kind_of(item),
        item.name,
        clock(item.duration_us / 1e6) if isinstance(item, Title) else "",
        size_text(_bytes_of(item)),
        str(price),
        format_decimal(_cost_of(item), PRICE_DECIMALS),
    ]


def _described(item: Item) -> dict[str, Any]:
    offer = item.offers[0]
    described: dict[str, Any] = {
        "slug": item.slug,
        "kind": kind_of(item),
        "name": item.name,
        "bytes": _bytes_of(item),
        "price_per_mb": str(offer.price),
        "pay_to": offer.pay_to,
        "cost": _cost_of(item),
        "rewatch": item.rewatch,
    }
    if isinstance(item, Title):
        described |= {
            "duration_s": item.duration_us / 1_000_000,
            "preview_s": item.preview_us / 1_000_000,
            "segments": {r.name: len(r.segments) for r in item.renditions},
            "path": f"/hls/{item.slug}/index.m3u8",
        }
    elif isinstance(item, Stream):
        described |= {
            "state": item.state,
            "preview_s": item.preview_us / 1_000_000,
            "path": f"/hls/{item.slug}/index.m3u8",
        }
    else:
        described |= {"content_type": item.content_type, "path": f"/objects/{item.slug}"}
    return described


def _bytes_of(item: Item) -> int:
    """Stored bytes of its best rendition (of a stream: as far as it is listed), or the object's."""
    if isinstance(item, Object):
        return item.size
    return max((sum(s.size for s in r.segments) for r in item.renditions), default=0)


def _cost_of(item: Item) -> int:
    """Atomic units for all that its best rendition lists, or for the object at once."""
    price = item.offers[0].price
    if isinstance(item, Object):
        return price.amount_for(item.size)
    if not item.renditions:
        return 0
    best = max(item.renditions, key=lambda r: r.average_bandwidth)
    paid = (s for s in best.segments if s.start_us >= item.preview_us)
    return sum(price.amount_for(s.size) for s in paid)
