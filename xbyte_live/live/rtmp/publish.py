"""Pure: the interface between the RTMP port and its feeds, and the limits of the port."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from xbyte_live.errors import PublishRefused
from xbyte_live.live.rtmp.events import PublishRequest
from xbyte_live.media.formats.flv import Tag


class FeedSink(Protocol):
    """The receiver of one publisher's tags."""

    async def write(self, tags: Sequence[Tag]) -> float:
        """Take tags; waits while the packager is behind. Raises ``PublishRefused``.

        Returns how many seconds the next tags may be gathered: tags in batches cost less.
        """
        ...

    async def close(self, *, unpublished: bool) -> None:
        """End the feed; ``unpublished`` if the publisher ended it. Called exactly once."""

    async def ended(self) -> PublishRefused:
        """Return, once the server ends the feed, the reason for its publisher."""
        ...


# Accepts a publisher and returns its feed, or raises ``PublishRefused``.
Publish = Callable[[PublishRequest], Awaitable[FeedSink]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RtmpLimits:
    """Limits of a connection and of the port; times in seconds, ``max_message`` in bytes.

    ``handshake_timeout`` lasts until ``connect``, ``publish_timeout`` until ``publish``;
    ``idle_timeout`` counts from the last whole audio or video message, not the last byte.
    """

    app: str = "live"
    handshake_timeout: float = 10.0
    publish_timeout: float = 10.0
    idle_timeout: float = 30.0
    max_message: int = 8 << 20
    max_connections: int = 128
    per_address: int = 32


@dataclass(slots=True)
class RtmpCounters:
    """Counts of connections and bytes since the port opened."""

    accepted: int = 0
    turned_away: int = 0  # over a limit of connections
    refused: int = 0  # by ``publish`` or by the feed
    broken: int = 0  # did not speak RTMP
    bytes_in: int = 0
