"""Pure: the events of an RTMP connection that a server acts on; media arrives as FLV tags."""

from dataclasses import dataclass, field

from xbyte_live.media.formats.flv import Tag


@dataclass(frozen=True, slots=True)
class Connected:
    """Handshake and ``connect`` are done."""


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """A client asks to publish: answer with ``accept_publish`` or ``refuse``.

    ``name`` and ``query`` hold the stream key and are never logged. ``query`` is the undecoded
    text behind ``?`` in the name, or else in the application; ``encoder`` and ``tc_url`` are the
    client's own words. ``address`` is its IP address, which the connection's server adds.
    """

    app: str
    name: str = field(repr=False)
    query: str = field(repr=False)
    encoder: str
    tc_url: str = field(repr=False)
    address: str = ""


@dataclass(frozen=True, slots=True)
class Unpublished:
    """The publisher ended its feed; it may publish again."""


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The client asked for something this server does not do: send the answer and hang up."""

    reason: str


Event = Connected | PublishRequest | Tag | Unpublished | Goodbye
