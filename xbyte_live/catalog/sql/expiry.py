"""Adapter: the SQL of stored bytes that are no longer on sale; called by ``catalog``."""

import re
from collections.abc import Collection
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    bindparam,
    case,
    delete,
    exists,
    func,
    or_,
    select,
)

from xbyte_live.models import segment_key
from xbyte_live.storage.db.tables import items, leftovers, segments, streams

_KEYS_READ = 1000
_SEGMENT_KEY = re.compile(r"([^/]+)/([^/]+)/([0-9]+)\.ts")
_KEY_OWNER = func.coalesce(segments.c.stored_under, items.c.slug)


def expired_keys(db: Connection, until: float) -> list[str]:
    """Store keys retired by ``until`` that no other item uses; only some of them if many."""
    gone = (
        select(_KEY_OWNER, segments.c.rendition, segments.c.msn)
        .join_from(segments, items)
        .where(segments.c.retired_at <= until, ~_recording_now(), ~_shared(until))
        .limit(_KEYS_READ)
    )
    other = select(leftovers.c.key).where(leftovers.c.retired_at <= until).limit(_KEYS_READ)
    keys = dict.fromkeys(segment_key(*row) for row in db.execute(gone))
    return [*keys, *db.execute(other).scalars()]


def forget_shared(db: Connection, until: float) -> None:
    """Delete the retired rows of bytes that another item still uses; the bytes stay."""
    expired = (
        select(segments.c.item_id, segments.c.rendition, segments.c.msn)
        .join_from(segments, items)
        .where(segments.c.retired_at <= until, ~_recording_now(), _shared(until))
        .limit(_KEYS_READ)
    )
    rows = [
        {"of_item": row.item_id, "of_rendition": row.rendition, "of_msn": row.msn}
        for row in db.execute(expired)
    ]
    if rows:
        db.execute(
            delete(segments)
            .where(segments.c.item_id == bindparam("of_item"))
            .where(segments.c.rendition == bindparam("of_rendition"))
            .where(segments.c.msn == bindparam("of_msn"), segments.c.retired_at.is_not(None)),
            rows,
        )


def forget(db: Connection, keys: Collection[str]) -> None:
    """Delete the rows of retired bytes."""
    db.execute(
        delete(leftovers).where(leftovers.c.key == bindparam("gone")),
        [{"gone": key} for key in keys],
    )
    item_id = select(items.c.id).where(items.c.slug == bindparam("of_slug")).scalar_subquery()
    numbers = [number for key in keys if (number := _segment_of(key))]
    if numbers:
        retired = (
            delete(segments)
            .where(segments.c.rendition == bindparam("of_rendition"))
            .where(segments.c.msn == bindparam("of_msn"), segments.c.retired_at.is_not(None))
        )
        own = segments.c.item_id == item_id
        db.execute(retired.where(own, segments.c.stored_under.is_(None)), numbers)
        db.execute(retired.where(segments.c.stored_under == bindparam("of_slug")), numbers)


def _recording_now() -> ColumnElement[bool]:
    """Whether a segment belongs to a broadcast that is being recorded."""
    return exists().where(
        streams.c.item_id == segments.c.item_id,
        streams.c.recording,
        streams.c.state.in_(("on_air", "waiting")),
        segments.c.msn >= streams.c.first_msn,
    )


def _shared(until: float) -> ColumnElement[bool]:
    """Whether another segment, not retired by ``until``, has the same bytes."""
    other, owner = segments.alias("other"), items.alias("owner")
    same = (other.c.rendition == segments.c.rendition, other.c.msn == segments.c.msn)
    kept = or_(other.c.retired_at.is_(None), other.c.retired_at > until)
    recorded = exists().where(other.c.stored_under == items.c.slug, *same, kept)
    live = exists().where(
        owner.c.slug == segments.c.stored_under,
        other.c.item_id == owner.c.id,
        other.c.stored_under.is_(None),
        *same,
        kept,
    )
    return case((segments.c.stored_under.is_(None), recorded), else_=live)


def _segment_of(key: str) -> dict[str, Any] | None:
    match = _SEGMENT_KEY.fullmatch(key)
    if match is None:
        return None
    slug, rendition, msn = match.groups()
    return {"of_slug": slug, "of_rendition": rendition, "of_msn": int(msn)}
