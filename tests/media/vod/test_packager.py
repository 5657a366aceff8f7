"""Every kind of file through the packager; the segments are checked packet by packet."""

import hashlib
import io
import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest

from tests.support.media import HEIGHT, RECIPES, WIDTH, Recipe
from xbyte_live.errors import MediaError, TranscodeRequired
from xbyte_live.media.vod.packager import Packaged, PackageOptions, package

PACKET, CLOCK = 188, 90_000
PAT, PMT, NULL = 0, 0x1000, 0x1FFF
ROUNDING = CLOCK // 500  # containers that count milliseconds are up to one off at both ends
TRANSCODED = {"webm", "flac", "ogg", "long-group"}
CODECS = {
    "mp4": r"avc1\.4D40[0-9A-F]{2},mp4a\.40\.2",
    "hevc": r"hvc1\.1\.6\.[LH]\d+(\.[0-9A-F]+)*,mp4a\.40\.2",
    "ac3": r"avc1\.[0-9A-F]{6},ac-3",
    "silent": r"avc1\.[0-9A-F]{6}",
    "mp3": r"mp4a\.40\.34",
    "m4a": r"mp4a\.40\.2",
    "flac": r"mp4a\.40\.2",
    "ogg": r"mp4a\.40\.2",
}


@dataclass
class Track:
    """The packets of one stream: 90 kHz times, bytes, and whether each is a keyframe."""

    codec: str
    pts: list[int] = field(default_factory=list)
    dts: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    keyframes: list[bool] = field(default_factory=list)


def demuxed(data: bytes | Path, form: str | None = None) -> dict[str, Track]:
    """The tracks in some media by their type."""
    tracks: dict[str, Track] = {}
    with av.open(str(data) if isinstance(data, Path) else io.BytesIO(data), format=form) as media:
        for packet in media.demux():
            if not packet.size:
                continue
            name = packet.stream.codec_context.codec.canonical_name
            track = tracks.setdefault(packet.stream.type, Track(name))
            scale = packet.time_base * CLOCK
            track.pts.append(round((packet.pts or 0) * scale))
            track.dts.append(round((packet.dts if packet.dts is not None else 0) * scale))
            track.sizes.append(packet.size)
            track.keyframes.append(packet.is_keyframe)
    return tracks


def decoded(data: bytes | Path, form: str | None = None) -> tuple[int, float]:
    """How many pictures there are, and how many seconds of sound, when decoded to the end."""
    pictures, seconds = 0, 0.0
    with av.open(str(data) if isinstance(data, Path) else io.BytesIO(data), format=form) as media:
        for frame in media.decode():
            if isinstance(frame, av.VideoFrame):
                pictures += 1
            elif isinstance(frame, av.AudioFrame):
                seconds += frame.samples / frame.sample_rate
    return pictures, seconds


def ts_packets(data: bytes) -> list[tuple[int, bool, int]]:
    """(PID, whether it carries a payload, continuity counter) of each packet."""
    assert len(data) % PACKET == 0
    assert set(data[::PACKET]) == {0x47}
    return [
        ((data[at + 1] & 0x1F) << 8 | data[at + 2], bool(data[at + 3] & 0x10), data[at + 3] & 0xF)
        for at in range(0, len(data), PACKET)
    ]


@dataclass
class Made:
    """A source, and what the packager made of it."""

    recipe: Recipe
    path: Path
    packaged: Packaged
    segments: list[bytes]
    progress: list[float]

    @property
    def whole(self) -> bytes:
        return b"".join(self.segments)

    @property
    def frame(self) -> float:
        """The longest a picture lasts, in ticks."""
        if self.recipe.video is None:
            return 0
        if self.recipe.video.times:
            return 0.06 * CLOCK
        return CLOCK / float(self.recipe.video.rate)


Make = Callable[[str], Made]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A file of a kind, made when first asked for, by whichever worker is first."""
    own = tmp_path_factory.mktemp("media")
    shared = own.parents["PYTEST_XDIST_WORKER" in os.environ] / "made"
    shared.mkdir(exist_ok=True)

    def get(kind: str) -> Path:
        name = f"{kind}{RECIPES[kind].suffix}"
        if not (shared / name).exists():
            RECIPES[kind].make(own / name).rename(shared / name)
        return shared / name

    return get


@pytest.fixture(scope="session")
def make(source: Callable[[str], Path]) -> Make:
    """A packaged file of a kind, made when first asked for."""
    made: dict[str, Made] = {}

    def get(kind: str) -> Made:
        if kind not in made:
            segments: list[bytes] = []

            def sink(rendition: str, index: int, data: bytes) -> None:
                assert (rendition, index) == (expected, len(segments))
                segments.append(data)

            expected = "source" if RECIPES[kind].video else "audio"
            progress: list[float] = []
            packaged = package(source(kind), sink, PackageOptions(), progress.append)
            made[kind] = Made(RECIPES[kind], source(kind), packaged, segments, progress)
        return made[kind]

    return get


@pytest.fixture(params=list(RECIPES))
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def made(kind: str, make: Make) -> Made:
    return make(kind)


def test_segments_are_what_the_rendition_says(made: Made) -> None:
    (rendition,) = made.packaged.renditions
    assert len(rendition.segments) == len(made.segments) >= (1 if made.recipe.seconds < 7 else 2)
    at = 0
    for msn, (segment, data) in enumerate(zip(rendition.segments, made.segments, strict=True)):
        assert segment.msn == msn
        assert segment.size == len(data)
        assert segment.sha256 == hashlib.sha256(data).hexdigest()
        assert segment.start_us == at
        assert 0 < segment.duration_us < 12_000_000
        assert round(segment.duration_us / 1e6) <= rendition.target_duration_s
        at += segment.duration_us
    assert at == made.packaged.duration_us
    assert abs(at - made.recipe.seconds * 1_000_000) <= 50_000
    assert made.progress == sorted(made.progress)
    assert made.progress[-1] == 1.0


def test_every_segment_begins_with_its_tables(made: Made) -> None:
    for data in made.segments:
        pids = [pid for pid, _, _ in ts_packets(data)]
        assert pids[:2] == [PAT, PMT]
        assert data[PACKET + 4 : PACKET + 6] == b"\x00\x02"  # a PMT section starts here


def test_continuity_counters_are_unbroken(made: Made) -> None:
    counters: dict[int, int] = {}
    for pid, has_payload, counter in ts_packets(made.whole):
        if pid == NULL:
            continue
        expected = counters.get(pid, counter - 1) + has_payload
        assert counter == expected % 16, f"PID {pid:#x}"
        counters[pid] = counter
    assert len(counters) == 2 + bool(made.recipe.video) + bool(made.recipe.audio)


def test_every_segment_begins_with_a_keyframe(made: Made) -> None:
    kinds = {t for t in ("video", "audio") if getattr(made.recipe, t)}
    for data in made.segments:
        tracks = demuxed(data, "mpegts")
        assert set(tracks) == kinds
        if made.recipe.video:
            assert tracks["video"].keyframes[0]


def test_times_go_on_over_the_joins(made: Made) -> None:
    parts = [demuxed(data, "mpegts") for data in made.segments]
    for name in parts[0]:
        frame = made.frame
        if name == "audio":
            frame = max(b - a for a, b in pairwise(parts[0]["audio"].dts))
            assert frame < 0.05 * CLOCK
        for before, after in pairwise(parts):
            assert 0 < after[name].dts[0] - before[name].dts[-1] <= frame + ROUNDING
        dts = [value for part in parts for value in part[name].dts]
        pts = [value for part in parts for value in part[name].pts]
        if name == "video" and made.recipe.video and made.recipe.video.b_frames:
            assert pts != sorted(pts)
        assert all(a < b for a, b in pairwise(dts))
        assert all(d <= p for d, p in zip(dts, pts, strict=True))
        assert all(0 < b - a <= frame + ROUNDING for a, b in pairwise(sorted(pts)))


def test_playable_codecs_are_copied_and_others_made_playable(kind: str, made: Made) -> None:
    before, after = demuxed(made.path), demuxed(made.whole, "mpegts")
    assert made.packaged.transcoded is (kind in TRANSCODED)
    if kind in TRANSCODED:
        assert made.packaged.notes
        assert after.get("video", Track("h264")).codec == "h264"
        assert after["audio"].codec == "aac"
    else:
        assert made.packaged.notes == ()
        assert {n: t.codec for n, t in after.items()} == {n: t.codec for n, t in before.items()}
        for name in before:
            assert abs(len(after[name].sizes) - len(before[name].sizes)) <= (name == "audio")


def test_the_whole_decodes_to_its_end(made: Made) -> None:
    pictures, seconds = decoded(made.path)
    played_pictures, played_seconds = decoded(made.whole, "mpegts")
    assert played_pictures == pictures
    # a decoder told of the encoder's padding drops it; MPEG-TS has no way to tell
    assert seconds - 0.05 <= played_seconds <= seconds + 0.1


def test_playlists_get_true_facts(kind: str, made: Made) -> None:
    (rendition,) = made.packaged.renditions
    pattern = CODECS.get(kind, r"avc1\.[0-9A-F]{6},mp4a\.40\.2")
    assert re.fullmatch(pattern, rendition.codecs)
    assert rendition.bandwidth >= rendition.average_bandwidth > 0
    seconds = made.packaged.duration_us / 1e6
    assert rendition.average_bandwidth == pytest.approx(len(made.whole) * 8 / seconds, rel=0.001)
    if made.recipe.video:
        assert (rendition.width, rendition.height) == (WIDTH, HEIGHT)
        assert rendition.frame_rate == made.recipe.video.rate
    else:
        assert rendition.width is rendition.height is rendition.frame_rate is None
    # x265 makes open groups of pictures, whose leading pictures need the segment before
    assert rendition.independent_segments is (kind != "hevc")


def test_independent_segments_decode_alone(made: Made) -> None:
    (rendition,) = made.packaged.renditions
    if made.recipe.video and rendition.independent_segments:
        alone = [decoded(data, "mpegts")[0] for data in made.segments]
        assert sum(alone) == decoded(made.path)[0]


def test_video_has_a_poster(made: Made) -> None:
    poster = made.packaged.poster
    if made.recipe.video is None:
        assert poster is None
        return
    assert poster is not None
    assert poster.startswith(b"\xff\xd8\xff")
    assert poster.endswith(b"\xff\xd9")
    with av.open(io.BytesIO(poster), format="mjpeg") as picture:
        frame = next(picture.decode(video=0))
        assert (frame.width, frame.height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize(("kind", "bound"), [("m4a", 0.08), ("mp3", 0.08), ("two-megabit", 0.05)])
def test_the_container_costs_little(kind: str, bound: float, make: Make) -> None:
    made = make(kind)
    content = sum(sum(track.sizes) for track in demuxed(made.path).values())
    assert 0 < len(made.whole) - content <= bound * content


@pytest.mark.parametrize("kind", sorted(TRANSCODED))
def test_without_leave_nothing_is_re_encoded(kind: str, source: Callable[[str], Path]) -> None:
    segments: list[bytes] = []
    with pytest.raises(TranscodeRequired) as refusal:
        package(
            source(kind),
            lambda *segment: segments.append(segment[2]),
            PackageOptions(transcode=False),
        )
    assert one_sentence(refusal.value, source(kind))
    assert "re-encoded" in str(refusal.value)
    assert segments == []


def test_keyframes_too_far_apart_are_said(make: Make) -> None:
    made = make("long-group")
    assert [note for note in made.packaged.notes if "keyframes" in note and "13 s apart" in note]
    assert [round(s.duration_us / 1e6) for s in made.packaged.renditions[0].segments] == [6, 6, 1]


@pytest.mark.parametrize("target", [1_000_000, 2_000_000, 4_000_000])
def test_cuts_follow_the_target(target: int, source: Callable[[str], Path]) -> None:
    packaged = package(source("mp4"), discard, PackageOptions(segment_target_us=target))
    segments = packaged.renditions[0].segments
    length = max(target, 2_000_000)  # its keyframes are 2 s apart
    assert {s.duration_us for s in segments[:-1]} == {length}


def test_what_a_sink_raises_reaches_the_caller(source: Callable[[str], Path]) -> None:
    def full(rendition: str, index: int, data: bytes) -> None:
        raise OSError("full")

    with pytest.raises(OSError, match=r"^full$"):
        package(source("mp4"), full)


def discard(rendition: str, index: int, data: bytes) -> None:
    """A sink that keeps nothing."""


def one_sentence(error: MediaError, path: Path) -> bool:
    """Whether an error is a sentence about the file, by its name and without its folder."""
    text = str(error)
    assert "\n" not in text
    assert str(path.parent) not in text
    assert "Traceback" not in text
    shown = "".join(c if c.isprintable() else "?" for c in path.name)
    assert text.startswith(f"{shown}: ")
    return len(text) < 300


def refused(path: Path) -> str:
    """What is said of a file that must be refused, having given the sink nothing."""
    given: list[Any] = []
    with pytest.raises(MediaError) as refusal:
        package(path, lambda *segment: given.append(segment))
    assert given == []
    assert one_sentence(refusal.value, path)
    return str(refusal.value)


PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154"
    "789c6360f8cfc000000301010018dd8db00000000049454e44ae426082"
)
BAD = {
    "empty.mp4": b"",
    "text.txt": b"Call me Ishmael. Some years ago\n" * 500,
    "text.mp4": b"Call me Ishmael. Some years ago\n" * 500,
    "zeros.ts": bytes(300_000),
    "zeros.mp4": bytes(300_000),
    "syncs.ts": (b"\x47" + bytes(187)) * 2000,
    "picture.png": PNG,
    "picture.mp4": PNG,
    "page.html": b"<!doctype html><title>no</title><video src=a.mp4></video>",
    "one\nline\x1b[31m.mp4": b"not media",
    "película 映画.mkv": b"not media either",
    "--help": b"-i",
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_media_is_refused(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(BAD[name])
    refused(path)
    assert capfd.readouterr() == ("", "")


def test_what_is_no_file_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "not a file" in refused(tmp_path)
    assert "cannot be opened" in refused(tmp_path / "missing.mp4")
    assert "not a file" in refused(Path("/dev/zero"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["mp4", "mov", "m4a"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_file_without_its_index_is_refused(
    kind: str,
    kept: float,
    source: Callable[[str], Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    data = source(kind).read_bytes()
    path = tmp_path / source(kind).name
    path.write_bytes(data[: int(len(data) * kept)])
    refused(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["mkv", "flv", "webm", "flac", "mp3", "ts", "ogg"])
def test_a_file_cut_off_is_refused_or_packaged_as_far_as_it_goes(
    kind: str,
    source: Callable[[str], Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    data = source(kind).read_bytes()
    path = tmp_path / source(kind).name
    path.write_bytes(data[: len(data) // 2])
    try:
        packaged = package(path, discard)
    except MediaError as error:
        assert one_sentence(error, path)
    else:
        assert packaged.duration_us < RECIPES[kind].seconds * 600_000
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", ["m3u8", "ffconcat", "sdp", "mp4", "ts"])
@pytest.mark.parametrize("form", ["m3u8", "ffconcat", "sdp", "dash"])
def test_a_file_cannot_name_another(
    form: str,
    suffix: str,
    source: Callable[[str], Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    other = source("m4a")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for url in (str(other), other.as_uri(), f"http://127.0.0.1:{port}/a.ts"):
            path = tmp_path / f"list.{suffix}"
            path.write_text(pointing(form, url, port))
            refused(path)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody came
            listener.accept()
    assert capfd.readouterr() == ("", "")


def pointing(form: str, url: str, port: int) -> str:
    """A text of a kind FFmpeg follows, naming ``url``."""
    return {
        "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\n{url}\n#EXT-X-ENDLIST\n",
        "ffconcat": f"ffconcat version 1.0\nfile '{url}'\nduration 6\n",
        "sdp": (
            "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=No Name\nc=IN IP4 127.0.0.1\nt=0 0\n"
            f"a=control:{url}\nm=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
        ),
        "dash": (
            '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
            '<Period><AdaptationSet mimeType="video/mp2t"><Representation id="1" bandwidth="1">'
            f"<BaseURL>{url}</BaseURL></Representation></AdaptationSet></Period></MPD>"
        ),
    }[form]


def test_a_name_of_many_kinds_of_letters_does_no_harm(
    source: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a\nb 映画 %d 'quoted'.mp4"
    path.write_bytes(source("silent").read_bytes())
    assert package(path, discard).renditions[0].frame_rate == Fraction(25)
    assert capfd.readouterr() == ("", "")
