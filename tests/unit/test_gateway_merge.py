from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Summary, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from horizon.telemetry import SAMPLES_MAX, Family, Sample, family_of
from supervisor.gateway.merge import FORGET_AFTER_S, SILENT_AFTER_S, Merged

OURS = {"horizon_fills": "counter"}


class Board:
    """What processes told, and what is shown of it."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.merged = Merged(OURS, self.said.append)
        self.now = 100.0

    def tell(self, process: str, generation: int, *families: Family, room: int = SAMPLES_MAX) -> None:
        self.merged.take(process, {"strategy": process}, generation, families, self.now, room)

    def tell_all(self, process: str, generation: int, registry: CollectorRegistry) -> None:
        self.tell(process, generation, *(family_of(metric) for metric in registry.collect()))

    def text(self) -> str:
        return generate_latest(self).decode()

    def collect(self) -> list[object]:
        return list(self.merged.collect(self.now))

    def value(self, name: str, **labels: str) -> float | None:
        found = [
            sample.value
            for family in text_string_to_metric_families(self.text())
            for sample in family.samples
            if sample.name == name and sample.labels == labels
        ]
        assert len(found) <= 1
        return found[0] if found else None


@pytest.fixture
def board() -> Board:
    return Board()


def counter(name: str, value: float, **labels: str) -> Family:
    return Family(name, "counter", "help", [Sample(f"{name}_total", labels, value)])


def gauge(name: str, value: float, **labels: str) -> Family:
    return Family(name, "gauge", "help", [Sample(name, labels, value)])


def test_a_counter_goes_on_where_the_last_incarnation_left_it(board: Board) -> None:
    board.tell("calm", 1, counter("jobs", 5))
    board.tell("calm", 2, counter("jobs", 0))
    assert board.value("jobs_total", strategy="calm") == 5
    board.tell("calm", 2, counter("jobs", 2))
    board.tell("calm", 3, counter("jobs", 1))
    assert board.value("jobs_total", strategy="calm") == 8


def test_a_counter_that_the_new_incarnation_has_not_touched_stays(board: Board) -> None:
    board.tell("calm", 1, counter("jobs", 5, kind="rare"))
    board.tell("calm", 2)
    assert board.value("jobs_total", strategy="calm", kind="rare") == 5


def test_a_late_snapshot_of_an_incarnation_before_changes_nothing(board: Board) -> None:
    board.tell("calm", 2, counter("jobs", 5))
    board.tell("calm", 1, counter("jobs", 7))
    assert board.value("jobs_total", strategy="calm") == 5


def test_a_counter_that_a_program_sets_back_goes_on_too(board: Board) -> None:
    board.tell("calm", 1, counter("jobs", 5))
    board.tell("calm", 1, counter("jobs", 1))
    assert board.value("jobs_total", strategy="calm") == 6


def test_the_gauges_of_a_silent_process_disappear_and_its_counters_stay(board: Board) -> None:
    board.tell("calm", 1, counter("jobs", 5), gauge("depth", 3))
    assert board.value("depth", strategy="calm") == 3
    board.now += SILENT_AFTER_S + 0.1
    assert board.value("depth", strategy="calm") is None
    assert board.value("jobs_total", strategy="calm") == 5


def test_a_gauge_of_the_last_incarnation_is_not_shown_for_the_new_one(board: Board) -> None:
    board.tell("calm", 1, gauge("depth", 3))
    board.tell("calm", 2)
    assert board.value("depth", strategy="calm") is None


def test_a_histogram_goes_on_in_every_bucket(board: Board) -> None:
    for generation in (1, 2):
        registry = CollectorRegistry()
        histogram = Histogram("wait_seconds", "help", buckets=(1, 2), registry=registry)
        histogram.observe(0.5)
        histogram.observe(1.5)
        board.tell_all("calm", generation, registry)
    assert board.value("wait_seconds_bucket", strategy="calm", le="1.0") == 2
    assert board.value("wait_seconds_bucket", strategy="calm", le="+Inf") == 4
    assert board.value("wait_seconds_count", strategy="calm") == 4
    assert board.value("wait_seconds_sum", strategy="calm") == 4.0


def test_a_histogram_with_other_buckets_begins_anew(board: Board) -> None:
    for generation, buckets in ((1, (1, 2)), (2, (1, 3))):
        registry = CollectorRegistry()
        Histogram("wait_seconds", "help", buckets=buckets, registry=registry).observe(0.5)
        board.tell_all("calm", generation, registry)
    assert board.value("wait_seconds_count", strategy="calm") == 1
    assert board.value("wait_seconds_bucket", strategy="calm", le="2.0") is None


def test_every_type_of_the_library_passes_both_formats(board: Board) -> None:
    registry = CollectorRegistry()
    Counter("jobs", "help", ["kind"], registry=registry).labels('a"b\\c\nd').inc()
    Gauge("depth", "help with \\ and \n", registry=registry).set(float("nan"))
    Histogram("wait_seconds", "help", registry=registry).observe(1)
    Summary("size", "help", registry=registry).observe(1)
    Info("build", "help", registry=registry).info({"version": "1"})
    Enum("mood", "help", states=["good", "bad"], registry=registry).state("bad")
    board.tell_all("calm", 1, registry)
    board.tell_all("eager", 1, registry)
    plain = list(text_string_to_metric_families(board.text()))
    strict = list(openmetrics_families(openmetrics(board).decode()))
    assert {family.name for family in strict} == {"jobs", "depth", "wait_seconds", "size", "build", "mood"}
    assert sum(len(family.samples) for family in plain) == sum(len(family.samples) for family in strict)
    assert not board.said


def test_two_strategies_share_a_metric(board: Board) -> None:
    board.tell("calm", 1, counter("jobs", 1))
    board.tell("eager", 1, counter("jobs", 2))
    assert board.text().count("# TYPE jobs_total counter") == 1
    assert (board.value("jobs_total", strategy="calm"), board.value("jobs_total", strategy="eager")) == (1, 2)


@pytest.mark.parametrize("other", [gauge("jobs", 2), gauge("jobs_total", 2)], ids=["as a gauge", "its name in the text"])
def test_a_name_that_another_strategy_uses_otherwise_is_left_out_and_told_once(board: Board, other: Family) -> None:
    board.tell("calm", 1, counter("jobs", 1))
    board.tell("eager", 1, other, gauge("depth", 1))
    for _ in range(3):
        assert board.value("jobs_total", strategy="calm") == 1
        assert board.value("depth", strategy="eager") == 1
    assert len(board.said) == 1
    assert "eager is left out" in board.said[0]
    assert len(list(openmetrics_families(openmetrics(board).decode()))) == 2


def test_a_name_of_horizon_is_left_out_unless_it_is_one(board: Board) -> None:
    board.tell("calm", 1, counter("horizon_fills", 1), gauge("horizon_orders", 1), gauge("horizon_fills", 1))
    assert board.value("horizon_fills_total", strategy="calm") == 1
    assert "horizon_orders" not in board.text()
    assert len(board.said) == 2


def test_a_label_that_we_add_is_kept_apart_from_the_authors_own(board: Board) -> None:
    board.tell("calm", 1, counter("jobs", 1, strategy="momentum"))
    assert board.value("jobs_total", strategy="calm", exported_strategy="momentum") == 1


@pytest.mark.parametrize(
    "wrong",
    [
        Family("jobs-done", "gauge", "", [Sample("jobs-done", {}, 1)]),
        Family("jobs", "gauge", "", [Sample("jobs_total", {}, 1)]),
        Family("jobs", "gauge", "", [Sample("jobs", {"a-b": "1"}, 1)]),
        Family("jobs", "gauge", "", [Sample("jobs", {"__name__": "x"}, 1)]),
        Family("jobs", "counter", "", [Sample("jobs_total", {}, -1)]),
        Family("jobs", "counter", "", [Sample("jobs_total", {}, float("nan"))]),
        Family("jobs", "histogram", "", [Sample("jobs_bucket", {"le": "many"}, 1)]),
        Family("jobs", "histogram", "", [Sample("jobs_bucket", {}, 1)]),
        Family("jobs", "whatever", "", [Sample("jobs", {}, 1)]),
        Family("jobs", "gauge", "", []),
    ],
    ids=str,
)
def test_what_would_break_the_format_is_left_out(board: Board, wrong: Family) -> None:
    board.tell("calm", 1, wrong, gauge("depth", 1))
    assert board.value("depth", strategy="calm") == 1
    assert [family.name for family in text_string_to_metric_families(board.text())] == ["depth"]
    list(openmetrics_families(openmetrics(board).decode()))


def test_a_series_that_stands_twice_in_a_snapshot_is_shown_once(board: Board) -> None:
    twice = Family("depth", "gauge", "", [Sample("depth", {"a": "1"}, 1), Sample("depth", {"a": "1"}, 2)])
    board.tell("calm", 1, twice, gauge("depth", 3, a="1"), counter("jobs", 1), counter("jobs", 1))
    assert board.text().count("\ndepth{") == 1
    assert board.text().count("\njobs_total{") == 1


def test_a_program_that_makes_a_gauge_of_its_counter_is_shown_as_it_is_now(board: Board) -> None:
    board.tell("calm", 1, counter("jobs", 5))
    board.tell("calm", 2, gauge("jobs", 1))
    assert board.value("jobs", strategy="calm") == 1
    assert board.value("jobs_total", strategy="calm") is None


def test_two_thousand_incarnations_with_labels_of_their_own_leave_a_bounded_number_of_series(board: Board) -> None:
    for generation in range(2000):
        board.tell(
            "calm", generation, counter("horizon_fills", 1), counter("jobs", 1, order=str(generation)),
            counter(f"jobs_{generation}", 1), gauge("depth", 1, order=str(generation)), room=100,
        )  # fmt: skip
    assert board.value("horizon_fills_total", strategy="calm") == 2000
    shown = [sample for family in text_string_to_metric_families(board.text()) for sample in family.samples]
    assert len(shown) <= 101
    assert board.text().count("# TYPE") <= 102


def test_two_thousand_incarnations_that_count_the_same_leave_the_same_series(board: Board) -> None:
    registry = CollectorRegistry()
    Counter("jobs", "help", ["kind"], registry=registry).labels("a").inc()
    Histogram("wait_seconds", "help", registry=registry).observe(1)
    board.tell_all("calm", 0, registry)
    lines = board.text().count("\n")
    for generation in range(1, 2000):
        board.tell_all("calm", generation, registry)
    assert board.text().count("\n") == lines
    assert board.value("jobs_total", strategy="calm", kind="a") == 2000
    assert board.value("wait_seconds_count", strategy="calm") == 2000


def test_a_strategy_that_was_removed_is_forgotten_after_a_while(board: Board) -> None:
    board.tell("calm", 1, counter("jobs", 1))
    board.tell("eager", 1, counter("jobs", 1))
    board.now += FORGET_AFTER_S + 1
    board.merged.forget_unknown({"calm"}, board.now)
    assert board.value("jobs_total", strategy="calm") == 1
    assert board.value("jobs_total", strategy="eager") is None


def test_no_number_of_processes_fills_the_memory(board: Board) -> None:
    for number in range(1100):
        board.tell(f"run{number}", 1, counter("jobs", 1))
    assert board.text().count("\njobs_total{") == 1000
    assert len(board.said) <= 1000
