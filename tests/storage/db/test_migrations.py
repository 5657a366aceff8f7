from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Inspector, insert, inspect

from xbyte_live.payments.ledger.periods import DAY, Summed
from xbyte_live.payments.ledger.rollup import read_mark
from xbyte_live.payments.reports.earnings import Earned, Earnings, Period
from xbyte_live.storage.db import migrations
from xbyte_live.storage.db.connect import parse_url, writer_engine
from xbyte_live.storage.db.engine import Database
from xbyte_live.storage.db.tables import earnings, metadata
from xbyte_live.storage.db.upgrade import HEAD


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


async def test_days_that_were_rolled_up_are_taken_over(database_url: str) -> None:
    engine = writer_engine(parse_url(database_url))
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        payee = {"network": "n", "asset": "a", "pay_to": "p"}
        rows = [
            {**payee, "day": day, "slug": slug, "scheme": scheme, "count": 2, "bytes": 30,
             "amount": amount}
            for day, slug, scheme, amount in (
                (20_000, "x", "exact", 1), (20_000, "x", "session", 10),
                (20_000, "x", "batch-settlement/session", 100), (20_001, "y", "exact", 1000),
            )
        ]  # fmt: skip
        connection.execute(insert(earnings), rows)
    database = Database(database_url)
    await database.start()
    report = await Earnings(database).report(Period(0.0, 1e11), step=DAY)
    assert report.steps == {20_000: Earned(4, 60, 11, 101), 20_001: Earned(2, 30, 1000, 1000)}
    assert dict(report.items) == {"x": report.steps[20_000], "y": report.steps[20_001]}
    assert await database.read(read_mark) == Summed(20_002.0 * DAY, 20_002 * DAY)
    await database.stop()


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
