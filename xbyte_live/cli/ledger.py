"""Wiring: the commands of the books: settle, audit, resum, export."""

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from xbyte_live.cli.options import CATALOG_SETTINGS, json_option, run, settings_options
from xbyte_live.config import Settings

_DAY = click.DateTime(["%Y-%m-%d"])


@click.group()
def ledger() -> None:
    """The books: what was charged, and bringing it to the chain."""


@ledger.command("settle")
@json_option
@settings_options()
def ledger_settle(settings: Settings, as_json: bool) -> None:
    """Claim what channels were charged and pay it out, now."""
    from xbyte_live.cli.output import log_to_stderr
    from xbyte_live.cli.settling import settle_now

    log_to_stderr(settings.log_level)
    if not run(settle_now(settings, as_json=as_json)):
        raise click.exceptions.Exit(1)


@ledger.command("audit")
@click.option("--no-chain", is_flag=True, help="Look at the database alone.")
@json_option
@settings_options(*CATALOG_SETTINGS, "rpc_urls", "confirmations", "facilitator_timeout")
def ledger_audit(settings: Settings, no_chain: bool, as_json: bool) -> None:
    """Prove from database and chain that not one unit is lost, or say where.

    Exit codes: 0 all agrees, 1 something disagrees, 3 the chain could not be checked.
    """
    from xbyte_live.cli.auditing import audit
    from xbyte_live.cli.output import log_to_stderr

    log_to_stderr("warning")
    if code := run(audit(settings, chain=not no_chain, as_json=as_json)):
        raise click.exceptions.Exit(code)


@ledger.command("resum")
@json_option
@settings_options(*CATALOG_SETTINGS)
def ledger_resum(settings: Settings, as_json: bool) -> None:
    """Sum again what reports are put together from, when the audit says it is wrong.

    Servers may run, and sell, meanwhile.
    """
    from xbyte_live.cli.auditing import resum
    from xbyte_live.cli.output import log_to_stderr

    log_to_stderr("warning")
    run(resum(settings, as_json=as_json))


@ledger.command("export")
@click.option("--from", "first", required=True, type=_DAY, help="First day, UTC, included.")
@click.option("--to", "before", required=True, type=_DAY, help="Day to stop before, UTC.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "json"]),
    default="csv",
    show_default=True,
    help="CSV with a header, or one JSON list.",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write.")
@settings_options(*CATALOG_SETTINGS)
def ledger_export(settings: Settings, first: datetime, before: datetime, **given: Any) -> None:
    """Write every delivery of some days for bookkeeping, a row each."""
    from xbyte_live.cli.auditing import export

    run(export(settings, first=first.date(), before=before.date(), **given))
