"""Adapter: opens connections to SQLite and PostgreSQL, so that both behave alike.

Writers on SQLite begin with the write lock in hand, so a transaction never fails half-way for
another process; readers see one snapshot from their first statement to their last.
"""

import random
import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    NotSupportedError,
    PendingRollbackError,
    ProgrammingError,
    ResourceClosedError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import NullPool

from xbyte_live.errors import ConfigError

LOCK_WAIT_S = 20  # how long a transaction waits for another one before it gives up
_CONNECT_WAIT_S = 5
_TURN_S = 0.001  # at most this long between two looks at the write lock
_POSTGRESQL_NAMES = ("postgresql", "postgres", "postgresql+psycopg")
_CONFLICTS = ("40001", "40P01")  # serialization failure, deadlock: run it again
_FAULTS_OF_A_WORK = (IntegrityError, DataError, ProgrammingError, NotSupportedError)
_POSTGRESQL_CONNECT = {
    "connect_timeout": _CONNECT_WAIT_S,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}


def parse_url(url: str) -> URL:
    """The SQLAlchemy URL of a database this product can use.

    Raises ``ConfigError``, without the URL (it may hold a password), for any other.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError(
            "database_url is no URL such as sqlite:////var/lib/xbyte/xbyte.db "
            "or postgresql://user@host/name"
        ) from None
    if parsed.drivername == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            raise ConfigError("database_url must name a file: memory is no place for money")
        return parsed
    if parsed.drivername in _POSTGRESQL_NAMES:
        return parsed.set(drivername="postgresql+psycopg")
    raise ConfigError("database_url must start with sqlite:/// or postgresql://")


def sqlite_file(url: URL) -> Path:
    """Where the file of a SQLite URL lies."""
    name = url.database or ""
    return Path(name.removeprefix("file:").partition("?")[0])


def writer_engine(url: URL) -> Engine:
    """An engine whose transactions may write; it keeps no connection of its own.

    Raises ``ConfigError`` when the driver of the database is not installed.
    """
    engine = _engine(url, poolclass=NullPool)
    if url.drivername == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite_writer)
        event.listen(engine, "begin", _begin_immediate)
    else:
        event.listen(engine, "connect", _prepare_postgresql)
    return engine


def reader_engine(url: URL, size: int) -> Engine:
    """An engine for reading: up to ``size`` connections, each transaction one snapshot."""
    if url.drivername == "sqlite":
        engine = _engine(url, pool_size=size, max_overflow=0, pool_timeout=LOCK_WAIT_S)
        event.listen(engine, "connect", _prepare_sqlite_reader)
        event.listen(engine, "begin", _begin_deferred)
        return engine
    engine = _engine(
        url,
        pool_size=size,
        max_overflow=0,
        pool_timeout=LOCK_WAIT_S,
        isolation_level="REPEATABLE READ",
        execution_options={"postgresql_readonly": True},
    )
    event.listen(engine, "connect", _prepare_postgresql)
    return engine


def is_outage(error: BaseException) -> bool:
    """Whether the database, not the work, is what failed."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or not isinstance(error, _FAULTS_OF_A_WORK)
    return isinstance(error, PoolTimeout | PendingRollbackError | ResourceClosedError)


def is_conflict(error: BaseException) -> bool:
    """Whether two transactions met and running this one again will do."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _CONFLICTS


def cause_of(error: BaseException) -> str:
    """What the driver said, for the log: no SQL, no values, one line."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return " ".join(f"{type(cause).__name__}: {cause}".split())


def _engine(url: URL, **options: Any) -> Engine:
    if url.drivername == "sqlite":
        connect_args: dict[str, Any] = {"timeout": LOCK_WAIT_S}
    else:
        connect_args = {k: v for k, v in _POSTGRESQL_CONNECT.items() if k not in url.query}
    try:
        return create_engine(url, connect_args=connect_args, hide_parameters=True, **options)
    except (ModuleNotFoundError, NoSuchModuleError):
        raise ConfigError(
            "PostgreSQL needs its driver: pip install 'xbyte-live[postgres]'"
        ) from None


def _prepare_sqlite_writer(dbapi_connection: Any, record: Any) -> None:
    _prepare_sqlite(dbapi_connection, record)
    dbapi_connection.execute("PRAGMA busy_timeout = 0")
    dbapi_connection.execute("PRAGMA wal_autocheckpoint = 8192")  # pages: 32 MiB


def _prepare_sqlite(dbapi_connection: Any, _record: Any) -> None:
    dbapi_connection.isolation_level = None  # transactions begin where we say, not where it thinks
    dbapi_connection.execute("PRAGMA synchronous = FULL")  # a commit returns when it is on disk
    dbapi_connection.execute("PRAGMA foreign_keys = ON")
    dbapi_connection.execute("PRAGMA journal_size_limit = 67108864")


def _prepare_sqlite_reader(dbapi_connection: Any, record: Any) -> None:
    _prepare_sqlite(dbapi_connection, record)
    dbapi_connection.execute("PRAGMA query_only = ON")


def _prepare_postgresql(dbapi_connection: Any, _record: Any) -> None:
    with dbapi_connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = '{LOCK_WAIT_S}s'")
        # A server set to lose the last commits in a crash is told not to, for this session.
        cursor.execute(
            "SELECT set_config('synchronous_commit', 'on', false)"
            " WHERE current_setting('synchronous_commit') = 'off'"
        )
    dbapi_connection.commit()


def _begin_immediate(connection: Connection) -> None:
    """Wait for the write lock in short steps.

    SQLite's own wait sleeps up to 100 ms between two looks, which beside a busy process means
    seconds without a turn.
    """
    driver = connection.connection.driver_connection
    assert driver is not None
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            driver.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(_TURN_S * random.random())  # noqa: S311


def _begin_deferred(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
