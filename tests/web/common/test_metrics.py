"""Figures of several processes add up, and survive the way between them."""

import pytest

from xbyte_live.server.workers import shared_metrics
from xbyte_live.web.common.metrics import Levels, Metrics, MetricValues, load, total

ONE = MetricValues({("answers", "/healthz", "200"): 2, ("drawn",): 5}, {("cache_bytes",): 10})
OTHER = MetricValues(
    {("answers", "/healthz", "200"): 1, ("answers", "/", "404"): 1}, {("settles",): 1}
)


def test_they_add_up() -> None:
    both = total((ONE, OTHER))
    assert dict(both.of("answers")) == {("/healthz", "200"): 3, ("/", "404"): 1}
    assert (both.one("drawn"), both.one("cache_bytes"), both.one("settles")) == (5, 10, 1)
    assert both.one("nothing") == 0
    assert total(()) == MetricValues()


def test_of_a_process_that_is_no_more_its_counts_stay() -> None:
    assert ONE.counted() == MetricValues(ONE.counts, {})


def test_they_go_as_json() -> None:
    assert load(ONE.dump()) == ONE


@pytest.mark.parametrize("data", [b"", b"[]", b"7", b"[[[]],[]]", b"[[[1,2]]]", b"{}", b"\xff"])
def test_what_are_no_metric_values(data: bytes) -> None:
    with pytest.raises(ValueError):
        load(data)


def test_shared_metrics_are_those_posted_last() -> None:
    with shared_metrics(0) as none:
        assert none == [None]
    with shared_metrics(2) as (first, second, third):
        assert first is not None and second is not None and third is not None
        assert (first.own(), first.others()) == (None, [])
        second.post(b"1")
        second.post(b"2")
        third.post(b"3")
        assert sorted(first.others()) == [b"2", b"3"]
        assert (second.own(), second.others()) == (b"2", [b"3"])
        folder = first.folder
    assert not folder.exists()
    first.post(b"4")  # after the end it does nothing


async def test_one_process_shows_what_all_have_counted() -> None:
    other = Metrics(held=lambda: Levels(cache_bytes=7, cache_hits=3, settles=True))
    other.answered("/healthz", 200, 0.02)
    other.charged("accepted")
    other.delivered(100, paid=True)
    before = MetricValues({("answers", "/healthz", "200"): 10})
    own = Metrics(others=lambda: [load(other.tally().dump())], before=before)
    own.answered("/healthz", 200, 0.3)
    own.drawn("drawn", 4)

    text = (await own.render()).decode()

    for line in (
        'xbyte_http_requests_total{route="/healthz",status="200"} 12.0',
        'xbyte_http_request_seconds_bucket{le="0.025",route="/healthz"} 1.0',
        'xbyte_http_request_seconds_bucket{le="+Inf",route="/healthz"} 2.0',
        'xbyte_http_request_seconds_sum{route="/healthz"} 0.32',
        'xbyte_delivered_bytes_total{paid="yes"} 100.0',
        'xbyte_payments_total{result="accepted"} 1.0',
        "xbyte_session_drawn_units_total 4.0",
        "xbyte_cache_hits_total 3.0",
        "xbyte_cache_bytes 7.0",
        "xbyte_settles 1.0",
    ):
        assert line in text.splitlines(), line
