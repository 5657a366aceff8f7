"""Adapter: items, their prices, imports and removals; the only caller of their SQL."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from xbyte_live.catalog.item_cache import CachedItem, ItemCache
from xbyte_live.catalog.sql import expiry, imports
from xbyte_live.catalog.sql import items as sql
from xbyte_live.catalog.sql.recordings import record_if_live
from xbyte_live.errors import ItemError
from xbyte_live.models import (
    Import,
    Item,
    Object,
    Offer,
    Rendition,
    Rewatch,
    Segment,
    Title,
    check_slug,
)
from xbyte_live.money import Price
from xbyte_live.storage.db.engine import Database

_NAME_LENGTH = 300
_MAX_MSN = 2**63 - 1  # what an integer column holds


class Catalog:
    """The items on sale; every method raises ``DatabaseUnavailable`` when the database is down.

    ``item_cache`` items are held in memory and checked again every ``refresh`` seconds.
    Retired bytes are kept for ``grace`` seconds; an import that sends no heartbeat for
    ``lease`` seconds loses its slug.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], float] = time.time,
        item_cache: int = 512,
        refresh: float = 0.5,
        grace: float = 300.0,
        lease: float = 60.0,
    ) -> None:
        self.lease = lease
        self._database = database
        self._clock = clock
        self._grace = grace
        self._cache = ItemCache(self._load, limit=item_cache, refresh=refresh, clock=clock)

    async def item(self, slug: str) -> Item | None:
        """The item on sale under ``slug``, at most ``refresh`` seconds old.

        The same object as long as nothing changed.
        """
        return await self._cache.get(slug)

    async def changed(self, slug: str, known: Item) -> Item | None:
        """Wait until the item under ``slug`` is no longer ``known``, and return it."""
        return await self._cache.changed(slug, known)

    def known(self, slug: str) -> Item | None:
        """The item as this process last saw it."""
        return self._cache.known(slug)

    def put(self, item: Item, version: int) -> None:
        """Cache an item that this process has just written, and wake those who wait for it."""
        self._cache.put(item.slug, CachedItem(item, version))

    async def renew(self, slug: str) -> None:
        """Read an item again at once, and wake those who wait for it to change."""
        await self._cache.renew(slug)

    async def items(self) -> list[Item]:
        """Everything on sale, the oldest first; renditions come without their segments."""
        return await self._database.read(sql.list_items)

    async def retired_segment(self, slug: str, rendition: str, msn: int) -> Segment | None:
        """A segment that left its playlist less than ``grace`` seconds ago."""
        if not _is_slug(slug) or not 0 <= msn <= _MAX_MSN:
            return None
        since = self._clock() - self._grace
        return await self._database.read(
            lambda db: sql.retired_segment(db, slug, rendition, msn, since)
        )

    async def removed_item(self, slug: str) -> Item | None:
        """The item taken off sale less than ``grace`` seconds ago, without its renditions."""
        since = self._clock() - self._grace
        return await self._database.read(lambda db: sql.removed_item(db, slug, since))

    async def begin_import(self, slug: str, *, replace: bool) -> Import:
        """Reserve the slug for one import, which must call ``heartbeat`` within ``lease`` seconds.

        Raises ``ItemExists`` while another import of it runs, or if there is such an item and
        ``replace`` is false; ``ItemError`` for a malformed slug.
        """
        check_slug(slug)
        try:
            return await self._database.write(
                lambda db: imports.begin_import(db, slug, replace, self._clock(), self.lease)
            )
        except IntegrityError:  # another process reserved it at the same moment
            raise imports.under_way(slug) from None

    async def heartbeat(self, import_: Import) -> None:
        """Renew an import; raises ``ItemError`` when it lost the slug, and must stop."""
        await self._database.write(lambda db: imports.heartbeat(db, import_, self._clock()))

    async def abandon_import(self, import_: Import) -> None:
        """Release the slug; the import's stored bytes must be deleted already."""
        await self._database.write(lambda db: imports.end_import(db, import_))

    async def stale_imports(self) -> list[Import]:
        """Take over imports that died: the caller discards their bytes, then abandons them."""
        return await self._database.write(
            lambda db: imports.take_stale_imports(db, self._clock(), self.lease)
        )

    async def publish_title(
        self,
        import_: Import,
        *,
        name: str,
        renditions: Sequence[Rendition],
        duration_us: int,
        poster: str | None,
        price: Price,
        pay_to: str | None,
        preview_us: int,
        rewatch: Rewatch,
    ) -> Title:
        """End an import: put a whole title on sale in place of the item the slug named.

        Its segments are numbered from ``import_.first_msn`` on and their bytes are stored. Those
        it replaces are retired; the price history goes on. Raises ``ItemError`` when the import
        lost its slug.
        """
        values = {
            "kind": "title",
            "name": _clean(name) or import_.slug,
            "duration_us": duration_us,
            "poster": poster,
            "rewatch": rewatch,
        }
        terms = Offer(price, pay_to, self._clock(), preview_us)
        title = await self._publish(import_, values, renditions, terms)
        if not isinstance(title, Title):  # replaced by another import since
            raise sql.not_found(import_.slug)
        return title

    async def publish_object(
        self,
        import_: Import,
        *,
        name: str,
        size: int,
        content_type: str,
        sha256: str,
        key: str,
        price: Price,
        pay_to: str | None,
        rewatch: Rewatch,
    ) -> Object:
        """End an import: put a file on sale in place of the item the slug named.

        Its bytes are stored under ``key``, which is ``import_.object_key``. Raises ``ItemError``
        when the import lost its slug, or for a content type of more than 255 characters.
        """
        if len(content_type) > 255:
            raise ItemError("a content type has at most 255 characters")
        values = {
            "kind": "object",
            "name": _clean(name) or import_.slug,
            "size": size,
            "content_type": content_type,
            "sha256": sha256,
            "key": key,
            "rewatch": rewatch,
        }
        terms = Offer(price, pay_to, self._clock())
        published = await self._publish(import_, values, (), terms)
        if not isinstance(published, Object):
            raise sql.not_found(import_.slug)
        return published

    async def set_terms(
        self,
        slug: str,
        *,
        price: Price | None,
        pay_to: str | None,
        preview_us: int | None = None,
        rewatch: Rewatch | None = None,
    ) -> Item:
        """Change every term that is not ``None``; an empty ``pay_to`` means the default payee.

        A new price, payee or preview is a new offer. Raises ``ItemNotFound``.
        """
        check_slug(slug)

        def work(db: Connection) -> None:
            sql.set_terms(db, slug, price, pay_to, preview_us, rewatch, self._clock())

        await self._database.write(work)
        return await self._renewed(slug)

    async def remove(self, slug: str) -> None:
        """Take an item off sale; a new item of its slug continues its segment numbers.

        A broadcast that was being recorded becomes a title. Raises ``ItemNotFound``.
        """
        check_slug(slug)
        now = self._clock()

        def work(db: Connection) -> None:
            record_if_live(db, slug, now)
            sql.remove(db, slug, now)

        await self._database.write(work)
        await self._cache.renew(slug)

    async def expired_keys(self) -> list[str]:
        """The store keys of bytes retired before the grace; only some of them if many."""
        until = self._clock() - self._grace
        return await self._database.read(lambda db: expiry.expired_keys(db, until))

    async def forget_shared(self) -> None:
        """Delete the rows of retired bytes that another item still uses; the bytes stay."""
        until = self._clock() - self._grace
        await self._database.write(lambda db: expiry.forget_shared(db, until))

    async def forget(self, keys: Collection[str]) -> None:
        """Delete the rows of retired bytes, once the bytes are deleted."""
        if keys:
            await self._database.write(lambda db: expiry.forget(db, keys))

    async def _publish(
        self,
        import_: Import,
        values: Mapping[str, Any],
        parts: Sequence[Rendition],
        terms: Offer,
    ) -> Item:
        def work(db: Connection) -> None:
            sql.publish(db, import_, values, parts, terms)

        await self._database.write(work)
        return await self._renewed(import_.slug)

    async def _renewed(self, slug: str) -> Item:
        item = await self._cache.renew(slug)
        if item is None:  # removed since
            raise sql.not_found(slug)
        return item

    async def _load(self, slug: str, known: CachedItem | None) -> CachedItem | None:
        def work(db: Connection) -> CachedItem | None:
            version = sql.version_of(db, slug)
            if version is None:
                return None
            if known is not None and known.version == version:
                return known
            return CachedItem(*sql.load_item(db, slug, known.item if known else None))

        return await self._database.read(work) if _is_slug(slug) else None


def _is_slug(slug: str) -> bool:
    try:
        check_slug(slug)
    except ItemError:
        return False
    return True


def _clean(name: str) -> str:
    """A name as one line of at most 300 printable characters."""
    shown = "".join(character if character.isprintable() else " " for character in name)
    return " ".join(shown.split())[:_NAME_LENGTH]
