"""Adapter: fetches HTTP sources for FFmpeg, which would follow a redirect or a playlist anywhere.

Every address is checked when it is connected to, those of redirects and playlists included.
"""

import base64
import http.client
import socket
import ssl
import time
from urllib.parse import quote, unquote, urljoin

from xbyte_live.errors import MediaError, SourceRefused
from xbyte_live.media.sources.network import connect
from xbyte_live.media.sources.url import Target, parse_url

_MAX_REDIRECTS = 5
_MAX_HLS_FILE = 64 << 20
_HLS_FILE_S = 60.0
_SAFE = "%/:=&?~#+!$,;'@()*[]-._"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class HttpResponse:
    """The body of a response as a file for FFmpeg; a failure ends it and is kept in ``failed``.

    An exception would pass through FFmpeg, which loses its reason.
    """

    def __init__(
        self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse, url: str
    ) -> None:
        self._connection, self._response = connection, response
        self._ahead = b""
        self._left: int | None = None
        self._until: float | None = None
        self.name = url
        self.failed: str | None = None

    def bound(self, size: int, seconds: float) -> "HttpResponse":
        """Limit its size in bytes and its duration in seconds."""
        self._left, self._until = size, time.monotonic() + seconds
        return self

    def peek(self, size: int) -> bytes:
        """The first bytes, which stay to be read."""
        while len(self._ahead) < size and (data := self._read(size)):
            self._ahead += data
        return self._ahead[:size]

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes as soon as there are some; empty at the end."""
        if self._ahead:
            taken, self._ahead = self._ahead[:size], self._ahead[size:]
            return taken
        return self._read(size)

    def close(self) -> None:
        """Close the connection."""
        self._response.close()
        self._connection.close()

    @property
    def is_playlist(self) -> bool:
        """Whether it is an HLS playlist."""
        return self.peek(10).removeprefix(b"\xef\xbb\xbf").startswith(b"#EXTM3U")

    def _read(self, size: int) -> bytes:
        if self.failed:
            return b""
        try:
            data = self._response.read1(size)
        except (OSError, http.client.HTTPException) as error:
            slow = isinstance(error, TimeoutError)
            self.failed = "it sent nothing for too long" if slow else "the connection broke"
            return b""
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                self.failed = "it is too large"
        if self._until is not None and time.monotonic() > self._until:
            self.failed = "it came too slowly"
        return b"" if self.failed else data


class HttpSource:
    """Fetches the URLs of one source; a server may be silent for ``timeout`` seconds."""

    def __init__(self, *, allow_private: bool, timeout: float) -> None:
        self._allow_private = allow_private
        self._timeout = timeout
        self._tls: ssl.SSLContext | None = None
        self.refused: SourceRefused | None = None

    def get(self, url: str, *, base: str = "") -> HttpResponse:
        """Get a URL found at ``base``, following redirects, but not from https to http.

        Raises ``SourceRefused`` and ``MediaError``.
        """
        for _ in range(_MAX_REDIRECTS + 1):
            target = parse_url(quote(url, _SAFE))
            if target.scheme not in ("http", "https"):
                raise SourceRefused(f"the source names a {target.scheme} URL, which is not opened")
            if base.startswith("https:") and target.scheme != "https":
                raise SourceRefused("the source leads from https to http")
            try:
                body = self._request(target)
            except (OSError, http.client.HTTPException) as error:
                raise MediaError(f"the source cannot be reached ({_reason(error)})") from None
            if isinstance(body, HttpResponse):
                return body
            url, base = _joined(target.url(), body), target.url()
        raise MediaError("the source redirects again and again")

    def get_hls_file(self, url: str, base: str) -> "HttpResponse | EmptyFile":
        """Get a playlist or segment of an HLS source, limited in size and time.

        A missing one is an empty file, so that FFmpeg goes on with the next. Raises
        ``SourceRefused`` and keeps it in ``refused``, since FFmpeg may swallow it.
        """
        try:
            return self.get(url, base=base).bound(_MAX_HLS_FILE, _HLS_FILE_S)
        except SourceRefused as error:
            self.refused = error
            raise
        except MediaError:
            return EmptyFile()

    def _request(self, target: Target) -> HttpResponse | str:
        """Send one request; the response, or the location it redirects to."""
        sock = connect(target, self._allow_private, self._timeout)
        connection = http.client.HTTPConnection(target.host, target.port)
        try:
            connection.sock = (
                self._wrap_tls(sock, target.host) if target.scheme == "https" else sock
            )
            connection.request("GET", target.rest or "/", headers=_headers(target))
            response = connection.getresponse()
            location = response.headers.get("location", "")
            if response.status in _REDIRECTS and location:
                connection.close()
                return str(location)
            if response.status != 200:
                raise MediaError(f"the source answered with status {response.status}")
        except BaseException:
            connection.close()
            sock.close()
            raise
        return HttpResponse(connection, response, target.url())

    def _wrap_tls(self, sock: socket.socket, host: str) -> ssl.SSLSocket:
        self._tls = self._tls or ssl.create_default_context()
        return self._tls.wrap_socket(sock, server_hostname=host)


class EmptyFile:
    """An empty file."""

    def read(self, size: int) -> bytes:
        """No bytes."""
        return b""


def _joined(base: str, location: str) -> str:
    try:
        return urljoin(base, location)
    except ValueError:
        raise SourceRefused("the source redirects to an invalid URL") from None


def _headers(target: Target) -> dict[str, str]:
    headers = {
        "Host": target.authority,
        "User-Agent": "xbyte-live",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    if target.user:
        name = base64.b64encode(unquote(target.user).encode()).decode()
        headers["Authorization"] = f"Basic {name}"
    return headers


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer"
    return getattr(error, "strerror", None) or type(error).__name__
