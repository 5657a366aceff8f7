"""Pure: catalog entries as the text and pictures of cards."""

import hashlib
from pathlib import PurePosixPath
from typing import Any

from xbyte_live.money import PRICE_DECIMALS, parse_decimal
from xbyte_live.runtime.format import clock, size_text

_CENT = 10_000  # atomic units
_AGAIN = {
    ("stream", "paid"): "",
    ("stream", "free"): "",
    ("title", "paid"): "Playing a part again buys it again, unless it is still in your player.",
    ("title", "free"): "What you have bought you may play again free.",
    ("object", "paid"): "Fetching it again buys it again.",
    ("object", "free"): "What you have bought you may fetch again free.",
}
_GROUNDS = (  # pairs of colours
    ("#0d9488", "#1e3a8a"),
    ("#7c3aed", "#1e1b4b"),
    ("#db2777", "#4c1d95"),
    ("#ea580c", "#7f1d1d"),
    ("#2563eb", "#0f2a43"),
    ("#059669", "#064e5b"),
    ("#e11d48", "#3b0764"),
    ("#0891b2", "#172554"),
)


def card_of(entry: dict[str, Any]) -> dict[str, Any]:
    """The values of a card for a catalog entry; every URL leads to this server."""
    slug, kind = entry["slug"], entry["kind"]
    has_video = bool(entry.get("has_video"))
    state = entry.get("state")
    return {
        "slug": slug,
        "name": entry["name"],
        "kind": kind,
        "has_video": has_video,
        "kind_name": _kind_name(entry),
        "price": price_text(entry),
        "price_per_mb": entry["price_per_mb"],
        "policy": _AGAIN[kind, entry["rewatch"]] if _costs(entry) else "",
        "preview": _preview(entry),
        "length": clock(entry["duration_seconds"]) if kind == "title" else None,
        "poster": f"/hls/{slug}/poster.jpg" if entry.get("poster_url") else None,
        "url": f"/objects/{slug}" if kind == "object" else f"/hls/{slug}/index.m3u8",
        "is_live": state in ("on_air", "waiting"),
        "state": None if kind != "stream" or state in ("on_air", "waiting") else "Off air",
        "viewers": entry.get("viewers_paying", 0),
        "art": picture(entry),
    }


def _costs(entry: dict[str, Any]) -> bool:
    return parse_decimal(entry["price_per_mb"], PRICE_DECIMALS) > 0


def rates_of(entry: dict[str, Any]) -> list[dict[str, str]]:
    """The rate of each rendition, as text."""
    return [
        {
            "label": quality_name(rate),
            "price": f"{money(rate['price_per_minute'])} a minute",
        }
        for rate in entry["renditions"]
    ]


def quality_name(rate: dict[str, Any]) -> str:
    """The common name of a rendition: ``720p`` or ``128 kb/s``."""
    if rate["height"]:
        return f"{rate['height']}p"
    return f"{round(rate['average_bandwidth'] / 1000)} kb/s"


def price_text(entry: dict[str, Any]) -> str:
    """The price of an item, in a few words."""
    if parse_decimal(entry["price_per_mb"], PRICE_DECIMALS) == 0:
        return "Free"
    if entry["kind"] == "object":
        return money(entry["price_whole"])
    if entry.get("price_per_minute") is None:
        return f"${entry['price_per_mb']} a MB"
    return f"{money(entry['price_per_minute'])} a minute"


def money(decimal: str) -> str:
    """Dollars for people: rounded up, in no more digits than needed."""
    units = parse_decimal(decimal, PRICE_DECIMALS)
    if units == 0:
        return "$0"
    step = 1 if units < 100 else 100 if units < 100 * _CENT else _CENT
    units = -(-units // step) * step
    digits = 6 if step == 1 else 4 if step == 100 else 2
    whole, rest = divmod(units, 10**PRICE_DECIMALS)
    return f"${whole:,}.{str(rest).rjust(PRICE_DECIMALS, '0')[:digits]}"


def picture(entry: dict[str, Any]) -> dict[str, str]:
    """The drawing for an item without a poster: two colours derived from its slug."""
    slug, kind = entry["slug"], entry["kind"]
    if kind == "title":
        kind = "video" if entry["has_video"] else "music"
    first, second = _GROUNDS[hashlib.sha256(slug.encode()).digest()[0] % len(_GROUNDS)]
    ending = PurePosixPath(entry["name"]).suffix.removeprefix(".").upper()
    label = ending if len(ending) <= 4 else ""
    return {"id": slug, "kind": kind, "label": label, "from": first, "to": second}


def _kind_name(entry: dict[str, Any]) -> str:
    if entry["kind"] == "object":
        return f"File, {size_text(entry['bytes'])}"
    if entry["kind"] == "stream":
        return "Live" if entry.get("has_video") or not entry.get("price_per_minute") else "Radio"
    return "Video" if entry.get("has_video") else "Audio"


def _preview(entry: dict[str, Any]) -> str | None:
    seconds = entry.get("preview_seconds") or 0
    if not seconds:
        return None
    return f"First {clock(seconds)} free" if seconds >= 60 else f"First {round(seconds)} s free"
