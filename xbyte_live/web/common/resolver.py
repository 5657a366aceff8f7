"""Adapter: resolves the names in a URL to items and stored bytes of the catalog."""

import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from xbyte_live.catalog.catalog import Catalog
from xbyte_live.errors import ItemError, ItemGone, ItemNotFound
from xbyte_live.models import Item, Object, Segment, Stream, Title, check_slug, segment_key
from xbyte_live.web.common.responses import Header, raw_headers, uploaded_headers

_MSN = re.compile(r"0|[1-9][0-9]{0,18}")
_MAX_MSN = 2**63 - 1
_RENDITION = re.compile(r"[a-z0-9]{1,16}")
_SEGMENT_TYPE = "video/mp2t"
_SEGMENT_HEADERS = raw_headers({"content-type": _SEGMENT_TYPE})

_NO_ITEM = "there is no such item; /api/v1/catalog lists what there is"
_NO_SEGMENT = "there is no such segment; the media playlist lists what there is"
_GONE = "this segment has left the playlist and is no longer kept"


class StoredBytes(NamedTuple):
    """Stored bytes that a URL names, and the headers that describe them.

    ``identity`` names the bytes for good; ``lasting`` says that their path does too. Bytes that
    are ``withdrawn`` are off sale, and served only to payers who have paid for them already.
    """

    item: Item
    path: str
    identity: str
    key: str
    size: int
    etag: str
    description: str
    content_type: str
    headers: Sequence[Header]
    lasting: bool
    segment: Segment | None = None
    withdrawn: bool = False


_Known = tuple[Item, dict[tuple[str, str], StoredBytes]]
_WHOLE = ("", "")  # an object has neither renditions nor segments


class Resolver:
    """Resolves names of URLs; impossible names are refused without asking the catalog.

    The resources of an item are worked out once and kept while the item stays as it is, for at
    most ``limit`` items.
    """

    def __init__(self, catalog: Catalog, *, limit: int) -> None:
        self._catalog = catalog
        self._limit = limit
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def media(self, slug: str) -> Title | Stream:
        """The title or stream of that name; raises ``ItemNotFound``."""
        item = await self._item(slug)
        if not isinstance(item, Title | Stream):
            raise ItemNotFound(_NO_ITEM)
        return item

    async def stream(self, slug: str) -> Stream:
        """The stream of that name; raises ``ItemNotFound``."""
        item = await self._item(slug)
        if not isinstance(item, Stream):
            raise ItemNotFound(_NO_ITEM)
        return item

    async def object(self, slug: str) -> Object:
        """The object of that name; raises ``ItemNotFound``."""
        item = await self._item(slug)
        if not isinstance(item, Object):
            raise ItemNotFound(_NO_ITEM)
        return item

    async def segment_bytes(self, slug: str, rendition: str, msn: str) -> StoredBytes:
        """The segment of that rendition and number, also for a grace after it left the playlist.

        A number is written in one way only: without leading zeros, in ASCII digits. Raises
        ``ItemNotFound``, or ``ItemGone`` for a number below the first one listed.
        """
        title = await self._item(slug)
        if title is None:
            return await self._withdrawn_segment(slug, rendition, msn)
        if not isinstance(title, Title | Stream):
            raise ItemNotFound(_NO_ITEM)
        known = self._known_of(title)
        found = known.get((rendition, msn))
        if found is None:
            segment = _listed(title, rendition, msn)
            if segment is None:
                return _segment_resource(
                    title, rendition, await self._retired(title, rendition, msn)
                )
            found = known[rendition, msn] = _segment_resource(title, rendition, segment)
        return found

    async def object_bytes(self, slug: str) -> StoredBytes:
        """The bytes of the object of that name; raises ``ItemNotFound``."""
        on_sale = await self._item(slug)
        item = on_sale or await self._catalog.removed_item(slug)
        if not isinstance(item, Object):
            raise ItemNotFound(_NO_ITEM)
        known = self._known_of(item)
        found = known.get(_WHOLE)
        if found is None or found.withdrawn != (on_sale is None):
            found = known[_WHOLE] = _object_resource(item, withdrawn=on_sale is None)
        return found

    async def _item(self, slug: str) -> Item | None:
        try:
            return await self._catalog.item(check_slug(slug))
        except ItemError:
            raise ItemNotFound(_NO_ITEM) from None

    async def _withdrawn_segment(self, slug: str, rendition: str, msn: str) -> StoredBytes:
        title = await self._catalog.removed_item(slug)
        if not isinstance(title, Title | Stream):
            raise ItemNotFound(_NO_ITEM)
        _listed(title, rendition, msn)  # raises for what no segment can be called
        segment = await self._retired(title, rendition, msn)
        return _segment_resource(title, rendition, segment)._replace(withdrawn=True)

    async def _retired(self, title: Title | Stream, rendition: str, msn: str) -> Segment:
        retired = await self._catalog.retired_segment(title.slug, rendition, int(msn))
        if retired is None:
            listed = title.rendition(rendition)
            raise ItemGone(_GONE) if listed and listed.segments else ItemNotFound(_NO_SEGMENT)
        return retired

    def _known_of(self, item: Item) -> dict[tuple[str, str], StoredBytes]:
        known = self._known.get(item.slug)
        if known is None or known[0] is not item:
            known = self._known[item.slug] = (item, {})
            if len(self._known) > self._limit:
                self._known.popitem(last=False)
        self._known.move_to_end(item.slug)
        return known[1]


def _listed(title: Title | Stream, rendition: str, msn: str) -> Segment | None:
    """The segment of that number, or ``None`` if it may have been listed once."""
    if _MSN.fullmatch(msn) is None or _RENDITION.fullmatch(rendition) is None:
        raise ItemNotFound(_NO_SEGMENT)
    number = int(msn)
    listed = title.rendition(rendition)
    segments = listed.segments if listed else ()
    if segments and number >= segments[0].msn:
        index = number - segments[0].msn  # a playlist numbers its segments without gaps
        if index < len(segments) and segments[index].msn == number:
            return segments[index]
        raise ItemNotFound(_NO_SEGMENT)
    if number > _MAX_MSN:
        raise ItemNotFound(_NO_SEGMENT)
    return None


def _object_resource(item: Object, *, withdrawn: bool) -> StoredBytes:
    path = f"/objects/{item.slug}"
    headers = uploaded_headers(item.content_type, item.name)
    return StoredBytes(
        item=item,
        path=path,
        identity=f"{path}@{item.sha256[:16]}",  # another file may take its place one day
        key=item.key,
        size=item.size,
        etag=f'"{item.sha256}"',
        description=item.name,
        content_type=headers["content-type"],
        headers=raw_headers(headers),
        lasting=False,
        withdrawn=withdrawn,
    )


def _segment_resource(title: Title | Stream, rendition: str, segment: Segment) -> StoredBytes:
    path = f"/hls/{title.slug}/{rendition}/{segment.msn}.ts"
    return StoredBytes(
        item=title,
        path=path,
        identity=path,
        key=segment_key(segment.stored_under or title.slug, rendition, segment.msn),
        size=segment.size,
        etag=f'"{segment.sha256}"',
        description=f"{title.name}: segment {segment.msn} of {rendition}",
        content_type=_SEGMENT_TYPE,
        headers=_SEGMENT_HEADERS,
        lasting=True,
        segment=segment,
    )
