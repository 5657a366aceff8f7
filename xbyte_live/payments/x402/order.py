"""Pure: orders of sessions, the names of the payments for them, and session tokens."""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass

_KEY = re.compile(r"[A-Za-z0-9._-]{0,64}")
_NAMED = re.compile(
    r"(?:/api/v1/sessions/(?P<slug>[a-z0-9-]{1,64})|/sessions/(?P<digest>[0-9a-f]{64}))"
    r"\?(?P<asked>(?:budget|minutes)=[0-9]{1,19}|)&ttl=(?P<ttl>[0-9]{1,10})"
    r"&key=(?P<key>[A-Za-z0-9._-]{0,64})"
)
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")

NAMES = ("/api/v1/sessions/", "/sessions/")  # what the resources of all orders begin with


@dataclass(frozen=True, slots=True)
class Order:
    """A session of an item, or more of the session whose token has that ``digest``.

    ``asked`` is how its size was named (``budget=500000``, ``minutes=10`` or nothing), ``ttl``
    how many seconds it lasts from now, ``key`` what tells two like orders of a payer apart.
    """

    asked: str
    ttl: int
    slug: str = ""
    digest: str = ""
    key: str = ""

    @property
    def resource(self) -> str:
        """The resource that names it; it holds no token."""
        what = f"/sessions/{self.digest}" if self.digest else f"/api/v1/sessions/{self.slug}"
        return f"{what}?{self.asked}&ttl={self.ttl}&key={self.key}"


@dataclass(frozen=True, slots=True)
class Buyer:
    """The only payer of a sale, with its scheme and network; ``payer`` is lower case."""

    scheme: str
    network: str
    payer: str


def read_order(resource: str) -> Order | None:
    """The order a resource names, if it names one."""
    match = _NAMED.fullmatch(resource)
    if match is None:
        return None
    return Order(
        asked=match["asked"],
        ttl=int(match["ttl"]),
        slug=match["slug"] or "",
        digest=match["digest"] or "",
        key=match["key"],
    )


def is_key(text: str) -> bool:
    """Whether a text may tell two like orders apart."""
    return _KEY.fullmatch(text) is not None


def charge_origin(charge_id: int) -> str:
    """The name of an ``exact`` charge as the origin of a session's money."""
    return f"x{charge_id}"


def channel_origin(channel: int, epoch: int, ceiling: int) -> str:
    """The name of a voucher's delivery as the origin of a session's money."""
    return f"c{channel}-{epoch}-{ceiling}"


def token_of(secret: bytes, origin: str) -> str:
    """The token of the session that was bought by a payment: 256 bits in URL-safe letters.

    It is worked out anew when the payment comes again, and kept nowhere.
    """
    digest = hmac.new(secret, f"session {origin}".encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def digest_of(token: str) -> str | None:
    """The SHA-256 of a token in hex, or ``None`` for a text that cannot be one."""
    if _TOKEN.fullmatch(token) is None:
        return None
    return hashlib.sha256(token.encode("ascii")).hexdigest()
