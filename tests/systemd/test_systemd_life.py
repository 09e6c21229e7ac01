"""Start, deaths, hangs, reload and stop under a real systemd: who ends when, who is started again, and that nothing is lost."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest
from eventually import eventually
from horizon_service import CONFIG, DATABASE, STRATEGIES, UNIT, Ends, Service, watched

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(300)]

ALL = ("supervisor", "writer", "gateway", *STRATEGIES)
WATCHDOG_S = 15.0  # WatchdogSec= of the unit


@pytest.fixture
def running(service: Service) -> Service:
    service.start()
    service.wait_until_ready(*STRATEGIES, "writer", "gateway")
    return service


# ---- start


def test_systemd_hears_that_it_is_ready_and_how_it_stands(service: Service) -> None:
    service.start()
    assert (service.state, service.show("SubState")) == ("active", "running")
    assert service.status_text == "3/3 ready"


def test_systemd_waits_until_every_strategy_is_ready(service: Service) -> None:
    service.add_strategy("slow", _strategy("slow", before="import time; time.sleep(3)"))
    begun = time.monotonic()
    service.start()
    assert time.monotonic() - begun > 3
    assert service.status_text == "4/4 ready"


def test_a_strategy_in_quarantine_keeps_nobody_and_is_named(service: Service) -> None:
    service.add_strategy("broken", "import horizon as hz\nthis is no Python\n")
    service.start()
    assert service.state == "active"
    assert service.status_text == "3/4 ready, 1 quarantined: broken"
    assert service.ask("status").returncode == 8


def test_a_strategy_that_is_never_ready_keeps_systemd_only_for_the_time_a_start_may_take(service: Service) -> None:
    service.configure(service.config.replace("[supervisor]", "[supervisor]\nstart_timeout_s = 4"))
    service.add_strategy("stuck", "import time\ntime.sleep(3600)\n")
    begun = time.monotonic()
    service.start()
    assert 3 < time.monotonic() - begun < 20
    assert service.status_text.startswith("3/4 ready")
    assert {name for name, process in service.status().items() if process["state"] == "ready"} >= set(STRATEGIES)


def test_the_group_that_is_delegated_can_be_written_and_no_other(service: Service) -> None:
    """Where systemd also uses version 1, the groups of version 2 have a place of their own."""
    groups = "/sys/fs/cgroup"
    if (service.machine.root / groups[1:] / "unified").is_dir():
        groups += "/unified"
        service.drop_in(f"ReadWritePaths={groups}/system.slice/%n")
    service.start()
    assert service.as_the_service("mkdir", f"{groups}/system.slice/{UNIT}/limited").returncode == 0
    assert service.as_the_service("mkdir", f"{groups}/system.slice/limited").returncode == 1


# ---- deaths


@pytest.mark.parametrize("name", ["momentum", "writer", "gateway"])
def test_the_death_of_a_child_is_the_supervisors_business_and_not_systemds(running: Service, name: str) -> None:
    before = running.processes()
    os.kill(before[name], signal.SIGKILL)
    running.wait_for(name, other_than=before[name])
    running.wait_until_ready(*STRATEGIES, "writer", "gateway")
    others = {one: pid for one, pid in running.processes().items() if one != name}
    assert others.items() >= {one: pid for one, pid in before.items() if one in ALL and one != name}.items()
    assert (running.state, running.restarts) == ("active", 0)
    _stop_and_check(running)


def test_when_the_supervisor_dies_strategies_drain_then_the_writer_leaves_then_a_new_one_starts(running: Service) -> None:
    _some_fills(running)
    before = running.processes()
    with watched({name: before[name] for name in ALL}) as ends:
        os.kill(before["supervisor"], signal.SIGKILL)
        ends.wait(30)
    _is_a_new_instance(running, before, result_of_the_last="signal")
    _the_writer_left_last(ends)
    assert max(ends.at.values()) <= _started_at(running)
    # Which of the two signs a strategy meets first is chance; what it says of it reaches the journal without a supervisor.
    last_words = re.compile("ends: (the supervisor is gone|stopped by SIGTERM)")
    eventually(lambda: last_words.search(running.journal()), what="the last words of a strategy")
    _stop_and_check(running)


def test_a_supervisor_that_hangs_is_ended_by_the_watchdog_while_the_strategies_trade_on(running: Service) -> None:
    _some_fills(running)
    before = running.processes()
    os.kill(before["supervisor"], signal.SIGSTOP)
    hung_at = time.monotonic()
    traded = running.fills()
    eventually(lambda: all(running.fills()[name] > traded[name] for name in STRATEGIES), timeout_s=10, what="they trade on")
    with watched({name: before[name] for name in ALL}) as ends:
        ends.wait(WATCHDOG_S + 30)
    assert WATCHDOG_S / 2 - 1 < ends.at["supervisor"] - hung_at < WATCHDOG_S + 3
    assert ends.at["supervisor"] < min(ends.at[name] for name in STRATEGIES)
    _the_writer_left_last(ends)
    _is_a_new_instance(running, before, result_of_the_last="watchdog")
    assert max(ends.at.values()) <= _started_at(running)
    assert "Watchdog timeout" in running.journal()
    # Which thread a process that was stopped wakes up with is chance, and so is how far the others are told of.
    assert "Fatal Python error" in running.journal()
    _stop_and_check(running)


def test_a_kill_of_everything_at_once_loses_nothing(running: Service) -> None:
    _some_fills(running)
    before = running.processes()
    running.machine.run("systemctl", "kill", "--signal=KILL", UNIT)
    _is_a_new_instance(running, before, result_of_the_last="signal")
    _stop_and_check(running)


# ---- stop and reload


def test_a_stop_ends_the_strategies_first_and_the_writer_after_them_and_is_clean(running: Service) -> None:
    _some_fills(running)
    before = running.processes()
    with watched({name: before[name] for name in ALL}) as ends:
        running.machine.run("systemctl", "stop", "--no-block", UNIT)
        ends.wait(30)
    eventually(lambda: running.state not in ("active", "deactivating"), what="systemd notices")
    assert (running.show("Result"), running.show("ExecMainStatus"), running.state) == ("success", "0", "inactive")
    assert max(ends.at[name] for name in STRATEGIES) <= ends.at["writer"] <= ends.at["gateway"] <= ends.at["supervisor"]
    said = running.journal()
    assert max(_ended(said, name) for name in STRATEGIES) < _ended(said, "the writer")
    assert not running.processes()
    running.check_the_database()


def test_a_drain_that_goes_on_is_given_the_time_it_needs(service: Service) -> None:
    service.add_strategy("slow", _strategy("slow", after="import time; time.sleep(6)"))
    service.drop_in("TimeoutStopSec=3")
    service.start()
    begun = time.monotonic()
    service.machine.run("systemctl", "stop", UNIT)
    assert time.monotonic() - begun > 5
    assert (service.show("Result"), service.state) == ("success", "inactive")


def test_a_reload_starts_what_is_new_and_touches_nothing_else(running: Service) -> None:
    before = running.processes()
    running.add_strategy("fourth", _strategy("fourth"))
    running.machine.run("systemctl", "reload", UNIT)
    eventually(lambda: running.status_text == "4/4 ready", timeout_s=20, what="the status names four")
    assert running.processes().items() >= {name: before[name] for name in ALL}.items()
    assert (running.state, running.restarts) == ("active", 0)


def test_a_hangup_reloads_too(running: Service) -> None:
    running.add_strategy("fourth", _strategy("fourth"))
    running.machine.run("systemctl", "kill", "--kill-whom=main", "--signal=HUP", UNIT)
    eventually(lambda: running.status_text == "4/4 ready", timeout_s=20, what="the status names four")


def test_a_reload_of_a_wrong_configuration_fails_and_changes_nothing(running: Service) -> None:
    before = running.processes()
    running.configure(f'{running.config}\n[strategies.fourth]\nfile = "/opt/horizon/strategies/none.py"\n')
    refused = running.machine.ask("systemctl", "reload", UNIT)
    assert refused.returncode != 0
    assert "strategies.fourth.file" in running.journal()
    assert running.processes().items() >= {name: before[name] for name in ALL}.items()
    assert (running.state, running.status_text) == ("active", "3/3 ready")


# ---- what no restart cures


def test_a_wrong_configuration_fails_at_once_and_is_not_tried_again(service: Service) -> None:
    service.configure("[database]\npth = 1\n")
    assert service.machine.ask("systemctl", "start", UNIT).returncode != 0
    assert (service.state, service.show("Result"), service.show("ExecMainStatus")) == ("failed", "exit-code", "2")
    assert service.restarts == 0
    assert f"/{CONFIG}: database.pth: unknown key" in service.journal()


def test_a_database_that_cannot_be_used_is_tried_a_few_times_and_then_left_to_a_person(service: Service) -> None:
    service.machine.run("install", "-d", "-o", "horizon", "-g", "horizon", "-m", "750", "/var/lib/horizon")
    (service.machine.root / DATABASE[1:]).write_bytes(b"This is no database. " * 1000)
    service.machine.run("chown", "horizon:horizon", DATABASE)
    service.machine.ask("systemctl", "start", UNIT)
    eventually(
        lambda: "Start request repeated too quickly." in service.journal(), timeout_s=60, interval_s=0.1, what="the start limit"
    )
    assert (service.state, service.show("ExecMainStatus")) == ("failed", "4")
    assert service.restarts == 5
    assert not service.processes()


# ---- helpers


def _strategy(name: str, before: str = "", after: str = "") -> str:
    return f"""\
import horizon as hz
{before}
def quote(ctx):
    return hz.quotes(ctx.feed.mid(), spread=0.04, size=5)
hz.run(name="{name}", markets=["coin"], feeds={{"coin": hz.Simulated("probability", seed=7)}}, pipeline=[quote], interval=0.1)
{after}
"""


def _some_fills(service: Service) -> None:
    eventually(lambda: all(service.fills()[name] for name in STRATEGIES), timeout_s=30, interval_s=0.2, what="each has a fill")


def _is_a_new_instance(service: Service, before: dict[str, int], result_of_the_last: str) -> None:
    """systemd has started one, and nothing of the one before is left."""
    eventually(lambda: service.restarts == 1 and service.state == "active", timeout_s=40, interval_s=0.1, what="a new instance")
    service.wait_until_ready(*STRATEGIES, "writer", "gateway")
    assert not set(before.values()) & set(service.processes().values())
    assert service.status_text == "3/3 ready"
    assert f"Failed with result '{result_of_the_last}'" in service.journal()


def _the_writer_left_last(ends: Ends) -> None:
    """Of those that were left alone: it waits for the lock of a strategy, which is free a moment before that process has ended."""
    assert max(ends.at[name] for name in STRATEGIES) < ends.at["writer"] + 0.2


def _started_at(service: Service) -> float:
    """When the newest instance was started, on the monotonic clock, which a container shares with its host."""
    return int(service.show("ExecMainStartTimestampMonotonic")) / 1e6


def _stop_and_check(service: Service) -> None:
    service.machine.run("systemctl", "stop", UNIT)
    assert service.show("Result") == "success"
    service.check_the_database()


def _ended(journal: str, name: str) -> int:
    """In which line the supervisor says that a process has ended."""
    (line,) = (number for number, line in enumerate(journal.splitlines()) if re.search(rf"{name} \(pid \d+\) is done", line))
    return line
