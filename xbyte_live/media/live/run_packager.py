"""Adapter: packages one run of a live feed, frame by frame, into MPEG-TS segments."""

import errno
import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.audio.stream import AudioStream
from av.packet import Packet
from av.video.stream import VideoStream

from xbyte_live.media.formats.codecs import with_parameter_sets
from xbyte_live.media.formats.mpegts import CLOCK, first_access_unit, starts_clean
from xbyte_live.media.formats.segment_muxer import TIME_BASE, SegmentMuxer
from xbyte_live.media.formats.timeline import Stamp, Timeline, micros
from xbyte_live.media.formats.tracks import usual_rate
from xbyte_live.media.live.cuts import Cut, SegmentCutter
from xbyte_live.media.live.messages import FeedSegment, FeedTrack
from xbyte_live.media.live.state import LiveState
from xbyte_live.media.live.tracks import AnyStream, codec_strings, usual_step

_LEAD = 2 * CLOCK  # what decoding may begin before the first keyframe is shown
_INTERLEAVE_US = 100_000
_OPEN_GROUPS = (
    "its keyframes need the pictures before them, so nobody can start to watch there: "
    "turn open GOP off in the encoder"
)


@dataclass(frozen=True, slots=True)
class _Span:
    """A segment whose end is decided and whose bytes are still in the muxer."""

    begins: int
    lasts: int
    keyframe: bool


class RunPackager:
    """Packages one run, whose tracks are fixed and whose clock is continuous.

    ``tracks`` are streams of an input container, at most one of each kind; it may be closed once
    this is made. ``origin`` is where on their clock (90 kHz) the first frame of the leading
    track is shown, ``began_us`` when it arrived. Raises ``MediaError`` when MPEG-TS cannot carry
    a track, with what the streamer should set instead.
    """

    def __init__(
        self, tracks: Sequence[AnyStream], state: LiveState, *, origin: int, began_us: int
    ) -> None:
        self._state = state
        self._video = next((t for t in tracks if isinstance(t, VideoStream)), None)
        audio = next((t for t in tracks if isinstance(t, AudioStream)), None)
        self._track = _TrackInfo(self._video, codec_strings(self._video, audio))
        self._leading = self._video is not None
        self._cutter = SegmentCutter(state.target, video=self._leading)
        every_us = 1 if self._leading else self._cutter.every_us
        self._muxer = SegmentMuxer(every_us=every_us, interleave_us=_INTERLEAVE_US)
        self._copies = {t.type == "video": self._muxer.copy_track(t) for t in tracks}
        self._timeline, self._origin = Timeline(origin), origin
        self._steps: dict[bool, int] = {}
        self._deltas: dict[bool, int] = {}
        self._last: dict[bool, int] = {}
        for video, track in self._copies.items():
            self._steps[video] = self._deltas[video] = round(usual_step(track) * CLOCK)
            self._timeline.add_track(int(video), first=(), step=self._steps[video])
        self._spans: deque[_Span] = deque()
        self._first: int | None = None
        self._end = self._frames = 0
        self._rate: Fraction | None = None
        self._keyframe: int | None = None
        self._interval: int | None = None
        self._announced = self._at_keyframe = False
        state.clock.begin(began_us)

    def take(self, data: "bytes | Packet[Any]", stamp: Stamp, *, video: bool, key: bool) -> bool:
        """Package one frame; return ``False`` if it does not fit this run, which must end."""
        pts, dts = self._timeline.place(int(video), stamp, shown=False)
        if dts < -_LEAD:
            self._state.dropped += 1
            return True
        known = self._last.get(video)
        if known is not None:
            self._deltas[video], delta = dts - known, self._deltas[video]
            self._steps[video] = min(delta, dts - known)  # a pause is no frame's length
            self._state.late += stamp.dts is not None and dts != stamp.dts - self._origin
        step, size = stamp.duration or self._steps[video], memoryview(data).nbytes
        starts = False
        if video == self._leading:
            before = self._cutter.start
            cut = self._cutter.leading(pts, dts, step, size, key=key)
            if cut is Cut.OVER:
                return False
            starts = self._note(before, pts, cut, key=key)
        elif self._cutter.other(pts, step, size) is Cut.OVER:
            return False
        self._last[video] = dts
        self._end = max(self._end, pts + step)
        packet = self._packet(data, video=video, starts=starts)
        packet.pts, packet.dts = pts + _LEAD, dts + _LEAD
        packet.duration, packet.time_base = step, TIME_BASE
        return self._mux(packet)

    def finish(self) -> None:
        """End the run; its last segment ends with its last frame.

        Raises ``MediaError`` when run after run is too short to be watched.
        """
        if self._cutter.start is not None:
            lasts = self._cutter.last(self._end)
            self._spans.append(_Span(self._cutter.start, lasts, self._at_keyframe))
            try:
                finished = self._muxer.close()
            except av.FFmpegError as error:
                _raise_if_no_memory(error)
                finished = []
            for segment in finished:
                self._send(segment)
        self._muxer.abandon()
        self._state.run_ended(0 if self._first is None else self._end - self._first)

    def abandon(self) -> None:
        """Release the muxer after a failure."""
        self._muxer.abandon()

    def _note(self, before: int | None, pts: int, cut: Cut, *, key: bool) -> bool:
        """Note the cut at a frame of the leading track; return whether a segment starts here."""
        assert self._cutter.start is not None
        if before is None:
            self._first = self._cutter.start
        elif cut is not Cut.NONE:
            self._spans.append(_Span(before, self._cutter.start - before, self._at_keyframe))
            if self._rate is None:
                lasted = self._cutter.start - before
                self._rate = usual_rate(Fraction(self._frames * CLOCK, lasted))
        starts = before is None or cut is not Cut.NONE
        if starts:
            self._at_keyframe = key
        self._frames += 1
        if self._leading and key:
            if self._keyframe is not None and pts > self._keyframe:
                self._interval = pts - self._keyframe
                self._state.keyframe_after(self._interval)
            self._keyframe = pts
        elif cut is Cut.POLICY:
            self._state.keyframe_after(pts - (self._keyframe or 0), missing=True)
        return starts

    def _packet(self, data: "bytes | Packet[Any]", *, video: bool, starts: bool) -> "Packet[Any]":
        if starts and video and self._track.codec == "h264":
            # an open group of pictures, or a cut by policy, begins without them
            whole = with_parameter_sets(self._track.extradata, memoryview(data))
            data = data if whole is None else whole
        packet: Packet[Any] = Packet(data) if isinstance(data, bytes) else data
        # the muxer cuts at every keyframe of video: those that are to be cut at
        packet.is_keyframe = starts or video != self._leading
        packet.stream = self._copies[video]
        return packet

    def _mux(self, packet: "Packet[Any]") -> bool:
        try:
            finished = self._muxer.mux(packet)
        except av.FFmpegError as error:
            _raise_if_no_memory(error)
            self._state.dropped += 1
            return False
        for segment in finished:
            self._send(segment)
        return True

    def _send(self, data: bytes) -> None:
        state = self._state
        if not self._spans:
            return
        span = self._spans.popleft()
        if not self._announced:
            self._announced = True
            target_s = state.target.declare(span.lasts)
            state.out.put(self._track.event(self._rate, target_s))
            new_run = state.segments > 0
        else:
            new_run = False
        clean = self._track.starts_clean(data)
        if span.keyframe and not clean:
            state.warn("open-groups", _OPEN_GROUPS)
        duration = micros(span.begins + span.lasts) - micros(span.begins)
        offset = micros(span.begins - (self._first or 0))
        state.segments += 1
        state.out.put(
            FeedSegment(
                data=data,
                sha256=hashlib.sha256(data).hexdigest(),
                duration_us=duration,
                program_date_time_us=state.clock.stamp(offset, duration),
                discontinuity=new_run,
                clean=clean,
                keyframe_interval_us=None if self._interval is None else micros(self._interval),
                late=state.late,
                dropped=state.dropped,
            )
        )


class _TrackInfo:
    """The tracks of a run as a playlist describes them."""

    def __init__(self, video: VideoStream | None, codecs: str) -> None:
        context = video.codec_context if video else None
        self._codecs = codecs
        self.codec = context.codec.canonical_name if context else ""
        self.extradata = (context.extradata or b"") if context else b""
        self._size = (context.width, context.height) if context else (None, None)

    def event(self, rate: Fraction | None, target_s: int) -> FeedTrack:
        width, height = self._size
        return FeedTrack(
            codecs=self._codecs,
            width=width,
            height=height,
            frame_rate=rate if self.codec else None,
            target_duration_s=target_s,
        )

    def starts_clean(self, segment: bytes) -> bool:
        if not self.codec:
            return True
        unit = first_access_unit(segment, video=True)
        return unit is not None and starts_clean(self.codec, unit.head)


def _raise_if_no_memory(error: av.FFmpegError) -> None:
    """Raise ``MemoryError`` for an FFmpeg error that is no fault of the packet."""
    if error.errno == errno.ENOMEM:
        raise MemoryError from error
