"""Adapter: the two statements that record a batch of charges, each sent once however long it is.

Rows go as one JSON value: a statement that is run row by row hands the interpreter over to the
event loop at every row, and waits to get it back.
"""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, text

_TYPES = {
    "channel": "bigint",
    "was": "bigint",
    "charged": "bigint",
    "signed": "bigint",
    "signature": "text",
    "epoch": "integer",
    "cumulative": "bigint",
    "amount": "bigint",
    "slug": "text",
    "resource": "text",
    "size": "bigint",
}
_CHARGED = ("channel", "was", "charged", "signed", "signature")
_DELIVERED = ("channel", "epoch", "cumulative", "amount", "slug", "resource", "size")


def _rows(dialect: str, names: Sequence[str]) -> str:
    """A table of the JSON objects in ``:rows``."""
    if dialect == "postgresql":
        columns = ", ".join(f"{name} {_TYPES[name]}" for name in names)
        return f"jsonb_to_recordset(CAST(:rows AS jsonb)) AS v({columns})"
    columns = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name in names)
    return f"(SELECT {columns} FROM json_each(:rows)) AS v"  # noqa: S608


_CHARGE, _DELIVER = (
    {dialect: text(sql.format(_rows(dialect, names))) for dialect in ("sqlite", "postgresql")}
    for names, sql in (
        (
            _CHARGED,
            "UPDATE channels SET charged = v.charged, signed = v.signed, signature = v.signature,"
            " charged_at = :now FROM {} WHERE channels.id = v.channel AND channels.charged = v.was",
        ),
        (
            _DELIVERED,
            "INSERT INTO deliveries"
            " (channel, epoch, cumulative, amount, slug, resource, size, created_at)"
            " SELECT channel, epoch, cumulative, amount, slug, resource, size, :now FROM {}",
        ),
    )
)


def write_charged(db: Connection, rows: Sequence[dict[str, Any]], now: float) -> int:
    """Move ``charged`` of channels that still stand at ``was``; how many did."""
    return _run(db, _CHARGE, rows, now)


def write_delivered(db: Connection, rows: Sequence[dict[str, Any]], now: float) -> int:
    """Add the rows of deliveries; how many there were."""
    return _run(db, _DELIVER, rows, now)


def _run(db: Connection, statements: dict[str, Any], rows: Sequence[Any], now: float) -> int:
    values = {"rows": orjson.dumps(rows).decode(), "now": now}
    return db.execute(statements[db.dialect.name], values).rowcount
