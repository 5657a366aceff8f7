"""Titles and objects as an import puts them on sale, with their bytes in a store."""

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from xbyte_live.catalog.catalog import Catalog
from xbyte_live.catalog.cleanup import discard
from xbyte_live.models import Import, Object, Rendition, Segment, Title, segment_key
from xbyte_live.money import Price
from xbyte_live.storage.blobs.store import Store

PAYEE = "0x00000000000000000000000000000000000000aa"


@dataclass
class Clock:
    """Unix time as a test sets it."""

    now: float = 1_760_000_000.0

    def __call__(self) -> float:
        return self.now


def a_rendition(first_msn: int, count: int, name: str = "source", **changes: Any) -> Rendition:
    """A rendition of ``count`` segments that differ in every number."""
    segments = tuple(
        Segment(
            msn=first_msn + index,
            size=1000 + index,
            start_us=index * 6_000_000,
            duration_us=6_000_000 - index,
            sha256=hashlib.sha256(f"{name} {first_msn + index}".encode()).hexdigest(),
            discontinuity=index == 2,
            program_date_time_us=1_760_000_000_000_000 + index if index % 2 else None,
        )
        for index in range(count)
    )
    values = {
        "codecs": "avc1.64001f,mp4a.40.2",
        "bandwidth": 900_000,
        "average_bandwidth": 800_000,
        "target_duration_s": 6,
        "independent_segments": True,
        "width": 1280,
        "height": 720,
        "frame_rate": Fraction(30000, 1001),
    }
    return Rendition(name=name, segments=segments, **{**values, **changes})


async def publish(catalog: Catalog, import_: Import, count: int = 5, **changes: Any) -> Title:
    """Put a title of one rendition on sale, without bytes."""
    values: dict[str, Any] = {
        "name": "Plasma",
        "renditions": [a_rendition(import_.first_msn, count)],
        "duration_us": count * 6_000_000,
        "poster": import_.poster_key,
        "price": Price(1000),
        "pay_to": PAYEE,
        "preview_us": 0,
        "rewatch": "paid",
    }
    return await catalog.publish_title(import_, **{**values, **changes})


async def publish_object(catalog: Catalog, import_: Import, **changes: Any) -> Object:
    """Put an object on sale, without bytes."""
    values: dict[str, Any] = {
        "name": "paper.pdf",
        "size": 5,
        "content_type": "application/pdf",
        "sha256": hashlib.sha256(b"paper").hexdigest(),
        "key": import_.object_key,
        "price": Price(1000),
        "pay_to": None,
        "rewatch": "free",
    }
    return await catalog.publish_object(import_, **{**values, **changes})


async def add_title(catalog: Catalog, slug: str = "plasma", **changes: Any) -> Title:
    """Import and publish a title, in place of what the slug named."""
    return await publish(catalog, await catalog.begin_import(slug, replace=True), **changes)


async def add_object(catalog: Catalog, slug: str = "paper", **changes: Any) -> Object:
    """Import and publish an object, in place of what the slug named."""
    return await publish_object(catalog, await catalog.begin_import(slug, replace=True), **changes)


async def import_with_bytes(
    catalog: Catalog, store: Store, slug: str, version: int, *, count: int
) -> Title:
    """Import a title whose bytes are in the store and say which version they are of."""
    import_ = await catalog.begin_import(slug, replace=True)
    await discard(catalog, store, import_)
    segments = []
    for index in range(count):
        data = f"version {version} segment {index} ".encode() * 50
        msn = import_.first_msn + index
        await store.put(segment_key(slug, "source", msn), data)
        digest = hashlib.sha256(data).hexdigest()
        segments.append(Segment(msn, len(data), index * 6_000_000, 6_000_000, digest))
    await store.put(import_.poster_key, f"poster {version}".encode())
    rendition = Rendition("source", "mp4a.40.2", 128_000, 128_000, 6, True, tuple(segments))
    return await publish(
        catalog, import_, name=f"Version {version}", renditions=[rendition], price=Price(version)
    )
