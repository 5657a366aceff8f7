"""FLV tags: what FFmpeg writes and reads, the enhanced forms, and bytes of any kind."""

import io

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.flv import encode, read_tags, tags_of
from xbyte_live.errors import MediaError
from xbyte_live.media.formats.flv import (
    AUDIO,
    MAX_PAYLOAD,
    SCRIPT,
    VIDEO,
    Tag,
    TagFacts,
    TagReader,
    describe,
    encode_tag,
    file_header,
    may_begin,
)

FACTS: tuple[tuple[str, int, bytes, TagFacts], ...] = (
    ("empty", VIDEO, b"", TagFacts()),
    ("script", SCRIPT, b"\x02\0\x0aonMetaData", TagFacts()),
    ("h264 config", VIDEO, b"\x17\0\0\0\0\x01", TagFacts("h264", is_config=True, body=5)),
    ("h264 key", VIDEO, b"\x17\x01\0\0\x50x",
     TagFacts("h264", is_frame=True, is_keyframe=True, composition_ms=80, body=5)),
    ("h264 inter, shown before", VIDEO, b"\x27\x01\xff\xff\xffx",
     TagFacts("h264", is_frame=True, composition_ms=-1, body=5)),
    ("h264 end", VIDEO, b"\x17\x02\0\0\0", TagFacts("h264", is_end_of_sequence=True, body=5)),
    ("h264 cut off", VIDEO, b"\x17\x01\0\0", TagFacts()),
    ("command", VIDEO, b"\x57\0", TagFacts()),
    ("hevc before the enhancement", VIDEO, b"\x1c\x01\0\0\0x",
     TagFacts("hevc", is_frame=True, is_keyframe=True, body=5)),
    ("vp6", VIDEO, b"\x14\0x", TagFacts("vp6", is_frame=True, is_keyframe=True, body=1)),
    ("unknown video", VIDEO, b"\x1f\0x", TagFacts()),
    ("hvc1 config", VIDEO, b"\x90hvc1\x01", TagFacts("hevc", is_config=True, body=5)),
    ("hvc1 key", VIDEO, b"\x91hvc1\0\0\x21x",
     TagFacts("hevc", is_frame=True, is_keyframe=True, composition_ms=33, body=8)),
    ("hvc1 without offset", VIDEO, b"\xa3hvc1x", TagFacts("hevc", is_frame=True, body=5)),
    ("hvc1 cut off", VIDEO, b"\x91hvc1\0\0", TagFacts()),
    ("avc1 end", VIDEO, b"\x92avc1", TagFacts("h264", is_end_of_sequence=True, body=5)),
    ("av01 key has no offset", VIDEO, b"\x91av01x",
     TagFacts("av1", is_frame=True, is_keyframe=True, body=5)),
    ("colors", VIDEO, b"\x94hvc1\x02", TagFacts("hevc")),
    ("colors as FFmpeg sends them", VIDEO, b"\xd4hvc1\x02", TagFacts("hevc")),
    ("unknown fourcc", VIDEO, b"\x91abcdx", TagFacts()),
    ("one track, number 0", VIDEO, b"\x96\x01hvc1\0\0\0\x21x",
     TagFacts("hevc", is_frame=True, is_keyframe=True, composition_ms=33, body=10)),
    ("one track, number 1", VIDEO, b"\x96\x01hvc1\x01\0\0\x21x", TagFacts()),
    ("many tracks", VIDEO, b"\x96\x11hvc1\0\0\0\x05xxxxx", TagFacts()),
    ("extension before it", VIDEO, b"\x97\x02abc\x01hvc1\0\0\0x",
     TagFacts("hevc", is_frame=True, is_keyframe=True, body=13)),
    ("extension without end", VIDEO, b"\x97\xff\xff\xff", TagFacts()),
    ("enhanced command", VIDEO, b"\xd1\0", TagFacts()),
    ("aac config", AUDIO, b"\xaf\0\x11\x90", TagFacts("aac", is_config=True, body=2)),
    ("aac", AUDIO, b"\xaf\x01x", TagFacts("aac", is_frame=True, is_keyframe=True, body=2)),
    ("mp3", AUDIO, b"\x2fx", TagFacts("mp3", is_frame=True, is_keyframe=True, body=1)),
    ("speex", AUDIO, b"\xb6x", TagFacts("speex", is_frame=True, is_keyframe=True, body=1)),
    ("opus", AUDIO, b"\x91Opusx", TagFacts("opus", is_frame=True, is_keyframe=True, body=5)),
    ("ac-3", AUDIO, b"\x91ac-3x", TagFacts("ac3", is_frame=True, is_keyframe=True, body=5)),
    ("second sound", AUDIO, b"\x95\x01mp4a\x01x", TagFacts()),
    ("channel order", AUDIO, b"\x94mp4a\x01", TagFacts("aac")),
    ("unknown sound", AUDIO, b"\xcfx", TagFacts()),
)  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "payload", "facts"), [f[1:] for f in FACTS], ids=[f[0] for f in FACTS]
)
def test_what_a_tag_says(kind: int, payload: bytes, facts: TagFacts) -> None:
    assert describe(Tag(kind, 0, payload)) == facts


@given(st.integers(0, 31), st.binary(max_size=40))
def test_any_payload_is_described(kind: int, payload: bytes) -> None:
    facts = describe(Tag(kind, 0, payload))
    assert facts.codec is not None or facts == TagFacts()
    for cut in range(len(payload)):
        describe(Tag(kind, 0, payload[:cut]))


TAGS = st.builds(
    Tag,
    st.sampled_from((AUDIO, VIDEO, SCRIPT, 15)),
    st.integers(0, 2**31 - 1),
    st.binary(max_size=300),
)


@given(st.lists(TAGS, max_size=8), st.data())
def test_tags_are_read_as_they_were_written_however_they_arrive(
    tags: list[Tag], data: st.DataObject
) -> None:
    whole, reader, read = encode(tags), TagReader(), []
    while whole:
        size = data.draw(st.integers(1, len(whole)))
        reader.feed(whole[:size])
        whole = whole[size:]
        read += list(iter(reader.next_tag, None))
    assert [(t.kind, t.payload) for t in read] == [(t.kind, t.payload) for t in tags]
    assert [t.timestamp % 2**32 for t in read] == [t.timestamp for t in tags]


@given(st.binary(max_size=2000))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for start in (b"", file_header(audio=True, video=True)):
        reader = TagReader()
        reader.feed(start + data)
        try:
            while reader.next_tag():
                pass
        except MediaError:
            pass


def test_timestamps_go_on_where_32_bits_end() -> None:
    times = [2**32 - 40, 2**32 - 10, 2**32 + 20, 2**32 + 5, 6 * 2**30, 7 * 2**30, 2**33 + 7]
    read = read_tags(encode(Tag(VIDEO, time, b"x") for time in times))
    assert [tag.timestamp for tag in read] == times


def test_a_step_back_over_zero_is_a_step_back() -> None:
    read = read_tags(encode([Tag(AUDIO, 5, b"x"), Tag(AUDIO, 2**32 - 5, b"x")]))
    assert [tag.timestamp for tag in read] == [5, -5]


@pytest.mark.parametrize("at", [0, 3, 8])
def test_what_is_not_flv_is_refused_at_once(at: int) -> None:
    data = bytearray(file_header(audio=True, video=True))
    data[at] ^= 0x10
    with pytest.raises(MediaError, match="not FLV"):
        read_tags(bytes(data))


def test_a_tag_with_the_wrong_size_behind_it_is_refused() -> None:
    data = bytearray(encode([Tag(VIDEO, 0, b"payload")]))
    data[-1] ^= 1
    with pytest.raises(MediaError, match="damaged"):
        read_tags(bytes(data))


def test_the_largest_tag_and_one_more_byte() -> None:
    payload = bytes(MAX_PAYLOAD)
    assert read_tags(encode([Tag(VIDEO, 0, payload)])) == [Tag(VIDEO, 0, payload)]
    with pytest.raises(ValueError, match="16 MiB"):
        encode_tag(Tag(VIDEO, 0, payload + b"x"))


def test_ffmpeg_writes_what_we_read_and_reads_what_we_write() -> None:
    tags = tags_of("flv")
    kinds = {(tag.kind, describe(tag).codec) for tag in tags}
    assert kinds == {(SCRIPT, None), (VIDEO, "h264"), (AUDIO, "aac")}
    with av.open(io.BytesIO(encode(tags)), format="flv") as container:
        demuxed = [(p.dts, p.size) for p in container.demux(video=0) if p.size]
    ours = [
        (tag.timestamp, len(tag.payload) - describe(tag).body)
        for tag in tags
        if tag.kind == VIDEO and describe(tag).is_frame
    ]
    assert demuxed == ours
    assert sum(describe(tag).is_keyframe for tag in tags if tag.kind == VIDEO) == 5


def test_ffmpeg_writes_hevc_in_the_enhanced_form() -> None:
    facts = [describe(tag) for tag in tags_of("hevc") if tag.kind == VIDEO]
    assert {fact.codec for fact in facts} == {"hevc"}
    assert sum(fact.is_config for fact in facts) == 1
    assert sum(fact.is_keyframe for fact in facts) == 4


def test_a_glance_never_overlooks_a_beginning() -> None:
    for kind in (AUDIO, VIDEO, SCRIPT):
        for first in range(256):
            for second in range(8):
                tag = Tag(kind, 0, bytes([first, second]) + b"avc1hvc1" + bytes(12))
                facts = describe(tag)
                key = facts.is_keyframe and kind == VIDEO
                assert may_begin(tag) or not (facts.is_config or key)
        assert isinstance(may_begin(Tag(kind, 0, b"")), bool)
