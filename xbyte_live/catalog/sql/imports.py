"""Adapter: the SQL of imports, which let one process at a time publish a slug."""

import secrets
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from xbyte_live.errors import ItemError, ItemExists
from xbyte_live.models import Import
from xbyte_live.storage.db.tables import imports, items


def begin_import(db: Connection, slug: str, replace: bool, now: float, lease: float) -> Import:
    """Take the slug, from a dead import if need be; raises ``ItemExists``."""
    held = db.execute(select(imports).where(imports.c.slug == slug)).first()
    if held is None:
        import_id: int | None = _new_id()
        db.execute(insert(imports).values(id=import_id, slug=slug, first_msn=0, heartbeat_at=now))
    else:
        import_id = _take_stale(db, held, now, lease)
    if import_id is None:
        raise under_way(slug)
    # Read only now that the slug is ours: its last holder may have published until then.
    columns = (items.c.removed_at, items.c.next_msn, items.c.kind)
    item = db.execute(select(*columns).where(items.c.slug == slug)).first()
    if item is not None and item.removed_at is None and item.kind == "stream":
        raise ItemExists(f"{slug!r} is a stream; remove it first, or choose another slug")
    if item is not None and item.removed_at is None and not replace:
        raise ItemExists(
            f"{slug!r} is on sale already; replace it (--replace) or choose another slug (--slug)"
        )
    first_msn = item.next_msn if item else 0
    db.execute(update(imports).where(imports.c.id == import_id).values(first_msn=first_msn))
    return Import(import_id, slug, first_msn)


def heartbeat(db: Connection, import_: Import, now: float) -> None:
    """Renew an import; raises ``ItemError`` when it lost the slug."""
    renewed = update(imports).where(imports.c.id == import_.id).values(heartbeat_at=now)
    if db.execute(renewed).rowcount == 0:
        raise lost(import_)


def end_import(db: Connection, import_: Import) -> bool:
    """Give the slug back; false when it was lost before."""
    return db.execute(delete(imports).where(imports.c.id == import_.id)).rowcount == 1


def take_stale_imports(db: Connection, now: float, lease: float) -> list[Import]:
    """Take over the imports whose lease ran out."""
    stale = db.execute(select(imports).where(imports.c.heartbeat_at <= now - lease)).all()
    taken = ((_take_stale(db, row, now, lease), row) for row in stale)
    return [Import(new_id, row.slug, row.first_msn) for new_id, row in taken if new_id is not None]


def under_way(slug: str) -> ItemExists:
    """The error for a slug that another import holds."""
    return ItemExists(f"{slug!r} is being imported already; wait until that is done")


def lost(import_: Import) -> ItemError:
    """The error for an import that lost its slug to another."""
    return ItemError(f"the import of {import_.slug!r} was silent for too long and lost its place")


def _take_stale(db: Connection, row: Row[Any], now: float, lease: float) -> int | None:
    """Take over an import whose lease ran out, unless another process was quicker."""
    if row.heartbeat_at > now - lease:
        return None
    new_id = _new_id()
    taken = db.execute(
        update(imports)
        .where(imports.c.id == row.id, imports.c.heartbeat_at == row.heartbeat_at)
        .values(id=new_id, heartbeat_at=now)
    )
    return new_id if taken.rowcount == 1 else None


def _new_id() -> int:
    """A random number: SQLite would reuse that of a deleted import."""
    return secrets.randbits(62)
