"""The commands as real processes: pipes that close, Ctrl-C, terminals and their absence, and the examples that `init` writes."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from eventually import eventually
from road import stop_writer
from store_case import Run, fill

from horizon.__main__ import main
from horizon.errors import ExitCode, HorizonError
from horizon.paths import DatabasePaths
from horizon.store import read
from horizon.store.append import Store
from horizon.store.connection import open_reader

ROOT = Path(__file__).parents[2]
HORIZON = [sys.executable, "-m", "horizon"]
STRATEGIES = ("market_maker", "mean_reversion", "momentum")
PIPE_BYTES = 65_536


def environment(**changes: str) -> dict[str, str]:
    """Of a user's shell: nothing in it chooses a database or a terminal."""
    kept = {name: value for name, value in os.environ.items() if name not in ("HORIZON_DB", "NO_COLOR", "TERM")}
    return {**kept, "PYTHONPATH": str(ROOT), **changes}


@pytest.fixture
def many_fills(tmp_path: Path) -> Path:
    """A database whose JSON is larger than a pipe."""
    path = tmp_path / "many.db"
    run = Run()
    store = Store(DatabasePaths.of(path))
    store.append([run.start(), *(run.entry(fill(f"f-{number}")) for number in range(500))])
    store.close()
    return path


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Path]:
    """What `init` writes; the writers that lone runs leave behind are stopped."""
    assert main(["init", str(tmp_path / "demo")]) == ExitCode.DONE
    yield tmp_path / "demo"
    for folder in (tmp_path / "demo").glob("*.db.d"):
        stop_writer(DatabasePaths.of(folder.with_suffix("")))


def test_a_reader_that_leaves_early_is_no_error(many_fills: Path) -> None:
    command = f"{' '.join(HORIZON)} fills --all --json --db {many_fills} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], env=environment(), capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr) == ("[\n0\n", "")


def test_ctrl_c_while_a_pipe_is_full_ends_at_once_with_130(many_fills: Path) -> None:
    process = subprocess.Popen(
        [*HORIZON, "fills", "--all", "--json", "--db", str(many_fills)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdout
        assert process.stderr
        eventually(lambda: waiting_bytes(process.stdout.fileno()) == PIPE_BYTES, what="a full pipe")
        process.send_signal(signal.SIGINT)

        assert process.wait(timeout=10) == ExitCode.INTERRUPTED
        assert b"Traceback" not in process.stderr.read()


def test_a_pipe_gets_whole_lines_whatever_the_terminal_around_it(many_fills: Path) -> None:
    done = subprocess.run(
        [*HORIZON, "fills", "--db", str(many_fills), "--limit", "3"],
        env=environment(COLUMNS="20", TERM="xterm"),
        capture_output=True,
        text=True,
        check=False,
    )

    assert [line.split()[-1] for line in done.stdout.splitlines()] == ["fill_id", "f-499", "f-498", "f-497"]
    assert "\x1b" not in done.stdout


def test_a_name_that_the_locale_cannot_show_is_escaped(tmp_path: Path) -> None:
    run = Run()
    store = Store(DatabasePaths.of(tmp_path / "n.db"))
    store.append([run.start(), run.entry(fill("f-1", market_id="東京"))])
    store.close()
    done = subprocess.run(
        [*HORIZON, "fills", "--db", str(tmp_path / "n.db")],
        env=environment(PYTHONIOENCODING="ascii"),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == ExitCode.DONE
    assert "\\u6771\\u4eac" in done.stdout


@pytest.mark.parametrize("name", STRATEGIES)
def test_an_example_trades_alone_and_ends_on_ctrl_c(demo: Path, name: str) -> None:
    """As the file itself says: `python strategies/NAME.py`."""
    process = subprocess.Popen(
        [sys.executable, f"strategies/{name}.py"], cwd=demo, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    with process:
        try:
            eventually(lambda: count_fills(demo / f"{name}.db", name), timeout_s=30, what=f"a fill of {name}")
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == ExitCode.DONE, output.decode()


def test_run_shows_lines_where_there_is_no_terminal_and_says_where_it_recorded(demo: Path) -> None:
    done = subprocess.run(
        [*HORIZON, "run", "strategies/market_maker.py", "--name", "mine", "--duration", "1.5"],
        cwd=demo,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == ExitCode.DONE, done.stderr
    assert re.fullmatch(r"mine running  pid \d+  uptime 0s  cycles 1 .*", done.stdout.splitlines()[0])
    assert re.fullmatch(r"mine done  .*unacked 0  .*", done.stdout.splitlines()[-1])
    assert "\x1b" not in done.stdout
    assert "horizon summary --db mine.db" in done.stderr
    assert [run.status for run in runs_of(demo / "mine.db")] == ["ended"]


def test_run_shows_a_table_on_a_terminal_and_ctrl_c_drains(demo: Path) -> None:
    screen = on_a_terminal([*HORIZON, "run", "strategies/market_maker.py"], demo, environment(TERM="xterm"), stop_at="running")

    assert screen.exit_code == ExitCode.DONE
    assert "\x1b[?25l" in screen.text, "the cursor is hidden while the table refreshes"
    assert screen.text.rstrip().endswith("horizon fills --db market_maker.db --limit 20")
    assert [run.end_reason for run in runs_of(demo / "market_maker.db")] == ["stopped by SIGINT"]


@pytest.mark.parametrize("quiet", [{"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}], ids=["dumb", "no-color"])
def test_run_writes_plain_lines_on_a_terminal_that_asks_for_them(demo: Path, quiet: dict[str, str]) -> None:
    screen = on_a_terminal([*HORIZON, "run", "strategies/market_maker.py"], demo, environment(**quiet), stop_at="cycles 1")

    assert screen.exit_code == ExitCode.DONE
    assert "\x1b" not in screen.text


def test_run_takes_the_database_it_is_given(demo: Path) -> None:
    done = subprocess.run(
        [*HORIZON, "run", "strategies/market_maker.py", "--db", "elsewhere.db", "--duration", "0.1"],
        cwd=demo,
        env=environment(HORIZON_DB="not-this.db"),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == ExitCode.DONE, done.stderr
    assert len(runs_of(demo / "elsewhere.db")) == 1
    assert not (demo / "not-this.db").exists()


@pytest.mark.parametrize(
    ("text", "code", "sentence"),
    [
        ("import nonsense", ExitCode.STRATEGY, "did not load: ModuleNotFoundError: No module named 'nonsense'"),
        ("answer = 42", ExitCode.STRATEGY, "ended without calling hz.run"),
        ("import horizon as hz\nhz.run('x', markets=['m'], pipeline=[])", ExitCode.STRATEGY, "the pipeline is empty"),
        ("import horizon as hz\nhz.run('x', markets=['m'], pipeline=[print], interval=-1)", ExitCode.USAGE, "interval must be"),
        ("import horizon as hz\nhz.run('x', markets=['m'], pipeline=[print], db_path='.')", ExitCode.STORE, "is a folder"),
    ],
)
def test_a_file_that_cannot_run_gets_a_sentence_and_its_exit_code(
    tmp_path: Path, text: str, code: ExitCode, sentence: str
) -> None:
    (tmp_path / "broken.py").write_text(text)
    done = subprocess.run(
        [*HORIZON, "run", "broken.py"], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )

    assert done.returncode == code
    assert done.stderr.splitlines()[-1].startswith("horizon: ")
    assert sentence in done.stderr.splitlines()[-1]
    assert done.stdout == ""


def test_the_line_of_an_import_that_fails_is_shown_without_frames_of_ours(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("x = 1\nimport nonsense\n")
    done = subprocess.run(
        [*HORIZON, "run", "broken.py"], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )

    assert f'File "{tmp_path}/broken.py", line 2' in done.stderr
    assert "worker.py" not in done.stderr


def test_a_file_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    done = subprocess.run(
        [*HORIZON, "run", "none.py"], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (ExitCode.USAGE, "horizon: none.py does not exist: name a strategy's Python file\n")


def test_up_runs_all_examples_at_once_into_one_database_and_ctrl_c_stops_them_in_order(demo: Path) -> None:
    process = subprocess.Popen(
        [*HORIZON, "up"], cwd=demo, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            for name in STRATEGIES:
                eventually(lambda name=name: count_fills(demo / "horizon.db", name), timeout_s=45, what=f"a fill of {name}")
            process.send_signal(signal.SIGINT)
            output, log = process.communicate(timeout=60)
        finally:
            process.kill()

    assert process.returncode == ExitCode.DONE, log
    assert {run.strategy: run.status for run in runs_of(demo / "horizon.db")} == dict.fromkeys(STRATEGIES, "ended")
    assert not list((demo / "horizon.db.d").glob("*.journal"))
    for name in STRATEGIES:
        assert f"  {name}" in output

    summary = subprocess.run(
        [*HORIZON, "summary", "--json"], cwd=demo, env=environment(), capture_output=True, text=True, check=True
    )
    assert all(row["fills"] > 0 and not row["dead_letters"] and not row["gaps"] for row in json.loads(summary.stdout))


def test_up_refuses_a_wrong_configuration_before_anything_starts(demo: Path) -> None:
    (demo / "horizon.toml").write_text('[database]\npath = "horizon.db"\ndurabilty = "power"\n')
    done = subprocess.run([*HORIZON, "up"], cwd=demo, env=environment(), capture_output=True, text=True, check=False)

    assert done.returncode == ExitCode.USAGE
    assert done.stderr == "horizon: horizon.toml: database.durabilty: unknown key; did you mean durability?\n"
    assert not (demo / "horizon.db.d").exists()


def test_fills_in_a_demo_that_ran_alone_names_the_database_that_lies_there(demo: Path) -> None:
    (demo / "market_maker.db").touch()
    done = subprocess.run([*HORIZON, "fills"], cwd=demo, env=environment(), capture_output=True, text=True, check=False)

    assert done.returncode == ExitCode.STORE
    assert done.stderr == f"horizon: there is no database at {demo}/horizon.db; here lies market_maker.db: name it with --db\n"


class Screen:
    def __init__(self, text: str, exit_code: int) -> None:
        self.text = text
        self.exit_code = exit_code


def on_a_terminal(command: list[str], folder: Path, variables: dict[str, str], stop_at: str) -> Screen:
    """Run a command on a terminal of its own, press Ctrl-C once a text has appeared, and return all that it wrote."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
    process = subprocess.Popen(
        command, cwd=folder, env=variables, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    text = ""
    pressed = False
    try:
        for piece in pieces(ours):
            text += piece
            if stop_at in text and not pressed:
                os.write(ours, b"\x03")
                pressed = True
        return Screen(text, process.wait(timeout=30))
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def pieces(terminal: int, timeout_s: float = 30.0) -> Iterator[str]:
    """What is written to a terminal until its last process is gone."""
    while select.select([terminal], [], [], timeout_s)[0]:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # Linux's word for: nobody has it open any more
            return
        yield data.decode(errors="replace")


def waiting_bytes(pipe: int) -> int:
    return int(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0])


def count_fills(database: Path, strategy: str) -> int:
    """0 as long as there is nothing to read."""
    try:
        connection = open_reader(database)
    except HorizonError:
        return 0
    try:
        return len(read.fills(connection, strategy=strategy))
    finally:
        connection.close()


def runs_of(database: Path) -> list[read.RunRow]:
    connection = open_reader(database)
    try:
        return read.runs(connection)
    finally:
        connection.close()
