"""Pure: the counts and the figures of a load test."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class LoadTally:
    """What happened while it was measured; latencies in seconds, from asking to the headers."""

    latencies: list[float] = field(default_factory=list)
    bytes: int = 0
    amount: int = 0
    paid: int = 0
    refusals: Counter[str] = field(default_factory=Counter)

    @property
    def segments(self) -> int:
        """How many were handed over."""
        return len(self.latencies)


@dataclass(frozen=True, slots=True)
class LoadFigures:
    """The result of a load: rates a second, latencies in milliseconds, money in atomic units.

    ``cost`` is what was signed away, warming up included, ``deposited`` what this run moved into
    channels, ``refunded`` what came back of them. ``client_cpu`` is how much of a core the load
    itself took: near 1 it measures itself.
    """

    viewers: int
    seconds: float
    segments: int
    paid_segments: int
    segments_per_second: float
    bytes_per_second: float
    latency_ms: dict[str, float]
    refusals: dict[str, int]
    cost: int
    deposited: int
    refunded: int
    not_refunded: dict[str, int]
    client_cpu: float


def percentile(values: Sequence[float], percent: float) -> float:
    """The least value that so many percent of all do not exceed; 0 of none."""
    if not values:
        return 0.0
    ranked = sorted(values)
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)]


def figures_of(
    tally: LoadTally,
    *,
    viewers: int,
    seconds: float,
    cpu: float,
    cost: int,
    deposited: int,
    refunded: int,
    not_refunded: Counter[str],
) -> LoadFigures:
    """The figures of ``seconds`` in which the load took ``cpu`` seconds of processor time."""
    return LoadFigures(
        viewers=viewers,
        seconds=round(seconds, 3),
        segments=tally.segments,
        paid_segments=tally.paid,
        segments_per_second=round(tally.segments / seconds, 2),
        bytes_per_second=round(tally.bytes / seconds),
        latency_ms={
            f"p{percent}": round(percentile(tally.latencies, percent) * 1000, 2)
            for percent in (50, 90, 99)
        },
        refusals=dict(tally.refusals),
        cost=cost,
        deposited=deposited,
        refunded=refunded,
        not_refunded=dict(not_refunded),
        client_cpu=round(cpu / seconds, 2),
    )
