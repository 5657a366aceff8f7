"""An MP4 that claims more samples than memory could hold never reaches FFmpeg."""

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbyte_live.errors import MediaError
from xbyte_live.media.formats.mp4 import MAX_SAMPLES, check_sample_count


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def long_box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 1) + kind + struct.pack(">Q", 16 + len(body)) + body


def sizes(count: int) -> bytes:
    return box(b"stsz", bytes(4), struct.pack(">II", 1, count))


def durations(*entries: tuple[int, int]) -> bytes:
    rows = b"".join(struct.pack(">II", *entry) for entry in entries)
    return box(b"stts", bytes(4), struct.pack(">I", len(entries)), rows)


def movie(handler: bytes, *table: bytes) -> bytes:
    described = box(b"hdlr", bytes(8), handler)
    media = box(b"mdia", described, box(b"minf", box(b"stbl", *table)))
    return box(b"ftyp", b"isom") + box(b"moov", box(b"trak", media))


def check(data: bytes) -> None:
    file = io.BytesIO(data)
    check_sample_count(file, len(data))
    assert file.tell() == 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"#EXTM3U\n",
        movie(b"vide", sizes(MAX_SAMPLES), durations((MAX_SAMPLES, 512))),
        movie(b"soun", sizes(2**32 - 1), durations((2**32 - 1, 1))),
        box(b"moof", box(b"traf", box(b"trun", bytes(4), struct.pack(">I", 9)))),
        box(b"free", sizes(2**32 - 1)),
    ],
    ids=["empty", "text", "a long film", "PCM has no entry a sample", "fragment", "not a table"],
)
def test_what_may_pass(data: bytes) -> None:
    check(data)


@pytest.mark.parametrize(
    "data",
    [
        movie(b"vide", sizes(MAX_SAMPLES + 1), durations((MAX_SAMPLES + 1, 512))),
        movie(b"vide", sizes(2**32 - 1), durations((2**32 - 1, 1))),
        movie(b"soun", sizes(2**32 - 1), durations((2**32 - 1, 1024))),
        movie(b"vide", sizes(7_000_000)) + movie(b"vide", sizes(7_000_000)),
        long_box(b"moov", long_box(b"trak", sizes(2**32 - 1))),
        b"\0\0\0\0moov" + sizes(2**32 - 1),
        box(b"moof", box(b"traf", box(b"trun", bytes(4), struct.pack(">I", 2**31)))),
        box(b"moov", box(b"cmov", b"zlib")),
        box(b"moov") * 400_001,
    ],
    ids=["one too many", "video", "sound", "two", "long sizes", "open end", "fragment", "packed",
         "crumbs"],
)  # fmt: skip
def test_what_is_refused(data: bytes) -> None:
    with pytest.raises(MediaError):
        check(data)


@given(st.binary(max_size=200), st.integers(0, 60))
def test_damaged_boxes_do_no_harm(junk: bytes, at: int) -> None:
    whole = movie(b"vide", sizes(3), durations((3, 512)))
    for data in (junk, whole[:at] + junk + whole[at:], whole[:at]):
        try:
            check(data)
        except MediaError as error:
            assert "\n" not in str(error)
