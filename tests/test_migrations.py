from pathlib import Path
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Inspector, inspect

from xbyte_live.db import migrations
from xbyte_live.db.engine import Database
from xbyte_live.db.tables import metadata
from xbyte_live.db.upgrade import HEAD


async def test_migrations_make_what_the_tables_say(database: Database) -> None:
    def differences(db: Connection) -> list[Any]:
        options = {"compare_type": True, "compare_server_default": True}
        return compare_metadata(MigrationContext.configure(db, opts=options), metadata)

    assert await database.read(differences) == []


async def test_migrations_make_what_creating_the_tables_makes(database: Database) -> None:
    """Also where Alembic does not look: checks, names, keys and what deleting does."""

    def create_instead(db: Connection) -> None:
        metadata.drop_all(db)
        metadata.create_all(db)

    migrated = await database.read(described)
    await database.write(create_instead)
    created = await database.read(described)
    assert migrated == created
    assert set(created) == set(metadata.tables)


async def test_the_newest_migration_is_the_one_the_start_knows() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def described(db: Connection) -> dict[str, dict[str, Any]]:
    found = inspect(db)
    tables = set(found.get_table_names()) - {"alembic_version"}
    return {table: described_table(found, table) for table in tables}


def described_table(found: Inspector, table: str) -> dict[str, Any]:
    return {
        "columns": [{**column, "type": str(column["type"])} for column in found.get_columns(table)],
        "primary key": found.get_pk_constraint(table),
        "foreign keys": found.get_foreign_keys(table),
        "checks": sorted(found.get_check_constraints(table), key=str),
        "unique": sorted(found.get_unique_constraints(table), key=str),
        "indexes": sorted(found.get_indexes(table), key=str),
    }
