"""Adapter: stdout and stderr: tables and progress on a terminal, plain lines elsewhere."""

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

_QUIET_FOR = 10.0  # seconds between lines without a terminal


def print_json(value: Any) -> None:
    """Print one JSON document, indented."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_json_line(value: Any) -> None:
    """Print one JSON document on one line, and flush it."""
    click.echo(json.dumps(value, ensure_ascii=False))
    sys.stdout.flush()


def print_line(line: str) -> None:
    """Print one line."""
    click.echo(line)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; columns whose name starts with ``>`` are flush right."""
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
    """A progress display on stderr that vanishes when done; none without a terminal."""
    columns: list[Any] = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn()]
    columns += [DownloadColumn(binary_units=True)] if download else [TaskProgressColumn()]
    columns.append(TimeRemainingColumn())
    console = Console(stderr=True)
    disable = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=disable) as progress:
        yield progress


class SpendingLine:
    """One line on stderr that is rewritten as money is spent; a new one now and then elsewhere."""

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
        """Show how much of the total is used, as a bar and in words; ``now`` in seconds."""
        if self._on:
            row = Table.grid(padding=(0, 1))
            used = ProgressBar(total=max(total, 1), completed=min(done, total), width=20)
            row.add_row(Text(f"paid {paid}", style="bold"), used, Text(rest, style="dim"))
            self._live.update(row, refresh=True)
        elif not self._quiet and done and paid != self._said and now >= self._said_at + _QUIET_FOR:
            self._said, self._said_at = paid, now
            warn(f"paid {paid}, {rest}")

    def say(self, message: str) -> None:
        """Print a line that stays."""
        if self._on:
            self._console.print(Text(message, style="bold red"))
        elif not self._quiet:
            warn(message)

    def close(self) -> None:
        """Remove the line."""
        if self._on:
            self._live.stop()
            self._on = False


def warn(message: str) -> None:
    """Print one line on stderr."""
    click.echo(message, err=True)


def on_terminal() -> bool:
    """Whether stdout is a terminal."""
    return sys.stdout.isatty()
