"""Live packaging of real media: everything publishers send becomes segments that play."""

import gc
import io
import resource
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pytest

from tests.support.flv import (
    NOON_US,
    Fed,
    Played,
    check,
    interleaved,
    is_frame,
    is_key,
    length_ms,
    package,
    read_tags,
    shifted,
    tags_of,
    without,
)
from tests.support.media import Audio, Recipe, h264
from xbyte_live.errors import MediaError
from xbyte_live.media.formats.flv import AUDIO, SCRIPT, VIDEO, Tag, describe
from xbyte_live.media.live.flv_demuxer import FlvDemuxer
from xbyte_live.media.live.messages import FeedEvent, FeedOptions, FeedSegment
from xbyte_live.media.live.state import LiveState

FRAME = 0.0405  # seconds, at 25 frames a second and with timestamps in milliseconds
SOUND = 0.025

LONG_GROUP = Recipe(".flv", "flv", h264(group=250), seconds=25)
SHORT_GROUP = Recipe(".flv", "flv", h264(group=10), seconds=5)
NO_KEYFRAME = Recipe(".flv", "flv", h264(group=100_000), seconds=25)
MP3 = Recipe(".flv", "flv", None, Audio("libmp3lame", 44100), seconds=5)
SLIDES = Recipe(".flv", "flv", h264(rate=Fraction(1, 3), group=1), seconds=18)


def lengths(fed: Fed) -> list[float]:
    return [round(segment.duration_us / 1e6, 1) for segment in fed.segments]


def no_gap(played: Sequence[Played], video: float = FRAME, audio: float = SOUND) -> None:
    for run in played:
        assert run.gap(run.video) <= video
        assert run.gap(run.audio) <= audio


def only_runs(fed: Fed, count: int) -> list[Played]:
    """The feed as it plays, once it is known to have so many runs."""
    played = check(fed)
    assert len(played) == count
    return played


def test_ordinary_media_with_b_frames() -> None:
    tags = tags_of("flv")
    fed = package(tags)
    (played,) = only_runs(fed, 1)
    no_gap([played])
    assert lengths(fed) == [2.0, 2.0, 2.0, 2.0, 1.0]
    assert all(segment.clean for segment in fed.segments)
    assert {segment.keyframe_interval_us for segment in fed.segments} == {2_000_000}
    (track,) = fed.tracks
    assert (track.codecs, track.width, track.height) == ("avc1.4D400B,mp4a.40.2", 160, 120)
    assert (track.frame_rate, track.target_duration_s) == (25, 2)
    assert len(played.video) == sum(tag.kind == VIDEO and is_frame(tag) for tag in tags)
    assert len(played.audio) == sum(tag.kind == AUDIO and is_frame(tag) for tag in tags)
    assert (fed.segments[-1].late, fed.segments[-1].dropped) == (0, 0)
    assert fed.warnings == []


def test_a_segment_leaves_with_the_frames_that_close_it() -> None:
    tags = tags_of("flv")
    second = [number for number, tag in enumerate(tags) if is_key(tag)][1]
    out = Fed()
    feed = FlvDemuxer(LiveState(FeedOptions(), out, lambda: NOON_US))
    for tag in tags[: second + 4]:  # the keyframe, and the sound beside it
        feed.take(tag)
    assert [segment.duration_us for segment in out.segments] == [2_000_000]
    feed.abandon()


@pytest.mark.parametrize("recipe", ["ntsc", "vfr", "hevc", "silent"])
def test_media_of_other_kinds(recipe: str) -> None:
    tags = tags_of(recipe)
    fed = package(tags)
    (played,) = only_runs(fed, 1)
    no_gap([played], video=0.0605 if recipe == "vfr" else FRAME)
    assert abs(fed.seconds - length_ms(tags) / 1000) < 0.1
    assert fed.segments[0].clean
    assert fed.tracks[0].codecs.startswith("hvc1." if recipe == "hevc" else "avc1.")


def test_open_groups_of_hevc_are_not_called_clean() -> None:
    fed = package(tags_of("hevc"))
    assert [segment.clean for segment in fed.segments] == [True, False, False, False]
    (warning,) = fed.warnings
    assert warning.code == "open-groups"


@pytest.mark.parametrize("recipe", ["flv", MP3])
def test_sound_alone(recipe: Recipe | str) -> None:
    tags = without(tags_of(recipe), VIDEO)
    fed = package(tags)
    (played,) = only_runs(fed, 1)
    no_gap([played], audio=0.027)
    assert all(abs(length - 2.0) < 0.11 for length in lengths(fed)[:-1])
    assert all(segment.clean for segment in fed.segments)
    assert fed.tracks[0].codecs == ("mp4a.40.2" if recipe == "flv" else "mp4a.40.34")
    assert (fed.tracks[0].width, fed.tracks[0].frame_rate) == (None, None)
    assert fed.segments[0].keyframe_interval_us is None


def test_pictures_alone() -> None:
    fed = package(without(tags_of("flv"), AUDIO))
    (played,) = only_runs(fed, 1)
    no_gap([played])
    assert fed.tracks[0].codecs == "avc1.4D400B"
    assert fed.seconds == 9.0


@pytest.mark.parametrize("announced", [True, False])
def test_sound_that_comes_late_joins_at_a_keyframe(announced: bool) -> None:
    tags = tags_of("flv")
    late = [tag for tag in tags if tag.kind != AUDIO or tag.timestamp > 5000]
    if announced:
        late[1:1] = [tag for tag in tags if tag.kind == AUDIO and not is_frame(tag)]
    else:
        at = next(n for n, tag in enumerate(late) if tag.kind == AUDIO)
        config = next(tag for tag in tags if tag.kind == AUDIO and not is_frame(tag))
        late.insert(at, replace(config, timestamp=5000))
    fed = package(late)
    silent, loud = only_runs(fed, 2)
    no_gap([silent, loud])
    assert (round(silent.length, 2), round(loud.length, 2)) == (6.0, 3.01)
    assert [track.codecs for track in fed.tracks] == ["avc1.4D400B", "avc1.4D400B,mp4a.40.2"]
    assert abs(fed.seconds - 9) < 0.05


def test_pictures_that_come_late_join_at_a_keyframe() -> None:
    tags = tags_of("flv")
    fed = package(
        tag for tag in tags if tag.kind != VIDEO or tag.timestamp > 3000 or not is_frame(tag)
    )
    blind, seeing = only_runs(fed, 2)
    no_gap([blind, seeing])
    assert blind.video == ()
    assert abs(fed.seconds - 9) < 0.1


def test_sound_that_stops_and_comes_back() -> None:
    tags = [
        tag for tag in tags_of("flv")
        if tag.kind != AUDIO or not 3000 < tag.timestamp < 6500 or not is_frame(tag)
    ]  # fmt: skip
    fed = package(tags)
    (played,) = only_runs(fed, 1)
    no_gap([played], audio=3.6)
    assert lengths(fed) == [2.0, 2.0, 2.0, 2.0, 1.0]


@pytest.mark.parametrize(("declared", "runs"), [(2, 3), (6, 1)])
def test_pictures_that_stop_leave_the_sound_on_air(declared: int, runs: int) -> None:
    tags = [
        tag for tag in tags_of("flv")
        if tag.kind != VIDEO or not 2000 <= tag.timestamp < 6000 or not is_frame(tag)
    ]  # fmt: skip
    fed = package(tags, FeedOptions(target_duration_s=declared))
    assert abs(fed.seconds - 9) < 0.2
    assert abs(sum(run.gap(run.audio) for run in check(fed))) < 0.1
    if runs == 1:
        assert lengths(fed) == [6.0, 2.0, 1.0]
        return
    played = only_runs(fed, 3)
    no_gap(played)
    assert [bool(run.video) for run in played] == [True, False, True]


def test_a_timestamp_reset_is_one_discontinuity() -> None:
    tags = tags_of("flv")
    fed = package(tags + [tag for tag in tags if is_frame(tag)])
    no_gap(only_runs(fed, 2))
    assert lengths(fed) == [2.0, 2.0, 2.0, 2.0, 1.0] * 2
    assert [s.discontinuity for s in fed.segments].count(True) == 1


def test_sound_of_the_old_clock_does_not_bring_it_back() -> None:
    """The tracks change over to the new clock one after the other, in both orders."""
    tags = tags_of("flv")
    for first in (AUDIO, VIDEO):
        after = [tag for tag in tags if is_frame(tag)]
        straggling = [tag for tag in shifted(tags, 9000) if tag.kind != first][:12]
        leading = [tag for tag in after if tag.kind == first][:8]
        mixed = [tag for pair in zip(leading, straggling, strict=False) for tag in pair]
        rest = [tag for tag in after if tag not in leading]
        played = only_runs(package([*tags, *mixed, *rest]), 2)
        assert played[1].length > 8.5


def test_one_wild_timestamp_costs_one_frame() -> None:
    tags = tags_of("flv")
    at = next(n for n, tag in enumerate(tags) if tag.timestamp > 3000 and tag.kind == VIDEO)
    tags[at] = replace(tags[at], timestamp=900_000)
    also = next(n for n, tag in enumerate(tags) if tag.timestamp > 5000 and tag.kind == AUDIO)
    tags[also] = replace(tags[also], timestamp=0)
    fed = package(tags)
    only_runs(fed, 1)
    assert fed.segments[-1].dropped == 2
    assert lengths(fed) == [2.0, 2.0, 2.0, 2.0, 1.0]


@pytest.mark.parametrize("start", [2**32 - 3000, 2**31 - 3000, 2**32 * 5 - 4500])
def test_timestamps_that_overflow_do_not_show(start: int) -> None:
    fed = package(shifted(tags_of("flv"), start))
    no_gap(only_runs(fed, 1))
    assert lengths(fed) == [2.0, 2.0, 2.0, 2.0, 1.0]


@pytest.mark.parametrize("hours", [-20, 1, 27, 400])
def test_a_jump_of_hours_is_one_discontinuity(hours: int) -> None:
    tags = shifted(tags_of("flv"), 30 * 3_600_000)
    fed = package(tags + shifted(tags, hours * 3_600_000))
    no_gap(only_runs(fed, 2))
    last, first = fed.segments[4], fed.segments[5]
    gap = first.program_date_time_us - last.program_date_time_us - last.duration_us
    assert 0 <= gap < 200_000  # what was on air, whatever the timestamps said


def test_a_short_pause_stays_in_the_run() -> None:
    tags = tags_of("flv")
    at = next(n for n, tag in enumerate(tags) if tag.timestamp >= 4000 and is_key(tag))
    fed = package(tags[:at] + shifted(tags[at:], 300))
    (played,) = only_runs(fed, 1)
    assert played.gap(played.video) < 0.35
    assert lengths(fed) == [2.0, 2.3, 2.0, 2.0, 1.0]


def test_a_pause_longer_than_a_segment_may_be() -> None:
    tags = tags_of("flv")
    at = next(n for n, tag in enumerate(tags) if tag.timestamp >= 4000 and is_key(tag))
    fed = package(tags[:at] + shifted(tags[at:], 4500))
    no_gap(only_runs(fed, 2))
    gap = fed.segments[2].program_date_time_us - fed.segments[1].program_date_time_us
    assert abs(gap - 6_500_000) < 100_000


def test_decoding_times_that_step_back_are_mended() -> None:
    tags = [
        stepped_back(tag) if number % 7 == 3 and is_frame(tag) else tag
        for number, tag in enumerate(tags_of("flv"))
    ]
    fed = package(tags)
    only_runs(fed, 1)
    assert fed.segments[-1].late > 10
    assert fed.segments[-1].dropped == 0


def stepped_back(tag: Tag) -> Tag:
    """Decoded too early by its timestamp, but shown when it should be."""
    if tag.kind == AUDIO:
        return replace(tag, timestamp=tag.timestamp - 30)
    shown = int.from_bytes(tag.payload[2:5], "big") + 70
    payload = tag.payload[:2] + shown.to_bytes(3, "big") + tag.payload[5:]
    return replace(tag, timestamp=tag.timestamp - 70, payload=payload)


def test_a_change_of_resolution() -> None:
    small, large = pictures("yuv420p", 64), shifted(pictures("yuv420p", 128), 4000)
    fed = package(small + [tag for tag in large if tag.kind != SCRIPT])
    no_gap(only_runs(fed, 2))
    assert [track.width for track in fed.tracks] == [64, 128]
    assert fed.seconds == 8


@pytest.mark.parametrize("recipes", [("flv", "hevc"), ("hevc", "flv")])
def test_a_change_of_codec(recipes: tuple[str, str]) -> None:
    first = tags_of(recipes[0])
    second = shifted(tags_of(recipes[1]), first[-1].timestamp + 40)
    fed = package(first + second)
    no_gap(only_runs(fed, 2))
    assert len({track.codecs[:4] for track in fed.tracks}) == 2


def test_a_change_of_sound_waits_for_the_keyframe() -> None:
    tags = tags_of("flv")
    other = tags_of(Recipe(".flv", "flv", None, Audio(rate=32000)))
    mixed = list(
        interleaved(
            (tag for tag in tags if tag.kind != AUDIO or tag.timestamp < 3000),
            (
                tag if is_frame(tag) else replace(tag, timestamp=3000)
                for tag in other
                if tag.kind == AUDIO and (tag.timestamp >= 3000 or not is_frame(tag))
            ),
        )
    )  # fmt: skip
    fed = package(mixed)
    played = only_runs(fed, 2)
    assert [round(run.length) for run in played] == [4, 5]
    assert max(run.gap(run.video) for run in played) <= FRAME


def test_a_repeated_sequence_header_changes_nothing() -> None:
    tags = tags_of("flv")
    headers = [tag for tag in tags if describe(tag).is_config]
    often = [more for tag in tags for more in ((*headers, tag) if is_key(tag) else (tag,))]
    assert lengths(package(often)) == lengths(package(tags))


def test_a_keyframe_every_ten_seconds() -> None:
    fed = package(tags_of(LONG_GROUP))
    (played,) = only_runs(fed, 1)
    no_gap([played])
    assert lengths(fed) == [10.0, 10.0, 5.0]
    assert all(segment.clean for segment in fed.segments)
    assert fed.tracks[0].target_duration_s == 10
    (warning,) = fed.warnings
    assert warning.code == "keyframes"
    assert warning.text.startswith("keyframe every 10 s: set the keyframe interval to 2 s")


def test_a_resumed_broadcast_keeps_its_target_duration() -> None:
    fed = package(tags_of(LONG_GROUP), FeedOptions(target_duration_s=3))
    (played,) = only_runs(fed, 1)
    no_gap([played])
    assert fed.tracks[0].target_duration_s == 3
    assert fed.seconds == pytest.approx(played.length, abs=0.05)
    assert [s.clean for s in fed.segments].count(True) < len(fed.segments)
    assert "no keyframe" in fed.warnings[0].text


def test_no_keyframe_after_the_first() -> None:
    fed = package(tags_of(NO_KEYFRAME))
    (played,) = only_runs(fed, 1)
    no_gap([played])
    assert [segment.clean for segment in fed.segments] == [True, False, False]
    assert all(segment.duration_us <= 10_450_000 for segment in fed.segments)
    assert len(fed.warnings) == 1


def test_no_keyframe_at_all_is_on_air_in_the_end() -> None:
    tags = [tag for tag in tags_of(NO_KEYFRAME) if not is_key(tag)]
    fed = package(tags)
    assert fed.seconds > 10
    assert not fed.segments[-1].clean


def test_a_feed_joined_in_the_middle_of_a_group() -> None:
    tags = tags_of("flv")
    headers = [tag for tag in tags if describe(tag).is_config]
    fed = package(headers + [tag for tag in tags if tag.timestamp > 900 and is_frame(tag)])
    (played,) = only_runs(fed, 1)
    no_gap([played])
    assert fed.segments[0].clean
    assert fed.segments[0].dropped > 20
    assert round(fed.seconds) == 7


def test_groups_shorter_than_a_segment_are_joined() -> None:
    fed = package(tags_of(SHORT_GROUP))
    only_runs(fed, 1)
    assert lengths(fed) == [2.0, 2.0, 1.0]


@pytest.mark.parametrize(("target_s", "expected"), [(1, [2.0] * 4), (4, [4.0, 4.0]), (6, [6.0])])
def test_other_targets(target_s: int, expected: list[float]) -> None:
    fed = package(tags_of("flv"), FeedOptions(segment_target_us=target_s * 1_000_000))
    only_runs(fed, 1)
    assert lengths(fed)[:-1] == expected
    assert fed.tracks[0].target_duration_s == max(target_s, 2)


def test_slides() -> None:
    fed = package(tags_of(SLIDES))
    only_runs(fed, 1)
    assert set(lengths(fed)[:-1]) == {3.0}
    assert fed.tracks[0].frame_rate == Fraction(1, 3)


def test_parameter_sets_in_band_only() -> None:
    tags = [in_band(tag) for tag in tags_of("flv")]
    fed = package(tags)
    no_gap(only_runs(fed, 1))
    assert all(segment.clean for segment in fed.segments)
    assert fed.tracks[0].codecs.startswith("avc1.4D400B")


def in_band(tag: Tag) -> Tag:
    """The tag of a feed whose header names no parameter sets, but whose keyframes have them."""
    config = next(t for t in tags_of("flv") if t.kind == VIDEO and describe(t).is_config)
    avcc = config.payload[5:]
    if tag.kind == VIDEO and describe(tag).is_config:
        return replace(tag, payload=tag.payload[:5] + avcc[:5] + b"\xe0\x00")
    if not is_key(tag):
        return tag
    size = int.from_bytes(avcc[6:8], "big")
    sps, rest = avcc[8 : 8 + size], avcc[8 + size :]
    pps = rest[3 : 3 + int.from_bytes(rest[1:3], "big")]
    sets = b"".join(len(unit).to_bytes(4, "big") + unit for unit in (sps, pps))
    return replace(tag, payload=tag.payload[:5] + sets + tag.payload[5:])


def test_missing_parameter_sets_are_told() -> None:
    tags = [tag for tag in tags_of(LONG_GROUP) if is_frame(tag)]
    with pytest.raises(MediaError, match="without parameter sets: restart the encoder"):
        package(tags)


UNPLAYABLE = (
    (
        "av1",
        VIDEO,
        b"\x91av01x",
        "its video is AV1, which MPEG-TS players do not play: choose H.264",
    ),
    ("vp9", VIDEO, b"\x90vp09x", "its video is VP9"),
    ("vp6", VIDEO, b"\x14\0x", "its video is VP6"),
    ("opus", AUDIO, b"\x90Opusx", "its sound is Opus, which .* choose AAC"),
    ("flac", AUDIO, b"\x91fLaCx", "its sound is FLAC"),
    ("speex", AUDIO, b"\xb6x", "its sound is SPEEX"),
)


@pytest.mark.parametrize(
    ("kind", "payload", "text"),
    [case[1:] for case in UNPLAYABLE],
    ids=[case[0] for case in UNPLAYABLE],
)
def test_codecs_no_player_plays(kind: int, payload: bytes, text: str) -> None:
    with pytest.raises(MediaError, match=text):
        package([Tag(kind, 0, payload)])


@pytest.mark.parametrize("pixels", ["yuv444p", "yuv420p10le"])
def test_pixels_most_players_do_not_decode(pixels: str) -> None:
    with pytest.raises(MediaError, match=f"{pixels}.*: choose NV12 .4:2:0, 8 bit. in OBS"):
        package(pictures(pixels))


def pictures(pixels: str, size: int = 64) -> list[Tag]:
    """Four seconds of H.264 with pixels of a form and pictures of a size."""
    file = io.BytesIO()
    with av.open(file, "w", format="flv") as output:
        options = {"preset": "ultrafast", "keyint_min": "1", "sc_threshold": "0"}
        stream = output.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = size, size, pixels
        stream.codec_context.gop_size = 50
        for number in range(100):
            frame = av.VideoFrame(size, size, "yuv420p").reformat(format=pixels)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return read_tags(file.getvalue())


def test_the_clock_goes_on_from_the_last_broadcast() -> None:
    later = NOON_US + 3_600_000_000
    fed = package(tags_of("flv"), FeedOptions(not_before_us=later))
    check(fed)
    assert fed.segments[0].program_date_time_us == later
    assert fed.segments[1].program_date_time_us == later + 2_000_000


def test_the_clock_says_when_the_first_picture_came() -> None:
    fed = package(tags_of("flv"))
    assert fed.segments[0].program_date_time_us == NOON_US


def test_a_run_is_ended_before_its_clock_turns_over() -> None:
    """More than a day of keyframes, each the same picture."""
    tags = without(tags_of("flv"), AUDIO)
    header = next(tag for tag in tags if describe(tag).is_config)
    key = next(tag for tag in tags if is_key(tag))
    day = [replace(key, timestamp=number * 9000) for number in range(25 * 400)]
    fed = package([header, *day], FeedOptions(segment_target_us=9_000_000))
    assert [segment.discontinuity for segment in fed.segments].count(True) == 1
    assert len(fed.segments) == len(day)
    assert {segment.duration_us for segment in fed.segments} == {9_000_000}


def test_hevc_in_the_form_used_before_it_was_enhanced() -> None:
    fed = package(map(before_enhancement, tags_of("hevc")))
    no_gap(only_runs(fed, 1))
    assert fed.tracks[0].codecs.startswith("hvc1.")


def before_enhancement(tag: Tag) -> Tag:
    facts = describe(tag)
    if tag.kind != VIDEO or not (facts.is_frame or facts.is_config):
        return tag
    kind = 0x1C if facts.is_keyframe or facts.is_config else 0x2C
    head = bytes([kind, facts.is_frame]) + facts.composition_ms.to_bytes(3, "big")
    return replace(tag, payload=head + tag.payload[facts.body :])


def test_surround_sound() -> None:
    fed = package(tags_of("ac3"))
    no_gap(only_runs(fed, 1), audio=0.033)
    assert fed.tracks[0].codecs.endswith(",ac-3")


@pytest.mark.parametrize("second", ["flv", "ntsc"])
def test_an_hls_reader_plays_over_a_discontinuity(tmp_path: Path, second: str) -> None:
    first = tags_of("flv")
    fed = package(first + tags_of(second))
    check(fed)
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:2"]
    for number, segment in enumerate(fed.segments):
        (tmp_path / f"{number}.ts").write_bytes(segment.data)
        lines += ["#EXT-X-DISCONTINUITY"] if segment.discontinuity else []
        lines += [f"#EXTINF:{segment.duration_us / 1e6:.6f},", f"{number}.ts"]
    playlist = tmp_path / "index.m3u8"
    playlist.write_text("\n".join([*lines, "#EXT-X-ENDLIST", ""]))
    with av.open(str(playlist)) as container:
        shown = sum(1 for _ in container.decode(video=0))
    sent = sum(tag.kind == VIDEO and is_frame(tag) for tag in [*first, *tags_of(second)])
    assert shown == sent


def test_memory_stays_flat_over_hours() -> None:
    """Three quarters of an hour of a feed, with its segments thrown away."""
    tags = [tag for tag in tags_of("flv") if tag.kind != SCRIPT]
    out = Counting()
    feed = FlvDemuxer(LiveState(FeedOptions(), out, lambda: NOON_US))
    grown = []
    for part in range(300):
        for tag in tags:
            feed.take(replace(tag, timestamp=tag.timestamp + part * 9000))
        if part in (100, 299):
            gc.collect()
            grown.append(resident())
    feed.finish()
    assert out.segments >= 1200
    assert grown[1] - grown[0] < 2 << 20


class Counting(Fed):
    """Counts the segments, and keeps none."""

    segments = 0  # type: ignore[assignment]

    def put(self, event: FeedEvent) -> None:
        self.segments += isinstance(event, FeedSegment)


def resident() -> int:
    """Bytes of memory this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
