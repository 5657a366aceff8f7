"""Adapter: resolves a source's host and connects to its addresses, if they are allowed."""

import socket
import ssl

import certifi

from xbyte_live.errors import SourceRefused
from xbyte_live.media.sources.url import Target, is_public

BUFFER = 4 << 20  # bytes, of UDP that arrives while a segment is being written

_CHUNK = 1 << 16


def addresses(target: Target, allow_private: bool) -> list[str]:
    """Every IP address of the host, best first.

    Raises ``SourceRefused`` when there is none, or when one of them is private and that is not
    allowed: the next lookup could name that one first.
    """
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise SourceRefused("the source's host cannot be found") from None
    names = list(dict.fromkeys(str(address[0]) for *_, address in found))
    if not allow_private and not all(map(is_public, names)):
        raise SourceRefused("the source's host is at a private or local address")
    return names


def connect(target: Target, allow_private: bool, timeout: float) -> socket.socket:
    """Connect by TCP to a checked address; raises ``SourceRefused`` and ``OSError``."""
    failure: OSError | None = None
    for address in addresses(target, allow_private):
        try:
            return socket.create_connection((address, target.port), timeout)
        except OSError as error:
            failure = error
    raise failure or ConnectionError


def ca_file() -> str:
    """The path of the trusted certificates: the system's, or else those of ``certifi``.

    ``SSL_CERT_FILE`` names others, as for OpenSSL.
    """
    return ssl.get_default_verify_paths().cafile or certifi.where()


def certificate_error(target: Target, allow_private: bool, timeout: float) -> str | None:
    """Connect and verify a server's certificate; why it is refused, or ``None``.

    Raises ``SourceRefused``.
    """
    context = ssl.create_default_context(cafile=ca_file())
    try:
        with (
            connect(target, allow_private, timeout) as sock,
            context.wrap_socket(sock, server_hostname=target.host),
        ):
            return None
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except OSError:
        return None


class Datagrams:
    """A UDP port of this machine, or a multicast group, as a stream of bytes."""

    def __init__(self, target: Target, allow_private: bool, timeout: float) -> None:
        (address, *_) = addresses(target, allow_private)
        family, _, _, _, where = socket.getaddrinfo(address, target.port, type=socket.SOCK_DGRAM)[0]
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            self._socket.bind(where)
            self._join(family, address)
        except OSError:
            self._socket.close()
            raise
        self._socket.settimeout(timeout)
        self._left = b""

    def recv(self, size: int) -> bytes:
        """Wait for bytes and return up to ``size`` of them; raises ``TimeoutError``."""
        while not self._left:
            self._left = self._socket.recv(_CHUNK)
        taken, self._left = self._left[:size], self._left[size:]
        return taken

    def close(self) -> None:
        """Close the port."""
        self._socket.close()

    def _join(self, family: socket.AddressFamily, address: str) -> None:
        packed = socket.inet_pton(family, address)
        if family == socket.AF_INET and 224 <= packed[0] < 240:
            group = packed + bytes(4)
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        elif family == socket.AF_INET6 and packed[0] == 0xFF:
            group = packed + bytes(4)
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
