"""Fail points: what stops, when, and that nothing of them is in anybody's way."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from eventually import eventually

from horizon import failpoints

ROOT = Path(__file__).parents[2]
COME_BY = """
from horizon.failpoints import ACTIVE, reach
for number in range(3):
    if ACTIVE:
        reach("writer.committed")
    print(number, flush=True)
"""


def come_by(spec: str | None) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != failpoints.VARIABLE}
    if spec is not None:
        environment[failpoints.VARIABLE] = spec
    return subprocess.Popen(
        [sys.executable, "-c", COME_BY], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(
    ("spec", "came"),
    [
        (None, 3),
        ("writer.committed:kill", 0),
        ("writer.committed:kill:3", 2),
        ("writer.draining:kill", 3),
        ("writer.committed:kill:/nowhere/trap", 3),
    ],
)
def test_a_process_dies_at_its_point_and_at_no_other(spec: str | None, came: int) -> None:
    process = come_by(spec)
    out, _ = process.communicate(timeout=20)
    assert out.split() == [str(number) for number in range(came)]
    assert process.returncode == (0 if came == 3 else -signal.SIGKILL)


def test_of_those_who_come_by_an_armed_point_one_stops_and_goes_on_when_it_is_told(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.touch()
    both = [come_by(f"writer.committed:stop:{trap}") for _ in range(2)]
    (reached,) = eventually(lambda: list(tmp_path.glob("trap.reached-*")), 20)
    (held,) = (process for process in both if process.pid == int(reached.name.rpartition("-")[2]))
    (free,) = (process for process in both if process is not held)
    assert free.communicate(timeout=20)[0].split() == ["0", "1", "2"]
    eventually(lambda: psutil.Process(held.pid).status() == psutil.STATUS_STOPPED)
    held.send_signal(signal.SIGCONT)
    assert held.communicate(timeout=20)[0].split() == ["0", "1", "2"]


@pytest.mark.parametrize("spec", ["writer.comitted:stop", "writer.committed", "writer.committed:explode"])
def test_a_variable_that_cannot_be_understood_is_refused_and_not_waited_for(spec: str) -> None:
    process = come_by(spec)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert f"{failpoints.VARIABLE}={spec!r}" in errors


def test_every_point_is_passed_at_one_place_behind_an_if_on_the_constant() -> None:
    named = [
        name for folder in ("horizon", "supervisor") for path in (ROOT / folder).rglob("*.py") for name in _guarded_points(path)
    ]
    assert sorted(named) == sorted(failpoints.POINTS)
    calls = sum(
        path.read_text().count("reach(") for folder in ("horizon", "supervisor") for path in (ROOT / folder).rglob("*.py")
        if path.name != "failpoints.py"
    )  # fmt: skip
    assert calls == len(named), "no point is passed without its if"


def _guarded_points(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "ACTIVE":
            (statement,) = node.body
            assert isinstance(statement, ast.Expr)
            assert isinstance(statement.value, ast.Call)
            assert isinstance(statement.value.args[0], ast.Constant)
            yield str(statement.value.args[0].value)
