"""Adapter: what is counted, in the Prometheus text format."""

from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from xbyte_live.errors import XByteError
from xbyte_live.vitals import Vitals

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_MAX_CODES = 64

_FEED_GAUGES: tuple[tuple[str, str, Callable[[Vitals], float]], ...] = (
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
_FEED_COUNTS: tuple[tuple[str, str, Callable[[Vitals], float]], ...] = (
    ("segments", "Segments listed", lambda v: v.segments),
    ("segments_lost", "Segments that could not be kept", lambda v: v.lost),
    ("bytes", "Bytes of segments listed", lambda v: v.bytes),
    ("packets_late", "Packets behind their time", lambda v: v.late),
    ("packets_dropped", "Packets left out", lambda v: v.dropped),
    ("restarts", "Packaging processes started again", lambda v: v.restarts),
)


@dataclass(frozen=True, slots=True)
class Levels:
    """What other parts hold right now: bytes, counts, and charges by settlement state."""

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
    feeds: Mapping[str, Vitals] = field(default_factory=dict)
    publishers: int = 0
    publishers_turned_away: int = 0


async def _no_levels() -> Levels:
    return Levels()


class Metrics(Collector):
    """Counts of one process; ``levels`` tells, once a scrape, what other parts hold.

    Labels take values of a fixed set only: route templates, statuses, error codes, and the
    streams on air, of which there are as many as publishers may connect. Counts
    are plain integers that only the event loop touches, so that counting costs next to nothing.
    """

    def __init__(
        self,
        *,
        levels: Callable[[], Awaitable[Levels]] = _no_levels,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._ask_levels = levels
        self._levels = Levels()
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
        """Count bytes of a segment or object that were handed over."""
        self._delivered[paid] += size

    def charged(self, result: str) -> None:
        """Count a payment: ``accepted``, or the error code it was refused with."""
        if result not in self._payments and len(self._payments) >= _MAX_CODES:
            result = "other"
        self._payments[result] = self._payments.get(result, 0) + 1

    def drawn(self, result: str, amount: int) -> None:
        """Count a segment that a session was asked to pay for, and what it drew."""
        self._draws[result] = self._draws.get(result, 0) + 1
        self._drawn += amount

    async def render(self) -> bytes:
        """Everything in the text format; levels that nobody can tell now stay as they were."""
        with suppress(XByteError):
            self._levels = await self._ask_levels()
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Every family, for the registry."""
        yield from self._of_requests()
        yield from self._of_money()
        yield from self._of_levels()
        yield from self._of_feeds()

    def _of_requests(self) -> Iterator[Metric]:
        answers = CounterMetricFamily(
            "xbyte_http_requests", "Answers begun", labels=("route", "status")
        )
        for (route, status), count in self._answers.items():
            answers.add_metric((route, str(status)), count)
        yield answers
        latencies = HistogramMetricFamily(
            "xbyte_http_request_seconds",
            "From a request to the first byte of its answer",
            labels=("route",),
        )
        for route, latency in self._latency.items():
            latencies.add_metric((route,), latency.buckets(), latency.total)
        yield latencies

    def _of_money(self) -> Iterator[Metric]:
        delivered = CounterMetricFamily(
            "xbyte_delivered_bytes", "Bytes of segments and objects handed over", labels=("paid",)
        )
        for paid, size in self._delivered.items():
            delivered.add_metric(("yes" if paid else "no",), size)
        yield delivered
        payments = CounterMetricFamily(
            "xbyte_payments", "Payments presented, by what became of them", labels=("result",)
        )
        for result, count in self._payments.items():
            payments.add_metric((result,), count)
        yield payments
        draws = CounterMetricFamily(
            "xbyte_session_draws", "Segments that sessions were to pay for", labels=("result",)
        )
        for result, count in self._draws.items():
            draws.add_metric((result,), count)
        yield draws
        yield CounterMetricFamily(
            "xbyte_session_drawn_units", "Atomic units drawn from sessions", value=self._drawn
        )

    def _of_levels(self) -> Iterator[Metric]:
        now = self._levels
        yield CounterMetricFamily(
            "xbyte_cache_hits", "Segments found in memory", value=now.cache_hits
        )
        yield CounterMetricFamily(
            "xbyte_cache_misses", "Segments read from the store", value=now.cache_misses
        )
        yield GaugeMetricFamily(
            "xbyte_cache_bytes", "Bytes of segments in memory", value=now.cache_bytes
        )
        yield GaugeMetricFamily(
            "xbyte_database_queue", "Writes waiting for the database", value=now.database_queue
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
        now = self._levels
        yield GaugeMetricFamily(
            "xbyte_channel_actions_pending",
            "Deposits, claims, payouts and refunds under way",
            now.actions,
        )
        yield GaugeMetricFamily(
            "xbyte_channels_unclaimable", "Channels that could not be claimed", now.unclaimable
        )
        yield GaugeMetricFamily(
            "xbyte_settles", "1 in the one process that claims and pays out", int(now.settles)
        )
        gas = GaugeMetricFamily(
            "xbyte_gas_coins", "Coins the gas key has left", labels=("network",)
        )
        for network, wei in now.gas.items():
            gas.add_metric((network,), wei / 1e18)
        yield gas

    def _of_feeds(self) -> Iterator[Metric]:
        now = self._levels
        yield GaugeMetricFamily(
            "xbyte_rtmp_connections", "RTMP connections open", value=now.publishers
        )
        yield CounterMetricFamily(
            "xbyte_rtmp_turned_away",
            "RTMP connections over a limit",
            value=now.publishers_turned_away,
        )
        for name, about, value in _FEED_GAUGES:
            gauge = GaugeMetricFamily(f"xbyte_feed_{name}", about, labels=("stream",))
            for slug, vitals in now.feeds.items():
                gauge.add_metric((slug,), value(vitals))
            yield gauge
        for name, about, value in _FEED_COUNTS:
            counter = CounterMetricFamily(f"xbyte_feed_{name}", about, labels=("stream",))
            for slug, vitals in now.feeds.items():
                counter.add_metric((slug,), value(vitals))
            yield counter


class _Latency:
    """A histogram of seconds; bucket ``i`` holds what is at most ``_SECONDS[i]``."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_SECONDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(_SECONDS, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Upper bounds with cumulated counts, as the text format has them."""
        bounds = [*map(str, _SECONDS), "+Inf"]
        return list(zip(bounds, map(float, accumulate(self._counts)), strict=True))
