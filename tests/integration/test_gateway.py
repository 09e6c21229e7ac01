"""The gateway as a process, with a test in the place of its supervisor: what it serves, and whom it never waits for."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import psutil
import pytest
import zmq
from eventually import eventually
from msgspec.structs import replace
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from scraped import HEALTHY, Process, Scraped, free_port

from horizon.channel import Heartbeat, Ready
from horizon.control import WriterHealth
from horizon.store.append import Store
from horizon.store.dead_letters import DeadLetter, DeadLetters
from supervisor.gateway.serve import CLIENTS_MAX, HEAD_MAX_BYTES


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Scraped]:
    gateway = Scraped(tmp_path)
    try:
        gateway.listens()
        yield gateway
    finally:
        gateway.end()
        print(gateway.log())


def _counting(value: float) -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("horizon_fills", "Fills", ["venue", "side"], registry=registry).labels("paper", "buy").inc(value)
    Gauge("horizon_unacked_records", "Unacked", registry=registry).set(value)
    return registry


FILLS = 'horizon_fills_total{side="buy",strategy="calm",venue="paper"}'
UNACKED = 'horizon_unacked_records{strategy="calm"}'


# ---- what it serves


def test_it_tells_what_the_supervisor_says_of_every_process(gateway: Scraped) -> None:
    gateway.shows("horizon_supervisor_up", 1)
    series = gateway.series()
    assert series['horizon_process_state{process="calm",state="ready"}'] == 1
    assert series['horizon_process_state{process="calm",state="backoff"}'] == 0
    assert series['horizon_process_heartbeat_age_seconds{process="calm"}'] == 0.4
    assert series['horizon_process_resident_memory_bytes{process="calm"}'] == 1000
    assert series["horizon_writer_commit_age_seconds"] == 0.5
    assert [name for name in series if name.startswith("horizon_sqlite_info")]
    assert [name for name in series if name.startswith("horizon_build_info")]
    calm = replace(HEALTHY.processes[0], state="backoff", restarts=3, hangs=2, heartbeat_age_s=None)
    gateway.supervisor.status = replace(HEALTHY, processes=[calm, *HEALTHY.processes[1:]])
    gateway.shows('horizon_process_state{process="calm",state="backoff"}', 1)
    series = gateway.series()
    assert series['horizon_process_restarts_total{process="calm"}'] == 3
    assert series['horizon_watchdog_halts_total{process="calm",reason="hang"}'] == 2
    assert 'horizon_process_heartbeat_age_seconds{process="calm"}' not in series


def test_what_a_strategy_counts_goes_on_over_its_incarnations_and_its_gauges_go_with_it(gateway: Scraped) -> None:
    first = Process(gateway, "calm", _counting(3))
    eventually(lambda: first.send() or gateway.series().get(FILLS) == 3, interval_s=0.1)
    assert gateway.series()[UNACKED] == 3
    first.close()
    eventually(lambda: UNACKED not in gateway.series(), 10, 0.1)
    assert gateway.series()[FILLS] == 3
    second = Process(gateway, "calm", _counting(2))
    eventually(lambda: second.send() or gateway.series().get(FILLS) == 5, interval_s=0.1)
    second.close()


def test_an_authors_metric_appears_with_the_name_of_the_strategy(gateway: Scraped) -> None:
    authors = CollectorRegistry()
    Gauge("inventory_skew", "Skew", ["market"], registry=authors).labels("btc").set(0.25)
    process = Process(gateway, "calm", _counting(1), authors)
    eventually(lambda: process.send() or gateway.series().get('inventory_skew{market="btc",strategy="calm"}') == 0.25)
    process.close()


def test_the_writer_has_no_label_of_a_strategy(gateway: Scraped) -> None:
    process = Process(gateway, None, _counting(7))
    eventually(lambda: process.send() or gateway.series().get("horizon_unacked_records") == 7, interval_s=0.1)
    process.close()


def test_two_thousand_incarnations_leave_flat_series_memory_and_descriptors(gateway: Scraped) -> None:
    def restart(times: int) -> None:
        for _ in range(times):
            incarnation = Process(gateway, "calm", _counting(1))
            incarnation.deliver()
            incarnation.close()

    gateway.shows("horizon_supervisor_up", 1)
    gateway.shows('horizon_dlq_depth{strategy="calm"}', 0)
    restart(50)
    known = Process(gateway, "calm", _counting(0))
    eventually(lambda: known.send() or gateway.series().get(UNACKED) == 0, interval_s=0.1)
    itself = psutil.Process(gateway.process.pid)
    series, memory, threads = len(gateway.series()), itself.memory_info().rss, itself.num_threads()
    descriptors = itself.num_fds()
    restart(2000)
    newest = Process(gateway, "calm", _counting(0))
    eventually(lambda: newest.send() or gateway.series().get(UNACKED) == 0, interval_s=0.1)
    eventually(lambda: itself.num_fds() <= descriptors + 2, what="closed descriptors")
    assert gateway.series()[FILLS] > 1500  # snapshots may be lost on the way, never counted twice
    assert gateway.series()[FILLS] <= 2050
    assert len(gateway.series()) == series
    assert itself.num_threads() == threads
    assert itself.memory_info().rss < memory + 16 * 1024 * 1024
    known.close()
    newest.close()


def test_openmetrics_is_spoken_when_asked_for(gateway: Scraped) -> None:
    gateway.shows("horizon_supervisor_up", 1)
    code, text = gateway.get("/metrics", Accept="application/openmetrics-text;version=1.0.0;q=0.9,text/plain;q=0.1")
    assert code == 200
    assert text.endswith("# EOF\n")
    assert "horizon_supervisor_up" in {family.name for family in openmetrics_families(text)}


def test_database_wal_and_dead_letters_are_measured(gateway: Scraped) -> None:
    store = Store(gateway.paths)
    try:
        letters = DeadLetters(gateway.paths.dead_letters, "process")
        letters.capture([DeadLetter("run", seq, "calm", "unstorable", "why", b"", None, 1.0) for seq in (1, 2)])
        letters.mark_dismissed("run", 1, 2.0, "somebody")
        letters.close()
        gateway.shows('horizon_dlq_depth{strategy="calm"}', 1, 15)
        series = gateway.series()
        assert series["horizon_database_bytes"] > 0
        assert "horizon_database_wal_bytes" in series
    finally:
        store.close()


def test_health_is_answered_with_reasons(gateway: Scraped) -> None:
    eventually(lambda: gateway.get("/healthz") == (200, "ok\n"))
    assert gateway.get("/readyz") == (200, "ok\n")
    calm = replace(HEALTHY.processes[0], state="quarantined", why="exit code 3 of /srv/secret-place/calm.py")
    gateway.supervisor.status = replace(HEALTHY, processes=[calm, *HEALTHY.processes[1:]])
    eventually(lambda: gateway.get("/readyz") == (503, "calm is quarantined (exit code 3 of calm.py)\n"))
    assert gateway.get("/healthz") == (200, "ok\n")
    gateway.supervisor.status = replace(HEALTHY, writer=WriterHealth(commit_age_s=60.0))
    eventually(lambda: gateway.get("/healthz") == (503, "the last commit is 60 s ago\n"))


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/status"])
def test_a_supervisor_that_does_not_answer_is_told_at_once_and_heard_again(gateway: Scraped, path: str) -> None:
    eventually(lambda: gateway.get(path)[0] == 200)
    gateway.supervisor.status = None
    eventually(lambda: gateway.get(path)[0] == 503, 10, 0.1)
    assert "does not answer" in gateway.get(path)[1]
    eventually(lambda: gateway.series().get("horizon_supervisor_up") == 0, 10, 0.1)
    assert 'horizon_process_starts_total{process="calm"}' in gateway.series()
    gateway.supervisor.status = HEALTHY
    eventually(lambda: gateway.get(path)[0] == 200, 10, 0.1)


def test_status_is_a_document_that_leaks_no_folder(gateway: Scraped) -> None:
    calm = replace(HEALTHY.processes[0], last_error="cannot read '/home/somebody/prices.csv' and ~/keys/a.pem")
    gateway.supervisor.status = replace(HEALTHY, processes=[calm, *HEALTHY.processes[1:]])
    eventually(lambda: "prices.csv" in gateway.get("/status")[1])
    document = json.loads(gateway.get("/status")[1])
    assert document["processes"][0]["name"] == "calm"
    assert document["processes"][0]["last_error"] == "cannot read 'prices.csv' and a.pem"
    assert document["database"] == "horizon.db"
    assert "secret-place" not in json.dumps(document)
    assert str(gateway.folder) not in json.dumps(document)


@pytest.mark.parametrize("path", ["/", "/metrics/", "/etc/passwd", "/../horizon.toml", "//metrics"])
def test_nothing_else_is_served(gateway: Scraped, path: str) -> None:
    code, text = gateway.get(path)
    assert code == 404
    assert text == "/metrics /healthz /readyz /status\n"


# ---- hostile clients


def _talk(gateway: Scraped, data: bytes) -> bytes:
    with closing(socket.create_connection(("127.0.0.1", gateway.port), timeout=10)) as client:
        client.sendall(data)
        answer = b""
        with suppress(ConnectionResetError):
            while part := client.recv(65536):
                answer += part
        return answer


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", b"405"),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"hello\r\n\r\n", b"400"),
        (b"GET /metrics SPDY/9\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /healthz?verbose=1 HTTP/1.1\r\nHost: x\r\n\r\n", b"200"),
        (b"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text; version=9\nX: y\r\n\r\n", b"200"),
        (b"GET /" + b"x" * HEAD_MAX_BYTES * 4 + b" HTTP/1.1\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * HEAD_MAX_BYTES + b"\r\n", b"431"),
    ],
)
def test_whatever_is_sent_is_answered_or_refused_and_the_next_one_served(gateway: Scraped, data: bytes, code: bytes) -> None:
    eventually(lambda: gateway.get("/healthz")[0] == 200)
    answer = _talk(gateway, data)
    # What is refused before it was read may be cut off by the kernel.
    assert answer.startswith(b"HTTP/1.1 " + code) or (code == b"431" and not answer)
    assert gateway.get("/healthz")[0] == 200


def test_clients_that_send_nothing_or_do_not_read_keep_nobody_out(gateway: Scraped) -> None:
    with ExitStack() as stack:
        for number in range(CLIENTS_MAX * 4):
            client = stack.enter_context(closing(socket.create_connection(("127.0.0.1", gateway.port), timeout=10)))
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n" if number % 2 else b"GET /met")
        assert gateway.get("/healthz")[0] == 200
        assert psutil.Process(gateway.process.pid).num_fds() < CLIENTS_MAX + 40


def test_a_client_that_never_finishes_its_request_is_let_go(gateway: Scraped) -> None:
    with closing(socket.create_connection(("127.0.0.1", gateway.port), timeout=10)) as client:
        client.sendall(b"GET /healthz HT")
        assert client.recv(4096).startswith(b"HTTP/1.1 408")


def test_garbage_on_the_socket_of_the_processes_is_counted(gateway: Scraped) -> None:
    context = zmq.Context()
    push = context.socket(zmq.PUSH)
    try:
        push.connect(f"ipc://{gateway.paths.metrics_socket}")
        push.send(b"hello")
        gateway.shows('horizon_snapshots_dropped_total{reason="not_a_snapshot"}', 1)
    finally:
        context.destroy(linger=0)


# ---- its life


def test_it_says_ready_and_beats(gateway: Scraped) -> None:
    eventually(lambda: gateway.has_heard(Ready))
    eventually(lambda: len({beat.progress for beat in gateway.hear() if isinstance(beat, Heartbeat)}) >= 2)


def test_a_port_that_is_taken_is_told_once_and_had_when_it_is_free(tmp_path: Path) -> None:
    port = free_port()
    with closing(socket.create_server(("127.0.0.1", port))) as other:
        gateway = Scraped(tmp_path, port)
        try:
            eventually(lambda: "nobody can ask" in gateway.log())
            eventually(lambda: gateway.has_heard(Ready))
            eventually(lambda: len([one for one in gateway.hear() if isinstance(one, Heartbeat)]) >= 7, 20, 0.1)
            assert gateway.log().count("nobody can ask") == 1
            other.close()
            gateway.listens()
        finally:
            gateway.end()


def test_it_leaves_when_it_is_told(gateway: Scraped) -> None:
    assert gateway.stop() == 0
    assert "Traceback" not in gateway.log()


def test_it_leaves_when_its_supervisor_is_gone(gateway: Scraped) -> None:
    gateway.channel.close()
    assert gateway.process.wait(2) == 0


def test_it_leaves_though_the_supervisor_does_not_answer(gateway: Scraped) -> None:
    gateway.supervisor.status = None
    asked = gateway.supervisor.asked
    eventually(lambda: gateway.get("/healthz")[0] == 503, 10, 0.1)
    assert gateway.supervisor.asked <= asked + 2
    gateway.channel.close()
    assert gateway.process.wait(2) == 0


def test_a_signal_to_everybody_does_not_end_it_before_the_others(gateway: Scraped) -> None:
    """A service manager sends SIGTERM to all at once; people want to watch the end of the strategies."""
    os.kill(gateway.process.pid, signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        gateway.process.wait(0.5)
    assert gateway.get("/metrics")[0] == 200


def test_a_new_gateway_takes_the_place_of_a_killed_one(gateway: Scraped, tmp_path: Path) -> None:
    process = Process(gateway, "calm", _counting(3))
    eventually(lambda: process.send() or gateway.series().get(FILLS) == 3, interval_s=0.1)
    gateway.end()
    gateway.paths.control_socket.unlink()
    second = Scraped(tmp_path)
    try:
        second.listens()
        eventually(lambda: process.send() or second.series().get(FILLS) == 3, 15, 0.1)
    finally:
        process.close()
        second.end()
