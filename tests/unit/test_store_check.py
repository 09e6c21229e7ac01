"""`horizon db check` over a sound database, and over the same one with one damage at a time."""

from __future__ import annotations

import os
from pathlib import Path

import apsw
import pytest
from store_case import FixedClock, Run, fill, order_event, original_database, snapshot

from horizon.errors import StoreError
from horizon.journal import About, Journal
from horizon.locks import FileLock
from horizon.paths import DatabasePaths
from horizon.positions import Book
from horizon.records import OrderSide, OrderStatus, PositionRow, PositionSnapshot, RiskEvent, RiskEventType, RunEnded, Side
from horizon.store.append import Store
from horizon.store.check import Finding, check


@pytest.fixture
def paths(tmp_path: Path) -> DatabasePaths:
    """Two strategies with everything in them that a record can become."""
    paths = DatabasePaths.of(tmp_path / "trades.db")
    maker, trend = Run("run-maker", "maker"), Run("run-trend", "trend")
    made = [
        fill("m-1", order_id="o-1", price=0.1, size=0.1),
        fill("m-2", order_id="o-1", price=0.2, size=0.2),
        fill("m-3", order_id="o-2", price=0.3, size=0.3, order_side=OrderSide.Sell),
    ]
    store = Store(paths, clock=FixedClock())
    store.append(
        [
            maker.start(),
            maker.entry(order_event("o-1", size=0.3)),
            maker.entry(made[0]),
            maker.entry(order_event("o-1", OrderStatus.PartiallyFilled, size=0.3, filled_size=0.1)),
            maker.entry(made[1]),
            maker.entry(order_event("o-1", OrderStatus.Filled, size=0.3, filled_size=0.3)),
            maker.entry(snapshot(made[:2])),
            maker.entry(snapshot(made[:2])),
            maker.entry(made[0]),
            maker.entry(None, "not a record"),
            maker.entry(RiskEvent(RiskEventType.Violation, "too large", 1000.0)),
            maker.entry(order_event("o-2", size=0.3)),
            maker.entry(made[2]),
            maker.entry(order_event("o-2", OrderStatus.Filled, size=0.3, filled_size=0.3)),
            maker.entry(snapshot(made)),
            maker.entry(RunEnded(1001.0)),
            trend.start(),
            trend.entry(order_event("o-3")),
            trend.entry(fill("t-1", order_id="o-3", size=1.0)),
            trend.entry(order_event("o-3", OrderStatus.PartiallyFilled, filled_size=1.0)),
            trend.entry(order_event("o-4")),
            trend.entry(order_event("o-4", OrderStatus.Canceled)),
        ]
    )
    store.close()
    return paths


def damage(path: Path, sql: str) -> None:
    """By hand, as no program of ours does."""
    connection = apsw.Connection(str(path))
    connection.execute(sql)
    connection.close()


def texts(found: list[Finding], kind: str) -> str:
    return "\n".join(finding.text for finding in found if finding.kind == kind)


def test_a_sound_database_has_nothing_wrong(paths: DatabasePaths) -> None:
    report = check(paths)
    assert (report.findings, report.remarks) == ([], [])
    assert (report.runs, report.fills, report.order_events) == (2, 4, 9)
    assert report.snapshots == 3  # two with rows, and the newest one once more, from where it is pointed to


@pytest.mark.parametrize(
    ("sql", "kind", "said"),
    [
        ("DELETE FROM fills WHERE fill_id = 'm-2'", "seq", "its cursor counts 3 x fill, and there are 2"),
        ("DELETE FROM fills WHERE fill_id = 'm-2'", "seq", "1 of its records are committed and nowhere to be found"),
        ("DELETE FROM fills WHERE fill_id = 'm-2'", "snapshot", "size is 0.3, and the fills give 0.1"),
        ("DELETE FROM fills WHERE fill_id = 'm-2'", "order", "order o-1: its newest event says 0.3 filled"),
        ("DELETE FROM fills WHERE fill_id = 't-1'", "seq", "its newest fill is number 4, and that is 0"),
        ("UPDATE fills SET price = 0.20000000000000004 WHERE fill_id = 'm-2'", "snapshot", "cost is "),
        ("UPDATE fills SET order_side = 'north' WHERE fill_id = 'm-2'", "fill", "'m-2' cannot be read"),
        ("UPDATE fills SET seq = 3 WHERE fill_id = 'm-2'", "seq", "seq 3 is there more than once"),
        ("UPDATE fills SET seq = 99 WHERE fill_id = 'm-2'", "seq", "seq 99 is stored, and the run is committed up to 16"),
        ("UPDATE fills SET commit_no = 9 WHERE fill_id = 'm-1'", "fill", "lies behind number 9"),
        ("DELETE FROM order_events WHERE order_id = 'o-4' AND status = 'canceled'", "order", "missing in the table open_orders"),
        ("DELETE FROM run_cursors WHERE run_id = 'run-trend'", "seq", "of run run-trend, which has no cursor"),
        (
            "UPDATE run_cursors SET committed_seq = 20 WHERE run_id = 'run-maker'",
            "seq",
            "4 of its records are committed and nowhere",
        ),
        ("UPDATE run_cursors SET committed_seq = 1 << 60 WHERE run_id = 'run-maker'", "seq", "which no run reaches"),
        ("UPDATE run_cursors SET snapshots_refused = 2 WHERE run_id = 'run-maker'", "seq", "counts 3 snapshots without rows"),
        ("UPDATE run_cursors SET orders = 5 WHERE run_id = 'run-maker'", "seq", "counts 5 x order, and there are 2"),
        ("DELETE FROM duplicates", "seq", "counts 1 x duplicate, and there are 0"),
        ("DELETE FROM risk_events", "seq", "1 of its records are committed and nowhere"),
        ("DELETE FROM strategy_runs WHERE run_id = 'run-maker'", "seq", "2 of its records are committed and nowhere"),
        ("DELETE FROM position_snapshots WHERE seq = 7", "seq", "1 of its records are committed and nowhere"),
        (
            "UPDATE position_snapshots SET exact_cost = '1' WHERE seq = 7",
            "snapshot",
            "run run-maker, seq 7): btc long on paper: cost",
        ),
        ("UPDATE position_snapshots SET exact_size = '0.30' WHERE seq = 7", "snapshot", "size is 0.30, and the fills give 0.3"),
        ("UPDATE position_snapshots SET size = 7 WHERE seq = 7", "snapshot", "the column size shows 7.0"),
        ("UPDATE position_snapshots SET market_id = 'eth' WHERE seq = 7", "snapshot", "eth long on paper has a position"),
        ("UPDATE newest_snapshots SET first_id = NULL, last_id = NULL", "snapshot", "newest snapshot of maker: btc long"),
        ("UPDATE newest_snapshots SET first_id = 1, last_id = 1", "snapshot", "newest snapshot of maker: btc long"),
        ("UPDATE order_events SET status = 'accepted' WHERE seq = 6 AND run_id = 'run-trend'", "order", "missing in the table"),
        (
            "UPDATE order_events SET status = 'canceled' WHERE seq = 4",
            "order",
            "an event says filled after it had ended as canceled",
        ),
        ("UPDATE order_events SET status = 'asleep' WHERE seq = 4 AND run_id = 'run-maker'", "order", "'asleep' is no status"),
        (
            "UPDATE order_events SET filled_size = 2.0 WHERE seq = 4 AND run_id = 'run-trend'",
            "order",
            "says 2.0 filled, and its fills",
        ),
        ("DELETE FROM open_orders", "order", "order o-3: it is partially_filled and missing in the table open_orders"),
        ("UPDATE open_orders SET order_id = 'o-1'", "order", "order o-1: the table open_orders has it, and it is filled"),
        ("UPDATE open_orders SET order_id = 'o-9'", "order", "order o-9: the table open_orders has it, and it has no event"),
        (
            "INSERT INTO run_gaps (run_id, from_seq, to_seq, reason, recorded_at) VALUES ('run-trend', 2, 3, 'torn', 1.0)",
            "gap",
            "run run-trend: records 2 to 3 are missing (torn); `horizon journal accept-gap run-trend --reason WHY` lets",
        ),
    ],
)
def test_every_kind_of_damage_is_found_and_named(paths: DatabasePaths, sql: str, kind: str, said: str) -> None:
    damage(paths.database, sql)
    assert said in texts(check(paths).findings, kind)


def test_a_missing_row_of_an_index_is_found_by_sqlite_itself_and_ends_the_check(paths: DatabasePaths) -> None:
    damage(
        paths.database,
        "PRAGMA writable_schema = ON;"
        "UPDATE sqlite_schema SET sql = 'CREATE INDEX fills_market ON fills (order_id)' WHERE name = 'fills_market'",
    )
    report = check(paths)
    assert "fills_market" in texts(report.findings, "integrity")
    assert report.fills == 0
    assert "the rows were not looked at" in report.remarks[0]


def test_an_accepted_gap_is_a_note_and_its_seqs_are_accounted_for(paths: DatabasePaths) -> None:
    damage(
        paths.database,
        "UPDATE run_cursors SET committed_seq = 18 WHERE run_id = 'run-maker';"
        "INSERT INTO run_gaps VALUES ('run-maker', 17, 18, 'torn', 1.0, 2.0, 'ann')",
    )
    report = check(paths)
    assert report.findings == []
    assert report.remarks == ["run run-maker: records 17 to 18 are missing (torn); accepted by ann"]


def test_a_gap_of_a_trillion_records_is_found_at_once(paths: DatabasePaths) -> None:
    damage(
        paths.database,
        "INSERT INTO run_gaps (run_id, from_seq, to_seq, reason, recorded_at) VALUES ('run-maker', 17, 1000000000000, 'torn', 1.0)",
    )
    assert "seq 1000000000000 is stored, and the run is committed up to 16" in texts(check(paths).findings, "seq")


def test_lost_dead_letters_are_found(paths: DatabasePaths) -> None:
    damage(paths.dead_letters, "DELETE FROM dead_letters")
    assert "counts 1 x dead letter, and there are 0" in texts(check(paths).findings, "seq")
    for suffix in ("", "-wal", "-shm"):
        paths.dead_letters.with_name(paths.dead_letters.name + suffix).unlink(missing_ok=True)
    assert "dlq.db is missing, and 1 records should lie in it" in texts(check(paths).findings, "dead letter")


def test_a_letter_whose_seq_is_not_passed_yet_is_nothing_wrong(paths: DatabasePaths) -> None:
    damage(
        paths.dead_letters,
        "INSERT INTO dead_letters (run_id, seq, strategy, kind, reason, payload, captured_at) "
        "VALUES ('run-maker', 17, 'maker', 'unstorable', 'x', x'00', 1.0)",
    )
    assert check(paths).findings == []


def test_what_is_wrong_a_thousand_times_is_said_twenty_times_and_counted(paths: DatabasePaths) -> None:
    damage(
        paths.database,
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) "
        "INSERT INTO open_orders SELECT 'ghost-' || i, 'btc', 'long', 'buy', 1, 1, 0, 1, 'limit', 'gtc', 'new', NULL, 'paper', 1, 1, "
        "'maker', 'run-maker', 1, 0 FROM n",
    )
    found = [finding.text for finding in check(paths).findings if finding.kind == "order"]
    assert len(found) == 21
    assert found[-1] == "and 980 more like these"


def test_a_journal_that_was_left_over_is_named_with_what_it_holds(paths: DatabasePaths) -> None:
    lock = FileLock(paths.strategy_lock("maker"))
    assert lock.take("pid=1")
    journal = Journal(paths.journal("run-late"), About(_id(paths), "run-late", "maker", "process", 1), 2 << 20)
    journal.append(fill("late"))

    assert check(paths).findings == []  # its strategy lives
    lock.release()
    assert "was left over with 1 records that are not stored; `horizon journal drain`" in texts(check(paths).findings, "journal")
    paths.strategy_lock("maker").unlink()
    assert "the lock of maker was deleted" in texts(check(paths).findings, "journal")
    journal.close()
    paths.journal("run-late").write_bytes(os.urandom(8192))
    assert "not a journal of this version" in texts(check(paths).findings, "journal")


def test_a_journal_of_a_dead_run_in_which_everything_is_stored_is_a_note(paths: DatabasePaths) -> None:
    lock = FileLock(paths.strategy_lock("maker"))
    assert lock.take("pid=1")
    journal = Journal(paths.journal("run-maker"), About(_id(paths), "run-maker", "maker", "process", 1), 2 << 20)
    for number in range(16):  # as far as the database is committed
        journal.append(fill(f"again-{number}"))
    journal.close()
    lock.release()
    report = check(paths)
    assert report.findings == []
    assert report.remarks == [
        f"{paths.journal('run-maker')} is left of a run that died; everything in it is stored; the next start removes it"
    ]


def test_a_journal_of_another_database_is_named(paths: DatabasePaths) -> None:
    Journal(paths.journal("run-x"), About("0" * 32, "run-x", "maker", "process", 1), 2 << 20).close()
    assert "belongs to another database" in texts(check(paths).findings, "journal")


def test_a_database_of_the_original_is_checked_as_far_as_it_goes(tmp_path: Path) -> None:
    original_database(tmp_path / "old.db", "INSERT INTO strategy_runs VALUES ('r', 's', 'paper', 1.0, NULL, NULL)")
    report = check(DatabasePaths.of(tmp_path / "old.db"))
    assert report.findings == []
    assert "schema version 0" in report.remarks[0]


def test_what_the_original_left_is_where_the_fold_begins(tmp_path: Path) -> None:
    paths = DatabasePaths.of(tmp_path / "old.db")
    original_database(
        paths.database,
        "INSERT INTO strategy_runs VALUES ('r', 'maker', 'paper', 1.0, NULL, NULL);"
        "INSERT INTO fills VALUES ('old', 'o-0', 'btc', 'long', 'buy', 100.0, 1.0, 0.0, 1.0, NULL, 'paper', 1.0);"
        "INSERT INTO position_snapshots VALUES (1, 5.0, 'btc', 'long', 3.0, 90.0, 0.0, 0.0, NULL, 'paper')",
    )
    run = Run()
    new = fill("new", size=1.0)
    begun = PositionRow("btc", Side.Long, "paper", None, "3.0", "270.00", "0.0", "0", "0")
    store = Store(paths, clock=FixedClock())
    store.append([run.start(), run.entry(new), run.entry(PositionSnapshot(1000.0, Book.restore((begun,), (new,)).snapshot()))])
    store.close()
    report = check(paths)
    assert (report.findings, report.snapshots) == ([], 2)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match="not an SQLite database"):
        check(DatabasePaths.of(tmp_path / "x.db"))


def _id(paths: DatabasePaths) -> str:
    connection = apsw.Connection(str(paths.database), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return str(connection.execute("SELECT value FROM horizon_meta WHERE key = 'database_id'").get)
    finally:
        connection.close()
