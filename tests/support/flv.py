"""FLV tags of real media, ways to damage them, and a player's view of what became of them."""

import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import av

from tests.support.media import RECIPES, Recipe
from xbyte_live.media.formats.flv import (
    VIDEO,
    Tag,
    TagReader,
    describe,
    encode_tag,
    file_header,
)
from xbyte_live.media.live.flv_demuxer import FlvDemuxer
from xbyte_live.media.live.messages import (
    FeedEvent,
    FeedOptions,
    FeedSegment,
    FeedTrack,
    FeedWarning,
)
from xbyte_live.media.live.state import LiveState

NOON_US = 1_800_000_000_000_000
_NAMED: dict[str, Recipe] = {}


def read_tags(data: bytes) -> list[Tag]:
    """Every tag of an FLV file."""
    reader = TagReader()
    reader.feed(data)
    return list(iter(reader.next_tag, None))


def encode(tags: Iterable[Tag]) -> bytes:
    """An FLV file of the tags."""
    return file_header(audio=True, video=True) + b"".join(map(encode_tag, tags))


def tags_of(recipe: Recipe | str = "flv") -> list[Tag]:
    """The tags of a recipe made as FLV; encoded once a process."""
    name = recipe if isinstance(recipe, str) else repr(recipe)
    _NAMED[name] = RECIPES[recipe] if isinstance(recipe, str) else recipe
    return list(_made(name))


@cache
def _made(name: str) -> tuple[Tag, ...]:
    recipe = replace(_NAMED[name], suffix=".flv", container="flv")
    with tempfile.TemporaryDirectory() as folder:
        data = recipe.make(Path(folder) / "made.flv").read_bytes()
    return tuple(read_tags(data))


def shifted(tags: Iterable[Tag], ms: int) -> list[Tag]:
    """The tags, later."""
    return [replace(tag, timestamp=tag.timestamp + ms) for tag in tags]


def without(tags: Iterable[Tag], kind: int) -> list[Tag]:
    """The tags of the other kinds."""
    return [tag for tag in tags if tag.kind != kind]


def is_frame(tag: Tag) -> bool:
    """Whether it carries coded media."""
    return describe(tag).is_frame


def is_key(tag: Tag) -> bool:
    """Whether it is a keyframe of video."""
    return tag.kind == VIDEO and describe(tag).is_keyframe and is_frame(tag)


def length_ms(tags: Sequence[Tag]) -> int:
    """From the first frame's timestamp to the last one's."""
    times = [tag.timestamp for tag in tags if is_frame(tag)]
    return max(times) - min(times)


@dataclass
class Fed:
    """Everything a feed handed out."""

    events: list[FeedEvent] = field(default_factory=list)

    def put(self, event: FeedEvent) -> None:
        self.events.append(event)

    def wanted(self) -> bool:
        return True

    @property
    def segments(self) -> list[FeedSegment]:
        return [event for event in self.events if isinstance(event, FeedSegment)]

    @property
    def tracks(self) -> list[FeedTrack]:
        return [event for event in self.events if isinstance(event, FeedTrack)]

    @property
    def warnings(self) -> list[FeedWarning]:
        return [event for event in self.events if isinstance(event, FeedWarning)]

    @property
    def seconds(self) -> float:
        return sum(segment.duration_us for segment in self.segments) / 1e6

    @property
    def runs(self) -> list[list[FeedSegment]]:
        """The segments between discontinuities."""
        runs: list[list[FeedSegment]] = []
        for segment in self.segments:
            if segment.discontinuity or not runs:
                runs.append([])
            runs[-1].append(segment)
        return runs


def package(
    tags: Iterable[Tag], options: FeedOptions | None = None, *, start_us: int = NOON_US
) -> Fed:
    """Package tags in this process, on a wall clock that goes as their timestamps do."""
    fed, now = Fed(), [start_us]
    feed = FlvDemuxer(LiveState(options or FeedOptions(), fed, lambda: now[0]))
    last: int | None = None
    try:
        for tag in tags:
            if last is not None and 0 < tag.timestamp - last < 5000:
                now[0] += (tag.timestamp - last) * 1000
            last = tag.timestamp
            feed.take(tag)
        feed.finish()
    finally:
        feed.abandon()
    return fed


@dataclass(frozen=True, slots=True)
class Played:
    """What a player shows of one run, in seconds; gaps are between neighbouring frames."""

    video: tuple[float, ...]
    audio: tuple[float, ...]
    start: float
    end: float

    @property
    def length(self) -> float:
        return self.end - self.start

    @staticmethod
    def gap(times: Sequence[float]) -> float:
        return max((b - a for a, b in pairwise(times)), default=0.0)


def play(segments: Sequence[FeedSegment]) -> Played:
    """Decode the segments of one run in a row; asserts that presentation times rise."""
    data = b"".join(segment.data for segment in segments)
    times: dict[str, list[float]] = {"video": [], "audio": []}
    ends: list[float] = []
    with av.open(io.BytesIO(data), format="mpegts") as container:
        streams = [*container.streams.video, *container.streams.audio]
        for packet in container.demux(streams):
            for frame in packet.decode():
                assert frame.time is not None
                times[packet.stream.type].append(frame.time)
                if isinstance(frame, av.AudioFrame):
                    ends.append(frame.time + frame.samples / frame.sample_rate)
    video, audio = times["video"], times["audio"]
    assert video == sorted(set(video))
    assert audio == sorted(set(audio))
    if len(video) > 1:
        ends.append(video[-1] + video[-1] - video[-2])
    return Played(tuple(video), tuple(audio), (video or audio)[0], max(ends))


def check(fed: Fed) -> list[Played]:
    """Hold a feed to everything that is true of any; how each of its runs plays.

    Program tables first, unbroken continuity counters, EXTINF that adds up and stays below the
    target duration, a media clock that does not go back, and bytes that are what they say.
    """
    assert fed.segments
    assert not fed.segments[0].discontinuity
    assert len(fed.tracks) == len(fed.runs)
    targets = {track.target_duration_s for track in fed.tracks}
    assert len(targets) == 1
    for segment in fed.segments:
        assert pids(segment.data)[:2] == [0, 0x1000]
        assert int(segment.duration_us / 1e6 + 0.5) <= min(targets)
        assert segment.duration_us > 0
    at = 0
    for segment in fed.segments:
        assert segment.program_date_time_us >= at
        at = segment.program_date_time_us + segment.duration_us
    played = []
    for run in fed.runs:
        assert_unbroken(b"".join(segment.data for segment in run))
        shown = play(run)
        assert abs(sum(segment.duration_us for segment in run) / 1e6 - shown.length) < 0.06
        played.append(shown)
    return played


def pids(data: bytes) -> list[int]:
    """The packet ids in a segment, in order."""
    assert len(data) % 188 == 0
    return [(data[at + 1] & 0x1F) << 8 | data[at + 2] for at in range(0, len(data), 188)]


def assert_unbroken(data: bytes) -> None:
    """Continuity counters go on from packet to packet."""
    last: dict[int, int] = {}
    for at, pid in zip(range(0, len(data), 188), pids(data), strict=True):
        if data[at + 3] & 0x10:
            counter = data[at + 3] & 0xF
            assert last.get(pid, counter - 1) == (counter - 1 if counter else 15) or (
                pid not in last
            )
            last[pid] = counter


def interleaved(*feeds: Iterable[Tag]) -> Iterator[Tag]:
    """Several feeds as one, by timestamp."""
    yield from sorted((tag for feed in feeds for tag in feed), key=lambda tag: tag.timestamp)
