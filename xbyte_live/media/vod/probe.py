"""Adapter: opens an untrusted media file, and reads the packets of its chosen streams.

The file is handed to FFmpeg as an open stream with a short list of demuxers and no protocols,
so a playlist, a concat script or a reference inside a file cannot make it open anything else.
"""

import os
import stat
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from xbyte_live.errors import MediaError
from xbyte_live.media.formats.mp4 import check_sample_count

KNOWN = "MP4, MOV, MKV, WebM, FLV, TS, AVI, MP3, M4A, AAC, AC-3, FLAC, Ogg, WAV and AIFF"
MAX_PIXELS = 8192 * 8192

_CONTAINER_OPTIONS = {
    "format_whitelist": "mov,matroska,flv,mpegts,mpeg,avi,mp3,aac,ac3,eac3,flac,ogg,wav,aiff",
    "protocol_whitelist": "none",
    "max_streams": "64",
}
_TIMEOUT = 120.0  # seconds FFmpeg may look for streams
_BUFFER = 1 << 18
_EMPTY_PACKET = 188  # bytes an empty packet counts for

_STILL = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_SIDE_SOUND = Disposition.comment | Disposition.descriptions | Disposition.visual_impaired

_AnyStream = TypeVar("_AnyStream", bound=Stream)


class _Input:
    """A file for FFmpeg; a disk error is kept in ``failed``, not raised through C."""

    def __init__(self, path: Path) -> None:
        try:
            # before opening, since opening a named pipe would wait for its other end
            if not stat.S_ISREG(path.stat().st_mode):
                raise MediaError("it is not a file")
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise MediaError(f"it cannot be opened ({error.strerror})") from None
        self.size = os.fstat(self._file.fileno()).st_size
        self.failed: OSError | None = None
        # FFmpeg guesses formats better with the extension; its messages need no more of the name
        self.name = "media" + "".join(c for c in path.suffix.lower()[:8] if c.isalnum() or c == ".")

    def read(self, size: int) -> bytes:
        try:
            return b"" if self.failed else self._file.read(size) or b""
        except OSError as error:
            self.failed = error
            return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)
        except OSError:
            return -1

    def tell(self) -> int:
        return self._file.tell()

    def check(self) -> None:
        """Refuse a file that must not reach FFmpeg."""
        if self.size == 0:
            raise MediaError("it is empty")
        try:
            check_sample_count(self._file, self.size)
        except OSError as error:
            raise MediaError(f"it cannot be read ({error.strerror})") from None

    def close(self) -> None:
        self._file.close()


class MediaFile:
    """An open media file with at most one video and one audio stream chosen; context manager.

    Raises ``MediaError``, one sentence about "it", for anything but readable media.
    """

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        self._input = _Input(path)
        try:
            self._container = _open(self._input)
            streams = self._container.streams
            options = {"max_pixels": str(MAX_PIXELS), "threads": str(threads)}
            pictures = [s for s in streams.video if not s.disposition & _STILL]
            sounds = [s for s in streams.audio if not s.disposition & _SIDE_SOUND]
            self.video = _pick(pictures, options)
            self.audio = _pick(sounds or streams.audio, options)
        except BaseException:
            self._input.close()
            raise
        covers = (s for s in streams.video if s.disposition & Disposition.attached_pic)
        self._cover = next((s for s in covers if s.codec_context is not None), None)
        self._read_from = [*self.chosen, *([self._cover] if self._cover else [])]
        for stream in streams:
            if stream not in self._read_from:
                stream.discard = Discard.all
        self.size = self._input.size
        self.format = self._container.format.name
        self.cover: VideoFrame | None = None
        self._skipped = 0
        self._dropped: set[int] = set()
        self._packets = self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._packets.close()
        self._container.close()
        self._input.close()

    @property
    def chosen(self) -> tuple[VideoStream | AudioStream, ...]:
        """The streams to package, video first."""
        return tuple(stream for stream in (self.video, self.audio) if stream is not None)

    @property
    def has_others(self) -> bool:
        """Whether other streams in the file could be longer than the chosen ones."""
        return len(self._container.streams) > len(self.chosen)

    @property
    def duration_us(self) -> int | None:
        """The duration the container states, if any."""
        duration = self._container.duration
        return duration if duration and duration > 0 else None

    @property
    def splices(self) -> bool:
        """Whether its clock may jump (broadcast formats)."""
        return self.format in ("mpegts", "mpeg")

    @property
    def untimed(self) -> bool:
        """Whether its container stores decoding order but no presentation times."""
        return self.format == "avi"

    @property
    def title(self) -> str | None:
        """The title in its tags, on one line of at most 200 characters."""
        for tags in (self._container.metadata, *(s.metadata for s in self.chosen)):
            for key, value in tags.items():
                line = "".join(c for c in " ".join(value.split()) if c.isprintable())
                if key.lower() == "title" and line:
                    return line[:200]
        return None

    def drop(self, stream: Stream) -> None:
        """Remove a stream from the chosen ones; its later packets are skipped."""
        self._dropped.add(stream.index)
        if stream is self.video:
            if self._skipped:
                raise MediaError("its video has no keyframe to start at")
            self.video = None
        elif stream is self.audio:
            self.audio = None

    def load_index(self) -> None:
        """Make FFmpeg read an index at the end of the file; packets may be lost."""
        with suppress(av.FFmpegError):
            self._container.seek(0)

    def packets(self) -> "Generator[Packet[Any], None, None]":
        """The packets of the chosen streams, from where the last reader stopped.

        Video begins at its first keyframe; a cover picture goes to ``cover``. Raises
        ``MediaError`` for a damaged file or a disk error.
        """
        return self._packets

    def _read(self) -> "Generator[Packet[Any], None, None]":
        if not self.chosen:
            raise MediaError("there is no video and no sound in it")
        budget = 4 * self.size + (1 << 20)  # a crafted index can name the same bytes for ever
        waiting = self.video.index if self.video else None
        cover = self._cover.index if self._cover else None
        dropped = self._dropped
        try:
            for packet in self._demuxed():
                size, index = packet.size, packet.stream_index
                budget -= size or _EMPTY_PACKET
                if budget < 0:
                    raise MediaError("it is damaged: it refers to the same bytes over and over")
                if not size or index in dropped:
                    continue
                if index == waiting:
                    if not packet.is_keyframe:
                        self._skipped += 1
                        continue
                    waiting = None
                elif index == cover:
                    self.cover = self.cover or _decode_cover(packet)
                    continue
                yield packet
        except av.FFmpegError:
            raise MediaError("it is damaged") from None
        if self._input.failed:
            raise MediaError(f"it cannot be read ({self._input.failed.strerror})")

    def _demuxed(self) -> "Iterator[Packet[Any]]":
        # when streams appeared on the way, PyAV stumbles over them once it has read the last packet
        with suppress(IndexError):
            yield from self._container.demux(self._read_from)


def _open(file: _Input) -> InputContainer:
    file.check()
    try:
        return av.open(
            file,
            "r",
            options={"max_pixels": str(MAX_PIXELS), "threads": "1"},
            container_options=_CONTAINER_OPTIONS,
            metadata_errors="replace",
            buffer_size=_BUFFER,
            timeout=(_TIMEOUT, None),
        )
    except (av.FFmpegError, ValueError):
        if file.failed:
            raise MediaError(f"it cannot be read ({file.failed.strerror})") from None
        raise MediaError(f"it is damaged, cut off, or none of {KNOWN}") from None


def _pick(streams: Sequence[_AnyStream], options: dict[str, str]) -> _AnyStream | None:
    """The default stream, else the first; ``MediaError`` if FFmpeg has no decoder for it."""
    if not streams:
        return None
    picked = next((s for s in streams if s.disposition & Disposition.default), streams[0])
    # the stubs do not say so, but a stream without a decoder has no codec context
    if picked.codec_context is None:
        raise MediaError(f"its {picked.type} is of a kind that cannot be decoded")
    picked.codec_context.options = options
    return picked


def _decode_cover(packet: "Packet[Any]") -> VideoFrame | None:
    try:
        frames = packet.decode()
    except av.FFmpegError:
        return None
    return frames[0] if frames and isinstance(frames[0], VideoFrame) else None
