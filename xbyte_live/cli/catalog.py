"""Wiring: ``list``, ``price`` and ``remove``: what is for sale, shown and changed."""

from collections.abc import Sequence
from typing import Any

import click

from xbyte_live.catalog.item_json import item_json
from xbyte_live.cli.options import CATALOG_SETTINGS, json_option, settings_options
from xbyte_live.cli.output import print_json, print_table, warn
from xbyte_live.config import Settings
from xbyte_live.errors import ConfigError, ItemNotFound
from xbyte_live.models import Item, Object, Rewatch, Title, check_slug, kind_of
from xbyte_live.money import PRICE_DECIMALS, Price, format_decimal, is_address
from xbyte_live.runtime.format import clock, size_text
from xbyte_live.server.catalog_access import open_catalog


@click.command("list")
@json_option
@settings_options(*CATALOG_SETTINGS)
async def list_items(settings: Settings, as_json: bool) -> None:
    """List what is for sale."""
    async with open_catalog(settings) as access:
        found = [await access.catalog.item(item.slug) for item in await access.catalog.items()]
    items = [item for item in found if item is not None]
    if items or as_json:
        show_items(items, as_json=as_json)
    else:
        warn("nothing is for sale yet; put files on sale with `xbyte-live package FILE`")


@click.command("price")
@click.argument("slug")
@click.argument("price", required=False)
@click.option("--pay-to", help="The payee's address.")
@click.option("--preview", type=click.IntRange(0), help="Seconds at the start that are free.")
@click.option("--rewatch", type=click.Choice(["paid", "free"]), help="Sell again, or once.")
@json_option
@settings_options(*CATALOG_SETTINGS)
async def set_price(
    settings: Settings,
    slug: str,
    price: str | None,
    pay_to: str | None,
    preview: int | None,
    rewatch: Rewatch | None,
    as_json: bool,
) -> None:
    """Change what an item costs: `price SLUG 0.001` is dollars per MB."""
    async with open_catalog(settings) as access:
        if price is None and pay_to is None and preview is None and rewatch is None:
            item = await access.catalog.item(check_slug(slug))
            if item is None:
                raise ItemNotFound(f"there is no item {slug!r}; see `xbyte-live list`")
        else:
            item = await access.catalog.set_terms(
                check_slug(slug),
                price=None if price is None else Price.parse(price),
                pay_to=payee(pay_to),
                preview_us=None if preview is None else preview * 1_000_000,
                rewatch=rewatch,
            )
    show_items([item], as_json=as_json)


@click.command()
@click.argument("slugs", nargs=-1, required=True)
@settings_options(*CATALOG_SETTINGS)
async def remove(slugs: tuple[str, ...], settings: Settings) -> None:
    """Take items off sale; what was sold stays for its retry window."""
    await remove_items(settings, slugs)


async def remove_items(settings: Settings, slugs: Sequence[str]) -> None:
    """Take items off sale; raises ``ItemNotFound``."""
    async with open_catalog(settings) as access:
        for slug in slugs:
            await access.catalog.remove(check_slug(slug))
            warn(f"{slug} is off sale")


def payee(pay_to: str | None) -> str | None:
    """The address of ``--pay-to``, if it was given; raises ``ConfigError`` if it is none."""
    if pay_to is not None and not is_address(pay_to):
        raise ConfigError("--pay-to takes an address: 0x and 40 hex digits")
    return pay_to


def show_items(items: Sequence[Item], *, as_json: bool) -> None:
    """Print items, as a table or as one JSON list."""
    if as_json:
        print_json([whole_json(item) for item in items])
        return
    columns = ["slug", "kind", "name", ">length", ">size", ">$/MB", ">$ whole"]
    print_table(columns, [_row(item) for item in items])


def whole_json(item: Item) -> dict[str, Any]:
    """An item with its bytes, what they cost at once in atomic units, and its path in URLs.

    The bytes are those of the best rendition, of a stream as far as it is listed.
    """
    files = "objects" if isinstance(item, Object) else "hls"
    found = item_json(item, item.offers[0]) | {
        "bytes": _bytes_of(item),
        "pay_to": item.offers[0].pay_to,
        "cost": _cost_of(item),
        "path": f"/{files}/{item.slug}" + ("" if files == "objects" else "/index.m3u8"),
    }
    if isinstance(item, Title):
        found["segments"] = {r.name: len(r.segments) for r in item.renditions}
    return found


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
