"""The supervisor's loop with real processes of every kind: what it starts again, what it does not, and how it stops them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
from eventually import eventually

from horizon import channel
from horizon.channel import Channel
from horizon.cli.live import StrategyRow
from horizon.config import Config, Database, Logs, MetricsServer, StrategyTable, Supervision
from horizon.control import Reply
from horizon.errors import ExitCode
from horizon.ids import new_run_id
from horizon.paths import DatabasePaths
from supervisor import child as child_module
from supervisor import loop as loop_module
from supervisor.child import Child
from supervisor.loop import Supervisor
from supervisor.reload import Plan
from supervisor.worker_states import State

ZOO = str(Path(__file__).parents[1] / "zoo.py")


# Most of the zoo shows no sign of life, and dies often.
NEVER = {"start_limit_burst": 0, "degraded_after_s": 3600.0, "hang_after_s": 3600.0}


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
        self.later: dict[str, tuple[str, str]] = {}  # strategies that a reload brings

    def run(
        self,
        workers: dict[str, tuple[str, str]],
        writer: tuple[str, str] = ("good", ""),
        on_tick: Callable[[Supervisor, dict[str, StrategyRow]], None] = lambda *_: None,
        stop_timeout_s: float = 5.0,
        duration_s: float | None = None,
        gateway: tuple[str, str] | None = None,
        **supervision: Any,
    ) -> tuple[ExitCode, Supervisor]:
        def show(rows: Sequence[StrategyRow]) -> None:
            on_tick(supervisor, {row.strategy: row for row in rows})

        kinds = {**workers, "writer": writer, **self.later}
        if gateway is not None:
            kinds["gateway"] = gateway
        supervisor = Supervisor(
            self.config(*workers, has_gateway=gateway is not None, stop_timeout_s=stop_timeout_s, **supervision),
            self.paths,
            lambda config, name, now: self._start(name, kinds[name], now),
            show,
            random=AtOnce(),
        )
        return supervisor.run(duration_s), supervisor

    def config(self, *names: str, has_gateway: bool = False, **supervision: Any) -> Config:
        """Of strategies that exist by name only: the zoo runs in their place."""
        return Config(
            path=self.paths.folder / "horizon.toml",
            database=Database(path=self.paths.database),
            supervisor=Supervision(**{**NEVER, **supervision}),
            logs=Logs(),
            metrics=MetricsServer(enabled=has_gateway),
            strategies={name: StrategyTable(file=Path(ZOO), name=name) for name in names},
        )

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
    return all(row.state == "ready" for row in rows.values())


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
    assert [slot.life.state for slot in (supervisor.writer, *supervisor.workers)] == [State.STOPPED] * 3


def test_no_worker_starts_before_the_writer_is_ready(stage: Stage) -> None:
    seen: set[str] = set()

    def look(supervisor: Supervisor, rows: dict[str, StrategyRow]) -> None:
        if not supervisor.writer.is_ready:
            seen.add(rows["a"].state)
        stop(supervisor, rows)

    stop = stop_when(all_run)
    stage.run({"a": ("good", "")}, on_tick=look)
    assert "waiting" in seen
    assert not seen & {"starting", "ready"}


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
        return rows["wrong"].state == "quarantined" and rows["healthy"].state == "ready"

    exit_code, _ = stage.run(
        {"wrong": ("never_ready", str(code.value)), "healthy": ("good", "")}, on_tick=stop_when(failed_and_running)
    )
    assert exit_code == ExitCode.DONE
    assert stage.starts("wrong") == 1


def test_when_every_strategy_is_done_the_supervisor_is_done(stage: Stage) -> None:
    exit_code, _ = stage.run({"a": ("ends", "0"), "b": ("ends", "0")})
    assert exit_code == ExitCode.DONE
    assert (stage.starts("a"), stage.starts("b")) == (1, 1)


def test_when_no_strategy_can_run_as_it_is_the_exit_code_says_why(stage: Stage) -> None:
    exit_code, _ = stage.run({"a": ("never_ready", "3"), "b": ("never_ready", "3")})
    assert exit_code == ExitCode.STRATEGY
    assert (stage.starts("a"), stage.starts("b")) == (1, 1)


def test_what_was_given_up_waits_for_a_person_though_the_others_are_done(stage: Stage) -> None:
    def done_and_quarantined(supervisor: Supervisor, rows: dict[str, StrategyRow]) -> bool:
        return (rows["a"].state, rows["b"].state) == ("done", "quarantined")

    exit_code, _ = stage.run({"a": ("ends", "0"), "b": ("never_ready", "3")}, on_tick=stop_when(done_and_quarantined))
    assert exit_code == ExitCode.DONE


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
        if slot.was_ready and slot.child and len(signals) < 12:
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


def test_a_flood_on_the_channel_is_said_now_and_then_and_holds_nobody_up(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    looks: list[float] = []

    def look(supervisor: Supervisor, rows: dict[str, StrategyRow]) -> None:
        looks.append(time.monotonic())
        stop(supervisor, rows)

    flooded_for = 100  # looks, which come every 20 ms
    stop = stop_when(lambda supervisor, rows: len(looks) >= flooded_for and all_run(supervisor, rows))
    exit_code, _ = stage.run({"a": ("floods_its_channel", ""), "b": ("good", "")}, on_tick=look)
    assert exit_code == ExitCode.DONE
    said = [record for record in caplog.records if "nobody understands" in record.getMessage()]
    assert 1 <= len(said) <= 2, "the first of it, and at the end the rest"


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


def test_a_writer_that_cannot_be_kept_alive_ends_everything(stage: Stage) -> None:
    exit_code, _ = stage.run({"a": ("good", "")}, writer=("ends", "1"), start_limit_burst=2)
    assert exit_code == ExitCode.FAILED
    assert stage.starts("writer") == 3


def test_the_gateway_comes_and_goes_without_consequences_and_leaves_last(stage: Stage) -> None:
    order: list[str] = []

    def look(supervisor: Supervisor, rows: dict[str, StrategyRow]) -> None:
        order.append(",".join(slot.name for slot in supervisor.slots if slot.child))
        stop(supervisor, rows)

    stop = stop_when(all_run)
    exit_code, _ = stage.run({"a": ("good", "")}, gateway=("good", ""), on_tick=look)
    assert exit_code == ExitCode.DONE
    assert all("gateway" in alive for alive in order[order.index("writer,a,gateway") :] if alive)
    stop = stop_when(lambda supervisor, _: bool(supervisor.gateway and supervisor.gateway.life.state is State.QUARANTINED))
    exit_code, _ = stage.run({"b": ("good", "")}, gateway=("ends", "1"), on_tick=look, start_limit_burst=1)
    assert exit_code == ExitCode.DONE
    assert stage.starts("b") == 1


def test_a_command_to_one_strategy_leaves_the_others_alone(stage: Stage) -> None:
    steps: list[str] = []

    def look(supervisor: Supervisor, rows: dict[str, StrategyRow]) -> None:
        state = rows["a"].state
        if not steps and all_run(supervisor, rows):
            supervisor.unwant("a", "me")
            steps.append("stop")
        elif steps == ["stop"] and state == "stopped" and supervisor.desired.stored == supervisor.desired.version:
            assert json.loads(stage.paths.desired.read_text())["stopped"] == ["a"]
            supervisor.want("a", "me")
            steps.append("start")
        elif steps == ["stop", "start"] and state == "ready":
            supervisor.restart("a", "me")
            steps.append("restart")
        elif len(steps) == 3 and supervisor.starts("a") == 3 and state == "ready":
            steps.append("down")
            supervisor.down("me")

    exit_code, supervisor = stage.run({"a": ("good", ""), "b": ("good", "")}, on_tick=look)
    assert exit_code == ExitCode.DONE
    assert steps == ["stop", "start", "restart", "down"]
    assert (stage.starts("a"), stage.starts("b")) == (3, 1)
    assert json.loads(stage.paths.desired.read_text())["stopped"] == [], "what ends because all ends was not stopped by hand"
    assert {slot.life.restarts for slot in supervisor.workers} == {0}


def test_a_reload_adds_removes_and_restarts_and_a_strategy_that_comes_back_never_overlaps(stage: Stage) -> None:
    steps: list[str] = []
    stage.later["new"] = ("good", "")

    def look(supervisor: Supervisor, rows: dict[str, StrategyRow]) -> None:
        if not steps and all_run(supervisor, rows):
            supervisor.reload(stage.config("new", "b"), Plan(add=("new",), remove=("a",), restart=("b",)))
            # Wanted again before it has gone
            supervisor.reload(stage.config("a", "new", "b"), Plan(add=("a",)))
            steps.append("reload")
        elif steps == ["reload"] and len(rows) == 3 and all_run(supervisor, rows) and supervisor.starts("b") == 2:
            assert list(rows) == ["a", "new", "b"]
            supervisor.reload(stage.config("b"), Plan(remove=("a", "new")))
            steps.append("remove")
        elif steps == ["reload", "remove"] and list(rows) == ["b"]:
            steps.append("down")
            supervisor.down("me")

    exit_code, _ = stage.run({"a": ("good", ""), "b": ("good", "")}, on_tick=look)
    assert exit_code == ExitCode.DONE
    assert (stage.starts("a"), stage.starts("b"), stage.starts("new")) == (2, 2, 1)


@pytest.mark.parametrize("state", ["stopped", "backoff", "quarantined"])
def test_a_reload_removes_at_once_what_has_no_process(stage: Stage, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    monkeypatch.setattr(AtOnce, "uniform", lambda *_: 60.0)
    steps: list[str] = []
    kind = {"stopped": ("good", ""), "backoff": ("dies_by_signal", ""), "quarantined": ("ends", "3")}[state]

    def look(supervisor: Supervisor, rows: dict[str, StrategyRow]) -> None:
        if not steps and state == "stopped" and all_run(supervisor, rows):
            supervisor.unwant("a", "me")
            steps.append("stop")
        elif "remove" not in steps and rows["a"].state == state:
            supervisor.reload(stage.config("b"), Plan(remove=("a",)))
            assert [slot.name for slot in supervisor.workers] == ["b"]
            assert supervisor.starts("a") == 0
            steps.append("remove")
        elif "remove" in steps and all_run(supervisor, rows):
            supervisor.down("me")

    exit_code, _ = stage.run({"a": kind, "b": ("good", "")}, on_tick=look)
    assert exit_code == ExitCode.DONE


@pytest.mark.parametrize("verb", ["want", "restart", "reset"])
def test_what_a_reload_removes_is_not_started_again_by_a_command_that_comes_while_it_stops(stage: Stage, verb: str) -> None:
    steps: list[str] = []

    def look(supervisor: Supervisor, rows: dict[str, StrategyRow]) -> None:
        if not steps and all_run(supervisor, rows):
            supervisor.reload(stage.config("b"), Plan(remove=("a",)))
            getattr(supervisor, verb)("a", "me")
            steps.append("remove")
        elif steps and list(rows) == ["b"]:
            supervisor.down("me")

    exit_code, _ = stage.run({"a": ("good", ""), "b": ("good", "")}, on_tick=look)
    assert exit_code == ExitCode.DONE
    assert (stage.starts("a"), stage.starts("b")) == (1, 1)


def test_a_host_without_a_thread_to_give_delays_a_start(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    start = stage._start
    tried: list[str] = []

    def fails_at_first(name: str, kind: tuple[str, str], now: float) -> Child:
        tried.append(name)
        if name == "a" and tried.count("a") < 3:
            raise RuntimeError("can't start new thread")
        return start(name, kind, now)

    monkeypatch.setattr(stage, "_start", fails_at_first)
    exit_code, _ = stage.run({"a": ("good", "")}, on_tick=stop_when(all_run))
    assert (exit_code, tried.count("a")) == (ExitCode.DONE, 3)


def test_a_mistake_in_a_reload_by_signal_is_the_end_of_that_reload_only(stage: Stage) -> None:
    tried: list[str] = []

    def fails() -> Reply:
        tried.append("at once")
        raise RuntimeError("can't start new thread")

    def fails_later() -> Callable[[], Reply | None]:
        def look() -> Reply | None:
            tried.append("later")
            raise KeyError("a")

        return look

    def act(supervisor: Supervisor, rows: dict[str, StrategyRow]) -> None:
        if all_run(supervisor, rows) and len(tried) < 2:
            supervisor._begin_reload(fails if not tried else fails_later)
        stop(supervisor, rows)

    stop = stop_when(lambda *_: tried == ["at once", "later"])
    exit_code, _ = stage.run({"a": ("good", "")}, on_tick=act)
    assert exit_code == ExitCode.DONE
