"""What a real supervisor tells systemd in the course of its life, on a NOTIFY_SOCKET of the test's own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from eventually import eventually
from notified import Listener
from supervised import Up, configure

from horizon.errors import ExitCode

WATCHDOG_S = 1.0
SLOW_TO_LEAVE = "\nimport time\ntime.sleep(4)\n"


class Told:
    """Every message so far, with the time at which it was found."""

    def __init__(self, systemd: Listener) -> None:
        self._systemd = systemd
        self.messages: list[tuple[float, str]] = []

    def lines(self) -> list[str]:
        self.messages += [(time.monotonic(), message) for message in self._systemd.heard()]
        return [line for _, message in self.messages for line in message.splitlines()]

    def until(self, line: str, timeout_s: float = 20.0) -> None:
        eventually(lambda: line in self.lines(), timeout_s, what=f"{line!r} is told, not only {self.order('READY', 'STATUS')}")

    def order(self, *words: str) -> list[str]:
        """The lines that begin with one of these words, in their order."""
        return [line for line in self.lines() if line.startswith(words)]


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    with closing(Listener(str(tmp_path / "notify"))) as systemd:
        yield Told(systemd)


@pytest.fixture
def up(tmp_path: Path, told: Told) -> Iterator[Callable[[], Up]]:
    """Start the supervisor as systemd does."""
    started: list[Up] = []
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}

    def start() -> Up:
        started.append(Up(tmp_path, environment=environment))
        return started[-1]

    yield start
    for one in started:
        one.end()


def test_ready_is_told_when_every_strategy_is_and_stopping_when_the_end_begins(
    up: Callable[[], Up], told: Told, tmp_path: Path
) -> None:
    configure(tmp_path, "one", "two")
    running = up()
    told.until("READY=1")
    assert running.log().count(" is ready") >= 2
    told.until("STATUS=2/2 ready")
    assert running.stop() == 0
    assert told.order("READY", "STOPPING", "RELOADING") == ["READY=1", "STOPPING=1"]


def test_one_in_quarantine_keeps_nobody_from_ready_and_is_named(up: Callable[[], Up], told: Told, tmp_path: Path) -> None:
    configure(tmp_path, "good", "broken")
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    up()
    told.until("READY=1")
    told.until("STATUS=1/2 ready, 1 quarantined: broken")


def test_the_status_follows_a_strategy_that_stands_still_and_goes_on(up: Callable[[], Up], told: Told, tmp_path: Path) -> None:
    configure(tmp_path, "one", "two")
    running = up()
    told.until("STATUS=2/2 ready")
    pid = running.pid_of("one")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    told.until("STATUS=1/2 ready, 1 degraded: one")
    os.kill(pid, signal.SIGCONT)
    eventually(lambda: told.order("STATUS")[-1] == "STATUS=2/2 ready", what="all are ready again")


def test_the_watchdog_is_fed_all_the_time_and_by_the_loop_alone(up: Callable[[], Up], told: Told, tmp_path: Path) -> None:
    configure(tmp_path, "one")
    running = up()
    told.until("READY=1")
    eventually(lambda: told.order("WATCHDOG")[6:], timeout_s=10 * WATCHDOG_S, what="seven beats")
    beats = [at for at, message in told.messages if "WATCHDOG=1" in message.splitlines()]
    gaps = [later - earlier for earlier, later in pairwise(beats)]
    assert max(gaps) < WATCHDOG_S
    # A loop that stands still is silent, whatever its threads do.
    running.send(signal.SIGSTOP)
    told.lines()
    silent = len(told.order("WATCHDOG"))
    silent_until = time.monotonic() + 2 * WATCHDOG_S
    eventually(lambda: time.monotonic() > silent_until, what="twice its interval is over")
    assert len(told.order("WATCHDOG")) == silent
    running.send(signal.SIGCONT)
    eventually(lambda: len(told.order("WATCHDOG")) > silent, what="it goes on")


def test_a_hangup_is_a_reload_that_begins_and_ends(up: Callable[[], Up], told: Told, tmp_path: Path) -> None:
    configure(tmp_path, "one")
    running = up()
    told.until("READY=1")
    configure(tmp_path, "one", "two")
    running.send(signal.SIGHUP)
    told.until("STATUS=2/2 ready")
    assert told.order("READY", "RELOADING", "STOPPING") == ["READY=1", "RELOADING=1", "READY=1"]
    assert told.order("MONOTONIC_USEC")


def test_a_hangup_with_a_wrong_configuration_ends_too_and_nothing_stops(up: Callable[[], Up], told: Told, tmp_path: Path) -> None:
    configure(tmp_path, "one")
    running = up()
    told.until("READY=1")
    (tmp_path / "horizon.toml").write_text("[database]\npth = 1\n")
    running.send(signal.SIGHUP)
    eventually(lambda: told.order("READY", "RELOADING") == ["READY=1", "RELOADING=1", "READY=1"], what="the reload has ended")
    assert told.order("STATUS")[-1] == "STATUS=1/1 ready"


def test_a_hangup_while_all_is_being_stopped_is_no_reload(up: Callable[[], Up], told: Told, tmp_path: Path) -> None:
    configure(tmp_path, "slow")
    with (tmp_path / "slow.py").open("a") as file:
        file.write(SLOW_TO_LEAVE)
    running = up()
    told.until("READY=1")
    running.send(signal.SIGTERM)
    told.until("STOPPING=1")
    running.send(signal.SIGHUP)
    assert running.wait() == ExitCode.DONE
    assert told.order("READY", "RELOADING", "STOPPING") == ["READY=1", "STOPPING=1"]


def test_a_long_drain_asks_for_more_time_again_and_again(up: Callable[[], Up], told: Told, tmp_path: Path) -> None:
    configure(tmp_path, "slow")
    with (tmp_path / "slow.py").open("a") as file:
        file.write(SLOW_TO_LEAVE)
    running = up()
    told.until("READY=1")
    assert told.order("EXTEND_TIMEOUT_USEC") == []
    assert running.stop() == 0
    assert len(told.order("EXTEND_TIMEOUT_USEC")) >= 3
    assert told.order("STOPPING", "EXTEND_TIMEOUT_USEC")[0] == "STOPPING=1"


def test_no_process_that_it_starts_can_speak_to_systemd(up: Callable[[], Up], told: Told, tmp_path: Path) -> None:
    configure(tmp_path, "one")
    running = up()
    told.until("READY=1")
    for child in running.children():
        environment = Path(f"/proc/{child.pid}/environ").read_bytes()
        assert b"NOTIFY_SOCKET" not in environment
        assert b"WATCHDOG" not in environment
