"""Adapter: the SQL of streams and their keys; called by ``streams``."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, delete, insert, or_, select, update

from xbyte_live.catalog.sql import items as items_sql
from xbyte_live.errors import ItemError, ItemExists
from xbyte_live.models import NewStream, Offer, StreamKey
from xbyte_live.storage.db.tables import imports, items, stream_keys, streams


def create(db: Connection, new: NewStream, terms: Offer) -> None:
    """Put a stream on sale that has no broadcast yet; raises ``ItemExists``."""
    now = terms.since
    row = db.execute(select(items).where(items.c.slug == new.slug).with_for_update()).first()
    importing = select(imports.c.id).where(imports.c.slug == new.slug)
    if (row is not None and row.removed_at is None) or db.execute(importing).first():
        raise ItemExists(f"{new.slug!r} is taken already; choose another slug, or remove it first")
    values = {"kind": "stream", "name": new.name, "created_at": now, "rewatch": new.rewatch}
    if row is None:
        item = insert(items).values(slug=new.slug, version=1, **values)
        item_id = db.execute(item.returning(items.c.id)).scalar_one()
    else:
        item_id = row.id
        items_sql.change(db, row, {**items_sql.UNSET, **values})
        db.execute(delete(streams).where(streams.c.item_id == item_id))
    db.execute(
        insert(streams).values(
            item_id=item_id,
            state="idle",
            playlist=new.playlist,
            window_us=new.window_us,
            segment_target_us=new.segment_target_us,
            recording=new.recording,
            source=new.source,
            status="",
        )
    )
    items_sql.add_offer(db, item_id, terms)


def add_key(
    db: Connection, slug: str, digest: str, hint: str, now: float, expires_at: float | None
) -> int:
    """Store the digest of a key; returns its number. Raises ``ItemNotFound``."""
    row = stream_row(db, slug)
    new = insert(stream_keys).values(
        item_id=row.item_id, digest=digest, hint=hint, created_at=now, expires_at=expires_at
    )
    return int(db.execute(new.returning(stream_keys.c.id)).scalar_one())


def keys(db: Connection, slug: str) -> list[StreamKey]:
    """The keys of a stream, the oldest first; raises ``ItemNotFound``."""
    row = stream_row(db, slug)
    columns = (
        stream_keys.c.id,
        stream_keys.c.hint,
        stream_keys.c.created_at,
        stream_keys.c.expires_at,
        stream_keys.c.used_at,
    )
    query = select(*columns).where(stream_keys.c.item_id == row.item_id).order_by(stream_keys.c.id)
    return [StreamKey(*found) for found in db.execute(query)]


def revoke_keys(db: Connection, slug: str, ids: Sequence[int] | None) -> list[int]:
    """Delete keys (all without ``ids``) and end the lease of a feed that came with one."""
    row = stream_row(db, slug)
    wanted = stream_keys.c.item_id == row.item_id
    if ids is not None:
        wanted = and_(wanted, stream_keys.c.id.in_(ids))
    gone = list(db.execute(delete(stream_keys).where(wanted).returning(stream_keys.c.id)).scalars())
    cut = update(streams).where(streams.c.item_id == row.item_id, streams.c.key_id.in_(gone))
    db.execute(cut.values(feed=None, key_id=None))
    return gone


def match_key(db: Connection, digest: str, now: float) -> tuple[int, str, str] | None:
    """(key number, digest, slug) of the stream a key opens, unless it expired."""
    row = db.execute(
        select(stream_keys.c.id, stream_keys.c.digest, items.c.slug)
        .join_from(stream_keys, items)
        .where(stream_keys.c.digest == digest, items.c.removed_at.is_(None))
        .where(or_(stream_keys.c.expires_at.is_(None), stream_keys.c.expires_at > now))
    ).first()
    return (row.id, row.digest, row.slug) if row else None


def sources(db: Connection) -> dict[str, str]:
    """The URL each pulled stream comes from, by slug."""
    query = select(items.c.slug, streams.c.source).join_from(streams, items)
    found = db.execute(query.where(streams.c.source.is_not(None), items.c.removed_at.is_(None)))
    return {row.slug: row.source for row in found}


def with_item() -> Select[Any]:
    """Rows of streams on sale, joined with their items."""
    columns = (items.c.slug, items.c.version, items.c.next_msn, items.c.name, items.c.rewatch)
    return (
        select(streams, *columns)
        .join_from(streams, items)
        .where(items.c.removed_at.is_(None), items.c.kind == "stream")
    )


def stream_row(db: Connection, slug: str, *, lock: bool = False) -> Row[Any]:
    """The row of a stream on sale; raises ``ItemNotFound``, or ``ItemError`` if it is no stream."""
    query = with_item().where(items.c.slug == slug)
    row = db.execute(query.with_for_update() if lock else query).first()
    if row is not None:
        return row
    items_sql.on_sale(db, slug)
    raise ItemError(f"{slug!r} is no stream; `xbyte-live stream list` shows those there are")
