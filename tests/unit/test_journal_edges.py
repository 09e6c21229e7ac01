"""The journal and its reading where things go wrong: damage in what is committed, half-made files, a reader that looks in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from samples import fill

from horizon.clock import SYSTEM_CLOCK
from horizon.errors import ForeignJournal, JournalError
from horizon.ids import strategy_lock_name
from horizon.journal import About, Journal, JournalReader
from horizon.locks import FileLock
from horizon.paths import DatabasePaths
from horizon.records import PositionRow, PositionSnapshot, Side
from horizon.store.append import Store, Stretch
from horizon.wire import FRAME_MAX_BYTES, decode_record
from horizon.writer.batch import Batch, Run
from horizon.writer.catchup import drained, open_run, read_missing

CAPACITY = 2 << 20


@pytest.fixture
def store(database: DatabasePaths) -> Iterator[Store]:
    store = Store(database, "process", SYSTEM_CLOCK)
    yield store
    store.close()


@pytest.fixture
def journal(database: DatabasePaths, store: Store) -> Journal:
    """Of a run that is dead: nobody holds the lock of its strategy."""
    lock = FileLock(database.strategy_lock("maker"))
    assert lock.take()
    lock.release()
    return Journal(database.journal("run-1"), About(store.database_id, "run-1", "maker", "process", 1), CAPACITY)


def record(journal: Journal, first: int, last: int) -> list[int]:
    """Append fills and return where each ends."""
    return [journal.head for number in range(first, last + 1) if journal.append(fill(number))]


def commit(store: Store, first: int, last: int) -> None:
    store.append([Stretch("run-1", "maker", seq, [b""], [fill(seq)]) for seq in range(first, last + 1)])


def spoil(journal: Journal, start: int, end: int) -> None:
    with journal.path.open("r+b") as file:
        file.seek(4096 + start)
        file.write(b"\xee" * (end - start))


def read_all(run: Run) -> list[int]:
    """The seqs that a writer would commit; gaps are stored when all before them is."""
    seqs: list[int] = []
    while True:
        batch = Batch()
        read_missing(run, batch)
        seqs += [seq for stretch in batch.stretches for seq in stretch.seqs]
        run.advance()
        if run.gap is None:
            return seqs
        run.step_over(run.gap)


def test_damage_right_behind_the_cursor_is_one_gap(journal: Journal, store: Store) -> None:
    ends = record(journal, 1, 100)
    commit(store, 1, 50)
    spoil(journal, ends[49], ends[50])
    run = open_run(journal.path, store)
    read_missing(run, Batch())
    assert run.gap is not None
    assert (run.gap.from_seq, run.gap.to_seq) == (51, 51)
    assert run.taken <= run.committed, "nothing stands between the cursor and the gap"
    assert read_all(run) == list(range(52, 101))
    assert drained(run)


def test_damage_of_committed_records_loses_only_what_was_not_committed(journal: Journal, store: Store) -> None:
    ends = record(journal, 1, 100)
    commit(store, 1, 50)
    spoil(journal, ends[29], ends[59])
    run = open_run(journal.path, store)
    read_missing(run, Batch())
    assert run.gap is not None
    assert (run.gap.from_seq, run.gap.to_seq) == (51, 60)
    assert read_all(run) == list(range(61, 101))


def test_damage_of_nothing_but_committed_records_is_no_gap(journal: Journal, store: Store) -> None:
    ends = record(journal, 1, 50)
    commit(store, 1, 50)
    spoil(journal, ends[29], ends[49])
    run = open_run(journal.path, store)
    assert read_all(run) == []
    assert drained(run)
    assert not run.damaged


def test_damage_before_what_is_missing_costs_nothing(journal: Journal, store: Store) -> None:
    ends = record(journal, 1, 100)
    commit(store, 1, 50)
    spoil(journal, ends[9], ends[19])
    run = open_run(journal.path, store)
    assert read_all(run) == list(range(51, 101))
    assert not run.damaged


def test_a_gap_at_the_cursor_outlives_a_failed_commit(journal: Journal, store: Store) -> None:
    """R13, R19: the journal is older than the database says: all of it is trimmed, so nothing in it would bring the gap back."""
    record(journal, 1, 10)
    journal.trim(10)
    commit(store, 1, 4)
    spoil(journal, 0, journal.head)
    run = open_run(journal.path, store)
    run.rewind()
    assert run.gap is not None
    assert (run.gap.from_seq, run.gap.to_seq) == (5, 10)
    assert not drained(run)


def test_what_a_live_run_records_during_the_search_is_not_taken_for_a_gap(
    database: DatabasePaths, journal: Journal, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = FileLock(database.strategy_lock("maker"))
    assert lock.take()
    ends = record(journal, 1, 20)
    commit(store, 1, 10)
    spoil(journal, ends[14], ends[19])
    run = open_run(journal.path, store)
    search = JournalReader.find

    def find_while_the_run_records(self: JournalReader, seq: int) -> int | None:
        monkeypatch.setattr(JournalReader, "find", search)
        place = search(self, seq)
        record(journal, 21, 30)
        return place

    monkeypatch.setattr(JournalReader, "find", find_while_the_run_records)
    assert read_all(run) == [11, 12, 13, 14, 15, *range(21, 31)]
    lock.release()


def test_a_journal_without_its_lock_file_is_taken_for_a_living_one(
    database: DatabasePaths, journal: Journal, store: Store
) -> None:
    """R10."""
    record(journal, 1, 3)
    database.strategy_lock("maker").unlink()
    run = open_run(journal.path, store)
    assert not run.dead
    assert not drained(run)


def test_a_copy_of_a_journal_is_not_taken_for_the_run(journal: Journal, store: Store) -> None:
    record(journal, 1, 3)
    copy = journal.path.with_name("backup.journal")
    copy.write_bytes(journal.path.read_bytes())
    with pytest.raises(ForeignJournal, match="copy of the journal of run run-1"):
        open_run(copy, store)


def test_a_half_made_journal_is_made_anew_by_the_next_run(tmp_path: Path) -> None:
    about = About("database-id", "run-2", "maker", "process", 1)
    left = tmp_path / f".{strategy_lock_name('maker')}.journal.new"
    left.write_bytes(b"left by a run that was killed here" * 1000)
    journal = Journal(tmp_path / "run-2.journal", about, CAPACITY)
    journal.append(fill(1))
    reading = JournalReader(journal.path).read(0, 1, dead=True)
    assert [decode_record(payload) for payload in reading.frames.payloads] == [fill(1)]
    assert list(tmp_path.iterdir()) == [journal.path]


def test_a_name_that_does_not_fit_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="too long"):
        Journal(tmp_path / "run-1.journal", About("database-id", "run-1", "x" * 5000, "process", 1), CAPACITY)
    assert not list(tmp_path.iterdir())


def test_a_reader_never_sees_a_seq_whose_frame_lies_behind_the_head(tmp_path: Path) -> None:
    """Between any two stores of the worker: what the words say is there, and a dead run's last frame is found in either case."""
    journal = Journal(tmp_path / "run-1.journal", About("database-id", "run-1", "maker", "process", 1), CAPACITY)
    record(journal, 1, 5)
    reader = JournalReader(journal.path)
    seen: list[tuple[int, int]] = []

    class Watched:
        def __init__(self, words: memoryview) -> None:
            self.words = words

        def __setitem__(self, index: int, value: int) -> None:
            self.words[index] = value
            seen.append((reader.head_seq, len(reader.read(0, 1, dead=False).frames.payloads)))

    journal._words = Watched(journal._words)  # type: ignore[assignment]
    journal.append(fill(6))
    assert seen == [(5, 6), (6, 6)]


@pytest.mark.parametrize("max_bytes", [1, 100, 1 << 20])
def test_a_frame_of_the_largest_size_is_read_whatever_a_reading_may_take(tmp_path: Path, max_bytes: int) -> None:
    rows = [PositionRow(f"{number:04d}" + "m" * 4000, Side.Long, "paper", None, "1", "1", "0", "0", "0") for number in range(259)]
    snapshot = PositionSnapshot(1.0, tuple(rows))
    journal = Journal(tmp_path / "run-1.journal", About("database-id", "run-1", "maker", "process", 1), CAPACITY)
    for _ in range(7):
        journal.append(snapshot)
        reading = JournalReader(journal.path).read(journal.tail, journal.acked_seq + 1, dead=False, max_bytes=max_bytes)
        assert [decode_record(payload) for payload in reading.frames.payloads] == [snapshot]
        assert len(reading.frames.payloads[0]) > FRAME_MAX_BYTES * 0.9
        journal.trim(journal.last_seq)
