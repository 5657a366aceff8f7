"""Wiring: the commands of what is for sale: package, add, list, price, remove."""

from pathlib import Path
from typing import Any

import click

from xbyte_live.cli.options import CATALOG_SETTINGS, Command, json_option, run, settings_options
from xbyte_live.config import Settings


def terms_options(command: Command) -> Command:
    """The options that say on which terms a file goes on sale."""
    for option in (
        click.option("--pay-to", help="The payee's address, if not the server's."),
        click.option(
            "--rewatch",
            type=click.Choice(["paid", "free"]),
            default="paid",
            show_default=True,
            help="Whether watching again is a sale again.",
        ),
        click.option(
            "--replace", "replace_old", is_flag=True, help="Replace the item of that slug."
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.argument(
    "sources",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="FILE…|DIR…",
)
@click.option("--slug", help="Name in URLs (for a single file); else from the file's name.")
@click.option("--title", "name", help="Name people see (for a single file).")
@click.option(
    "--preview",
    default=0,
    type=click.IntRange(0),
    show_default=True,
    help="Seconds at the start that are free.",
)
@click.option("--no-transcode", is_flag=True, help="Refuse what would have to be re-encoded.")
@terms_options
@json_option
@settings_options(*CATALOG_SETTINGS, "segment_target", "price")
def package(sources: tuple[Path, ...], settings: Settings, **given: Any) -> None:
    """Package media files, or all in a folder, as HLS and put them on sale."""
    from xbyte_live.cli.shelving import package_all

    if run(package_all(settings, sources, **given)):
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--slug", help="Name in URLs; else from the file's name.")
@click.option("--title", "name", help="Name people see.")
@click.option("--content-type", help="Media type; else guessed from the file's name.")
@terms_options
@json_option
@settings_options(*CATALOG_SETTINGS, "price")
def add(file: Path, settings: Settings, **given: Any) -> None:
    """Put any file on sale as it is, by the bytes of each range."""
    from xbyte_live.cli.shelving import add_object

    run(add_object(settings, file, **given))


@click.command("list")
@json_option
@settings_options(*CATALOG_SETTINGS)
def list_items(settings: Settings, as_json: bool) -> None:
    """List what is for sale."""
    from xbyte_live.cli.shelving import list_catalog

    run(list_catalog(settings, as_json=as_json))


@click.command("price")
@click.argument("slug")
@click.argument("price", required=False)
@click.option("--pay-to", help="The payee's address.")
@click.option("--preview", type=click.IntRange(0), help="Seconds at the start that are free.")
@click.option("--rewatch", type=click.Choice(["paid", "free"]), help="Sell again, or once.")
@json_option
@settings_options(*CATALOG_SETTINGS)
def set_price(settings: Settings, **given: Any) -> None:
    """Change what an item costs: `price SLUG 0.001` is dollars per MB."""
    from xbyte_live.cli.shelving import change_terms

    run(change_terms(settings, **given))


@click.command()
@click.argument("slugs", nargs=-1, required=True)
@settings_options(*CATALOG_SETTINGS)
def remove(slugs: tuple[str, ...], settings: Settings) -> None:
    """Take items off sale; what was sold stays for its retry window."""
    from xbyte_live.cli.shelving import remove_items

    run(remove_items(settings, slugs))
