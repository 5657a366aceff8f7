"""Adapter: the SQL of broadcasts: their feeds, segments and ends; called by ``streams``.

Statements that run for every segment are built once: building one takes longer than running it.
"""

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, func, insert, select, update

from xbyte_live.catalog.sql import items as items_sql
from xbyte_live.catalog.sql.rows import (
    RENDITION_COLUMNS,
    rendition_of,
    rendition_values,
    segment_values,
)
from xbyte_live.catalog.sql.streams import stream_row, with_item
from xbyte_live.models import FeedLease, Listing, Rendition, Segment
from xbyte_live.storage.db.tables import items, offers, renditions, segments, stream_keys, streams

_LEAST_LISTED = 3  # segments a player needs to start (RFC 8216bis 6.2.2)
_LIVE = ("on_air", "waiting")
_LISTED = segments.c.retired_at.is_(None)
_WORTH_UPDATING = 10  # percent of change in the mean bit rate

_OF_FEED = with_item().where(streams.c.feed == bindparam("of_feed")).with_for_update()
_RENDITION = select(*RENDITION_COLUMNS).where(
    renditions.c.item_id == bindparam("of_item"), renditions.c.name == bindparam("of_name")
)
_ADD_SEGMENT = insert(segments).values(
    offer_id=select(offers.c.id)
    .where(offers.c.item_id == bindparam("of_item"))
    .order_by(offers.c.since.desc(), offers.c.id.desc())
    .limit(1)
    .scalar_subquery()
)
_SLIDE = (
    update(segments)
    .where(segments.c.item_id == bindparam("of_item"), segments.c.rendition == bindparam("of_name"))
    .where(_LISTED, segments.c.msn <= bindparam("up_to"))
    .where(segments.c.start_us + segments.c.duration_us <= bindparam("until_us"))
    .values(retired_at=bindparam("at"))
    .returning(segments.c.discontinuity)
)
_SET_STREAM = (
    update(streams)
    .where(streams.c.item_id == bindparam("of_item"))
    .values(
        state="on_air",
        duration_us=bindparam("until"),
        heartbeat_at=bindparam("at"),
        status=bindparam("of_status"),
    )
)
_SET_ITEM = (
    update(items)
    .where(items.c.id == bindparam("of_item"))
    .values(version=items.c.version + 1, next_msn=bindparam("next"))
)


def begin_feed(db: Connection, slug: str, feed: int, key_id: int | None, now: float) -> FeedLease:
    """Lease the stream to ``feed``, ending any other lease; raises ``ItemNotFound``."""
    row = stream_row(db, slug, lock=True)
    if key_id is not None:
        db.execute(update(stream_keys).where(stream_keys.c.id == key_id).values(used_at=now))
    own = update(streams).where(streams.c.item_id == row.item_id)
    db.execute(own.values(feed=feed, key_id=key_id, heartbeat_at=now))
    items_sql.change(db, _item(db, row.item_id), {})
    resumed = row.state in _LIVE
    target = db.execute(
        select(renditions.c.target_duration_s).where(renditions.c.item_id == row.item_id)
    ).scalar()
    last = db.execute(
        select(func.max(segments.c.program_date_time_us + segments.c.duration_us)).where(
            segments.c.item_id == row.item_id, _LISTED
        )
    ).scalar()
    return FeedLease(
        feed=feed,
        slug=slug,
        resumed=resumed,
        next_msn=row.next_msn,
        target_duration_s=(target or 0) if resumed else 0,
        segment_target_us=row.segment_target_us,
        not_before_us=last or 0,
    )


def append(db: Connection, listing: Listing, now: float) -> bool:
    """List one segment; false when its feed lost its lease.

    A repeated call changes nothing, so that one with an unknown outcome can be repeated.
    """
    row = _stream_of_feed(db, listing.feed)
    if row is None:
        return False
    name, msn = listing.rendition.name, listing.segment.msn
    if msn != row.next_msn:
        return _is_listed(db, row.item_id, name, listing.segment)
    begins = row.state not in _LIVE
    placed = replace(listing.segment, start_us=0 if begins else row.duration_us)
    before = _begin_broadcast(db, row, msn, now) if begins else _known(db, row, name)
    [values] = segment_values(row.item_id, replace(listing.rendition, segments=(placed,)))
    db.execute(_ADD_SEGMENT, values | {"of_item": row.item_id})
    left = _slide(db, row, name, placed, now) if row.playlist == "window" else 0
    _keep_rendition(db, row.item_id, listing.rendition, before, left)
    changes = {
        "of_item": row.item_id,
        "until": placed.end_us,
        "at": now,
        "of_status": listing.status,
    }
    db.execute(_SET_STREAM, changes)
    db.execute(_SET_ITEM, {"of_item": row.item_id, "next": msn + 1})
    return True


def renew(db: Connection, feed: int, slug: str, now: float, status: str) -> bool:
    """Renew the lease of a feed; false when it lost it."""
    row = _stream_of_feed(db, feed)
    if row is None or row.slug != slug:
        return False
    values = {"heartbeat_at": now, "status": status}
    db.execute(update(streams).where(streams.c.item_id == row.item_id).values(**values))
    if status != row.status:
        items_sql.change(db, _item(db, row.item_id), {})
    return True


def release(db: Connection, feed: int, now: float, status: str) -> None:
    """End the lease of a feed; its broadcast waits for another feed."""
    row = _stream_of_feed(db, feed)
    if row is None:
        return
    state = "waiting" if row.state == "on_air" else row.state
    values = {"feed": None, "key_id": None, "heartbeat_at": now, "status": status, "state": state}
    db.execute(update(streams).where(streams.c.item_id == row.item_id).values(**values))
    items_sql.change(db, _item(db, row.item_id), {})


def resume_all(db: Connection, now: float, since: float) -> None:
    """Give broadcasts that were on air after ``since`` the whole window to resume."""
    live = update(streams).where(streams.c.state.in_(_LIVE))
    db.execute(update(streams).values(feed=None, key_id=None))
    db.execute(live.values(state="waiting"))
    db.execute(live.where(streams.c.heartbeat_at > since).values(heartbeat_at=now))


def overdue(db: Connection, since: float) -> list[str]:
    """The streams whose broadcast has had no feed since ``since``."""
    query = (
        select(items.c.slug)
        .join_from(streams, items)
        .where(streams.c.state.in_(_LIVE), streams.c.heartbeat_at <= since)
    )
    return list(db.execute(query).scalars())


def end_broadcast(db: Connection, slug: str, since: float) -> Row[Any] | None:
    """End a broadcast without a feed since ``since``; its row before, ``None`` if it has one."""
    row = stream_row(db, slug, lock=True)
    if row.state not in _LIVE or row.heartbeat_at > since:
        return None
    ended = update(streams).where(streams.c.item_id == row.item_id)
    db.execute(ended.values(state="ended", feed=None, key_id=None))
    items_sql.change(db, _item(db, row.item_id), {})
    return row


def _begin_broadcast(db: Connection, row: Row[Any], msn: int, now: float) -> Rendition | None:
    """Retire the last broadcast; its rendition, with the discontinuities that left counted."""
    found = db.execute(select(*RENDITION_COLUMNS).where(renditions.c.item_id == row.item_id))
    before = found.first()
    left = _count_discontinuities(db, row.item_id)
    listed = update(segments).where(segments.c.item_id == row.item_id, _LISTED)
    db.execute(listed.values(retired_at=now + row.window_us / 1e6))
    own = update(streams).where(streams.c.item_id == row.item_id)
    db.execute(own.values(broadcast=row.broadcast + 1, first_msn=msn, started_at=now))
    if before is None:
        return None
    old = rendition_of(before, ())
    sequence = old.discontinuity_sequence + left
    # No other figure of the last broadcast holds for the next.
    return Rendition(old.name, "", 0, 0, 0, True, (), discontinuity_sequence=sequence)


def _known(db: Connection, row: Row[Any], name: str) -> Rendition | None:
    found = db.execute(_RENDITION, {"of_item": row.item_id, "of_name": name}).first()
    return rendition_of(found, ()) if found else None


def _keep_rendition(
    db: Connection, item_id: int, now: Rendition, before: Rendition | None, left: int
) -> None:
    """Update the rendition of a broadcast, whose figures only grow while it lasts."""
    if before is None:
        db.execute(insert(renditions), rendition_values(item_id, now))
        return
    kept = replace(now, discontinuity_sequence=before.discontinuity_sequence + left)
    if before.codecs:
        moved = abs(now.average_bandwidth - before.average_bandwidth) * 100
        steady = moved < before.average_bandwidth * _WORTH_UPDATING
        kept = replace(
            kept,
            bandwidth=max(now.bandwidth, before.bandwidth),
            average_bandwidth=before.average_bandwidth if steady else now.average_bandwidth,
            independent_segments=now.independent_segments and before.independent_segments,
            target_duration_s=max(now.target_duration_s, before.target_duration_s),
        )
    if kept != before:
        own = and_(renditions.c.item_id == item_id, renditions.c.name == now.name)
        db.execute(update(renditions).where(own).values(**rendition_values(item_id, kept)))


def _slide(db: Connection, row: Row[Any], name: str, newest: Segment, now: float) -> int:
    """Retire segments older than the window; return how many discontinuities left.

    Their bytes stay for the length of the playlist (RFC 8216bis 6.2.2), and the grace.
    """
    old = {
        "of_item": row.item_id,
        "of_name": name,
        "up_to": newest.msn - _LEAST_LISTED,
        "until_us": newest.end_us - row.window_us,
        "at": now + row.window_us / 1e6,
    }
    return sum(gone.discontinuity for gone in db.execute(_SLIDE, old))


def _count_discontinuities(db: Connection, item_id: int) -> int:
    query = select(func.count()).where(
        segments.c.item_id == item_id, _LISTED, segments.c.discontinuity
    )
    return int(db.execute(query).scalar_one())


def _is_listed(db: Connection, item_id: int, rendition: str, segment: Segment) -> bool:
    row = db.execute(
        select(segments.c.sha256).where(
            segments.c.item_id == item_id,
            segments.c.rendition == rendition,
            segments.c.msn == segment.msn,
        )
    ).first()
    return row is not None and row.sha256 == segment.sha256


def _stream_of_feed(db: Connection, feed: int) -> Row[Any] | None:
    return db.execute(_OF_FEED, {"of_feed": feed}).first()


def _item(db: Connection, item_id: int) -> Row[Any]:
    return db.execute(select(items).where(items.c.id == item_id)).one()
