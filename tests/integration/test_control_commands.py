"""`horizon status`, `start`, `stop`, `restart`, `reset`, `reload`, `dump`, `down` over a socket whose processes are only a table."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from eventually import eventually
from pretended import Pretended, listening, write_config
from road import stop_writer
from samples import fill

from horizon.__main__ import main
from horizon.cli.app import cli
from horizon.control import NoSupervisor, WriterHealth
from horizon.errors import ExitCode
from horizon.recorder import Recorder
from horizon.records import RunStarted


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretended]:
    with listening(tmp_path, "calm", "eager") as supervisor:
        monkeypatch.setenv("HORIZON_CONFIG", str(supervisor.config.path))
        yield supervisor


class Said:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Any:
    def say(*arguments: str) -> Said:
        capsys.readouterr()
        code = main(arguments)
        return Said(code, *capsys.readouterr())

    return say


def program(*arguments: str, environment: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "horizon", *arguments], text=True, env={**os.environ, **(environment or {})}, **options
    )


# ---- status


def test_status_shows_every_process_and_the_database(supervisor: Pretended, say: Any) -> None:
    supervisor.set("calm", orders=12, fills=7, open_orders=2, position=0.30000000000000004, pnl=-1.23456, latency_ms=1.25)
    said = say("status")
    first, second, empty, titles, calm, eager, writer = said.out.splitlines()
    assert first == "horizon 0.1.0 (pid 4711), up 2h07m: 2 of 2 ready"
    assert second == f"{supervisor.config.database.path}: 1234 records committed since the writer's start, last commit 0s ago"
    assert not empty
    assert titles.split() == [
        *("process", "state", "pid", "uptime", "restarts", "cycles", "orders", "fills", "open", "position", "pnl", "unacked"),
        *("latency", "beat", "note"),
    ]
    assert calm.split() == [
        "calm",
        "ready",
        "100",
        "1m01s",
        "0",
        "0",
        "12",
        "7",
        "2",
        "0.3",
        "-1.2346",
        "0",
        "1.2",
        "ms",
        "0.2",
        "s",
    ]
    assert [line.split()[0] for line in (eager, writer)] == ["eager", "writer"]
    assert (said.code, said.err) == (ExitCode.DONE, "")


def test_what_is_not_ready_is_said_and_is_exit_code_8(supervisor: Pretended, say: Any) -> None:
    supervisor.held = {"eager", "calm"}
    supervisor.set("eager", state="quarantined", pid=None, why="5 crashes in 300 s", last_end="exit code 1", restarts=5)
    supervisor.set("calm", state="backoff", pid=None, next_start_s=1.25, last_end="killed by SIGSEGV", restarts=1)
    said = say("status")
    assert said.code == ExitCode.FINDINGS
    assert said.err.splitlines() == ["calm is backoff", "eager is quarantined (5 crashes in 300 s)"]
    assert "next start in 1.2 s; last: killed by SIGSEGV" in said.out
    assert "5 crashes in 300 s; last: exit code 1" in said.out


def test_what_was_stopped_by_hand_or_is_done_is_no_trouble(supervisor: Pretended, say: Any) -> None:
    supervisor.set("eager", state="stopped", wanted=False, pid=None)
    supervisor.set("calm", state="stopped", is_done=True, pid=None)
    said = say("status")
    assert (said.code, said.err) == (ExitCode.DONE, "")
    assert "0 of 0 ready, 2 stopped or done" in said.out
    assert " done " in next(line for line in said.out.splitlines() if line.startswith("calm"))


def test_a_database_that_takes_no_rows_is_trouble(supervisor: Pretended, say: Any) -> None:
    supervisor.writer = WriterHealth(commit_age_s=40.0, stalled="the disk is full")
    said = say("status")
    assert said.code == ExitCode.FINDINGS
    assert said.err == "the database cannot be written: the disk is full\n"


def test_what_a_strategy_says_cannot_steer_the_terminal(supervisor: Pretended, say: Any) -> None:
    supervisor.set("calm", last_error="\x1b[2Jgone\nsecond")
    said = say("status")
    assert "\x1b" not in said.out
    assert r"\x1b[2Jgone\nsecond" in said.out


def test_status_as_json_has_everything(supervisor: Pretended, say: Any) -> None:
    supervisor.set("eager", state="degraded")
    said = say("status", "--json")
    document = json.loads(said.out)
    assert document["not_ready"] == ["eager is degraded"]
    assert document["processes"][0]["name"] == "calm"
    assert document["writer"]["committed"] == 1234
    assert (said.code, said.err) == (ExitCode.FINDINGS, "")


def test_a_pipe_that_closes_early_is_no_error(supervisor: Pretended) -> None:
    for arguments in (("status", "--json"), ("status",), ("status", "--watch"), ("status", "--watch", "--json")):
        watched = program(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert watched.stdout is not None
        assert watched.stdout.readline()
        watched.stdout.close()
        assert watched.wait(20) == ExitCode.DONE, arguments
        assert watched.stderr is not None
        assert watched.stderr.read() == ""
        watched.stderr.close()


def test_watching_over_a_pipe_prints_it_again_and_ctrl_c_ends_it(supervisor: Pretended, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with out.open("w") as stream:
        watched = program("status", "--watch", stdout=stream, stderr=stream)
    eventually(lambda: out.read_text().count("2 of 2 ready") >= 2, 20)
    watched.send_signal(signal.SIGINT)
    assert watched.wait(10) == ExitCode.INTERRUPTED
    assert "\x1b" not in out.read_text()
    assert "Traceback" not in out.read_text()


@pytest.mark.parametrize(("term", "refreshes"), [("xterm", True), ("dumb", False)])
def test_a_terminal_is_drawn_over_unless_it_is_a_dumb_one(supervisor: Pretended, term: str, refreshes: bool) -> None:
    ours, theirs = pty.openpty()
    environment = {"TERM": term, "COLUMNS": "80", "LINES": "24", "NO_COLOR": ""}
    watched = program("status", "--watch", environment=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while shown.count(b"2 of 2 ready") < 2:
        shown += os.read(ours, 65536)
    watched.send_signal(signal.SIGINT)
    with suppress(OSError):  # the end of a terminal
        while os.read(ours, 65536):
            pass
    os.close(ours)
    assert watched.wait(10) == ExitCode.INTERRUPTED
    assert (b"\x1b[H" in shown) is refreshes
    if refreshes:
        assert max(len(line) for line in shown.replace(b"\x1b[H", b"").replace(b"\x1b[K", b"").split(b"\r\n")) <= 80


def test_watching_goes_on_when_the_supervisor_goes_and_comes(
    tmp_path: Path, supervisor: Pretended, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from horizon.cli import status

    turns = iter([NoSupervisor("no supervisor runs here"), supervisor.status()])
    monkeypatch.setattr(status, "EVERY_S", 0.0)

    class Flickering:
        def status(self) -> Any:
            turn = next(turns, None)
            if turn is None:
                raise KeyboardInterrupt
            if isinstance(turn, NoSupervisor):
                raise turn
            return turn

    with pytest.raises(KeyboardInterrupt):
        status._watch(Flickering(), supervisor.status(), as_json=False)  # type: ignore[arg-type]
    out = capsys.readouterr().out
    assert out.index("ready") < out.index("no supervisor runs here") < out.rindex("ready")


# ---- nobody there


@pytest.mark.parametrize(
    "command", [["status"], ["start", "calm"], ["stop", "calm"], ["reload"], ["dump", "calm"], ["down", "--yes"]]
)
def test_without_a_supervisor_every_command_says_so(
    tmp_path: Path, say: Any, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    write_config(tmp_path, "calm")
    monkeypatch.chdir(tmp_path)
    said = say(*command)
    assert said.code == ExitCode.NOBODY
    assert "no supervisor runs here" in said.err


def test_the_supervisor_is_found_where_the_file_says(tmp_path: Path, say: Any) -> None:
    with listening(tmp_path, "calm") as supervisor:
        moved = tmp_path / "elsewhere"
        moved.mkdir()
        table = f'[supervisor]\ncontrol_socket = "{supervisor.paths.control_socket}"'
        other = write_config(moved, "bold", more=table)
        assert say("status", "--config", str(other.path)).code == ExitCode.DONE


def test_a_strategys_table_that_is_just_being_written_keeps_nobody_from_stopping(supervisor: Pretended, say: Any) -> None:
    with supervisor.config.path.open("a") as file:
        file.write('\n[strategies.half]\nfile = "not there yet.py"\n')
    assert say("stop", "calm", "--yes").code == ExitCode.DONE


# ---- start, stop, restart, reset


def test_a_strategy_is_stopped_and_started_again(supervisor: Pretended, say: Any) -> None:
    said = say("stop", "calm")
    assert (said.code, said.out, said.err) == (ExitCode.DONE, "calm is stopped\n", "")
    assert say("stop", "calm").code == ExitCode.DONE, "it may be said twice"
    said = say("start", "calm")
    assert (said.code, said.out) == (ExitCode.DONE, "calm is ready (pid 201)\n")
    assert say("start", "calm").out == "calm is ready (pid 201)\n"


def test_a_restart_is_over_when_the_next_one_is_ready(supervisor: Pretended, say: Any) -> None:
    said = say("restart", "all")
    assert (said.code, said.out) == (ExitCode.DONE, "calm is ready (pid 201)\neager is ready (pid 201)\n")


def test_a_quarantine_is_ended_by_reset_and_not_by_start(supervisor: Pretended, say: Any) -> None:
    supervisor.set("calm", state="quarantined", pid=None, why="exit code 3")
    said = say("start", "calm", "eager")
    assert said.code == ExitCode.FAILED
    assert (
        said.err == "calm is in quarantine (exit code 3); horizon logs calm says more; when it is corrected: horizon reset calm\n"
    )
    assert said.out == "eager is ready (pid 101)\n"
    assert say("reset", "calm").code == ExitCode.DONE


def test_what_is_not_done_by_the_deadline_is_said_with_its_state(supervisor: Pretended, say: Any) -> None:
    supervisor.held = {"calm"}
    supervisor.set("calm", state="backoff", wanted=True, pid=None, why="it crashed: exit code 1")
    said = say("start", "calm", "--timeout", "0.3")
    assert said.code == ExitCode.DEADLINE
    assert said.err == "after 0s calm is backoff (it crashed: exit code 1); the supervisor goes on with it\n"


def test_one_that_has_nothing_left_to_do_is_no_failure(supervisor: Pretended, say: Any) -> None:
    supervisor.held = {"calm"}
    supervisor.set("calm", state="starting", is_done=True)
    assert say("start", "calm").out == "calm is done: it had nothing left to do\n"


def test_somebody_else_may_decide_otherwise_meanwhile(supervisor: Pretended, say: Any) -> None:
    supervisor.held = {"calm"}
    supervisor.set("calm", state="starting")
    threading.Timer(0.3, lambda: supervisor.unwant("calm", "ben")).start()
    said = say("start", "calm", "--timeout", "20")
    assert said.code == ExitCode.FAILED
    assert said.err.startswith("calm was stopped by somebody else meanwhile")


@pytest.mark.parametrize("verb", ["start", "stop", "restart", "reset"])
def test_a_wrong_name_is_told_the_near_one(supervisor: Pretended, say: Any, verb: str) -> None:
    said = say(verb, "eagr")
    assert (said.code, said.err) == (ExitCode.USAGE, "horizon: there is no strategy 'eagr'; did you mean eager?\n")
    assert not supervisor.done


def test_ctrl_c_ends_the_wait_and_not_the_command(supervisor: Pretended, tmp_path: Path) -> None:
    supervisor.held = {"calm"}
    waiting = program("restart", "calm", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    eventually(lambda: supervisor.done == ["restart calm"], 20)
    eventually(lambda: supervisor.desired.stored == supervisor.desired.version)
    assert waiting.stderr is not None
    assert waiting.stderr.readline() == "calm is stopping\n"
    waiting.send_signal(signal.SIGINT)
    _, err = waiting.communicate(timeout=10)
    assert waiting.returncode == ExitCode.INTERRUPTED
    assert err.strip() == "it was asked for all the same: the supervisor goes on with it; see horizon status"


# ---- the question before


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"open_orders": 2}, "calm has 2 open orders."),
        ({"position": -0.5}, "calm has a position of -0.5."),
        ({"open_orders": 1, "position": 3}, "calm has 1 open order and a position of 3."),
    ],
)
def test_what_is_open_is_named_and_asked_about(supervisor: Pretended, say: Any, fields: dict[str, Any], sentence: str) -> None:
    supervisor.set("calm", **fields)
    said = say("stop", "calm")
    assert said.code == ExitCode.USAGE
    assert said.err == f"horizon: {sentence}\nStop? There is no terminal to ask on: say --yes\n"
    assert not supervisor.done
    assert say("stop", "eager").code == ExitCode.DONE
    assert say("stop", "calm", "--yes").code == ExitCode.DONE


def test_positions_that_add_up_to_nothing_are_open_all_the_same(supervisor: Pretended, say: Any) -> None:
    recorder = Recorder.open(supervisor.paths, "calm")
    recorder.record(RunStarted("calm", "paper", 1.0, None, os.getpid()))
    recorder.record(fill(1, market_id="north"))
    recorder.record(fill(2, market_id="south"))
    recorder.flush(10)
    recorder.close()
    stop_writer(supervisor.paths)
    said = say("stop", "calm")
    assert said.code == ExitCode.USAGE
    assert "calm has 2 open positions." in said.err


def test_all_and_down_are_always_asked_about(supervisor: Pretended, say: Any) -> None:
    assert "Stop all strategies?" in say("stop", "all").err
    assert "Stop all strategies and Horizon itself?" in say("down").err
    assert not supervisor.done
    assert say("stop", "all", "--yes").out == "calm is stopped\neager is stopped\n"


def test_a_person_at_a_terminal_is_asked(supervisor: Pretended) -> None:
    supervisor.set("calm", open_orders=1)
    for answer, code, done in (("n", ExitCode.FAILED, []), ("y", ExitCode.DONE, ["unwant calm"])):
        ours, theirs = pty.openpty()
        asked = program("stop", "calm", stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        os.write(ours, f"{answer}\n".encode())
        _, err = asked.communicate(timeout=20)
        os.close(ours)
        os.close(theirs)
        assert "calm has 1 open order." in err
        assert ("horizon: nothing was changed" in err) == (answer == "n")
        assert (asked.returncode, supervisor.done) == (code, done)


# ---- reload, dump, down


def test_a_reload_says_what_it_did_and_waits_for_it(supervisor: Pretended, say: Any, tmp_path: Path) -> None:
    write_config(tmp_path, "calm", "bold", tables={"calm": "interval = 3"}, more="[supervisor]\nstop_timeout_s = 5")
    said = say("reload", "--dry-run")
    plan = ["add             bold", "remove          eager", "restart         calm", "change at once  supervisor.stop_timeout_s"]
    assert said.out.splitlines() == [*plan, "nothing of this is done yet: this was a dry run"]
    assert not supervisor.done

    said = say("reload")
    assert said.code == ExitCode.DONE
    assert said.out.splitlines()[:4] == plan
    assert sorted(said.out.splitlines()[4:]) == ["bold is ready (pid 200)", "calm is ready (pid 201)", "eager is gone"]
    assert say("reload").out == "nothing has changed\n"


def test_a_reload_as_json_is_the_plan_alone(supervisor: Pretended, say: Any, tmp_path: Path) -> None:
    write_config(tmp_path, "calm", "eager", "bold")
    said = say("reload", "--json")
    assert json.loads(said.out) == {"add": ["bold"], "remove": [], "restart": [], "live": [], "applied": True}


def test_a_stopped_strategy_whose_table_changes_stays_stopped(supervisor: Pretended, say: Any, tmp_path: Path) -> None:
    supervisor.held = {"calm"}
    write_config(tmp_path, "calm", "eager", tables={"calm": "interval = 3"})
    threading.Timer(0.3, lambda: supervisor.set("calm", state="stopped", wanted=False, pid=None)).start()
    said = say("reload")
    assert said.code == ExitCode.DONE
    assert "calm stays stopped" in said.out


def test_a_wrong_file_is_refused_by_file_and_key(supervisor: Pretended, say: Any, tmp_path: Path) -> None:
    with supervisor.config.path.open("a") as file:
        file.write("\n[strategies.half]\nintervall = 3\n")
    said = say("reload")
    assert said.code == ExitCode.USAGE
    assert "strategies.half.intervall: unknown key; did you mean interval?" in said.err
    assert not supervisor.done


def test_a_dump_is_printed(supervisor: Pretended, say: Any) -> None:
    supervisor.dumps["writer"] = "Thread 0x1 (most recent call first):\n  File loop.py"
    assert say("dump", "writer").out == "Thread 0x1 (most recent call first):\n  File loop.py\n"


def test_down_that_takes_too_long_says_so(supervisor: Pretended, say: Any) -> None:
    said = say("down", "--yes", "--timeout", "0.3")
    assert said.code == ExitCode.DEADLINE
    assert "still stopping" in said.err


def test_names_are_completed_for_the_shell(supervisor: Pretended) -> None:
    from click.shell_completion import ShellComplete

    complete = ShellComplete(cli, {}, "horizon", "_HORIZON_COMPLETE")
    assert [item.value for item in complete.get_completions(["stop"], "e")] == ["eager"]
    assert [item.value for item in complete.get_completions(["dump"], "")] == ["all", "calm", "eager"]
