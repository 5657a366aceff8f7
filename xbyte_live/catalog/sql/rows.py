"""Pure: converts rows of the catalog to values and back."""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from sqlalchemy import Row

from xbyte_live.models import Item, Object, Offer, Rendition, Segment, Stream, Title
from xbyte_live.money import Price
from xbyte_live.storage.db.tables import offers, renditions, segments, streams

SEGMENT_COLUMNS = (  # in the order of the fields of Segment, so that thousands convert quickly
    segments.c.msn,
    segments.c.size,
    segments.c.start_us,
    segments.c.duration_us,
    segments.c.sha256,
    segments.c.discontinuity,
    segments.c.program_date_time_us,
    segments.c.stored_under,
    segments.c.offer_id,
)
RENDITION_COLUMNS = tuple(column for column in renditions.c if column.name != "item_id")
OFFER_COLUMNS = (
    offers.c.id,
    offers.c.price_per_mib,
    offers.c.pay_to,
    offers.c.since,
    offers.c.preview_us,
)
STREAM_COLUMNS = tuple(column for column in streams.c if column.name != "item_id")

Offers = Mapping[int, Offer]


def item_of(
    row: Row[Any],
    found_renditions: Sequence[Rendition],
    terms: Sequence[Offer],
    live: Row[Any] | None = None,
) -> Item:
    """The item of a row of ``items``, for a stream with its row of ``STREAM_COLUMNS``.

    ``terms`` are newest first.
    """
    if live is not None:
        return Stream(
            slug=row.slug,
            name=row.name,
            created_at=row.created_at,
            renditions=tuple(found_renditions),
            offers=tuple(terms),
            state=live.state,
            playlist=live.playlist,
            window_us=live.window_us,
            segment_target_us=live.segment_target_us,
            recording=live.recording,
            broadcast=live.broadcast,
            started_at=live.started_at,
            heartbeat_at=live.heartbeat_at,
            connected=live.feed is not None,
            rewatch=row.rewatch,
            source=live.source,
            status=live.status,
        )
    if row.kind == "object":
        return Object(
            slug=row.slug,
            name=row.name,
            created_at=row.created_at,
            size=row.size,
            content_type=row.content_type,
            sha256=row.sha256,
            key=row.key,
            offers=tuple(terms),
            rewatch=row.rewatch,
        )
    return Title(
        slug=row.slug,
        name=row.name,
        created_at=row.created_at,
        duration_us=row.duration_us,
        renditions=tuple(found_renditions),
        offers=tuple(terms),
        rewatch=row.rewatch,
        poster=row.poster,
        recorded_from=row.recorded_from,
    )


def segment_of(row: Sequence[Any], terms: Offers) -> Segment:
    """The segment of a row with ``SEGMENT_COLUMNS``; ``terms`` has the offers of its item."""
    *values, offer_id = row
    if offer_id is None:
        return Segment(*values)
    return Segment(*values, offer=terms[offer_id])  # type: ignore[misc]


def rendition_of(row: Row[Any], found: Iterable[Segment]) -> Rendition:
    """The rendition of a row with ``RENDITION_COLUMNS``."""
    return Rendition(
        name=row.name,
        codecs=row.codecs,
        bandwidth=row.bandwidth,
        average_bandwidth=row.average_bandwidth,
        target_duration_s=row.target_duration_s,
        independent_segments=row.independent_segments,
        segments=tuple(found),
        width=row.width,
        height=row.height,
        frame_rate=Fraction(row.frame_rate) if row.frame_rate else None,
        discontinuity_sequence=row.discontinuity_sequence,
    )


def offer_of(row: Row[Any]) -> Offer:
    """The offer of a row with ``OFFER_COLUMNS``."""
    return Offer(Price(row.price_per_mib), row.pay_to, row.since, row.preview_us)


def rendition_values(item_id: int, rendition: Rendition) -> dict[str, Any]:
    """A row of ``renditions``."""
    return {
        "item_id": item_id,
        "name": rendition.name,
        "codecs": rendition.codecs,
        "bandwidth": rendition.bandwidth,
        "average_bandwidth": rendition.average_bandwidth,
        "target_duration_s": rendition.target_duration_s,
        "independent_segments": rendition.independent_segments,
        "width": rendition.width,
        "height": rendition.height,
        "frame_rate": str(rendition.frame_rate) if rendition.frame_rate else None,
        "discontinuity_sequence": rendition.discontinuity_sequence,
    }


def segment_values(item_id: int, rendition: Rendition) -> list[dict[str, Any]]:
    """The rows of ``segments`` of a rendition."""
    return [
        {
            "item_id": item_id,
            "rendition": rendition.name,
            "msn": segment.msn,
            "size": segment.size,
            "start_us": segment.start_us,
            "duration_us": segment.duration_us,
            "sha256": segment.sha256,
            "discontinuity": segment.discontinuity,
            "program_date_time_us": segment.program_date_time_us,
            "stored_under": segment.stored_under,
        }
        for segment in rendition.segments
    ]
