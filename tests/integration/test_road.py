"""The road of a record with a real writer: from `record()` to a row, an ack and a trimmed journal."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from threading import Lock

import pytest
import zmq
from eventually import eventually
from road import OpenRecorder, a_writer_runs, dead_letters, kill_writer, rows, script, start_writer, stop_writer, writer_pid
from samples import fill, order_event

from horizon import wire
from horizon.errors import AckTimeout, DeadLettered, Halt, JournalError, LinkError, StoreError, StrategyBusy
from horizon.paths import DatabasePaths
from horizon.recorder import Recorder
from horizon.records import FillConflict, RunEnded, RunStarted


@pytest.fixture
def recorder(database: DatabasePaths, open_recorder: OpenRecorder) -> Recorder:
    recorder = open_recorder(database, "maker")
    recorder.record(RunStarted("maker", "paper", time.time(), None, os.getpid()))
    return recorder


def die(recorder: Recorder) -> None:
    """Lose the strategy's lock as a killed process does, without a word to anybody."""
    recorder._lock.abandon()


def test_what_is_flushed_is_what_a_reader_sees(database: DatabasePaths, recorder: Recorder) -> None:
    for number in range(1, 1001):
        recorder.record(fill(number))
        recorder.record(order_event(number))
    recorder.flush(10)
    assert rows(database, "SELECT count(*) FROM fills") == [(1000,)]
    assert rows(database, "SELECT count(*) FROM order_events") == [(1000,)]
    assert rows(database, "SELECT committed_seq FROM run_cursors WHERE run_id = ?", recorder.run_id) == [(2001,)]
    assert recorder.unacked == 0
    assert recorder.latency_ms is not None


def test_rows_keep_the_order_in_which_they_were_recorded(database: DatabasePaths, recorder: Recorder) -> None:
    for number in range(500, 0, -1):
        recorder.record(fill(number))
    recorder.flush(10)
    ids = [row[0] for row in rows(database, "SELECT fill_id FROM fills ORDER BY rowid")]
    assert ids == [f"fill-{number:08d}" for number in range(500, 0, -1)]


def test_a_clean_end_closes_the_run_and_leaves_no_journal(database: DatabasePaths, recorder: Recorder) -> None:
    recorder.record(RunEnded(time.time()))
    recorder.flush(10)
    recorder.close()
    eventually(lambda: not database.journals(), what="an empty journal folder")
    assert rows(database, "SELECT status FROM strategy_runs WHERE run_id = ?", recorder.run_id) == [("ended",)]


def test_a_lone_run_starts_a_writer_that_leaves_when_nobody_needs_it(database: DatabasePaths, recorder: Recorder) -> None:
    """R15."""
    pid = a_writer_runs(database)
    assert os.getsid(pid) != os.getsid(0), "a session of its own: Ctrl-C does not reach it"
    recorder.close()
    eventually(lambda: writer_pid(database) is None, timeout_s=20, what="the private writer to leave")
    assert not database.database.with_name("trades.db-wal").exists(), "the last checkpoint emptied the WAL"


def test_two_programs_on_one_database_share_a_writer(
    database: DatabasePaths, recorder: Recorder, open_recorder: OpenRecorder
) -> None:
    pid = a_writer_runs(database)
    other = open_recorder(database, "taker")
    assert writer_pid(database) == pid
    other.record(fill(1))
    recorder.record(fill(2))
    other.flush(10)
    recorder.flush(10)
    assert rows(database, "SELECT strategy FROM fills ORDER BY strategy") == [("maker",), ("taker",)]
    other.close()


def test_one_name_is_one_strategy_at_a_time(database: DatabasePaths, recorder: Recorder, open_recorder: OpenRecorder) -> None:
    """R10."""
    with pytest.raises(StrategyBusy, match=f"'maker' already runs.*pid {os.getpid()}"):
        open_recorder(database, "maker", lock_timeout_s=0.1)


def test_a_killed_writer_is_replaced_and_nothing_is_lost(database: DatabasePaths, recorder: Recorder) -> None:
    recorder.record(fill(1))
    recorder.flush(10)
    kill_writer(database)
    for number in range(2, 102):
        recorder.record(fill(number))
    recorder.flush(20)
    assert rows(database, "SELECT count(*), count(DISTINCT fill_id) FROM fills") == [(101, 101)]


def test_a_new_writer_acknowledges_what_it_read_also_to_a_run_that_does_not_ask(
    database: DatabasePaths, recorder: Recorder
) -> None:
    recorder.record(fill(1))
    recorder.flush(10)
    kill_writer(database)
    recorder._link._send = lambda data: None  # type: ignore[method-assign]
    recorder.record(fill(2))
    eventually(lambda: recorder.wait(0.01) or not recorder.unacked, timeout_s=20, what="the ack")
    assert rows(database, "SELECT count(*) FROM fills") == [(2,)]


def test_silence_on_the_link_costs_time_and_no_rows(database: DatabasePaths, recorder: Recorder) -> None:
    """R18: every message after the first is dropped while the strategy idles: all rows are there within a second."""
    dropped: list[bytes] = []
    recorder._link._send = dropped.append  # type: ignore[method-assign]
    for number in range(1, 501):
        recorder.record(fill(number))
        if number % 50 == 0:
            recorder.ship()
    eventually(
        lambda: rows(database, "SELECT count(*) FROM fills") == [(500,)], timeout_s=1.0, what="all rows, without a message"
    )
    assert dropped


def test_a_dead_workers_journal_is_drained_and_its_run_closed(database: DatabasePaths, open_recorder: OpenRecorder) -> None:
    """R14."""
    a_writer = open_recorder(database, "keeper")
    process = subprocess.Popen([sys.executable, script("recording.py"), str(database.database), "maker", "1000000"])
    log = eventually(lambda: next(iter(database.database.parent.glob("trades.maker.*.log")), None))
    eventually(lambda: log.stat().st_size > 50_000)
    process.send_signal(signal.SIGKILL)
    process.wait()
    after = {line.split()[1] for line in log.read_text().splitlines() if line.startswith("after ")}
    before = {line.split()[1] for line in log.read_text().splitlines() if line.startswith("before ")}

    eventually(lambda: rows(database, "SELECT status FROM strategy_runs WHERE strategy_name = 'maker'") == [("died",)])
    stored = [
        row[0] for row in rows(database, "SELECT fill_id FROM fills UNION ALL SELECT substr(order_id, 7) FROM order_events")
    ]
    assert len(stored) == len(set(stored))
    assert after <= set(stored) <= before
    eventually(lambda: len(database.journals()) == 1, what="only the living run's journal")
    a_writer.close()


def test_a_new_run_starts_only_after_its_older_journals_are_drained(
    database: DatabasePaths, recorder: Recorder, open_recorder: OpenRecorder
) -> None:
    """R14."""
    kill_writer(database)
    for number in range(1, 2001):
        recorder.record(fill(number))
    # The process dies without a word to anybody: nothing was committed, the lock is free.
    die(recorder)
    open_recorder(database, "maker")
    assert rows(database, "SELECT count(*) FROM fills") == [(2000,)]


def test_a_conflicting_fill_becomes_a_dead_letter_and_flush_says_so(database: DatabasePaths, recorder: Recorder) -> None:
    recorder.record(fill(1))
    recorder.flush(10)
    recorder.record(FillConflict(fill(1, price=999.0)))
    with pytest.raises(DeadLettered, match=r"dlq\.db"):
        recorder.flush(10)
    ((run_id, seq, kind, reason, payload),) = dead_letters(database)
    assert (run_id, seq, kind) == (recorder.run_id, 3, "conflict")
    assert "price" in reason
    assert wire.decode_record(payload) == FillConflict(fill(1, price=999.0))
    recorder.record(fill(2))
    recorder.flush(10)


def test_a_fill_that_cannot_be_stored_halts_the_run_that_applied_it(database: DatabasePaths, recorder: Recorder) -> None:
    """R3."""
    recorder.record(fill(1))
    recorder.flush(10)
    recorder.record(fill(1, price=999.0))
    with pytest.raises(Halt, match="positions are in doubt"):
        recorder.flush(10)
    assert [letter[2] for letter in dead_letters(database)] == ["conflict"]


def test_a_fill_delivered_twice_is_one_row_and_one_duplicate(database: DatabasePaths, recorder: Recorder) -> None:
    for _ in range(3):
        recorder.record(fill(1))
    recorder.flush(10)
    assert rows(database, "SELECT count(*) FROM fills") == [(1,)]
    assert rows(database, "SELECT run_id, seq FROM duplicates ORDER BY seq") == [(recorder.run_id, 3), (recorder.run_id, 4)]


def test_garbage_on_the_socket_harms_nobody(database: DatabasePaths, recorder: Recorder) -> None:
    """R17."""
    folder = os.open(database.folder, os.O_RDONLY)
    context = zmq.Context()
    stranger = context.socket(zmq.DEALER)
    stranger.connect(f"ipc:///proc/self/fd/{folder}/writer.sock")
    for data in (b"", b"\0", b"x" * 5000, os.urandom(1000), wire.encode(wire.Ack(5))):
        stranger.send(data)
        stranger.send_multipart([data, data])
    raw = socket.socket(socket.AF_UNIX)
    raw.connect(f"/proc/self/fd/{folder}/writer.sock")
    raw.sendall(os.urandom(4096))
    oversized = context.socket(zmq.DEALER)
    oversized.connect(f"ipc:///proc/self/fd/{folder}/writer.sock")
    oversized.send(b"z" * (wire.MESSAGE_MAX_BYTES + 1))
    pid = a_writer_runs(database)
    recorder.record(fill(1))
    recorder.flush(10)
    assert writer_pid(database) == pid
    for open_socket in (stranger, oversized):
        open_socket.close(linger=0)
    raw.close()
    context.term()
    os.close(folder)


def test_a_forged_message_in_a_runs_name_is_dropped(database: DatabasePaths, recorder: Recorder) -> None:
    """R17: the crc is seeded with the salt of the run's journal."""
    recorder.record(fill(1))
    recorder.flush(10)
    forged = wire.frame_of(fill(2), recorder.last_seq + 1, 12345)
    recorder._link._send(wire.encode(wire.Ship(recorder._journal.head, forged)))
    recorder.record(fill(3))
    recorder.flush(10)
    assert [row[0] for row in rows(database, "SELECT fill_id FROM fills ORDER BY rowid")] == ["fill-00000001", "fill-00000003"]


def test_a_message_may_begin_with_what_the_writer_read_from_the_journal(database: DatabasePaths, recorder: Recorder) -> None:
    recorder.flush(10)
    recorder.begin_cycle()
    recorder.record(fill(1))
    eventually(lambda: rows(database, "SELECT count(*) FROM fills") == [(1,)])
    recorder.record(fill(2))
    recorder.ship()
    recorder.flush(10)
    assert rows(database, "SELECT count(*) FROM fills") == [(2,)]


def test_what_a_lost_message_carried_comes_before_the_next_one(database: DatabasePaths, recorder: Recorder) -> None:
    """R17: the next message tells that one is missing."""
    recorder.flush(10)
    for number in range(1, 21):
        recorder.begin_cycle()
        recorder.record(fill(number))
        if number % 2:
            recorder._link.shipped = recorder._journal.head
        recorder.ship()
    recorder.flush(10)
    ids = [row[0] for row in rows(database, "SELECT fill_id FROM fills ORDER BY rowid")]
    assert ids == [f"fill-{number:08d}" for number in range(1, 21)]


def test_the_folder_and_its_files_belong_to_their_owner_only(database: DatabasePaths, recorder: Recorder) -> None:
    recorder.flush(10)
    assert database.folder.stat().st_mode & 0o777 == 0o700
    for path in [database.database, *database.folder.iterdir()]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_run_of_another_protocol_version_is_refused_with_both_versions(
    database: DatabasePaths, monkeypatch: pytest.MonkeyPatch, open_recorder: OpenRecorder
) -> None:
    """R15, R16."""
    open_recorder(database, "keeper").flush(10)
    monkeypatch.setattr(wire, "PROTOCOL", 99)
    with pytest.raises(StoreError, match=r"speaks protocol 1.*speaks 99"):
        open_recorder(database, "maker")


def test_a_supervised_worker_never_starts_a_writer(database: DatabasePaths, open_recorder: OpenRecorder) -> None:
    """R15."""
    with pytest.raises(LinkError, match="is the supervisor's writer running"):
        open_recorder(database, "maker", may_start_writer=False, timeout_s=0.5)
    assert not database.database.exists()


def test_flush_names_the_journal_when_nobody_acknowledges(database: DatabasePaths, open_recorder: OpenRecorder) -> None:
    writer = start_writer(database)
    recorder = open_recorder(database, "maker", may_start_writer=False)
    writer.kill()
    writer.communicate()
    recorder.record(fill(1))
    with pytest.raises(AckTimeout, match=r"1 records of maker .* kept in .*\.journal"):
        recorder.flush(0.3)
    recorder.close()


def test_a_private_writer_gives_its_place_to_a_supervised_one(database: DatabasePaths, recorder: Recorder) -> None:
    """R15."""
    private = a_writer_runs(database)
    supervised = start_writer(database)
    eventually(lambda: writer_pid(database) == supervised.pid, what="the supervised writer to own the database")
    recorder.record(fill(1))
    recorder.flush(20)
    assert writer_pid(database) == supervised.pid != private
    recorder.close()
    supervised.terminate()
    assert supervised.wait(20) == 0
    supervised.communicate()


def test_a_forked_child_may_not_record_and_its_parent_goes_on(database: DatabasePaths, recorder: Recorder) -> None:
    """R24."""
    recorder.record(fill(1))
    child = os.fork()
    if child == 0:
        try:
            recorder.record(fill(2))
        except JournalError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    recorder.record(fill(3))
    recorder.flush(10)
    assert rows(database, "SELECT count(*) FROM fills") == [(2,)]


def _square(number: int) -> int:
    return number * number


def test_a_process_pool_and_eight_threads_lose_and_double_nothing(database: DatabasePaths, recorder: Recorder) -> None:
    """The lock stands for the engine's: a recorder is used by one thread at a time (R25)."""
    lock = Lock()

    def record_many(thread: int) -> None:
        for number in range(500):
            with lock:
                recorder.record(fill(1, fill_id=f"{thread}-{number:04d}"))

    with ProcessPoolExecutor(2) as processes, ThreadPoolExecutor(8) as threads:
        squares = processes.map(_square, range(100))
        list(threads.map(record_many, range(8)))
        assert list(squares) == [number * number for number in range(100)]
    recorder.flush(20)
    assert rows(database, "SELECT count(*), count(DISTINCT fill_id) FROM fills") == [(4000, 4000)]


def test_a_lock_does_not_live_on_in_a_forked_child(
    database: DatabasePaths, recorder: Recorder, open_recorder: OpenRecorder
) -> None:
    """R24."""
    held_open, release = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(release)
        os.read(held_open, 1)
        os._exit(0)
    os.close(held_open)
    recorder.close()
    open_recorder(database, "maker", lock_timeout_s=1).close()
    os.close(release)
    os.waitpid(child, 0)


def test_a_database_moved_under_the_writer_stops_the_acks(database: DatabasePaths, open_recorder: OpenRecorder) -> None:
    """R12."""
    writer = start_writer(database)
    recorder = open_recorder(database, "maker", may_start_writer=False)
    recorder.record(fill(1))
    recorder.flush(10)
    database.database.rename(database.database.with_name("moved.db"))
    recorder.record(fill(2))
    with pytest.raises(AckTimeout):
        recorder.flush(1.0)
    assert writer.wait(10) == 5
    assert b"moved, replaced or deleted" in writer.communicate()[1]
    assert recorder.unacked == 1
    recorder.close()


def test_a_missing_database_with_journals_left_is_not_made_anew(
    database: DatabasePaths, recorder: Recorder, open_recorder: OpenRecorder
) -> None:
    """R13."""
    recorder.record(fill(1))
    recorder.flush(10)
    kill_writer(database)
    recorder.record(fill(2))
    die(recorder)
    for path in database.database.parent.glob("trades.db*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(StoreError, match=r"is missing, but .*\.d holds journals"):
        open_recorder(database, "maker")
    assert not database.database.exists()
    assert database.journals()


def test_a_journal_of_another_database_is_reported_and_left_alone(
    database: DatabasePaths, recorder: Recorder, open_recorder: OpenRecorder
) -> None:
    """R13."""
    recorder.record(fill(1))
    recorder.flush(10)
    other = DatabasePaths.of(database.database.with_name("other.db"))
    strange = open_recorder(other, "maker")
    strange.record(fill(7))
    kill_writer(other)
    foreign = strange._journal.path
    die(strange)
    (database.folder / foreign.name).write_bytes(foreign.read_bytes())
    stop_writer(database)
    recorder.record(fill(2))
    recorder.flush(20)
    eventually(lambda: "belongs to another database" in database.writer_log.read_text())
    assert (database.folder / foreign.name).exists()
    assert rows(database, "SELECT count(*) FROM fills") == [(2,)]
    recorder.close()


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_journal_is_committed_up_to_the_damage_and_set_aside(
    database: DatabasePaths, recorder: Recorder, damage: str, open_recorder: OpenRecorder
) -> None:
    """R13."""
    kill_writer(database)
    recorder._link._may_start_writer = False
    for number in range(1, 101):
        recorder.record(fill(number))
    journal, head = recorder._journal.path, recorder._journal.head
    die(recorder)
    with journal.open("r+b") as file:
        if damage == "truncated":
            file.truncate(4096 + head // 2)
        else:
            file.seek(4096 + head // 2)
            byte = file.read(1)[0]
            file.seek(4096 + head // 2)
            file.write(bytes([byte ^ 0x10]))
    open_recorder(database, "maker")
    stored = [row[0] for row in rows(database, "SELECT fill_id FROM fills ORDER BY rowid")]
    gaps = rows(database, "SELECT run_id, from_seq, to_seq, reason FROM run_gaps")
    assert len(gaps) == 1
    missing = range(gaps[0][1], gaps[0][2] + 1)
    assert gaps[0][0] == recorder.run_id
    assert "damaged" in gaps[0][3]
    assert stored == [f"fill-{seq - 1:08d}" for seq in range(2, 102) if seq not in missing], "every seq is a row or in the gap"
    assert len(missing) == 1 if damage == "flipped" else 40 < len(missing) < 60
    eventually(lambda: journal.with_suffix(".damaged").exists(), what="the damaged journal set aside")
