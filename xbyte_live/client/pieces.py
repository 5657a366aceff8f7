"""Pure: the pieces an item is bought in, their prices, and the scope of its URLs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urljoin, urlsplit

from xbyte_live.client.payer.terms import Quoted, item_of, plain, resource_of
from xbyte_live.errors import DeliveryFailed
from xbyte_live.media.formats.playlist import ListedSegment, Variant
from xbyte_live.money import MAX_AMOUNT, Price

MAX_PIECES = 100_000

_PAGE = re.compile(r"(.*)/watch/([a-z0-9-]+)/?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class OfferedPiece:
    """Bytes that are bought at once: a whole resource, or from ``start`` on within one.

    ``size`` is in bytes and ``amount`` in atomic units, both ``None`` if unknown;
    ``at_most`` bounds an unknown amount.
    """

    url: str
    size: int | None = None
    amount: int | None = None
    at_most: int | None = None
    start: int | None = None

    @property
    def byte_range(self) -> str | None:
        """The ``Range`` header that asks for it, or ``None`` for a whole resource."""
        if self.start is None or self.size is None:
            return None
        return f"bytes={self.start}-{self.start + self.size - 1}"

    @property
    def resource(self) -> str:
        """The name of its bytes."""
        return resource_of(self.url, self.byte_range)

    def quoted(self, item: str) -> Quoted:
        """What the paying transport is told of it."""
        return Quoted(item, self.size, self.amount, self.at_most)


@dataclass(frozen=True, slots=True)
class Scope:
    """The one item a proxy is for: everything under ``path`` at ``origin``."""

    origin: str
    path: str

    def __contains__(self, url: object) -> bool:
        parts = urlsplit(str(url))
        steps = unquote(parts.path).replace("\\", "/").split("/")
        return (
            f"{parts.scheme}://{parts.netloc}" == self.origin
            and parts.path.startswith(self.path)
            and not {".", ".."} & set(steps)
        )


def scope_of(url: str) -> Scope:
    """Where all that belongs to the item of a playlist lies."""
    parts = urlsplit(url)
    path = urlsplit(item_of(url)).path + "/"
    if not parts.path.startswith(path):
        path = parts.path.rpartition("/")[0] + "/"
    return Scope(f"{parts.scheme}://{parts.netloc}", path)


def playlist_of_page(url: str) -> str:
    """The playlist behind a watch page; any other URL as it is, without its fragment."""
    parts = urlsplit(url)._replace(fragment="")
    page = _PAGE.fullmatch(parts.path)
    if page:
        parts = parts._replace(path=f"{page[1]}/hls/{page[2]}/index.m3u8", query="")
    return parts.geturl()


def choose_variant(
    variants: Sequence[Variant], *, rendition: str | None = None, max_bandwidth: int | None = None
) -> Variant:
    """The variant of the highest bit rate, of that name or within that bandwidth (bits/s).

    A rendition's name is the folder of its playlist. Raises ``DeliveryFailed`` if there is none.
    """
    names = [
        variant.uri.split("?")[0].rpartition("/")[0].rpartition("/")[2] for variant in variants
    ]
    fitting = [
        variant
        for name, variant in zip(names, variants, strict=True)
        if (rendition is None or name == rendition)
        and (max_bandwidth is None or variant.bandwidth <= max_bandwidth)
    ]
    if not fitting:
        raise DeliveryFailed(f"there is no such rendition; there is {plain(', '.join(names))}")
    return max(fitting, key=lambda variant: variant.bandwidth)


def segment_pieces(base: str, segments: Sequence[ListedSegment]) -> tuple[OfferedPiece, ...]:
    """The segments of a media playlist found at ``base``, with what it says they cost.

    Raises ``DeliveryFailed`` for segments elsewhere than on the playlist's own server, which
    nobody agreed to pay, and for a segment listed twice.
    """
    pieces: dict[str, OfferedPiece] = {}
    for segment in segments:
        url = urljoin(base, segment.uri)
        if urlsplit(url)[:2] != urlsplit(base)[:2]:
            raise DeliveryFailed("the playlist lists segments on another server")
        if url in pieces:
            raise DeliveryFailed("the playlist lists a segment twice")
        if (segment.amount or 0) > MAX_AMOUNT:
            raise DeliveryFailed("the playlist asks for more than one payment can carry")
        pieces[url] = OfferedPiece(url, segment.size, segment.amount)
    return tuple(pieces.values())


def object_pieces(url: str, size: int, price: Price, piece_size: int) -> tuple[OfferedPiece, ...]:
    """An object of known size and price as ranges of ``piece_size`` bytes, the last one shorter.

    Pieces are larger where there would be more than ``MAX_PIECES``.
    """
    piece_size = max(piece_size, -(-size // MAX_PIECES))
    if size <= piece_size:
        return (OfferedPiece(url, size, price.amount_for(size)),)
    return tuple(
        OfferedPiece(url, length, price.amount_for(length), start=start)
        for start in range(0, size, piece_size)
        for length in [min(piece_size, size - start)]
    )


def cost_of(pieces: Sequence[OfferedPiece]) -> int | None:
    """What pieces cost together, or ``None`` when some price is unknown."""
    known = [piece.amount for piece in pieces if piece.amount is not None]
    return sum(known) if len(known) == len(pieces) else None


def size_of(pieces: Sequence[OfferedPiece]) -> int | None:
    """How many bytes pieces have together, or ``None`` when some size is unknown."""
    known = [piece.size for piece in pieces if piece.size is not None]
    return sum(known) if len(known) == len(pieces) else None


def suggested_name(url: str) -> str:
    """A file name for what a URL offers: the slug with ``.ts``, or its last step if harmless."""
    steps = [step for step in urlsplit(playlist_of_page(url)).path.split("/") if step]
    if "hls" in steps[:-1]:
        slug = steps[steps.index("hls") + 1]
        return f"{slug}.ts" if _NAME.fullmatch(slug) else "download.ts"
    return steps[-1] if steps and _NAME.fullmatch(steps[-1]) else "download"
