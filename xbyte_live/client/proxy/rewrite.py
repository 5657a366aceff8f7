"""Pure: remote playlists rewritten so that all they list is fetched from this machine.

Nothing of a remote URI gets into what is written: each is named by its digest, and only what lies
within the item's own origin and path is listed at all (RFC 8216bis 4).
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urljoin, urlsplit

from xbyte_live.client.pieces import Scope, choose_variant
from xbyte_live.errors import MediaError
from xbyte_live.media.formats.playlist import (
    MAX_LINE,
    MAX_PLAYLIST_BYTES,
    MAX_SEGMENTS,
    is_multivariant,
    read_multivariant_playlist,
)
from xbyte_live.money import MAX_AMOUNT

Kind = Literal["playlist", "segment", "other"]

_SUFFIXES = {".m3u8", ".ts", ".aac", ".mp3", ".m4s", ".mp4", ".m4a", ".vtt", ".key"}
_USUAL: dict[Kind, str] = {"playlist": ".m3u8", "segment": ".ts", "other": ".bin"}
_MAX_SIZE = 2**53
_MAX_SECONDS = 86_400

_PRICE = re.compile(r"#EXT-X-XBYTE-SEGMENT:BYTES=([0-9]{1,16}),AMOUNT=([0-9]{1,19})")
_DURATION = re.compile(r"#EXTINF:([0-9]{1,5}(?:\.[0-9]{1,9})?)(?:,.*)?")
_ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"]*"|[^",]*)(?:,|$)')

# What is repeated as it is: none of it names anything to fetch.
_KEPT = frozenset(
    {
        "#EXTM3U", "#EXTINF", "#EXT-X-VERSION", "#EXT-X-INDEPENDENT-SEGMENTS", "#EXT-X-START",
        "#EXT-X-TARGETDURATION", "#EXT-X-MEDIA-SEQUENCE", "#EXT-X-DISCONTINUITY-SEQUENCE",
        "#EXT-X-PLAYLIST-TYPE", "#EXT-X-ENDLIST", "#EXT-X-DISCONTINUITY", "#EXT-X-GAP",
        "#EXT-X-PROGRAM-DATE-TIME", "#EXT-X-BITRATE", "#EXT-X-STREAM-INF",
    }
)  # fmt: skip
# What names one thing, in its attribute URI.
_NAMING: dict[str, Kind] = {
    "#EXT-X-MEDIA": "playlist",
    "#EXT-X-KEY": "other",
    "#EXT-X-SESSION-KEY": "other",
    "#EXT-X-MAP": "other",
}
_CONTROL = "#EXT-X-SERVER-CONTROL"
_CONTROLS = frozenset({"CAN-BLOCK-RELOAD", "HOLD-BACK"})
# Without these a playlist means something else.
_NEEDED = frozenset({"#EXT-X-BYTERANGE", "#EXT-X-SKIP", "#EXT-X-DEFINE", "#EXT-X-I-FRAMES-ONLY"})


@dataclass(frozen=True, slots=True)
class Resource:
    """What a local name stands for: ``size`` bytes for ``amount`` atomic units, where listed."""

    url: str
    kind: Kind
    size: int | None = None
    amount: int | None = None
    duration_us: int = 0


@dataclass(slots=True)
class Rewritten:
    """A playlist for the player; ``listed`` are its segments by their names, in order."""

    text: str = ""
    resources: dict[str, Resource] = field(default_factory=dict)
    listed: dict[str, Resource] = field(default_factory=dict)
    ended: bool = False
    multivariant: bool = False


def local_name(url: str, kind: Kind) -> str:
    """What a remote URL is called here."""
    suffix = re.search(r"\.[a-z0-9]{2,4}$", urlsplit(url).path)
    known = suffix is not None and suffix[0] in _SUFFIXES and kind != "playlist"
    digest = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:24]
    return digest + (suffix[0] if known and suffix else _USUAL[kind])


def rewrite(
    text: str,
    base: str,
    scope: Scope,
    prefix: str,
    *,
    variants: frozenset[str] | None = None,
) -> Rewritten:
    """The playlist found at ``base`` with local names under ``prefix`` for all it lists.

    Of a multivariant playlist only ``variants`` are kept, by their URIs, if any are given. Tags
    that name nothing are kept, unknown ones left out. Raises ``MediaError`` for what is no
    playlist or lists what lies outside ``scope``.
    """
    page = Rewritten(multivariant=is_multivariant(text))
    kind: Kind = "playlist" if page.multivariant else "segment"
    size = amount = None
    duration_us = 0
    lines: list[str] = []
    heads: list[str] = []  # of the variant to come

    def name(uri: str, kind: Kind, **listed: int | None) -> str:
        url = _within(scope, base, uri)
        called = local_name(url, kind)
        page.resources[called] = Resource(url, kind, **listed)  # type: ignore[arg-type]
        return prefix + called

    for line in _lines(text):
        tag = line.partition(":")[0]
        if not line.startswith("#"):
            if variants is None or line in variants or not page.multivariant:
                local = name(line, kind, size=size, amount=amount, duration_us=duration_us)
                lines += [*heads, local]
                if kind == "segment":
                    called = local.removeprefix(prefix)
                    page.listed[called] = page.resources[called]
            heads, size, amount, duration_us = [], None, None, 0
        elif tag == "#EXT-X-XBYTE-SEGMENT":
            size, amount = _price(line)
        elif tag == "#EXT-X-STREAM-INF":
            heads = [line]
        elif tag in _NAMING:
            named = _NAMING[tag]
            lines.append(_renamed(line, lambda uri, kind=named: name(uri, kind)))  # type: ignore[misc]
        elif tag == _CONTROL:
            lines += _controls(line)
        elif tag in _KEPT:
            duration_us = _duration(line) if tag == "#EXTINF" else duration_us
            page.ended |= tag == "#EXT-X-ENDLIST"
            lines.append(line)
    page.text = "\n".join((*lines, ""))
    return page


def wanted_variants(
    text: str, *, rendition: str | None, max_bandwidth: int | None, best: bool
) -> frozenset[str] | None:
    """The URIs of the variants that are wanted, or ``None`` for all; ``best`` wants one alone.

    Raises ``DeliveryFailed`` if there is none.
    """
    if rendition is None and max_bandwidth is None and not best:
        return None
    variants = read_multivariant_playlist(text)
    chosen = choose_variant(variants, rendition=rendition, max_bandwidth=max_bandwidth)
    if best or rendition is not None or max_bandwidth is None:
        return frozenset({chosen.uri})
    return frozenset(v.uri for v in variants if v.bandwidth <= max_bandwidth)


def _lines(text: str) -> Iterator[str]:
    text = text.removeprefix("\ufeff")
    if not text.startswith("#EXTM3U"):
        raise MediaError("this is no HLS playlist")
    if len(text) > MAX_PLAYLIST_BYTES:
        raise MediaError(f"the playlist is larger than {MAX_PLAYLIST_BYTES >> 20} MB")
    resources = 0
    for line in map(str.strip, text.split("\n")):
        if len(line) > MAX_LINE or not line.isprintable():
            raise MediaError("the playlist has a line that is too long or not text")
        tag = line.partition(":")[0]
        if tag in _NEEDED:
            raise MediaError(f"the playlist uses {tag[1:]}, which is not supported")
        resources += bool(line) and not line.startswith("#")
        if resources > MAX_SEGMENTS:
            raise MediaError(f"the playlist lists more than {MAX_SEGMENTS} segments")
        if line:
            yield line


def _within(scope: Scope, base: str, uri: str) -> str:
    try:
        url = urljoin(base, uri).partition("#")[0]
        inside = url in scope
    except ValueError:
        inside = False
    if not inside:
        raise MediaError("the playlist lists what is not its own: another server or another item")
    return url


def _price(line: str) -> tuple[int, int]:
    found = _PRICE.fullmatch(line)
    size, amount = map(int, found.groups()) if found else (0, MAX_AMOUNT + 1)
    if amount > MAX_AMOUNT or size > _MAX_SIZE:
        raise MediaError("the playlist has a price that cannot be read")
    return size, amount


def _duration(line: str) -> int:
    found = _DURATION.fullmatch(line)
    seconds = float(found[1]) if found else -1.0
    if not 0 <= seconds <= _MAX_SECONDS:
        raise MediaError("the playlist has a segment without a sensible duration")
    return round(seconds * 1_000_000)


def _attributes(line: str) -> list[tuple[str, str]]:
    rest = line.partition(":")[2]
    found = list(_ATTRIBUTE.finditer(rest))
    if not found or "".join(match[0] for match in found) != rest:
        raise MediaError("the playlist has a tag that cannot be read")
    return [(match[1], match[2]) for match in found]


def _renamed(line: str, name: Callable[[str], str]) -> str:
    """The tag with another ``URI``, and without what else may name something."""
    shown = []
    for key, value in _attributes(line):
        if key == "URI" and not (len(value) > 1 and value[0] == value[-1] == '"'):
            raise MediaError("the playlist has a tag that cannot be read")
        if key == "URI":
            shown.append(f'URI="{name(value[1:-1])}"')
        elif not key.endswith("URI"):
            shown.append(f"{key}={value}")
    return f"{line.partition(':')[0]}:{','.join(shown)}"


def _controls(line: str) -> list[str]:
    """What of the server's control still holds: parts and skipped updates are not offered here."""
    kept = [f"{key}={value}" for key, value in _attributes(line) if key in _CONTROLS]
    return [f"{_CONTROL}:{','.join(kept)}"] if kept else []
