"""The road under attack: floods, forks, stopped and killed processes, strange names, files that should not be there."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from eventually import eventually
from road import OpenRecorder, a_writer_runs, kill_writer, rows, script, stop_writer, writer_pid
from samples import fill

from horizon.clock import SYSTEM_CLOCK
from horizon.errors import AckTimeout, ConfigError, Halt, StoreError, StrategyBusy
from horizon.link import Link
from horizon.paths import DatabasePaths
from horizon.pulse import Pulse
from horizon.recorder import Recorder
from horizon.records import FillConflict

FLOOD = """
import os, sys, zmq
folder = os.open(sys.argv[1], os.O_RDONLY)
stranger = zmq.Context().socket(zmq.DEALER)
stranger.connect(f"ipc:///proc/self/fd/{folder}/writer.sock")
print("flooding", flush=True)
while True:
    stranger.send(b"")
"""

FORGETFUL = """
import sys
sys.path.insert(0, sys.argv[2])
from samples import fill
from horizon.paths import DatabasePaths
from horizon.pulse import Pulse
from horizon.recorder import Recorder
recorder = Recorder.open(DatabasePaths.of(sys.argv[1]), "maker")
recorder.record(fill(1))
"""


class Pipe:
    """One end of a pipe, as a thing that can be waited for."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor


@pytest.fixture
def recorder(database: DatabasePaths, open_recorder: OpenRecorder) -> Recorder:
    return open_recorder(database, "maker")


def stored(database: DatabasePaths) -> int:
    ((count,),) = rows(database, "SELECT count(*) FROM fills")
    return int(count)


@pytest.mark.parametrize("others", [200, 3000])
def test_a_lost_fill_is_heard_of_among_many_dead_letters(database: DatabasePaths, recorder: Recorder, others: int) -> None:
    """R3: also when more of them come in one transaction than a batch is meant to hold."""
    recorder.record(fill(1))
    recorder.record(fill(2))
    recorder.flush(10)
    recorder.begin_cycle()
    recorder.record(fill(1, price=999.0))
    for _ in range(others):
        recorder.record(FillConflict(fill(2, price=999.0)))
    recorder.ship()
    with pytest.raises(Halt, match=r"could not store a fill of maker \(seq 3\)"):
        recorder.flush(10)


def test_a_run_that_has_to_wait_asks_four_times_a_second(database: DatabasePaths, recorder: Recorder) -> None:
    """R18: not as fast as it is answered: for the whole time of a full disk both processes would do nothing else."""
    link = Link(database, "a-run-without-the-lock", "process", False, SYSTEM_CLOCK)
    asked: list[float] = []
    send = link._send

    def note(data: bytes) -> None:
        asked.append(time.monotonic())
        send(data)

    link._send = note  # type: ignore[method-assign]
    recorder.record(fill(1))
    recorder.flush(10)
    eventually(lambda: a_writer_runs(database))
    waiting = threading.Thread(target=link.hello, args=("maker", 10.0, Pulse()))
    waiting.start()
    eventually(lambda: len(asked) >= 4)
    recorder.close()
    waiting.join(10)
    link.close()
    assert asked[3] - asked[0] > 0.7


def test_a_database_that_is_put_back_in_place_gets_again_what_the_journal_still_has(
    database: DatabasePaths, recorder: Recorder, tmp_path: Path
) -> None:
    """As `sqlite3 horizon.db '.restore copy'` does it under a running writer: the file stays the same one (R12 sees nothing)."""
    _record_and_flush(recorder, 1, 100)
    with closing(apsw.Connection(str(tmp_path / "copy.db"))) as copy:
        with closing(apsw.Connection(str(database.database))) as live:
            _copy(live, copy)
        _record_and_flush(recorder, 101, 200)
        with closing(apsw.Connection(str(database.database))) as live:
            _copy(copy, live)
    _record_and_flush(recorder, 201, 300)
    assert rows(database, "SELECT count(*), count(DISTINCT fill_id) FROM fills") == [(300, 300)]


def _record_and_flush(recorder: Recorder, first: int, last: int) -> None:
    for number in range(first, last + 1):
        recorder.record(fill(number))
    recorder.flush(20)


def _copy(source: apsw.Connection, target: apsw.Connection) -> None:
    target.set_busy_timeout(5000)
    with target.backup("main", source, "main") as backup:
        while not backup.done:
            backup.step(-1)


def test_a_slow_writer_gets_few_messages_and_all_records(database: DatabasePaths, recorder: Recorder) -> None:
    writer = a_writer_runs(database)
    recorder.record(fill(1))
    recorder.flush(10)
    sent: list[bytes] = []
    send = recorder._link._send
    recorder._link._send = lambda data: (sent.append(data), send(data))[1]  # type: ignore[method-assign]
    os.kill(writer, signal.SIGSTOP)
    for number in range(2, 102):
        recorder.begin_cycle()
        recorder.record(fill(number))
        recorder.ship()
        recorder.ship()  # a cycle that recorded nothing
    assert len(sent) == 2, "more would only lie in the queue of one who does not read"
    os.kill(writer, signal.SIGCONT)
    # As between the cycles of a run: what was left is sent with the ack, nobody has to flush.
    eventually(lambda: recorder.wait(0.01) or not recorder.unacked, what="every ack")
    assert rows(database, "SELECT count(*) FROM fills") == [(101,)]


def test_a_run_that_waits_for_acks_goes_on_showing_that_it_lives(database: DatabasePaths, open_recorder: OpenRecorder) -> None:
    class Counting(Pulse):
        turns = 0

        def turn(self) -> None:
            self.turns += 1

    pulse = Counting()
    recorder = open_recorder(database, "maker", pulse=pulse)
    recorder.record(fill(1))
    recorder.flush(10)
    writer = a_writer_runs(database)
    os.kill(writer, signal.SIGSTOP)
    recorder.record(fill(2))
    pulse.turns = 0
    with pytest.raises(AckTimeout):
        recorder.flush(1.0)
    os.kill(writer, signal.SIGCONT)
    assert pulse.turns >= 10
    assert recorder.unacked_bytes > 0


def test_a_flood_of_garbage_delays_and_stops_nothing(database: DatabasePaths, recorder: Recorder) -> None:
    recorder.record(fill(1))
    recorder.flush(10)
    flood = subprocess.Popen([sys.executable, "-c", FLOOD, str(database.folder)], stdout=subprocess.PIPE)
    assert flood.stdout is not None
    flood.stdout.readline()
    for number in range(2, 102):
        recorder.record(fill(number))
    recorder.flush(10)
    flood.kill()
    flood.communicate()
    assert stored(database) == 101


def test_a_process_with_thousands_of_descriptors_can_wait(recorder: Recorder) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    read, write = os.pipe()
    high = os.dup2(read, 2000)
    recorder.wait(0.01, [Pipe(high), Pipe(high)])
    os.write(write, b"x")
    recorder.wait(600.0, [Pipe(high)])  # comes back at once, or the test's own time limit ends it
    for descriptor in (read, write, high):
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_writer_that_cannot_be_started_costs_time_and_no_record(
    database: DatabasePaths, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder.record(fill(1))
    recorder.flush(10)
    kill_writer(database)

    def no_memory(*_: object, **__: object) -> None:
        raise BlockingIOError("fork: no memory")

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", no_memory)
        recorder.record(fill(2))
        with pytest.raises(AckTimeout):
            recorder.flush(2.5)
    recorder.flush(20)
    assert stored(database) == 2


def test_a_run_hears_that_its_database_is_damaged(database: DatabasePaths, recorder: Recorder) -> None:
    for number in range(1, 3001):
        recorder.record(fill(number))
    recorder.flush(10)
    kill_writer(database)
    connection = sqlite3.connect(database.database)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    ((page,),) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'fills'")
    connection.close()
    with database.database.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    recorder.record(fill(5000))
    with pytest.raises(StoreError, match="is damaged"):
        recorder.flush(10)
    assert recorder.unacked == 1


def test_the_holder_of_a_name_is_named_whatever_the_name(database: DatabasePaths, open_recorder: OpenRecorder) -> None:
    name = "a run=0 pid=1 strategy=b"
    open_recorder(database, name)
    with pytest.raises(StrategyBusy, match=f"pid {os.getpid()} "):
        open_recorder(database, name, lock_timeout_s=0.0)


@pytest.mark.parametrize("name", ["\ud800", "two\nlines", "nul\0"])
def test_a_name_that_cannot_be_stored_is_refused_before_anything_is_made(database: DatabasePaths, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be stored or shown"):
        Recorder.open(database, name)
    assert not database.folder.exists()


def test_a_folder_that_is_named_like_a_journal_harms_nobody(database: DatabasePaths, recorder: Recorder) -> None:
    recorder.record(fill(1))
    recorder.flush(10)
    (database.folder / "strange.journal").mkdir()
    eventually(lambda: "strange.journal" in database.writer_log.read_text())
    pid = writer_pid(database)
    recorder.record(fill(2))
    recorder.flush(10)
    assert writer_pid(database) == pid


def test_a_run_whose_lock_file_was_deleted_is_still_stored(database: DatabasePaths, recorder: Recorder) -> None:
    recorder.record(fill(1))
    recorder.flush(10)
    database.strategy_lock("maker").unlink()
    # A new strategy makes the writer list the journals.
    Recorder.open(database, "taker").close()
    recorder.record(fill(2))
    recorder.flush(10)
    assert stored(database) == 2


def test_a_stopped_writer_goes_on_where_it_stood_and_gets_no_rival(database: DatabasePaths, open_recorder: OpenRecorder) -> None:
    """R15, R18."""
    recorder = open_recorder(database, "maker", journal_bytes=2 << 20)
    recorder.record(fill(1))
    recorder.flush(10)
    pid = a_writer_runs(database)
    os.kill(pid, signal.SIGSTOP)
    number = 1
    while recorder.room_for_orders():
        number += 1
        recorder.record(fill(number))
    with pytest.raises(AckTimeout):
        recorder.flush(1.5)
    os.kill(pid, signal.SIGCONT)
    recorder.flush(20)
    assert writer_pid(database) == pid
    assert rows(database, "SELECT count(*), count(DISTINCT fill_id) FROM fills") == [(number, number)]


def test_a_writer_that_is_asked_to_leave_amid_records_loses_none(database: DatabasePaths, recorder: Recorder) -> None:
    for number in range(1, 20_001):
        recorder.record(fill(number))
        if number % 5000 == 0:
            stop_writer(database)
    recorder.flush(30)
    assert [row[0] for row in rows(database, "SELECT seq FROM fills ORDER BY commit_no")] == list(range(1, 20_001))


def test_a_run_that_ends_without_close_is_stored_and_ends_cleanly(database: DatabasePaths) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FORGETFUL, str(database.database), os.path.dirname(script("samples.py"))],
        capture_output=True, timeout=20, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, b"")
    eventually(lambda: database.database.exists() and not database.journals())
    assert stored(database) == 1


def test_neither_a_subprocess_nor_a_forked_child_keeps_the_lock(
    database: DatabasePaths, recorder: Recorder, open_recorder: OpenRecorder
) -> None:
    """R10, R24."""
    sleeper = subprocess.Popen(["sleep", "60"], close_fds=False)
    recorder.close()
    recorder.close()
    open_recorder(database, "maker", lock_timeout_s=0.0)
    sleeper.kill()
    sleeper.wait()


@pytest.mark.timeout(120)
def test_killing_worker_and_writer_at_once_loses_and_invents_nothing(database: DatabasePaths) -> None:
    for _ in range(5):
        worker = subprocess.Popen([sys.executable, script("recording.py"), str(database.database), "maker", "1000000"])
        log = eventually(lambda pid=worker.pid: next(iter(database.database.parent.glob(f"trades.maker.{pid}.log")), None))  # type: ignore[misc]
        eventually(lambda log=log: log.stat().st_size > 100_000)  # type: ignore[misc]
        os.kill(a_writer_runs(database), signal.SIGKILL)
        worker.kill()
        worker.wait()
    Recorder.open(database, "maker").close()
    lines = [
        line.split() for path in database.database.parent.glob("trades.maker.*.log") for line in path.read_text().splitlines()
    ]
    before, after = ({key for when, key in lines if when == wanted} for wanted in ("before", "after"))
    found = [key for (key,) in rows(database, "SELECT fill_id FROM fills UNION ALL SELECT substr(order_id, 7) FROM order_events")]
    assert len(found) == len(set(found))
    assert after <= set(found) <= before
    assert rows(database, "SELECT count(*) FROM run_gaps") == [(0,)]
    assert rows(database, "SELECT status, count(*) FROM strategy_runs GROUP BY status") == [("died", 5)]


def test_a_path_that_sqlite_cannot_be_told_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not UTF-8"):
        Recorder.open(DatabasePaths.of(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.db")), "maker")


@pytest.mark.parametrize("name", ["bücher 取引 %41?x=1#y.db", "d" * 200 + "/" + "e" * 200 + "/trades.db", "link.db"])
def test_any_path_of_a_local_file_can_be_recorded_to(tmp_path: Path, open_recorder: OpenRecorder, name: str) -> None:
    """R16: the socket is addressed by its folder's descriptor."""
    paths = DatabasePaths.of(tmp_path / name)
    if name == "link.db":
        (tmp_path / name).symlink_to("real.db")
        paths = DatabasePaths.of(tmp_path / name)
        assert paths == DatabasePaths.of(tmp_path / "real.db")
    paths.database.parent.mkdir(parents=True, exist_ok=True)
    recorder = open_recorder(paths, "maker")
    recorder.record(fill(1))
    recorder.flush(10)
    stop_writer(paths)
    recorder.close()


def test_what_waited_for_an_ack_is_sent_with_it(database: DatabasePaths, recorder: Recorder) -> None:
    """Not left for the writer to find in the journal: that takes it up to 100 ms, at every pair of records."""
    recorder.record(fill(1))
    recorder.flush(10)
    recorder.record(fill(2))
    recorder.record(fill(3))
    eventually(lambda: recorder.wait(0.001) or recorder.committed_seq >= 2)
    assert recorder._journal.head == recorder._link.shipped
