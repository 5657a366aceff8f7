"""Wiring: the ``ledger`` commands: the books paid out, proven, mended, written out."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from xbyte_live.cli.options import CATALOG_SETTINGS, json_option, settings_options
from xbyte_live.cli.output import print_json, print_line, print_table, progress_bar, warn
from xbyte_live.config import Settings
from xbyte_live.errors import ConfigError
from xbyte_live.evm.evidence import Evidence
from xbyte_live.evm.rpc import RpcNode
from xbyte_live.money import PRICE_DECIMALS, format_decimal
from xbyte_live.payments.audit.audit import STAGES, Auditor, Stage
from xbyte_live.payments.audit.findings import Audit
from xbyte_live.payments.audit.rollups import RollupRebuild
from xbyte_live.payments.build import open_payments
from xbyte_live.payments.ledger.actions import Action
from xbyte_live.payments.reports.export import Entry, Export, Format, writing
from xbyte_live.runtime.logs import log_to_stderr
from xbyte_live.server.catalog_access import open_catalog

CLEAN, DISAGREEMENTS, UNCHECKED = 0, 1, 3  # exit codes of an audit

_DAY = click.DateTime(["%Y-%m-%d"])


@click.group()
def ledger() -> None:
    """The books: what was charged, and bringing it to the chain."""


@dataclass(frozen=True, slots=True)
class _Moved:
    """One claim or payout, as it is shown."""

    kind: str
    network: str
    pay_to: str
    dollars: str
    state: str
    transaction: str
    error: str


@ledger.command("settle")
@json_option
@settings_options()
async def ledger_settle(settings: Settings, as_json: bool) -> None:
    """Claim what channels were charged and pay it out, now."""
    log_to_stderr(settings.log_level)
    async with (
        open_catalog(settings) as access,
        open_payments(settings, access.database) as payments,
    ):
        done = await payments.settlement.claims.claim_now()
        done += await payments.settlement.claims.pay_out_now()
    moved = [_moved(action) for action in done if action.state != "failed" or action.error]
    if as_json:
        print_json([asdict(one) for one in moved])
    elif moved:
        heads = ("", "payee", "network", "dollars", "state", "transaction")
        rows = [
            (m.kind, m.pay_to, m.network, m.dollars, m.error or m.state, m.transaction)
            for m in moved
        ]
        print_table(heads, rows)
    else:
        print_table(("",), [("nothing was charged that is not claimed and paid out",)])
    if any(action.state != "settled" for action in done):
        raise click.exceptions.Exit(1)


def _moved(action: Action) -> _Moved:
    return _Moved(
        kind=action.kind,
        network=action.network,
        pay_to=action.pay_to,
        dollars=format_decimal(action.amount, PRICE_DECIMALS),
        state=action.state,
        transaction=action.tx_hash or "",
        error=(action.error or "") if action.state != "settled" else "",
    )


@ledger.command("audit")
@click.option("--no-chain", is_flag=True, help="Look at the database alone.")
@json_option
@settings_options(*CATALOG_SETTINGS, "rpc_urls", "confirmations", "facilitator_timeout")
async def ledger_audit(settings: Settings, no_chain: bool, as_json: bool) -> None:
    """Prove from database and chain that not one unit is lost, or say where.

    Exit codes: 0 all agrees, 1 something disagrees, 3 the chain could not be checked.
    """
    log_to_stderr("warning")
    async with AsyncExitStack() as stack:
        access = await stack.enter_async_context(open_catalog(settings))
        chains = {
            network: Evidence(
                RpcNode(url, timeout=settings.facilitator_timeout),
                confirmations=settings.confirmations,
            )
            for network, url in settings.rpc_by_network.items()
            if not no_chain
        }
        for evidence in chains.values():
            stack.push_async_callback(evidence.node.close)
        with progress_bar(quiet=as_json) as bars:
            tasks = {stage: bars.add_task(stage, total=None) for stage in STAGES}

            def progress(stage: Stage, done: int, total: int) -> None:
                bars.update(tasks[stage], completed=done, total=total)

            auditor = Auditor(access.database, chains)
            outcome = await auditor.audit(chain=not no_chain, progress=progress)
    if as_json:
        print_json(_described(outcome))
    else:
        _show(outcome)
    if code := _code(outcome):
        raise click.exceptions.Exit(code)


def _code(audit: Audit) -> int:
    if not audit.is_clean:
        return DISAGREEMENTS
    return UNCHECKED if audit.unchecked else CLEAN


def _described(audit: Audit) -> dict[str, Any]:
    return {
        "clean": audit.is_clean,
        "chain": "not asked"
        if not audit.chain
        else "not checked"
        if audit.unchecked
        else "checked",
        "unchecked": list(audit.unchecked),
        "payees": [asdict(sums) for sums in audit.sums],
        "disagreements": [asdict(found) for found in audit.disagreements],
        "more": audit.more,
    }


def _show(audit: Audit) -> None:
    columns = ("scheme", "network", "payee", ">channels", ">charged $", ">claimed $",
               ">settled $", ">in flight $")  # fmt: skip
    rows = [
        (
            *(sums.scheme, sums.network, sums.pay_to, str(sums.count)),
            *map(_dollars, (sums.charged, sums.claimed, sums.settled, sums.in_flight)),
        )
        for sums in audit.sums
    ]
    print_table(columns, rows)
    for one in audit.disagreements:
        print_line(f"{one.code}: {one.about}: {one.says} ({one.expected} expected, {one.found})")
    if audit.more:
        warn(f"and {audit.more} more disagreements")
    if not audit.chain:
        warn("the chain was not asked")
    for reason in audit.unchecked:
        warn(f"the chain is not checked: {reason}")
    count = len(audit.disagreements) + audit.more
    warn(f"{count} disagreements" if count else "no disagreements")


@ledger.command("resum")
@json_option
@settings_options(*CATALOG_SETTINGS)
async def ledger_resum(settings: Settings, as_json: bool) -> None:
    """Sum again what reports are put together from, when the audit says it is wrong.

    Servers may run, and sell, meanwhile.
    """
    log_to_stderr("warning")
    async with open_catalog(settings) as access:
        with progress_bar(quiet=as_json) as bars:
            task = bars.add_task("sums", total=None)

            def advance(done: int, total: int) -> None:
                bars.update(task, completed=done, total=total)

            rows = await RollupRebuild(access.database).resum(advance)
    if as_json:
        print_json({"rows": rows})
    else:
        warn(f"{rows} rows are summed again")


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
async def ledger_export(
    settings: Settings, first: datetime, before: datetime, form: Format, out: Path | None
) -> None:
    """Write every delivery of some days for bookkeeping, a row each."""
    if before <= first:
        raise ConfigError("--to must be a later day than --from; it is not included itself")
    since, until = (day.replace(tzinfo=UTC).timestamp() for day in (first, before))
    async with open_catalog(settings) as access:
        with _writing(form, out) as take, progress_bar() as bars:
            task = bars.add_task("export", total=None)

            def advance(done: int, total: int) -> None:
                bars.update(task, completed=done, total=total)

            count = await Export(access.database).entries(since, until, take, advance)
    warn(f"{count} rows from {first:%Y-%m-%d} to before {before:%Y-%m-%d}, UTC")


@contextmanager
def _writing(form: Format, out: Path | None) -> Iterator[Callable[[Entry], None]]:
    """A writer of entries; a file appears under its name once it is whole."""
    if out is None:
        with writing(form, sys.stdout) as take:
            yield take
        return
    part = out.with_name(out.name + ".part")
    try:
        with (
            part.open("w", encoding="utf-8", newline="") as file,
            writing(form, file) as take,
        ):
            yield take
        part.replace(out)
    except OSError as error:
        raise ConfigError(f"{out.name} cannot be written ({error.strerror}); set --out") from None
    finally:
        part.unlink(missing_ok=True)


def _dollars(amount: int) -> str:
    return format_decimal(amount, PRICE_DECIMALS)
