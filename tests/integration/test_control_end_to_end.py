"""People's commands to a real `horizon up`, its writer and its strategies."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from eventually import eventually
from supervised import Up, configure

from horizon.__main__ import main
from horizon.control import NoSupervisor, ProcessStatus, Status, StatusReply, ask, connect
from horizon.errors import ExitCode

QUIET = "[metrics]\nenabled = false\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    configure(tmp_path, "calm", "eager", more=QUIET)
    monkeypatch.setenv("HORIZON_CONFIG", str(tmp_path / "horizon.toml"))
    return tmp_path


@pytest.fixture
def up(folder: Path) -> Iterator[Up]:
    running = Up(folder)
    try:
        running.is_ready("calm", "eager")
        yield running
    finally:
        running.end()


def seen(up: Up, name: str) -> ProcessStatus:
    reply = ask(up.paths.control_socket, Status())
    assert isinstance(reply, StatusReply)
    return next(process for process in reply.processes if process.name == name)


def status(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main(["status", "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_strategy_is_stopped_started_and_restarted_and_no_other_is_touched(up: Up) -> None:
    calm, eager = seen(up, "calm").pid, seen(up, "eager").pid
    assert main(["stop", "calm", "--yes"]) == ExitCode.DONE
    assert seen(up, "calm").state == "stopped"
    assert up.pid_of("calm") is None
    assert main(["start", "calm"]) == ExitCode.DONE
    again = seen(up, "calm").pid
    assert again not in (calm, None)
    assert main(["restart", "calm"]) == ExitCode.DONE
    assert seen(up, "calm").pid not in (calm, again, None)
    assert seen(up, "eager").pid == eager
    for verb in ("stop", "start", "restart"):
        assert f"(uid {os.getuid()}, pid {os.getpid()}): {verb} calm" in up.log()


def test_what_was_stopped_by_hand_stays_stopped_when_the_supervisor_is_killed(
    up: Up, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stop", "calm", "--yes"]) == ExitCode.DONE
    up.send(signal.SIGKILL)
    up.wait()
    eventually(lambda: not up.left_processes(), 30, what="everybody left")
    second = Up(folder)
    try:
        second.is_ready("eager")
        code, document = status(capsys)
        assert code == ExitCode.DONE
        assert [(one["name"], one["state"], one["wanted"]) for one in document["processes"][:2]] == [
            ("calm", "stopped", False),
            ("eager", "ready", True),
        ]
        assert main(["start", "calm"]) == ExitCode.DONE
    finally:
        second.end()


def test_a_killed_strategy_is_seen_and_counted(up: Up, capsys: pytest.CaptureFixture[str]) -> None:
    pid = seen(up, "calm").pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: seen(up, "calm").restarts == 1 and seen(up, "calm").state == "ready", 30)
    code, document = status(capsys)
    assert code == ExitCode.DONE
    assert "SIGKILL" in document["processes"][0]["last_end"]


def test_a_reload_changes_what_has_changed_and_nothing_else(up: Up, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    eager = seen(up, "eager").pid
    configure(folder, "eager", "bold", more=QUIET)
    capsys.readouterr()
    assert main(["reload", "--dry-run"]) == ExitCode.DONE
    assert capsys.readouterr().out.splitlines()[:2] == ["add             bold", "remove          calm"]
    assert seen(up, "calm").state == "ready"
    assert main(["reload"]) == ExitCode.DONE
    code, document = status(capsys)
    assert code == ExitCode.DONE
    assert [one["name"] for one in document["processes"]] == ["eager", "bold", "writer"]
    assert seen(up, "eager").pid == eager

    with (folder / "horizon.toml").open("a") as file:
        file.write("\n[strategies.bold.params]\nsize = 2\n[strategies.wrong]\nfile = 3\n")
    bold = seen(up, "bold").pid
    assert main(["reload"]) == ExitCode.USAGE
    assert "strategies.wrong.file" in capsys.readouterr().err
    assert (seen(up, "eager").pid, seen(up, "bold").pid) == (eager, bold)


def test_a_dump_shows_the_line_that_a_strategy_hangs_in(up: Up, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stuck = "def trade(ctx):\n    while True:\n        pass\n"
    text = (folder / "calm.py").read_text()
    (folder / "calm.py").write_text(text.replace("def trade(ctx):", f"{stuck}\ndef unused(ctx):"))
    assert main(["restart", "calm"]) == ExitCode.DONE

    def dumped() -> str:
        capsys.readouterr()
        assert main(["dump", "calm"]) == ExitCode.DONE
        return capsys.readouterr().out

    out = eventually(lambda: out if "in trade" in (out := dumped()) else "", 9.0, what="it hangs, and is not yet killed for it")
    assert f'{folder / "calm.py"}", line' in out
    assert main(["dump", "writer"]) == ExitCode.DONE
    assert "horizon/writer/loop.py" in capsys.readouterr().out


def test_down_ends_everything_and_comes_back_with_everything(up: Up, folder: Path) -> None:
    assert main(["down", "--yes"]) == ExitCode.DONE
    assert up.process.poll() == ExitCode.DONE, "down has waited for it"
    eventually(lambda: not up.left_processes())
    assert not up.paths.control_socket.exists()
    with pytest.raises(NoSupervisor):
        ask(up.paths.control_socket, Status())


def test_a_siege_of_the_socket_costs_no_strategy_its_life(up: Up) -> None:
    pids = (seen(up, "calm").pid, seen(up, "eager").pid)
    with ExitStack() as stack:
        for number in range(300):
            client = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            connect(client, up.paths.control_socket)
            if number % 2:
                client.send(os.urandom(1 + number * 50))
        before = seen(up, "calm").cycles
        eventually(lambda: seen(up, "calm").cycles > before + 50, 30)
    assert (seen(up, "calm").pid, seen(up, "eager").pid) == pids
    assert main(["stop", "all", "--yes"]) == ExitCode.DONE
