"""Pure: splits a live feed into runs, spans of one codec configuration on one clock.

Publishers restart their encoders, reset their timestamps and add tracks in mid-air; a player
needs a discontinuity at each of these and at nothing else. A run with video starts at a keyframe
only, so a stray timestamp can neither break nor start one.
"""

from dataclasses import dataclass, field
from enum import Enum

BACKWARD_MS, FORWARD_MS = -1000, 10_000  # a jump beyond these means a new clock
_LONGEST_MS = 24 * 3_600_000  # timestamps of MPEG-TS turn over after 26.5 hours
_OVERDUE_MS = 25 * 3_600_000
_SKEW_MS = 3000  # what a track may start before or behind the other
_PATIENCE = 300  # packets that do not fit, one after another, before they are taken for a run
_AUDIO_PATIENCE = 3
_KEYLESS_MS = 9000
_PREROLL_MS = 100


class FrameAction(Enum):
    """What to do with a frame: drop it, put it into the run, start a new run with it."""

    DROP = "drop"
    KEEP = "keep"
    START = "start"


@dataclass(frozen=True, slots=True)
class Unit:
    """One coded frame: decode time in ms, and which configuration it is coded with."""

    video: bool
    time_ms: int
    key: bool
    config: object


@dataclass(slots=True)
class _Run:
    start_ms: int
    clock_ms: int
    video: object = None
    audio: object = None
    sealed: bool = False
    last_ms: dict[bool, int] = field(default_factory=dict)

    def config(self, unit: Unit) -> object:
        return self.video if unit.video else self.audio

    def add(self, unit: Unit) -> None:
        if unit.video:
            self.video = unit.config
        else:
            self.audio = unit.config


class Runs:
    """Decides for each frame of a feed in turn whether it fits the run.

    A run is open at first, and either track may join it; after ``seal`` a new track waits for
    the next keyframe, where a new run starts. ``end`` forgets the run.
    """

    def __init__(self) -> None:
        self._run: _Run | None = None
        self._waiting = self._pending = False
        self._keyless_ms = self._stray_ms = 0
        self._strays = 0

    @property
    def waits_for_keyframe(self) -> bool:
        """Whether video frames were dropped for want of a keyframe."""
        return self._waiting

    def seal(self) -> None:
        """Close the run to further tracks."""
        if self._run:
            self._run.sealed = True

    def end(self) -> None:
        """End the run; the next suitable frame starts another."""
        self._run = None

    def judge(self, unit: Unit) -> FrameAction:
        """Decide what to do with the next frame."""
        action = self._judge(unit)
        if action is FrameAction.DROP:
            if unit.video and not self._waiting:
                self._waiting, self._keyless_ms = True, unit.time_ms
            return action
        self._strays = 0
        if unit.video:
            self._waiting = False
        if action is FrameAction.START:
            self._run = _Run(unit.time_ms, unit.time_ms)
            self._waiting = self._pending = False
        run = self._run
        assert run is not None
        run.add(unit)
        run.clock_ms = max(run.clock_ms, unit.time_ms)
        run.last_ms[unit.video] = unit.time_ms
        return action

    def _judge(self, unit: Unit) -> FrameAction:
        run = self._run
        if run is None:
            return self._first(unit)
        if not self._same_clock(run, unit):
            return self._stray(run, unit)
        known = run.config(unit)
        if known is None and not run.sealed:
            return self._join(run, unit)
        if known != unit.config:
            return self._changed(run, unit)
        age = unit.time_ms - run.start_ms
        if unit.key and unit.video == (run.video is not None):
            if age > _LONGEST_MS or self._pending:
                return FrameAction.START
        elif age > _OVERDUE_MS:
            return FrameAction.START
        return FrameAction.KEEP

    def _first(self, unit: Unit) -> FrameAction:
        return FrameAction.START if self._decodable(unit) else FrameAction.DROP

    def _join(self, run: _Run, unit: Unit) -> FrameAction:
        early = not unit.video and unit.time_ms < run.start_ms - _PREROLL_MS
        return FrameAction.KEEP if self._decodable(unit) and not early else FrameAction.DROP

    def _decodable(self, unit: Unit) -> bool:
        """Whether a run may begin with it: a keyframe, or any frame if none comes for long."""
        if unit.key:
            return True
        if unit.time_ms < self._keyless_ms:
            self._keyless_ms = unit.time_ms
        return self._waiting and unit.time_ms - self._keyless_ms >= _KEYLESS_MS

    def _changed(self, run: _Run, unit: Unit) -> FrameAction:
        """Judge a frame of a new track, or with a new configuration."""
        if unit.video:
            return FrameAction.START if self._decodable(unit) else FrameAction.DROP
        if run.video is None:
            return FrameAction.START
        self._pending = True  # the sound joins at the next keyframe, so that no picture is lost
        return FrameAction.DROP

    def _same_clock(self, run: _Run, unit: Unit) -> bool:
        last, ahead = run.last_ms.get(unit.video), unit.time_ms - run.clock_ms
        if last is None and not run.sealed:
            return -_SKEW_MS <= ahead <= _SKEW_MS
        if last is not None and unit.time_ms - last < BACKWARD_MS:
            return False
        return -FORWARD_MS <= ahead <= FORWARD_MS

    def _stray(self, run: _Run, unit: Unit) -> FrameAction:
        if unit.video and unit.key:
            return FrameAction.START
        alone = not unit.video and run.video is None
        persists = self._persists(unit, _AUDIO_PATIENCE if alone else _PATIENCE)
        return FrameAction.START if persists else FrameAction.DROP

    def _persists(self, unit: Unit, patience: int) -> bool:
        """Whether ``patience`` frames in a row did not fit, all on one other clock."""
        near = BACKWARD_MS <= unit.time_ms - self._stray_ms <= FORWARD_MS
        self._strays = self._strays + 1 if near else 1
        self._stray_ms = unit.time_ms
        return self._strays >= patience
