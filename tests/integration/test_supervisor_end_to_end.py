"""`horizon up` with its real writer and real strategies: from the first fill to the last ack, and what is said about trouble."""

from __future__ import annotations

import multiprocessing
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from eventually import eventually
from road import rows
from supervised import Up, configure

from horizon.errors import ExitCode


def fills_of(up: Up) -> dict[str, set[str]]:
    """The fills in the database, by strategy."""
    found: dict[str, set[str]] = {}
    for strategy, fill_id in rows(up.paths, "SELECT strategy, fill_id FROM fills"):
        found.setdefault(strategy, set()).add(fill_id)
    return found


def seen_by(up: Up, strategy: str) -> set[str]:
    """The fills that the strategy was told of."""
    file = up.folder / f"{strategy}.seen"
    return set(file.read_text().split()) if file.exists() else set()


def trades(up: Up, strategy: str, fills: int = 5) -> None:
    """Wait until a strategy has seen more fills than it has now."""
    target = len(seen_by(up, strategy)) + fills
    eventually(lambda: len(seen_by(up, strategy)) >= target, 20, what=f"{fills} more fills of {strategy}:\n{up.log()}")


def assert_nothing_is_lost(up: Up, *strategies: str) -> None:
    stored = fills_of(up)
    for strategy in strategies:
        assert seen_by(up, strategy) <= stored[strategy]
    assert not up.paths.journals()


def test_three_strategies_share_a_database_and_ctrl_c_drains_them_before_the_writer(
    up: Callable[..., Up], tmp_path: Path
) -> None:
    # Given three strategies that trade
    configure(tmp_path, "a", "b", "c")
    running = up()
    for strategy in ("a", "b", "c"):
        trades(running, strategy)
    # When the operator presses Ctrl-C
    assert running.stop(signal.SIGINT) == ExitCode.DONE
    # Then everything is stored, the writer left last, and nobody is left
    assert_nothing_is_lost(running, "a", "b", "c")
    log = re.sub(r"curious\[[^]]*\]", "curious", running.log())
    assert log.index("the writer (pid") > max(log.index(f"{name} (pid", log.index("SIGINT")) for name in "abc")
    assert [status for (status,) in rows(running.paths, "SELECT status FROM strategy_runs")] == ["ended"] * 3
    eventually(lambda: not running.left_processes(), what="the end of every process")
    # And it said what each did, and how to look at it
    report = running.out.read_text()
    assert all(f"  {name}  " in report for name in "abc")
    assert report.count("nothing unacknowledged") == 3
    assert f"horizon fills --db {running.paths.database}" in report


def test_a_killed_worker_is_started_again_and_the_others_trade_on(up: Callable[..., Up], tmp_path: Path) -> None:
    configure(tmp_path, "victim", "other")
    running = up()
    trades(running, "victim")
    trades(running, "other")
    victim, other = running.pid_of("victim"), running.pid_of("other")
    assert victim
    assert other
    os.kill(victim, signal.SIGKILL)
    running.says(f"victim (pid {victim}) was killed by SIGKILL; it is started again in")
    trades(running, "victim")
    assert running.pid_of("other") == other
    assert running.stop() == ExitCode.DONE
    assert_nothing_is_lost(running, "victim", "other")
    runs = rows(running.paths, "SELECT status FROM strategy_runs WHERE strategy_name = 'victim' ORDER BY started_at")
    assert runs == [("died",), ("ended",)]
    assert "2 starts" in running.out.read_text()


def test_a_killed_writer_is_started_again_and_nothing_is_lost(up: Callable[..., Up], tmp_path: Path) -> None:
    configure(tmp_path, "a", "b")
    running = up()
    workers = dict.fromkeys(("a", "b"))
    for name in workers:
        trades(running, name)
        workers[name] = running.pid_of(name)
    for _ in range(3):
        writer = running.pid_of("writer")
        assert writer
        os.kill(writer, signal.SIGKILL)
        running.says(f"the writer (pid {writer}) was killed by SIGKILL; it is started again in")
        trades(running, "a")
        eventually(lambda writer=writer: running.pid_of("writer") not in (None, writer), 20)
    assert {name: running.pid_of(name) for name in workers} == workers
    assert running.stop(signal.SIGINT) == ExitCode.DONE
    assert_nothing_is_lost(running, "a", "b")


def test_when_the_supervisor_is_killed_the_workers_drain_and_the_writer_leaves_last(
    up: Callable[..., Up], tmp_path: Path
) -> None:
    configure(tmp_path, "a", "b")
    running = up()
    trades(running, "a")
    trades(running, "b")
    writer = running.pid_of("writer")
    running.send(signal.SIGKILL)

    def all_gone() -> bool:
        left = running.left_processes()
        assert writer in left or not any(name.startswith("hz:") for name in left.values()), left
        return not left

    eventually(all_gone, 30, what="the end of every process")
    assert_nothing_is_lost(running, "a", "b")
    assert [status for (status,) in rows(running.paths, "SELECT status FROM strategy_runs")] == ["ended"] * 2


def test_a_new_supervisor_right_after_a_killed_one_takes_over_from_what_is_left(up: Callable[..., Up], tmp_path: Path) -> None:
    configure(tmp_path, "a")
    running = up()
    trades(running, "a")
    running.send(signal.SIGKILL)
    running.wait()
    again = up()
    again.is_ready("a")
    trades(again, "a")
    assert again.stop() == ExitCode.DONE
    assert_nothing_is_lost(again, "a")


def test_ctrl_c_while_a_worker_starts_is_no_traceback(up: Callable[..., Up], tmp_path: Path) -> None:
    configure(tmp_path, "a")
    running = up()
    running.says("a was started (pid")
    # What a terminal does: the whole group, in which the worker still is
    os.killpg(running.process.pid, signal.SIGINT)
    assert running.wait() == ExitCode.DONE
    assert "Traceback" not in running.log()


def test_a_terminal_that_takes_nothing_stops_no_strategy(up: Callable[..., Up], tmp_path: Path) -> None:
    configure(tmp_path, "a")
    file = tmp_path / "a.py"
    file.write_text(file.read_text().replace("    mid =", "    print('x' * 2000)\n    mid =", 1))
    read_end, write_end = os.pipe()
    running = Up(tmp_path, stderr=write_end)
    os.close(write_end)
    trades(running, "a", 20)  # far more than a pipe takes
    running.send(signal.SIGTERM)
    eventually(lambda: not [name for name in running.left_processes().values() if name.startswith("hz:")], 20)
    while os.read(read_end, 65536):
        pass
    os.close(read_end)
    assert running.wait() == ExitCode.DONE
    assert_nothing_is_lost(running, "a")


def test_a_file_that_does_not_import_is_not_started_again_and_the_others_live(up: Callable[..., Up], tmp_path: Path) -> None:
    configure(tmp_path, "good", "broken")
    (tmp_path / "broken.py").write_text("import horizon\nimport no_such_module\n")
    running = up()
    running.says("broken.py did not load: ModuleNotFoundError: No module named 'no_such_module'")
    running.says("ended with exit code 3 (a strategy file failed to load); it is not started again")
    assert 'broken.py", line 2, in <module>' in running.log()
    trades(running, "good")
    assert running.stop() == ExitCode.DONE
    assert running.log().count("broken was started") == 1
    assert "ended with exit code 3" in running.out.read_text()


def test_a_replay_that_is_done_ends_the_supervisor(up: Callable[..., Up], tmp_path: Path) -> None:
    configure(tmp_path, "a", "b")
    for name in ("a", "b"):
        file = tmp_path / f"{name}.py"
        file.write_text(file.read_text().replace("interval_s=0.01", "paced=False, events=300"))
    running = up()
    assert running.wait() == ExitCode.DONE
    assert "every strategy has ended" in running.log()
    assert_nothing_is_lost(running, "a", "b")


def test_a_strategy_that_hangs_is_killed_at_the_deadline_and_what_it_recorded_is_stored(
    up: Callable[..., Up], tmp_path: Path
) -> None:
    configure(tmp_path, "hanging", "good")
    config = tmp_path / "horizon.toml"
    config.write_text(config.read_text().replace("stop_timeout_s = 15", "stop_timeout_s = 1"))
    file = tmp_path / "hanging.py"
    hang = "    if ctx.status.open_orders > 0: open('hangs', 'w').close()\n    while ctx.status.open_orders > 0: pass\n"
    file.write_text(file.read_text().replace("    mid =", hang + "    mid ="))
    running = up()
    eventually((tmp_path / "hangs").exists, 20, what="the hang")
    trades(running, "good")
    assert running.stop() == ExitCode.DEADLINE
    assert "hanging (pid" in running.log()
    assert 'hanging.py", line' in running.log(), "where it hangs"
    assert "was killed by SIGKILL" in running.log()
    assert not running.paths.journals()
    assert rows(running.paths, "SELECT COUNT(*) FROM order_events WHERE strategy = 'hanging'") != [(0,)]


def test_a_second_supervisor_of_a_database_is_refused(up: Callable[..., Up], tmp_path: Path) -> None:
    configure(tmp_path, "a")
    first = up()
    first.is_ready("a")
    refused = subprocess.run(
        [sys.executable, "-P", "-m", "supervisor", "--config", str(tmp_path / "horizon.toml")],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert refused.returncode == ExitCode.STORE
    assert f"is already supervised (pid={first.process.pid})" in refused.stderr
    assert first.stop() == ExitCode.DONE


def test_a_wrong_key_is_a_sentence_before_anything_starts(up: Callable[..., Up], tmp_path: Path) -> None:
    configure(tmp_path, "a")
    config = tmp_path / "horizon.toml"
    config.write_text(config.read_text() + '\n[strategies.a.feeds.price]\ntype = "simulated"\nsed = 1\n')
    refused = up()
    assert refused.wait() == ExitCode.USAGE
    assert refused.log() == f"horizon up: {config}: strategies.a.feeds.price.sed: unknown key; did you mean seed?\n"
    assert not refused.paths.folder.exists()


def test_a_database_that_is_none_ends_everything_with_a_sentence(up: Callable[..., Up], tmp_path: Path) -> None:
    configure(tmp_path, "a")
    (tmp_path / "horizon.db").write_text("this is no database, only a text of some length\n" * 20)
    refused = up()
    assert refused.wait() == ExitCode.STORE
    assert "a was started (pid" not in refused.log()


def test_a_file_runs_as_it_does_alone(up: Callable[..., Up], tmp_path: Path) -> None:
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies" / "sibling.py").write_text("")
    (tmp_path / "strategies" / "curious.py").write_text(
        "import logging, multiprocessing, os, sys\n"
        "import sibling\n"
        "print('name', __name__, 'argv', sys.argv == [__file__], 'pools', multiprocessing.get_start_method())\n"
        "print('here', os.getcwd(), 'session', os.getsid(0) == os.getpid())\n"
        "print('without an end', end='')\n"
        "logging.getLogger('mine').warning('logged %s', 'by me')\n"
        "sys.exit('left by itself')\n"
    )
    (tmp_path / "horizon.toml").write_text('[strategies.curious]\nfile = "strategies/curious.py"\n')
    running = up()
    assert running.wait() == ExitCode.STRATEGY
    log = re.sub(r"curious\[\d+\]", "curious", running.log())
    assert f"INFO curious stdout: name __main__ argv True pools {multiprocessing.get_all_start_methods()[0]}" in log
    assert f"INFO curious stdout: here {tmp_path} session True" in log
    assert "INFO curious stdout: without an end" in log
    assert "WARNING curious mine: logged by me" in log
    assert "did not load: SystemExit: left by itself" in log


def test_a_table_can_name_a_venue_and_a_feed_of_ones_own(up: Callable[..., Up], tmp_path: Path) -> None:
    configure(tmp_path, "a")
    (tmp_path / "mine.py").write_text(
        "from horizon.feeds.simulated import Simulated\n"
        "from horizon.venues.paper import Paper\n"
        "class Venue(Paper):\n"
        "    name = 'mine'\n"
        "def feed(seed):\n"
        "    return Simulated(seed=seed, interval_s=0.01)\n"
    )
    config = tmp_path / "horizon.toml"
    config.write_text(config.read_text() + 'exchange = "mine:Venue"\n[strategies.a.feeds.price]\ntype = "mine:feed"\nseed = 3\n')
    running = up()
    trades(running, "a")
    assert running.stop() == ExitCode.DONE
    assert set(rows(running.paths, "SELECT DISTINCT exchange FROM fills")) == {("mine",)}


def test_a_dotted_path_that_leads_nowhere_is_a_sentence_and_final(up: Callable[..., Up], tmp_path: Path) -> None:
    configure(tmp_path, "a")
    config = tmp_path / "horizon.toml"
    config.write_text(config.read_text() + 'exchange = "mine:Venue"\n')
    running = up()
    assert running.wait() == ExitCode.USAGE
    assert f"{config}: strategies.a.exchange: mine:Venue cannot be used: ModuleNotFoundError" in running.log()


def test_on_a_terminal_there_is_a_table_that_refreshes(tmp_path: Path) -> None:
    configure(tmp_path, "market_maker")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.environ |= {"TERM": "xterm-256color", "COLUMNS": "140"}
        os.environ.pop("NO_COLOR", None)
        os.execv(sys.executable, [sys.executable, "-P", "-m", "supervisor"])
    shown = ""
    deadline = time.monotonic() + 30
    interrupted = False
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                shown += os.read(terminal, 65536).decode(errors="replace")
            except OSError:
                break
        if not interrupted and shown.count("uptime") > 3 and "ready" in shown:
            interrupted = True
            os.write(terminal, b"\x03")
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == ExitCode.DONE, shown
    assert "\x1b[2K" in shown  # a table is drawn over the one before
    assert "Recorded in" in shown
