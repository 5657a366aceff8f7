"""Adapter: FFmpeg's ``segment`` muxer, writing MPEG-TS segments into memory.

Its files arrive through ``io_open``. ``individual_header_trailer=0`` keeps the continuity
counters unbroken from segment to segment. The other options are money, since a payer pays for
the container: program tables are needed only where a segment starts, and a large PES packet
wastes fewer stuffing bytes on sound.
"""

from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from typing import Any, TypeVar

import av
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from xbyte_live.errors import MediaError
from xbyte_live.media.formats.mpegts import CLOCK, PACKET

TIME_BASE = Fraction(1, CLOCK)

_BUFFER = 1 << 18
_MAX_SEGMENT = 1 << 30
_SERVICE_PID = 0x11
_OPTIONS = {
    "segment_format": "mpegts",
    "individual_header_trailer": "0",
    "max_delay": "1400000",
    "segment_format_options": (
        "pat_period=100:sdt_period=100:pes_payload_size=16384:flush_packets=0"
    ),
}

_Track = TypeVar("_Track", bound=Stream)


class _File:
    """One segment while it is being written."""

    def __init__(self, finished: list[bytes]) -> None:
        self._finished = finished
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> int:
        self._size += len(data)
        if self._size <= _MAX_SEGMENT:
            self._parts.append(data)
        return len(data)

    def close(self) -> None:
        if not self._size:
            return
        # a marker, since an exception here would pass through C and could be lost
        self._parts[:1] = map(_from_program_table, self._parts[:1])
        self._finished.append(b"".join(self._parts) if self._size <= _MAX_SEGMENT else b"")


def _from_program_table(head: bytes) -> bytes:
    """The head of a segment without the service description FFmpeg puts before the PAT.

    No HLS player reads it, and PAT and PMT should be the first packets (RFC 8216bis 3.1.2).
    """
    pid = int.from_bytes(head[1:3], "big") & 0x1FFF
    return head[PACKET:] if pid == _SERVICE_PID else head


class SegmentMuxer:
    """Takes packets and returns finished segments; it holds at most one unfinished segment.

    It cuts at the first keyframe at or after each time in ``cuts_us``, or, without cuts, each
    multiple of ``every_us``; ``slack_us`` before that is good enough. Times count from the first
    frame of the leading track: video, else audio. With ``interleave_us`` no track waits longer
    than that for one that sends nothing.
    """

    def __init__(
        self,
        *,
        cuts_us: Sequence[int] | None = None,
        every_us: int = 0,
        slack_us: int = 0,
        interleave_us: int = 0,
    ) -> None:
        self._finished: list[bytes] = []
        if cuts_us is None:
            cutting = {"segment_time": f"{every_us}us", "segment_time_delta": f"{slack_us}us"}
        elif cuts_us:
            times = ",".join(f"{max(cut - slack_us, 1)}us" for cut in cuts_us)
            cutting = {"segment_times": times}
        else:
            cutting = {"segment_time": str(10**6)}  # one segment, however long
        if interleave_us:
            cutting["max_interleave_delta"] = str(interleave_us)
        self._container: OutputContainer = av.open(
            "%d.ts",
            "w",
            format="segment",
            container_options=_OPTIONS | cutting,
            buffer_size=_BUFFER,
            io_open=self._open_file,
        )

    def copy_track(self, template: _Track) -> _Track:
        """Add a track whose packets are copied from a source."""
        return self._container.add_stream_from_template(template, opaque=True)

    def video_track(self, rate: Fraction, options: dict[str, str]) -> VideoStream:
        """Add an H.264 track with an encoder, which is still to be configured."""
        return self._container.add_stream("libx264", rate=rate, options=options)

    def audio_track(self, rate: int, layout: str, bit_rate: int) -> AudioStream:
        """Add an AAC track with an encoder; ``bit_rate`` in bits a second."""
        track = self._container.add_stream("aac", rate=rate)
        track.codec_context.layout = layout
        track.codec_context.bit_rate = bit_rate
        return track

    def mux(self, packet: "Packet[Any]") -> list[bytes]:
        """Take one packet of a track added before; return the segments it finished.

        Raises ``MediaError`` for a segment beyond 1 GiB, ``av.FFmpegError`` for a bad packet.
        """
        self._container.mux_one(packet)
        return self._take() if self._finished else []

    def close(self) -> list[bytes]:
        """Finish the last segments and return them."""
        self._container.close()
        return self._take()

    def abandon(self) -> None:
        """Close the muxer after a failure; never raises."""
        with suppress(av.FFmpegError, ValueError):
            self._container.close()
        self._finished.clear()

    def _open_file(self, url: str, flags: int, options: dict[str, str]) -> _File:
        return _File(self._finished)

    def _take(self) -> list[bytes]:
        taken = self._finished[:]
        self._finished.clear()
        if not all(taken):
            raise MediaError("one segment would exceed 1 GiB")
        return taken
