"""Pure: an item as JSON, in the one form of the command line, the API and the pages."""

import json
from typing import Any

from xbyte_live.models import Item, Object, Offer, Stream, Title, kind_of


def item_json(item: Item, offer: Offer) -> dict[str, Any]:
    """The fields every answer has of an item at an offer of it; seconds, and whole bytes."""
    found: dict[str, Any] = {
        "slug": item.slug,
        "kind": kind_of(item),
        "name": item.name,
        "price_per_mb": str(offer.price),
        "rewatch": item.rewatch,
    }
    if isinstance(item, Object):
        return found | {"bytes": item.size, "content_type": item.content_type}
    found["preview_seconds"] = offer.preview_us / 1e6
    if isinstance(item, Title):
        return found | {"duration_seconds": item.duration_us / 1e6}
    return found | {"state": item.state}


def stream_json(stream: Stream, now: float) -> dict[str, Any]:
    """How a stream is doing, open to anybody: times in Unix seconds, durations in seconds."""
    on_air = stream.state == "on_air"
    return {
        "slug": stream.slug,
        "name": stream.name,
        "state": stream.state,
        "connected": stream.connected,
        "broadcast": stream.broadcast,
        "on_air_since": None if stream.ended else stream.started_at,
        "on_air_for_s": round(now - stream.started_at, 1) if on_air and stream.started_at else None,
        "playlist": stream.playlist,
        "window_s": stream.window_us / 1e6,
        "recording": stream.recording,
        "pulled": stream.source is not None,
        "feed": json.loads(stream.status) if stream.status else None,
    }
