"""Pure: reads the first frame of an MPEG-TS segment (ISO/IEC 13818-1 2.4.3, H.264, H.265)."""

from collections.abc import Iterator
from dataclasses import dataclass

CLOCK = 90_000  # ticks a second of every timestamp in MPEG-TS
PACKET = 188

_START_CODE = b"\x00\x00\x01"
_VIDEO_IDS = frozenset(range(0xE0, 0xF0))
_AUDIO_IDS = frozenset((*range(0xC0, 0xE0), 0xBD, 0xFD))

_H264_SLICES, _H264_IDR, _H264_SPS = range(1, 6), 5, 7
_HEVC_SLICES, _HEVC_CLEAN, _HEVC_SPS = range(32), range(16, 21), 33


@dataclass(frozen=True, slots=True)
class AccessUnit:
    """The first frame of a track in a segment.

    ``pts`` counts 90 kHz ticks; ``head`` is the beginning of its elementary stream bytes.
    """

    pts: int
    head: bytes


def first_access_unit(segment: bytes, *, video: bool, limit: int = 8192) -> AccessUnit | None:
    """The first timed video (else audio) frame of a segment, or ``None`` if it has none.

    ``limit`` bounds ``head`` in bytes.
    """
    wanted = _VIDEO_IDS if video else _AUDIO_IDS
    found_pid, pts, parts, size = -1, 0, list[bytes](), 0
    for pid, starts, payload in _payloads(segment):
        if found_pid < 0:
            if starts and payload[:3] == _START_CODE and len(payload) >= 14:
                if payload[3] in wanted and payload[7] & 0x80:
                    found_pid, pts = pid, _timestamp(payload[9:14])
                    payload = payload[9 + payload[8] :]
                else:
                    continue
            else:
                continue
        elif pid != found_pid:
            continue
        elif starts:
            break
        parts.append(payload)
        size += len(payload)
        if size >= limit:
            break
    return AccessUnit(pts, b"".join(parts)[:limit]) if found_pid >= 0 else None


def starts_clean(codec: str, head: bytes) -> bool:
    """Whether a player that has seen nothing before can decode from this H.264 or HEVC frame on.

    True for an IDR picture (or an HEVC BLA) that comes with its parameter sets. An open group
    of pictures (HEVC CRA, H.264 recovery point) needs the segment before it, so it is not.
    """
    seen_parameters = False
    for unit in _nal_types(codec, head):
        if codec == "hevc":
            if unit in _HEVC_SLICES:
                return seen_parameters and unit in _HEVC_CLEAN
            seen_parameters |= unit == _HEVC_SPS
        else:
            if unit in _H264_SLICES:
                return seen_parameters and unit == _H264_IDR
            seen_parameters |= unit == _H264_SPS
    return False


def _nal_types(codec: str, data: bytes) -> Iterator[int]:
    position = data.find(_START_CODE)
    while 0 <= position < len(data) - 3:
        header = data[position + 3]
        yield (header >> 1) & 0x3F if codec == "hevc" else header & 0x1F
        position = data.find(_START_CODE, position + 3)


def _payloads(segment: bytes) -> Iterator[tuple[int, bool, bytes]]:
    """(pid, whether a unit starts here, payload) of each packet that carries any."""
    for start in range(0, len(segment) - PACKET + 1, PACKET):
        flags, low, control = segment[start + 1], segment[start + 2], segment[start + 3]
        if not control & 0x10:
            continue
        skip = 5 + segment[start + 4] if control & 0x20 else 4
        payload = segment[start + skip : start + PACKET]
        yield (flags & 0x1F) << 8 | low, bool(flags & 0x40), payload


def _timestamp(field: bytes) -> int:
    return (
        (field[0] >> 1 & 7) << 30 | field[1] << 22 | field[2] >> 1 << 15 | field[3] << 7
        | field[4] >> 1
    )  # fmt: skip
