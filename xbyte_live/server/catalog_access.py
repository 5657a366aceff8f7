"""Wiring: the catalog of a server and what it is kept in, opened without anything that serves."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from xbyte_live.catalog.catalog import Catalog
from xbyte_live.config import Settings
from xbyte_live.errors import ConfigError
from xbyte_live.storage.blobs.disk import DiskStore
from xbyte_live.storage.blobs.store import Store
from xbyte_live.storage.db.engine import Database


@dataclass(frozen=True, slots=True)
class CatalogAccess:
    """A catalog with its database and the store of its bytes."""

    database: Database
    catalog: Catalog
    store: Store


@asynccontextmanager
async def open_catalog(settings: Settings) -> AsyncIterator[CatalogAccess]:
    """Open the database, catalog and store; no chain is asked.

    Raises ``ConfigError`` if the data folder cannot be used, ``DatabaseUnavailable``.
    """
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the folder {settings.data_dir} cannot be used ({error.strerror}); set data_dir"
        ) from None
    database = Database(settings.resolved_database_url, write_queue=settings.write_queue)
    await database.start()
    try:
        catalog = Catalog(
            database,
            item_cache=settings.item_cache,
            grace=settings.retry_window + settings.quote_ttl,
        )
        yield CatalogAccess(database, catalog, DiskStore(settings.data_dir / "store"))
    finally:
        await database.stop()
