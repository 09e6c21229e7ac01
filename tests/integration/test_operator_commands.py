"""What a person asks for reaches the writer that owns the database, whoever started it, and a running strategy within a second."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from eventually import eventually
from road import a_writer_runs, kill_writer, rows, start_writer, stop_writer, writer_pid
from samples import fill, order_event
from supervised import Up, configure

from horizon import operator
from horizon.errors import CommandRefused, Halt, LinkError, StoreError
from horizon.ids import new_run_id
from horizon.link import Link
from horizon.paths import DatabasePaths
from horizon.recorder import Recorder
from horizon.records import RiskEvent, RiskEventType, RunEnded, RunStarted
from horizon.wire import Command, Control

OpenRecorder = Callable[..., Recorder]


@pytest.fixture
def open_recorder(database: DatabasePaths) -> Iterator[OpenRecorder]:
    """A run that has begun, and the end of it after the test."""
    opened: list[Recorder] = []

    def open_one(strategy: str = "maker", **options: Any) -> Recorder:
        recorder = Recorder.open(database, strategy, **options)
        opened.append(recorder)
        recorder.record(RunStarted(strategy, "paper", time.time(), None, os.getpid()))
        recorder.flush(10)
        return recorder

    yield open_one
    for recorder in opened:
        recorder.close()


def command(action: str, strategy: str = "maker", **arguments: str) -> Command:
    return Command(action, strategy, "alice", "it looks wrong", arguments)


def hears(recorder: Recorder, control: Control, timeout_s: float = 1.0) -> None:
    """Wait as an engine waits between its cycles, until the run knows what it may do."""

    def has_it() -> bool:
        recorder.wait(0.02)
        return recorder.control == control

    eventually(has_it, timeout_s, what=f"{control}; it is {recorder.control}")


def end(recorder: Recorder) -> None:
    recorder.record(RunEnded(time.time()))
    recorder.flush(10)
    recorder.close()


def die(recorder: Recorder) -> None:
    """Lose the strategy's lock as a killed process does, without a word to anybody."""
    recorder._lock.abandon()


def actions(paths: DatabasePaths) -> list[tuple[Any, ...]]:
    return rows(paths, "SELECT who, action, strategy, reason FROM operator_actions ORDER BY rowid")


def test_a_live_run_hears_of_a_trip_and_of_its_clear_within_a_second(
    database: DatabasePaths, open_recorder: OpenRecorder
) -> None:
    recorder, other = open_recorder("maker"), open_recorder("taker")
    assert recorder.control == Control()
    assert operator.command(database, command("trip")) == "the kill switch of maker is on: it looks wrong"
    hears(recorder, Control("it looks wrong"))
    operator.command(database, command("clear"))
    hears(recorder, Control())
    other.hear()
    assert other.control == Control(), "the other strategy trades on"
    assert actions(database) == [
        ("alice", "trip", "maker", "it looks wrong"), ("alice", "clear", "maker", "it looks wrong"),
    ]  # fmt: skip
    assert len(rows(database, "SELECT * FROM risk_events")) == 2


def test_a_live_run_hears_of_a_hold_and_of_its_release(database: DatabasePaths, open_recorder: OpenRecorder) -> None:
    recorder = open_recorder()
    operator.command(database, command("hold"))
    hears(recorder, Control(None, "it looks wrong"))
    operator.command(database, command("release"))
    (at,) = rows(database, "SELECT released_at FROM strategy_controls")[0]
    hears(recorder, Control(None, None, at))


def test_a_run_s_own_kill_switch_comes_back_to_it_before_its_ack(database: DatabasePaths, open_recorder: OpenRecorder) -> None:
    recorder = open_recorder()
    for number in range(20):
        event, reason = RiskEventType.KillSwitchActivated, f"loss {number}"
        recorder.record(RiskEvent(event, reason, time.time()))
        while recorder.unacked:
            recorder.wait(0.01)
        assert recorder.control == Control(reason)
        recorder.record(RiskEvent(RiskEventType.KillSwitchDeactivated, None, time.time()))
        while recorder.unacked:
            recorder.wait(0.01)
        assert recorder.control == Control()


def test_without_a_writer_a_private_one_is_started_for_the_command(database: DatabasePaths, open_recorder: OpenRecorder) -> None:
    end(open_recorder())
    stop_writer(database)
    assert writer_pid(database) is None
    operator.command(database, command("trip"))
    assert rows(database, "SELECT kill_switch, kill_switch_by FROM strategy_controls") == [("it looks wrong", "alice")]
    eventually(lambda: writer_pid(database) is None, timeout_s=20, what="the private writer to leave")


def test_a_kill_switch_is_on_when_the_next_run_begins(database: DatabasePaths, open_recorder: OpenRecorder) -> None:
    end(open_recorder())
    operator.command(database, command("trip"))
    assert open_recorder().control == Control("it looks wrong"), "with the welcome, before the first cycle"


def test_controls_outlive_a_killed_writer(database: DatabasePaths, open_recorder: OpenRecorder) -> None:
    recorder = open_recorder()
    operator.command(database, command("trip"))
    hears(recorder, Control("it looks wrong"))
    kill_writer(database)
    recorder.record(fill(1))
    recorder.flush(20)
    operator.command(database, command("hold"))
    hears(recorder, Control("it looks wrong", "it looks wrong"))


def test_a_run_hears_what_a_writer_committed_and_was_killed_before_telling(
    database: DatabasePaths, open_recorder: OpenRecorder
) -> None:
    recorder = open_recorder()
    pid = a_writer_runs(database)
    link = Link(database, new_run_id(), "process", may_start_writer=False, clock=recorder._clock)
    try:
        assert link.command(command("trip"), 10.0)
        os.kill(pid, signal.SIGKILL)
    finally:
        link.close()
    assert rows(database, "SELECT kill_switch FROM strategy_controls") == [("it looks wrong",)]
    recorder._link.control = Control()  # as if the message had died with the writer
    kill_writer(database)
    recorder.record(fill(1))
    recorder.flush(20)
    hears(recorder, Control("it looks wrong"), timeout_s=5)


def test_a_command_that_nobody_confirmed_can_be_given_again(database: DatabasePaths, open_recorder: OpenRecorder) -> None:
    recorder = open_recorder()
    pid = a_writer_runs(database)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(LinkError, match=r"has not confirmed it within 0.5 s.*look whether it was done"):
            operator.command(database, command("trip"), timeout_s=0.5)
    finally:
        kill_writer(database)
    operator.command(database, command("trip"))
    hears(recorder, Control("it looks wrong"), timeout_s=5)
    assert len(actions(database)) == 1


def test_a_repeated_command_of_one_client_is_done_once(database: DatabasePaths, open_recorder: OpenRecorder) -> None:
    open_recorder()
    link = Link(database, new_run_id(), "process", may_start_writer=False, clock=open_recorder("taker")._clock)
    try:
        texts = {link.command(command("hold"), 10.0) for _ in range(5)}
    finally:
        link.close()
    assert len(texts) == 1
    assert len(actions(database)) == 1


@pytest.fixture
def supervised(database: DatabasePaths) -> Iterator[subprocess.Popen[bytes]]:
    process = start_writer(database)
    a_writer_runs(database)
    yield process
    process.kill()
    process.communicate()


def test_a_supervised_writer_does_it_itself(
    supervised: subprocess.Popen[bytes], database: DatabasePaths, open_recorder: OpenRecorder
) -> None:
    recorder = open_recorder(may_start_writer=False)
    operator.command(database, command("trip"))
    hears(recorder, Control("it looks wrong"))
    assert writer_pid(database) == supervised.pid


def test_a_strategy_under_the_supervisor_stops_trading_on_a_trip(tmp_path: Path) -> None:
    configure(tmp_path, "trader")
    up = Up(tmp_path)
    try:
        up.is_ready("trader")
        eventually(lambda: rows(up.paths, "SELECT 1 FROM fills LIMIT 1"), 20, what="a first fill")
        operator.command(up.paths, command("trip", "trader"))

        eventually(lambda: not rows(up.paths, "SELECT 1 FROM open_orders LIMIT 1"), 20, what="no open order")
        sent = rows(up.paths, "SELECT count(*) FROM order_events WHERE status = 'new'")
        for _ in range(10):  # a dozen of its cycles
            operator.command(up.paths, command("trip", "trader"))
        assert rows(up.paths, "SELECT count(*) FROM order_events WHERE status = 'new'") == sent
        assert up.pid_of("writer") == writer_pid(up.paths)
        assert up.stop() == 0
    finally:
        up.end()


def test_an_orphan_is_resolved_when_its_run_is_dead_and_not_before(database: DatabasePaths, open_recorder: OpenRecorder) -> None:
    recorder = open_recorder()
    recorder.record(order_event(1))
    recorder.flush(10)
    orphan = command("resolve_orphan", order_id="order-00000001", status="canceled")
    with pytest.raises(CommandRefused, match=f"belongs to run {recorder.run_id} of maker, which is running"):
        operator.command(database, orphan)
    die(recorder)
    eventually(lambda: not database.journals(), what="the dead run's journal to be drained")
    assert operator.command(database, orphan) == "order order-00000001 of maker is canceled"
    assert rows(database, "SELECT status, status_reason FROM order_events ORDER BY id DESC LIMIT 1") == [
        ("canceled", "resolved by alice: it looks wrong")
    ]
    assert not rows(database, "SELECT * FROM open_orders")


def test_a_dead_letter_is_replayed_or_dismissed_while_others_trade(database: DatabasePaths, open_recorder: OpenRecorder) -> None:
    recorder = open_recorder("maker")
    recorder.record(fill(1))
    recorder.flush(10)
    recorder.begin_cycle()  # else the first of them may be heard of while the second is recorded
    amended = recorder.record(fill(1, fee=0.5))
    conflict = recorder.record(fill(1, price=7.0))
    with pytest.raises(Halt):
        recorder.flush(10)
    trading = open_recorder("taker")
    letter = {"run_id": recorder.run_id, "seq": str(amended)}
    with pytest.raises(CommandRefused, match="maker is running"):
        operator.command(database, command("replay", **letter))
    recorder.close()
    eventually(lambda: len(database.journals()) == 1, what="the halted run's journal to be drained")
    assert operator.command(database, command("replay", **letter)).startswith("amended")
    assert rows(database, "SELECT fee FROM fills") == [(0.5,)]
    letter["seq"] = str(conflict)
    with pytest.raises(CommandRefused, match="Ask the venue"):
        operator.command(database, command("replay", **letter))
    operator.command(database, command("dismiss", **letter))
    decided = "SELECT seq, replayed_at IS NOT NULL, dismissed_by FROM dead_letters ORDER BY seq"
    assert rows(DatabasePaths(database.dead_letters, database.folder), decided) == [(amended, 1, None), (conflict, 0, "alice")]
    trading.record(fill(2))
    trading.flush(10)


def test_a_gap_holds_the_strategy_that_lost_records_until_it_is_accepted(
    database: DatabasePaths, open_recorder: OpenRecorder
) -> None:
    first = open_recorder()
    kill_writer(database)
    for number in range(1, 4):
        first.record(fill(number))
    die(first)
    journal = database.journal(first.run_id)
    data = bytearray(journal.read_bytes())
    data[data.index(b"fill-00000002")] ^= 1
    journal.write_bytes(data)
    second = open_recorder()
    held = f"records 3 to 3 of run {first.run_id} are missing, and nobody has accepted that"
    assert second.control == Control(None, held)
    operator.command(database, command("accept_gap", run_id=first.run_id))
    hears(second, Control())


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (command("trip", "makre"), "no strategy named 'makre' has run on this database; known are: maker"),
        (command("reboot"), "the writer knows no command 'reboot'"),
        (Command("trip", "maker", "", "why"), r"trip needs a name \(who\)"),
        (Command("trip", "maker", "alice", "why", {}, 99), r"speaks protocol 1 and the command 99"),
        (command("replay", run_id="run", seq="1"), "record 1 of run run is no dead letter"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_sentence_and_changes_nothing(
    message: Command, sentence: str, database: DatabasePaths, open_recorder: OpenRecorder
) -> None:
    open_recorder()
    with pytest.raises(CommandRefused, match=sentence):
        operator.command(database, message)
    assert actions(database) == []


def test_a_command_that_has_to_wait_says_why(database: DatabasePaths, open_recorder: OpenRecorder) -> None:
    recorder = open_recorder()
    locker = apsw.Connection(str(database.database))
    locker.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(LinkError, match=r"has not confirmed it within 8 s \(.*locked.*it is tried again\)"):
            operator.command(database, command("trip"), timeout_s=8)
    finally:
        locker.execute("ROLLBACK")
        locker.close()
    operator.command(database, command("trip"))
    hears(recorder, Control("it looks wrong"))


def test_a_command_that_lay_in_a_queue_until_nobody_waited_is_not_begun(
    database: DatabasePaths, open_recorder: OpenRecorder
) -> None:
    recorder = open_recorder()
    pid = a_writer_runs(database)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(LinkError):
            operator.command(database, command("release"), timeout_s=0.5)
    finally:
        os.kill(pid, signal.SIGCONT)
    operator.command(database, command("hold"))
    hears(recorder, Control(None, "it looks wrong"))
    assert [action for _, action, _, _ in actions(database)] == ["hold"]


def test_a_command_for_a_database_that_is_not_there_makes_none(database: DatabasePaths) -> None:
    with pytest.raises(StoreError, match="there is no database at"):
        operator.command(database, command("trip"))
    assert not database.database.exists()
    assert not database.folder.exists()


def test_a_command_on_what_is_no_database_is_answered_with_the_reason(database: DatabasePaths) -> None:
    database.database.write_bytes(b"not a database at all, but long enough to look at" * 40)
    with pytest.raises(StoreError, match="is not an SQLite database"):
        operator.command(database, command("trip"))
