"""The log of a real `horizon up`: what strategies log, print and let libraries write, for people and in files, whoever dies or stalls."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from eventually import eventually
from supervised import TRADER, Up, configure

from horizon.cli.log_reader import LogFile
from horizon.errors import ExitCode

ROOT = Path(__file__).parents[2]

TALKER = TRADER.replace("def trade(ctx):", "import ctypes, logging, os, sys\n\ndef trade(ctx):").replace("MARKET", "'talker'")


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def start(*arguments: str, **settings: Any) -> Up:
        started.append(Up(tmp_path, "--plain", *arguments, **settings))
        return started[-1]

    yield start
    for running in started:
        running.end()


def lines(running: Up, process: str) -> list[dict[str, Any]]:
    log = LogFile(running.paths.logs / f"{process}.log")
    try:
        return [line.entry for line in log.oldest_first(0.0)]
    finally:
        log.close()


def messages(running: Up, process: str) -> list[str]:
    return [line["message"] for line in lines(running, process)]


def fills_seen(folder: Path, strategy: str) -> int:
    seen = folder / f"{strategy}.seen"
    return seen.read_text().count("\n") if seen.exists() else 0


def horizon(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "horizon", *arguments],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == ExitCode.DONE, done.stderr
    return done.stdout


def talk(folder: Path, once: str) -> None:
    """Let the strategy `talker` do this in its first cycle."""
    first = f"    if not os.path.exists('talked'):\n        open('talked', 'w').close()\n        {once}\n"
    (folder / "talker.py").write_text(TALKER.replace("def trade(ctx):\n", f"def trade(ctx):\n{first}"))


def test_whatever_a_strategy_says_in_whatever_way_is_in_its_log(up: Callable[..., Up], tmp_path: Path) -> None:
    configure(tmp_path, "talker")
    once = (
        "logging.getLogger('mine').warning('logged password=abc123'); print('printed'); print('on stderr', file=sys.stderr); "
        "os.write(2, b'native\\nTraceback (most recent call last):\\n  File x\\nValueError: native\\n'); "
        "ctypes.CDLL(None).puts(b'by a library'); ctypes.CDLL(None).fflush(None); "
        "logging.getLogger('mine').error('failed', exc_info=ValueError('why'))"
    )
    talk(tmp_path, once)
    running = up()
    running.is_ready("talker")
    pid = running.pid_of("talker")
    expected = {"logged password=[redacted]", "printed", "on stderr", "native", "by a library", "failed"}
    eventually(lambda: expected <= set(messages(running, "talker")), what=f"{expected} in the log")
    said = [line for line in lines(running, "talker") if line["message"] in expected]
    assert {(line["strategy"], line["pid"]) for line in said} == {("talker", pid)}
    run_ids = {line["run_id"] for line in said}
    assert len(run_ids) == 1
    assert "ValueError: why" in next(line["exception"] for line in said if line["message"] == "failed")
    # And people find it, and what happened to whom
    assert f"WARNING talker[{pid} {run_ids.pop()}] mine: logged password=[redacted]" in horizon(tmp_path, "logs", "talker")
    assert "failed" not in horizon(tmp_path, "logs", "writer")
    assert running.stop() == ExitCode.DONE
    events = [json.loads(line) for line in horizon(tmp_path, "events", "--json").splitlines()]
    assert {"started", "ready", "stop"} <= {event["action"] for event in events}


def test_a_stream_of_json_says_all_that_the_text_says(up: Callable[..., Up], tmp_path: Path) -> None:
    configure(tmp_path, "talker", more='[logs]\nformat = "json"')
    running = up()
    running.is_ready("talker")
    assert running.stop() == ExitCode.DONE
    entries = [json.loads(line) for line in running.log().splitlines()]
    assert {"supervisor", "writer", "talker"} <= {entry["strategy"] for entry in entries}
    assert all({"time", "level", "pid", "logger", "message"} <= entry.keys() for entry in entries)


def test_a_stopped_terminal_stops_neither_the_files_nor_the_strategies(up: Callable[..., Up], tmp_path: Path) -> None:
    # Given a terminal that takes nothing: a pipe that nobody reads, and full
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    try:
        while True:
            os.write(write_end, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(write_end, True)
    configure(tmp_path, "talker", "calm")
    (tmp_path / "talker.py").write_text(TALKER.replace("    mid =", "    print('x' * 1000)\n    mid ="))
    running = up(stderr=write_end)
    # Then strategies trade, and the files grow beyond what any pipe holds
    eventually(lambda: fills_seen(tmp_path, "calm") > 20 and fills_seen(tmp_path, "talker") > 20, 40, what="trading")
    eventually(lambda: messages(running, "talker").count("x" * 1000) > 200, 30, what="the talker's log")
    # And a stop goes its way, and a kill of the supervisor leaves nobody before that pipe
    running.send(signal.SIGKILL)
    eventually(lambda: not running.left_processes(), 40, what=f"the end of every process but {running.left_processes()}")
    os.close(read_end)
    os.close(write_end)


def test_a_strategy_that_floods_log_and_stdout_is_counted_and_costs_no_other_one_anything(
    up: Callable[..., Up], tmp_path: Path
) -> None:
    configure(tmp_path, "talker", "calm")
    flood = (
        "    for number in range(20_000):\n        logging.getLogger('flood').info('flood %d', number)\n"
        "    try:\n        os.write(1, b'native flood\\n' * 20_000)\n    except BlockingIOError:\n        pass\n    mid ="
    )
    (tmp_path / "talker.py").write_text(TALKER.replace("    mid =", flood))
    running = up()
    running.is_ready("talker", "calm")
    eventually(lambda: any("records were dropped here" in said for said in messages(running, "talker")), 20)
    before = fills_seen(tmp_path, "calm")
    eventually(lambda: fills_seen(tmp_path, "calm") > before + 20, 20, what="trading of the other one")
    eventually(lambda: _status(tmp_path, "talker")["log_dropped"] > 1000, 20, 0.2, what="the count in the status")
    assert _status(tmp_path, "calm")["log_dropped"] == 0
    assert running.stop() == ExitCode.DONE


def test_a_killed_supervisor_leaves_a_log_that_goes_on_with_the_next_one(up: Callable[..., Up], tmp_path: Path) -> None:
    configure(tmp_path, "talker")
    first = up()
    first.is_ready("talker")
    first.send(signal.SIGKILL)
    eventually(lambda: not first.left_processes(), 40, what="the end of every process")
    with (first.paths.logs / "talker.log").open("a") as file:
        file.write('{"time": 17')
    second = up()
    second.is_ready("talker")
    assert second.stop() == ExitCode.DONE
    supervisors = {line["pid"] for line in lines(second, "supervisor")}
    assert supervisors == {first.process.pid, second.process.pid}
    assert len({line["pid"] for line in lines(second, "talker")}) == 2


def _status(folder: Path, strategy: str) -> dict[str, Any]:
    status = json.loads(horizon(folder, "status", "--json"))
    return next(process for process in status["processes"] if process["name"] == strategy)
