"""Every metric that Horizon exposes, in one list: name, type, labels, help.

Each process counts in a registry of its own; nothing is shared through files, because one torn file of a killed process makes every
later scrape of prometheus-client's multiprocess mode fail. What can be told when somebody asks is not counted before (`Metrics.tell`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.metrics_core import Metric as Collected

T = TypeVar("T", Counter, Gauge)

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = tuple(float(2**power) for power in range(13))


class Metric(NamedTuple):
    name: str
    type: str  # counter, gauge or histogram, as Prometheus calls them
    labels: tuple[str, ...]
    help: str


# The gateway adds `strategy` to what a strategy's process counts.
METRICS = (
    # A strategy's process: orders, fills, positions
    Metric("horizon_orders_submitted_total", "counter", ("venue", "side"), "Orders sent to a venue"),
    Metric(
        "horizon_order_rejects_total",
        "counter",
        ("venue", "layer"),
        "Orders refused, by the risk check or venue that refused them",
    ),
    Metric("horizon_order_latency_seconds", "histogram", ("venue",), "Time that a venue took to answer to an order"),
    Metric("horizon_risk_decisions_total", "counter", ("layer", "kind"), "Orders and changes judged; layer all lets pass"),
    Metric("horizon_fills_total", "counter", ("venue", "side"), "Fills applied to positions"),
    Metric("horizon_fills_known_total", "counter", ("venue",), "Fills that a venue delivered again, with the same content"),
    Metric("horizon_fills_conflicting_total", "counter", ("venue",), "Fills whose id is known with other content; not applied"),
    Metric(
        "horizon_fills_unattributed_total", "counter", ("venue",), "Fills of orders that are not this strategy's; not applied"
    ),
    Metric("horizon_events_refused_total", "counter", ("venue",), "What a venue told and cannot be recorded; left out"),
    Metric("horizon_orders_open", "gauge", ("venue",), "Orders that are open at a venue, as far as is known"),
    Metric("horizon_positions_open", "gauge", ("venue",), "Positions that are not flat"),
    Metric("horizon_pnl", "gauge", ("kind",), "Profit and loss over all positions, in the currency of their prices"),
    Metric("horizon_kill_switch_active", "gauge", (), "1 while the kill switch forbids new orders"),
    Metric("horizon_hold_active", "gauge", (), "1 while the strategy is held: it may cancel and not order"),
    Metric("horizon_feed_heartbeat_age_seconds", "gauge", ("feed",), "Time since the last update of a feed, on the feed's clock"),
    # Its half of the road
    Metric("horizon_records_recorded_total", "counter", (), "Records that lie in the journal or the database"),
    Metric("horizon_unacked_records", "gauge", (), "Records in the journal that the writer has not acknowledged"),
    Metric("horizon_journal_bytes", "gauge", (), "What the unacknowledged records take in the journal"),
    Metric(
        "horizon_event_commit_seconds",
        "histogram",
        (),
        "Time from recorded to acknowledged, of the record that waited longest for each acknowledgement",
    ),
    # The writer
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
    Metric("horizon_batch_records", "histogram", (), "Records per transaction"),
    Metric("horizon_commit_seconds", "histogram", (), "Duration of a transaction, from its first statement to its commit"),
    Metric("horizon_writer_stalled", "gauge", (), "1 while the database cannot be written (disk full, I/O error)"),
    # The supervisor, as its status says
    Metric("horizon_supervisor_up", "gauge", (), "1 while the supervisor answers"),
    Metric("horizon_supervisor_uptime_seconds", "gauge", (), "Time since the supervisor started"),
    Metric("horizon_supervisor_loop_lag_seconds", "gauge", (), "The longest turn of the supervisor's loop in the last seconds"),
    Metric("horizon_process_state", "gauge", ("process", "state"), "1 for the state that a process is in, 0 for the others"),
    Metric("horizon_process_wanted", "gauge", ("process",), "1 for a process that shall run"),
    Metric("horizon_process_starts_total", "counter", ("process",), "Starts"),
    Metric("horizon_process_restarts_total", "counter", ("process",), "Starts after a crash, a hang or a limit"),
    Metric(
        "horizon_watchdog_halts_total", "counter", ("process", "reason"), "Processes killed because they gave no sign of life"
    ),
    Metric("horizon_process_heartbeat_age_seconds", "gauge", ("process",), "Time since the last sign of life of a process"),
    Metric("horizon_process_resident_memory_bytes", "gauge", ("process",), "Resident memory of a process, without its helpers"),
    Metric("horizon_log_entries_dropped_total", "counter", ("process",), "Log entries dropped because more came than were taken"),
    Metric("horizon_writer_commit_age_seconds", "gauge", (), "Time since the writer last proved that the database takes rows"),
    # The gateway's own look
    Metric("horizon_database_bytes", "gauge", (), "Size of the database without its WAL"),
    Metric("horizon_database_wal_bytes", "gauge", (), "Size of the database's WAL"),
    Metric("horizon_dlq_depth", "gauge", ("strategy",), "Dead letters that nobody has decided about"),
    Metric("horizon_snapshots_dropped_total", "counter", ("reason",), "Figures of processes that the gateway could not use"),
    Metric("horizon_sqlite_info", "gauge", ("version",), "The SQLite that the programs bring along"),
    Metric("horizon_build_info", "gauge", ("version", "python"), "The versions of Horizon and Python"),
)


class Tally:
    """A histogram that costs a hot path a quarter of what prometheus-client's does; somebody reads it once a second."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    @property
    def count(self) -> int:
        return sum(self.counts)

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Reading(NamedTuple):
    """One series as it is now. The labels are those of METRICS, in their order."""

    name: str
    value: float | Tally
    labels: tuple[str, ...] = ()


class Metrics:
    """The metrics of one process, by name. Raises: KeyError for a name that is not in METRICS."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._made: dict[str, Counter | Gauge] = {}

    def counter(self, name: str) -> Counter:
        return self._get(name, Counter)

    def gauge(self, name: str) -> Gauge:
        return self._get(name, Gauge)

    def tell(self, readings: Callable[[], Iterable[Reading]]) -> None:
        """Ask `readings` whenever somebody collects, for what need not be counted before."""
        self.registry.register(_Told(readings))

    def _get(self, name: str, kind: type[T]) -> T:
        made = self._made.get(name)
        if made is None:
            metric = _BY_NAME[name]
            made = self._made[name] = kind(metric.name, metric.help, metric.labels, registry=self.registry)
        assert isinstance(made, kind)
        return made


def collected(readings: Iterable[Reading]) -> Iterator[Collected]:
    """As prometheus-client's collectors give it. Raises: KeyError for a name that is not in METRICS."""
    families: dict[str, Collected] = {}
    for name, value, labels in readings:
        metric = _BY_NAME[name]
        if name not in families:
            families[name] = Collected(name.removesuffix("_total"), metric.help, metric.type)
        named = dict(zip(metric.labels, labels, strict=True))
        if not isinstance(value, Tally):
            families[name].add_sample(name, named, value)
            continue
        at_most = list(accumulate(value.counts))
        for bound, count in zip((*value.bounds, float("inf")), at_most, strict=True):
            families[name].add_sample(f"{name}_bucket", {**named, "le": "+Inf" if bound == float("inf") else str(bound)}, count)
        families[name].add_sample(f"{name}_count", named, at_most[-1])
        families[name].add_sample(f"{name}_sum", named, value.sum)
    yield from families.values()


class _Told:
    def __init__(self, readings: Callable[[], Iterable[Reading]]) -> None:
        self._readings = readings

    def describe(self) -> list[Collected]:
        return []  # else a registry asks for the names before there is anything to tell

    def collect(self) -> Iterator[Collected]:
        return collected(self._readings())


_BY_NAME = {metric.name: metric for metric in METRICS}
