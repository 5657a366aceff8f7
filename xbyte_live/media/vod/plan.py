"""Adapter: plans how to package a media file: copy or encode, and where to cut."""

from dataclasses import dataclass
from pathlib import Path

from xbyte_live.media.formats.mpegts import CLOCK
from xbyte_live.media.formats.segment_muxer import SegmentMuxer
from xbyte_live.media.formats.tracks import (
    AudioFacts,
    VideoFacts,
    audio_obstacle,
    encoded_group,
    encoded_rate,
    video_obstacle,
)
from xbyte_live.media.vod.cut_points import CutPoints, find_cut_points
from xbyte_live.media.vod.cuts import even_length, plan_cuts
from xbyte_live.media.vod.probe import MediaFile
from xbyte_live.media.vod.stream_info import Head, Layout, audio_facts, layout_of, video_facts

_ENCODER_LEAD = CLOCK // 2  # what an encoder emits may be decoded this long before it is shown
_PRIMING_US = 50_000  # sound before the start that a decoder needs and drops
_SLACK_US = 40_000


@dataclass(frozen=True, slots=True)
class PackagingPlan:
    """How a media file will be packaged.

    An *obstacle* is the reason why a track cannot be copied and is encoded; ``None`` means copy.
    """

    layout: Layout
    cut_points: CutPoints
    video: VideoFacts | None
    audio: AudioFacts | None
    video_obstacle: str | None
    audio_obstacle: str | None
    target_us: int

    @property
    def obstacles(self) -> tuple[str, ...]:
        """The reasons why tracks must be encoded; empty when all are copied."""
        return tuple(why for why in (self.video_obstacle, self.audio_obstacle) if why)

    @property
    def rendition(self) -> str:
        """The name of the rendition: ``source``, or ``audio`` without video."""
        return "source" if self.video else "audio"

    @property
    def video_codec(self) -> str | None:
        """The video codec of the segments, ``None`` without video."""
        if self.video is None:
            return None
        return "h264" if self.video_obstacle else self.video.codec

    @property
    def lead(self) -> int:
        """The 90 kHz ticks all packets are delayed by, so that none is decoded before zero."""
        if not self.obstacles:
            return self.layout.lead
        return _ENCODER_LEAD if self.video_obstacle else max(_ENCODER_LEAD, self.layout.lead)

    def muxer(self) -> SegmentMuxer:
        """A muxer that cuts at the planned places."""
        if self.video is None:
            total_us = self.cut_points.end_us + _PRIMING_US
            return SegmentMuxer(every_us=even_length(total_us, self.target_us))
        if self.video_obstacle:
            rate = encoded_rate(self.video)
            group, groups = encoded_group(rate, self.target_us)
            period_us = round(group * groups / rate * 1_000_000)
            return SegmentMuxer(every_us=period_us, slack_us=round(500_000 / rate))
        keyframes = self.cut_points.keyframes_us
        cuts = plan_cuts(keyframes, self.cut_points.end_us, self.target_us)
        return SegmentMuxer(cuts_us=[cut - keyframes[0] for cut in cuts], slack_us=_SLACK_US)


def plan_for(path: Path, source: MediaFile, head: Head, target_us: int) -> PackagingPlan:
    """Plan the packaging of ``source``, open at ``path`` and read up to the end of ``head``."""
    layout = layout_of(source, head)
    video, audio = video_facts(source, head), audio_facts(source, head)
    no_video = video_obstacle(video) if video else None
    no_audio = audio_obstacle(audio) if audio else None
    if no_video or (no_audio and not video):
        found = CutPoints((), source.duration_us or 0, 0)
    else:
        found = find_cut_points(path, source, layout, target_us)
        if found.gap_us > 2 * target_us:
            apart = f"{found.gap_us / 1_000_000:.0f} s"
            if video:
                no_video = f"its keyframes are up to {apart} apart"
            else:
                no_audio = f"its sound stops for up to {apart}"
    return PackagingPlan(layout, found, video, audio, no_video, no_audio, target_us)
