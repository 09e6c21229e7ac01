"""The supervisor among children that misbehave in every way we know: each is dealt with, and the healthy one beside it notices nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from eventually import eventually
from zoo_keeper import Keeper

from horizon.errors import ExitCode

HEALTHY = {"healthy": ("beats", "")}
SOON = {"degraded_after_s": 0.5, "hang_after_s": 1.5, "start_timeout_s": 2.0, "recovery_timeout_s": 2.0}


@pytest.fixture
def keep(tmp_path: Path) -> Iterator[Any]:
    """Start a supervisor over a healthy child and over those that a test names."""
    keepers: list[Keeper] = []

    def start(environment: dict[str, str] | None = None, animals: dict[str, Any] | None = None, **supervision: Any) -> Keeper:
        keepers.append(Keeper(tmp_path, {**HEALTHY, **(animals or {})}, environment, **supervision))
        keepers[-1].is_in("healthy", "ready")
        return keepers[-1]

    yield start
    for keeper in keepers:
        keeper.end()


def nobody_touched_the_healthy(keeper: Keeper) -> bool:
    process = keeper.of("healthy")
    return process is not None and process.starts == 1 and process.state == "ready" and not keeper.said("degraded", "healthy")


@pytest.mark.parametrize(
    "behaviour", ["beats_and_is_never_ready", "beats_without_progress", "stops_itself", "holds_the_gil", "ignores_everything"]
)
def test_who_shows_no_progress_is_killed_and_started_again(keep: Any, behaviour: str) -> None:
    keeper = keep(animals={"odd": (behaviour, "")}, **SOON)
    keeper.says("hang", "odd")
    keeper.says("backoff", "odd")
    eventually(lambda: keeper.of("odd").starts >= 2)
    assert "was killed because it hung" in keeper.said("backoff", "odd")[0]
    assert nobody_touched_the_healthy(keeper)
    keeper.stop()
    assert not keeper.left_processes()


def test_who_holds_pythons_lock_still_says_where(keep: Any) -> None:
    keeper = keep(animals={"odd": ("holds_the_gil", "")}, **SOON)
    keeper.says("dump", "odd")
    assert "holds_the_gil" in keeper.said("dump", "odd")[0]


def test_who_dies_too_often_is_quarantined_and_only_he(keep: Any) -> None:
    keeper = keep(animals={"odd": ("ends", "5")}, start_limit_burst=3)
    assert keeper.is_in("odd", "quarantined").starts == 4
    assert nobody_touched_the_healthy(keeper)
    assert keeper.stop() == ExitCode.DONE


def test_who_exits_while_it_is_imported_is_treated_as_a_crash(keep: Any) -> None:
    keeper = keep(animals={"odd": ("exits_in_import", "")}, start_limit_burst=2)
    keeper.is_in("odd", "quarantined")
    assert "exit code 1" in keeper.said("backoff", "odd")[0]


def test_a_flood_of_output_is_bounded_and_keeps_nobody_from_beating(keep: Any) -> None:
    keeper = keep(animals={"odd": ("floods", "")}, **SOON)
    keeper.is_in("odd", "ready")
    before = keeper.of("odd").cycles, keeper.of("healthy").cycles
    eventually(lambda: keeper.of("healthy").cycles >= before[1] + 40)
    assert keeper.of("odd").starts == 1
    assert nobody_touched_the_healthy(keeper)
    logs = keeper.folder / "x.db.d" / "logs"
    eventually(lambda: (logs / "odd.log").exists())
    assert max(path.stat().st_size for path in logs.iterdir()) <= 11_000_000
    assert psutil.Process(keeper.process.pid).memory_info().rss < 250e6


@pytest.mark.parametrize("behaviour", ["sends_garbage", "sends_frames_that_are_too_long"])
def test_what_nobody_understands_is_said_and_changes_nothing(keep: Any, behaviour: str) -> None:
    keeper = keep(animals={"odd": (behaviour, "")})
    keeper.is_in("odd", "ready")
    assert keeper.of("odd").starts == 1
    if behaviour == "sends_garbage":
        keeper.says("garbage", "odd")
    assert keeper.stop() == ExitCode.DONE


def test_a_grandchild_that_fled_into_a_session_of_its_own_does_not_outlive_the_worker(keep: Any, tmp_path: Path) -> None:
    file = tmp_path / "pids"
    keeper = keep(animals={"odd": ("has_a_grandchild_that_fled", str(file))})
    keeper.says("leftover", times=2)
    pids = [int(line) for line in file.read_text().split()]
    assert len(pids) >= 2
    keeper.stop()
    eventually(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def test_a_closed_channel_is_no_sign_of_life(keep: Any) -> None:
    keeper = keep(animals={"odd": ("closes_its_channel", "")}, **SOON)
    keeper.says("hang", "odd")
    eventually(lambda: keeper.of("odd").starts >= 2)


def test_who_leaks_memory_is_seen(keep: Any) -> None:
    keeper = keep(animals={"odd": ("leaks", "200")})
    eventually(lambda: (keeper.of("odd").rss_bytes or 0) > 200 * 2**20)
    assert nobody_touched_the_healthy(keeper)


def test_a_slow_stop_with_progress_ends_by_itself_within_its_time(keep: Any) -> None:
    keeper = keep(animals={"odd": ("stops_slowly_with_progress", "20")}, stop_timeout_s=15.0)
    keeper.is_in("odd", "ready")
    assert keeper.stop() == ExitCode.DONE
    assert "is done" in keeper.said("ended", "odd")[0]


def test_a_process_is_killed_with_the_supervisor(keep: Any) -> None:
    keeper = keep(animals={"odd": ("beats", "")})
    keeper.is_in("odd", "ready")
    keeper.send(signal.SIGKILL)
    keeper.process.wait(10)
    eventually(lambda: not keeper.left_processes())


@pytest.mark.parametrize("who_sleeps", ["the supervisor", "everybody"])
def test_a_supervisor_that_slept_judges_nobody(keep: Any, who_sleeps: str) -> None:
    keeper = keep(**{**SOON, "degraded_after_s": 1.0, "hang_after_s": 3.0})
    children = psutil.Process(keeper.process.pid).children() if who_sleeps == "everybody" else []
    keeper.send(signal.SIGSTOP)
    for child in children:
        child.suspend()
    # What passes is the subject: four times as long as a strategy may be silent.
    wake_at = time.monotonic() + 12.0
    eventually(lambda: time.monotonic() >= wake_at, 20.0)
    cycles = keeper.of("healthy").cycles
    keeper.send(signal.SIGCONT)
    # As after a suspended machine, where nobody says who wakes first: here the judge does.
    slept_until = (keeper.folder / "status.json").stat().st_mtime_ns
    eventually(lambda: (keeper.folder / "status.json").stat().st_mtime_ns > slept_until)
    for child in children:
        child.resume()
    eventually(lambda: keeper.of("healthy").cycles > cycles + 20)
    assert nobody_touched_the_healthy(keeper)
    assert keeper.of("writer").starts == 1
    assert not keeper.said("hang")


def test_on_a_starved_host_nobody_who_is_healthy_is_killed(keep: Any) -> None:
    keeper = keep(animals={f"also_{number}": ("beats", "") for number in range(4)})
    burn = [sys.executable, "-S", "-c", "while True: pass"]
    burners = [subprocess.Popen(burn) for _ in range(8 * (os.cpu_count() or 1))]
    try:
        cycles = keeper.of("healthy").cycles
        # Three times the ten seconds in which a silent strategy would be killed.
        until = time.monotonic() + 30.0
        eventually(lambda: time.monotonic() >= until and keeper.of("healthy").cycles > cycles, 60.0)
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    status = keeper.status()
    assert status is not None
    assert [process.starts for process in status.processes] == [1] * 6
    assert not keeper.said("hang")


def is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False  # it is reaped already


@pytest.mark.timeout(300)
def test_two_thousand_restarts_leave_nothing_behind(keep: Any, tmp_path: Path) -> None:
    animals = {f"short_{number}": ("short_lived", "") for number in range(4)}
    keeper = keep(animals=animals)
    process = psutil.Process(keeper.process.pid)

    def starts() -> int:
        status = keeper.status()
        return sum(each.starts for each in status.strategies) if status else 0

    def files() -> set[str]:
        return {path.name for path in tmp_path.rglob("*") if not path.name.endswith(".new") and not path.name[-1].isdigit()}

    eventually(lambda: starts() >= 200, 30.0)
    rss, left = process.memory_info().rss, files()
    threads, descriptors, zombies = [], [], []
    for goal in range(400, 2001, 100):
        eventually(lambda goal=goal: starts() >= goal, 60.0)
        threads.append(process.num_threads())
        descriptors.append(process.num_fds())
        zombies.append(sum(is_zombie(child) for child in process.children()))
    assert nobody_touched_the_healthy(keeper)
    # The loop, the sink, at most two saves or receivers on their way out, and one receiver for each of the four that live.
    assert max(threads) <= 12
    assert max(descriptors) <= 70
    assert max(zombies) <= 4  # those that die while they are counted
    assert process.memory_info().rss < rss + 8 * 2**20
    assert files() == left
    keeper.stop()
    assert not keeper.left_processes()


@pytest.mark.faketime
def test_a_wall_clock_that_jumps_changes_nothing(keep: Any, tmp_path: Path) -> None:
    # Given a supervisor with all its children under libfaketime, which takes their time of the day from a file
    offset = tmp_path / "offset"
    offset.write_text("+0")
    keeper = keep(
        environment={
            "LD_PRELOAD": str(next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))),
            "FAKETIME_TIMESTAMP_FILE": str(offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        },
        animals={"odd": ("ends", "1")},
    )
    # When the clock jumps forward by a year, then back by two, then to where it was
    for jump, days in (("+365d", 365), ("-365d", -365), ("+0", 0)):
        offset.write_text(jump)
        wanted = time.time() + days * 86400
        eventually(lambda wanted=wanted: abs(keeper.wall_clock() - wanted) < 3600, what=f"a clock at {jump}")
        starts, cycles = keeper.of("odd").starts, keeper.of("healthy").cycles
        # Then what crashes is started again as before, and nobody else is judged
        eventually(lambda starts=starts: keeper.of("odd").starts >= starts + 3)
        eventually(lambda cycles=cycles: keeper.of("healthy").cycles >= cycles + 20)
        assert nobody_touched_the_healthy(keeper)
        assert not keeper.said("hang")
    assert keeper.stop() == ExitCode.DONE
