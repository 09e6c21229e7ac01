"""Databases that the original wrote: opened, copied, upgraded in place, recovered by the rule of its page, and still read by its tools.

The DDL below is the page's, typed off and not taken from ours, so that a change of ours cannot hide behind itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from road import rows, script, stop_writer

from horizon.engine import Engine
from horizon.errors import StoreError
from horizon.paths import DatabasePaths
from horizon.store.connection import open_reader, open_writer
from horizon.store.migrate import NEWEST_VERSION
from horizon.store.read import fills, positions

PAGE = """
CREATE TABLE fills (
    fill_id TEXT PRIMARY KEY, order_id TEXT NOT NULL, market_id TEXT NOT NULL, side TEXT NOT NULL, order_side TEXT NOT NULL,
    price REAL NOT NULL, size REAL NOT NULL, fee REAL NOT NULL DEFAULT 0.0, timestamp REAL NOT NULL, token_id TEXT,
    exchange TEXT NOT NULL DEFAULT '', inserted_at REAL NOT NULL
);
CREATE TABLE order_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, order_id TEXT NOT NULL, market_id TEXT NOT NULL, side TEXT NOT NULL, order_side TEXT NOT NULL,
    price REAL NOT NULL, size REAL NOT NULL, filled_size REAL NOT NULL DEFAULT 0.0, remaining_size REAL NOT NULL,
    order_type TEXT NOT NULL, time_in_force TEXT NOT NULL, status TEXT NOT NULL, status_reason TEXT, exchange TEXT NOT NULL DEFAULT '',
    created_at REAL NOT NULL, recorded_at REAL NOT NULL
);
CREATE TABLE position_snapshots (
    id INTEGER PRIMARY KEY AUTOINCREMENT, snapshot_batch REAL NOT NULL, market_id TEXT NOT NULL, side TEXT NOT NULL, size REAL NOT NULL,
    avg_entry_price REAL NOT NULL, realized_pnl REAL NOT NULL, unrealized_pnl REAL NOT NULL, token_id TEXT,
    exchange TEXT NOT NULL DEFAULT ''
);
CREATE TABLE risk_events (id INTEGER PRIMARY KEY AUTOINCREMENT, event_type TEXT NOT NULL, details TEXT, timestamp REAL NOT NULL);
CREATE TABLE strategy_runs (
    run_id TEXT PRIMARY KEY, strategy_name TEXT NOT NULL, exchange TEXT NOT NULL, started_at REAL NOT NULL, ended_at REAL, config TEXT
);
"""

# A run that was killed: a snapshot at 200, two fills before it, one in its second, two behind it; one order open, one filled.
LEFT = """
INSERT INTO strategy_runs VALUES ('6f1f2c3a-0000-4000-8000-000000000001', 'weather', 'paper', 100.0, NULL, '{"interval": 0.5}');
INSERT INTO order_events (
    order_id, market_id, side, order_side, price, size, filled_size, remaining_size, order_type, time_in_force, status, exchange,
    created_at, recorded_at
) VALUES
    ('o-1', 'rain', 'yes', 'buy', 0.4, 10.0, 0.0, 10.0, 'limit', 'gtc', 'new', 'paper', 110.0, 110.0),
    ('o-2', 'snow', 'no', 'buy', 0.3, 5.0, 0.0, 5.0, 'limit', 'gtc', 'new', 'paper', 111.0, 111.0),
    ('o-1', 'rain', 'yes', 'buy', 0.4, 10.0, 10.0, 0.0, 'limit', 'gtc', 'filled', 'paper', 110.0, 230.0),
    ('o-2', 'snow', 'no', 'buy', 0.3, 5.0, 2.0, 3.0, 'limit', 'gtc', 'partially_filled', 'paper', 111.0, 231.0);
INSERT INTO fills VALUES
    ('f-1', 'o-1', 'rain', 'yes', 'buy', 0.4, 1.0, 0.001, 120.0, NULL, 'paper', 120.1),
    ('f-2', 'o-1', 'rain', 'yes', 'buy', 0.4, 2.0, 0.001, 130.0, NULL, 'paper', 130.1),
    ('f-3', 'o-1', 'rain', 'yes', 'buy', 0.4, 3.0, 0.001, 200.0, NULL, 'paper', 200.1),
    ('f-4', 'o-1', 'rain', 'yes', 'buy', 0.4, 4.0, 0.001, 230.0, NULL, 'paper', 230.1),
    ('f-5', 'o-2', 'snow', 'no', 'buy', 0.3, 2.0, 0.001, 231.0, NULL, 'paper', 231.1);
INSERT INTO position_snapshots (
    snapshot_batch, market_id, side, size, avg_entry_price, realized_pnl, unrealized_pnl, exchange
) VALUES (150.0, 'rain', 'yes', 99.0, 0.4, 0.0, 0.0, 'paper'), (200.0, 'rain', 'yes', 3.0, 0.4, 0.25, 0.0, 'paper');
INSERT INTO risk_events (event_type, details, timestamp) VALUES ('violation', 'position limit', 140.0);
"""
# By the page: the newest snapshot, then every fill at or after its time.
RECOVERED = {("rain", "yes"): 10.0, ("snow", "no"): 2.0}

# What the original's tools ask, in the words of its page and its command line.
QUESTIONS = (
    "SELECT * FROM (SELECT fill_id, order_id, market_id, side, order_side, price, size, fee, timestamp, token_id, exchange, inserted_at "
    "FROM fills ORDER BY timestamp DESC LIMIT 50)",
    "SELECT fill_id FROM fills WHERE market_id = 'rain' ORDER BY timestamp DESC LIMIT 50",
    "SELECT order_id, status, filled_size FROM order_events WHERE id IN (SELECT MAX(id) FROM order_events GROUP BY order_id) "
    "AND status IN ('new', 'submitted', 'accepted', 'partially_filled') ORDER BY id DESC LIMIT 50",
    "SELECT order_id, status FROM order_events WHERE id IN (SELECT MAX(id) FROM order_events GROUP BY order_id) ORDER BY id DESC",
    "SELECT market_id, side, size, avg_entry_price, realized_pnl, unrealized_pnl, token_id, exchange FROM position_snapshots "
    "WHERE snapshot_batch = (SELECT MAX(snapshot_batch) FROM position_snapshots)",
    "SELECT event_type, details, timestamp FROM risk_events ORDER BY timestamp",
    "SELECT run_id, strategy_name, exchange, started_at, config FROM strategy_runs ORDER BY started_at DESC",
)


@pytest.fixture
def left(tmp_path: Path) -> Iterator[DatabasePaths]:
    """What the original left: its tables, its pragmas, its rows."""
    paths = DatabasePaths.of(tmp_path / "weather.db")
    with closing(apsw.Connection(str(paths.database))) as connection:
        connection.pragma("journal_mode", "wal")
        connection.execute(PAGE + LEFT)
    yield paths
    if paths.writer_lock.exists():
        stop_writer(paths)


def answers(paths: DatabasePaths) -> list[list[tuple[object, ...]]]:
    return [rows(paths, question) for question in QUESTIONS]


def copies(paths: DatabasePaths) -> list[Path]:
    return sorted(paths.database.parent.glob("weather.db.before-upgrade-*Z"))


def test_an_engine_recovers_it_by_the_rule_of_the_page(left: DatabasePaths) -> None:
    before = answers(left)
    with Engine(db_path=str(left.database)) as engine:
        assert engine.recover_state() == 2
        assert {(one.market_id, one.side.value): one.size for one in engine.positions()} == RECOVERED
        assert engine.db_open_order_ids() == ["o-2"]
        assert engine.recover_state() == 2, "calling it twice changes nothing"
        assert answers(left) == before
    (copy,) = copies(left)
    assert answers(DatabasePaths.of(copy)) == before
    assert rows(DatabasePaths.of(copy), "PRAGMA user_version") == [(0,)]
    assert rows(left, "PRAGMA user_version") == [(NEWEST_VERSION,)]


def test_a_run_goes_on_where_the_original_stopped_and_its_tools_see_both(left: DatabasePaths) -> None:
    before = answers(left)
    program = f"""
        import horizon as hz
        from horizon.records import OrderSide, Side
        from samples import fill

        def trade(ctx):
            engine = ctx.params["engine"]
            if engine.fills_applied == 0:
                print({{(one.market_id, one.side.value): one.size for one in engine.positions()}}, flush=True)
            engine.process_fill(fill(1, fill_id="ours", market_id="rain", side=Side.Yes, price=0.4, size=0.5, timestamp=1.0))

        hz.run(name="weather", markets=["rain"], pipeline=[trade], db_path={str(left.database)!r},
               feeds={{"rain": hz.Simulated("probability", seed=1, paced=False, events=3)}})
    """
    assert run(program).stdout.splitlines() == [str(RECOVERED)]
    after = answers(left)
    # The original's tools: one fill more, its orphan ended by our paper venue, and our snapshot is the newest batch.
    assert [row for row in after[0] if row[0] != "ours"] == before[0]
    assert after[2] == []
    assert ("o-2", "canceled") in after[3]
    assert sorted((market, side, size) for market, side, size, *_ in after[4]) == [("rain", "yes", 10.5), ("snow", "no", 2.0)]
    assert rows(left, "SELECT status FROM strategy_runs ORDER BY started_at") == [("died",), ("ended",)]
    assert rows(left, "SELECT ended_at FROM strategy_runs WHERE strategy_name = 'weather' ORDER BY started_at")[1][0] > 0
    # Our fill is of an earlier trade time than everything: only the commit order keeps it.
    with closing(open_reader(left.database)) as reader:
        held = {(one.market_id, one.side): one.size for one in positions(reader, strategy="weather")}
    assert held == {("rain", "yes"): 10.5, ("snow", "no"): 2.0}


def test_a_program_of_the_original_may_still_insert_beside_our_writer(left: DatabasePaths) -> None:
    with Engine(db_path=str(left.database), strategy="weather") as engine:
        engine.start_run("weather")
        engine.flush()
        with closing(apsw.Connection(str(left.database))) as theirs:
            theirs.set_busy_timeout(5000)
            insert = (
                "INSERT OR IGNORE INTO fills (fill_id, order_id, market_id, side, order_side, price, size, timestamp, inserted_at) "
                "VALUES ('theirs', 'o-9', 'rain', 'yes', 'buy', 0.5, 1.0, 300.0, 300.0)"
            )
            theirs.execute(insert)
            theirs.execute(insert)
        with closing(open_reader(left.database)) as reader:
            assert [row.fill_id for row in fills(reader, limit=1)] == ["theirs"]


def test_a_new_strategy_on_it_does_not_read_through_what_the_original_left(left: DatabasePaths) -> None:
    with closing(apsw.Connection(str(left.database))) as connection:
        connection.execute(
            "WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < 20000) INSERT INTO fills "
            "SELECT 'more-' || n, 'o', 'rain', 'yes', 'buy', 0.4, 1.0, 0.0, 300.0, NULL, 'paper', 300.0 FROM counted"
        )
    open_writer(left.database, "process").close()
    passed = 0

    def count() -> bool:
        nonlocal passed
        passed += 1
        return False

    with closing(open_reader(left.database)) as reader:
        assert len(fills(reader, strategy="weather", limit=3)) == 3
        reader.set_progress_handler(count, 100)
        assert fills(reader, strategy="newcomer") == []
    assert passed < 10


# ---- what is refused, and left as it was


def content(paths: DatabasePaths) -> bytes:
    """Of the file itself; whoever asks holds no connection to it."""
    return paths.database.read_bytes()


def test_a_newer_schema_is_refused_and_left_as_it_is(left: DatabasePaths) -> None:
    with closing(apsw.Connection(str(left.database))) as connection:
        connection.pragma("user_version", NEWEST_VERSION + 1)
    before = content(left)
    with pytest.raises(
        StoreError, match=f"has schema version {NEWEST_VERSION + 1} and this Horizon knows up to {NEWEST_VERSION}"
    ):
        Engine(db_path=str(left.database), strategy="weather")
    stop_writer(left)
    assert content(left) == before
    assert copies(left) == []


def test_a_damaged_database_is_refused_and_left_as_it_is(left: DatabasePaths) -> None:
    ((page,),) = rows(left, "SELECT rootpage FROM sqlite_schema WHERE name = 'order_events'")
    with left.database.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    before = content(left)
    with pytest.raises(StoreError, match=r"weather\.db is damaged"):
        Engine(db_path=str(left.database), strategy="weather")
    stop_writer(left)
    assert content(left) == before


@pytest.mark.parametrize(
    "moment",
    [
        "Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)",  # the copy is written and has no name yet
        "apsw.connection_hooks.append(lambda c: c.set_commit_hook(lambda: os.kill(os.getpid(), signal.SIGKILL)))",  # amid the migration
        "migrate.QUERIES = Killing(migrate.QUERIES)",  # between two migrations
    ],
    ids=["while copying", "at the commit", "between migrations"],
)
def test_an_upgrade_that_was_killed_is_begun_again_and_finished(left: DatabasePaths, moment: str) -> None:
    before = answers(left)
    killed = run(f"""
        import os, signal
        from pathlib import Path
        import apsw
        from horizon.store import migrate
        from horizon.store.connection import open_writer

        class Killing(dict):
            def __getitem__(self, name):
                if name == "add_migration":
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().__getitem__(name)

        {moment}
        open_writer(Path({str(left.database)!r}), "process")
    """)
    assert killed.returncode == -signal.SIGKILL
    assert rows(left, "PRAGMA user_version") == [(0,)], "the old schema or the new one, nothing in between"
    assert answers(left) == before
    with Engine(db_path=str(left.database)) as engine:
        assert engine.recover_state() == 2
        assert {(one.market_id, one.side.value): one.size for one in engine.positions()} == RECOVERED
    assert answers(left)[0] == before[0]
    assert rows(left, "PRAGMA integrity_check") == [("ok",)]
    assert not left.database.with_name("weather.db.before-upgrade.partial").exists(), "no half copy stays"
    assert [answers(DatabasePaths.of(copy)) for copy in copies(left)] == [before] * len(copies(left))


def run(program: str) -> subprocess.CompletedProcess[str]:
    tests = Path(script(""))
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])},
    )
