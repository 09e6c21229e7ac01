"""Every metric that Horizon exposes, in one list: name, type, labels, help.

Each process counts in a registry of its own; nothing is shared through files, because one torn file of a killed process makes every
later scrape of prometheus-client's multiprocess mode fail.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

T = TypeVar("T", Counter, Gauge, Histogram)

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metric(NamedTuple):
    name: str
    type: str  # counter, gauge or histogram, as Prometheus calls them
    labels: tuple[str, ...]
    help: str


METRICS = (
    Metric("horizon_orders_submitted_total", "counter", ("venue", "side"), "Orders sent to a venue"),
    Metric(
        "horizon_order_rejects_total",
        "counter",
        ("venue", "layer"),
        "Orders refused, by the risk check or venue that refused them",
    ),
    Metric("horizon_fills_total", "counter", ("venue", "side"), "Fills applied to positions"),
    Metric("horizon_fills_known_total", "counter", ("venue",), "Fills that a venue delivered again, with the same content"),
    Metric("horizon_fills_conflicting_total", "counter", ("venue",), "Fills whose id is known with other content; not applied"),
    Metric(
        "horizon_fills_unattributed_total", "counter", ("venue",), "Fills of orders that are not this strategy's; not applied"
    ),
    Metric("horizon_records_committed_total", "counter", ("kind",), "What the writer committed, by kind of row"),
    Metric(
        "horizon_messages_dropped_total",
        "counter",
        ("reason",),
        "Messages to the writer that were dropped; the journal was read instead",
    ),
    Metric("horizon_dead_letters_total", "counter", (), "Records that could not be stored and lie in dlq.db"),
    Metric(
        "horizon_gaps_total", "counter", (), "Ranges of records that are missing from a journal and were written down as a gap"
    ),
    Metric("horizon_snapshots_refused_total", "counter", (), "Snapshots not stored because another run's fills came between"),
    Metric("horizon_batch_records", "histogram", (), "Records per transaction"),
    Metric("horizon_commit_seconds", "histogram", (), "Duration of a transaction, from its first statement to its commit"),
    Metric("horizon_writer_stalled", "gauge", (), "1 while the database cannot be written (disk full, I/O error)"),
)


class Metrics:
    """The metrics of one process, by name. Raises: KeyError for a name that is not in METRICS."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._made: dict[str, Counter | Gauge | Histogram] = {}

    def counter(self, name: str) -> Counter:
        return self._get(name, Counter)

    def gauge(self, name: str) -> Gauge:
        return self._get(name, Gauge)

    def histogram(self, name: str) -> Histogram:
        return self._get(name, Histogram)

    def _get(self, name: str, kind: type[T]) -> T:
        made = self._made.get(name)
        if made is None:
            made = self._made[name] = _make(_BY_NAME[name], self.registry)
        assert isinstance(made, kind)
        return made


_BY_NAME = {metric.name: metric for metric in METRICS}


def _make(metric: Metric, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    if metric.type == "counter":
        return Counter(metric.name, metric.help, metric.labels, registry=registry)
    if metric.type == "gauge":
        return Gauge(metric.name, metric.help, metric.labels, registry=registry)
    buckets = _SECONDS if metric.name.endswith("_seconds") else tuple(float(2**power) for power in range(13))
    return Histogram(metric.name, metric.help, metric.labels, registry=registry, buckets=buckets)
