"""The commands that write, through a real writer: with a strategy that records, and with nobody there."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import pytest
from eventually import eventually
from road import a_writer_runs, dead_letters, kill_writer, rows, script, stop_writer
from samples import fill, order_event

from horizon.__main__ import main
from horizon.errors import ExitCode
from horizon.journal import About, Journal
from horizon.locks import FileLock, is_free
from horizon.paths import DatabasePaths
from horizon.positions import Book
from horizon.recorder import Recorder
from horizon.records import FillConflict, PositionSnapshot, RunStarted
from horizon.store.journals import committed_seqs, left_in

DECIDED = ("--who", "ann", "--reason", "as agreed", "--yes")


@pytest.fixture(autouse=True)
def named(database: DatabasePaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HORIZON_DB", str(database.database))


def start(database: DatabasePaths, strategy: str = "maker") -> Recorder:
    recorder = Recorder.open(database, strategy)
    recorder.record(RunStarted(strategy, "paper", 1.0, None, os.getpid()))
    return recorder


def has_fills(database: DatabasePaths) -> bool:
    with suppress(apsw.Error):  # not made yet, or not finished
        return bool(rows(database, "SELECT 1 FROM fills LIMIT 1"))
    return False


def answer(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = ExitCode.DONE) -> Any:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == code, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_a_backup_is_consistent_while_a_strategy_records(database: DatabasePaths, tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, script("recording.py"), str(database.database), "maker", "1000000", "0.0005"])
    try:
        eventually(lambda: has_fills(database), what="the first fill")
        for number in range(3):
            done = subprocess.run(
                [sys.executable, "-m", "horizon", "db", "backup", str(tmp_path / f"copy-{number}.db"), "--json"],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            made = json.loads(done.stdout)
            assert (made["report"]["findings"], made["not_in_it"], done.returncode) == ([], [], ExitCode.DONE)
            assert made["report"]["fills"] > 0
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_check_finds_nothing_wrong_beside_a_strategy_that_records(
    database: DatabasePaths, capsys: pytest.CaptureFixture[str]
) -> None:
    process = subprocess.Popen([sys.executable, script("recording.py"), str(database.database), "maker", "1000000", "0.0005"])
    try:
        eventually(lambda: has_fills(database), what="the first fill")
        for _ in range(3):
            report = answer(capsys, "db", "check")
            assert report["findings"] == []
    finally:
        process.kill()
        process.wait()


def test_restore_is_refused_while_a_writer_owns_the_database(
    database: DatabasePaths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = start(database)
    recorder.flush(10)
    copy = str(tmp_path / "copy.db")
    assert main(["db", "backup", copy]) == ExitCode.DONE
    recorder.record(fill(1))
    recorder.flush(10)

    assert main(["db", "restore", copy, "--yes"]) == ExitCode.STORE
    assert "a writer owns" in capsys.readouterr().err
    recorder.close()
    eventually(lambda: not database.journals(), what="a drained journal")
    stop_writer(database)
    eventually(lambda: is_free(database.writer_lock))
    assert main(["db", "restore", copy, "--yes"]) == ExitCode.DONE
    assert rows(database, "SELECT count(*) FROM fills") == [(0,)]


def test_the_kill_switch_is_tripped_and_cleared_and_it_is_recorded_who_did_it_and_why(
    database: DatabasePaths, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = start(database)
    recorder.flush(10)
    assert "is on: as agreed" in answer(capsys, "kill-switch", "trip", "--strategy", "maker", *DECIDED[:4])[0]["done"]
    shown = answer(capsys, "kill-switch", "show")[0]
    assert (shown["strategy"], shown["kill_switch"], shown["kill_switch_by"]) == ("maker", "as agreed", "ann")
    assert main(["kill-switch", "show"]) == ExitCode.DONE
    assert "maker" in capsys.readouterr().out

    recorder.close()
    stop_writer(database)  # cleared by nobody's strategy: a private writer comes and goes for it
    assert main(["kill-switch", "clear", "--all", *DECIDED]) == ExitCode.DONE
    assert answer(capsys, "kill-switch", "show")[0]["kill_switch"] is None
    assert rows(database, "SELECT who, action, strategy, reason FROM operator_actions ORDER BY at") == [
        ("ann", "trip", "maker", "as agreed"),
        ("ann", "clear", "maker", "as agreed"),
    ]


def test_a_command_names_the_user_and_the_host_unless_told_otherwise(database: DatabasePaths) -> None:
    start(database).close()
    eventually(lambda: not database.journals(), what="a drained journal")
    assert main(["kill-switch", "trip", "--strategy", "maker", "--reason", "x"]) == ExitCode.DONE
    ((who,),) = rows(database, "SELECT who FROM operator_actions")
    user, _, host = who.partition("@")
    assert user
    assert host == os.uname().nodename


def test_a_misspelled_strategy_is_refused(database: DatabasePaths, capsys: pytest.CaptureFixture[str]) -> None:
    recorder = start(database)
    recorder.flush(10)
    assert main(["kill-switch", "trip", "--strategy", "makre", "--reason", "x"]) == ExitCode.USAGE
    assert "known are: maker" in capsys.readouterr().err
    recorder.close()


def test_destructive_commands_want_yes_where_nobody_can_be_asked(
    database: DatabasePaths, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    start(database).close()
    eventually(lambda: not database.journals(), what="a drained journal")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    reason = ("--reason", "x")
    for arguments in (
        ("kill-switch", "clear", "--strategy", "maker", *reason),
        ("journal", "accept-gap", "run", *reason),
        ("dlq", "replay", "run", "1", *reason),
        ("dlq", "dismiss", "run", "1", *reason),
        ("orphans", "resolve", "order", "--status", "canceled", *reason),
        ("orphans", "release", "--strategy", "maker", *reason),
    ):
        assert main(arguments) == ExitCode.USAGE
        out, err = capsys.readouterr()
        assert (out, "say --yes" in err) == ("", True)
    assert rows(database, "SELECT * FROM operator_actions") == []


def test_a_dead_letter_is_listed_shown_and_dismissed(database: DatabasePaths, capsys: pytest.CaptureFixture[str]) -> None:
    recorder = start(database)
    recorder.record(fill(1))
    seq = str(recorder.record(FillConflict(fill(1, price=7.0))))
    recorder.ship()
    eventually(lambda: database.dead_letters.exists() and dead_letters(database), what="a dead letter")

    listed = answer(capsys, "dlq", "list")[0]
    assert (listed["run_id"], listed["seq"], listed["kind"]) == (recorder.run_id, int(seq), "conflict")
    shown = answer(capsys, "dlq", "show", recorder.run_id, seq)
    assert shown["record"]["fill"]["price"] == 7.0
    assert main(["dlq", "show", recorder.run_id, seq]) == ExitCode.DONE
    assert main(["dlq", "list"]) == ExitCode.DONE
    assert (
        main(["dlq", "replay", recorder.run_id, seq, *DECIDED]) == ExitCode.USAGE
    )  # two executions: nobody chooses for a person
    assert "cannot be replayed" in capsys.readouterr().err
    assert main(["dlq", "dismiss", recorder.run_id, seq, *DECIDED]) == ExitCode.DONE
    assert answer(capsys, "dlq", "list") == []
    assert answer(capsys, "dlq", "list", "--all")[0]["dismissed_by"] == "ann"
    assert answer(capsys, "db", "check")["findings"] == []
    recorder.close()


def test_what_a_venue_corrected_is_replayed_and_the_check_knows_of_it(
    database: DatabasePaths, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = start(database)
    recorder.record(fill(1))
    recorder.record(PositionSnapshot(2.0, Book.restore((), (fill(1),)).snapshot()))
    seq = str(recorder.record(FillConflict(fill(1, fee=0.5))))
    recorder.close()
    eventually(lambda: database.dead_letters.exists() and not database.journals(), what="a drained journal")
    assert answer(capsys, "db", "check")["snapshots"] == 2

    assert main(["dlq", "replay", recorder.run_id, seq, *DECIDED]) == ExitCode.DONE
    assert rows(database, "SELECT fee FROM fills") == [(0.5,)]
    report = answer(capsys, "db", "check")
    assert (report["findings"], report["snapshots"]) == ([], 0)
    assert "from before a dead letter was replayed, not compared: 1" in report["remarks"][0]


def test_an_order_that_a_dead_run_left_open_is_an_orphan_until_it_is_resolved(
    database: DatabasePaths, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = start(database)
    recorder.record(order_event(1))
    recorder.flush(10)
    assert answer(capsys, "orphans", "list") == []  # its run lives
    recorder.close()
    eventually(lambda: not database.journals(), what="a drained journal")
    (orphan,) = answer(capsys, "orphans", "list")
    assert main(["orphans", "list"]) == ExitCode.DONE
    assert main(["orphans", "resolve", orphan["order_id"], "--status", "canceled", *DECIDED]) == ExitCode.DONE
    assert answer(capsys, "orphans", "list") == []
    assert rows(database, "SELECT status, status_reason FROM order_events ORDER BY id DESC LIMIT 1") == [
        ("canceled", "resolved by ann: as agreed")
    ]
    assert answer(capsys, "db", "check")["findings"] == []
    assert main(["orphans", "release", "--strategy", "maker", *DECIDED]) == ExitCode.DONE


def test_a_left_over_journal_is_listed_shown_and_drained_without_any_strategy(
    database: DatabasePaths, capsys: pytest.CaptureFixture[str]
) -> None:
    process = subprocess.Popen([sys.executable, script("recording.py"), str(database.database), "maker", "1000000", "0.001"])
    eventually(lambda: has_fills(database), what="the first fill")
    os.kill(a_writer_runs(database), signal.SIGSTOP)  # from here on nothing is acknowledged
    eventually(lambda: left_in(database, committed_seqs(database))[0].unacked > 5, what="records that wait")
    process.kill()
    process.wait()
    kill_writer(database)

    (listed,) = answer(capsys, "journal", "list")
    assert (listed["strategy"], listed["state"]) == ("maker", "left over")
    assert main(["journal", "list"]) == ExitCode.DONE
    shown = answer(capsys, "journal", "show", listed["run_id"])
    assert main(["journal", "show", listed["run_id"][-8:]]) == ExitCode.DONE
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert lines == shown
    assert {line["kind"] for line in lines} >= {"Fill", "OrderEvent"}

    drained = answer(capsys, "journal", "drain")
    assert drained == {"drained": [listed["run_id"]], "left": []}
    assert answer(capsys, "journal", "list") == []
    assert answer(capsys, "db", "check")["findings"] == []


def test_a_gap_is_found_named_and_accepted(database: DatabasePaths, capsys: pytest.CaptureFixture[str]) -> None:
    recorder = start(database)
    recorder.flush(10)
    recorder.close()
    eventually(lambda: not database.journals(), what="a drained journal")
    stop_writer(database)
    eventually(lambda: is_free(database.writer_lock))
    _leave_journal_without_its_beginning(database)
    assert main(["journal", "drain"]) == ExitCode.DONE

    assert main(["db", "check"]) == ExitCode.FINDINGS
    assert "`horizon journal accept-gap run-torn --reason WHY`" in capsys.readouterr().out
    assert "are missing" in answer(capsys, "kill-switch", "show")[-1]["hold"]
    assert main(["journal", "accept-gap", "run-torn", *DECIDED]) == ExitCode.DONE
    assert answer(capsys, "db", "check")["findings"] == []
    assert answer(capsys, "kill-switch", "show")[-1]["hold"] is None


def _leave_journal_without_its_beginning(database: DatabasePaths) -> None:
    ((database_id,),) = rows(database, "SELECT value FROM horizon_meta WHERE key = 'database_id'")
    lock = FileLock(database.strategy_lock("torn"))
    assert lock.take("pid=1")
    journal = Journal(database.journal("run-torn"), About(database_id, "run-torn", "torn", "process", 1), 2 << 20)
    for number in range(1, 6):
        journal.append(fill(number))
    journal.trim(3)
    journal.close()
    with journal.path.open("r+b") as file:  # as if newer records had been written over them
        file.seek(4096)
        file.write(bytes(journal.tail))
    lock.release()
