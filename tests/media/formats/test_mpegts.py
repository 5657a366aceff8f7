"""What a segment begins with, read from its MPEG-TS packets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbyte_live.media.formats.mpegts import PACKET, AccessUnit, first_access_unit, starts_clean

PAT, VIDEO_PID, AUDIO_PID = 0, 0x100, 0x101


def packet(pid: int, payload: bytes, *, start: bool = False) -> bytes:
    """One packet, padded by its adaptation field."""
    room = PACKET - 4 - len(payload)
    control = 0x30 if room else 0x10
    filling = b"" if not room else bytes([room - 1]) + (b"\0" + b"\xff" * (room - 2))[: room - 1]
    head = bytes([0x47, (0x40 if start else 0) | pid >> 8, pid & 0xFF, control])
    return head + filling + payload


def pes(stream: int, pts: int | None, data: bytes) -> bytes:
    header = b"\0\0\1" + bytes([stream]) + b"\0\0\x80"
    if pts is None:
        return header + b"\0\0" + data
    field = bytes(
        [
            0x21 | pts >> 29 & 0x0E,
            pts >> 22 & 0xFF,
            pts >> 14 & 0xFE | 1,
            pts >> 7 & 0xFF,
            pts << 1 & 0xFE | 1,
        ]
    )
    return header + b"\x80\x05" + field + data


def units(*headers: int) -> bytes:
    """Annex B units, only their headers given."""
    return b"".join(b"\0\0\0\1" + bytes([header, 0x80, 0x11]) for header in headers)


SEGMENT = (
    packet(PAT, b"\0tables", start=True)
    + packet(VIDEO_PID, b"the rest of a frame")
    + packet(AUDIO_PID, pes(0xC0, 7_000, b"sound"), start=True)
    + packet(VIDEO_PID, pes(0xE0, 2**32 + 9, b"one "), start=True)
    + packet(AUDIO_PID, b"more sound")
    + packet(VIDEO_PID, b"frame")
    + packet(VIDEO_PID, pes(0xE0, 12_000, b"the next"), start=True)
)


def test_the_first_frame_is_put_together() -> None:
    assert first_access_unit(SEGMENT, video=True) == AccessUnit(2**32 + 9, b"one frame")
    assert first_access_unit(SEGMENT, video=False) == AccessUnit(7_000, b"soundmore sound")


def test_no_more_is_read_than_asked_for() -> None:
    assert first_access_unit(SEGMENT, video=True, limit=5) == AccessUnit(2**32 + 9, b"one f")


def test_a_segment_without_the_track_has_no_first_frame() -> None:
    only_sound = packet(AUDIO_PID, pes(0xC0, 1, b"x"), start=True)
    assert first_access_unit(only_sound, video=True) is None
    assert first_access_unit(b"", video=True) is None
    untimed = packet(VIDEO_PID, pes(0xE0, None, b"x"), start=True)
    assert first_access_unit(untimed, video=True) is None


def test_private_streams_are_sound() -> None:
    segment = packet(AUDIO_PID, pes(0xBD, 5, b"ac-3"), start=True)
    assert first_access_unit(segment, video=False) == AccessUnit(5, b"ac-3")


@pytest.mark.parametrize(
    ("codec", "head", "clean"),
    [
        ("h264", units(0x09, 0x06, 0x67, 0x68, 0x65), True),
        ("h264", units(0x09, 0x67, 0x68, 0x41), False),
        ("h264", units(0x09, 0x65), False),
        ("h264", units(0x09, 0x67, 0x68), False),
        ("h264", b"", False),
        ("hevc", units(0x46, 0x40, 0x42, 0x44, 0x26), True),
        ("hevc", units(0x40, 0x42, 0x44, 0x28), True),
        ("hevc", units(0x40, 0x42, 0x44, 0x2A), False),
        ("hevc", units(0x02), False),
    ],
    ids=["idr", "recovery point", "no sps", "no picture", "nothing", "idr", "idr-n-lp", "cra", "p"],
)
def test_where_a_player_can_begin(codec: str, head: bytes, clean: bool) -> None:
    assert starts_clean(codec, head) == clean


@given(st.binary(max_size=800), st.booleans())
def test_any_bytes_are_read(data: bytes, video: bool) -> None:
    unit = first_access_unit(data, video=video)
    assert unit is None or 0 <= unit.pts < 2**33
    assert starts_clean("hevc", data) in (True, False)


@given(st.lists(st.binary(min_size=184, max_size=184), max_size=6), st.booleans())
def test_any_packets_are_read(payloads: list[bytes], video: bool) -> None:
    segment = b"".join(
        packet(VIDEO_PID, pes(0xE0, 3, b"") + payload[:100], start=True) for payload in payloads
    )
    unit = first_access_unit(segment, video=video)
    assert (unit is None) == (not payloads or not video)
