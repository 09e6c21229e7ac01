"""Journals and databases that do not belong together (R12 to R14), and a run that does not know all fills of its strategy (R2)."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest
from engines import LOOSE
from eventually import eventually
from road import a_writer_runs, kill_writer, rows, start_writer, writer_pid
from samples import fill
from store_case import fate_of_every_seq

from horizon.engine import Engine
from horizon.errors import AckTimeout, Halt, RiskError, StoreError
from horizon.paths import DatabasePaths
from horizon.recorder import Recorder
from horizon.records import OrderRequest, OrderSide, RunStarted, Side

OpenRecorder = Callable[..., Recorder]


@pytest.fixture
def open_recorder() -> Iterator[OpenRecorder]:
    """Recorder.open, and the close at the end of the test."""
    opened: list[Recorder] = []

    def open_one(*arguments: Any, **options: Any) -> Recorder:
        recorder = Recorder.open(*arguments, **options)
        recorder.record(RunStarted(recorder.strategy, "paper", time.time(), None, os.getpid()))
        recorder.flush(10)
        opened.append(recorder)
        return recorder

    yield open_one
    for recorder in opened:
        recorder.close()


def die_unheard(recorder: Recorder, *numbers: int) -> None:
    """Record fills that no writer hears of, and die: the strategy's lock is free, the journal is left."""
    recorder._link._may_start_writer = False
    kill_writer(recorder.paths)
    for number in numbers:
        recorder.record(fill(number))
    recorder._lock.abandon()


def back_up(database: DatabasePaths, copy: Path) -> None:
    with (
        closing(apsw.Connection(str(database.database), flags=apsw.SQLITE_OPEN_READONLY)) as source,
        closing(apsw.Connection(str(copy))) as target,
        target.backup("main", source, "main") as copying,
    ):
        copying.step()


def stored(database: DatabasePaths) -> list[int]:
    return [int(fill_id[-8:]) for (fill_id,) in rows(database, "SELECT fill_id FROM fills ORDER BY commit_no")]


# ---- R2


def test_a_run_that_does_not_know_all_fills_halts_and_the_next_one_is_right(
    database: DatabasePaths, open_recorder: OpenRecorder, tmp_path: Path
) -> None:
    """R2: a journal that somebody had moved away comes back while a newer run of the strategy trades."""
    old = open_recorder(database, "maker")
    die_unheard(old, 1)
    journal = Path(old.journal_path)
    aside = tmp_path / journal.name
    journal.rename(aside)
    # Given a newer run, which has recovered without what lies in that journal
    engine = Engine(LOOSE, db_path=database.database, strategy="maker")
    engine.start_run("maker")
    engine.process_fill(fill(2, order_side=fill(1).order_side))
    engine.flush()
    # When the writer finds the journal
    aside.rename(journal)
    eventually(lambda: stored(database) == [2, 1], what="the old fill")
    # Then the newer run may store no snapshot, and ends
    engine.snapshot_positions()
    with pytest.raises(Halt, match="fills of another run of maker were committed; the run stops and recovers"):
        engine.flush()
    engine.close()
    assert rows(database, "SELECT count(*) FROM position_snapshots") == [(0,)]
    assert rows(database, "SELECT snapshots_refused FROM run_cursors ORDER BY run_id") == [(0,), (1,)]
    # And the next one begins with both
    with Engine(LOOSE, db_path=database.database, strategy="maker") as following:
        assert following.recover_state() == 1
        assert following.positions()[0].size == 0.2


# ---- R12


def test_a_second_name_of_the_file_is_no_second_database(database: DatabasePaths, open_recorder: OpenRecorder) -> None:
    """R12: a symbolic link is followed, a hard link is refused before anything is written."""
    recorder = open_recorder(database, "maker")
    recorder.record(fill(1))
    recorder.flush(10)
    link = database.database.with_name("link.db")
    link.symlink_to(database.database)
    assert DatabasePaths.of(link) == database
    recorder.close()
    kill_writer(database)
    hard = database.database.with_name("hard.db")
    os.link(database.database, hard)
    with pytest.raises(StoreError, match="has several names"):
        Recorder.open(DatabasePaths.of(hard), "maker", timeout_s=5)
    assert rows(database, "SELECT count(*) FROM fills") == [(1,)]


def test_a_lock_file_that_was_deleted_under_the_writer_stops_the_acks(
    database: DatabasePaths, open_recorder: OpenRecorder
) -> None:
    """R12: whoever made a new lock file could own the database too."""
    writer = start_writer(database)
    recorder = open_recorder(database, "maker", may_start_writer=False)
    database.writer_lock.unlink()
    recorder.record(fill(1))
    with pytest.raises(AckTimeout):
        recorder.flush(0.5)
    assert writer.wait(10) == 5
    assert b"was moved, replaced or deleted under the running writer" in writer.communicate()[1]
    assert stored(database) == []


# ---- R13


@pytest.mark.parametrize("since", [10, 20_000], ids=["journal still has all", "journal has the newest only"])
def test_a_restored_backup_takes_what_the_journals_still_have_and_names_what_is_missing(
    database: DatabasePaths, open_recorder: OpenRecorder, tmp_path: Path, since: int
) -> None:
    """R13: the database is older than the journal beside it, whose space is used again once it is acknowledged."""
    backup = tmp_path / "backup.db"
    recorder = open_recorder(database, "maker", journal_bytes=2 << 20)
    for number in range(1, 11):
        recorder.record(fill(number))
    recorder.flush(10)
    back_up(database, backup)
    # Given records that were acknowledged after the backup, and some that no writer heard of
    last = 10 + since
    for number in range(11, last + 1):
        recorder.record(fill(number))
        if number % 1000 == 0:
            recorder.flush(10)
    recorder.flush(10)
    die_unheard(recorder, *range(last + 1, last + 11))
    # When the backup takes the database's place
    for suffix in ("", "-wal", "-shm"):
        database.database.with_name(database.database.name + suffix).unlink(missing_ok=True)
    shutil.copy(backup, database.database)
    following = open_recorder(database, "maker")
    # Then every seq is a row or in the one gap, and nothing that the journal still had is missing
    gaps = rows(database, "SELECT run_id, from_seq, to_seq, reason FROM run_gaps")
    missing = 0
    if since > 10:
        ((run_id, first, to, reason),) = gaps
        assert (run_id, first) == (recorder.run_id, 12)
        assert "the database is older than the journal" in reason
        assert "are missing" in database.writer_log.read_text(), "and somebody is told"
        missing = to - first + 1
    assert stored(database) == [*range(1, 11), *range(11 + missing, last + 11)]
    assert missing < since, "what was acknowledged and not overwritten is stored again"
    fates = fate_of_every_seq(database, recorder.run_id)
    assert sorted(fates) == list(range(1, last + 12))
    assert all(len(fate) == 1 for fate in fates.values())
    assert rows(database, "SELECT status FROM strategy_runs WHERE run_id = ?", recorder.run_id) == [("died",)]
    # And a new commit goes on behind it all
    following.record(fill(last + 11))
    following.flush(10)
    assert stored(database)[-1] == last + 11
    following.close()
    # And while something is missing nobody orders on what is left
    with Engine(LOOSE, db_path=database.database, strategy="maker") as engine:
        order = OrderRequest("btc-usd", Side.Long, OrderSide.Buy, 1.0, 100.0)
        if missing:
            with pytest.raises(RiskError, match="hold"):
                engine.submit_order(order)
        else:
            assert engine.submit_order(order)


def test_a_deleted_database_is_not_made_anew_and_comes_back_with_its_file(
    database: DatabasePaths, open_recorder: OpenRecorder, tmp_path: Path
) -> None:
    """R13: a writer creates a database only where no journal is left."""
    recorder = open_recorder(database, "maker")
    recorder.record(fill(1))
    recorder.flush(10)
    die_unheard(recorder, 2)
    names = [database.database.name + suffix for suffix in ("", "-wal", "-shm")]
    for name in names:
        with suppress(FileNotFoundError):
            database.database.with_name(name).rename(tmp_path / f"kept-{name}")
    for strategy in ("maker", "another"):
        with pytest.raises(StoreError, match=r"is missing, but .*\.d holds journals"):
            Recorder.open(database, strategy)
    eventually(lambda: writer_pid(database) is None)
    assert not database.database.exists()
    for name in names:
        with suppress(FileNotFoundError):
            (tmp_path / f"kept-{name}").rename(database.database.with_name(name))
    open_recorder(database, "maker")
    assert stored(database) == [1, 2]


def test_a_database_with_the_journals_of_another_one_reports_them_and_works(
    database: DatabasePaths, open_recorder: OpenRecorder
) -> None:
    """R13: the whole folder of another database lies here, as after a copy of the wrong folder."""
    other = DatabasePaths.of(database.database.with_name("other.db"))
    strange = open_recorder(other, "maker")
    die_unheard(strange, 7)
    open_recorder(database, "taker").close()
    kill_writer(database)
    foreign = database.folder / Path(strange.journal_path).name
    shutil.copy(strange.journal_path, foreign)
    recorder = open_recorder(database, "maker")
    recorder.record(fill(1))
    recorder.flush(10)
    assert stored(database) == [1]
    assert "belongs to another database" in database.writer_log.read_text()
    assert foreign.exists()
    # And where it belongs it is drained
    open_recorder(other, "maker")
    assert stored(other) == [7]


# ---- R14


def test_the_journal_of_a_renamed_strategy_is_drained_under_its_old_name(
    database: DatabasePaths, open_recorder: OpenRecorder
) -> None:
    """R14: a writer drains every journal whose strategy's lock is free before it is ready, whoever starts."""
    recorder = open_recorder(database, "old-name")
    die_unheard(recorder, 1, 2)
    open_recorder(database, "new-name")
    assert rows(database, "SELECT strategy, count(*) FROM fills GROUP BY strategy") == [("old-name", 2)]
    assert rows(database, "SELECT status FROM strategy_runs WHERE strategy = 'old-name'") == [("died",)]
    assert not Path(recorder.journal_path).exists()
    with Engine(db_path=database.database, strategy="new-name-2") as engine:
        assert engine.recover_state() == 0, "what the old name held is not the new one's"


def test_a_strategy_that_is_killed_while_its_writer_lives_is_drained_within_seconds(
    database: DatabasePaths, open_recorder: OpenRecorder
) -> None:
    """R14: journals are found by listing the folder, never from messages."""
    keeper = open_recorder(database, "keeper")
    writer = a_writer_runs(database)
    recorder = open_recorder(database, "maker")
    os.kill(writer, signal.SIGSTOP)
    recorder._link._send = lambda data: None  # type: ignore[method-assign]
    for number in range(1, 101):
        recorder.record(fill(number))
    recorder._lock.abandon()
    os.kill(writer, signal.SIGCONT)
    eventually(lambda: not Path(recorder.journal_path).exists(), what="the dead run's journal to be drained")
    assert stored(database) == list(range(1, 101))
    assert Path(keeper.journal_path).exists()
