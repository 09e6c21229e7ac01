from __future__ import annotations

import logging
import resource
from pathlib import Path

import apsw
import pytest
from store_case import PAGE_COLUMNS, FixedClock, Run, fill, order_event, original_database, rows

from horizon.errors import StoreError, StoreStalled
from horizon.paths import DatabasePaths
from horizon.records import OrderStatus
from horizon.store import migrate
from horizon.store.append import Store
from horizon.store.connection import open_reader, open_writer
from horizon.store.recovery import recover
from horizon.store.sql import DEAD_LETTERS_STEPS, MIGRATIONS, Migration
from horizon.wire import Command

ORIGINAL = """
INSERT INTO strategy_runs VALUES ('run-a', 'old', 'paper', 100.0, 200.0, NULL), ('run-b', 'my_strategy', 'paper', 300.0, NULL, '{}');
INSERT INTO fills VALUES
    ('f-1', 'o-1', 'btc', 'long', 'buy', 100.0, 1.0, 0.1, 310.0, NULL, 'paper', 311.0),
    ('f-2', 'o-2', 'btc', 'long', 'sell', 110.0, 0.5, 0.0, 320.0, NULL, 'paper', 321.0);
INSERT INTO order_events VALUES
    (1, 'o-1', 'btc', 'long', 'buy', 100.0, 1.0, 0.0, 1.0, 'limit', 'gtc', 'new', NULL, 'paper', 305.0, 305.0),
    (2, 'o-2', 'btc', 'long', 'sell', 110.0, 2.0, 0.0, 2.0, 'limit', 'gtc', 'new', NULL, 'paper', 315.0, 315.0),
    (3, 'o-1', 'btc', 'long', 'buy', 100.0, 1.0, 1.0, 0.0, 'limit', 'gtc', 'filled', NULL, 'paper', 305.0, 310.0),
    (4, 'o-2', 'btc', 'long', 'sell', 110.0, 2.0, 0.5, 1.5, 'limit', 'gtc', 'partially_filled', NULL, 'paper', 315.0, 320.0);
INSERT INTO position_snapshots VALUES (1, 315.0, 'btc', 'long', 1.0, 100.0, 0.0, 5.0, NULL, 'paper');
INSERT INTO risk_events VALUES (1, 'violation', 'too large', 330.0);
"""

# In the columns of version 1.
VERSION_1 = """
INSERT INTO strategy_runs VALUES ('run-1', 'maker', 'paper', 1.0, NULL, '{}', 'maker', 1, NULL, 4711, 'died', 'died', 0);
INSERT INTO fills VALUES
    ('f-1', 'o-1', 'btc', 'long', 'buy', 100.0, 1.0, 0.1, 1.0, NULL, 'paper', 1.0, 'maker', 'run-1', 3, 1, 0, 1.0, 'quote');
INSERT INTO order_events VALUES (
    1, 'o-1', 'btc', 'long', 'buy', 100.0, 2.0, 0.0, 2.0, 'limit', 'gtc', 'new', NULL, 'paper', 1.0, 1.0, 'maker', 'run-1', 2);
INSERT INTO open_orders VALUES (
    'o-1', 'btc', 'long', 'buy', 100.0, 2.0, 0.0, 2.0, 'limit', 'gtc', 'new', NULL, 'paper', 1.0, 1.0, 'maker', 'run-1', 2, 0);
INSERT INTO run_cursors (run_id, strategy, committed_seq, last_commit_no, fills, order_events, orders, dead_letters)
    VALUES ('run-1', 'maker', 6, 1, 1, 1, 1, 1);
INSERT INTO run_gaps VALUES ('run-1', 5, 6, 'damaged', 2.0);
INSERT INTO newest_snapshots VALUES ('maker', 'run-0', 9, 0, 0.5, NULL, NULL);
UPDATE horizon_meta SET value = 1 WHERE key = 'commit_no';
"""


def page_content(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Everything that a program of the original sees."""
    return {table: rows(path, f"SELECT {', '.join(columns.split())} FROM {table}") for table, columns in PAGE_COLUMNS.items()}


def shape(path: Path) -> list[tuple[object, ...]]:
    return rows(path, "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "my_strategy.db"


def test_a_fresh_database_begins_with_the_columns_of_the_page(path: Path) -> None:
    open_writer(path, "process").close()
    for table, columns in PAGE_COLUMNS.items():
        names = [name for (name,) in rows(path, f"SELECT name FROM pragma_table_info('{table}')")]
        assert names[: len(columns.split())] == columns.split()


def test_a_fresh_database_and_an_upgraded_one_have_the_same_shape(tmp_path: Path) -> None:
    original_database(tmp_path / "old.db", ORIGINAL)
    open_writer(tmp_path / "old.db", "process").close()
    open_writer(tmp_path / "new.db", "process").close()
    assert shape(tmp_path / "old.db") == shape(tmp_path / "new.db")


def test_every_migration_is_recorded(path: Path) -> None:
    open_writer(path, "process", FixedClock(1234.0)).close()
    applied = rows(path, "SELECT version, name, applied_at FROM schema_migrations")
    assert applied == [(migration.version, migration.name, 1234.0) for migration in MIGRATIONS]
    assert rows(path, "PRAGMA user_version") == [(MIGRATIONS[-1].version,)]


def test_an_upgrade_changes_nothing_that_the_original_wrote(path: Path) -> None:
    original_database(path, ORIGINAL)
    before = page_content(path)
    open_writer(path, "process").close()
    assert page_content(path) == before


def test_an_upgraded_database_still_takes_inserts_of_the_original_and_goes_on_behind_them(path: Path) -> None:
    original_database(path, ORIGINAL)
    store = Store(DatabasePaths.of(path))
    program = apsw.Connection(str(path))
    program.execute(
        "INSERT OR IGNORE INTO fills (fill_id, order_id, market_id, side, order_side, price, size, timestamp, inserted_at) "
        "VALUES ('f-3', 'o-3', 'btc', 'long', 'buy', 1.0, 1.0, 9.0, 9.0)"
    )
    program.close()
    assert store.append(Run().entries(fill("ours"))).rows == {"fill": 1}
    assert rows(path, "SELECT fill_id, rowid, commit_no FROM fills ORDER BY rowid") == [
        ("f-1", 1, None), ("f-2", 2, None), ("f-3", 3, None), ("ours", 4, 4),
    ]  # fmt: skip
    store.close()


def test_what_the_original_wrote_belongs_to_the_strategy_that_ran_last(path: Path) -> None:
    original_database(path, ORIGINAL)
    open_writer(path, "process").close()
    for table in ("fills", "order_events", "position_snapshots", "risk_events"):
        assert rows(path, f"SELECT DISTINCT strategy FROM {table}") == [("my_strategy",)]
    assert rows(path, "SELECT run_id, strategy, status FROM strategy_runs") == [
        ("run-a", "old", "ended"), ("run-b", "my_strategy", "died"),
    ]  # fmt: skip


def test_what_an_engine_without_a_run_wrote_belongs_to_the_default_strategy(path: Path) -> None:
    original_database(path, "INSERT INTO fills VALUES ('f', 'o', 'm', 'yes', 'buy', 1.0, 1.0, 0.0, 1.0, NULL, '', 1.0)")
    open_writer(path, "process").close()
    assert rows(path, "SELECT strategy FROM fills") == [("default",)]


def test_orders_that_the_original_left_open_are_open(path: Path) -> None:
    original_database(path, ORIGINAL)
    open_writer(path, "process").close()
    assert rows(path, "SELECT order_id, status, filled_size FROM open_orders") == [("o-2", "partially_filled", 0.5)]


def test_an_upgrade_keeps_a_copy_and_names_it_in_the_log(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    original_database(path, ORIGINAL)
    before = page_content(path)
    with caplog.at_level(logging.WARNING):
        open_writer(path, "process", FixedClock(1_700_000_000.0)).close()
    backup = path.with_name("my_strategy.db.before-upgrade-20231114T221320Z")
    assert f"a copy of it is kept as {backup}" in caplog.text
    assert page_content(backup) == before
    assert rows(backup, "PRAGMA user_version") == [(0,)]
    assert not list(path.parent.glob("*.partial*"))


def test_the_copy_has_what_still_lies_in_the_wal(path: Path) -> None:
    original_database(path)
    program = apsw.Connection(str(path))
    program.execute(ORIGINAL)
    open_writer(path, "process", FixedClock()).close()
    program.close()
    (backup,) = path.parent.glob("*.before-upgrade-*Z")
    assert len(rows(backup, "SELECT * FROM fills")) == 2


@pytest.fixture
def version_1(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database as the first version of Horizon left it: a run with a fill, an order, a snapshot, a gap and a dead letter."""
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "MIGRATIONS", MIGRATIONS[:1])
        patch.setattr(migrate, "NEWEST_VERSION", 1)
        connection = open_writer(path, "process")
    connection.execute(VERSION_1)
    connection.close()
    paths = DatabasePaths.of(path)
    paths.folder.mkdir()
    letters = apsw.Connection(str(paths.dead_letters))
    letters.execute(DEAD_LETTERS_STEPS[0])
    letters.execute("INSERT INTO dead_letters VALUES ('run-1', 4, 'maker', 'conflict', 'other price', x'00', 'f-1', 2.0)")
    letters.pragma("user_version", 1)
    letters.close()
    return path


def test_a_database_of_version_1_is_upgraded_in_place_with_a_copy(version_1: Path) -> None:
    before = {
        table: rows(version_1, f"SELECT * FROM {table}") for table in ("fills", "order_events", "run_cursors", "open_orders")
    }
    store = Store(DatabasePaths.of(version_1), clock=FixedClock(1_700_000_000.0))
    store.close()
    assert {table: rows(version_1, f"SELECT * FROM {table}") for table in before} == before
    assert rows(version_1, "PRAGMA user_version") == [(len(MIGRATIONS),)]
    assert rows(version_1, "SELECT version FROM schema_migrations") == [(n,) for n in range(1, len(MIGRATIONS) + 1)]
    backup = version_1.with_name("my_strategy.db.before-upgrade-20231114T221320Z")
    assert rows(backup, "PRAGMA user_version") == [(1,)]
    assert rows(backup, "SELECT * FROM fills") == before["fills"]


def test_a_database_of_version_1_has_the_shape_of_a_fresh_one_after_its_upgrade(version_1: Path, tmp_path: Path) -> None:
    open_writer(version_1, "process").close()
    open_writer(tmp_path / "new.db", "process").close()
    assert shape(version_1) == shape(tmp_path / "new.db")


def test_what_version_1_left_is_recovered_and_its_gap_waits_for_a_person(version_1: Path) -> None:
    store = Store(DatabasePaths.of(version_1))
    reader = open_reader(version_1)
    state = recover(reader, "maker")
    reader.close()
    store.close()
    assert [fill.fill_id for fill in state.fills] == ["f-1"]
    assert [order.event.order_id for order in state.open_orders] == ["o-1"]
    assert [(gap.from_seq, gap.to_seq) for gap in state.gaps] == [(5, 6)]
    assert state.hold is not None
    assert (state.kill_switch, state.high_water_mark, state.daily_baseline) == (None, None, None)


def test_dead_letters_of_version_1_are_kept_and_can_be_decided(version_1: Path) -> None:
    paths = DatabasePaths.of(version_1)
    store = Store(paths)
    store.operate("id-1", Command("dismiss", "maker", "alice", "seen", {"run_id": "run-1", "seq": "4"}), {})
    store.close()
    assert rows(paths.dead_letters, "SELECT seq, payload, dismissed_by, replayed_at FROM dead_letters") == [
        (4, b"\x00", "alice", None)
    ]


def test_a_fresh_database_and_one_of_this_version_need_no_copy(path: Path) -> None:
    open_writer(path, "process").close()
    open_writer(path, "process").close()
    assert not list(path.parent.glob("*before-upgrade*"))


def test_a_failed_upgrade_leaves_the_database_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original_database(path, ORIGINAL)
    before = shape(path)
    broken = (*MIGRATIONS, Migration(len(MIGRATIONS) + 1, "broken", "CREATE TABLE half (a); INSERT INTO nowhere VALUES (1);"))
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "MIGRATIONS", broken)
        with pytest.raises(StoreError, match="no such table: nowhere"):
            open_writer(path, "process")
    assert shape(path) == before
    assert rows(path, "PRAGMA user_version") == [(0,)]
    open_writer(path, "process").close()
    assert rows(path, "PRAGMA user_version") == [(len(MIGRATIONS),)]


def test_a_newer_schema_is_refused_to_writer_and_reader(path: Path) -> None:
    connection = open_writer(path, "process")
    connection.pragma("user_version", 99)
    connection.close()
    for open_it in (lambda: open_writer(path, "process"), lambda: open_reader(path)):
        with pytest.raises(
            StoreError, match=f"has schema version 99 and this Horizon knows up to {len(MIGRATIONS)}: use the newer"
        ):
            open_it()


def test_a_newer_dead_letter_file_is_refused(path: Path) -> None:
    paths = DatabasePaths.of(path)
    Store(paths).close()
    connection = apsw.Connection(str(paths.dead_letters))
    connection.pragma("user_version", 99)
    connection.close()
    with pytest.raises(StoreError, match=r"dlq\.db has schema version 99"):
        Store(paths)


def test_a_disk_that_is_full_at_the_start_is_waited_for(path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
        with pytest.raises(StoreStalled, match=r"my_strategy\.db"):
            open_writer(path, "process")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    open_writer(path, "process").close()
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize(("durability", "synchronous"), [("process", 1), ("power", 2)])
def test_the_pragmas_are_those_of_the_page(durability: str, synchronous: int, path: Path) -> None:
    connection = open_writer(path, durability)
    pragmas = ("journal_mode", "synchronous", "cache_size", "busy_timeout", "temp_store", "mmap_size")
    assert [connection.pragma(name) for name in pragmas] == ["wal", synchronous, -8000, 5000, 2, 268435456]
    connection.close()


def test_fills_get_their_row_numbers_back_after_a_dump_and_restore(tmp_path: Path) -> None:
    """R7."""
    paths = DatabasePaths.of(tmp_path / "x.db")
    store = Store(paths)
    first, second = Run("run-1"), Run("run-2", "other")
    store.append(first.entries(fill("a"), fill("b"), fill("c")))
    store.append(second.entries(order_event("o-1"), fill("d"), order_event("o-1", OrderStatus.Canceled)))
    store.close()
    connection = apsw.Connection(str(paths.database))
    connection.execute("DELETE FROM fills WHERE fill_id = 'b'")
    connection.execute(
        "CREATE TABLE copy AS SELECT * FROM fills ORDER BY rowid; DELETE FROM fills; INSERT INTO fills SELECT * FROM copy; DROP TABLE copy"
    )
    assert [n for (n,) in connection.execute("SELECT rowid FROM fills ORDER BY rowid")] == [1, 2, 3]
    connection.close()
    store = Store(paths)
    assert rows(paths.database, "SELECT fill_id, rowid, commit_no FROM fills ORDER BY rowid") == [
        ("a", 1, 1),
        ("c", 3, 3),
        ("d", 4, 4),
    ]
    store.append(second.entries(fill("e")))
    assert rows(paths.database, "SELECT rowid FROM fills WHERE fill_id = 'e'") == [(5,)]
    store.close()
