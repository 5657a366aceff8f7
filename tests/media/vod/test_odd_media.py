"""Files as phones, recorders and broadcasters leave them, and files made to do harm."""

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
from av.stream import Disposition

from tests.support.media import HEIGHT, WIDTH, Audio, Recipe, h264
from xbyte_live.errors import MediaError, TranscodeRequired
from xbyte_live.media.poster import jpeg
from xbyte_live.media.vod.packager import Packaged, PackageOptions, package

TARGET = PackageOptions(segment_target_us=2_000_000)
CENC = {
    "encryption_scheme": "cenc-aes-ctr",
    "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
    "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
}


@dataclass
class Made:
    """What came out: segments as one stream, and what was said of it."""

    packaged: Packaged
    segments: list[bytes]

    def frames(self, kind: str) -> list[Any]:
        with av.open(io.BytesIO(b"".join(self.segments)), format="mpegts") as media:
            return list(media.decode(**{kind: 0}))  # type: ignore[call-overload]


def packaged(path: Path) -> Made:
    segments: list[bytes] = []
    done = package(path, lambda rendition, index, data: segments.append(data), TARGET)
    return Made(done, segments)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of H.264 with B-frames and AAC."""
    path = tmp_path_factory.mktemp("plain") / "plain.mp4"
    return Recipe(".mp4", "mp4", h264(group=25, b_frames=2), seconds=4).make(path)


def remux(
    source: Path,
    path: Path,
    form: str,
    *,
    options: dict[str, str] | None = None,
    prepare: Callable[[Any, dict[str, Any]], None] | None = None,
    shift: Callable[[Any], float | None] = lambda packet: 0.0,
) -> Path:
    """Copy a file into another, each packet ``shift`` seconds later, or left out for ``None``."""
    with (
        av.open(str(source)) as media,
        av.open(str(path), "w", format=form, container_options=options or {}) as output,
    ):
        tracks: dict[str, Any] = {
            stream.type: output.add_stream_from_template(stream, opaque=True)
            for stream in media.streams
        }
        if prepare:
            prepare(output, tracks)
        for packet in media.demux():
            later = shift(packet)
            if not packet.size or later is None:
                continue
            ticks = round(later / packet.time_base)
            packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
            packet.stream = tracks[packet.stream.type]
            output.mux(packet)
        output.start_encoding()
    return path


@pytest.mark.parametrize(("degrees", "size"), [(90, (HEIGHT, WIDTH)), (180, (WIDTH, HEIGHT))])
def test_a_turned_picture_is_put_upright(
    degrees: int, size: tuple[int, int], plain: Path, tmp_path: Path
) -> None:
    def turn(output: Any, tracks: dict[str, Any]) -> None:
        tracks["video"].set_display_rotation(degrees)

    made = packaged(remux(plain, tmp_path / "turned.mp4", "mp4", prepare=turn))
    rendition = made.packaged.renditions[0]
    assert (rendition.width, rendition.height) == size
    assert {(frame.width, frame.height) for frame in made.frames("video")} == {size}
    assert made.packaged.transcoded
    assert "turned" in made.packaged.notes[0]


def test_what_was_trimmed_away_is_not_sold(plain: Path, tmp_path: Path) -> None:
    path = remux(
        plain, tmp_path / "trimmed.mp4", "mp4", shift=lambda packet: -1.3,
        options={"avoid_negative_ts": "disabled"},
    )  # fmt: skip
    made = packaged(path)
    assert "between two keyframes" in made.packaged.notes[0]
    assert made.packaged.duration_us == pytest.approx(2_700_000, abs=50_000)
    assert len(made.frames("video")) == pytest.approx(2.7 * 25, abs=2)


@pytest.mark.parametrize("later", [0.5, 100.0])
def test_a_late_start_is_the_beginning(later: float, plain: Path, tmp_path: Path) -> None:
    path = remux(plain, tmp_path / "late.mkv", "matroska", shift=lambda packet: later)
    made = packaged(path)
    assert not made.packaged.transcoded
    assert made.packaged.duration_us == pytest.approx(4_000_000, abs=50_000)


def test_open_groups_decode_but_are_not_called_independent(tmp_path: Path) -> None:
    video = h264(b_frames=2, options={"x264-params": "open-gop=1:keyint=25:bframes=2"})
    path = Recipe(".mp4", "mp4", video, seconds=5).make(tmp_path / "open.mp4")
    made = packaged(path)
    assert not made.packaged.transcoded
    assert not made.packaged.renditions[0].independent_segments
    for segment in made.segments:
        with av.open(io.BytesIO(segment), format="mpegts") as media:
            assert next(media.decode(video=0)).width == WIDTH


def test_a_recording_that_starts_amid_a_group_begins_at_its_keyframe(
    plain: Path, tmp_path: Path
) -> None:
    whole = remux(plain, tmp_path / "whole.ts", "mpegts").read_bytes()
    path = tmp_path / "cut.ts"
    path.write_bytes(whole[len(whole) // 10 :])
    made = packaged(path)
    assert made.packaged.renditions[0].independent_segments
    assert 2_500_000 < made.packaged.duration_us < 4_000_000


@pytest.mark.parametrize("jump", [5000, -20])
def test_a_spliced_recording_goes_on(jump: int, plain: Path, tmp_path: Path) -> None:
    parts = [
        remux(plain, tmp_path / f"{n}.ts", "mpegts", shift=lambda p, at=at: at, options=keep)
        for n, at in enumerate((30, 30 + jump))
        for keep in ({"avoid_negative_ts": "disabled"},)
    ]
    path = tmp_path / "spliced.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    made = packaged(path)
    assert not made.packaged.transcoded
    assert made.packaged.duration_us == pytest.approx(8_000_000, abs=100_000)
    times = [frame.pts for frame in made.frames("video")]
    assert max(b - a for a, b in pairwise(times)) < 90_000 // 5


def test_pictures_that_end_early_stay_until_the_sound_ends(plain: Path, tmp_path: Path) -> None:
    def early(packet: Any) -> float | None:
        return None if packet.stream.type == "video" and packet.dts and packet.dts > 2000 else 0.0

    sound = Recipe(".mp4", "mp4", h264(group=25), seconds=9).make(tmp_path / "long.mp4")
    made = packaged(remux(sound, tmp_path / "still.mp4", "mp4", shift=early))
    assert "keyframes are up to" in made.packaged.notes[0]
    assert made.packaged.duration_us == pytest.approx(9_000_000, abs=50_000)
    assert len(made.frames("video")) == pytest.approx(9 * 25, abs=2)
    assert made.packaged.renditions[0].target_duration_s == 2


def test_silence_fills_the_gaps_of_sound(tmp_path: Path) -> None:
    whole = Recipe(".mka", "matroska", None, Audio("aac"), seconds=12).make(tmp_path / "a.mka")

    def gap(packet: Any) -> float | None:
        return None if packet.pts is not None and 3 < packet.pts * packet.time_base < 9 else 0.0

    made = packaged(remux(whole, tmp_path / "gap.mka", "matroska", shift=gap))
    assert "its sound stops for up to" in made.packaged.notes[0]
    samples = sum(frame.samples for frame in made.frames("audio"))
    assert samples / 48_000 == pytest.approx(12, abs=0.1)


def test_one_picture_and_one_sound_are_taken_of_many(plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "many.mkv"
    with av.open(str(plain)) as media, av.open(str(path), "w", format="matroska") as output:
        picture, sound = media.streams.video[0], media.streams.audio[0]
        commentary = output.add_stream_from_template(sound, opaque=True)
        commentary.disposition = Disposition.comment
        tracks = {
            "video": [output.add_stream_from_template(picture, opaque=True)],
            "audio": [commentary, output.add_stream_from_template(sound, opaque=True)],
        }
        subtitles = output.add_mux_stream("subrip")
        output.metadata["title"] = "  Ein \n Titel\x07 "
        for packet in media.demux():
            for track in tracks[packet.stream.type] if packet.size else ():
                copy = av.Packet(bytes(packet))
                copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
                copy.is_keyframe, copy.stream = packet.is_keyframe, track
                output.mux(copy)
        words = av.Packet(b"words")
        words.pts = words.dts = 0
        words.time_base, words.duration, words.stream = Fraction(1, 1000), 9_000, subtitles
        output.mux(words)
    made = packaged(path)
    assert made.packaged.name == "Ein Titel"
    with av.open(io.BytesIO(made.segments[0]), format="mpegts") as media:
        assert sorted(stream.type for stream in media.streams) == ["audio", "video"]


def test_a_cover_is_the_poster_and_no_video(tmp_path: Path) -> None:
    cover = av.VideoFrame(64, 64, "yuvj420p")
    for plane in cover.planes:
        plane.update(bytes(range(256)) * (plane.buffer_size // 256))
    plain = Recipe(".m4a", "ipod", None, seconds=4).make(tmp_path / "plain.m4a")

    def add_cover(output: Any, tracks: dict[str, Any]) -> None:
        track = output.add_stream("mjpeg", rate=1)
        track.width, track.height, track.pix_fmt = 64, 64, "yuvj420p"
        track.disposition = Disposition.attached_pic
        packet = av.Packet(jpeg(cover) or b"")
        packet.is_keyframe, packet.stream = True, track
        packet.pts = packet.dts = 0
        packet.time_base = Fraction(1, 1)
        output.mux(packet)

    made = packaged(remux(plain, tmp_path / "cover.m4a", "mp4", prepare=add_cover))
    rendition = made.packaged.renditions[0]
    assert (rendition.name, rendition.width, rendition.codecs) == ("audio", None, "mp4a.40.2")
    assert made.packaged.poster is not None
    assert made.packaged.poster.startswith(b"\xff\xd8")


def test_damaged_packets_are_left_out_and_counted(plain: Path, tmp_path: Path) -> None:
    with av.open(str(plain)) as media:
        frames = [p for p in media.demux(video=0) if p.size and not p.is_keyframe]
        places = [frame.pos for frame in frames if frame.pos is not None]
    data = bytearray(plain.read_bytes())
    for at in places[40:42]:
        data[at : at + 4] = b"\xff\xff\xff\xff"  # longer than the frame
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    made = packaged(path)
    assert made.packaged.notes == ("damaged packets left out: 2",)
    assert made.packaged.duration_us == pytest.approx(4_000_000, abs=50_000)


def test_a_file_damaged_all_over_is_refused(plain: Path, tmp_path: Path) -> None:
    with av.open(str(plain)) as media:
        places = [p.pos for p in media.demux(video=0) if p.size and not p.is_keyframe]
    data = bytearray(plain.read_bytes())
    for at in places:
        assert at is not None
        data[at : at + 4] = b"\xff\xff\xff\xff"
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    with pytest.raises(MediaError, match="it is damaged"):
        packaged(path)


def test_mp3_is_as_long_as_its_music(tmp_path: Path) -> None:
    path = Recipe(".mp3", "mp3", None, Audio("libmp3lame", 44100), seconds=5).make(
        tmp_path / "a.mp3"
    )
    assert packaged(path).packaged.duration_us == pytest.approx(5_000_000, abs=30_000)


def test_encrypted_media_is_refused(plain: Path, tmp_path: Path) -> None:
    path = remux(plain, tmp_path / "secret.mp4", "mp4", options=CENC)
    with pytest.raises(MediaError, match=r"^secret\.mp4: it is encrypted"):
        packaged(path)


def patched(data: bytes, *changes: tuple[bytes, int, bytes]) -> bytes:
    """``data`` with bytes put at an offset behind the first place where each name stands."""
    copy = bytearray(data)
    for name, offset, value in changes:
        at = copy.index(name) + offset
        copy[at : at + len(value)] = value
    return bytes(copy)


def test_a_claim_of_endless_samples_is_refused(plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "endless.mp4"
    claim = struct.pack(">II", 1, 2**31)
    path.write_bytes(patched(plain.read_bytes(), (b"stsz", 8, claim)))
    with pytest.raises(MediaError, match="26 hours"):
        packaged(path)


def test_an_index_behind_the_end_is_said(plain: Path, tmp_path: Path) -> None:
    whole = remux(plain, tmp_path / "fast.mp4", "mp4", options={"movflags": "faststart"})
    path = tmp_path / "short.mp4"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 4])
    with pytest.raises(MediaError, match="cut off"):
        packaged(path)


def test_a_file_with_nothing_in_it_to_see_or_hear(plain: Path, tmp_path: Path) -> None:
    path = remux(plain, tmp_path / "bare.mp4", "mp4", shift=lambda packet: None)
    with pytest.raises(MediaError, match="there is no video and no sound in it"):
        packaged(path)


@pytest.mark.parametrize("rotation", [90])
def test_without_leave_a_turned_picture_stays_out(
    rotation: int, plain: Path, tmp_path: Path
) -> None:
    def turn(output: Any, tracks: dict[str, Any]) -> None:
        tracks["video"].set_display_rotation(rotation)

    path = remux(plain, tmp_path / "turned.mp4", "mp4", prepare=turn)
    with pytest.raises(TranscodeRequired, match="turned"):
        package(path, lambda *segment: None, PackageOptions(transcode=False))
