"""Pure: what happens on an RTMP connection, as far as its server cares; media comes as tags."""

from dataclasses import dataclass, field

from xbyte_live.media.formats.flv import Tag


@dataclass(frozen=True, slots=True)
class Connected:
    """Handshake and ``connect`` are done."""


@dataclass(frozen=True, slots=True)
class PublishAsked:
    """The peer wants to publish: answer with ``accept_publish`` or ``refuse``.

    ``query`` is what follows ``?`` in the name or else in the application, undecoded.
    """

    app: str
    name: str = field(repr=False)
    query: str = field(repr=False)
    encoder: str
    tc_url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unpublished:
    """The publisher said that its broadcast is over; it may publish again."""


@dataclass(frozen=True, slots=True)
class Goodbye:
    """What the peer wants is not to be had here, and it has been told: send and hang up."""

    reason: str


Event = Connected | PublishAsked | Tag | Unpublished | Goodbye
