"""Pure: how a feed is doing, in figures and in words a streamer can act on."""

from collections import deque
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

_REMEMBERED = 60.0  # seconds a warning is shown after it was last true
_MOST_WARNINGS = 8
_MEASURED = 5  # segments a bit rate is taken over


@dataclass(slots=True)
class FeedStats:
    """Counts and facts of one feed since ``since`` (Unix seconds).

    ``late`` and ``dropped`` count packets, ``lost`` segments that could not be kept, ``restarts``
    how often the packaging process was started again. ``listing_delay_s`` is how long the last
    segment took from the arrival of the keyframe that closed it to its line in the playlist.
    """

    since: float
    encoder: str = ""
    codecs: str = ""
    width: int | None = None
    height: int | None = None
    frame_rate: Fraction | None = None
    keyframe_interval_us: int | None = None
    segments: int = 0
    late: int = 0
    dropped: int = 0
    lost: int = 0
    restarts: int = 0
    bytes: int = 0
    listing_delay_s: float | None = None
    _recent: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=_MEASURED))
    _warnings: dict[str, tuple[str, float]] = field(default_factory=dict)

    @property
    def bit_rate(self) -> int:
        """Bits a second over the last few segments; 0 before the first."""
        duration_us = sum(duration for _, duration in self._recent)
        return sum(size for size, _ in self._recent) * 8_000_000 // max(duration_us, 1)

    def listed(self, size: int, duration_us: int) -> None:
        """One more segment stands in the playlist."""
        self.segments += 1
        self.bytes += size
        self._recent.append((size, duration_us))

    def warn(self, code: str, text: str, now: float) -> bool:
        """Show a warning for a while; true if it is a new one, worth a line in a log."""
        new = code not in self.warnings(now)
        self._warnings.pop(code, None)
        self._warnings[code] = (text, now)
        while len(self._warnings) > _MOST_WARNINGS:
            del self._warnings[next(iter(self._warnings))]
        return new

    def still(self, code: str, now: float) -> None:
        """What was warned of is true still; nothing if there was no such warning."""
        if code in self._warnings:
            self._warnings[code] = (self._warnings[code][0], now)

    def warnings(self, now: float) -> dict[str, str]:
        """The warnings of the last minute, by their codes."""
        return {code: text for code, (text, at) in self._warnings.items() if now - at < _REMEMBERED}

    def describe(self, now: float) -> dict[str, Any]:
        """Everything as JSON can have it: bits a second, seconds, counts."""
        interval = self.keyframe_interval_us
        return {
            "feed_since": self.since,
            "encoder": self.encoder,
            "codecs": self.codecs,
            "width": self.width,
            "height": self.height,
            "frame_rate": round(float(self.frame_rate), 3) if self.frame_rate else None,
            "keyframe_interval_s": None if interval is None else round(interval / 1e6, 3),
            "bit_rate": self.bit_rate,
            "bytes": self.bytes,
            "segments": self.segments,
            "segments_lost": self.lost,
            "packets_late": self.late,
            "packets_dropped": self.dropped,
            "restarts": self.restarts,
            "warnings": [{"code": code, "text": text} for code, text in self.warnings(now).items()],
        }
