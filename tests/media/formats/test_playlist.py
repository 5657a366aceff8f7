"""Playlists as we write them, and as a payer reads those of a stranger."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbyte_live.errors import MediaError
from xbyte_live.media.formats.playlist import (
    MAX_SEGMENTS,
    ListedSegment,
    Variant,
    is_multivariant,
    media_playlist,
    multivariant_playlist,
    read_media_playlist,
    read_multivariant_playlist,
)
from xbyte_live.models import Rendition, Segment
from xbyte_live.money import MAX_AMOUNT

HEAD = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:6\n"
PRICED = "#EXT-X-XBYTE-SEGMENT:BYTES=10,AMOUNT=7\n"


def rendition(*segments: Segment, **changes: object) -> Rendition:
    values: dict[str, object] = {
        "name": "source",
        "codecs": "avc1.64001F,mp4a.40.2",
        "bandwidth": 4_400_000,
        "average_bandwidth": 4_000_000,
        "target_duration_s": 6,
        "independent_segments": True,
        "segments": segments,
        "width": 1280,
        "height": 720,
        "frame_rate": Fraction(30000, 1001),
    }
    return Rendition(**(values | changes))  # type: ignore[arg-type]


def segment(msn: int, **changes: object) -> Segment:
    values: dict[str, object] = {
        "msn": msn,
        "size": 750_112,
        "start_us": 0,
        "duration_us": 6_006_000,
        "sha256": "0" * 64,
    }
    return Segment(**(values | changes))  # type: ignore[arg-type]


def test_a_media_playlist_to_the_letter() -> None:
    moment = 1_700_000_000_123_000
    text = media_playlist(
        rendition(
            segment(0, program_date_time_us=moment),
            segment(1, duration_us=2_500_001, size=9, discontinuity=True),
        ),
        [716, 0],
    )
    assert text == (
        "#EXTM3U\n"
        "#EXT-X-MEDIA-SEQUENCE:0\n"
        "#EXT-X-VERSION:3\n"
        "#EXT-X-INDEPENDENT-SEGMENTS\n"
        "#EXT-X-TARGETDURATION:6\n"
        "#EXT-X-PLAYLIST-TYPE:VOD\n"
        "#EXT-X-XBYTE-SEGMENT:BYTES=750112,AMOUNT=716\n"
        "#EXT-X-PROGRAM-DATE-TIME:2023-11-14T22:13:20.123+00:00\n"
        "#EXTINF:6.006000,\n"
        "0.ts\n"
        "#EXT-X-XBYTE-SEGMENT:BYTES=9,AMOUNT=0\n"
        "#EXT-X-DISCONTINUITY\n"
        "#EXTINF:2.500001,\n"
        "1.ts\n"
        "#EXT-X-ENDLIST\n"
    )


def test_a_playlist_still_growing_has_no_end_and_no_type() -> None:
    text = media_playlist(rendition(segment(41)), [1], ended=False)
    assert "ENDLIST" not in text
    assert "PLAYLIST-TYPE" not in text
    assert "#EXT-X-MEDIA-SEQUENCE:41\n" in text
    assert not read_media_playlist(text).ended


def test_segments_that_need_others_are_not_called_independent() -> None:
    open_groups = rendition(segment(0), independent_segments=False)
    assert "INDEPENDENT" not in media_playlist(open_groups, [1])
    assert "INDEPENDENT" not in multivariant_playlist([rendition(segment(0)), open_groups])


def test_every_segment_needs_its_amount() -> None:
    with pytest.raises(ValueError, match="shorter"):
        media_playlist(rendition(segment(0), segment(1)), [1])


def test_a_multivariant_playlist_to_the_letter() -> None:
    audio = rendition(
        segment(0), name="audio", codecs="mp4a.40.2", width=None, height=None, frame_rate=None
    )
    assert multivariant_playlist([rendition(segment(0)), audio]) == (
        "#EXTM3U\n"
        "#EXT-X-VERSION:3\n"
        "#EXT-X-INDEPENDENT-SEGMENTS\n"
        "#EXT-X-STREAM-INF:BANDWIDTH=4400000,AVERAGE-BANDWIDTH=4000000,RESOLUTION=1280x720,"
        'FRAME-RATE=29.97,CODECS="avc1.64001F,mp4a.40.2"\n'
        "source/index.m3u8\n"
        "#EXT-X-STREAM-INF:BANDWIDTH=4400000,AVERAGE-BANDWIDTH=4000000,"
        'CODECS="mp4a.40.2"\n'
        "audio/index.m3u8\n"
        '#EXT-X-SESSION-DATA:DATA-ID="live.xbyte.pricing",URI="pricing.json"\n'
    )


def test_the_two_kinds_are_told_apart() -> None:
    one = rendition(segment(0))
    assert is_multivariant(multivariant_playlist([one]))
    assert not is_multivariant(media_playlist(one, [1]))


segments = st.builds(
    Segment,
    msn=st.just(0),
    size=st.integers(0, 2**40),
    start_us=st.just(0),
    duration_us=st.integers(1, 86_400_000_000),
    sha256=st.just("0" * 64),
    discontinuity=st.booleans(),
    program_date_time_us=st.none() | st.integers(0, 4_000_000_000_000_000),
)


@given(st.lists(st.tuples(segments, st.integers(0, MAX_AMOUNT)), max_size=8), st.booleans())
def test_what_is_written_is_what_is_read(listed: list[tuple[Segment, int]], ended: bool) -> None:
    amounts = [amount for _, amount in listed]
    playlist = read_media_playlist(
        media_playlist(rendition(*(s for s, _ in listed)), amounts, ended=ended)
    )
    assert playlist.segments == tuple(
        ListedSegment("0.ts", s.duration_us, s.size, amount) for s, amount in listed
    )
    assert (playlist.target_duration_s, playlist.media_sequence, playlist.ended) == (6, 0, ended)


@given(
    bandwidth=st.integers(1, 2**50),
    average=st.integers(1, 2**50),
    size=st.tuples(st.integers(1, 16384), st.integers(1, 16384)),
    codecs=st.sampled_from(["mp4a.40.2", "avc1.64001F,mp4a.40.2", "hvc1.1.6.L93.B0,ec-3"]),
)
def test_variants_are_read_as_written(
    bandwidth: int, average: int, size: tuple[int, int], codecs: str
) -> None:
    text = multivariant_playlist(
        [
            rendition(
                segment(0),
                bandwidth=bandwidth,
                average_bandwidth=average,
                width=size[0],
                height=size[1],
                codecs=codecs,
            )
        ]
    )
    assert read_multivariant_playlist(text) == (
        Variant("source/index.m3u8", bandwidth, average, codecs, *size),
    )


@given(st.text(max_size=300) | st.from_regex(r"(#EXT[A-Z0-9:=,.\"-]{0,40}\n?[a-z0-9]{0,9}\n){0,9}"))
def test_rubbish_is_read_or_refused_in_one_way(text: str) -> None:
    for document in (text, HEAD + text, HEAD + text.replace("\n", "\n" + PRICED)):
        for read in (read_media_playlist, read_multivariant_playlist):
            try:
                read(document)
            except MediaError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("", "no HLS playlist"),
        ("<html>", "no HLS playlist"),
        ("#EXTM3U\n#EXTINF:6,\n0.ts\n", "target duration"),
        ("#EXTM3U\n#EXT-X-TARGETDURATION:0\n#EXTINF:6,\n0.ts\n", "target duration"),
        ("#EXTM3U\n#EXT-X-TARGETDURATION:six\n", "malformed"),
        (HEAD + "#EXT-X-MEDIA-SEQUENCE:-1\n", "sequence number"),
        (HEAD + f"#EXT-X-MEDIA-SEQUENCE:{'9' * 5000}\n", "too long|malformed"),
        (HEAD + "#EXTINF:nan,\n0.ts\n", "sensible duration"),
        (HEAD + "#EXTINF:inf,\n0.ts\n", "sensible duration"),
        (HEAD + "#EXTINF:-1,\n0.ts\n", "sensible duration"),
        (HEAD + '#EXT-X-KEY:METHOD=AES-128,URI="k"\n#EXTINF:6,\n0.ts\n', "EXT-X-KEY"),
        (HEAD + '#EXT-X-MAP:URI="init.mp4"\n#EXTINF:6,\n0.m4s\n', "EXT-X-MAP"),
        (HEAD + "#EXTINF:6,\n#EXT-X-BYTERANGE:9@0\n0.ts\n", "EXT-X-BYTERANGE"),
        (HEAD + "#EXT-X-SKIP:SKIPPED-SEGMENTS=3\n", "EXT-X-SKIP"),
        (HEAD + PRICED.replace("10", "-1") + "#EXTINF:6,\n0.ts\n", "XBYTE-SEGMENT"),
        (HEAD + PRICED.replace("7", "9" * 19) + "#EXTINF:6,\n0.ts\n", "XBYTE-SEGMENT"),
        (HEAD + PRICED.replace("7", "٧") + "#EXTINF:6,\n0.ts\n", "XBYTE-SEGMENT"),
        (HEAD + PRICED.replace(",AMOUNT=7", "") + "#EXTINF:6,\n0.ts\n", "XBYTE-SEGMENT"),
        (HEAD + "#EXTINF:6,\n" + "a" * 5000 + ".ts\n", "too long"),
        (HEAD + "#EXTINF:6,\nevil\x1b[2J.ts\n", "not text"),
        (HEAD + "#EXTINF:6,\n0.ts\n" * (MAX_SEGMENTS + 1), "more than"),
        (HEAD + "#" * (17 << 20), "larger than"),
    ],
)
def test_what_a_payer_will_not_read(body: str, complaint: str) -> None:
    with pytest.raises(MediaError, match=complaint):
        read_media_playlist(body)


@pytest.mark.parametrize(
    "body",
    [
        "#EXTM3U\n",
        "#EXTM3U\n#EXT-X-STREAM-INF:AVERAGE-BANDWIDTH=1\na.m3u8\n",
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=inf\na.m3u8\n",
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=-5\na.m3u8\n",
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=5,RESOLUTION=0x720\na.m3u8\n",
        "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=5,RESOLUTION=axb\na.m3u8\n",
        "#EXTM3U\n" + "#EXT-X-STREAM-INF:BANDWIDTH=5\na.m3u8\n" * 201,
    ],
)
def test_what_is_no_multivariant_playlist(body: str) -> None:
    with pytest.raises(MediaError):
        read_multivariant_playlist(body)


def test_a_playlist_of_another_server_is_read_without_prices() -> None:
    playlist = read_media_playlist(
        "\ufeff#EXTM3U\r\n#EXT-X-TARGETDURATION:10\r\n# a comment\r\n#EXT-X-NEW-TAG:X=1\r\n"
        "#EXT-X-KEY:METHOD=NONE\r\n#EXTINF:9.96667,a title, with a comma\r\nhttps://host/a.ts?b=c\r\n"
        "#EXT-X-GAP\r\n#EXTINF:10,\r\nmissing.ts\r\n#EXT-X-ENDLIST\r\n"
    )
    assert playlist.segments == (ListedSegment("https://host/a.ts?b=c", 9_966_670, None, None),)
    assert playlist.ended


def test_a_price_belongs_to_the_next_segment_only() -> None:
    playlist = read_media_playlist(HEAD + PRICED + "#EXTINF:6,\n0.ts\n#EXTINF:6,\n1.ts\n")
    assert [(s.size, s.amount) for s in playlist.segments] == [(10, 7), (None, None)]


def test_a_price_may_learn_new_attributes() -> None:
    text = HEAD + PRICED.replace("\n", ',CURRENCY="USD"\n') + "#EXTINF:6,\n0.ts\n"
    assert read_media_playlist(text).segments[0].amount == 7
