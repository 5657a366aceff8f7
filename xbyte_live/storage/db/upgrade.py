"""Adapter: migrates a database to the schema of this version, once among all processes."""

import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from xbyte_live.errors import ConfigError, DatabaseUnavailable
from xbyte_live.storage.db.connect import cause_of, sqlite_file, writer_engine

HEAD = "0003"  # the newest file in migrations/versions
_MIGRATIONS = Path(__file__).parent / "migrations"
_ADVISORY_LOCK = 0x7862797465  # "xbyte": one migrating process at a time in a PostgreSQL database
_LOCK_WAIT_S = 60.0

_log = logging.getLogger(__name__)


def upgrade(url: URL) -> None:
    """Create or migrate the schema, and prove that the database takes a write.

    Safe when several processes start at once. Raises ``DatabaseUnavailable`` when the database
    cannot be opened or written, ``ConfigError`` when a newer version made it.
    """
    try:
        if url.drivername == "sqlite":
            _upgrade_sqlite(url)
        else:
            _upgrade_postgresql(url)
    except (SQLAlchemyError, sqlite3.Error) as error:
        _log.debug("database cannot be used: %s", cause_of(error))
        raise DatabaseUnavailable(f"the database cannot be used: {_reason(error)}") from None
    except OSError as error:
        raise DatabaseUnavailable(f"the database cannot be used: {error.strerror}") from None


def _upgrade_sqlite(url: URL) -> None:
    file = sqlite_file(url)
    file.parent.mkdir(parents=True, exist_ok=True)
    with _directory_lock(file.parent):
        engine = writer_engine(url)
        with closing(engine.raw_connection()) as raw:
            raw.cursor().execute(f"PRAGMA busy_timeout = {int(_LOCK_WAIT_S * 1000)}")
            mode = raw.cursor().execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != ("wal",):
            raise DatabaseUnavailable("the file system of the database cannot hold a SQLite WAL")
        with engine.begin() as connection:
            _to_head(connection)


def _upgrade_postgresql(url: URL) -> None:
    engine = writer_engine(url)
    with engine.begin() as connection:
        connection.execute(text(f"SET LOCAL lock_timeout = '{int(_LOCK_WAIT_S)}s'"))
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
        _to_head(connection)


def _to_head(connection: Connection) -> None:
    """Migrate in the transaction of ``connection``: wholly or not at all."""
    revision = _revision(connection)
    if revision is not None and revision > HEAD:
        raise ConfigError(
            f"the database was made by a newer xByte Live (schema {revision}, this one knows "
            f"{HEAD}): upgrade xbyte-live or use another database"
        )
    if revision != HEAD:
        _migrate(connection)
    connection.execute(text("UPDATE alembic_version SET version_num = version_num"))


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _migrate(connection: Connection) -> None:
    from alembic import command  # 0.1 s that most starts do not need
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _reason(error: Exception) -> str:
    """What the driver says is wrong, without where the server or the file is."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    line = str(cause).strip().partition("\n")[0]
    return line.rpartition(" failed: ")[2]


@contextmanager
def _directory_lock(directory: Path) -> Iterator[None]:
    """The right to prepare a SQLite file in ``directory``, among processes.

    Switching a file to WAL is not covered by SQLite's own busy timeout.
    """
    handle = os.open(directory, os.O_RDONLY)
    try:
        deadline = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise DatabaseUnavailable(
                        "another process has been preparing the database for too long"
                    ) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(handle)
