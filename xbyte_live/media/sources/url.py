"""Pure: a pulled source, its URL in parts, and which IP addresses are public."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from xbyte_live.errors import SourceRefused

PORTS = {"rtsp": 554, "rtsps": 322, "rtmp": 1935, "rtmps": 443, "http": 80, "https": 443}
SCHEMES = frozenset({*PORTS, "tcp", "udp"})

_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252})")
_USER = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:%-]*")
_REST = re.compile(r"[!-~]*")
_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Source:
    """A source to pull a feed from; it may send nothing for ``timeout_s`` seconds."""

    url: str
    allow_private: bool = False
    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Target:
    """A URL in parts: ``user`` is ``name:password`` as written, ``rest`` the path and query."""

    scheme: str
    user: str
    host: str
    port: int
    rest: str

    def url(self, host: str = "") -> str:
        """The URL, with another host if one is given."""
        user = f"{self.user}@" if self.user else ""
        return f"{self.scheme}://{user}{_bracketed(host or self.host)}:{self.port}{self.rest}"

    @property
    def authority(self) -> str:
        """Host and port as in an HTTP ``Host`` header."""
        host = _bracketed(self.host)
        return host if self.port == PORTS.get(self.scheme) else f"{host}:{self.port}"


def parse_url(url: str) -> Target:
    """Split a URL; raises ``SourceRefused`` for one that two programs could read differently."""
    try:
        parts = urlsplit(url)
        scheme, port = parts.scheme.lower(), parts.port
        host = parts.hostname or ""
    except ValueError:
        raise SourceRefused("the source is no URL that can be read") from None
    if scheme not in SCHEMES:
        raise SourceRefused(f"{scheme or 'that'} is no kind of URL to pull from")
    user, at, _ = parts.netloc.rpartition("@")
    rest = parts.path + (f"?{parts.query}" if parts.query else "")
    if scheme == "udp" and not host and not user:
        host = "0.0.0.0"  # noqa: S104  # every address of this machine, as FFmpeg reads it
    elif not _is_host(host) or not _USER.fullmatch(user) or (at and not user):
        raise SourceRefused("the source's URL names no host, or names it in an odd way")
    if not _REST.fullmatch(rest) or "\\" in rest:
        raise SourceRefused("the source's URL has characters that must be percent-encoded")
    port = PORTS.get(scheme) if port is None else port
    if not port:
        raise SourceRefused(f"the source's URL needs a port, such as {scheme}://host:5000")
    return Target(scheme, user, host, port, rest)


def is_public(address: str) -> bool:
    """Whether an IP address, and the IPv4 address it embeds, is one of the public internet.

    Private, loopback, link-local, shared (100.64/10), multicast and reserved ones are not, nor
    is an IPv6 address that stands for an IPv4 one that is not (mapped, NAT64, 6to4, Teredo).
    """
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped:
            return _is_public_v4(found.ipv4_mapped)
        if found in _NAT64:
            return _is_public_v4(IPv4Address(int(found) & 0xFFFFFFFF))
        if found.sixtofour and not _is_public_v4(found.sixtofour):
            return False
        return found in _UNICAST and found.is_global and found.teredo is None
    return _is_public_v4(found)


def _is_public_v4(address: IPv4Address) -> bool:
    return address.is_global and not address.is_multicast and not address.is_reserved


def _is_host(host: str) -> bool:
    if ":" in host:
        try:
            return ip_address(host).version == 6 and "%" not in host
        except ValueError:
            return False
    return bool(_HOST.fullmatch(host))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
