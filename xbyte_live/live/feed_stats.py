"""Pure: the figures of a feed, and its warnings in words a streamer can act on."""

from collections import deque
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

_SHOWN_FOR = 60.0  # seconds after it was last true
_MOST_WARNINGS = 8
_BIT_RATE_SEGMENTS = 5


@dataclass(slots=True)
class FeedStats:
    """Counts and formats of one feed since ``since`` (Unix seconds).

    ``late`` and ``dropped`` count packets, ``lost`` segments that could not be stored or listed,
    ``restarts`` the restarts of its child process. ``listing_delay_s`` is the time from the
    keyframe that closed the last segment to its line in the playlist.
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
    _recent: deque[tuple[int, int]] = field(
        default_factory=lambda: deque(maxlen=_BIT_RATE_SEGMENTS)
    )
    _warnings: dict[str, tuple[str, float]] = field(default_factory=dict)

    @property
    def bit_rate(self) -> int:
        """Bits a second over the last few segments; 0 before the first."""
        duration_us = sum(duration for _, duration in self._recent)
        return sum(size for size, _ in self._recent) * 8_000_000 // max(duration_us, 1)

    def add_segment(self, size: int, duration_us: int) -> None:
        """Count a segment that was added to the playlist."""
        self.segments += 1
        self.bytes += size
        self._recent.append((size, duration_us))

    def warn(self, code: str, text: str, now: float) -> bool:
        """Show a warning for a minute; return whether it was not shown already."""
        new = code not in self.warnings(now)
        self._warnings.pop(code, None)
        self._warnings[code] = (text, now)
        while len(self._warnings) > _MOST_WARNINGS:
            del self._warnings[next(iter(self._warnings))]
        return new

    def keep_warning(self, code: str, now: float) -> None:
        """Show a warning for another minute, if it is shown."""
        if code in self._warnings:
            self._warnings[code] = (self._warnings[code][0], now)

    def warnings(self, now: float) -> dict[str, str]:
        """The warnings of the last minute, by their codes."""
        return {code: text for code, (text, at) in self._warnings.items() if now - at < _SHOWN_FOR}

    def describe(self, now: float) -> dict[str, Any]:
        """All figures and warnings as JSON values, in bits a second, seconds and counts."""
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
