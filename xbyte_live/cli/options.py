"""Wiring: what commands share: options made of settings, and how their work is run."""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import click

from xbyte_live.config import SettingRow, load_settings, setting_rows

T = TypeVar("T")
Command = Callable[..., Any]

CATALOG_SETTINGS = ("data_dir", "database_url")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


def settings_options(*names: str) -> Callable[[Command], Command]:
    """Options for these settings (all without names), passed on as one ``settings``."""
    rows = [row for row in setting_rows() if row.flag and (not names or row.name in names)]

    def decorate(command: Command) -> Command:
        def run(*args: Any, config: Path | None, **given: Any) -> Any:
            flags = {row.name: given.pop(row.name) for row in rows}
            settings = load_settings(environ=os.environ, file=config, overrides=flags)
            return command(*args, settings=settings, **given)

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__click_params__ = list(getattr(command, "__click_params__", []))  # type: ignore[attr-defined]
        for row in reversed(rows):
            run = _setting_option(row)(run)
        file = click.Path(exists=True, dir_okay=False, path_type=Path)
        return click.option(
            "--config", type=file, envvar="XBYTE_CONFIG", help="TOML file with settings."
        )(run)

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
    """Run a command's coroutine on uvloop where there is one."""
    if sys.platform == "win32":
        return asyncio.run(work)
    import uvloop

    return uvloop.run(work)
