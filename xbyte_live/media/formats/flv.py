"""Pure: FLV tags, the form in which RTMP carries media (FLV 10.1 annex E, enhanced RTMP v2)."""

from dataclasses import dataclass

from xbyte_live.errors import MediaError

AUDIO, VIDEO, SCRIPT = 8, 9, 18
MAX_PAYLOAD = (1 << 24) - 1

_HEADER, _TAG, _TRAILER = 9, 11, 4
_WRAP = 1 << 32

_VIDEO_CODECS = {
    2: "h263", 3: "screen video", 4: "vp6", 5: "vp6", 6: "screen video", 7: "h264", 8: "h263",
    9: "mpeg4", 12: "hevc",
}  # fmt: skip
_AUDIO_CODECS = {
    0: "pcm", 1: "adpcm", 2: "mp3", 3: "pcm", 4: "nellymoser", 5: "nellymoser", 6: "nellymoser",
    7: "g.711", 8: "g.711", 10: "aac", 11: "speex", 14: "mp3",
}  # fmt: skip
_FOURCC = {
    b"avc1": "h264", b"hvc1": "hevc", b"vvc1": "vvc", b"av01": "av1", b"vp08": "vp8",
    b"vp09": "vp9", b"mp4a": "aac", b".mp3": "mp3", b"Opus": "opus", b"fLaC": "flac",
    b"ac-3": "ac3", b"ec-3": "eac3",
}  # fmt: skip
_WITH_COMPOSITION = frozenset({"h264", "hevc", "vvc"})
_ENHANCED_SOUND = 9
_KEYFRAME, _COMMAND = 1, 5
_START, _FRAMES, _END, _FRAMES_X, _METADATA, _TS_START, _MOD_EX = 0, 1, 2, 3, 4, 5, 7
_VIDEO_MULTITRACK, _AUDIO_MULTITRACK = 6, 5


@dataclass(frozen=True, slots=True)
class Tag:
    """One audio, video or script tag; ``timestamp`` in ms, unwrapped, may exceed 32 bits."""

    kind: int
    timestamp: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class TagFacts:
    """The header of a tag's payload.

    ``codec`` is ``None`` if it is unknown or that of a further track of a multitrack feed.
    ``body`` is the offset of the codec's own bytes, which are its decoder configuration with
    ``is_config`` and coded media with ``is_frame``.
    """

    codec: str | None = None
    is_config: bool = False
    is_frame: bool = False
    is_keyframe: bool = False
    is_end_of_sequence: bool = False
    composition_ms: int = 0
    body: int = 0


def file_header(*, audio: bool, video: bool) -> bytes:
    """The nine bytes an FLV file begins with, and the PreviousTagSize0 behind them (E.2)."""
    return b"FLV\x01" + bytes([audio << 2 | video]) + b"\0\0\0\x09" + b"\0\0\0\0"


def encode_tag(tag: Tag) -> bytes:
    """A tag as in a file, its PreviousTagSize included; the timestamp modulo 2**32 (E.4.1).

    Raises ``ValueError`` for a payload of 16 MiB or more.
    """
    size, time = len(tag.payload), tag.timestamp % _WRAP
    if size > MAX_PAYLOAD:
        raise ValueError(f"an FLV tag holds less than 16 MiB, not {size} bytes")
    head = (
        tag.kind << 80 | size << 56 | (time & 0xFFFFFF) << 32 | time >> 24 << 24
    ).to_bytes(_TAG, "big")  # fmt: skip
    return b"".join((head, tag.payload, (size + _TAG).to_bytes(_TRAILER, "big")))


class TagReader:
    """Splits a byte stream into tags: ``feed`` bytes, then ``next_tag`` until ``None``.

    It holds the bytes fed and not yet returned, and at most one unfinished tag (16 MiB).
    Timestamps are unwrapped: each is the one nearest to the tag's before.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._at = 0
        self._started = False
        self._last: int | None = None

    def feed(self, data: bytes) -> None:
        """Add bytes, split anywhere."""
        if self._at:
            del self._data[: self._at]
            self._at = 0
        self._data += data

    def next_tag(self) -> Tag | None:
        """The next whole tag, ``None`` while there is none.

        Raises ``MediaError`` for bytes that are not FLV.
        """
        if not self._started and not self._read_header():
            return None
        data, at = self._data, self._at
        if len(data) - at < _TAG:
            return None
        size = int.from_bytes(data[at + 1 : at + 4], "big")
        end = at + _TAG + size
        if len(data) < end + _TRAILER:
            return None
        if int.from_bytes(data[end : end + _TRAILER], "big") != size + _TAG:
            raise MediaError("its FLV tags are damaged")
        self._at = end + _TRAILER
        time = data[at + 7] << 24 | int.from_bytes(data[at + 4 : at + 7], "big")
        # one copy out of a view, since a slice of a bytearray would be a copy of its own
        with memoryview(data) as view:
            payload = bytes(view[at + _TAG : end])
        return Tag(data[at] & 0x1F, self._unwrap(time), payload)

    def _read_header(self) -> bool:
        if len(self._data) < _HEADER + _TRAILER:
            return False
        if self._data[:4] != b"FLV\x01" or self._data[5:9] != b"\0\0\0\x09":
            raise MediaError("it is not FLV")
        self._at, self._started = _HEADER + _TRAILER, True
        return True

    def _unwrap(self, time: int) -> int:
        if self._last is not None:
            time = self._last + (time - self._last + _WRAP // 2) % _WRAP - _WRAP // 2
        self._last = time
        return time


def may_begin(tag: Tag) -> bool:
    """Whether a tag may be a keyframe, configuration or script, at a glance; most are not."""
    payload = tag.payload
    if not payload or tag.kind not in (AUDIO, VIDEO):
        return tag.kind == SCRIPT
    if tag.kind == AUDIO:
        return payload[0] >> 4 == _ENHANCED_SOUND or payload[1:2] == b"\0"
    if payload[0] & 0x80:
        plain = payload[0] & 0xF in (_FRAMES, _FRAMES_X)
        return not plain or payload[0] >> 4 & 7 == _KEYFRAME
    return payload[0] >> 4 == _KEYFRAME or payload[1:2] == b"\0"


def describe(tag: Tag) -> TagFacts:
    """Parse the header of a tag's payload; never raises."""
    payload = tag.payload
    if tag.kind == VIDEO and payload:
        return _enhanced_video(payload) if payload[0] & 0x80 else _plain_video(payload)
    if tag.kind == AUDIO and payload:
        enhanced = payload[0] >> 4 == _ENHANCED_SOUND
        return _enhanced_audio(payload) if enhanced else _plain_audio(payload)
    return TagFacts()


def _plain_video(payload: bytes) -> TagFacts:
    """E.4.3.1; 12 for HEVC is no part of it, but what encoders sent before enhanced RTMP."""
    codec, frame = _VIDEO_CODECS.get(payload[0] & 0xF), payload[0] >> 4
    if codec is None or frame == _COMMAND:
        return TagFacts()
    if codec not in _WITH_COMPOSITION:
        return TagFacts(codec, is_frame=True, is_keyframe=frame == _KEYFRAME, body=1)
    if len(payload) < 5:
        return TagFacts()
    return _coded(codec, payload[1], frame == _KEYFRAME, _signed24(payload[2:5]), body=5)


def _enhanced_video(payload: bytes) -> TagFacts:
    frame, packet = payload[0] >> 4 & 7, payload[0] & 0xF
    packet, at = _past_extensions(payload, packet)
    if frame == _COMMAND and packet != _METADATA:
        return TagFacts()
    packet, codec, at = _codec(payload, packet, at, _VIDEO_MULTITRACK)
    if codec is None:
        return TagFacts()
    if packet == _FRAMES and codec in _WITH_COMPOSITION:
        if len(payload) < at + 3:
            return TagFacts()
        offset = _signed24(payload[at : at + 3])
        return _coded(codec, _FRAMES, frame == _KEYFRAME, offset, body=at + 3)
    if packet == _FRAMES_X:
        packet = _FRAMES
    elif packet == _TS_START:
        packet = _START
    return _coded(codec, packet, frame == _KEYFRAME, 0, body=at)


def _plain_audio(payload: bytes) -> TagFacts:
    """E.4.2.1."""
    codec = _AUDIO_CODECS.get(payload[0] >> 4)
    if codec is None:
        return TagFacts()
    if codec != "aac":
        return TagFacts(codec, is_frame=True, is_keyframe=True, body=1)
    if len(payload) < 2:
        return TagFacts()
    return _coded(codec, payload[1], True, 0, body=2)


def _enhanced_audio(payload: bytes) -> TagFacts:
    packet, at = _past_extensions(payload, payload[0] & 0xF)
    packet, codec, at = _codec(payload, packet, at, _AUDIO_MULTITRACK)
    return TagFacts() if codec is None else _coded(codec, packet, True, 0, body=at)


def _coded(codec: str, packet: int, key: bool, offset: int, *, body: int) -> TagFacts:
    """The three packet types both forms share; others carry nothing a segment holds."""
    if packet == _START:
        return TagFacts(codec, is_config=True, body=body)
    if packet == _END:
        return TagFacts(codec, is_end_of_sequence=True, body=body)
    if packet != _FRAMES:
        return TagFacts(codec)
    return TagFacts(codec, is_frame=True, is_keyframe=key, composition_ms=offset, body=body)


def _past_extensions(payload: bytes, packet: int) -> tuple[int, int]:
    """(packet type, position behind it) with ModEx prefixes skipped."""
    at = 1
    while packet == _MOD_EX and at < len(payload):
        size, at = payload[at] + 1, at + 1
        if size == 256:
            size, at = int.from_bytes(payload[at : at + 2], "big") + 1, at + 2
        at += size
        packet = payload[at] & 0xF if at < len(payload) else _MOD_EX
        at += 1
    return packet, at


def _codec(payload: bytes, packet: int, at: int, multitrack: int) -> tuple[int, str | None, int]:
    """(packet type, codec, position of the body); of several tracks only track 0 is understood."""
    several = packet == multitrack
    if several:
        if len(payload) <= at or payload[at] >> 4:
            return packet, None, at
        packet, at = payload[at] & 0xF, at + 1
    codec, at = _FOURCC.get(payload[at : at + 4]), at + 4
    if several:
        if payload[at : at + 1] != b"\0":
            return packet, None, at
        at += 1
    return packet, codec, at


def _signed24(data: bytes) -> int:
    value = int.from_bytes(data, "big")
    return value - (1 << 24) if value & 0x800000 else value
