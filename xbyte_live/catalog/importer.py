"""Part: imports files: packages or copies them into the store, then publishes them whole."""

import asyncio
import hashlib
import logging
import mimetypes
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from xbyte_live.catalog.catalog import Catalog
from xbyte_live.catalog.cleanup import abandon, discard
from xbyte_live.errors import DatabaseUnavailable, ItemError, MediaError
from xbyte_live.media.vod.packager import Packaged, PackageOptions, package
from xbyte_live.models import Import, Object, Rendition, Rewatch, Title, segment_key
from xbyte_live.money import Price
from xbyte_live.storage.blobs.store import Store

HEARTBEAT_EVERY = 10.0  # seconds
READ_SIZE = 2**20

Progress = Callable[[float], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SaleTerms:
    """The terms a file is sold on; ``pay_to`` ``None`` means the server's payee."""

    price: Price
    pay_to: str | None = None
    preview_us: int = 0
    rewatch: Rewatch = "paid"


@dataclass(frozen=True, slots=True)
class PackagedTitle:
    """A published title with the packager's notes about its source."""

    title: Title
    transcoded: bool
    notes: tuple[str, ...]


class Importer:
    """Puts files on sale; a failed import leaves no item and no bytes."""

    def __init__(self, catalog: Catalog, store: Store) -> None:
        self._catalog = catalog
        self._store = store

    async def title(
        self,
        source: Path,
        slug: str,
        terms: SaleTerms,
        options: PackageOptions,
        *,
        name: str | None = None,
        replace_old: bool = False,
        progress: Progress = lambda _: None,
    ) -> PackagedTitle:
        """Package a media file and publish it; ``progress`` gets 0 to 1, from another thread.

        Raises ``MediaError`` for a file that cannot be packaged, ``ItemExists`` for a slug that
        is taken, and ``StoreError``.
        """
        async with self._import(slug, replace_old) as import_:
            packaged = await self._package(source, import_, options, progress)
            poster = await self._store_poster(import_, packaged)
            title = await self._catalog.publish_title(
                import_,
                name=name or packaged.name or source.stem,
                renditions=tuple(_numbered(r, import_.first_msn) for r in packaged.renditions),
                duration_us=packaged.duration_us,
                poster=poster,
                price=terms.price,
                pay_to=terms.pay_to,
                preview_us=terms.preview_us,
                rewatch=terms.rewatch,
            )
        return PackagedTitle(title, packaged.transcoded, packaged.notes)

    async def object(
        self,
        source: Path,
        slug: str,
        terms: SaleTerms,
        *,
        name: str | None = None,
        content_type: str | None = None,
        replace_old: bool = False,
    ) -> Object:
        """Copy any file into the store and publish it, sold by the bytes of each range.

        Raises ``MediaError`` for an unreadable or empty file, ``ItemExists`` and ``StoreError``.
        """
        size, sha256 = await asyncio.to_thread(_size_and_sha256, source)
        async with self._import(slug, replace_old) as import_:
            await self._store.put_file(import_.object_key, source)
            return await self._catalog.publish_object(
                import_,
                name=name or source.name,
                size=size,
                content_type=content_type or _guess_type(source),
                sha256=sha256,
                key=import_.object_key,
                price=terms.price,
                pay_to=terms.pay_to,
                rewatch=terms.rewatch,
            )

    @asynccontextmanager
    async def _import(self, slug: str, replace_old: bool) -> AsyncIterator[Import]:
        """An import that is renewed while the body runs, and undone if the body fails."""
        import_ = await self._catalog.begin_import(slug, replace=replace_old)
        beating = asyncio.create_task(self._renew(import_))
        try:
            await discard(self._catalog, self._store, import_)
            yield import_
        except BaseException:
            await asyncio.shield(abandon(self._catalog, self._store, import_))
            raise
        finally:
            beating.cancel()

    async def _renew(self, import_: Import) -> None:
        """Renew the import until cancelled, or until it lost its slug, which publishing refuses."""
        while True:
            await asyncio.sleep(HEARTBEAT_EVERY)
            try:
                await self._catalog.heartbeat(import_)
            except DatabaseUnavailable as error:
                log.warning("the import of %s could not be renewed: %s", import_.slug, error)
            except ItemError:
                return

    async def _package(
        self, source: Path, import_: Import, options: PackageOptions, progress: Progress
    ) -> Packaged:
        """Run the packager in a thread; each segment is stored before the next one is cut."""
        loop = asyncio.get_running_loop()
        stopped = threading.Event()

        def store(rendition: str, index: int, data: bytes) -> None:
            if stopped.is_set():
                raise MediaError("packaging was stopped")
            key = segment_key(import_.slug, rendition, import_.first_msn + index)
            asyncio.run_coroutine_threadsafe(self._store.put(key, data), loop).result()

        working = asyncio.create_task(asyncio.to_thread(package, source, store, options, progress))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            stopped.set()
            await asyncio.gather(working, return_exceptions=True)
            raise

    async def _store_poster(self, import_: Import, packaged: Packaged) -> str | None:
        if packaged.poster is None:
            return None
        await self._store.put(import_.poster_key, packaged.poster)
        return import_.poster_key


def _numbered(rendition: Rendition, first_msn: int) -> Rendition:
    segments = tuple(replace(s, msn=first_msn + s.msn) for s in rendition.segments)
    return replace(rendition, segments=segments)


def _size_and_sha256(source: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    try:
        with source.open("rb") as file:
            while chunk := file.read(READ_SIZE):
                digest.update(chunk)
                size += len(chunk)
    except OSError:
        raise MediaError(f"{source.name} is not a file that can be read") from None
    if size == 0:
        raise MediaError(f"{source.name} is empty; there is nothing to sell")
    return size, digest.hexdigest()


def _guess_type(source: Path) -> str:
    return mimetypes.guess_type(source.name)[0] or "application/octet-stream"
