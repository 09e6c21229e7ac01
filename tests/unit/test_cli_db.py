"""`horizon db` over databases that the store itself has written, and the original's queries over ours."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import apsw
import pytest
from store_case import FixedClock, Run, fill, order_event, original_database, rows, snapshot

from horizon.__main__ import main
from horizon.errors import ExitCode
from horizon.journal import About, Journal
from horizon.locks import FileLock
from horizon.paths import DatabasePaths
from horizon.records import OrderSide, OrderStatus
from horizon.store.append import Store
from horizon.store.sql import MIGRATIONS


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DatabasePaths:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HORIZON_DB", str(tmp_path / "trades.db"))
    return made(DatabasePaths.of(tmp_path / "trades.db"), "first")


def made(paths: DatabasePaths, *fill_ids: str, run: Run | None = None) -> DatabasePaths:
    run = run or Run()
    store = Store(paths, clock=FixedClock())
    entries = [run.start()] if run.seq == 0 else []
    store.append([*entries, *(run.entry(fill(fill_id)) for fill_id in fill_ids), run.entry(None, "not a record")])
    store.close()
    return paths


def fill_ids(path: Path) -> list[str]:
    return [fill_id for (fill_id,) in rows(path, "SELECT fill_id FROM fills ORDER BY rowid")]


def decoded(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = ExitCode.DONE) -> Any:
    assert main([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def leave_journal(paths: DatabasePaths, run: Run, first_seq: int, *, database_id: str | None = None) -> None:
    """What a run leaves that was killed behind its acknowledged records."""
    lock = FileLock(paths.strategy_lock(run.strategy))
    assert lock.take("pid=1")
    known = rows(paths.database, "SELECT value FROM horizon_meta WHERE key = 'database_id'")[0][0]
    about = About(database_id or known, run.run_id, run.strategy, "process", 1)
    journal = Journal(paths.journal(run.run_id), about, 2 << 20)
    for number in range(1, first_seq + 1):
        journal.append(fill(f"{run.run_id}-{number}"))
    journal.trim(first_seq - 1)
    journal.close()
    forget_before(journal)
    lock.release()


def forget_before(journal: Journal) -> None:
    """As if newer records had been written over those that were acknowledged."""
    with journal.path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(journal.tail))


def test_check_says_what_it_looked_at_and_that_nothing_is_wrong(paths: DatabasePaths, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "check"]) == ExitCode.DONE
    assert "1 run, 1 fill, 0 order events, 0 snapshots, 0 journals: nothing wrong" in capsys.readouterr().out
    assert decoded(capsys, "db", "check")["findings"] == []


def test_check_names_what_is_wrong_and_ends_with_8(paths: DatabasePaths, capsys: pytest.CaptureFixture[str]) -> None:
    connection = apsw.Connection(str(paths.database))
    connection.execute("DELETE FROM fills")
    connection.close()
    assert main(["db", "check"]) == ExitCode.FINDINGS
    assert "  seq: run run-1 of maker: its cursor counts 1 x fill, and there are 0" in capsys.readouterr().out
    report = decoded(capsys, "db", "check", code=ExitCode.FINDINGS)
    assert {finding["kind"] for finding in report["findings"]} == {"seq"}


def test_a_backup_is_whole_alone_checked_and_has_the_dead_letters(
    paths: DatabasePaths, capsys: pytest.CaptureFixture[str]
) -> None:
    made_backup = decoded(capsys, "db", "backup", "copy.db")
    copy = DatabasePaths.of("copy.db")
    assert made_backup["path"] == str(copy.database)
    assert made_backup["report"]["findings"] == made_backup["not_in_it"] == []
    assert fill_ids(copy.database) == ["first"]
    assert rows(copy.dead_letters, "SELECT run_id, seq FROM dead_letters") == [("run-1", 3)]
    assert rows(copy.database, "PRAGMA journal_mode") == [("delete",)]
    assert sorted(path.name for path in Path().glob("copy.db*")) == ["copy.db", "copy.db.d"]
    assert main(["db", "check", "--db", "copy.db"]) == ExitCode.DONE


def test_a_backup_into_a_folder_gets_a_dated_name_and_never_overwrites(
    paths: DatabasePaths, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("backups").mkdir()
    assert Path(decoded(capsys, "db", "backup", "backups")["path"]).name.startswith("trades-20")
    assert main(["db", "backup", "trades.db"]) == ExitCode.USAGE
    assert "exists already: name another file" in capsys.readouterr().err
    assert fill_ids(paths.database) == ["first"]


def test_a_backup_names_the_records_of_a_dead_run_that_are_not_in_it(
    paths: DatabasePaths, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_journal(paths, Run("run-2", "late"), 1)
    assert decoded(capsys, "db", "backup", "copy.db", code=ExitCode.FINDINGS)["not_in_it"] == [
        f"1 records of run run-2 of late, in {paths.journal('run-2')}"
    ]


def test_a_backup_of_a_damaged_database_says_so(paths: DatabasePaths, capsys: pytest.CaptureFixture[str]) -> None:
    connection = apsw.Connection(str(paths.database))
    connection.execute("DELETE FROM fills")
    connection.close()
    assert main(["db", "backup", "copy.db"]) == ExitCode.FINDINGS


def test_restore_puts_the_backup_in_place_and_keeps_what_was_there_with_its_wal(
    paths: DatabasePaths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["db", "backup", "copy.db"]) == ExitCode.DONE
    capsys.readouterr()
    made(paths, "second", run=Run("run-2"))
    wal = apsw.Connection(str(paths.database))  # somebody still reads it: what was committed last lies in the -wal
    wal.pragma("journal_mode", "wal")
    wal.execute("UPDATE fills SET fee = 7.0")
    done = decoded(capsys, "db", "restore", "copy.db", "--yes")

    assert fill_ids(paths.database) == ["first"]
    assert not paths.database.with_name("trades.db-wal").exists()
    kept = Path(done["kept"][0])
    assert kept.name.startswith("trades.db.before-restore-20")
    assert done["kept"][1] == f"{kept}-wal"
    assert rows(kept, "SELECT fill_id, fee FROM fills ORDER BY rowid") == [("first", 7.0), ("second", 7.0)]
    wal.close()
    # The letters that lie here are newer than the backup's, and stay.
    assert rows(paths.dead_letters, "SELECT count(*) FROM dead_letters") == [(2,)]
    assert main(["db", "check"]) == ExitCode.DONE


def test_restore_to_an_empty_place_brings_the_dead_letters_too(paths: DatabasePaths, tmp_path: Path) -> None:
    assert main(["db", "backup", "copy.db"]) == ExitCode.DONE
    assert main(["db", "restore", "copy.db", "--db", "elsewhere.db", "--yes"]) == ExitCode.DONE
    assert rows(DatabasePaths.of("elsewhere.db").dead_letters, "SELECT count(*) FROM dead_letters") == [(1,)]
    assert main(["db", "check", "--db", "elsewhere.db"]) == ExitCode.DONE


def test_restore_asks_and_without_a_terminal_wants_to_be_told_yes(
    paths: DatabasePaths, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["db", "backup", "copy.db"])
    made(paths, "second", run=Run("run-2"))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(["db", "restore", "copy.db"]) == ExitCode.USAGE
    assert "There is no terminal to ask on: say --yes" in capsys.readouterr().err
    assert fill_ids(paths.database) == ["first", "second"]


def test_restore_of_an_older_backup_says_how_many_runs_and_records_it_takes_back(
    paths: DatabasePaths, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    went_on = Run()
    went_on.seq = 3  # as far as the fixture has recorded
    main(["db", "backup", "copy.db"])
    made(paths, "second", run=Run("run-2"))
    made(paths, "third", run=went_on)
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(["db", "restore", "copy.db"]) == ExitCode.USAGE
    assert f"{paths.database} has 1 run and 5 records that copy.db lacks. Put copy.db in the place" in capsys.readouterr().err
    assert main(["db", "restore", "copy.db", "--yes"]) == ExitCode.DONE
    assert "taken back, as the backup lacks them: 1 run and 5 records" in capsys.readouterr().out

    min(Path().glob("trades.db.before-restore-*")).rename("newer.db")
    done = decoded(capsys, "db", "restore", "newer.db", "--yes", "--anyway")  # without its letters, which stayed
    assert (done["runs_taken_back"], done["records_taken_back"]) == (0, 0)
    Path(done["kept"][0]).rename("older.db")
    done = decoded(capsys, "db", "restore", "copy.db", "--yes")
    assert (done["runs_taken_back"], done["records_taken_back"]) == (1, 5)


def test_restore_of_another_databases_backup_takes_nothing_back(paths: DatabasePaths, capsys: pytest.CaptureFixture[str]) -> None:
    made(DatabasePaths.of("other.db"), run=Run("run-9"))
    done = decoded(capsys, "db", "restore", "other.db", "--yes")
    assert (done["runs_taken_back"], done["records_taken_back"]) == (0, 0)


@pytest.mark.parametrize("lock", ["writer.lock", "supervisor.lock", "strategy-0.lock"])
def test_restore_is_refused_while_the_database_is_in_use(
    paths: DatabasePaths, capsys: pytest.CaptureFixture[str], lock: str
) -> None:
    main(["db", "backup", "copy.db"])
    owner = FileLock(paths.folder / lock)
    assert owner.take("pid=4711 it is me")
    assert main(["db", "restore", "copy.db", "--yes"]) == ExitCode.STORE
    assert "pid=4711 it is me" in capsys.readouterr().err
    owner.release()
    assert main(["db", "restore", "copy.db", "--yes"]) == ExitCode.DONE


def test_restore_says_which_records_a_journal_goes_on_without(paths: DatabasePaths, capsys: pytest.CaptureFixture[str]) -> None:
    main(["db", "backup", "copy.db"])
    leave_journal(paths, Run("run-1", "maker"), 9)
    capsys.readouterr()
    assert main(["db", "restore", "copy.db", "--yes"]) == ExitCode.STORE
    said = capsys.readouterr().err
    assert "records 4 to 8 of run run-1 of maker are in neither" in said
    assert "until `horizon journal accept-gap run-1 --reason WHY`" in said
    assert decoded(capsys, "db", "restore", "copy.db", "--yes", "--anyway")["consequences"]


def test_restore_loses_nothing_that_a_journal_still_holds(paths: DatabasePaths) -> None:
    main(["db", "backup", "copy.db"])
    leave_journal(paths, Run("run-1", "maker"), 3)
    assert main(["db", "restore", "copy.db", "--yes"]) == ExitCode.DONE


def test_restore_says_that_a_journal_of_another_database_is_left_alone(
    paths: DatabasePaths, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["db", "backup", "copy.db"])
    leave_journal(paths, Run("run-7", "maker"), 1, database_id="0" * 32)
    assert main(["db", "restore", "copy.db", "--yes"]) == ExitCode.STORE
    assert "belongs to another database than the backup" in capsys.readouterr().err


def test_restore_refuses_a_backup_in_which_something_is_wrong(paths: DatabasePaths, capsys: pytest.CaptureFixture[str]) -> None:
    main(["db", "backup", "copy.db"])
    connection = apsw.Connection("copy.db")
    connection.execute("DELETE FROM fills")
    connection.close()
    assert main(["db", "restore", "copy.db", "--yes"]) == ExitCode.FINDINGS
    assert fill_ids(paths.database) == ["first"]
    assert main(["db", "restore", "copy.db", "--yes", "--anyway"]) == ExitCode.DONE
    assert fill_ids(paths.database) == []


def test_stats_count_rows_sizes_and_runs(paths: DatabasePaths, capsys: pytest.CaptureFixture[str]) -> None:
    found = decoded(capsys, "db", "stats")
    assert found["rows"] == {"fills": 1, "order_events": 0, "position_snapshots": 0, "risk_events": 0, "strategy_runs": 1}
    assert found["runs"] == {"running": 1}
    assert found["database_bytes"] == paths.database.stat().st_size
    assert found["schema_version"] == MIGRATIONS[-1].version
    assert main(["db", "stats"]) == ExitCode.DONE
    assert capsys.readouterr().out.splitlines()[-1].split() == ["newest", "record", "2023-11-14", "22:13:20Z"]


def test_the_original_can_be_measured_and_backed_up_and_its_upgrade_is_foretold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    original_database(tmp_path / "old.db", "INSERT INTO strategy_runs VALUES ('r', 's', 'paper', 1.0, 2.0, NULL)")
    assert decoded(capsys, "db", "stats", "--db", "old.db")["runs"] == {"ended": 1}
    assert decoded(capsys, "db", "backup", "copy.db", "--db", "old.db")["report"]["findings"] == []
    found = decoded(capsys, "db", "migrate", "--dry-run", "--db", "old.db")
    assert found["migrations"] == [f"{migration.version:04d} {migration.name}" for migration in MIGRATIONS]
    assert rows(tmp_path / "old.db", "PRAGMA user_version") == [(0,)]
    assert main(["db", "migrate", "--db", "old.db"]) == ExitCode.USAGE


def test_an_upgraded_database_has_nothing_to_come(paths: DatabasePaths, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "migrate", "--dry-run"]) == ExitCode.DONE
    assert "has the newest schema" in capsys.readouterr().out


def test_readers_of_the_originals_schema_keep_working_on_ours(tmp_path: Path) -> None:
    """What the original's own command line asks: newest event of each order, what is open, the newest snapshot."""
    path = tmp_path / "ours.db"
    run, other = Run(), Run("run-2", "other")
    held = [fill("f-1"), fill("f-2", market_id="eth", order_side=OrderSide.Sell)]
    store = Store(DatabasePaths.of(path), clock=FixedClock())
    store.append(
        [
            run.start(),
            run.entry(order_event("o-1")),
            run.entry(order_event("o-2")),
            run.entry(order_event("o-1", OrderStatus.Accepted)),
            run.entry(order_event("o-2", OrderStatus.Canceled)),
            run.entry(order_event("o-3", OrderStatus.PartiallyFilled)),
            *run.entries(*held),
            run.entry(snapshot(held[:1], taken_at=2000.0)),
            other.start(),
            run.entry(snapshot(held, taken_at=1500.0)),  # a wall clock that jumped back
        ]
    )
    store.close()

    latest = "SELECT order_id, status FROM order_events WHERE id IN (SELECT MAX(id) FROM order_events GROUP BY order_id)"
    assert sorted(rows(path, latest)) == [("o-1", "accepted"), ("o-2", "canceled"), ("o-3", "partially_filled")]
    is_open = " AND status IN ('new', 'submitted', 'accepted', 'partially_filled')"
    assert sorted(rows(path, latest + is_open)) == [("o-1", "accepted"), ("o-3", "partially_filled")]
    newest = "WHERE snapshot_batch = (SELECT MAX(snapshot_batch) FROM position_snapshots)"
    assert rows(path, f"SELECT market_id, side, size FROM position_snapshots {newest}") == [
        ("btc", "long", 2.0),
        ("eth", "long", -2.0),
    ]
    assert rows(path, "SELECT fill_id, price FROM fills ORDER BY timestamp DESC, fill_id DESC LIMIT 50") == [
        ("f-2", 100.5),
        ("f-1", 100.5),
    ]
    assert rows(path, "SELECT run_id, strategy_name FROM strategy_runs ORDER BY started_at, run_id") == [
        ("run-1", "maker"),
        ("run-2", "other"),
    ]


@pytest.mark.parametrize("action", ["trip", "clear"])
def test_the_kill_switch_names_everything_that_is_missing_at_once(
    paths: DatabasePaths, capsys: pytest.CaptureFixture[str], action: str
) -> None:
    both = "Missing option '--reason'. Also say --strategy NAME, or --all."
    for arguments, said in (
        ([], both),
        (["--json"], both),
        (["--all"], "Missing option '--reason'."),
        (["--reason", "x"], "say --strategy NAME, or --all"),
    ):
        assert main(["kill-switch", action, *arguments]) == ExitCode.USAGE
        assert capsys.readouterr().err.rstrip().endswith(said)


def test_a_dead_letter_of_an_unknown_run_and_one_that_is_none_are_told_apart(
    paths: DatabasePaths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dlq", "show", "nosuch", "3"]) == ExitCode.USAGE
    assert f"no run 'nosuch' is recorded in {paths.database}; `horizon runs` shows" in capsys.readouterr().err
    assert main(["dlq", "show", "run-1", "2"]) == ExitCode.USAGE
    assert "record 2 of run run-1 is no dead letter; `horizon dlq list --all` shows them" in capsys.readouterr().err
    assert main(["dlq", "show", "run-1", "3"]) == ExitCode.DONE


def test_a_journal_that_nobody_has_and_a_name_that_several_have_are_told_apart(
    paths: DatabasePaths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["journal", "show", "nosuch"]) == ExitCode.USAGE
    assert f"no journal has the name 'nosuch' beside {paths.database}; there lie: none" in capsys.readouterr().err
    leave_journal(paths, Run("run-7", "maker"), 1)
    leave_journal(paths, Run("run-8", "maker"), 1)
    assert main(["journal", "show", "run-"]) == ExitCode.USAGE
    assert "'run-' is the name of 2 journals" in capsys.readouterr().err
