"""Adapter: packages a live feed from an open FFmpeg input container."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet

from xbyte_live.errors import MediaError
from xbyte_live.media.live.packager import FeedPackager, Frame
from xbyte_live.media.live.runs import Unit
from xbyte_live.media.live.state import LiveState
from xbyte_live.media.live.tracks import AnyStream
from xbyte_live.media.vod.stream_info import TrackClock

_TICKS = 90  # a millisecond


def package_container(container: InputContainer, state: LiveState) -> None:
    """Package its first video and audio stream until it ends or the parent stops it.

    Raises ``MediaError`` for media that cannot be carried, or that stops arriving.
    """
    tracks: list[AnyStream] = [*container.streams.video[:1], *container.streams.audio[:1]]
    if not tracks:
        raise MediaError("there is no video and no sound in it")

    @contextmanager
    def open_tracks(head: Sequence[Frame]) -> Iterator[Sequence[AnyStream]]:
        kinds = {frame.video for frame in head}
        yield [track for track in tracks if (track.type == "video") in kinds]

    feed = FeedPackager(state, open_tracks)
    clocks = {track.index: TrackClock(track) for track in tracks}
    try:
        for packet in container.demux(tracks):
            if not state.out.wanted():
                break
            if packet.size:
                _take(feed, clocks[packet.stream_index], packet, state)
    except av.FFmpegError as error:
        feed.finish()
        raise MediaError(f"the source broke off ({error.strerror})") from None
    except BaseException:
        feed.abandon()
        raise
    feed.finish()


def _take(feed: FeedPackager, clock: TrackClock, packet: "Packet[Any]", state: LiveState) -> None:
    stamp = clock.stamp(packet)
    at = stamp.pts if stamp.dts is None else stamp.dts
    if at is None:
        state.dropped += 1
        return
    video = packet.stream.type == "video"
    unit = Unit(video, at // _TICKS, packet.is_keyframe or not video, packet.stream_index)
    feed.take(Frame(unit, packet, stamp, state.now_us()))
