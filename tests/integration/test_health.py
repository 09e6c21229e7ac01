"""`horizon health`: what Docker and systemd get to know, and how little it takes to ask."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from scraped import HEALTHY, Supervisor

from horizon.control import WriterHealth
from horizon.errors import ExitCode
from horizon.paths import DatabasePaths


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    (tmp_path / "horizon.toml").touch()
    paths = DatabasePaths.of(tmp_path / "horizon.db")
    paths.folder.mkdir()
    supervisor = Supervisor(paths.control_socket)
    yield supervisor
    supervisor.close()


def health(folder: Path, *arguments: str, python: tuple[str, ...] = ()) -> tuple[int, str, str]:
    command = [sys.executable, *python, "-m", "horizon", "health", "--config", str(folder / "horizon.toml"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=folder, env=os.environ)
    return done.returncode, done.stdout, done.stderr


def test_all_is_well(tmp_path: Path, supervisor: Supervisor) -> None:
    assert health(tmp_path) == (ExitCode.DONE, "ok\n", "")
    assert health(tmp_path, "--ready") == (ExitCode.DONE, "ok\n", "")


def test_a_database_that_takes_no_rows_is_a_finding(tmp_path: Path, supervisor: Supervisor) -> None:
    supervisor.status = replace(HEALTHY, writer=WriterHealth(commit_age_s=1.0, stalled="disk full"))
    assert health(tmp_path) == (ExitCode.FINDINGS, "the database cannot be written: disk full\n", "")


def test_a_strategy_in_quarantine_is_one_only_where_readiness_is_asked_for(tmp_path: Path, supervisor: Supervisor) -> None:
    calm = replace(HEALTHY.processes[0], state="quarantined", why="exit code 3")
    supervisor.status = replace(HEALTHY, processes=[calm, *HEALTHY.processes[1:]])
    assert health(tmp_path)[0] == ExitCode.DONE
    assert health(tmp_path, "--ready") == (ExitCode.FINDINGS, "calm is quarantined (exit code 3)\n", "")


def test_nobody_answers(tmp_path: Path) -> None:
    (tmp_path / "horizon.toml").touch()
    code, out, err = health(tmp_path)
    assert (code, out) == (ExitCode.NOBODY, "")
    assert "no supervisor runs here" in err


def test_a_strategy_table_that_somebody_is_just_writing_does_not_matter(tmp_path: Path, supervisor: Supervisor) -> None:
    (tmp_path / "horizon.toml").write_text('[strategies.new]\nfile = "not_there_yet.py"\n')
    assert health(tmp_path)[0] == ExitCode.DONE


def test_asking_imports_nothing_heavy(tmp_path: Path, supervisor: Supervisor) -> None:
    code, _, err = health(tmp_path, python=("-X", "importtime"))
    assert code == ExitCode.DONE
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in err.splitlines() if line.startswith("import time:")}
    assert "click" in imported
    heavy = {"apsw", "asyncio", "logging", "multiprocessing", "prometheus_client", "psutil", "rich", "subprocess", "zmq"}
    assert not imported & heavy
