"""What append promises when the database cannot be written: nothing half done, and the next try is as good as the first."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest
from store_case import Run, fate_of_every_seq, fill, order_event, rows

from horizon.errors import ConfigError, StoreError, StoreStalled
from horizon.paths import DatabasePaths
from horizon.store.append import Store


def fill_the_disk(store: Store) -> None:
    """Let the database not grow by a page more, which SQLite reports as a full disk."""
    connection = store._connection
    connection.pragma("max_page_count", connection.pragma("page_count"))


def make_room(store: Store) -> None:
    store._connection.pragma("max_page_count", 1 << 30)


def fail_the_commit(store: Store, error: Exception) -> None:
    """Let the next commit of the trading database fail, as a sync may."""

    errors = [error]

    def hook() -> bool:
        if errors:
            raise errors.pop()
        return False

    store._connection.set_commit_hook(hook)


def content(paths: DatabasePaths) -> list[tuple[object, ...]]:
    tables = ("fills", "order_events", "open_orders", "run_cursors", "horizon_meta")
    return [row for table in tables for row in rows(paths.database, f"SELECT * FROM {table}")]


def test_a_full_disk_leaves_nothing_half_done_and_the_same_batch_fits_when_there_is_room(
    store: Store, paths: DatabasePaths
) -> None:
    run = Run()
    store.append(run.entries(fill("f-0"), order_event("o-0")))
    before = content(paths)
    entries = run.entries(*(fill(f"f-{n}") for n in range(1, 500)), None, *(order_event(f"o-{n}") for n in range(1, 500)))
    fill_the_disk(store)
    for _ in range(2):
        with pytest.raises(StoreStalled, match=r"there is no room left on the disk of .*x\.db"):
            store.append(entries)
        assert content(paths) == before
        assert store.cursor("run-1") == 2
    make_room(store)
    assert store.append(entries).committed == {"run-1": run.seq}
    assert all(len(fates) == 1 for fates in fate_of_every_seq(paths, "run-1").values())


def test_a_full_disk_in_the_middle_of_a_batch_that_goes_record_by_record_leaves_nothing(
    store: Store, paths: DatabasePaths
) -> None:
    run = Run()
    store.append(run.entries(fill("f-0")))
    before = content(paths)
    fill_the_disk(store)
    entries = run.entries(fill("f-0"), *(fill(f"f-{n}") for n in range(1, 500)))
    with pytest.raises(StoreStalled):
        store.append(entries)
    assert content(paths) == before
    make_room(store)
    assert store.append(entries).rows == {"duplicate": 1, "fill": 499}


def test_a_locked_database_is_waited_for(store: Store, paths: DatabasePaths) -> None:
    store._connection.set_busy_timeout(1)
    other = apsw.Connection(str(paths.database))
    other.execute("BEGIN IMMEDIATE")
    entries = Run().entries(fill("f-1"))
    with pytest.raises(StoreStalled, match="locked"):
        store.append(entries)
    other.execute("COMMIT")
    other.close()
    assert store.append(entries).rows == {"fill": 1}


def test_an_io_error_at_the_commit_leaves_nothing_and_a_reopened_store_goes_on(store: Store, paths: DatabasePaths) -> None:
    """R19, R21."""
    entries = Run().entries(fill("f-1"), order_event("o-1"))
    fail_the_commit(store, apsw.IOError("disk I/O error"))
    with pytest.raises(StoreStalled, match="disk I/O error"):
        store.append(entries)
    assert rows(paths.database, "SELECT count(*) FROM fills") == [(0,)]
    store.reopen()
    assert store.cursor("run-1") == 0
    assert store.append(entries).committed == {"run-1": 2}


def test_a_table_that_is_missing_is_for_a_person(store: Store) -> None:
    store._connection.execute("DROP TABLE open_orders")
    with pytest.raises(StoreError, match=r"x\.db cannot be used: .*no such table: .*open_orders") as raised:
        store.append(Run().entries(order_event("o-1")))
    assert type(raised.value) is StoreError


# ---- dead letters come first (R27)


def test_a_dead_letter_is_committed_before_its_seq_is_passed(store: Store, paths: DatabasePaths) -> None:
    """R27."""
    seen: list[object] = []

    def at_commit() -> bool:
        seen.extend(rows(paths.dead_letters, "SELECT run_id, seq FROM dead_letters"))
        return False

    store._connection.set_commit_hook(at_commit)
    store.append(Run().entries(None))
    assert seen == [("run-1", 1)]


def test_a_dead_letter_of_a_transaction_that_was_cut_off_stays_one(store: Store, paths: DatabasePaths) -> None:
    """R27: the order of two runs in a batch may change when it is repeated: neither record may become two things."""
    first, second = Run("run-1", "maker"), Run("run-2", "taker")
    one, other = first.entry(fill("f-1")), second.entry(fill("f-1"))
    fail_the_commit(store, apsw.IOError("disk I/O error"))
    with pytest.raises(StoreStalled):
        store.append([one, other])
    assert rows(paths.dead_letters, "SELECT run_id, seq, kind FROM dead_letters") == [("run-2", 1, "conflict")]

    outcome = store.append([other, one])
    assert (outcome.committed, outcome.dead_letters) == ({"run-1": 1, "run-2": 1}, {"run-2": [1]})
    assert fate_of_every_seq(paths, "run-1") == {1: ["fill"]}
    assert fate_of_every_seq(paths, "run-2") == {1: ["dead letter"]}
    assert rows(paths.dead_letters, "SELECT kind FROM dead_letters") == [("conflict",)]


def test_a_dead_letter_of_a_writer_that_was_killed_stays_one(store: Store, paths: DatabasePaths) -> None:
    """R27: captured, and killed before the commit that passes its seq."""
    first, second = Run("run-1", "maker"), Run("run-2", "taker")
    one, other = first.entry(fill("f-1")), second.entry(fill("f-1"))
    fail_the_commit(store, apsw.IOError("killed here"))
    with pytest.raises(StoreStalled):
        store.append([one, other])
    store.close()
    successor = Store(paths)
    successor.append([other, one])
    successor.close()
    assert fate_of_every_seq(paths, "run-2") == {1: ["dead letter"]}


def test_dead_letters_that_cannot_be_written_hold_back_the_whole_batch(store: Store, paths: DatabasePaths) -> None:
    letters = store._dead_letters._connection
    letters.pragma("max_page_count", letters.pragma("page_count"))
    entries = [Run().entry(None)._replace(payloads=[b"x" * 100_000])]
    with pytest.raises(StoreStalled, match=r"no room left on the disk of .*dlq\.db"):
        store.append(entries)
    assert store.cursor("run-1") == 0
    letters.pragma("max_page_count", 1 << 30)
    assert store.append(entries).dead_letters == {"run-1": [1]}
    assert rows(paths.dead_letters, "SELECT length(payload) FROM dead_letters") == [(100_000,)]


# ---- identity, reopening, durability


def test_the_identity_holds_while_the_files_are_the_same(store: Store) -> None:
    store.append(Run().entries(fill("f-1")))
    store.checkpoint()
    assert store.identity_holds()


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_file_that_was_moved_away_breaks_the_identity(suffix: str, store: Store, paths: DatabasePaths) -> None:
    """R12."""
    file = paths.database.with_name(paths.database.name + suffix)
    aside = file.with_name("aside")
    file.rename(aside)
    assert not store.identity_holds()
    file.write_bytes(aside.read_bytes())
    assert not store.identity_holds()
    aside.replace(file)
    assert store.identity_holds()


def test_a_database_that_was_replaced_is_not_reopened_and_none_is_made(store: Store, paths: DatabasePaths) -> None:
    paths.database.rename(paths.database.with_name("aside"))
    with pytest.raises(StoreError, match=r"x\.db was moved, deleted or replaced while its writer ran"):
        store.reopen()
    assert not paths.database.exists()


def test_a_store_whose_reopening_failed_takes_nothing_until_one_succeeds(store: Store, paths: DatabasePaths) -> None:
    aside = paths.folder.with_name("aside")
    paths.folder.rename(aside)
    with pytest.raises(StoreError):
        store.reopen()
    with pytest.raises(StoreStalled, match="closed"):
        store.append(Run().entries(fill("f-1")))
    aside.rename(paths.folder)
    store.reopen()
    assert store.append(Run().entries(fill("f-1"))).committed == {"run-1": 1}


def test_the_database_id_is_kept_and_every_database_has_its_own(store: Store, tmp_path: Path) -> None:
    before = store.database_id
    store.reopen()
    assert store.database_id == before
    assert len(before) == 32
    other = Store(DatabasePaths.of(tmp_path / "y.db"))
    assert other.database_id != before
    other.close()


def test_durability_is_raised_for_both_databases_and_never_lowered(store: Store) -> None:
    """R26."""

    def synchronous() -> list[object]:
        return [connection.pragma("synchronous") for connection in (store._connection, store._dead_letters._connection)]

    assert synchronous() == [1, 1]
    store.raise_durability("power")
    store.raise_durability("process")
    assert synchronous() == [2, 2]
    store.reopen()
    assert synchronous() == [2, 2]
    with pytest.raises(ConfigError, match="durability must be"):
        store.raise_durability("maximum")


def test_a_checkpoint_moves_what_is_committed_out_of_the_wal(store: Store, paths: DatabasePaths) -> None:
    store.append(Run().entries(*(fill(f"f-{n}") for n in range(500))))
    size = paths.database.stat().st_size
    store.checkpoint()
    assert paths.database.stat().st_size > size


def test_a_reader_neither_blocks_the_writer_nor_sees_half_a_batch(store: Store, paths: DatabasePaths) -> None:
    """R28."""
    run = Run()
    store.append(run.entries(fill("f-1")))
    reader = apsw.Connection(str(paths.database), flags=apsw.SQLITE_OPEN_READONLY)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM fills").get == 1
    store.append(run.entries(fill("f-2"), fill("f-3")))
    store.checkpoint()
    assert reader.execute("SELECT count(*) FROM fills").get == 1
    reader.execute("COMMIT")
    assert reader.execute("SELECT count(*) FROM fills").get == 3
    reader.close()
