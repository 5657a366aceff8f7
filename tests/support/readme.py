"""The README's parts that are made from code, and what stands in it now."""

from pathlib import Path

from xbyte_live.config import setting_rows

README = Path(__file__).parents[2] / "README.md"


def settings_table() -> str:
    """The configuration table; ``python -m tests.support.readme`` writes it into the README."""
    rows = ["| flag | environment | default | what it is |", "|---|---|---|---|"]
    for row in setting_rows():
        flag = f"`{row.flag}`" if row.flag else ""
        default = f"`{row.default}`" if row.default else ""
        about = row.about.replace("|", r"\|")
        rows.append(f"| {flag} | `{row.env}` | {default} | {about} |")
    return "\n".join(rows)


def section(name: str) -> str:
    """What stands in the README between ``<!-- name -->`` and ``<!-- /name -->``."""
    before, _, rest = README.read_text("utf-8").partition(f"<!-- {name} -->\n")
    inside, end, _ = rest.partition(f"<!-- /{name} -->")
    if not before or not end:
        raise ValueError(f"the README has no section {name}")
    return inside.strip()


def write_settings_table() -> None:
    """Put the configuration table where it belongs in the README."""
    text = README.read_text("utf-8")
    before, start, rest = text.partition("<!-- settings -->\n")
    _, end, after = rest.partition("<!-- /settings -->")
    README.write_text(f"{before}{start}{settings_table()}\n{end}{after}", "utf-8")


if __name__ == "__main__":
    write_settings_table()
