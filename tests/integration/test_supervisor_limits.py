"""`horizon up` with a strategy that takes too much of the host: it is alone with that."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from eventually import eventually
from supervised import Up, configure

LEAK = """
import horizon as hz

held = []

def trade(ctx):
    held.append(b"x" * (1 << 20))

hz.run("leak", markets=["m"], pipeline=[trade], feeds={"m": hz.Simulated(seed=1)}, interval=0.05)
"""

HELPER = """
import subprocess, sys
import horizon as hz

subprocess.Popen([sys.executable, "-c", "held = b'x' * (300 << 20); import time; time.sleep(600)"], start_new_session=True)
hz.run("helped", markets=["m"], pipeline=[lambda ctx: None], feeds={"m": hz.Simulated(seed=1)}, interval=0.05)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Up]]:
    """A trader that is modest, and one with this file and a limit."""
    started: list[Up] = []

    def with_greedy(source: str) -> Up:
        table = '[metrics]\nenabled = false\n[strategies.greedy]\nfile = "greedy.py"\nlimits = { memory_max_mb = 200 }\n'
        configure(tmp_path, "maker", more=table)
        (tmp_path / "greedy.py").write_text(source)
        started.append(Up(tmp_path))
        started[0].is_ready("maker", "greedy")
        return started[0]

    yield with_greedy
    for up in started:
        up.end()


def test_a_strategy_that_leaks_is_warned_about_then_killed_and_started_again_and_no_other_notices(
    start: Callable[[str], Up],
) -> None:
    up = start(LEAK)
    maker, greedy = up.pid_of("maker"), up.pid_of("greedy")
    up.says("MiB of memory, more than 160; above 200 it is killed and started again")
    up.says("and memory_max_mb is 200; it is killed")
    eventually(lambda: up.pid_of("greedy") not in (None, greedy), 20.0, what=up.log())
    assert up.pid_of("maker") == maker
    held = [int(number) for number in re.findall(r"takes (\d+) MiB of memory, and", up.log())]
    assert max(held) < 300, "a second's leak above its limit at the most"


def test_what_a_helper_holds_counts_and_the_helper_goes_too(start: Callable[[str], Up]) -> None:
    up = start(HELPER)
    (helper,) = eventually(lambda: _helpers(up.folder))
    up.says("and memory_max_mb is 200; it is killed")
    eventually(lambda: not helper.is_running() or helper.status() == psutil.STATUS_ZOMBIE, 20.0)


def _helpers(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cwd", "cmdline"]):
        if process.info["cwd"] == str(folder) and any("300 << 20" in part for part in process.info["cmdline"] or ()):
            found.append(process)
    return found
