from __future__ import annotations

import re

import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import Metric as Collected

from horizon.metrics import METRICS, SECONDS, Metric, Metrics, Reading, Tally, collected

UNITS = (
    "_seconds",
    "_bytes",
    "_records",
    "_info",
    "_total",
    "_pnl",
    "_up",
    "_open",
    "_active",
    "_stalled",
    "_depth",
    "_state",
    "_wanted",
)


# Those of the original's twelve that mean something here; dashboards made for it go on working.
OF_THE_ORIGINAL = {
    "horizon_orders_submitted_total": "counter",
    "horizon_order_rejects_total": "counter",
    "horizon_order_latency_seconds": "histogram",
    "horizon_fills_total": "counter",
    "horizon_feed_heartbeat_age_seconds": "gauge",
    "horizon_watchdog_halts_total": "counter",
    "horizon_risk_decisions_total": "counter",
    "horizon_positions_open": "gauge",
    "horizon_dlq_depth": "gauge",
}


def test_the_names_of_the_original_are_kept() -> None:
    assert OF_THE_ORIGINAL.items() <= {metric.name: metric.type for metric in METRICS}.items()


def test_no_name_comes_twice() -> None:
    names = [metric.name for metric in METRICS]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_follow_the_rules_of_prometheus(metric: Metric) -> None:
    assert re.fullmatch(r"horizon(_[a-z]+)+", metric.name)
    assert metric.name.endswith(UNITS)
    assert metric.name.endswith("_total") == (metric.type == "counter")
    assert metric.help
    assert not metric.help.endswith(".")
    assert all(re.fullmatch(r"[a-z]+", label) for label in metric.labels)


def test_a_tally_becomes_the_histogram_of_the_library() -> None:
    registry = CollectorRegistry()
    theirs = Histogram("horizon_commit_seconds", "help", registry=registry, buckets=SECONDS)
    ours = Tally()
    for value in (0.0, 0.0001, 0.00011, 0.3, 10.0, 99.0):
        theirs.observe(value)
        ours.observe(value)
    assert ours.count == 6
    (mine,) = collected([Reading("horizon_commit_seconds", ours)])
    assert _series(mine) == _series(next(iter(registry.collect())))


def test_what_is_told_is_asked_for_when_somebody_collects() -> None:
    metrics = Metrics()
    open_orders = [3]
    metrics.tell(lambda: [Reading("horizon_orders_open", open_orders[0], ("paper",))])
    metrics.tell(lambda: [Reading("horizon_events_refused_total", 7, ("paper",))])
    assert metrics.registry.get_sample_value("horizon_orders_open", {"venue": "paper"}) == 3
    open_orders[0] = 4
    assert metrics.registry.get_sample_value("horizon_orders_open", {"venue": "paper"}) == 4
    assert metrics.registry.get_sample_value("horizon_events_refused_total", {"venue": "paper"}) == 7


def test_a_name_that_is_not_in_the_list_is_refused() -> None:
    with pytest.raises(KeyError, match="horizon_surprise"):
        list(collected([Reading("horizon_surprise", 1)]))


def _series(metric: Collected) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("le", "")): sample.value
        for sample in metric.samples
        if not sample.name.endswith("_created")
    }
