"""Pure: what the RTMP port asks of the rest: who may publish, where tags go, what is allowed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from xbyte_live.errors import PublishRefused
from xbyte_live.media.formats.flv import Tag


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """Who wants to publish what; ``name`` and ``query`` hold the key and are not to be logged.

    ``query`` is undecoded; ``encoder`` and ``tc_url`` are what the peer says of itself.
    """

    app: str
    name: str = field(repr=False)
    query: str = field(repr=False)
    address: str
    encoder: str
    tc_url: str = field(repr=False)


class Feed(Protocol):
    """Where the tags of one broadcast go."""

    async def write(self, tags: Sequence[Tag]) -> float:
        """Take tags; waits while what comes after is full. Raises PublishRefused.

        Returns for how many seconds no more is needed: tags that come in handfuls cost less.
        """
        ...

    async def close(self, *, unpublished: bool) -> None:
        """The publisher is gone; ``unpublished`` when it said goodbye. Called exactly once."""

    async def ended(self) -> PublishRefused:
        """Returns when we end the broadcast, with what the publisher is told."""
        ...


class Desk(Protocol):
    """Decides who may publish."""

    async def publish(self, request: PublishRequest) -> Feed:
        """The feed of an accepted publisher. Raises PublishRefused."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RtmpLimits:
    """What a peer may take; times in seconds, ``max_message`` in bytes.

    ``handshake_timeout`` ends with ``connect``, ``publish_timeout`` with ``publish``;
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
    """What the port has seen since it opened."""

    accepted: int = 0
    turned_away: int = 0  # over a limit of connections
    refused: int = 0  # by the desk or the feed
    broken: int = 0  # did not speak RTMP
    bytes_in: int = 0
