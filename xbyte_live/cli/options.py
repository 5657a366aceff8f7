"""Wiring: what commands share: options made of settings, and how their coroutines are run."""

import asyncio
import inspect
import os
import sys
from collections.abc import Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import click

from xbyte_live.config import SettingRow, load_settings, setting_rows

T = TypeVar("T")
Command = Callable[..., Any]

CATALOG_SETTINGS = ("data_dir", "database_url")
PAYER_SETTINGS = ("assets", "rpc_urls")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
budget_option = click.option(
    "--budget", default="0.10", show_default=True, help="Most dollars to spend in all."
)
rendition_option = click.option(
    "--rendition", help="Which rendition of a playlist; else the best, or the player's choice."
)
plain_http_option = click.option(
    "--allow-plain-http", is_flag=True, help="Pay servers without TLS on other hosts."
)


def limit_options(command: Command) -> Command:
    """The options that limit what a payer spends and which rendition it buys."""
    return together(
        budget_option,
        click.option("--max-price", help="Most dollars per MB."),
        click.option(
            "--max-per-minute", help="Most dollars to spend within a minute; slower then."
        ),
        click.option(
            "--max-deposit",
            default="1.00",
            show_default=True,
            help="Most dollars that lie unspent in one channel.",
        ),
        rendition_option,
        click.option("--max-bandwidth", type=int, help="Most bits a second a rendition may have."),
        plain_http_option,
    )(command)


def together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, shown in their order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def settings_options(*names: str) -> Callable[[Command], Command]:
    """Options for these settings (all without names), passed on as one ``settings``.

    A command that is a coroutine function is run to its end.
    """
    rows = [row for row in setting_rows() if row.flag and (not names or row.name in names)]
    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    option = click.option(
        "--config", type=file, envvar="XBYTE_CONFIG", help="TOML file with settings."
    )

    def decorate(command: Command) -> Command:
        @wraps(command)
        def with_settings(*args: Any, config: Path | None, **given: Any) -> Any:
            flags = {row.name: given.pop(row.name) for row in rows}
            settings = load_settings(environ=os.environ, file=config, overrides=flags)
            done = command(*args, settings=settings, **given)
            return run(done) if inspect.iscoroutine(done) else done

        return together(option, *map(_setting_option, rows))(with_settings)

    return decorate


def _setting_option(row: SettingRow) -> Callable[[Command], Command]:
    kind: Any = str
    if row.kind is int:
        kind = int
    elif get_args(row.kind) and get_origin(row.kind) is not tuple:
        kind = click.Choice(get_args(row.kind))
    about = row.about.replace("`", "")
    shown = f"  [{row.env}; default: {row.default}]" if row.default else f"  [{row.env}]"
    return click.option(
        str(row.flag), row.name, type=kind, default=None, help=about[0].upper() + about[1:] + shown
    )


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, on uvloop where there is one."""
    if sys.platform == "win32":
        return asyncio.run(work)
    import uvloop

    return uvloop.run(work)
