"""Adapter: progress bars and tables on a terminal, plain lines where there is none."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_QUIET_FOR = 10.0  # seconds between lines where nobody sees one change


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_json_line(value: Any) -> None:
    """One JSON document on a line of stdout, at once."""
    click.echo(json.dumps(value, ensure_ascii=False))
    sys.stdout.flush()


def print_line(line: str) -> None:
    """One line on stdout."""
    click.echo(line)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table; columns whose name starts with ``>`` are flush right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.lstrip(">"), justify="right" if right else "left", no_wrap=right)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)


@contextmanager
def progress_bar(*, quiet: bool = False, download: bool = False) -> Iterator[Progress]:
    """A progress display on stderr that vanishes when done; nothing where it cannot be seen."""
    columns: list[Any] = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn()]
    columns += [DownloadColumn(binary_units=True)] if download else [TaskProgressColumn()]
    columns.append(TimeRemainingColumn())
    console = Console(stderr=True)
    disable = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=disable) as progress:
        yield progress


class SpendingLine:
    """One line on stderr that is kept right; where it cannot be, a line now and then."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._on = self._console.is_terminal and not quiet
        self._quiet = quiet
        self._said, self._said_at = "", float("-inf")

    def __enter__(self) -> "SpendingLine":
        if self._on:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def show(self, done: int, total: int, paid: str, rest: str, *, now: float) -> None:
        """How much of the total is used, in words too; ``now`` in seconds."""
        if self._on:
            row = Table.grid(padding=(0, 1))
            used = ProgressBar(total=max(total, 1), completed=min(done, total), width=20)
            row.add_row(Text(f"paid {paid}", style="bold"), used, Text(rest, style="dim"))
            self._live.update(row, refresh=True)
        elif not self._quiet and done and paid != self._said and now >= self._said_at + _QUIET_FOR:
            self._said, self._said_at = paid, now
            warn(f"paid {paid}, {rest}")

    def say(self, message: str) -> None:
        """A line that stays."""
        if self._on:
            self._console.print(Text(message, style="bold red"))
        elif not self._quiet:
            warn(message)

    def close(self) -> None:
        """Take it away."""
        if self._on:
            self._live.stop()
            self._on = False


def warn(message: str) -> None:
    """One line on stderr."""
    click.echo(message, err=True)


def on_terminal() -> bool:
    """Whether somebody may be reading stdout."""
    return sys.stdout.isatty()
