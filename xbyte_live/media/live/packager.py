"""Adapter: packages the frames of a live feed, one run packager after another."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import av
from av.packet import Packet

from xbyte_live.media.formats.mpegts import CLOCK
from xbyte_live.media.formats.timeline import Stamp
from xbyte_live.media.live.run_packager import RunPackager
from xbyte_live.media.live.runs import FrameAction, Runs, Unit
from xbyte_live.media.live.state import LiveState
from xbyte_live.media.live.tracks import AnyStream

_MAX_HEAD = 2000
_MAX_HEAD_BYTES = 32 << 20
_PREROLL = CLOCK // 10
_WAIT_MS = 1500


@dataclass(frozen=True, slots=True)
class Frame:
    """One coded frame with its times in 90 kHz ticks, and the Unix time it arrived."""

    unit: Unit
    data: "bytes | Packet[Any]"
    stamp: Stamp
    at_us: int

    @property
    def video(self) -> bool:
        """Whether it is a picture."""
        return self.unit.video

    @property
    def pts(self) -> int:
        """Its presentation time, or the best known time."""
        return next((t for t in self.stamp[:2] if t is not None), self.unit.time_ms * 90)


OpenTracks = Callable[[Sequence[Frame]], AbstractContextManager[Sequence[AnyStream]]]


class FeedPackager:
    """Packages every frame of a feed, in order; its events go to ``state.out``.

    ``open_tracks`` makes streams of the first frames of a run; it raises ``av.FFmpegError`` when
    they are damaged. A run starts once audio and video have arrived, or one of them alone for
    most of a segment. Raises ``MediaError`` for media that cannot be carried.
    """

    def __init__(self, state: LiveState, open_tracks: OpenTracks) -> None:
        self._state = state
        self._open_tracks = open_tracks
        self._runs = Runs()
        self._head: list[Frame] = []
        self._head_bytes = 0
        self._packager: RunPackager | None = None
        self._wait_ms = min(_WAIT_MS, state.options.segment_target_us * 3 // 4000)

    def take(self, frame: Frame) -> None:
        """Take the next frame."""
        action = self._runs.judge(frame.unit)
        if action is FrameAction.DROP:
            self._state.dropped += 1
            return
        if action is FrameAction.START:
            self._end_run()
        if self._packager is None:
            self._collect(frame)
        elif not self._package(self._packager, frame):
            self._end_run()
            self._runs.end()
            self.take(frame)

    def finish(self) -> None:
        """End the feed; its last segments go out."""
        self._end_run()
        self._runs.end()

    def abandon(self) -> None:
        """Release the muxer after a failure."""
        if self._packager:
            self._packager.abandon()

    def _collect(self, frame: Frame) -> None:
        self._head.append(frame)
        self._head_bytes += memoryview(frame.data).nbytes
        if self._head_is_complete():
            self._open()

    def _head_is_complete(self) -> bool:
        head, kinds = self._head, {frame.video for frame in self._head}
        if len(kinds) == 2 or len(head) >= _MAX_HEAD or self._head_bytes >= _MAX_HEAD_BYTES:
            return True
        wait = self._wait_ms
        if self._runs.waits_for_keyframe:
            wait = self._state.options.longest_segment_us // 1000
        return head[-1].unit.time_ms - head[0].unit.time_ms >= wait

    def _open(self) -> None:
        """Start a run with the collected frames."""
        head, self._head, self._head_bytes = self._head, [], 0
        self._runs.seal()
        first = next((frame for frame in head if frame.video), head[0])
        try:
            with self._open_tracks(head) as tracks:
                self._packager = RunPackager(
                    tracks, self._state, origin=first.pts, began_us=first.at_us
                )
        except av.FFmpegError:
            self._state.dropped += len(head)
            self._runs.end()
            self._state.run_ended(0)
            return
        earliest = (first.pts if first.stamp.dts is None else first.stamp.dts) - _PREROLL
        for number, frame in enumerate(head):
            if first.video and not frame.video and frame.pts < earliest:
                self._state.dropped += 1
            elif not self._package(self._packager, frame):
                self._end_run()
                self._runs.end()
                for later in head[number:]:
                    self.take(later)
                return

    def _package(self, packager: RunPackager, frame: Frame) -> bool:
        unit = frame.unit
        return packager.take(frame.data, frame.stamp, video=unit.video, key=unit.key)

    def _end_run(self) -> None:
        if self._head and self._packager is None:
            self._open()
        packager, self._packager = self._packager, None
        if packager:
            packager.finish()
