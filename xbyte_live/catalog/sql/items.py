"""Adapter: the SQL of items, offers and renditions; called by ``catalog``."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    Select,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from xbyte_live.catalog.sql.imports import end_import, lost
from xbyte_live.catalog.sql.rows import (
    OFFER_COLUMNS,
    RENDITION_COLUMNS,
    SEGMENT_COLUMNS,
    item_of,
    offer_of,
    rendition_of,
    rendition_values,
    segment_of,
    segment_values,
)
from xbyte_live.errors import ItemNotFound
from xbyte_live.models import (
    Import,
    Item,
    Offer,
    Rendition,
    Rewatch,
    Segment,
    Stream,
    segment_key,
)
from xbyte_live.money import Price
from xbyte_live.storage.db.tables import (
    items,
    leftovers,
    offers,
    renditions,
    segments,
    stream_keys,
    streams,
)

_OFFERS_READ = 1000  # of one item: many more than can hold within a quote's time
_ON_SALE = items.c.removed_at.is_(None)
_LISTED = segments.c.retired_at.is_(None)
UNSET = {
    "removed_at": None,
    "duration_us": None,
    "poster": None,
    "size": None,
    "content_type": None,
    "sha256": None,
    "key": None,
    "recorded_from": None,
}


def renditions_query() -> Select[Any]:
    """Rows of ``RENDITION_COLUMNS`` with their item, the best first."""
    order = (renditions.c.bandwidth.desc(), renditions.c.name)
    return select(renditions.c.item_id, *RENDITION_COLUMNS).order_by(*order)


def offers_query() -> Select[Any]:
    """Rows of ``OFFER_COLUMNS`` with their item, the newest first."""
    order = (offers.c.since.desc(), offers.c.id.desc())
    return select(offers.c.item_id, *OFFER_COLUMNS).order_by(*order)


# Statements that run for every segment of every stream are built once.
_VERSION = select(items.c.version).where(items.c.slug == bindparam("of_slug"), _ON_SALE)
_RENDITIONS_OF = renditions_query().where(renditions.c.item_id == bindparam("of_item"))
_OFFERS_OF = offers_query().where(offers.c.item_id == bindparam("of_item")).limit(bindparam("most"))
_STREAM_OF = select(streams).where(streams.c.item_id == bindparam("of_item"))
_FIRST_LISTED = select(func.min(segments.c.msn)).where(
    segments.c.item_id == bindparam("of_item"),
    segments.c.rendition == bindparam("of_name"),
    _LISTED,
)
_LISTED_ABOVE = (
    select(*SEGMENT_COLUMNS)
    .where(segments.c.item_id == bindparam("of_item"))
    .where(segments.c.rendition == bindparam("of_name"), _LISTED)
    .where(segments.c.msn > bindparam("above"))
    .order_by(segments.c.msn)
)


def version_of(db: Connection, slug: str) -> int | None:
    """The version of the item on sale under ``slug``."""
    return db.execute(_VERSION, {"of_slug": slug}).scalar()


def load_item(db: Connection, slug: str, known: Item | None = None) -> tuple[Item, int]:
    """The item on sale under ``slug`` with all its parts, and its version.

    Of a stream that is ``known``, only the segments listed since are read.
    """
    row = on_sale(db, slug)
    terms = _terms_of(db, row.id)
    live = _live_of(db, row)
    parts = []
    for rendition in db.execute(_RENDITIONS_OF, {"of_item": row.id}).all():
        before = _still_listed(db, row.id, rendition.name, known) if live else ()
        found = _listed(db, row.id, rendition.name, terms, after=before)
        parts.append(rendition_of(rendition, (*before, *found)))
    return item_of(row, parts, list(terms.values()), live), row.version


def removed_item(db: Connection, slug: str, since: float) -> Item | None:
    """The item that was taken off sale after ``since``, without its renditions."""
    query = select(items).where(items.c.slug == slug, items.c.removed_at > since)
    row = db.execute(query).first()
    if row is None:
        return None
    return item_of(row, (), list(_terms_of(db, row.id).values()), _live_of(db, row))


def list_items(db: Connection) -> list[Item]:
    """Everything on sale, the oldest first; renditions come without their segments."""
    parts: dict[int, list[Rendition]] = {}
    for rendition in db.execute(renditions_query().join(items).where(_ON_SALE)):
        parts.setdefault(rendition.item_id, []).append(rendition_of(rendition, ()))
    terms: dict[int, list[Offer]] = {}
    for offer in db.execute(offers_query().join(items).where(_ON_SALE)):
        terms.setdefault(offer.item_id, []).append(offer_of(offer))
    live = {row.item_id: row for row in db.execute(select(streams).join(items).where(_ON_SALE))}
    rows = db.execute(select(items).where(_ON_SALE).order_by(items.c.created_at, items.c.id))
    return [item_of(row, parts.get(row.id, []), terms[row.id], live.get(row.id)) for row in rows]


def retired_segment(
    db: Connection, slug: str, rendition: str, msn: int, since: float
) -> Segment | None:
    """A segment that left its playlist after ``since``."""
    row = db.execute(
        select(*SEGMENT_COLUMNS)
        .join(items)
        .where(items.c.slug == slug, segments.c.rendition == rendition, segments.c.msn == msn)
        .where(segments.c.retired_at > since)
    ).first()
    if row is None:
        return None
    known = db.execute(offers_query().where(offers.c.id == row.offer_id))
    return segment_of(row, {offer.id: offer_of(offer) for offer in known})


def publish(
    db: Connection,
    import_: Import,
    values: Mapping[str, Any],
    parts: Sequence[Rendition],
    terms: Offer,
) -> None:
    """Put an item on sale in place of the slug's old one; raises ``ItemError`` for a lost slug."""
    if not end_import(db, import_):
        raise lost(import_)
    now = terms.since
    numbered = {**values, "next_msn": _next_msn(import_, parts)}
    row = db.execute(select(items).where(items.c.slug == import_.slug).with_for_update()).first()
    if row is None:
        new = insert(items).values(slug=import_.slug, created_at=now, version=1, **numbered)
        item_id = db.execute(new.returning(items.c.id)).scalar_one()
    else:
        item_id = row.id
        named = [key for name in ("key", "poster") if (key := values.get(name))]
        if row.removed_at is None:
            retire(db, row, now, still_named=named)
        db.execute(delete(streams).where(streams.c.item_id == item_id))
        db.execute(delete(leftovers).where(leftovers.c.key.in_(named)))
        again = {} if row.removed_at is None else {"created_at": now}
        change(db, row, {**UNSET, **numbered, **again})
    for part in parts:
        db.execute(insert(renditions), rendition_values(item_id, part))
        if part.segments:
            db.execute(insert(segments), segment_values(item_id, part))
    add_offer(db, item_id, terms)


def set_terms(
    db: Connection,
    slug: str,
    price: Price | None,
    pay_to: str | None,
    preview_us: int | None,
    rewatch: Rewatch | None,
    now: float,
) -> None:
    """Change every term that is not ``None``; raises ``ItemNotFound``."""
    row = on_sale(db, slug, lock=True)
    newest = offer_of(db.execute(offers_query().where(offers.c.item_id == row.id).limit(1)).one())
    terms = Offer(
        price=newest.price if price is None else price,
        pay_to=newest.pay_to if pay_to is None else pay_to or None,
        since=now,
        preview_us=newest.preview_us if preview_us is None else preview_us,
    )
    offered = add_offer(db, row.id, terms)
    again = rewatch or row.rewatch
    if offered or again != row.rewatch:
        change(db, row, {"rewatch": again})


def remove(db: Connection, slug: str, now: float) -> None:
    """Take an item off sale; raises ``ItemNotFound``."""
    row = on_sale(db, slug, lock=True)
    retire(db, row, now, still_named=())
    # a feed that is being ended may still store one segment; its number is not used again
    change(db, row, {"removed_at": now, "next_msn": row.next_msn + (row.kind == "stream")})


def _terms_of(db: Connection, item_id: int) -> dict[int, Offer]:
    """The newest offers of an item by their number, the newest first."""
    found = db.execute(_OFFERS_OF, {"of_item": item_id, "most": _OFFERS_READ})
    return {row.id: offer_of(row) for row in found}


def _live_of(db: Connection, row: Row[Any]) -> Row[Any] | None:
    """The row of ``streams`` of an item, ``None`` if it is no stream."""
    if row.kind != "stream":
        return None
    return db.execute(_STREAM_OF, {"of_item": row.id}).one()


def _still_listed(
    db: Connection, item_id: int, rendition: str, known: Item | None
) -> tuple[Segment, ...]:
    """The segments of a known stream that are still listed."""
    before = known.rendition(rendition) if isinstance(known, Stream) else None
    if before is None:
        return ()
    first = db.execute(_FIRST_LISTED, {"of_item": item_id, "of_name": rendition}).scalar()
    return () if first is None else tuple(s for s in before.segments if s.msn >= first)


def _listed(
    db: Connection,
    item_id: int,
    rendition: str,
    terms: dict[int, Offer],
    after: Sequence[Segment],
) -> list[Segment]:
    """The segments a rendition lists behind those in ``after``."""
    above = after[-1].msn if after else -1
    rows = db.execute(
        _LISTED_ABOVE, {"of_item": item_id, "of_name": rendition, "above": above}
    ).all()
    known = {offer: terms[offer] for offer in {row.offer_id for row in rows} if offer in terms}
    unknown = {row.offer_id for row in rows} - known.keys() - {None}
    if unknown:  # listed before the newest offers were made
        older = db.execute(offers_query().where(offers.c.id.in_(unknown)))
        known |= {row.id: offer_of(row) for row in older}
    return [segment_of(row, known) for row in rows]


def on_sale(db: Connection, slug: str, *, lock: bool = False) -> Row[Any]:
    """The row of ``items`` on sale under a slug; raises ``ItemNotFound``."""
    query = select(items).where(items.c.slug == slug, _ON_SALE)
    row = db.execute(query.with_for_update() if lock else query).first()
    if row is None:
        raise not_found(slug)
    return row


def _next_msn(import_: Import, parts: Sequence[Rendition]) -> int:
    numbers = [segment.msn for part in parts for segment in part.segments]
    for part in parts:
        segment_key(import_.slug, part.name, import_.first_msn)  # raises if it can have no key
    if min(numbers, default=import_.first_msn) < import_.first_msn:
        raise ValueError(f"segments of this import are numbered from {import_.first_msn} on")
    return max(numbers, default=import_.first_msn) + 1


def change(db: Connection, row: Row[Any], values: Mapping[str, Any]) -> None:
    """Change an item and its version, by which every process sees the change."""
    changed = update(items).where(items.c.id == row.id)
    db.execute(changed.values(version=row.version + 1, **values))


def retire(db: Connection, row: Row[Any], now: float, still_named: Collection[str]) -> None:
    """Retire all segments and files of an item; their bytes stay until they expire."""
    db.execute(update(segments).where(segments.c.item_id == row.id, _LISTED).values(retired_at=now))
    db.execute(delete(renditions).where(renditions.c.item_id == row.id))
    db.execute(delete(stream_keys).where(stream_keys.c.item_id == row.id))
    off_air = update(streams).where(streams.c.item_id == row.id)
    db.execute(off_air.values(state="ended", feed=None))  # its feed loses its lease
    for key in {row.key, row.poster} - {None, *still_named}:
        db.execute(insert(leftovers).values(key=key, retired_at=now))


def add_offer(db: Connection, item_id: int, terms: Offer) -> bool:
    """Add an offer, unless it equals the newest; return whether it was added."""
    row = db.execute(offers_query().where(offers.c.item_id == item_id).limit(1)).first()
    newest = offer_of(row) if row else None
    if newest and replace(newest, since=terms.since) == terms:
        return False
    since = max(terms.since, newest.since) if newest else terms.since  # some clock may be ahead
    db.execute(
        insert(offers).values(
            item_id=item_id,
            price_per_mib=terms.price.per_mib,
            pay_to=terms.pay_to,
            preview_us=terms.preview_us,
            since=since,
        )
    )
    return True


def not_found(slug: str) -> ItemNotFound:
    """The error for a slug with no item on sale."""
    return ItemNotFound(f"there is no item {slug!r}; `xbyte-live list` shows what there is")
