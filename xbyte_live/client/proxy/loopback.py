"""Adapter: a listening socket that only this machine can reach."""

import ipaddress
import socket

from xbyte_live.errors import ConfigError


def listen_on_loopback(port: int, host: str = "127.0.0.1") -> tuple[socket.socket, str]:
    """A socket of this machine alone, and its ``host:port``.

    Raises ``ConfigError`` for any address that others could reach, and for a port in use.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ConfigError(f"{host!r} is no address; the proxy listens on 127.0.0.1") from None
    if not address.is_loopback:
        raise ConfigError("the proxy spends your money, so it listens on this machine only")
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise ConfigError(
            f"port {port} on {host} cannot be used ({error.strerror}); choose another with --port"
        ) from None
    shown = f"[{host}]" if address.version == 6 else host
    return listener, f"{shown}:{listener.getsockname()[1]}"
