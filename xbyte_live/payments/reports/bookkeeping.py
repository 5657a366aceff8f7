"""Adapter: entries of the books written as CSV or JSON, for spreadsheets and programs."""

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import orjson

from xbyte_live.money import PRICE_DECIMALS, format_decimal
from xbyte_live.payments.reports.export import Entry

Format = Literal["csv", "json"]

COLUMNS = (
    "kind", "time", "item", "resource", "bytes", "amount", "dollars", "income", "scheme",
    "network", "asset", "payer", "payee", "reference", "count",
)  # fmt: skip


@contextmanager
def writing(form: Format, file: TextIO) -> Iterator[Callable[[Entry], None]]:
    """What takes entries and writes them: CSV with a header, or one JSON list."""
    if form == "csv":
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)

        def tabulate(entry: Entry) -> None:
            table.writerow(_row(entry).values())

        yield tabulate
        return
    before = "[\n"

    def take(entry: Entry) -> None:
        nonlocal before
        file.write(before + orjson.dumps(_row(entry)).decode())
        before = ",\n"

    yield take
    file.write("[]\n" if before == "[\n" else "\n]\n")


def _row(entry: Entry) -> dict[str, Any]:
    """An entry under the names of ``COLUMNS``; amounts also as dollars."""
    at = datetime.fromtimestamp(entry.at, UTC)
    values = {
        "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "dollars": format_decimal(entry.amount, PRICE_DECIMALS),
    }
    return {
        name: values[name] if name in values else _safe(getattr(entry, name)) for name in COLUMNS
    }


def _safe(value: Any) -> Any:
    """Text that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value
