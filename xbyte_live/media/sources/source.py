"""Adapter: opens a pulled source: RTSP, RTMP, HLS, HTTP, or MPEG-TS over TCP or UDP.

FFmpeg may open connections for RTSP and RTMP only, with a short list of protocols. Any other
source is fetched here and handed to it as bytes, so that nothing inside a source can make it open
a file or another host.
"""

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import av
from av.container import InputContainer

from xbyte_live.errors import MediaError, SourceRefused
from xbyte_live.media.sources.http import HttpSource
from xbyte_live.media.sources.network import (
    Datagrams,
    addresses,
    ca_file,
    certificate_error,
    connect,
)
from xbyte_live.media.sources.url import SCHEMES, Source, Target, is_public, parse_url
from xbyte_live.media.vod.probe import MAX_PIXELS

_FILES = "mpegts,flv,mov,matroska,mp3,aac,ac3,eac3,flac,ogg,wav"
_HLS_FILES = "hls,mpegts,mov,mp3,aac,ac3,eac3"
_PROTOCOLS = {
    "rtmp": "rtmp,tcp", "rtmps": "rtmps,rtmp,tls,tcp", "rtsp": "rtsp,rtp,tcp",
    "rtsps": "rtsps,rtsp,rtp,tls,tcp",
}  # fmt: skip
_SECURE = frozenset({"rtmps", "rtsps"})
_BUFFER = 1 << 16
_DESCRIPTORS = 1024  # a child has far fewer


class Readable(Protocol):
    """A file for FFmpeg; ``failed`` says why it ended early, if it did."""

    failed: str | None

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; empty at the end."""

    def close(self) -> None:
        """Close it."""


@dataclass(frozen=True, slots=True)
class OpenSource:
    """An open source; ``hurries`` if it can be read faster than real time."""

    container: InputContainer
    hurries: bool
    file: Readable | None = None
    web: HttpSource | None = None

    def check(self) -> None:
        """Raise ``MediaError`` or ``SourceRefused`` if it ended before its end."""
        if self.web and self.web.refused:
            raise self.web.refused
        if self.file and self.file.failed:
            raise MediaError(f"the source ended: {self.file.failed}")


def check_source(url: str, schemes: Sequence[str], allow_private: bool) -> None:
    """Raise ``SourceRefused``, with a reason to show, unless this URL may be pulled.

    Resolves its host, which may take seconds. ``schemes`` are those the operator allows.
    """
    target = parse_url(url)
    if target.scheme not in SCHEMES.intersection(schemes):
        allowed = ", ".join(sorted(SCHEMES.intersection(schemes)))
        raise SourceRefused(f"{target.scheme} sources are not allowed, only {allowed or 'none'}")
    addresses(target, allow_private)


@contextmanager
def open_source(source: Source) -> Iterator[OpenSource]:
    """Connect to a source, checking its address again, and read what streams it has.

    Raises ``SourceRefused``, and ``MediaError`` when it does not answer or sends no media.
    """
    target = parse_url(source.url)
    opening = _open_stream if target.scheme in _PROTOCOLS else _open_file
    try:
        opened = opening(target, source)
    except av.FFmpegError as error:
        raise MediaError(f"the source cannot be opened ({error.strerror})") from None
    except OSError as error:
        reason = error.strerror or "it does not answer"
        raise MediaError(f"the source cannot be reached ({reason})") from None
    try:
        yield opened
    finally:
        opened.container.close()
        if opened.file:
            opened.file.close()


def _open_stream(target: Target, source: Source) -> OpenSource:
    """Open RTMP or RTSP, which FFmpeg connects to itself."""
    hosts = [""] if source.allow_private else addresses(target, False)
    if target.scheme in _SECURE:
        hosts = [""]  # the certificate proves the name, whatever the address
    before = _descriptors()
    failure: av.FFmpegError | None = None
    for host in hosts:
        try:
            container = _open(
                target.url(host), _stream_options(target, bool(host)), source, target.scheme
            )
        except av.FFmpegError as error:
            failure = error
            continue
        if not source.allow_private and not all(map(is_public, _connected_to(before))):
            container.close()
            raise SourceRefused("the source leads to a private or local address")
        return OpenSource(container, hurries=False)
    reason = None
    if target.scheme in _SECURE:  # FFmpeg does not report a bad certificate
        reason = certificate_error(target, source.allow_private, source.timeout_s)
    if reason:
        raise MediaError(f"the source's certificate is not to be trusted ({reason})")
    raise failure or MediaError("the source cannot be reached")


def _stream_options(target: Target, pinned: bool) -> dict[str, str]:
    options = {"protocol_whitelist": _PROTOCOLS[target.scheme]}
    if target.scheme in _SECURE:  # by default FFmpeg verifies no certificate
        options |= {"tls_verify": "1", "ca_file": ca_file()}
    if target.scheme.startswith("rtsp"):
        return options | {"rtsp_transport": "tcp"}
    if pinned:  # a server may choose by the host name
        path = target.rest.partition("?")[0].strip("/")
        app = "/".join(path.split("/")[:-1][:2])
        options["rtmp_tcurl"] = f"{target.scheme}://{target.authority}/{app}"
    return options | {"rtmp_live": "live"}


def _open_file(target: Target, source: Source) -> OpenSource:
    """Open any other source as bytes that are fetched for FFmpeg."""
    if target.scheme not in ("http", "https"):
        file: Readable = _SocketFile(target, source)
        return _opened(file, "mpegts", {}, source, hurries=target.scheme == "tcp")
    web = HttpSource(allow_private=source.allow_private, timeout=source.timeout_s)
    body = web.get(source.url)
    if not body.is_playlist:
        return _opened(body, None, {"format_whitelist": _FILES}, source, hurries=True)
    return _opened(body, "hls", _HLS, source, hurries=True, web=web)


_HLS = {
    "format_whitelist": _HLS_FILES,
    # FFmpeg would look for a connection of its own behind each file, and fail for good
    "http_persistent": "0",
    "http_multiple": "0",
    "extension_picky": "0",
}


def _opened(
    file: Readable,
    kind: str | None,
    options: dict[str, str],
    source: Source,
    *,
    hurries: bool,
    web: HttpSource | None = None,
) -> OpenSource:
    try:
        opening = {"protocol_whitelist": "none"} | options
        container = _open(file, opening, source, kind, web)
    except (av.FFmpegError, OSError, MediaError, SourceRefused) as error:
        file.close()
        if web and web.refused:
            raise web.refused from None
        if file.failed:
            raise MediaError(f"the source cannot be opened: {file.failed}") from None
        raise error
    return OpenSource(container, hurries, file, web)


def _open(
    file: Any,
    options: dict[str, str],
    source: Source,
    kind: str | None,
    web: HttpSource | None = None,
) -> InputContainer:
    kind = {"rtmp": "flv", "rtmps": "flv", "rtsps": "rtsp"}.get(kind or "", kind)

    def open_file(url: str, flags: int, options: dict[str, str]) -> Any:
        if web is None:
            raise SourceRefused("the source names another file, which is not opened")
        return web.get_hls_file(url, file.name)

    container: InputContainer = av.open(
        file,
        "r",
        format=kind,
        options={"max_pixels": str(MAX_PIXELS), "threads": "1"},
        container_options={"max_streams": "64"} | options,
        metadata_errors="replace",
        buffer_size=_BUFFER,
        timeout=(source.timeout_s, source.timeout_s * (1.5 if web else 1)),
        io_open=None if isinstance(file, str) else open_file,
    )
    return container


class _SocketFile:
    """MPEG-TS from a socket as a file for FFmpeg."""

    name = "source.ts"

    def __init__(self, target: Target, source: Source) -> None:
        self.failed: str | None = None
        self._socket: socket.socket | Datagrams
        if target.scheme == "udp":
            self._socket = Datagrams(target, source.allow_private, source.timeout_s)
        else:
            self._socket = connect(target, source.allow_private, source.timeout_s)

    def read(self, size: int) -> bytes:
        try:
            return b"" if self.failed else self._socket.recv(size)
        except TimeoutError:
            self.failed = "it sent nothing for too long"
        except OSError:
            self.failed = "the connection broke"
        return b""

    def close(self) -> None:
        self._socket.close()


def _descriptors() -> frozenset[int]:
    found = set()
    for descriptor in range(_DESCRIPTORS):
        with suppress(OSError):
            os.fstat(descriptor)
            found.add(descriptor)
    return frozenset(found)


def _connected_to(before: frozenset[int]) -> list[str]:
    """The remote addresses of sockets opened since then: a server may redirect FFmpeg."""
    found = []
    for descriptor in _descriptors() - before:
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as copy:
            if copy.family in (socket.AF_INET, socket.AF_INET6):
                found.append(str(copy.getpeername()[0]))
    return found
