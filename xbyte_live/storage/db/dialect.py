"""Adapter: the SQL that SQLite and PostgreSQL write differently."""

from collections.abc import Mapping
from typing import Literal, cast

from sqlalchemy import Connection, Table, func, select
from sqlalchemy.dialects import postgresql, sqlite

Dialect = Literal["sqlite", "postgresql"]
DIALECTS: tuple[Dialect, ...] = ("sqlite", "postgresql")


def dialect_of(db: Connection) -> Dialect:
    """Which of the two a connection speaks."""
    return "postgresql" if db.dialect.name == "postgresql" else "sqlite"


def insert_into(db: Connection, table: Table) -> sqlite.Insert:
    """An ``INSERT`` with ``ON CONFLICT``, which both write alike."""
    if dialect_of(db) == "postgresql":
        return cast(sqlite.Insert, postgresql.insert(table))
    return sqlite.insert(table)


def lock_name(db: Connection, name: str) -> None:
    """Hold a name until the transaction ends; on SQLite a writer holds everything anyway."""
    if dialect_of(db) == "postgresql":
        db.execute(select(func.pg_advisory_xact_lock(func.hashtext(name))))


def json_rows(dialect: Dialect, types: Mapping[str, str]) -> str:
    """A table ``v`` of the JSON objects in ``:rows``; ``types`` maps names to SQL types."""
    if dialect == "postgresql":
        columns = ", ".join(f"{name} {kind}" for name, kind in types.items())
        return f"jsonb_to_recordset(CAST(:rows AS jsonb)) AS v({columns})"
    columns = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name in types)
    return f"(SELECT {columns} FROM json_each(:rows)) AS v"  # noqa: S608
