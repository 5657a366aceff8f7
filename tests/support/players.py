"""Players: FFmpeg's own HLS reader, and a viewer that looks at everything a player relies on."""

import asyncio
import hashlib
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any
from urllib.parse import urljoin

import av
import httpx2

SECOND = 1_000_000
_DISCONTINUITY = "#EXT-X-DISCONTINUITY"


@dataclass(frozen=True, slots=True)
class Listed:
    """A segment as the playlist has it; times in microseconds, ``at_us`` is its date."""

    msn: int
    uri: str
    size: int
    amount: int
    duration_us: int
    at_us: int
    discontinuity: bool

    @property
    def end_us(self) -> int:
        return self.at_us + self.duration_us


@dataclass(frozen=True, slots=True)
class Playlist:
    """A live media playlist."""

    segments: tuple[Listed, ...]
    target_s: int
    discontinuity_sequence: int
    ended: bool

    @property
    def first(self) -> int:
        return self.segments[0].msn

    @property
    def last(self) -> int:
        return self.segments[-1].msn

    @property
    def discontinuities(self) -> int:
        """How many there have been since the very first segment."""
        return self.discontinuity_sequence + sum(s.discontinuity for s in self.segments)


def read_playlist(text: str) -> Playlist:
    """A media playlist as RFC 8216bis has it, read by the letter."""
    head: dict[str, str] = {}
    now: dict[str, str] = {}
    segments: list[Listed] = []
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if not line.startswith("#") and line:
            msn = int(head["#EXT-X-MEDIA-SEQUENCE"]) + len(segments)
            segments.append(_listed(msn, line, now))
            now = {}
        elif name in _OF_SEGMENTS:
            assert name not in now
            now[name] = value
        else:
            head[name] = value
    assert not now
    return Playlist(
        tuple(segments),
        int(head["#EXT-X-TARGETDURATION"]),
        int(head.get("#EXT-X-DISCONTINUITY-SEQUENCE", 0)),
        "#EXT-X-ENDLIST" in head,
    )


_OF_SEGMENTS = {
    "#EXTINF",
    "#EXT-X-PROGRAM-DATE-TIME",
    "#EXT-X-XBYTE-SEGMENT",
    _DISCONTINUITY,
}


def _listed(msn: int, uri: str, tags: dict[str, str]) -> Listed:
    price = dict(pair.split("=") for pair in tags["#EXT-X-XBYTE-SEGMENT"].split(","))
    at = datetime.fromisoformat(tags["#EXT-X-PROGRAM-DATE-TIME"])
    return Listed(
        msn,
        uri,
        int(price["BYTES"]),
        int(price["AMOUNT"]),
        round(float(tags["#EXTINF"].rstrip(",")) * SECOND),
        round(at.timestamp() * SECOND),
        _DISCONTINUITY in tags,
    )


class Viewer:
    """Follows a live playlist by blocking reload, takes what is free, and holds it to its word.

    A segment never changes once it is listed, is numbered on, has the bytes that were promised,
    and no longer a duration than the target; the clock goes on within each span.
    """

    def __init__(self, http: httpx2.AsyncClient, url: str) -> None:
        self._http = http
        self._url = url
        self.listed: dict[int, Listed] = {}
        self.data: dict[int, bytes] = {}
        self.playlist: Playlist | None = None

    @property
    def segments(self) -> list[Listed]:
        """Everything that was ever listed, in order."""
        return [self.listed[msn] for msn in sorted(self.listed)]

    async def until(
        self, holds: Callable[[Playlist], bool], *, within: float = 30, take: bool = True
    ) -> Playlist:
        """Follow the playlist until it is like that."""
        async with asyncio.timeout(within):
            while True:
                playlist = await self.reload()
                if playlist is None:
                    await asyncio.sleep(0.05)  # only a playlist that is there can be waited for
                    continue
                if take:
                    await self.take_free()
                if holds(playlist):
                    return playlist

    async def until_last(self, msn: int, *, within: float = 30) -> Playlist:
        """Follow the playlist until that segment is listed."""
        return await self.until(lambda playlist: playlist.last >= msn, within=within)

    async def reload(self) -> Playlist | None:
        """The playlist once it has something new; ``None`` before the first broadcast."""
        known = self.playlist
        waiting = known is not None and not known.ended and known.segments
        asked = {"_HLS_msn": str(known.last + 1)} if known and waiting else {}
        answer = await self._http.get(self._url, params=asked)
        if answer.status_code == 404:
            return None
        assert answer.status_code == 200, answer.text
        self.playlist = read_playlist(answer.text)
        self._check(known, self.playlist)
        return self.playlist

    def _check(self, known: Playlist | None, now: Playlist) -> None:
        for segment in now.segments:
            assert self.listed.setdefault(segment.msn, segment) == segment
            assert round(segment.duration_us / SECOND) <= now.target_s
        for before, after in pairwise(now.segments):
            assert after.at_us >= before.end_us - 2000
            assert after.discontinuity or after.at_us <= before.end_us + 2000
        if known is not None and known.segments and not known.ended:
            assert now.first >= known.first
            assert now.last >= known.last
            assert now.target_s == known.target_s
            assert now.first <= known.last + 1
            left = [self.listed[msn] for msn in range(known.first, now.first)]
            gone = sum(segment.discontinuity for segment in left)
            assert now.discontinuity_sequence == known.discontinuity_sequence + gone

    async def take_free(self) -> None:
        """Fetch what is listed, free and not fetched yet."""
        assert self.playlist is not None
        for segment in self.playlist.segments:
            if segment.amount == 0 and segment.msn not in self.data:
                self.data[segment.msn] = await self.fetch(segment)

    async def fetch(self, segment: Listed) -> bytes:
        """The bytes of a free segment, which are what was promised."""
        answer = await self._http.get(urljoin(self._url, segment.uri))
        assert answer.status_code == 200, answer.text
        assert len(answer.content) == segment.size
        assert answer.headers["etag"].strip('"') == hashlib.sha256(answer.content).hexdigest()
        return answer.content

    async def fetch_all(self) -> None:
        """Fetch all that is listed now once more: it is what it was."""
        assert self.playlist is not None
        for segment in self.playlist.segments:
            data = await self.fetch(segment)
            assert self.data.setdefault(segment.msn, data) == data

    async def played(self) -> "list[Span]":
        """Everything that was taken, decoded, a span from each discontinuity to the next."""
        spans: list[list[Listed]] = []
        for segment in self.segments:
            if segment.msn not in self.data:
                continue
            if segment.discontinuity or not spans:
                spans.append([])
            spans[-1].append(segment)
        return [await asyncio.to_thread(self._play, span) for span in spans]

    async def stock(self, pictures: int | None = None) -> "Played":
        """What FFmpeg's HLS reader makes of the playlist, from its oldest segment on."""
        return await stock(self._url, pictures)

    def _play(self, segments: list[Listed]) -> "Span":
        data = b"".join(self.data[segment.msn] for segment in segments)
        played = decode(io.BytesIO(data), format="mpegts")
        return Span(segments[0], segments[-1], sum(s.duration_us for s in segments), played)


@dataclass(slots=True)
class Track:
    """Decoded frames of one track: when each begins, and how long the last one is, in seconds."""

    times: list[float] = field(default_factory=list)
    last: float = 0.0
    corrupt: int = 0

    @property
    def length(self) -> float:
        return max(self.times) + self.last - min(self.times)

    @property
    def jumps(self) -> list[float]:
        """Steps of time no media of ours takes: another clock, or media that is missing."""
        steps = (after - before for before, after in pairwise(self.times))
        return [step for step in steps if not 0 <= step < 0.2]


@dataclass(slots=True)
class Played:
    """What came out of decoding."""

    picture: Track = field(default_factory=Track)
    sound: Track = field(default_factory=Track)

    @property
    def tracks(self) -> list[Track]:
        return [track for track in (self.picture, self.sound) if track.times]


@dataclass(frozen=True, slots=True)
class Span:
    """The segments between two discontinuities, played as one."""

    first: Listed
    last: Listed
    duration_us: int
    played: Played

    def check(self) -> None:
        """Nothing is corrupt or missing, and it lasts as long as was promised."""
        assert self.played.tracks
        for track in self.played.tracks:
            assert (track.corrupt, track.jumps) == (0, [])
        longest = max(track.length for track in self.played.tracks)
        assert abs(longest - self.duration_us / SECOND) < 0.15


def decode(source: Any, pictures: int | None = None, **how: Any) -> Played:
    """Decode everything of a file or URL, or until so many pictures were seen."""
    played = Played()
    with av.open(source, timeout=(10, 20), **how) as container:
        tracks = (*container.streams.video[:1], *container.streams.audio[:1])
        for packet in container.demux(*tracks):
            _note(played, packet.stream.type, packet.decode())
            if pictures is not None and len(played.picture.times) >= pictures:
                break
    return played


def _note(played: Played, kind: str, frames: Iterable[Any]) -> None:
    track = played.picture if kind == "video" else played.sound
    for frame in frames:
        track.times.append(frame.time)
        track.corrupt += bool(frame.is_corrupt)
        if kind == "audio":
            track.last = frame.samples / frame.sample_rate
        elif frame.duration:
            track.last = float(frame.duration * frame.time_base)


async def stock(url: str, pictures: int | None = None) -> Played:
    """Play a stream with FFmpeg's HLS reader, from its oldest segment until it ends."""
    how = {"options": {"live_start_index": "0"}, "format": "hls"}
    return await asyncio.to_thread(decode, url, pictures, **how)
