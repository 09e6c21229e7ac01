"""The supervisor's eye on memory: what counts, when it is too much, how often that is said."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from eventually import eventually

from horizon.config import Limits
from supervisor import limits as supervisor_limits
from supervisor.limits import LOOK_EVERY_S, Mark, Memory, held_bytes, judge

MIB = 1 << 20


@pytest.mark.parametrize(
    ("limits", "held_mb", "mark"),
    [
        (Limits(), 10_000, Mark.FINE),
        (Limits(memory_max_mb=100), 79, Mark.FINE),
        (Limits(memory_max_mb=100), 81, Mark.HIGH),
        (Limits(memory_max_mb=100), 100, Mark.HIGH),
        (Limits(memory_max_mb=100), 101, Mark.MAX),
        (Limits(memory_max_mb=100, memory_high_mb=50), 51, Mark.HIGH),
        (Limits(memory_high_mb=50), 10_000, Mark.HIGH),
    ],
)
def test_above_the_high_mark_is_an_alarm_and_above_the_maximum_the_end(limits: Limits, held_mb: int, mark: Mark) -> None:
    assert judge(held_mb * MIB, limits) is mark


def test_what_goes_up_and_down_around_the_high_mark_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[Mark, str]] = []
    memory, limits = Memory(), Limits(memory_max_mb=100)
    for second, held_mb in enumerate([70, 81, 79, 82, 71, 83, 101]):
        monkeypatch.setattr(supervisor_limits, "held_bytes", lambda pid, precisely_above, held=held_mb: held * MIB)
        said.append(memory.look(1, limits, second * LOOK_EVERY_S))
    assert [mark.value for mark, _ in said] == ["fine", "high", "fine", "fine", "fine", "high", "max"]
    assert said[1][1] == "takes 81 MiB of memory, more than 80; above 100 it is killed and started again"
    assert said[-1][1] == "takes 101 MiB of memory, and memory_max_mb is 100"


def test_nobody_looks_more_than_once_a_second_or_where_there_is_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr(supervisor_limits, "held_bytes", lambda pid, precisely_above: looks.append(pid) or 0)
    memory = Memory()
    for tenth in range(30):
        memory.look(7, Limits(memory_max_mb=100), tenth / 10)
        Memory().look(8, Limits(), tenth / 10)
    assert looks == [7, 7, 7]


# A process with a helper of its own session below it: 50 MiB and 70 MiB, and 100 MiB that both share by a fork.
FAMILY = """
import os, sys, time
shared = b"x" * (100 << 20)
if not os.fork():
    os.setsid()
    own = b"y" * (70 << 20)
    print("helper", flush=True)
    time.sleep(600)
own = b"z" * (50 << 20)
print("parent", flush=True)
sys.stdin.read()
"""


def test_helpers_count_and_what_they_share_counts_once() -> None:
    with subprocess.Popen([sys.executable, "-c", FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as family:
        try:
            assert family.stdout is not None
            assert {family.stdout.readline(), family.stdout.readline()} == {"helper\n", "parent\n"}
            assert 215 * MIB < eventually(lambda: held_bytes(family.pid)) < 260 * MIB
            assert held_bytes(family.pid, precisely_above=1 << 40) > 315 * MIB, "a cheap upper bound"
        finally:
            subprocess.run(["pkill", "-KILL", "-P", str(family.pid)], check=False)
            family.kill()


def test_a_process_that_has_ended_holds_nothing() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert held_bytes(ended.pid) == 0
    assert held_bytes(os.getpid()) > 10 * MIB
