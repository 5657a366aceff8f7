"""Wiring: ``package`` and ``add``: files put on sale, as HLS or as they are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click
from rich.progress import Progress, TaskID

from xbyte_live.catalog.importer import Importer, SaleTerms
from xbyte_live.cli.catalog import payee, show_items, whole_json
from xbyte_live.cli.options import (
    CATALOG_SETTINGS,
    Command,
    json_option,
    settings_options,
    together,
)
from xbyte_live.cli.output import print_json, progress_bar, warn
from xbyte_live.config import Settings
from xbyte_live.errors import ConfigError, XByteError
from xbyte_live.media.vod.packager import PackageOptions
from xbyte_live.models import Rewatch, Title, check_slug, slug_of
from xbyte_live.server.catalog_access import open_catalog

MEDIA_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".flv", ".ts", ".m2ts", ".mts", ".avi", ".mpg"}
    | {".mpeg", ".ogv", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".oga", ".opus", ".wav"}
)


@dataclass(frozen=True, slots=True)
class _Result:
    """One file of a batch: its title, or why it could not be packaged."""

    source: Path
    title: Title | None = None
    error: str = ""
    notes: tuple[str, ...] = ()


def terms_options(command: Command) -> Command:
    """The options of the terms on which a file goes on sale."""
    return together(
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
    )(command)


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
async def package(
    sources: tuple[Path, ...],
    settings: Settings,
    slug: str | None,
    name: str | None,
    preview: int,
    no_transcode: bool,
    pay_to: str | None,
    rewatch: Rewatch,
    replace_old: bool,
    as_json: bool,
) -> None:
    """Package media files, or all in a folder, as HLS and put them on sale."""
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
    async with open_catalog(settings) as access:
        importer = Importer(access.catalog, access.store)
        with progress_bar(quiet=as_json) as bars:
            for file in files:
                task = bars.add_task(file.name, total=1.0)
                try:
                    packing = await importer.title(
                        file,
                        check_slug(slug) if slug else slug_of(file.stem),
                        terms,
                        options,
                        name=name,
                        replace_old=replace_old,
                        progress=partial(_advance, bars, task),
                    )
                    results.append(_Result(file, packing.title, notes=packing.notes))
                except XByteError as error:
                    results.append(_Result(file, error=str(error)))
                bars.remove_task(task)
    _report(results, as_json=as_json)
    if any(result.error for result in results):
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--slug", help="Name in URLs; else from the file's name.")
@click.option("--title", "name", help="Name people see.")
@click.option("--content-type", help="Media type; else guessed from the file's name.")
@terms_options
@json_option
@settings_options(*CATALOG_SETTINGS, "price")
async def add(
    file: Path,
    settings: Settings,
    slug: str | None,
    name: str | None,
    content_type: str | None,
    pay_to: str | None,
    rewatch: Rewatch,
    replace_old: bool,
    as_json: bool,
) -> None:
    """Put any file on sale as it is, by the bytes of each range."""
    async with open_catalog(settings) as access:
        item = await Importer(access.catalog, access.store).object(
            file,
            check_slug(slug) if slug else slug_of(file.stem),
            _terms(settings, pay_to, rewatch),
            name=name,
            content_type=content_type,
            replace_old=replace_old,
        )
    show_items([item], as_json=as_json)


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


def _report(results: Sequence[_Result], *, as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {"source": str(r.source), "error": r.error}
                if r.title is None
                else {"source": str(r.source), "notes": list(r.notes), **whole_json(r.title)}
                for r in results
            ]
        )
        return
    packaged = [r.title for r in results if r.title is not None]
    if packaged:
        show_items(packaged, as_json=False)
    for result in results:
        for note in result.notes:
            warn(f"{result.source.name}: {note}")
        if result.error:
            named = result.error.startswith(f"{result.source.name}:")
            warn(f"Error: {'' if named else result.source.name + ': '}{result.error}")
