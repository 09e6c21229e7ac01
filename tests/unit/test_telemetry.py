"""What a process sends to the gateway, and that nothing which is wrong there costs it anything."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq
from eventually import eventually
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric

from horizon.telemetry import MESSAGE_MAX_BYTES, SAMPLES_MAX, Sender, Snapshot, decode

Senders = Callable[..., Sender]


class Listener:
    """The gateway's end of the socket."""

    def __init__(self, path: Path) -> None:
        self._context = zmq.Context()
        self._pull = self._context.socket(zmq.PULL)
        self._pull.setsockopt(zmq.MAXMSGSIZE, MESSAGE_MAX_BYTES)
        self._pull.bind(f"ipc://{path}")

    def hear(self, sender: Sender) -> Snapshot:
        """The next snapshot; the sender tries until it is connected."""
        now = [0.0]

        def heard() -> bytes | None:
            now[0] += 1.0
            sender.maybe_send(now[0])
            return self._pull.recv() if self._pull.poll(20) else None

        return decode(eventually(heard, what="a snapshot"))

    def heard_last(self) -> Snapshot | None:
        newest = None
        while self._pull.poll(200):
            newest = decode(self._pull.recv())
        return newest

    def close(self) -> None:
        self._context.destroy(linger=0)


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.sock"


@pytest.fixture
def listener(socket_path: Path) -> Iterator[Listener]:
    listener = Listener(socket_path)
    yield listener
    listener.close()


@pytest.fixture
def sender_of(socket_path: Path) -> Iterator[Senders]:
    made: list[Sender] = []

    def make(ours: CollectorRegistry, authors: object = None) -> Sender:
        made.append(Sender(socket_path, "calm", ours, authors))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for sender in made:
        sender.close()


def _ours() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("horizon_fills", "Fills", ["venue"], registry=registry).labels("paper").inc(3)
    return registry


def _names(snapshot: Snapshot) -> set[str]:
    return {family.name for family in snapshot.families}


def test_a_snapshot_holds_what_both_registries_count(listener: Listener, sender_of: Senders) -> None:
    authors = CollectorRegistry()
    Histogram("wait_seconds", "Waiting", registry=authors).observe(1)
    snapshot = listener.hear(sender_of(_ours(), authors))
    assert snapshot.strategy == "calm"
    assert _names(snapshot) == {"horizon_fills", "wait_seconds"}
    (fills,) = snapshot.families[0].samples
    assert (fills.name, fills.labels, fills.value) == ("horizon_fills_total", {"venue": "paper"}, 3.0)


def test_of_the_librarys_own_registry_only_what_an_author_added_is_sent(listener: Listener, sender_of: Senders) -> None:
    mine = Gauge("test_telemetry_mine", "Mine")
    try:
        assert "python_info" in {metric.name for metric in REGISTRY.collect()}
        assert _names(listener.hear(sender_of(_ours(), REGISTRY))) == {"horizon_fills", "test_telemetry_mine"}
    finally:
        REGISTRY.unregister(mine)


def test_a_name_of_ours_is_left_out_and_told_once(
    listener: Listener, sender_of: Senders, caplog: pytest.LogCaptureFixture
) -> None:
    authors = CollectorRegistry()
    Counter("horizon_fills", "Not so", registry=authors).inc()
    sender = sender_of(_ours(), authors)
    for _ in range(3):
        assert len(listener.hear(sender).families) == 1
    assert [record.getMessage() for record in caplog.records if "horizon_fills is left out" in record.getMessage()] != []
    assert len(caplog.records) == 1


def test_too_many_series_of_an_author_leave_ours(
    listener: Listener, sender_of: Senders, caplog: pytest.LogCaptureFixture
) -> None:
    authors = CollectorRegistry()
    flood = Gauge("flood", "Flood", ["order"], registry=authors)
    for number in range(SAMPLES_MAX + 1):
        flood.labels(str(number)).set(1)
    Gauge("depth", "Depth", registry=authors).set(2)
    assert _names(listener.hear(sender_of(_ours(), authors))) == {"horizon_fills", "depth"}
    assert "flood is left out" in caplog.text


@pytest.mark.parametrize("value", ["x" * 1000, "\ud800"], ids=["too long", "half a character"])
def test_a_label_that_cannot_be_sent_costs_its_series_only(
    value: str, listener: Listener, sender_of: Senders, caplog: pytest.LogCaptureFixture
) -> None:
    authors = CollectorRegistry()
    depth = Gauge("depth", "Depth \ud800", ["where"], registry=authors)
    depth.labels(value).set(1)
    depth.labels("here").set(2)
    snapshot = listener.hear(sender_of(_ours(), authors))
    assert [sample.labels for family in snapshot.families for sample in family.samples][1:] == [{"where": "here"}]
    assert "depth" in caplog.text


def test_a_collector_that_fails_leaves_the_rest(listener: Listener, sender_of: Senders, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def collect(self) -> Iterator[Metric]:
            yield Metric("before", "Before", "gauge")
            raise RuntimeError("no figures today")

    assert _names(listener.hear(sender_of(_ours(), Broken()))) >= {"horizon_fills"}
    assert "no figures today" in caplog.text


def test_without_a_gateway_nothing_is_collected_and_nothing_said(sender_of: Senders, caplog: pytest.LogCaptureFixture) -> None:
    class Asked:
        times = 0

        def collect(self) -> Iterator[Metric]:
            self.times += 1
            return iter(())

    ours = Asked()
    sender = sender_of(ours)
    for second in range(50):
        sender.maybe_send(float(second))
    assert ours.times == 0
    assert not caplog.records


def test_a_gateway_that_does_not_read_costs_the_sender_nothing(listener: Listener, sender_of: Senders) -> None:
    registry = _ours()
    big = Gauge("big", "Big", ["number"], registry=registry)
    for number in range(SAMPLES_MAX):
        big.labels(f"{number}" + "x" * 400).set(1)
    sender = sender_of(registry)
    listener.hear(sender)
    for second in range(100, 200):
        sender.maybe_send(float(second))  # the queues are full after a few, and it goes on


def test_a_folder_that_is_not_there_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sender = Sender(tmp_path / "missing" / "metrics.sock", "calm", _ours())
    with caplog.at_level(logging.WARNING):
        for second in range(5):
            sender.maybe_send(float(second))
        sender.close()
    assert len(caplog.records) == 1


def test_it_sends_once_a_second_and_a_last_time_when_it_ends(listener: Listener, sender_of: Senders) -> None:
    registry = CollectorRegistry()
    fills = Counter("horizon_fills", "Fills", registry=registry)
    sender = sender_of(registry)
    listener.hear(sender)
    listener.heard_last()
    sender.maybe_send(1000.0)
    fills.inc()
    sender.maybe_send(1000.9)
    first = listener.heard_last()
    assert first is not None
    assert first.families[0].samples[0].value == 0
    sender.close()
    last = listener.heard_last()
    assert last is not None
    assert last.families[0].samples[0].value == 1
    assert last.generation == first.generation


def test_the_child_of_a_fork_sends_nothing(listener: Listener, sender_of: Senders) -> None:
    sender = sender_of(_ours())
    listener.hear(sender)
    listener.heard_last()
    child = os.fork()
    if child == 0:
        sender.maybe_send(1e6)
        sender.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert listener.heard_last() is None
    assert _names(listener.hear(sender)) == {"horizon_fills"}
