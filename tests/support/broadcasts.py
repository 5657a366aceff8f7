"""Streams on sale and their segments, as feeds list them, without media."""

import hashlib
import json
from typing import Any

from tests.support.items import PAYEE
from xbyte_live.catalog.streams import Streams
from xbyte_live.models import FeedLease, Listing, NewStream, Offer, Rendition, Segment, segment_key
from xbyte_live.money import Price
from xbyte_live.storage.blobs.store import Store

SECOND = 1_000_000


def data_of(slug: str, msn: int) -> bytes:
    """The bytes of a segment: they tell which one it is."""
    return f"{slug} {msn} ".encode() * 40


def a_listing(lease: FeedLease, msn: int, **changes: Any) -> Listing:
    """A two-second segment of a feed."""
    data = data_of(lease.slug, msn)
    values: dict[str, Any] = {
        "size": len(data),
        "duration_us": 2 * SECOND,
        "discontinuity": False,
        "program_date_time_us": 1_760_000_000 * SECOND + msn * 2 * SECOND,
    }
    rendition = {"codecs": "avc1.64001f", "target_duration_s": 2, "independent_segments": True}
    rendition |= {name: changes.pop(name) for name in tuple(rendition) if name in changes}
    digest = hashlib.sha256(data).hexdigest()
    segment = Segment(msn=msn, start_us=0, sha256=digest, **{**values, **changes})
    return Listing(
        feed=lease.feed,
        segment=segment,
        rendition=Rendition(
            name="source", bandwidth=800_000, average_bandwidth=700_000, segments=(), **rendition
        ),
        status=json.dumps({"segments": msn}),
    )


async def create(streams: Streams, slug: str = "concert", **changes: Any) -> str:
    """Put a stream on sale at a tenth of a cent per MB; its key."""
    terms = Offer(Price(changes.pop("price", 1000)), PAYEE, 1_760_000_000.0)
    return await streams.create(NewStream(slug=slug, name="Concert", **changes), terms)


async def list_segments(
    streams: Streams, lease: FeedLease, count: int, store: Store | None = None
) -> None:
    """List the next segments of a feed that has listed none yet, with bytes if there is a store."""
    for msn in range(lease.next_msn, lease.next_msn + count):
        if store is not None:
            key = segment_key(lease.slug, "source", msn)
            await store.put(key, data_of(lease.slug, msn))
        assert await streams.append(lease.slug, a_listing(lease, msn))
