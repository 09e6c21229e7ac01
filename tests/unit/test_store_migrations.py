from __future__ import annotations

import logging
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
from horizon.store.sql import MIGRATIONS, Migration

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
    resource = pytest.importorskip("resource")
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
