"""Adapter: the SQL of streams, their keys and broadcasts; run by ``streams`` alone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    Select,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from xbyte_live.db import catalog_sql
from xbyte_live.db.rows import (
    RENDITION_COLUMNS,
    rendition_of,
    rendition_values,
    segment_values,
)
from xbyte_live.db.tables import imports, items, offers, renditions, segments, stream_keys, streams
from xbyte_live.errors import ItemError, ItemExists
from xbyte_live.models import (
    Airtime,
    Listing,
    NewStream,
    Offer,
    Rendition,
    Segment,
    StreamKey,
)

_LEAST_LISTED = 3  # segments a player needs to start (RFC 8216bis 6.2.2)
_LIVE = ("on_air", "waiting")
_LISTED = segments.c.retired_at.is_(None)


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
        catalog_sql.change(db, row, {**catalog_sql.UNSET, **values})
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
    catalog_sql.add_offer(db, item_id, terms)


def add_key(
    db: Connection, slug: str, digest: str, hint: str, now: float, expires_at: float | None
) -> int:
    """Store the digest of a key; returns its number. Raises ``ItemNotFound``."""
    row = _stream(db, slug)
    new = insert(stream_keys).values(
        item_id=row.item_id, digest=digest, hint=hint, created_at=now, expires_at=expires_at
    )
    return int(db.execute(new.returning(stream_keys.c.id)).scalar_one())


def keys(db: Connection, slug: str) -> list[StreamKey]:
    """The keys of a stream, the oldest first; raises ``ItemNotFound``."""
    row = _stream(db, slug)
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
    """Delete keys (all without ``ids``) and take the feed that came with one off the air."""
    row = _stream(db, slug)
    wanted = stream_keys.c.item_id == row.item_id
    if ids is not None:
        wanted = and_(wanted, stream_keys.c.id.in_(ids))
    gone = list(db.execute(delete(stream_keys).where(wanted).returning(stream_keys.c.id)).scalars())
    cut = update(streams).where(streams.c.item_id == row.item_id, streams.c.key_id.in_(gone))
    db.execute(cut.values(feed=None, key_id=None))
    return gone


def holder_of(db: Connection, digest: str, now: float) -> tuple[int, str, str] | None:
    """(key number, digest, slug) of the stream a key opens, unless it expired."""
    row = db.execute(
        select(stream_keys.c.id, stream_keys.c.digest, items.c.slug)
        .join_from(stream_keys, items)
        .where(stream_keys.c.digest == digest, items.c.removed_at.is_(None))
        .where(or_(stream_keys.c.expires_at.is_(None), stream_keys.c.expires_at > now))
    ).first()
    return (row.id, row.digest, row.slug) if row else None


def begin_feed(db: Connection, slug: str, feed: int, key_id: int | None, now: float) -> Airtime:
    """Make ``feed`` the one that may add segments, whoever was; raises ``ItemNotFound``."""
    row = _stream(db, slug, lock=True)
    if key_id is not None:
        db.execute(update(stream_keys).where(stream_keys.c.id == key_id).values(used_at=now))
    own = update(streams).where(streams.c.item_id == row.item_id)
    db.execute(own.values(feed=feed, key_id=key_id, heartbeat_at=now))
    catalog_sql.change(db, _item(db, row.item_id), {})
    resumed = row.state in _LIVE
    target = db.execute(
        select(renditions.c.target_duration_s).where(renditions.c.item_id == row.item_id)
    ).scalar()
    last = db.execute(
        select(func.max(segments.c.program_date_time_us + segments.c.duration_us)).where(
            segments.c.item_id == row.item_id, _LISTED
        )
    ).scalar()
    return Airtime(
        feed=feed,
        slug=slug,
        resumed=resumed,
        next_msn=row.next_msn,
        offset_us=row.duration_us if resumed else 0,
        target_duration_s=(target or 0) if resumed else 0,
        longest_group_s=row.longest_group_s,
        segment_target_us=row.segment_target_us,
        not_before_us=last or 0,
    )


def append(db: Connection, listing: Listing, now: float) -> bool:
    """List one segment; false when its feed is not the stream's any more.

    Doing it again does nothing, so that an unknown outcome can be tried again.
    """
    row = _stream_of_feed(db, listing.feed)
    if row is None:
        return False
    segment, rendition = listing.segment, listing.rendition.name
    if segment.msn != row.next_msn:
        return _is_listed(db, row.item_id, rendition, segment)
    begins = row.state not in _LIVE
    start_us = 0 if begins else row.duration_us
    placed = replace(segment, start_us=start_us)
    before = _begin_broadcast(db, row, now) if begins else _known_rendition(db, row, rendition)
    offer_id = db.execute(
        select(offers.c.id)
        .where(offers.c.item_id == row.item_id)
        .order_by(offers.c.since.desc(), offers.c.id.desc())
        .limit(1)
    ).scalar_one()
    whole = replace(listing.rendition, segments=(placed,))
    values = [v | {"offer_id": offer_id} for v in segment_values(row.item_id, whole)]
    db.execute(insert(segments), values)
    left = _slide(db, row, rendition, placed.end_us, now) if row.playlist == "window" else 0
    _keep_rendition(db, row.item_id, listing.rendition, before, left)
    live = {
        "state": "on_air",
        "duration_us": placed.end_us,
        "heartbeat_at": now,
        "longest_group_s": listing.longest_group_s,
        "status": listing.status,
    }
    if begins:
        live |= {"broadcast": row.broadcast + 1, "first_msn": segment.msn, "started_at": now}
    db.execute(update(streams).where(streams.c.item_id == row.item_id).values(**live))
    changed = update(items).where(items.c.id == row.item_id)
    db.execute(changed.values(version=row.version + 1, next_msn=segment.msn + 1))
    return True


def beat(db: Connection, feed: int, slug: str, now: float, status: str) -> bool:
    """Say that a feed lives; false when it is not the stream's any more."""
    row = _stream_of_feed(db, feed)
    if row is None or row.slug != slug:
        return False
    values = {"heartbeat_at": now, "status": status}
    db.execute(update(streams).where(streams.c.item_id == row.item_id).values(**values))
    if status != row.status:
        catalog_sql.change(db, _item(db, row.item_id), {})
    return True


def release(db: Connection, feed: int, now: float, status: str) -> None:
    """Let a feed go; its broadcast waits for another."""
    row = _stream_of_feed(db, feed)
    if row is None:
        return
    state = "waiting" if row.state == "on_air" else row.state
    values = {"feed": None, "key_id": None, "heartbeat_at": now, "status": status, "state": state}
    db.execute(update(streams).where(streams.c.item_id == row.item_id).values(**values))
    catalog_sql.change(db, _item(db, row.item_id), {})


def resume_all(db: Connection, now: float, since: float) -> None:
    """Give broadcasts that were on air after ``since`` their whole time to come back."""
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
    """End what has had no feed since ``since``; its row as it was, or ``None`` if it has one."""
    row = _stream(db, slug, lock=True)
    if row.state not in _LIVE or row.heartbeat_at > since:
        return None
    ended = update(streams).where(streams.c.item_id == row.item_id)
    db.execute(ended.values(state="ended", feed=None, key_id=None))
    catalog_sql.change(db, _item(db, row.item_id), {})
    return row


def sources(db: Connection) -> dict[str, str]:
    """The URL each pulled stream comes from, by slug."""
    query = select(items.c.slug, streams.c.source).join_from(streams, items)
    found = db.execute(query.where(streams.c.source.is_not(None), items.c.removed_at.is_(None)))
    return {row.slug: row.source for row in found}


def _begin_broadcast(db: Connection, row: Row[Any], now: float) -> Rendition | None:
    """Take the last broadcast off the playlist; what it was, with its discontinuities counted."""
    found = db.execute(select(*RENDITION_COLUMNS).where(renditions.c.item_id == row.item_id))
    before = found.first()
    left = _count_discontinuities(db, row.item_id)
    retired_at = now + row.window_us / 1e6
    listed = update(segments).where(segments.c.item_id == row.item_id, _LISTED)
    db.execute(listed.values(retired_at=retired_at))
    if before is None:
        return None
    old = rendition_of(before, ())
    sequence = old.discontinuity_sequence + left
    # Nothing else of the last broadcast is true of the next.
    return Rendition(old.name, "", 0, 0, 0, True, (), discontinuity_sequence=sequence)


def _known_rendition(db: Connection, row: Row[Any], name: str) -> Rendition | None:
    found = db.execute(
        select(*RENDITION_COLUMNS).where(
            renditions.c.item_id == row.item_id, renditions.c.name == name
        )
    ).first()
    return rendition_of(found, ()) if found else None


def _keep_rendition(
    db: Connection, item_id: int, now: Rendition, before: Rendition | None, left: int
) -> None:
    """What the playlists say of the broadcast: figures only ever grow while it lasts."""
    sequence = left + (before.discontinuity_sequence if before else 0)
    kept = replace(now, discontinuity_sequence=sequence)
    if before is not None and before.codecs:
        kept = replace(
            kept,
            bandwidth=max(now.bandwidth, before.bandwidth),
            independent_segments=now.independent_segments and before.independent_segments,
            target_duration_s=max(now.target_duration_s, before.target_duration_s),
        )
    values = rendition_values(item_id, kept)
    if before is None:
        db.execute(insert(renditions), values)
    else:
        own = and_(renditions.c.item_id == item_id, renditions.c.name == now.name)
        db.execute(update(renditions).where(own).values(**values))


def _slide(db: Connection, row: Row[Any], rendition: str, end_us: int, now: float) -> int:
    """Take what is older than the window off the playlist; how many discontinuities went.

    It stays for as long as the playlist it stood on is long (RFC 8216bis 6.2.2), and the grace.
    """
    listed = and_(segments.c.item_id == row.item_id, segments.c.rendition == rendition, _LISTED)
    newest = select(segments.c.msn).where(listed).order_by(segments.c.msn.desc())
    least = db.execute(newest.offset(_LEAST_LISTED).limit(1)).scalar()
    if least is None:
        return 0
    old = and_(
        listed,
        segments.c.msn <= least,
        segments.c.start_us + segments.c.duration_us <= end_us - row.window_us,
    )
    gone = db.execute(select(segments.c.msn, segments.c.discontinuity).where(old)).all()
    if not gone:
        return 0
    db.execute(update(segments).where(old).values(retired_at=now + row.window_us / 1e6))
    return sum(segment.discontinuity for segment in gone)


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


def _joined() -> Select[Any]:
    columns = (items.c.slug, items.c.version, items.c.next_msn, items.c.name, items.c.rewatch)
    return (
        select(streams, *columns)
        .join_from(streams, items)
        .where(items.c.removed_at.is_(None), items.c.kind == "stream")
    )


def _stream(db: Connection, slug: str, *, lock: bool = False) -> Row[Any]:
    query = _joined().where(items.c.slug == slug)
    row = db.execute(query.with_for_update() if lock else query).first()
    if row is not None:
        return row
    catalog_sql.on_sale(db, slug)
    raise ItemError(f"{slug!r} is no stream; `xbyte-live stream list` shows those there are")


def _stream_of_feed(db: Connection, feed: int) -> Row[Any] | None:
    return db.execute(_joined().where(streams.c.feed == feed).with_for_update()).first()


def _item(db: Connection, item_id: int) -> Row[Any]:
    return db.execute(select(items).where(items.c.id == item_id)).one()
