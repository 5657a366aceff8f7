"""Adapter: deletes stored bytes that are no longer on sale."""

from contextlib import suppress
from dataclasses import dataclass

from xbyte_live.catalog.catalog import Catalog
from xbyte_live.errors import ItemError
from xbyte_live.models import Import
from xbyte_live.storage.blobs.store import Store

_KEYS_A_HEARTBEAT = 200


@dataclass(frozen=True, slots=True)
class CleanupResult:
    """The number of imports and store keys a cleanup removed."""

    imports: int
    keys: int


async def clean_up(catalog: Catalog, store: Store) -> CleanupResult:
    """Delete the bytes of dead imports and writers, and those retired before the grace.

    If it is interrupted, the next run does the rest; several may run at once.
    """
    deleted = 0
    stale = await catalog.stale_imports()
    for import_ in stale:
        deleted += await abandon(catalog, store, import_)
    await catalog.forget_shared()
    while keys := await catalog.expired_keys():
        for key in keys:
            await store.delete(key)
        await catalog.forget(keys)
        deleted += len(keys)
    await store.tidy()
    return CleanupResult(len(stale), deleted)


async def abandon(catalog: Catalog, store: Store, import_: Import) -> int:
    """End an import and delete the bytes it stored; returns the number of keys.

    An import that was published, or lost its slug, is left alone: its numbers are no longer its
    own.
    """
    deleted = 0
    with suppress(ItemError):
        deleted = await discard(catalog, store, import_)
        await catalog.abandon_import(import_)
    return deleted


async def discard(catalog: Catalog, store: Store, import_: Import) -> int:
    """Delete the bytes stored under the numbers of an import, also by a dead one before it.

    Called when an import begins. Returns the number of keys; raises ``ItemError`` when the
    import lost its slug, so that the bytes of another are never deleted.
    """
    keys = await store.keys(f"{import_.slug}/")
    own = [key for key in keys if _number(key) >= import_.first_msn]
    for index, key in enumerate(own):
        if index % _KEYS_A_HEARTBEAT == 0:
            await catalog.heartbeat(import_)
        await store.delete(key)
    return len(own)


def _number(key: str) -> int:
    """The number in ``slug/part/number.suffix``; -1 for a key that has none."""
    digits = key.rpartition("/")[2].partition(".")[0]
    return int(digits) if digits.isascii() and digits.isdigit() else -1
