"""A worker whose supervisor was killed: it ends in bounded time, whatever it is doing, and takes its helpers with it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eventually import eventually
from nursery import is_alive, nursery
from test_worker_process import source

from horizon.channel import Heartbeat, Phase, Ready

# The shortest patience that there is: 16 seconds.
IMPATIENT = "stop_timeout_s = 1\ndegraded_after_s = 1\nhang_after_s = 1\nvenue_timeout_s = 1"
PATIENCE_S = 16.0


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    with nursery(tmp_path) as opened:
        yield opened


def test_a_worker_in_its_cycle_cancels_and_leaves_at_once_with_its_helpers(start: Any) -> None:
    helper = "subprocess.run(['sh', '-c', 'setsid sleep 600 & sleep 600 & echo $! > helper'])"
    text = source(before=helper) + 'open("left", "w").close()'
    worker = start("maker", text)
    worker.hears(Ready)
    process = worker.process
    helpers = process.children(recursive=True)
    assert len(helpers) == 2
    worker.parent.kill()
    eventually(lambda: not is_alive(process), 5.0)
    assert (worker._folder / "left").exists(), "it went the way of an orderly end"
    eventually(lambda: not any(map(is_alive, helpers)), 5.0)


def test_a_worker_that_only_loads_or_recovers_ends_at_once(start: Any) -> None:
    worker = start("maker", source(before="time.sleep(600)"))
    worker.hears(Phase)
    process = worker.process
    worker.parent.kill()
    eventually(lambda: not is_alive(process), 5.0)


def test_a_worker_that_hangs_outlives_its_supervisor_by_its_patience_and_none_is_ended_while_the_supervisor_lives(
    start: Any,
) -> None:
    hangs = "open(f'hangs.{os.getpid()}', 'w').close(); "
    workers = [
        start(name, source(hangs + how), supervision=IMPATIENT)
        for name, how in (
            ("lock", "sum(itertools.repeat(0))"),
            ("sleep", "time.sleep(600)"),
            ("spin", "exec('while True: pass')"),
            ("watched", "sum(itertools.repeat(0))"),
        )
    ]
    processes = [worker.process for worker in workers]
    for process in processes:
        eventually(lambda pid=process.pid, folder=workers[0]._folder: (folder / f"hangs.{pid}").exists(), 30.0)
    *orphans, watched = processes
    began = time.monotonic()
    for worker in workers[:-1]:
        worker.parent.kill()
    eventually(lambda: not any(map(is_alive, orphans)), PATIENCE_S + 10)
    assert time.monotonic() - began > PATIENCE_S - 1, "each had its time to leave by itself"
    assert is_alive(watched), "its supervisor decides"


def test_a_worker_that_hangs_on_its_way_out_is_ended_soon_after_its_deadline(start: Any) -> None:
    worker = start("maker", source() + "sum(itertools.repeat(0))", supervision=IMPATIENT)
    worker.hears(Heartbeat)
    process = worker.process
    worker.parent.kill()
    eventually(lambda: not is_alive(process), PATIENCE_S - 3)
