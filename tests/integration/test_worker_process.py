"""What a worker does for those who watch it, in real processes: phases, answers, output, limits."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eventually import eventually
from nursery import is_alive, nursery

from horizon.channel import Draining, Heartbeat, Phase, Ready
from horizon.errors import ExitCode
from horizon.locks import FileLock
from horizon.paths import DatabasePaths

RUN = """
import ctypes, itertools, os, subprocess, sys, time
import horizon as hz
{before}
def trade(ctx):
    {pipeline}

hz.run("it", markets=["m"], pipeline=[trade], feeds={{"m": hz.Simulated("probability", seed=1)}}, interval=0.05, db_path={db})
"""


def source(pipeline: str = "pass", before: str = "", db: str = "None") -> str:
    return RUN.format(pipeline=pipeline, before=before, db=db)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    with nursery(tmp_path) as opened:
        yield opened


def test_a_worker_says_what_it_does_from_its_first_moment_to_its_last(start: Any) -> None:
    worker = start("maker", source())
    worker.hears(Heartbeat, at_least=3)
    worker.stop()
    assert worker.ends() == ExitCode.DONE
    said = worker.heard()
    assert said[:2] == [Phase("loading"), Phase("recovering")]
    assert isinstance(said[2], Ready)
    assert said[-1] == Draining(0, "", by_signal=0)
    progress = [message.progress for message in said if isinstance(message, Heartbeat)]
    assert progress == sorted(set(progress))


def test_a_worker_that_was_sent_a_signal_says_so(start: Any) -> None:
    worker = start("maker", source())
    worker.hears(Ready)
    worker.process.send_signal(signal.SIGTERM)
    assert worker.ends() == ExitCode.DONE
    assert worker.heard()[-1] == Draining(0, "", by_signal=signal.SIGTERM)


def test_a_worker_that_waits_for_its_lock_goes_on_saying_that_it_recovers(start: Any, tmp_path: Path) -> None:
    paths = DatabasePaths.of(tmp_path / "horizon.db")
    paths.folder.mkdir()
    lock = FileLock(paths.strategy_lock("maker"))
    assert lock.take("pid=1 run=x strategy=maker")
    worker = start("maker", source(db="..."), supervision="stop_timeout_s = 4")
    eventually(lambda: worker.heard().count(Phase("recovering")) >= 3, 20.0, what=str(worker))
    assert worker.ends() not in (ExitCode.DONE, ExitCode.USAGE)
    lock.release()
    assert "already runs on" in worker.read("log")


@pytest.mark.parametrize(
    ("hang", "where"),
    [("sum(itertools.repeat(0))", "in trade"), ("time.sleep(600)", "in trade"), ("ctypes.PyDLL(None).sleep(600)", "in trade")],
    ids=["a loop in C with Python's lock", "a sleep", "a call of C with Python's lock"],
)
def test_a_worker_that_hangs_tells_where_when_it_is_asked(start: Any, hang: str, where: str) -> None:
    worker = start("maker", source(f"open('hangs', 'w').close(); {hang}"))
    eventually(lambda: Path(worker._folder / "hangs").exists(), 20.0, what=str(worker))
    worker.process.send_signal(signal.SIGUSR2)
    eventually(lambda: where in worker.read("dump"), what=worker.read("dump"))
    assert is_alive(worker.process)


def test_a_segmentation_fault_leaves_its_traceback(start: Any) -> None:
    worker = start("maker", source("ctypes.string_at(0)"))
    assert worker.ends() == -signal.SIGSEGV
    assert "Segmentation fault" in worker.read("dump")
    assert "in trade" in worker.read("dump")


def test_what_c_code_and_helpers_print_comes_to_the_supervisor(start: Any) -> None:
    prints = """
libc = ctypes.CDLL(None)
os.write(1, b"past Python\\n")
libc.printf(b"from C\\n"); libc.fflush(None)
subprocess.run(["sh", "-c", "echo a helper; echo its error >&2"])
print("by print")
"""
    worker = start("maker", source(before=prints))
    worker.hears(Ready)
    assert worker.read("out").split("\n") == ["past Python", "from C", "a helper", "its error", ""]
    assert "by print" in worker.read("log")


def test_output_that_nobody_reads_stops_neither_the_strategy_nor_its_helpers(start: Any) -> None:
    flood = """
for _ in range(1000):
    try:
        os.write(2, b"x" * 1000)
    except BlockingIOError:
        pass
subprocess.run(["sh", "-c", "yes 2>/dev/null | head -c 300000 2>/dev/null"], check=False)
"""
    worker = start("maker", source(before=flood), deaf=True)
    worker.hears(Heartbeat, at_least=2)
    worker.stop()
    assert worker.ends() == ExitCode.DONE


def test_a_limit_that_the_host_refuses_is_a_mistake_of_the_configuration(start: Any) -> None:
    worker = start("maker", source(), table="limits.cpus = [9999]")
    assert worker.ends() == ExitCode.USAGE
    assert "strategies.maker.limits.cpus: 9999 cannot be used on this host" in worker.read("log")
    assert not any(isinstance(message, Ready) for message in worker.heard())


def test_limits_hold_for_the_strategys_code_and_its_helpers(start: Any) -> None:
    before = "os.write(1, subprocess.check_output(['sh', '-c', 'nice; ulimit -n; nproc']))"
    worker = start("maker", source(before=before), table="limits = { nice = 5, open_files = 200, cpus = [0] }")
    worker.hears(Ready)
    assert worker.read("out").split() == ["5", "200", "1"]
    assert worker.process.nice() == 5


def test_helpers_that_lose_their_parent_stay_below_the_worker(start: Any) -> None:
    leaves = "subprocess.run(['sh', '-c', 'setsid sleep 600 & echo $! > helper'])"
    worker = start("maker", source(before=leaves))
    worker.hears(Ready)
    helper = int((worker._folder / "helper").read_text())
    assert helper in {child.pid for child in worker.process.children()}
