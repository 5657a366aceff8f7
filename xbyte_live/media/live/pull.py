"""Adapter: opens a pulled source and packages it, no faster than real time."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard
from av.video.stream import VideoStream

from xbyte_live.errors import MediaError, SourceRefused
from xbyte_live.media.live.container_demuxer import package_container
from xbyte_live.media.live.interleave import Interleave
from xbyte_live.media.live.state import LiveState
from xbyte_live.media.live.tracks import AnyStream
from xbyte_live.media.sources.source import open_source
from xbyte_live.media.sources.url import Source

AHEAD_S = 1.0  # seconds a packet may come before it is due, for network jitter
_JUMP_S = 10.0


def pull(source: Source, state: LiveState) -> None:
    """Package a source until it ends or the parent stops it.

    Raises ``MediaError`` for one that may not be opened, does not answer or breaks off.
    """
    try:
        with open_source(source) as opened:
            chosen = choose(opened.container)
            reading = _Reading(opened.container, chosen, opened.hurries)
            package_container(cast(InputContainer, reading), state)
            opened.check()
    except SourceRefused as error:
        raise MediaError(str(error)) from None


class Throttle:
    """Delays the packets of a source that can be read faster than real time."""

    def __init__(self) -> None:
        self._zero: float | None = None
        self._last = 0.0

    def wait(self, due: float, now: float) -> float:
        """Seconds to wait before a packet that is due at ``due`` on the source's clock."""
        jumped = abs(due - self._last) > _JUMP_S
        self._last = due
        if self._zero is None or jumped or due < now - self._zero:
            self._zero = now - due  # the first packet, a new clock, or a late source
        return max(0.0, due - (now - self._zero) - AHEAD_S)


def choose(container: InputContainer) -> "ChosenStreams":
    """The best video stream and the audio of its variant; other streams are not fetched."""
    streams = container.streams
    video = max(streams.video, key=lambda s: (s.height, _bit_rate(s)), default=None)
    audio: AudioStream | None = None
    if streams.audio:
        same = [s for s in streams.audio if video and _bit_rate(s) == _bit_rate(video)]
        audio = (same or list(streams.audio))[0]
    for stream in streams:
        if stream not in (video, audio):
            stream.discard = Discard.all
    return ChosenStreams((video,) if video else (), (audio,) if audio else ())


@dataclass(frozen=True, slots=True)
class ChosenStreams:
    """The streams to package, at most one of each kind."""

    video: tuple[VideoStream, ...]
    audio: tuple[AudioStream, ...]


@dataclass(frozen=True, slots=True)
class _Reading:
    """The chosen streams of an input container; ``hurries`` as in ``OpenSource``."""

    container: InputContainer
    streams: ChosenStreams
    hurries: bool

    def demux(self, tracks: Sequence[AnyStream]) -> "Iterator[Packet[Any]]":
        packets = self.container.demux(*tracks)
        return _in_time(_in_order(packets, len(tracks))) if self.hurries else packets


def _in_order(packets: "Iterator[Packet[Any]]", tracks: int) -> "Iterator[Packet[Any]]":
    order: Interleave[Packet[Any]] = Interleave(tracks)
    try:
        for packet in packets:
            at = _time(packet)
            if at is not None:
                yield from order.take(packet.stream_index, at, packet.size, packet)
            elif packet.size:
                yield packet
    except av.FFmpegError:
        yield from order.rest()  # the packets before the failure are whole
        raise
    yield from order.rest()


def _in_time(packets: "Iterator[Packet[Any]]") -> "Iterator[Packet[Any]]":
    throttle = Throttle()
    for packet in packets:
        at = _time(packet)
        if at is not None:
            time.sleep(throttle.wait(at, time.monotonic()))
        yield packet


def _time(packet: "Packet[Any]") -> float | None:
    """The decoding time of a packet, in seconds of the source's clock."""
    at = packet.pts if packet.dts is None else packet.dts
    return None if at is None or not packet.time_base else float(at * packet.time_base)


def _bit_rate(stream: AnyStream) -> int:
    """The bit rate of the HLS variant a stream belongs to, 0 if unknown."""
    rate = stream.metadata.get("variant_bitrate", "")
    return int(rate) if rate.isdecimal() else 0
