"""Wiring: ``ledger audit``, ``resum`` and ``export``: the books proven, mended, written out."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

from xbyte_live.cli.output import print_json, print_line, print_table, progress_bar, warn
from xbyte_live.config import Settings
from xbyte_live.errors import ConfigError
from xbyte_live.evm.evidence import Evidence
from xbyte_live.money import PRICE_DECIMALS, format_decimal
from xbyte_live.payments.audit.audit import STAGES, Auditor, Stage
from xbyte_live.payments.audit.findings import Audit
from xbyte_live.payments.audit.rollups import Resumming
from xbyte_live.payments.reports.export import Entry, Export, Format, writing
from xbyte_live.server.service import open_shelf

CLEAN, DISAGREEMENTS, UNCHECKED = 0, 1, 3  # exit codes of an audit


async def audit(settings: Settings, *, chain: bool, as_json: bool) -> int:
    """Check the books against the database and the chain; returns the exit code."""
    async with AsyncExitStack() as stack:
        shelf = await stack.enter_async_context(open_shelf(settings))
        chains = {
            network: Evidence(
                url,
                timeout=settings.facilitator_timeout,
                confirmations=settings.confirmations,
            )
            for network, url in settings.rpc_by_network.items()
            if chain
        }
        for evidence in chains.values():
            stack.push_async_callback(evidence.close)
        with progress_bar(quiet=as_json) as bars:
            tasks = {stage: bars.add_task(stage, total=None) for stage in STAGES}

            def progress(stage: Stage, done: int, total: int) -> None:
                bars.update(tasks[stage], completed=done, total=total)

            outcome = await Auditor(shelf.database, chains).audit(chain=chain, progress=progress)
    if as_json:
        print_json(_described(outcome))
    else:
        _show(outcome)
    return _code(outcome)


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


async def resum(settings: Settings, *, as_json: bool) -> None:
    """Sum everything again from the rows."""
    async with open_shelf(settings) as shelf:
        with progress_bar(quiet=as_json) as bars:
            task = bars.add_task("sums", total=None)

            def advance(done: int, total: int) -> None:
                bars.update(task, completed=done, total=total)

            rows = await Resumming(shelf.database).resum(advance)
    if as_json:
        print_json({"rows": rows})
    else:
        warn(f"{rows} rows are summed again")


async def export(
    settings: Settings, *, first: date, before: date, form: Format, out: Path | None
) -> None:
    """Write what was earned from a day on (UTC) and before another, a row a delivery."""
    if before <= first:
        raise ConfigError("--to must be a later day than --from; it is not included itself")
    since, until = (datetime.combine(day, time(), UTC).timestamp() for day in (first, before))
    async with open_shelf(settings) as shelf:
        with _writing(form, out) as take, progress_bar() as bars:
            task = bars.add_task("export", total=None)

            def advance(done: int, total: int) -> None:
                bars.update(task, completed=done, total=total)

            count = await Export(shelf.database).entries(since, until, take, advance)
    warn(f"{count} rows from {first} to before {before}, UTC")


@contextmanager
def _writing(form: Format, out: Path | None) -> Iterator[Callable[[Entry], None]]:
    """What takes entries and writes them; a file appears under its name once it is whole."""
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
