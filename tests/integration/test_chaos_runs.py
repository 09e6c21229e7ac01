"""`horizon chaos` as a user runs it: a short trial passes, a broken store does not, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from eventually import eventually

from horizon.errors import ExitCode

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}

# A store that has lost one row by the time the referee looks at it.
BROKEN = """
import sys
import apsw
from horizon import __main__
from horizon.chaos import run

judge = run.judge

def after_a_loss(database, witness, accounts):
    connection = apsw.Connection(str(database))
    connection.execute("DELETE FROM order_events WHERE id = (SELECT max(id) FROM order_events) / 2")
    connection.close()
    return judge(database, witness, accounts)

run.judge = after_a_loss
sys.exit(__main__.main(sys.argv[1:]))
"""


def left_in(folder: Path) -> list[str]:
    """Processes that still work in a folder or below it."""
    left = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(folder):
                left.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return left


def chaos(folder: Path, *arguments: str, program: tuple[str, ...] = ("-m", "horizon")) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *program, "chaos", "--folder", str(folder), "--workers", "2", *arguments]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def test_a_dozen_kills_lose_nothing_and_leave_nothing_behind(tmp_path: Path) -> None:
    done = chaos(tmp_path, "--kills", "12", "--seed", "1", "--json")

    assert done.returncode == ExitCode.DONE, done.stderr
    report = json.loads(done.stdout)
    assert sum(report["kills"].values()) == 12
    assert all(report["kills"].values()), "every kind of victim died"
    assert report["verdict"]["events"] > 1000
    assert report["verdict"]["lost"] == report["verdict"]["duplicated"] == report["verdict"]["positions_off"] == 0
    assert not left_in(tmp_path)
    assert not list(tmp_path.iterdir()), "what is clean is not kept"


def test_a_store_that_loses_one_row_is_exit_code_8_and_everything_is_kept(tmp_path: Path) -> None:
    done = chaos(tmp_path, "--kills", "1", "--seed", "2", program=("-c", BROKEN))

    assert done.returncode == ExitCode.FINDINGS, done.stderr
    assert [line.split() for line in done.stdout.splitlines() if line.startswith("lost")] == [["lost", "1"]]
    assert "is nowhere" in done.stderr
    (kept,) = tmp_path.iterdir()
    assert str(kept) in done.stderr
    assert (kept / "data" / "chaos.db").exists()


@pytest.mark.root
def test_a_disk_that_fills_up_and_empties_costs_nothing_either(tmp_path: Path) -> None:
    done = chaos(tmp_path, "--kills", "3", "--seed", "3", "--small-disk", "--json")

    assert done.returncode == ExitCode.DONE, done.stderr
    assert json.loads(done.stdout)["full_disks"] >= 1
    assert not list(tmp_path.iterdir()), "the small disk is unmounted"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_trial_leaves_no_process_and_no_file(tmp_path: Path, number: int) -> None:
    command = [sys.executable, "-m", "horizon", "chaos", "--folder", str(tmp_path), "--kills", "100", "--workers", "2"]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as trial:
        eventually(lambda: len(list(tmp_path.glob("*/witness/*.log"))) >= 2, 30, what="victims that record")
        trial.send_signal(number)
        assert trial.wait(20) == ExitCode.INTERRUPTED
    assert not left_in(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_none_is_wrong_usage(tmp_path: Path) -> None:
    done = chaos(tmp_path / "nowhere")
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert "--folder names one" in done.stderr
