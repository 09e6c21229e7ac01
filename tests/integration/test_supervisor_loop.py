"""The supervisor's loop with real processes of every kind: what it starts again, what it does not, and how it stops them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import psutil
import pytest
from eventually import eventually

from horizon import channel
from horizon.channel import Channel
from horizon.cli.live import StrategyRow
from horizon.errors import ExitCode
from horizon.ids import new_run_id
from horizon.paths import DatabasePaths
from supervisor import child as child_module
from supervisor import loop as loop_module
from supervisor.child import Child
from supervisor.loop import Supervisor

ZOO = str(Path(__file__).parents[1] / "zoo.py")


class AtOnce(Random):
    """No back-off: these tests are about what happens, not about when."""

    def uniform(self, a: float, b: float) -> float:
        return 0.0


class Stage:
    """A supervisor over children of the zoo. What the test wants to do meanwhile happens in `on_tick`, in the loop's own thread."""

    def __init__(self, folder: Path) -> None:
        self.paths = DatabasePaths.of(folder / "x.db")
        self.paths.folder.mkdir()
        self.pids: dict[str, list[int]] = {}

    def run(
        self,
        workers: dict[str, tuple[str, str]],
        writer: tuple[str, str] = ("good", ""),
        on_tick: Callable[[Supervisor, dict[str, StrategyRow]], None] = lambda *_: None,
        stop_timeout_s: float = 5.0,
        duration_s: float | None = None,
    ) -> tuple[ExitCode, Supervisor]:
        def show(rows: Sequence[StrategyRow]) -> None:
            on_tick(supervisor, {row.strategy: row for row in rows})

        supervisor = Supervisor(
            self.paths,
            writer=lambda now: self._start("writer", writer, now),
            workers={name: (lambda now, name=name, kind=kind: self._start(name, kind, now)) for name, kind in workers.items()},
            stop_timeout_s=stop_timeout_s,
            show=show,
            random=AtOnce(),
        )
        return supervisor.run(duration_s), supervisor

    def starts(self, name: str) -> int:
        return len(self.pids.get(name, ()))

    def _start(self, name: str, kind: tuple[str, str], now: float) -> Child:
        ours, theirs = channel.pair()
        behaviour, argument = kind
        with theirs:
            process = subprocess.Popen(
                [sys.executable, ZOO, behaviour, str(theirs.fileno()), argument], pass_fds=(theirs.fileno(),)
            )
        self.pids.setdefault(name, []).append(process.pid)
        return Child(process.pid, Channel(ours), process.poll, now)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(loop_module, "_SHOW_EVERY_S", 0.02)
    monkeypatch.setattr(loop_module, "_TICK_S", 0.02)
    monkeypatch.setattr(child_module, "TERM_GRACE_S", 0.3)
    stage = Stage(tmp_path)
    yield stage
    ours = {pid for pids in stage.pids.values() for pid in pids}
    left = [process for process in psutil.Process().children() if process.pid in ours]
    for process in left:
        process.kill()
    assert not left


def stop_when(
    condition: Callable[[Supervisor, dict[str, StrategyRow]], bool], number: int = signal.SIGTERM
) -> Callable[..., None]:
    """Send this process a signal, once, when something is the case."""
    sent: list[int] = []

    def look(supervisor: Supervisor, rows: dict[str, StrategyRow]) -> None:
        if not sent and condition(supervisor, rows):
            sent.append(number)
            os.kill(os.getpid(), number)

    return look


def all_run(supervisor: Supervisor, rows: dict[str, StrategyRow]) -> bool:
    return all(row.state == "running" for row in rows.values())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_the_strategies_and_then_the_writer(stage: Stage, number: int) -> None:
    order: list[str] = []

    def look(supervisor: Supervisor, rows: dict[str, StrategyRow]) -> None:
        stop(supervisor, rows)
        alive = [slot.name for slot in (supervisor.writer, *supervisor.workers) if slot.child]
        if not order or order[-1] != ",".join(alive):
            order.append(",".join(alive))

    stop = stop_when(all_run, number)
    exit_code, supervisor = stage.run({"a": ("good", ""), "b": ("good", "")}, on_tick=look)
    assert exit_code == ExitCode.DONE
    assert all(names.startswith("writer") for names in order if names), order
    assert [slot.state for slot in (supervisor.writer, *supervisor.workers)] == ["stopped"] * 3


def test_no_worker_starts_before_the_writer_is_ready(stage: Stage) -> None:
    seen: set[str] = set()

    def look(supervisor: Supervisor, rows: dict[str, StrategyRow]) -> None:
        if not supervisor.writer.ready:
            seen.add(rows["a"].state)
        stop(supervisor, rows)

    stop = stop_when(all_run)
    stage.run({"a": ("good", "")}, on_tick=look)
    assert "waiting" in seen
    assert not seen & {"starting", "running"}


@pytest.mark.parametrize("kind", [("ends", "1"), ("ends", "5"), ("never_ready", "1"), ("dies_by_signal", "")])
def test_what_crashes_is_started_again_and_nobody_else_is_touched(stage: Stage, kind: tuple[str, str]) -> None:
    exit_code, _ = stage.run(
        {"crashing": kind, "healthy": ("good", "")}, on_tick=stop_when(lambda *_: stage.starts("crashing") >= 4)
    )
    assert exit_code == ExitCode.DONE
    assert stage.starts("healthy") == 1


@pytest.mark.parametrize("code", [ExitCode.USAGE, ExitCode.STRATEGY])
def test_what_would_fail_again_is_started_once_and_the_others_go_on(stage: Stage, code: ExitCode) -> None:
    def failed_and_running(supervisor: Supervisor, rows: dict[str, StrategyRow]) -> bool:
        return rows["wrong"].state == "failed" and rows["healthy"].state == "running"

    exit_code, _ = stage.run(
        {"wrong": ("never_ready", str(code.value)), "healthy": ("good", "")}, on_tick=stop_when(failed_and_running)
    )
    assert exit_code == ExitCode.DONE
    assert stage.starts("wrong") == 1


def test_when_every_strategy_is_done_the_supervisor_is_done(stage: Stage) -> None:
    exit_code, _ = stage.run({"a": ("ends", "0"), "b": ("ends", "0")})
    assert exit_code == ExitCode.DONE
    assert (stage.starts("a"), stage.starts("b")) == (1, 1)


def test_when_nothing_is_left_to_run_the_exit_code_says_what_failed(stage: Stage) -> None:
    exit_code, _ = stage.run({"a": ("ends", "0"), "b": ("never_ready", "3")})
    assert exit_code == ExitCode.STRATEGY


def test_the_workers_go_on_while_a_crashed_writer_is_started_again(stage: Stage) -> None:
    exit_code, _ = stage.run({"a": ("good", "")}, writer=("ends", "1"), on_tick=stop_when(lambda *_: stage.starts("writer") >= 4))
    assert stage.starts("a") == 1
    assert exit_code == ExitCode.DONE


def test_an_unusable_database_stops_everything_with_its_code(stage: Stage) -> None:
    exit_code, _ = stage.run({"a": ("good", "")}, writer=("never_ready", "4"))
    assert exit_code == ExitCode.STORE
    assert stage.starts("writer") == 1


def test_a_database_that_becomes_unusable_drains_the_workers_without_waiting_for_acks(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a writer that gives up while strategies run, and one of them that will not leave
    monkeypatch.setattr(loop_module, "_STOP_WITHOUT_WRITER_S", 0.2)
    stage_writer_ends = ("gives_up_when_a_file_appears", str(stage.paths.folder / "end"))

    def look(supervisor: Supervisor, rows: dict[str, StrategyRow]) -> None:
        if all_run(supervisor, rows):
            (stage.paths.folder / "end").touch()

    exit_code, _ = stage.run(
        {"a": ("good", ""), "stubborn": ("ignores_everything", "")}, writer=stage_writer_ends, on_tick=look, stop_timeout_s=60.0
    )
    assert exit_code == ExitCode.STORE


@pytest.mark.parametrize("behaviour", ["ignores_everything", "closes_its_channel", "stops_itself"])
def test_a_worker_that_does_not_leave_is_forced_out_at_the_deadline(stage: Stage, behaviour: str) -> None:
    exit_code, _ = stage.run({"stubborn": (behaviour, ""), "good": ("good", "")}, on_tick=stop_when(all_run), stop_timeout_s=0.4)
    assert exit_code == ExitCode.DEADLINE


def test_a_second_signal_halves_the_time_that_is_left(stage: Stage) -> None:
    signals: list[float] = []

    def look(supervisor: Supervisor, rows: dict[str, StrategyRow]) -> None:
        (slot,) = supervisor.workers
        if slot.ready and slot.child and len(signals) < 12:
            # One at a time: two pending signals of one number are one signal.
            signals.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

    # Ten minutes, were they not halved again and again: the test's own time limit is far below that.
    exit_code, _ = stage.run({"stubborn": ("ignores_everything", "")}, on_tick=look, stop_timeout_s=600.0)
    assert exit_code == ExitCode.DEADLINE


def test_the_helpers_of_a_dead_worker_do_not_outlive_it(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "helper"
    stage.run({"a": ("has_a_helper", str(file))}, on_tick=stop_when(lambda *_: stage.starts("a") >= 2))
    helper = int(file.read_text())
    eventually(lambda: not psutil.pid_exists(helper) or psutil.Process(helper).status() == psutil.STATUS_ZOMBIE)


def test_garbage_on_the_channel_is_survived(stage: Stage) -> None:
    exit_code, _ = stage.run({"a": ("sends_garbage", "")}, on_tick=stop_when(all_run))
    assert exit_code == ExitCode.DONE


def test_the_duration_counts_from_the_readiness_of_the_writer(stage: Stage) -> None:
    started = time.monotonic()
    exit_code, _ = stage.run({"a": ("good", "")}, duration_s=0.3)
    assert exit_code == ExitCode.DONE
    assert time.monotonic() - started > 0.3


def test_a_writer_that_is_never_ready_does_not_keep_a_limited_run_alive(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "_WRITER_START_S", 1.0)
    exit_code, _ = stage.run({"a": ("good", "")}, writer=("never_ready", ""), duration_s=0.3, stop_timeout_s=0.5)
    assert exit_code != ExitCode.DONE


def test_a_program_that_cannot_be_started_is_tried_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    start = stage._start

    def fails_at_first(name: str, kind: tuple[str, str], now: float) -> Child:
        tried.append(name)
        if name == "a" and tried.count("a") < 3:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return start(name, kind, now)

    monkeypatch.setattr(stage, "_start", fails_at_first)
    exit_code, _ = stage.run({"a": ("good", "")}, on_tick=stop_when(all_run))
    assert tried.count("a") == 3
    assert exit_code == ExitCode.DONE


def test_a_journal_that_is_left_over_is_not_a_clean_end(stage: Stage) -> None:
    run_id = new_run_id()[:-12] + "f" * 12
    run_id = "f" + run_id[1:]  # younger than any run of today

    def look(supervisor: Supervisor, rows: dict[str, StrategyRow]) -> None:
        stage.paths.journal(run_id).touch()
        stop(supervisor, rows)

    stop = stop_when(all_run)
    exit_code, supervisor = stage.run({"a": ("good", run_id)}, on_tick=look)
    assert exit_code == ExitCode.DEADLINE
    assert supervisor.left_journals() == [stage.paths.journal(run_id)]


def test_many_deaths_leave_no_descriptor_behind(stage: Stage) -> None:
    files: list[int] = []

    def look(supervisor: Supervisor, rows: dict[str, StrategyRow]) -> None:
        files.append(len(os.listdir("/proc/self/fd")))
        stop(supervisor, rows)

    stop = stop_when(lambda *_: stage.starts("a") >= 25)
    before = len(os.listdir("/proc/self/fd"))
    stage.run({"a": ("dies_by_signal", "")}, on_tick=look)
    assert max(files) - before < 16
    assert len(os.listdir("/proc/self/fd")) <= before
