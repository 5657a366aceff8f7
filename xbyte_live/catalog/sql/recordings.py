"""Adapter: the SQL of recordings: a broadcast becomes a title with the same stored segments."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, literal, null, select, update

from xbyte_live.catalog.sql import items as items_sql
from xbyte_live.catalog.sql.rows import OFFER_COLUMNS, RENDITION_COLUMNS
from xbyte_live.catalog.sql.streams import with_item
from xbyte_live.storage.db.tables import imports, items, offers, renditions, segments

_LONGEST_SLUG = 64


def record(db: Connection, stream: Row[Any], now: float) -> str:
    """Put a broadcast on sale by the row of its stream on air; returns the slug of the title."""
    slug = _free_slug(db, stream)
    began = datetime.fromtimestamp(stream.started_at, UTC)
    last = db.execute(
        select(func.max(segments.c.msn)).where(segments.c.item_id == stream.item_id)
    ).scalar_one()
    values = {
        "slug": slug,
        "kind": "title",
        "name": f"{stream.name}, {began:%Y-%m-%d %H:%M} UTC",
        "created_at": now,
        "version": 1,
        "next_msn": last + 1,
        "rewatch": stream.rewatch,
        "duration_us": stream.duration_us,
        "recorded_from": stream.slug,
    }
    item_id = db.execute(insert(items).values(**values).returning(items.c.id)).scalar_one()
    _copy_segments(db, stream, item_id)
    _copy_renditions(db, stream, item_id)
    newest = select(*OFFER_COLUMNS).where(offers.c.item_id == stream.item_id)
    terms = db.execute(newest.order_by(offers.c.since.desc(), offers.c.id.desc()).limit(1)).one()
    offer = {key: value for key, value in terms._asdict().items() if key != "id"}
    db.execute(insert(offers).values(item_id=item_id, **offer | {"since": now}))
    return slug


def record_if_live(db: Connection, slug: str, now: float) -> None:
    """Put the broadcast so far on sale, if the stream is recorded and about to be removed."""
    row = db.execute(with_item().where(items.c.slug == slug)).first()
    if row is not None and row.recording and row.state in ("on_air", "waiting"):
        record(db, row, now)


def recordings(db: Connection) -> list[tuple[str, float, int]]:
    """(slug, created at, bytes) of every recording on sale, the oldest first."""
    query = (
        select(items.c.slug, items.c.created_at, func.coalesce(func.sum(segments.c.size), 0))
        .join_from(items, segments, isouter=True)
        .where(items.c.recorded_from.is_not(None), items.c.removed_at.is_(None))
        .group_by(items.c.id, items.c.slug, items.c.created_at)
        .order_by(items.c.created_at, items.c.id)
    )
    return [(row[0], row[1], int(row[2])) for row in db.execute(query)]


def remove_recording(db: Connection, slug: str, now: float) -> bool:
    """Take a recording off sale; false if it was removed already."""
    query = select(items.c.recorded_from).where(items.c.slug == slug, items.c.removed_at.is_(None))
    if db.execute(query).scalar() is None:
        return False
    items_sql.remove(db, slug, now)
    return True


def _copy_segments(db: Connection, stream: Row[Any], item_id: int) -> None:
    taken = (
        segments.c.rendition,
        segments.c.msn,
        segments.c.size,
        segments.c.start_us,
        segments.c.duration_us,
        segments.c.sha256,
        segments.c.discontinuity,
        segments.c.program_date_time_us,
    )
    broadcast = select(literal(item_id), *taken, literal(stream.slug), null()).where(
        segments.c.item_id == stream.item_id, segments.c.msn >= stream.first_msn
    )
    names = ["item_id", *(column.name for column in taken), "stored_under", "offer_id"]
    db.execute(insert(segments).from_select(names, broadcast))
    first = update(segments).where(
        segments.c.item_id == item_id, segments.c.msn == stream.first_msn
    )
    db.execute(first.values(discontinuity=False))  # since it is the first of the recording


def _copy_renditions(db: Connection, stream: Row[Any], item_id: int) -> None:
    own = renditions.c.item_id == stream.item_id
    for row in db.execute(select(*RENDITION_COLUMNS).where(own)).all():
        total = select(func.sum(segments.c.size), func.sum(segments.c.duration_us)).where(
            segments.c.item_id == item_id, segments.c.rendition == row.name
        )
        size, duration_us = db.execute(total).one()
        if size is None:
            continue
        values = row._asdict() | {
            "item_id": item_id,
            "average_bandwidth": int(size) * 8_000_000 // max(int(duration_us), 1),
            "discontinuity_sequence": 0,
        }
        db.execute(insert(renditions).values(**values))


def _free_slug(db: Connection, stream: Row[Any]) -> str:
    """``{stream}-{date}-{time}``, with a number behind it where that is taken."""
    began = datetime.fromtimestamp(stream.started_at, UTC)
    stem = f"-{began:%Y%m%d-%H%M%S}"
    number = 1
    while True:
        tail = stem if number == 1 else f"{stem}-{number}"
        slug: str = stream.slug[: _LONGEST_SLUG - len(tail)].rstrip("-") + tail
        taken = select(items.c.id).where(items.c.slug == slug)
        importing = select(imports.c.id).where(imports.c.slug == slug)
        if db.execute(taken).first() is None and db.execute(importing).first() is None:
            return slug
        number += 1
