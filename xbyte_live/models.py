"""Pure: items for sale and their parts, as frozen values that every room uses.

Durations and times are integers of microseconds; sizes are bytes.
"""

import re
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from xbyte_live.errors import ItemError
from xbyte_live.money import Price

Rewatch = Literal["paid", "free"]
StreamState = Literal["idle", "on_air", "waiting", "ended"]
PlaylistKind = Literal["window", "event"]

_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_RENDITION = re.compile(r"[a-z0-9]{1,16}")


@dataclass(frozen=True, slots=True)
class Offer:
    """The terms of an item from ``since`` (Unix seconds) on; the newest one is in force.

    Segments that start within the first ``preview_us`` are free.
    """

    price: Price
    pay_to: str | None
    since: float
    preview_us: int = 0


@dataclass(frozen=True, slots=True)
class Segment:
    """One stored ``.ts`` file of a rendition (RFC 8216bis 3).

    ``start_us`` counts from the beginning of the item; ``program_date_time_us`` is Unix time.
    ``sha256`` is the hex digest of the bytes, the strong ``ETag`` of the segment. ``stored_under``
    is the stream a recording was made of, whose key the bytes still have. ``offer`` is what a
    live segment was listed at, which stays its price.
    """

    msn: int
    size: int
    start_us: int
    duration_us: int
    sha256: str
    discontinuity: bool = False
    program_date_time_us: int | None = None
    stored_under: str | None = None
    offer: Offer | None = None

    @property
    def end_us(self) -> int:
        """The end of the segment on the timeline of the item, in microseconds."""
        return self.start_us + self.duration_us


@dataclass(frozen=True, slots=True)
class Rendition:
    """One encoding of an item, as its multivariant playlist describes it (RFC 8216bis 4.4.6.2).

    ``bandwidth`` is the peak segment bit rate and ``average_bandwidth`` the mean, in bits/s;
    ``independent_segments`` is true only if every segment starts with a keyframe;
    ``discontinuity_sequence`` counts the discontinuities that left a sliding window.
    """

    name: str
    codecs: str
    bandwidth: int
    average_bandwidth: int
    target_duration_s: int
    independent_segments: bool
    segments: tuple[Segment, ...]
    width: int | None = None
    height: int | None = None
    frame_rate: Fraction | None = None
    discontinuity_sequence: int = 0

    @property
    def has_video(self) -> bool:
        """Whether the rendition has a video track."""
        return self.width is not None


@dataclass(frozen=True, slots=True)
class Title:
    """Packaged VOD. ``offers`` are newest first and never empty; ``poster`` is a store key.

    ``recorded_from`` is the stream that a recording was made of.
    """

    slug: str
    name: str
    created_at: float
    duration_us: int
    renditions: tuple[Rendition, ...]
    offers: tuple[Offer, ...]
    rewatch: Rewatch = "paid"
    poster: str | None = None
    recorded_from: str | None = None

    @property
    def preview_us(self) -> int:
        """Length of the free preview of the newest offer, in microseconds."""
        return self.offers[0].preview_us

    def rendition(self, name: str) -> Rendition | None:
        """The rendition of that name, ``None`` if there is none."""
        return next((r for r in self.renditions if r.name == name), None)


@dataclass(frozen=True, slots=True)
class Object:
    """Any other file, sold by the bytes of each range. ``key`` is its store key."""

    slug: str
    name: str
    created_at: float
    size: int
    content_type: str
    sha256: str
    key: str
    offers: tuple[Offer, ...]
    rewatch: Rewatch = "paid"


@dataclass(frozen=True, slots=True)
class Stream:
    """A live broadcast: what its playlist lists now, or listed when it ended.

    A ``window`` playlist keeps the last ``window_us``, an ``event`` playlist the whole broadcast.
    ``broadcast`` counts its broadcasts, ``started_at`` and ``heartbeat_at`` (Unix seconds) are of
    the latest; ``status`` is what its feed last said of itself, ``source`` the URL it is pulled
    from, if it is. ``connected`` says that a feed has the stream now, even if nothing is listed.
    """

    slug: str
    name: str
    created_at: float
    renditions: tuple[Rendition, ...]
    offers: tuple[Offer, ...]
    state: StreamState
    playlist: PlaylistKind
    window_us: int
    segment_target_us: int
    recording: bool
    broadcast: int = 0
    started_at: float | None = None
    heartbeat_at: float | None = None
    connected: bool = False
    rewatch: Rewatch = "paid"
    source: str | None = field(default=None, repr=False)
    status: str = ""
    poster: str | None = None

    @property
    def preview_us(self) -> int:
        """Length of the free preview of a broadcast by the newest offer, in microseconds."""
        return self.offers[0].preview_us

    @property
    def ended(self) -> bool:
        """Whether the playlist is complete: no broadcast goes on."""
        return self.state in ("idle", "ended")

    def rendition(self, name: str) -> Rendition | None:
        """The rendition of that name, ``None`` if there is none."""
        return next((r for r in self.renditions if r.name == name), None)


Item = Title | Object | Stream


@dataclass(frozen=True, slots=True)
class Import:
    """The right to publish ``slug``; its files are numbered from ``first_msn`` on.

    Stored bytes of the slug with a number from there on belong to this import alone.
    """

    id: int
    slug: str
    first_msn: int

    @property
    def object_key(self) -> str:
        """The store key of an object."""
        return f"{self.slug}/object/{self.first_msn}"

    @property
    def poster_key(self) -> str:
        """The store key of a title's poster."""
        return f"{self.slug}/poster/{self.first_msn}.jpg"


def kind_of(item: Item) -> str:
    """``title``, ``object`` or ``stream``."""
    return type(item).__name__.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewStream:
    """A stream to create."""

    slug: str
    name: str
    playlist: PlaylistKind = "window"
    window_us: int = 60_000_000
    segment_target_us: int = 2_000_000
    recording: bool = False
    rewatch: Rewatch = "paid"
    source: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class StreamKey:
    """A stream key as it is stored: ``hint`` is its last letters. Times are Unix seconds."""

    id: int
    hint: str
    created_at: float
    expires_at: float | None
    used_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedLease:
    """The right of one feed to list segments of a stream, and the state of its broadcast.

    With ``resumed`` it continues a broadcast, whose playlist declares ``target_duration_s``.
    The clock of the next segment is never before ``not_before_us``.
    """

    feed: int
    slug: str
    resumed: bool
    next_msn: int
    target_duration_s: int
    segment_target_us: int
    not_before_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One more segment for the playlist of a stream, with the facts of its rendition.

    The catalog decides where the segment starts on the timeline.
    """

    feed: int
    segment: Segment
    rendition: Rendition
    status: str


def check_slug(slug: str) -> str:
    """Return ``slug`` if it can name an item, else raise ``ItemError`` saying what can."""
    if _SLUG.fullmatch(slug) is None:
        raise ItemError(
            f"{slug[:80]!r} is no slug: use 1 to 64 lowercase letters, digits and inner hyphens"
        )
    return slug


def slug_of(name: str) -> str:
    """The slug a file or title name suggests; raises ``ItemError`` when it suggests none."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    return check_slug("-".join(words)[:64].strip("-"))


def segment_key(slug: str, rendition: str, msn: int) -> str:
    """The store key of a segment, ``{slug}/{rendition}/{msn}.ts``; raises ``ItemError``."""
    if _RENDITION.fullmatch(rendition) is None:
        raise ItemError(f"{rendition[:40]!r} is no rendition name")
    return f"{check_slug(slug)}/{rendition}/{msn}.ts"
