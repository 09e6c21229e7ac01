"""`horizon up` with its gateway: what a scraper sees while strategies trade, crash, hang and are stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from eventually import eventually
from prometheus_client.parser import text_string_to_metric_families
from scraped import free_port
from supervised import TRADER, Up, configure

from horizon.control import Dump, DumpReply, ask

# The author counts too, in the library's own registry.
COUNTING = TRADER.replace(
    "import horizon as hz",
    "import horizon as hz\nfrom prometheus_client import Counter, Gauge\n"
    'QUOTES = Counter("quotes", "Quotes made", ["market"])\nSKEW = Gauge("inventory_skew", "Skew")\n'
    'Gauge("horizon_mine", "Not allowed")',
).replace("    mid = ", "    QUOTES.labels(ctx.market.id).inc()\n    SKEW.set(0.5)\n    mid = ")


class Observed:
    """A running `horizon up` and the port of its gateway."""

    def __init__(self, folder: Path, *, more: str = "", port: int | None = None) -> None:
        self.port = port or free_port()
        configure(folder, "calm", more=f"{more}\n[metrics]\nport = {self.port}\n")
        (folder / "calm.py").write_text(COUNTING.replace("MARKET", "'calm'"))
        self.up = Up(folder)

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def value(self, name: str, **labels: str) -> float | None:
        for family in text_string_to_metric_families(self.get("/metrics")[1]):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        return None

    def fills(self) -> float:
        return self.value("horizon_fills_total", strategy="calm", side="buy") or 0.0


@pytest.fixture
def observed(tmp_path: Path) -> Iterator[Observed]:
    observed = Observed(tmp_path, more="degraded_after_s = 1.5\nhang_after_s = 5")
    try:
        observed.up.is_ready("calm")
        yield observed
    finally:
        print(observed.up.log())
        observed.up.end()


def test_what_a_strategy_counts_is_seen_and_goes_on_over_a_crash(observed: Observed) -> None:
    eventually(lambda: observed.fills() > 0 and observed.value("quotes_total", strategy="calm", market="calm"), 20, 0.1)
    eventually(lambda: observed.get("/readyz") == (200, "ok\n"), 10, 0.1)
    assert observed.value("inventory_skew", strategy="calm") == 0.5
    assert observed.value("horizon_mine") is None
    assert "horizon_mine is left out" in observed.up.log()
    for name in ("horizon_batch_records_count", "horizon_commit_seconds_count", "horizon_database_bytes"):
        eventually(partial(observed.value, name), 10, 0.1, name)
    eventually(lambda: observed.value("horizon_event_commit_seconds_count", strategy="calm"), 10, 0.1)
    assert observed.value("horizon_feed_heartbeat_age_seconds", feed="price", strategy="calm") is not None
    eventually(lambda: observed.value("horizon_process_state", process="calm", state="ready") == 1, 10, 0.1)
    fills, quotes = observed.fills(), observed.value("quotes_total", strategy="calm") or 0
    pid = observed.up.pid_of("calm")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: observed.value("horizon_process_restarts_total", process="calm") == 1, 20, 0.1)
    eventually(lambda: observed.fills() > fills and (observed.value("quotes_total", strategy="calm") or 0) > quotes, 20, 0.1)


def test_a_hang_is_seen_and_counted(observed: Observed) -> None:
    eventually(lambda: observed.fills() > 0, 20, 0.1)
    pid = observed.up.pid_of("calm")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: observed.value("horizon_process_state", process="calm", state="degraded") == 1, 10, 0.05)
    assert observed.get("/readyz")[0] == 503
    assert observed.get("/healthz")[0] == 200
    eventually(lambda: observed.value("horizon_watchdog_halts_total", process="calm", reason="hang") == 1, 20, 0.1)
    eventually(lambda: observed.get("/readyz") == (200, "ok\n"), 20, 0.1)


def test_a_supervisor_that_hangs_is_unhealthy_within_seconds(observed: Observed) -> None:
    eventually(lambda: observed.get("/healthz")[0] == 200, 20, 0.1)
    observed.up.send(signal.SIGSTOP)
    try:
        eventually(lambda: observed.get("/healthz") == (503, "the supervisor does not answer\n"), 10, 0.1)
    finally:
        observed.up.send(signal.SIGCONT)
    eventually(lambda: observed.get("/healthz")[0] == 200, 20, 0.1)


def test_a_killed_gateway_comes_again_and_nobody_else_notices(observed: Observed) -> None:
    eventually(lambda: observed.fills() > 0, 20, 0.1)
    strategy, gateway = observed.up.pid_of("calm"), observed.up.pid_of("gateway")
    assert gateway is not None
    os.kill(gateway, signal.SIGKILL)
    eventually(lambda: observed.up.pid_of("gateway") not in (None, gateway), 20, 0.1)
    eventually(lambda: observed.fills() > 0, 20, 0.1)
    assert observed.up.pid_of("calm") == strategy


def test_the_status_document_names_what_runs_and_no_folder(observed: Observed) -> None:
    eventually(lambda: observed.get("/status")[0] == 200, 20, 0.1)
    text = observed.get("/status")[1]
    assert [process["name"] for process in json.loads(text)["processes"]] == ["calm", "writer", "gateway"]
    assert str(observed.up.folder) not in text


def test_the_gateway_too_says_what_it_is_doing(observed: Observed) -> None:
    eventually(lambda: observed.get("/healthz")[0] == 200, 20, 0.1)
    reply = ask(observed.up.paths.control_socket, Dump("gateway"))
    assert isinstance(reply, DumpReply)
    assert "supervisor/gateway/__main__.py" in reply.text


def test_a_stop_ends_the_gateway_too(observed: Observed) -> None:
    eventually(lambda: observed.get("/healthz")[0] == 200, 20, 0.1)
    assert observed.up.stop() == 0
    assert observed.get("/healthz") == (0, "")
    assert not observed.up.left_processes()


def test_trading_goes_on_while_the_port_is_taken(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        observed = Observed(tmp_path, port=other.getsockname()[1])
        try:
            observed.up.is_ready("calm")
            observed.up.says("nobody can ask")
            seen = observed.up.folder / "calm.seen"
            eventually(lambda: seen.exists() and seen.stat().st_size, 20, 0.1)
            other.close()
            eventually(lambda: observed.fills() > 0, 20, 0.1)
        finally:
            print(observed.up.log())
            observed.up.end()
