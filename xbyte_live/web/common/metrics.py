"""Adapter: counts and levels of a server, in the Prometheus text format."""

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, TypeAlias

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from xbyte_live.errors import XByteError
from xbyte_live.live.feed_stats import FeedStats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Name: TypeAlias = tuple[str, ...]  # of a figure, with its labels

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_MAX_CODES = 64

_FEED_GAUGES: tuple[tuple[str, str, Callable[[FeedStats], float]], ...] = (
    ("since_seconds", "When the feed began (Unix time)", lambda v: v.since),
    ("bit_rate", "Bits a second over the last segments", lambda v: v.bit_rate),
    (
        "keyframe_interval_seconds",
        "Seconds from keyframe to keyframe",
        lambda v: (v.keyframe_interval_us or 0) / 1e6,
    ),
    (
        "listing_delay_seconds",
        "From the keyframe that closed the last segment to its line in the playlist",
        lambda v: v.listing_delay_s or 0.0,
    ),
)
_FEED_COUNTS: tuple[tuple[str, str, Callable[[FeedStats], float]], ...] = (
    ("segments", "Segments listed", lambda v: v.segments),
    ("segments_lost", "Segments that could not be kept", lambda v: v.lost),
    ("bytes", "Bytes of segments listed", lambda v: v.bytes),
    ("packets_late", "Packets behind their time", lambda v: v.late),
    ("packets_dropped", "Packets left out", lambda v: v.dropped),
    ("restarts", "Packaging processes started again", lambda v: v.restarts),
)


@dataclass(frozen=True, slots=True)
class MetricValues:
    """Figures of one or more processes: ``counts`` only ever grow, ``levels`` are of now."""

    counts: Mapping[Name, float] = field(default_factory=dict)
    levels: Mapping[Name, float] = field(default_factory=dict)

    def of(self, name: str) -> Iterator[tuple[Name, float]]:
        """Labels and figures under one name."""
        for figures in (self.counts, self.levels):
            for (own, *labels), figure in figures.items():
                if own == name:
                    yield tuple(labels), figure

    def one(self, name: str) -> float:
        """The figure of a name without labels; 0 if absent."""
        return self.counts.get((name,), 0) or self.levels.get((name,), 0)

    def counted(self) -> "MetricValues":
        """The part that stays when the process has ended: the counts."""
        return MetricValues(self.counts)

    def dump(self) -> bytes:
        """The figures as JSON, for ``load``."""
        both = [[[*name, figure] for name, figure in f.items()] for f in (self.counts, self.levels)]
        return json.dumps(both, separators=(",", ":")).encode()


def total(several: Iterable[MetricValues]) -> MetricValues:
    """The sum of several figures, name by name."""
    counts: Counter[Name] = Counter()
    levels: Counter[Name] = Counter()
    for one in several:
        counts.update(one.counts)
        levels.update(one.levels)
    return MetricValues(counts, levels)


def load(data: bytes) -> MetricValues:
    """Figures from the JSON of ``dump``; raises ``ValueError``."""
    both: Any = json.loads(data)
    try:
        counts, levels = ({tuple(name): n for *name, n in figures} for figures in both)
    except (TypeError, ValueError):
        raise ValueError("these are no metric values") from None
    return MetricValues(counts, levels)


@dataclass(frozen=True, slots=True)
class Levels:
    """Levels of other parts: bytes cached, writes waiting, charges by settlement state."""

    cache_hits: int = 0
    cache_misses: int = 0
    cache_bytes: int = 0
    database_queue: int = 0
    charges: Mapping[str, int] = field(default_factory=dict)
    actions: int = 0  # that are pending
    unclaimable: int = 0
    settles: bool = False
    gas: Mapping[str, int] = field(default_factory=dict)  # wei by network
    sessions_open: int = 0
    sessions_left: int = 0  # atomic units
    feeds: Mapping[str, FeedStats] = field(default_factory=dict)
    publishers: int = 0
    publishers_turned_away: int = 0


async def _no_levels() -> Levels:
    return Levels()


def _no_levels_held() -> Levels:
    return Levels()


def _no_others() -> Sequence[MetricValues]:
    return ()


class Metrics(Collector):
    """Counts of this process, shown with those of the ``others`` of its server.

    ``levels`` reads, once a scrape, the levels of other parts and of the database; ``held`` reads
    the former alone. ``before`` are the counts of a process that this one replaces.

    Labels take values of a fixed set only: route templates, statuses, error codes, and the
    streams on air, which are at most as many as publishers may connect. Counts are plain integers
    that only the event loop touches, so that counting costs next to nothing.
    """

    def __init__(
        self,
        *,
        levels: Callable[[], Awaitable[Levels]] = _no_levels,
        held: Callable[[], Levels] = _no_levels_held,
        others: Callable[[], Sequence[MetricValues]] = _no_others,
        before: MetricValues | None = None,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._ask_levels = levels
        self._held = held
        self._others = others
        self._before = before or MetricValues()
        self._levels = Levels()
        self._all = MetricValues()
        self._answers: dict[tuple[str, int], int] = {}
        self._latency: dict[str, _Latency] = {}
        self._delivered = {True: 0, False: 0}
        self._payments = {"accepted": 0}
        self._draws = {"drawn": 0}
        self._drawn = 0
        self._registry = registry or CollectorRegistry()
        self._registry.register(self)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count one answer; ``route`` is a template of the route table, never a path."""
        self._answers[route, status] = self._answers.get((route, status), 0) + 1
        latency = self._latency.get(route)
        if latency is None:
            latency = self._latency[route] = _Latency()
        latency.observe(seconds)

    def delivered(self, size: int, *, paid: bool) -> None:
        """Count delivered bytes of a segment or object."""
        self._delivered[paid] += size

    def charged(self, result: str) -> None:
        """Count a payment: ``accepted``, or the error code it was refused with."""
        if result not in self._payments and len(self._payments) >= _MAX_CODES:
            result = "other"
        self._payments[result] = self._payments.get(result, 0) + 1

    def drawn(self, result: str, amount: int) -> None:
        """Count a draw of a session by its outcome, and its ``amount`` in atomic units."""
        self._draws[result] = self._draws.get(result, 0) + 1
        self._drawn += amount

    async def render(self) -> bytes:
        """All metrics in the text format; levels that cannot be read now stay as they were."""
        with suppress(XByteError):
            self._levels = await self._ask_levels()
        self._all = total((self._own(self._levels), *self._others()))
        return generate_latest(self._registry)

    def tally(self) -> MetricValues:
        """The values of this process, for the others of its server."""
        return self._own(self._held())

    def collect(self) -> Iterator[Metric]:
        """Every metric family, for the registry."""
        yield from self._of_requests()
        yield from self._of_money()
        yield from self._of_levels()
        yield from self._of_feeds()

    def _own(self, now: Levels) -> MetricValues:
        counts: dict[Name, float] = {
            **{("answers", route, str(status)): n for (route, status), n in self._answers.items()},
            **{("delivered", "yes" if paid else "no"): n for paid, n in self._delivered.items()},
            **{("payments", result): n for result, n in self._payments.items()},
            **{("draws", result): n for result, n in self._draws.items()},
            ("drawn",): self._drawn,
            ("cache_hits",): now.cache_hits,
            ("cache_misses",): now.cache_misses,
            ("turned_away",): now.publishers_turned_away,
        }
        for route, latency in self._latency.items():
            counts["seconds", route] = latency.total
            counts |= {("slow", route, str(at)): n for at, n in enumerate(latency.counts)}
        levels: dict[Name, float] = {
            ("cache_bytes",): now.cache_bytes,
            ("database_queue",): now.database_queue,
            ("unclaimable",): now.unclaimable,
            ("settles",): now.settles,
            ("publishers",): now.publishers,
            **{("gas", network): wei for network, wei in now.gas.items()},
            **{
                ("feed", name, slug): value(stats)
                for name, _, value in (*_FEED_GAUGES, *_FEED_COUNTS)
                for slug, stats in now.feeds.items()
            },
        }
        return total((MetricValues(counts, levels), self._before))

    def _of_requests(self) -> Iterator[Metric]:
        answers = CounterMetricFamily(
            "xbyte_http_requests", "Answers begun", labels=("route", "status")
        )
        for labels, count in self._all.of("answers"):
            answers.add_metric(labels, count)
        yield answers
        latencies = HistogramMetricFamily(
            "xbyte_http_request_seconds",
            "From a request to the first byte of its answer",
            labels=("route",),
        )
        slow = dict(self._all.of("slow"))
        for (route,), seconds in self._all.of("seconds"):
            counts = [slow.get((route, str(at)), 0) for at in range(len(_SECONDS) + 1)]
            latencies.add_metric((route,), _buckets(counts), seconds)
        yield latencies

    def _of_money(self) -> Iterator[Metric]:
        for kind, name, about, label in (
            (
                "delivered",
                "xbyte_delivered_bytes",
                "Delivered bytes of segments and objects",
                "paid",
            ),
            ("payments", "xbyte_payments", "Payments presented, by result", "result"),
            ("draws", "xbyte_session_draws", "Draws from sessions, by result", "result"),
        ):
            family = CounterMetricFamily(name, about, labels=(label,))
            for labels, count in self._all.of(kind):
                family.add_metric(labels, count)
            yield family
        yield CounterMetricFamily(
            "xbyte_session_drawn_units",
            "Atomic units drawn from sessions",
            value=self._all.one("drawn"),
        )

    def _of_levels(self) -> Iterator[Metric]:
        now, everybody = self._levels, self._all
        yield CounterMetricFamily(
            "xbyte_cache_hits", "Segments found in memory", value=everybody.one("cache_hits")
        )
        yield CounterMetricFamily(
            "xbyte_cache_misses",
            "Segments read from the store",
            value=everybody.one("cache_misses"),
        )
        yield GaugeMetricFamily(
            "xbyte_cache_bytes", "Bytes of segments in memory", value=everybody.one("cache_bytes")
        )
        yield GaugeMetricFamily(
            "xbyte_database_queue",
            "Writes waiting for the database",
            value=everybody.one("database_queue"),
        )
        states = GaugeMetricFamily(
            "xbyte_charges", "Charges in the ledger by settlement state", labels=("state",)
        )
        for state, count in now.charges.items():
            states.add_metric((state,), count)
        yield states
        yield from self._of_channels()
        yield GaugeMetricFamily(
            "xbyte_sessions_open", "Sessions that have not ended", value=now.sessions_open
        )
        yield GaugeMetricFamily(
            "xbyte_sessions_left_units",
            "Atomic units that have not been drawn from them",
            value=now.sessions_left,
        )

    def _of_channels(self) -> Iterator[Metric]:
        everybody = self._all
        yield GaugeMetricFamily(
            "xbyte_channel_actions_pending",
            "Deposits, claims, payouts and refunds under way",
            self._levels.actions,
        )
        yield GaugeMetricFamily(
            "xbyte_channels_unclaimable",
            "Channels that could not be claimed",
            everybody.one("unclaimable"),
        )
        yield GaugeMetricFamily(
            "xbyte_settles",
            "1 in the one server that claims and pays out",
            everybody.one("settles"),
        )
        gas = GaugeMetricFamily(
            "xbyte_gas_coins", "Coins the gas key has left", labels=("network",)
        )
        for labels, wei in everybody.of("gas"):
            gas.add_metric(labels, wei / 1e18)
        yield gas

    def _of_feeds(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "xbyte_rtmp_connections", "RTMP connections open", value=self._all.one("publishers")
        )
        yield CounterMetricFamily(
            "xbyte_rtmp_turned_away",
            "RTMP connections over a limit",
            value=self._all.one("turned_away"),
        )
        feeds = dict(self._all.of("feed"))
        for family, rows in (
            (GaugeMetricFamily, _FEED_GAUGES),
            (CounterMetricFamily, _FEED_COUNTS),
        ):
            for name, about, _ in rows:
                shown = family(f"xbyte_feed_{name}", about, labels=("stream",))
                for (own, slug), figure in feeds.items():
                    if own == name:
                        shown.add_metric((slug,), figure)
                yield shown


class _Latency:
    """A histogram of seconds; ``counts`` has at ``i`` what is at most ``_SECONDS[i]``."""

    def __init__(self) -> None:
        self.counts = [0] * (len(_SECONDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(_SECONDS, seconds)] += 1
        self.total += seconds


def _buckets(counts: Sequence[float]) -> list[tuple[str, float]]:
    """Upper bounds with cumulated counts, as the text format has them."""
    bounds = [*map(str, _SECONDS), "+Inf"]
    return list(zip(bounds, map(float, accumulate(counts)), strict=True))
