"""Private writers in races: who starts one, who attaches, who leaves (R15, R16), and at which durability they commit (R26)."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from eventually import eventually
from road import OpenRecorder, a_writer_runs, rows, script, start_writer, writer_pid
from samples import fill

from horizon.clock import SYSTEM_CLOCK
from horizon.errors import AckTimeout
from horizon.ids import strategy_lock_name
from horizon.journal import About, Journal
from horizon.locks import FileLock
from horizon.paths import DatabasePaths
from horizon.recorder import Recorder
from horizon.store.append import Store
from horizon.writer.catchup import open_run

RUNS = 10


def test_ten_lone_runs_that_start_at_once_share_one_writer(database: DatabasePaths) -> None:
    """R15: each of them finds nobody and starts a writer; nine of those writers find the lock taken and leave."""
    runs = [
        subprocess.Popen([sys.executable, script("recording.py"), str(database.database), f"s{number}", "200"])
        for number in range(RUNS)
    ]
    assert [run.wait(60) for run in runs] == [0] * RUNS
    assert rows(database, "SELECT count(*), count(DISTINCT strategy) FROM strategy_runs WHERE status = 'ended'") == [(RUNS, RUNS)]
    assert rows(database, "SELECT (SELECT count(*) FROM fills), (SELECT count(*) FROM order_events)") == [
        (RUNS * 100, RUNS * 100)
    ]
    log = database.writer_log.read_text()
    assert log.count("ready: writing") == 1, log
    eventually(lambda: not database.journals())


def test_a_run_that_says_hello_while_the_writer_leaves_gets_another_one(
    database: DatabasePaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R15: between the last look for runs and the lock's release lies a moment; the writer is stopped exactly there."""
    armed = tmp_path / "armed"
    armed.touch()
    monkeypatch.setenv("HORIZON_FAILPOINT", f"writer.stopping:stop:{armed}")
    first = Recorder.open(database, "maker")
    first.record(fill(1))
    first.flush(10)
    leaving = a_writer_runs(database)
    first.close()
    eventually(lambda: psutil.Process(leaving).status() == psutil.STATUS_STOPPED, timeout_s=30, what="the writer about to leave")
    opened: list[Recorder] = []
    opening = threading.Thread(target=lambda: opened.append(Recorder.open(database, "maker")))
    opening.start()
    eventually(lambda: "run=" in database.strategy_lock("maker").read_text())
    opening.join(0.5)
    assert not opened, "the writer that is about to leave lets nobody in"
    os.kill(leaving, signal.SIGCONT)
    opening.join(30)
    (second,) = opened
    second.record(fill(2))
    second.flush(10)
    assert writer_pid(database) != leaving
    assert rows(database, "SELECT count(*) FROM fills") == [(2,)]
    second.close()


def test_a_writer_takes_over_a_database_whose_writer_was_killed_with_its_socket_left(database: DatabasePaths) -> None:
    """R16: a socket file and the text of a lock file prove nothing; who holds the lock binds anew."""
    first = Recorder.open(database, "maker")
    first.record(fill(1))
    first.flush(10)
    os.kill(a_writer_runs(database), signal.SIGKILL)
    assert database.socket.exists()
    database.writer_lock.write_text("pid=1 kind=private database=/nowhere")
    second = Recorder.open(database, "taker")
    second.record(fill(2))
    second.flush(10)
    first.record(fill(3))
    first.flush(10)
    assert rows(database, "SELECT count(*) FROM fills") == [(3,)]
    for recorder in (first, second):
        recorder.close()


def test_the_durability_that_a_run_asks_for_holds_for_all_until_the_writer_ends(database: DatabasePaths) -> None:
    """R26: read from the journal's header, so also for runs that a restarted writer finds."""
    with closing(Store(database, "process", SYSTEM_CLOCK)) as store:
        synchronous = []
        for run_id, strategy, durability in (("run-1", "a", "process"), ("run-2", "b", "power"), ("run-3", "c", "process")):
            lock = FileLock(database.folder / strategy_lock_name(strategy))
            assert lock.take()
            journal = Journal(database.journal(run_id), About(store.database_id, run_id, strategy, durability, 1), 2 << 20)
            run = open_run(database.journal(run_id), store)
            synchronous.append(store._connection.pragma("synchronous"))
            run.journal.close()
            journal.close()
            lock.release()
        assert synchronous == [1, 2, 2]


def test_a_database_that_cannot_be_written_is_waited_for_by_those_who_run_and_those_who_start(database: DatabasePaths) -> None:
    """R19, R20, R21: no ack and no crash; deadlines stand still; then everything is stored once, on a new connection."""
    writer = start_writer(database, "--durability", "power")
    recorder = Recorder.open(database, "maker", durability="power", may_start_writer=False)
    recorder.record(fill(1))
    recorder.flush(10)
    # When the writer may write to no file beyond its first page
    unlimited = resource.prlimit(writer.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(writer.pid, resource.RLIMIT_FSIZE, (4096, unlimited[1]))
    for number in range(2, 502):
        recorder.record(fill(number))
    with pytest.raises(AckTimeout):
        recorder.flush(1.0)
    assert recorder.committed_seq == 1
    # Then a run that starts waits too, far longer than its time-out
    opened: list[Recorder] = []
    began = time.monotonic()
    opening = threading.Thread(
        target=lambda: opened.append(Recorder.open(database, "taker", may_start_writer=False, timeout_s=0.8))
    )
    opening.start()
    opening.join(2.0)
    assert (opened, opening.is_alive(), writer.poll()) == ([], True, None)
    # And with the cure everything goes on
    resource.prlimit(writer.pid, resource.RLIMIT_FSIZE, unlimited)
    opening.join(20)
    (other,) = opened
    assert time.monotonic() - began > 1.5
    recorder.flush(20)
    assert rows(database, "SELECT count(*), count(DISTINCT fill_id) FROM fills") == [(501, 501)]
    for one in (recorder, other):
        one.close()
    writer.terminate()
    said = writer.communicate(timeout=20)[1].decode()
    assert writer.returncode == 0
    assert len(re.findall("STALLED", said)) == 1, said
    assert "resumed" in said


def test_a_writer_whose_database_was_deleted_leaves_though_a_run_is_open(
    database: DatabasePaths, open_recorder: OpenRecorder
) -> None:
    """It has nothing to write to any more, and nobody would ever find it again."""
    recorder = open_recorder(database, "maker")
    recorder.record(fill(1))
    recorder.flush(10)
    pid = writer_pid(database)
    assert pid is not None
    shutil.rmtree(database.folder)
    eventually(lambda: not psutil.pid_exists(pid))
