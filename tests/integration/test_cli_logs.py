"""`horizon logs` and `horizon events` over files that a sink writes, rotates and tears meanwhile."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from eventually import eventually

from horizon.__main__ import main
from horizon.cli.log_reader import LogFile
from horizon.config import Logs
from horizon.errors import ExitCode
from horizon.paths import DatabasePaths
from supervisor.log_files import Sink

ROOT = Path(__file__).parents[2]


class Silent:
    as_json = False

    def say(self, entry: str) -> None:
        pass


@pytest.fixture
def sink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sink]:
    """The logs of a configuration with the strategies mm and arb, in the test's folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.py").touch()
    tables = '[strategies.mm]\nfile = "s.py"\n[strategies.key]\nname = "arb"\nfile = "s.py"\n'
    (tmp_path / "horizon.toml").write_text(tables)
    sink = Sink(Logs(max_bytes=4096, keep=3), DatabasePaths.of(tmp_path / "horizon.db"), Silent())
    sink.start()
    yield sink
    sink.close(5)


def say(sink: Sink, process: str, message: str, level: int = logging.INFO, at: float | None = None, **extra: object) -> None:
    record = logging.LogRecord("talker", level, "", 0, message, None, None)
    if at is not None:
        record.created = at
    record.__dict__.update(extra)
    sink.record(process, record)


@pytest.fixture
def shows(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """Run a command and give its lines."""

    def shows(*arguments: str) -> list[str]:
        assert main(arguments) == ExitCode.DONE
        return capsys.readouterr().out.splitlines()

    return shows


def words(lines: list[str]) -> list[str]:
    return [line.rpartition(": ")[2] for line in lines]


def test_all_processes_are_shown_in_the_order_of_time(sink: Sink, shows: Callable[..., list[str]]) -> None:
    for number, process in enumerate(["mm", "arb", "writer", "mm", "supervisor"]):
        say(sink, process, f"line {number}", at=1000.0 + number, run_id=f"run-{process}")
    lines = shows("logs")
    assert words(lines) == [f"line {number}" for number in range(5)]
    assert lines[1] == f"1970-01-01 00:16:41.000Z INFO arb[{os.getpid()} run-arb] talker: line 1"


def test_names_levels_and_a_limit_choose(sink: Sink, shows: Callable[..., list[str]]) -> None:
    for number in range(6):
        say(sink, "mm", f"mm {number}", logging.ERROR if number % 2 else logging.INFO)
        say(sink, "arb", f"arb {number}")
    assert words(shows("logs", "mm", "--limit", "2")) == ["mm 4", "mm 5"]
    assert words(shows("logs", "mm", "--level", "error")) == ["mm 1", "mm 3", "mm 5"]
    assert len(shows("logs", "mm", "arb")) == 12
    assert words(shows("logs", "--level", "warning", "--limit", "1")) == ["mm 5"]


def test_since_reaches_back_over_rotated_files(sink: Sink, shows: Callable[..., list[str]]) -> None:
    for number in range(60):
        say(sink, "mm", f"{number} {'x' * 100}", at=1000.0 + number)
    assert (sink.folder / "mm.log.2").exists()
    found = [line.split(": ")[1].split()[0] for line in shows("logs", "--since", "1040")]
    assert found == [str(number) for number in range(40, 60)]
    assert [line.split(": ")[1].split()[0] for line in shows("logs", "--since", "1040", "--limit", "2")] == ["58", "59"]
    assert [line.split(": ")[1].split()[0] for line in shows("logs", "--limit", "45")] == [str(n) for n in range(15, 60)]


def test_json_lines_are_those_of_the_files(sink: Sink, shows: Callable[..., list[str]]) -> None:
    say(sink, "mm", "with an extra", seq=7)
    (line,) = shows("logs", "--json")
    assert json.loads(line)["seq"] == 7


def test_a_traceback_is_shown_whole_and_set_in(sink: Sink, shows: Callable[..., list[str]]) -> None:
    say(sink, "mm", "failed", exc_text="Traceback (most recent call last):\n  File x\nValueError: no")
    assert shows("logs")[1:] == ["    Traceback (most recent call last):", "      File x", "    ValueError: no"]


def test_a_torn_line_is_left_out_and_counted(sink: Sink, capsys: pytest.CaptureFixture[str]) -> None:
    say(sink, "mm", "whole")
    with (sink.folder / "mm.log").open("a") as file:
        file.write('{"time": 1, "mes\n{"time": 2, "message": "still being wri')
    assert main(["logs"]) == ExitCode.DONE
    out, err = capsys.readouterr()
    assert words(out.splitlines()) == ["whole"]
    assert err == "1 line left out: cut off when the supervisor was killed\n"


def test_a_name_that_is_nobodys_is_refused_with_the_nearest_one(sink: Sink, capsys: pytest.CaptureFixture[str]) -> None:
    say(sink, "left the configuration", "line")
    assert main(["logs", "ar"]) == ExitCode.USAGE
    assert capsys.readouterr().err == "horizon: there is no log of 'ar'; did you mean arb?\n"
    assert main(["logs", "left the konfiguration"]) == ExitCode.USAGE
    assert "did you mean left the configuration?" in capsys.readouterr().err
    assert main(["logs", "zzz"]) == ExitCode.USAGE
    assert "there are mm, arb, supervisor, writer, gateway, left the configuration" in capsys.readouterr().err


def test_a_strategy_that_left_the_configuration_keeps_its_log(sink: Sink, shows: Callable[..., list[str]]) -> None:
    say(sink, "../gone", "line")
    assert words(shows("logs", "../gone")) == ["line"]


def test_before_anything_is_logged_that_is_said(sink: Sink, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["logs"], ["logs", "mm"], ["events"]):
        assert main(command) == ExitCode.DONE
        out, err = capsys.readouterr()
        assert (out, err) == ("", f"nothing is logged in {sink.folder} yet\n")


def test_a_configuration_that_is_just_being_changed_does_not_hide_the_logs(sink: Sink, shows: Callable[..., list[str]]) -> None:
    Path("horizon.toml").write_text('[strategies.mm]\nfile = "missing.py"\nintervall = "x"\n')
    say(sink, "mm", "line")
    assert words(shows("logs")) == ["line"]


def test_events_say_what_happened_to_whom(sink: Sink, shows: Callable[..., list[str]]) -> None:
    before, level = list(logging.root.handlers), logging.root.level
    sink.hear_own_log()
    try:
        logging.getLogger("supervisor.loop").info("started mm (pid 7)", extra={"action": "started", "about": "mm"})
        logging.getLogger("supervisor.loop").info("no event")
    finally:
        logging.root.handlers[:] = before
        logging.root.setLevel(level)
    eventually(lambda: (sink.folder / "supervisor.log").exists() and "no event" in (sink.folder / "supervisor.log").read_text())
    (line,) = shows("events")
    assert line.endswith("Z INFO mm started: started mm (pid 7)")
    assert json.loads(shows("events", "--json")[0])["action"] == "started"


# ---- following


@pytest.fixture
def following(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []

    def following(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "horizon", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        processes.append(process)
        return process

    yield following
    for process in processes:
        process.kill()
        process.communicate()


def test_following_goes_on_over_rotations_and_to_strategies_that_come_later(
    sink: Sink, following: Callable[..., subprocess.Popen[str]]
) -> None:
    say(sink, "mm", "number -1")
    reader = following("logs", "-f", "--json")
    assert reader.stdout is not None
    seen = [json.loads(reader.stdout.readline())["message"]]
    took: dict[str, int] = {"mm": 0, "new": 0}

    def read() -> None:
        assert reader.stdout is not None
        for line in reader.stdout:
            entry = json.loads(line)
            took[entry["strategy"]] += 1
            seen.append(entry["message"])

    thread = threading.Thread(target=read)
    thread.start()
    # 150 bytes a line and 4 KiB a file: a rotation every 27 lines, and the reader is waited for before the oldest is removed
    for number in range(300):
        say(sink, "mm", f"number {number}")
        if number % 50 == 49:
            say(sink, "new", f"new {number}")
            eventually(lambda number=number: took["mm"] == number + 1, what=f"line {number} in {seen[-3:]}")
    eventually(lambda: took["new"] == 6)
    reader.send_signal(2)
    thread.join(10)
    assert [message for message in seen if message.startswith("number")] == [f"number {number}" for number in range(-1, 300)]
    assert reader.wait(10) == ExitCode.INTERRUPTED
    assert reader.stderr is not None
    assert reader.stderr.read().strip() == ""


def test_following_ends_when_its_reader_has_enough_even_if_nothing_more_is_said(
    sink: Sink, following: Callable[..., subprocess.Popen[str]]
) -> None:
    say(sink, "mm", "one")
    reader = following("logs", "-f", "mm")
    assert reader.stdout is not None
    assert "one" in reader.stdout.readline()
    reader.stdout.close()
    assert reader.wait(10) == ExitCode.DONE


def test_a_head_of_many_lines_is_no_error(sink: Sink) -> None:
    for number in range(60):
        say(sink, "mm", f"line {number}")
    command = f"{sys.executable} -m horizon logs --since 1 | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


def test_a_line_that_is_being_written_is_shown_when_it_is_whole(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "mm.log")
    assert log.new() == []
    with (tmp_path / "mm.log").open("w") as file:
        file.write('{"time": 1, "message": "o')
        file.flush()
        assert log.new() == []
        file.write('ne"}\n')
        file.flush()
        assert [line.entry["message"] for line in log.new()] == ["one"]
    log.close()


def test_what_was_rotated_away_before_it_was_read_is_noticed(sink: Sink) -> None:
    say(sink, "mm", "one")
    log = LogFile(sink.folder / "mm.log")
    assert len(log.new()) == 1
    for number in range(300):
        say(sink, "mm", f"number {number}")
    found = [line.entry["message"] for line in log.new()]
    assert log.rotated_away
    assert found[-20:] == [f"number {number}" for number in range(280, 300)]
    assert len(found) == len(set(found)) < 300
    log.close()


def test_readers_beside_a_rotating_writer_see_every_line_once_and_in_order(sink: Sink) -> None:
    log = LogFile(sink.folder / "mm.log")
    seen: list[int] = []
    done = threading.Event()

    def follow() -> None:
        while not done.is_set() or (last := log.new()):
            for line in log.new() if not done.is_set() else last:
                seen.append(int(line.entry["message"]))

    reader = threading.Thread(target=follow)
    reader.start()
    for number in range(2000):
        say(sink, "mm", str(number))
        if number % 30 == 0:
            eventually(lambda number=number: len(seen) >= number - 30, interval_s=0.001)
    done.set()
    reader.join(10)
    log.close()
    assert seen == list(range(2000))
    # And one that begins in the middle of a rotation, forwards and backwards
    stop = threading.Event()
    writer = threading.Thread(target=lambda: [say(sink, "mm", str(number)) for number in range(2000, 4000)] and stop.set())
    writer.start()
    while not stop.is_set():
        for forwards in (True, False):
            once = LogFile(sink.folder / "mm.log")
            numbers = [int(line.entry["message"]) for line in (once.oldest_first(0.0) if forwards else once.newest_first())]
            once.close()
            assert numbers == sorted(set(numbers), reverse=not forwards)
            assert once.unreadable == 0
    writer.join()
