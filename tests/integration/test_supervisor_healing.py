"""`horizon up` while its parts are broken on purpose: what hangs, what lies around, what a person decided, and whether it heals."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
from eventually import eventually
from road import rows
from supervised import Up, configure

from horizon import control
from horizon.control import ProcessStatus, StatusReply
from horizon.errors import ExitCode

FAST = "start_limit_burst = 2\ndegraded_after_s = 1.5\nhang_after_s = 3"
# Goes on trading until the file is there.
HANG = "    import os\n    if os.path.exists('hang'):\n        open('hangs', 'w').close()\n        while True: pass\n"

# A helper with a session of its own whose parent has left it.
DAEMON = """
import os, subprocess, sys, time
subprocess.run([sys.executable, "-S", "-c", "import os, time; os.fork() and os._exit(0); os.setsid(); "
                "open('helper', 'w').write(str(os.getpid())); time.sleep(600)"])
"""


def status(up: Up) -> StatusReply:
    reply = control.ask(up.paths.control_socket, control.Status())
    assert isinstance(reply, StatusReply)
    return reply


def of(up: Up, name: str) -> ProcessStatus:
    return next(process for process in status(up).processes if process.name == name)


def comes_into(up: Up, name: str, state: str) -> ProcessStatus:
    eventually(lambda: of(up, name).state == state, 20, what=f"{name} {state}:\n{up.log()}")
    return of(up, name)


def edit(folder: Path, strategy: str, line: str) -> None:
    """Put a line into the strategy's cycle."""
    file = folder / f"{strategy}.py"
    file.write_text(file.read_text().replace("    mid =", f"{line}    mid =", 1))


def test_a_strategy_that_hangs_says_where_and_is_started_again_and_no_other_one_notices(
    up: Callable[..., Up], tmp_path: Path
) -> None:
    configure(tmp_path, "hanging", "good", more=FAST)
    edit(tmp_path, "hanging", HANG)
    running = up()
    running.is_ready("hanging", "good")
    good = running.pid_of("good")
    # When it never comes back from its cycle
    (tmp_path / "hang").touch()
    comes_into(running, "hanging", "degraded")
    eventually((tmp_path / "hangs").exists)
    (tmp_path / "hang").unlink()
    # Then the log has its stacks, and a new incarnation trades
    running.says("hanging hangs: no sign of life for 3 s; it is killed")
    running.says("was killed because it hung: no sign of life for")
    assert 'hanging.py", line' in running.log()
    assert comes_into(running, "hanging", "ready").restarts == 1
    assert running.pid_of("good") == good
    assert running.stop() == ExitCode.DONE


def test_a_strategy_that_must_not_be_killed_is_only_reported(up: Callable[..., Up], tmp_path: Path) -> None:
    configure(tmp_path, "precious", more=FAST)
    config = tmp_path / "horizon.toml"
    config.write_text(config.read_text() + 'on_hang = "alert"\n')
    running = up()
    running.is_ready("precious")
    pid = of(running, "precious").pid
    assert pid
    os.kill(pid, signal.SIGSTOP)
    running.says('it is left alone because of on_hang = "alert"')
    assert of(running, "precious").state == "degraded"
    os.kill(pid, signal.SIGCONT)
    comes_into(running, "precious", "ready")
    assert running.stop() == ExitCode.DONE
    assert running.log().count("precious was started") == 1


def test_a_writer_that_stands_still_is_replaced_and_nothing_is_lost(up: Callable[..., Up], tmp_path: Path) -> None:
    configure(tmp_path, "a", more="degraded_after_s = 1\nhang_after_s = 2")
    running = up()
    running.is_ready("a")
    writer = running.pid_of("writer")
    assert writer
    os.kill(writer, signal.SIGSTOP)
    comes_into(running, "writer", "degraded")
    os.kill(writer, signal.SIGCONT)
    comes_into(running, "writer", "ready")
    assert running.pid_of("writer") == writer
    assert running.stop() == ExitCode.DONE
    assert not running.paths.journals()


def test_who_crashes_too_often_is_taken_out_until_a_person_resets_it_even_over_a_new_start(
    up: Callable[..., Up], tmp_path: Path
) -> None:
    configure(tmp_path, "crashing", "good", more=FAST)
    edit(tmp_path, "crashing", "    import os\n    if os.path.exists('crash'): os._exit(1)\n")
    running = up()
    running.is_ready("crashing")
    (tmp_path / "crash").touch()
    why = comes_into(running, "crashing", "quarantined").why
    assert "started again 2 times within 300 s" in why
    assert of(running, "good").starts == 1
    comes_into(running, "good", "ready")
    assert running.stop() == ExitCode.DONE
    # When all is started anew, it stays out
    (tmp_path / "crash").unlink()
    again = up()
    again.is_ready("good")
    assert of(again, "crashing").why == why
    assert of(again, "crashing").starts == 0
    # Until somebody resets it
    control.ask(again.paths.control_socket, control.Reset(["crashing"]))
    comes_into(again, "crashing", "ready")
    assert json.loads(again.paths.desired.read_text())["quarantined"] == {}
    assert again.stop() == ExitCode.DONE


def test_a_helper_that_left_session_and_parent_does_not_outlive_its_strategy(up: Callable[..., Up], tmp_path: Path) -> None:
    configure(tmp_path, "a")
    file = tmp_path / "a.py"
    file.write_text(DAEMON + file.read_text())
    running = up()
    running.is_ready("a")
    helper = int(eventually((tmp_path / "helper").read_text))
    pid = running.pid_of("a")
    assert pid
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not psutil.pid_exists(helper), 10, what="the end of the helper")
    running.says("which a dead process left behind")
    assert running.stop() == ExitCode.DONE


def test_a_signal_to_everybody_at_once_still_ends_in_order(up: Callable[..., Up], tmp_path: Path) -> None:
    """systemd's way to stop a unit: SIGTERM to supervisor, writer and strategies in the same millisecond."""
    configure(tmp_path, "a", "b")
    running = up()
    running.is_ready("a", "b")
    everybody = [process.pid for process in running.children()]
    for pid in (*everybody, running.process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    assert running.wait() == ExitCode.DONE
    log = running.log()
    writer_left = log.rindex("the writer (pid")
    assert all(writer_left > log.rindex(f"{name} (pid") for name in ("a", "b"))
    assert not running.paths.journals()
    assert {status for (status,) in rows(running.paths, "SELECT status FROM strategy_runs")} == {"ended"}


def test_a_supervisor_that_was_stopped_for_a_while_judges_nobody(up: Callable[..., Up], tmp_path: Path) -> None:
    configure(tmp_path, "a", more=FAST)
    running = up()
    running.is_ready("a")
    pid = running.pid_of("a")
    cycles = of(running, "a").cycles
    running.send(signal.SIGSTOP)
    seen = tmp_path / "a.seen"
    size = seen.stat().st_size
    eventually(lambda: seen.stat().st_size > size + 5000, 30, what="fills while the supervisor is stopped")
    running.send(signal.SIGCONT)
    eventually(lambda: of(running, "a").cycles > cycles)
    assert running.pid_of("a") == pid
    assert "hangs" not in running.log()
    assert running.stop() == ExitCode.DONE


def test_a_death_is_noticed_though_the_caller_of_the_supervisor_ignores_the_deaths_of_children(
    up: Callable[..., Up], tmp_path: Path
) -> None:
    configure(tmp_path, "alpha")
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # a program that is started inherits this
    try:
        horizon = up("--plain")
    finally:
        signal.signal(signal.SIGCHLD, before)
    horizon.is_ready("alpha")
    os.kill(horizon.pid_of("alpha") or 0, signal.SIGKILL)
    horizon.says("was killed by SIGKILL; it is started again", 5.0)
