"""Adapter: packages a media file as MPEG-TS segments of one rendition (RFC 8216bis 3.1.2)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.error import InvalidDataError
from av.packet import Packet
from av.video.stream import VideoStream

from xbyte_live.errors import MediaError, TranscodeRequired
from xbyte_live.media.formats.codecs import (
    audio_codec_string,
    video_codec_string,
    with_parameter_sets,
)
from xbyte_live.media.formats.segment_muxer import TIME_BASE
from xbyte_live.media.formats.timeline import from_ticks, micros
from xbyte_live.media.formats.tracks import encoded_group, encoded_rate
from xbyte_live.media.poster import jpeg
from xbyte_live.media.vod.cut_points import refuse_truncated
from xbyte_live.media.vod.plan import PackagingPlan, plan_for
from xbyte_live.media.vod.probe import MediaFile
from xbyte_live.media.vod.rendition import Track, WrittenSegment, rendition_of, segments_of
from xbyte_live.media.vod.segment_writer import SegmentWriter
from xbyte_live.media.vod.stream_info import TrackClock, is_surplus, read_head
from xbyte_live.media.vod.transcode import AudioEncoder, VideoEncoder
from xbyte_live.models import Rendition

Sink = Callable[[str, int, bytes], None]
Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageOptions:
    """Segments last about ``segment_target_us``; ``transcode`` allows to re-encode where needed."""

    segment_target_us: int = 6_000_000
    transcode: bool = True


@dataclass(frozen=True, slots=True)
class Packaged:
    """A packaged title; ``msn`` of its segments counts from 0.

    ``poster`` is a JPEG, ``name`` the title in the file's tags, ``notes`` are sentences for the
    person who packages it.
    """

    renditions: tuple[Rendition, ...]
    duration_us: int
    poster: bytes | None
    name: str | None
    transcoded: bool
    notes: tuple[str, ...]


def package(
    source: Path,
    sink: Sink,
    options: PackageOptions | None = None,
    progress: Progress = lambda done: None,
) -> Packaged:
    """Package a file; each finished segment goes to ``sink(rendition, index, bytes)`` in order.

    ``sink`` is called from one other thread, ``progress`` (0 to 1) from this one; what they
    raise ends the packaging and reaches the caller. At most five segments are held in memory.
    Raises ``MediaError`` for a file that cannot be packaged, ``TranscodeRequired`` when that
    needs re-encoding and ``options.transcode`` is false; the segments given to ``sink`` must then
    be deleted. Both are one sentence that begins with the file's name.
    """
    try:
        return _package(source, sink, options or PackageOptions(), progress)
    except MediaError as error:
        shown = "".join(c if c.isprintable() else "?" for c in source.name)[:120]
        raise type(error)(f"{shown}: {error}") from None


def _package(path: Path, sink: Sink, options: PackageOptions, progress: Progress) -> Packaged:
    with MediaFile(path) as source:
        head = read_head(source)
        plan = plan_for(path, source, head, options.segment_target_us)
        if not plan.obstacles:
            packets = chain(head.packets, source.packets())
            return _Packaging(source, plan, sink, progress).run(packets)
    if not options.transcode:
        why = " and ".join(plan.obstacles)
        raise TranscodeRequired(f"it must be re-encoded, which was not allowed: {why}")
    with MediaFile(path, threads=0) as source:
        for stream in source.chosen:
            if stream.index not in plan.layout.first:
                source.drop(stream)
        return _Packaging(source, plan, sink, progress).run(source.packets())


class _Packaging:
    """One pass over a media file, by its plan."""

    def __init__(
        self, source: MediaFile, plan: PackagingPlan, sink: Sink, progress: Progress
    ) -> None:
        self._source, self._plan, self._progress = source, plan, progress
        self._timeline = plan.layout.timeline()
        self._clocks = {stream.index: TrackClock(stream) for stream in source.chosen}
        self._leading = source.chosen[0].index
        self._start: int | None = None
        self._lead = plan.lead
        self._last: dict[int, Packet[Any]] = {}
        self._expected = max(plan.cut_points.end_us * 9 // 100, 1)
        self._report_at = 0
        self._muxed = self._refused = 0
        self._muxer = plan.muxer()
        self._h264: int | None = None
        self._untimed = source.video.index if source.video and source.untimed else None
        self._copies: dict[int, VideoStream | AudioStream] = {}
        self._video: VideoEncoder | None = None
        self._audio: AudioEncoder | None = None
        self._writer = SegmentWriter(
            lambda index, segment: sink(plan.rendition, index, segment),
            video_codec=plan.video_codec,
            expected_us=plan.cut_points.end_us,
        )

    def run(self, packets: "Iterable[Packet[Any]]") -> Packaged:
        """Package the whole file; its thread ends whatever happens."""
        try:
            self._add_tracks()
            for packet in packets:
                self._mux(self._feed(packet))
            self._finish()
            written = self._writer.finish()
        except av.FFmpegError:
            raise MediaError("it is damaged") from None
        finally:
            self._muxer.abandon()
            self._writer.abandon()
        return self._packaged(written)

    def _add_tracks(self) -> None:
        plan, video, audio = self._plan, self._source.video, self._source.audio
        if video and plan.video and plan.video_obstacle:
            group, _ = encoded_group(encoded_rate(plan.video), plan.target_us)
            self._video = VideoEncoder(video, plan.video, self._muxer, group, plan.lead)
        elif video:
            self._copies[video.index] = self._muxer.copy_track(video)
            self._h264 = video.index if plan.video_codec == "h264" else None
        if audio and plan.audio and plan.audio_obstacle:
            self._audio = AudioEncoder(audio, plan.audio, self._muxer, plan.lead)
        elif audio:
            self._copies[audio.index] = self._muxer.copy_track(audio)

    def _feed(self, packet: "Packet[Any]") -> "list[Packet[Any]]":
        """Place a packet on the timeline; return the packets to mux for it."""
        index = packet.stream_index
        stamp = self._clocks[index].stamp(packet)
        pts, dts = self._timeline.place(index, stamp, shown=not packet.is_discard)
        if pts < 0 and is_surplus(packet, pts):
            return []
        if pts >= self._report_at:
            self._report(pts)
        self._last[index] = packet
        copy = self._copies.get(index)
        if copy is not None:
            if index == self._h264 and packet.is_keyframe:
                packet = self._self_contained(packet)
            packet.pts, packet.dts = pts + self._lead, dts + self._lead
            packet.duration, packet.time_base = stamp.duration, TIME_BASE
            packet.stream = copy
            return [packet]
        encoder = self._video if packet.stream is self._source.video else self._audio
        assert encoder is not None
        base = packet.time_base
        packet.dts = from_ticks(dts, base)
        timed = index != self._untimed and packet.pts is not None
        packet.pts = from_ticks(pts, base) if timed else None
        return encoder.feed(packet)

    def _self_contained(self, packet: "Packet[Any]") -> "Packet[Any]":
        assert self._plan.video is not None
        data = with_parameter_sets(self._plan.video.extradata, memoryview(packet))
        if data is None:
            return packet
        whole: Packet[Any] = Packet(data)
        whole.is_keyframe = True
        return whole

    def _finish(self) -> None:
        for index, packet in self._last.items():
            self._timeline.trim(index, self._clocks[index].skipped(packet)[1])
        refuse_truncated(self._source, micros(self._timeline.origin + self._timeline.end))
        if self._refused * 20 > self._muxed:
            raise MediaError("it is damaged")
        if self._video:
            self._mux(self._video.finish(self._timeline.end))
        if self._audio:
            self._mux(self._audio.finish())
        for segment in self._muxer.close():
            self._writer.put(segment)

    def _mux(self, packets: "Iterable[Packet[Any]]") -> None:
        for packet in packets:
            self._muxed += 1
            try:
                finished = self._muxer.mux(packet)
            except InvalidDataError:
                self._refused += 1
                continue
            if self._start is None and packet.stream.type == self._source.chosen[0].type:
                self._start = (packet.pts or 0) - self._lead
            for segment in finished:
                self._writer.put(segment)

    def _report(self, pts: int) -> None:
        self._progress(min(max(pts, 0) / self._expected, 0.99))
        self._report_at = pts + self._expected // 100

    def _packaged(self, written: list[WrittenSegment]) -> Packaged:
        plan = self._plan
        segments = segments_of(written, start=self._start or 0, end=self._timeline.end)
        independent = all(segment.clean for segment in written)
        rendition = rendition_of(self._track(), segments, independent=independent)
        self._progress(1.0)
        return Packaged(
            renditions=(rendition,),
            duration_us=micros(self._timeline.end),
            poster=self._poster(),
            name=self._source.title,
            transcoded=bool(plan.obstacles),
            notes=self._notes(),
        )

    def _notes(self) -> tuple[str, ...]:
        notes = [f"re-encoded, because {why}" for why in self._plan.obstacles]
        if self._refused:
            notes.append(f"damaged packets left out: {self._refused}")
        return tuple(notes)

    def _track(self) -> Track:
        plan, codecs = self._plan, []
        width, height, rate = None, None, None
        if self._video:
            encoded = self._video.track.codec_context.extradata or b""
            codecs.append(video_codec_string("h264", encoded))
            width, height, rate = self._video.width, self._video.height, self._video.rate
        elif plan.video:
            codecs.append(video_codec_string(plan.video.codec, plan.video.extradata))
            width, height, rate = plan.video.width, plan.video.height, plan.video.rate
        if self._audio:
            codecs.append("mp4a.40.2")
        elif plan.audio:
            facts = plan.audio
            codecs.append(audio_codec_string(facts.codec, facts.extradata, facts.profile))
        return Track(plan.rendition, ",".join(codecs), width, height, rate)

    def _poster(self) -> bytes | None:
        if self._plan.video:
            return self._writer.poster()
        return jpeg(self._source.cover) if self._source.cover else None
