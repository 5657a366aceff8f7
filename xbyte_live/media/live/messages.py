"""Pure: the messages between server, fork server and each feed's child, as values and bytes."""

import json
import struct
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, TypeVar

from xbyte_live.errors import FeedFailed
from xbyte_live.media.sources.url import Source

MAX_META = 1 << 16
MAX_BODY = 192 << 20

TRACK, SEGMENT, WARNING, READ, REFUSED, END = range(1, 7)
_Value = TypeVar("_Value", int, str)

HEAD = struct.Struct("!BII")  # kind, size of the JSON, size of the bytes behind it

# Between the server and its fork server.
FORK, KILL = 1, 2
FORKED, EXITED = 1, 2
REQUEST = struct.Struct("!BIi")  # FORK or KILL, size of what follows, number of the feed
ANSWER = struct.Struct("!Biii")  # FORKED or EXITED, number of the feed, process id, exit code

EXIT_FAILED, EXIT_MEMORY, EXIT_PARENT_GONE = 70, 71, 72


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedOptions:
    """How to package one live feed.

    ``longest_segment_us`` bounds the first segment, which is then cut without a keyframe.
    ``target_duration_s`` is the one a resumed broadcast has declared (0: none yet), and no
    segment's PROGRAM-DATE-TIME lies before ``not_before_us`` (Unix time). ``memory_bytes``
    limits the child process; one that reads no input for ``stall_timeout`` seconds is killed.
    With a ``source`` the child pulls the feed, and nothing is written to it.
    """

    segment_target_us: int = 2_000_000
    longest_segment_us: int = 10_000_000
    target_duration_s: int = 0
    not_before_us: int = 0
    memory_bytes: int = 512 << 20
    stall_timeout: float = 10.0
    source: Source | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedTrack:
    """The format of the segments that follow; sent before the first and at each change.

    ``target_duration_s`` never changes within a feed.
    """

    codecs: str
    width: int | None = None
    height: int | None = None
    frame_rate: Fraction | None = None
    target_duration_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedSegment:
    """A finished segment.

    ``discontinuity`` is never set on the first of a feed; ``clean`` says that decoding can begin
    with it. Since the feed began, ``late`` packets had their timestamps corrected and ``dropped``
    packets were left out.
    """

    data: bytes
    sha256: str
    duration_us: int
    program_date_time_us: int
    discontinuity: bool
    clean: bool
    keyframe_interval_us: int | None
    late: int
    dropped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedWarning:
    """A fault the streamer should fix: a stable ``code`` and a sentence."""

    code: str
    text: str


FeedEvent = FeedTrack | FeedSegment | FeedWarning


def frame(kind: int, meta: dict[str, Any] | None = None, size: int = 0) -> bytes:
    """The head and JSON of one message; ``size`` bytes follow it."""
    text = json.dumps(meta or {}, separators=(",", ":")).encode()
    return HEAD.pack(kind, len(text), size) + text


def pack(event: FeedEvent) -> tuple[bytes, bytes]:
    """Encode an event as (head, body), to be sent in this order."""
    if isinstance(event, FeedWarning):
        return frame(WARNING, asdict(event)), b""
    if isinstance(event, FeedTrack):
        rate = event.frame_rate and event.frame_rate.as_integer_ratio()
        return frame(TRACK, asdict(event) | {"frame_rate": rate}), b""
    meta = {name: getattr(event, name) for name in event.__dataclass_fields__ if name != "data"}
    return frame(SEGMENT, meta, len(event.data)), event.data


def sizes(head: bytes) -> tuple[int, int, int]:
    """(kind, size of the JSON, size of the body); raises ``FeedFailed`` for an invalid head."""
    kind, meta, body = HEAD.unpack(head)
    if not TRACK <= kind <= END or meta > MAX_META or body > MAX_BODY:
        raise FeedFailed("the feed's process sent an invalid message")
    return kind, meta, body


def unpack(kind: int, meta: bytes, body: bytes) -> FeedEvent:
    """Decode an event; raises ``FeedFailed`` for a damaged message."""
    try:
        fields = json.loads(meta)
        if kind == SEGMENT:
            return FeedSegment(data=body, **fields)
        if kind == WARNING:
            return FeedWarning(**fields)
        rate = fields.pop("frame_rate")
        return FeedTrack(frame_rate=Fraction(*rate) if rate else None, **fields)
    except (ValueError, TypeError, LookupError, AttributeError, ZeroDivisionError):
        raise FeedFailed("the feed's process sent an invalid message") from None


def bytes_read(meta: bytes) -> int:
    """The number of bytes the child reports as read."""
    return _field(meta, "bytes", int)


def text_of(meta: bytes) -> str:
    """The sentence of a refusal."""
    return _field(meta, "text", str)


def _field(meta: bytes, name: str, kind: type[_Value]) -> _Value:
    try:
        value = json.loads(meta)[name]
    except (ValueError, TypeError, LookupError):
        value = None
    if not isinstance(value, kind):
        raise FeedFailed("the feed's process sent an invalid message")
    return value
