"""The pages of the documentation: their blocks and links, and the parts made from code."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.test_layers import ROOMS
from xbyte_live.config import setting_rows

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "xbyte_live" / "docs"
README = ROOT / "README.md"
PAGES = (README, *sorted(DOCS.glob("*.md")))


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: the page it stands in, its first line there, its language, its text."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """Every fenced block of a page."""
    opened: tuple[int, str] | None = None
    inside: list[str] = []
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        if not line.startswith("```"):
            inside.append(line)
        elif opened is None:
            opened, inside = (number, line.removeprefix("```").strip()), []
        else:
            yield Block(page, opened[0], opened[1], "\n".join(inside) + "\n")
            opened = None
    if opened is not None:
        raise ValueError(f"{page.name}:{opened[0]}: a block that does not end")


def settings_table() -> str:
    """The table of every setting."""
    rows = ["| flag | environment | default | meaning |", "|---|---|---|---|"]
    for row in setting_rows():
        flag = f"`{row.flag}`" if row.flag else ""
        default = f"`{row.default}`" if row.default else ""
        about = row.about.replace("|", r"\|")
        rows.append(f"| {flag} | `{row.env}` | {default} | {about} |")
    return "\n".join(rows)


def rooms_table() -> str:
    """The table of who may import whom."""
    rows = ["| room | may import |", "|---|---|"]
    for room, below in ROOMS.items():
        rows.append(f"| {room} | {', '.join(below) or 'nothing else'} |")
    return "\n".join(rows)


GENERATED = {"configuration.md": settings_table, "architecture.md": rooms_table}
_TABLE = re.compile(r"^\|(?: flag | room )\|.*\n(?:\|.*\n)+", re.MULTILINE)


def table_in(page: Path) -> str:
    """The table of a page that is made from code."""
    (found,) = _TABLE.findall(page.read_text("utf-8"))
    return str(found).rstrip("\n")


def write_tables() -> None:
    """Bring the tables made from code up to date: ``python -m tests.support.docs``."""
    for name, table in GENERATED.items():
        page = DOCS / name
        before, after = _TABLE.split(page.read_text("utf-8"))
        page.write_text(f"{before}{table()}\n{after}", "utf-8")


if __name__ == "__main__":
    write_tables()
