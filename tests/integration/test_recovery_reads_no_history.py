"""A start, a recovery and the default views cost the same with 10,000 rows of history as with 1,000,000: what SQLite counts says so.

Counted are the steps of SQLite's virtual machine and its steps through whole tables, of every statement that the real functions run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

import apsw
import pytest
from store_case import Run, fill, order_event, snapshot

from horizon.paths import DatabasePaths
from horizon.records import OrderStatus, RunEnded
from horizon.store import read
from horizon.store.append import Store
from horizon.store.connection import open_reader
from horizon.store.recovery import recover, strategies

SMALL, LARGE = 10_000, 1_000_000
SMALL_TABLES = 100  # rows that may be read one by one: strategies, runs, what people decided

# One fill to three order events, as a quoting strategy makes them; the two strategies take turns.
HISTORY = """
CREATE TEMP TABLE numbers AS WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {fills})
    SELECT n, iif(n % 2, 'maker', 'taker') AS strategy, iif(n % 2, 'run-1', 'run-2') AS run_id FROM counted;
INSERT INTO fills (
    fill_id, order_id, market_id, side, order_side, price, size, timestamp, exchange, inserted_at, strategy, run_id, seq, commit_no, rowid
) SELECT format('h-%08d', n), format('o-%08d', n), 'btc', 'long', 'buy', 100.5, 0.5, 1000.0 + n, 'paper', 1000.0 + n, strategy, run_id,
    4 * n, n + 1, n + 1 FROM numbers;
INSERT INTO order_events (
    order_id, market_id, side, order_side, price, size, remaining_size, order_type, time_in_force, status, exchange, created_at,
    recorded_at, strategy, run_id, seq
) SELECT format('o-%08d', n), 'btc', 'long', 'buy', 100.5, 0.5, 0.0, 'limit', 'gtc', status, 'paper', 1000.0 + n, 1000.0 + n, strategy,
    run_id, 4 * n + place
FROM numbers, (SELECT 1 AS place, 'new' AS status UNION ALL SELECT 2, 'accepted' UNION ALL SELECT 3, 'filled');
INSERT INTO position_snapshots (
    snapshot_batch, market_id, side, size, avg_entry_price, realized_pnl, unrealized_pnl, exchange, strategy, run_id, seq, commit_no
) SELECT 1000.0 + n, 'btc', 'long', n, 100.5, 0.0, 0.0, 'paper', strategy, run_id, 4 * n, n FROM numbers WHERE n % 100 = 0;
UPDATE run_cursors SET committed_seq = 4 * {fills} + 4, last_commit_no = {fills} + 1, fills = fills + {fills} / 2
    WHERE run_id IN ('run-1', 'run-2');
UPDATE horizon_meta SET value = {fills} + 1 WHERE key = 'commit_no';
"""


class Statement(NamedTuple):
    sql: str
    steps: int
    scanned: int


class Counted(NamedTuple):
    steps: int
    scanned: int  # rows passed without an index


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> dict[int, DatabasePaths]:
    return {size: make(DatabasePaths.of(tmp_path_factory.mktemp("history") / "x.db"), size // 4) for size in (SMALL, LARGE)}


def make(paths: DatabasePaths, fills: int) -> DatabasePaths:
    """What three strategies leave: maker and taker much; one that rests has traded before all of it, and again at the end."""
    maker, taker, resting, again = (Run("run-1"), Run("run-2", "taker"), Run("run-3", "resting"), Run("run-4", "resting"))
    early = fill("early")
    resting_order = order_event("resting-order", size=9.0)
    with closing(Store(paths)) as store:
        store.append([maker.start(), taker.start(), maker.entry(resting_order)])
        store.append([resting.start(), resting.entry(early), resting.entry(snapshot([early])), resting.entry(RunEnded(1.0))])
    with closing(apsw.Connection(str(paths.database))) as connection:
        connection.execute(f"BEGIN; {HISTORY.format(fills=fills)} COMMIT; PRAGMA wal_checkpoint(TRUNCATE)")
    maker.seq = taker.seq = 4 * fills + 4
    with closing(Store(paths)) as store:
        held = [fill("held", size=3.0)]
        store.append([maker.entry(held[0]), maker.entry(snapshot(held)), taker.entry(fill("other")), taker.entry(snapshot(held))])
        store.append(
            [*maker.entries(order_event("o-1"), fill("new-1", order_id="o-1"), order_event("o-1", OrderStatus.PartiallyFilled))]
        )
        store.append([again.start(recovered_commit_no=fills + 3), again.entry(fill("late"))])
    return paths


@contextmanager
def counting() -> Iterator[list[Statement]]:
    """Every statement of every connection that is opened in the block."""
    statements: list[Statement] = []

    def note(event: dict[str, Any]) -> None:
        status = event["stmt_status"]
        statements.append(Statement(event["sql"], status["SQLITE_STMTSTATUS_VM_STEP"], status["SQLITE_STMTSTATUS_FULLSCAN_STEP"]))

    def watch(connection: apsw.Connection) -> None:
        connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, note)

    apsw.connection_hooks.append(watch)
    try:
        yield statements
    finally:
        apsw.connection_hooks.remove(watch)


def total(statements: list[Statement]) -> Counted:
    return Counted(sum(one.steps for one in statements), sum(one.scanned for one in statements))


QUESTIONS: dict[str, Callable[[apsw.Connection], object]] = {
    "recovery": lambda connection: recover(connection, "maker"),
    "recovery of a strategy that had rested": lambda connection: recover(connection, "resting"),
    "recovery of a new strategy": lambda connection: recover(connection, "newcomer"),
    "whose database it is": strategies,
    "the newest fill": lambda connection: read.fills(connection, strategy="maker", limit=1),
    "the newest fill of a strategy that rests": lambda connection: read.fills(connection, strategy="resting", limit=1),
    "the newest fill of a new strategy": lambda connection: read.fills(connection, strategy="newcomer", limit=1),
    "a known fill": lambda connection: read.fill_by_id(connection, "h-00000077"),
    "an unknown fill": lambda connection: read.fill_by_id(connection, "nobody's"),
    "whose run it is": lambda connection: read.strategy_of_run(connection, "run-1"),
    "horizon fills": read.fills,
    "horizon fills --market": lambda connection: read.fills(connection, market="btc"),
    "horizon fills --strategy": lambda connection: read.fills(connection, strategy="maker"),
    "horizon fills --market --strategy": lambda connection: read.fills(connection, market="btc", strategy="maker"),
    "the fills of a new strategy in a market": lambda connection: read.fills(connection, market="btc", strategy="newcomer"),
    "horizon positions": read.positions,
    "horizon orders": read.orders,
    "horizon runs": read.runs,
    "horizon runs --since": lambda connection: read.runs(connection, since=0.0),
    "horizon summary": read.summary,
}
# Goes backwards through the events, and stops when it has seen enough orders.
UNTIL_ENOUGH: dict[str, Callable[[apsw.Connection], object]] = {
    "horizon orders --all": lambda connection: read.orders(connection, all_=True)
}


@pytest.mark.parametrize("question", [*QUESTIONS, *UNTIL_ENOUGH])
def test_what_is_asked_at_a_start_and_in_a_default_view_reads_no_history(
    question: str, databases: dict[int, DatabasePaths]
) -> None:
    cost = {}
    for size, paths in databases.items():
        with counting() as statements, closing(open_reader(paths.database)) as reader:
            (QUESTIONS | UNTIL_ENOUGH)[question](reader)
        cost[size] = total(statements)
    assert cost[LARGE].scanned <= SMALL_TABLES, cost
    assert cost[LARGE].steps <= cost[SMALL].steps * 1.5, cost


@pytest.mark.parametrize("question", QUESTIONS)
def test_no_plan_of_a_start_or_a_default_view_goes_through_a_whole_table(
    question: str, databases: dict[int, DatabasePaths]
) -> None:
    with closing(open_reader(databases[SMALL].database)) as planner:
        with counting() as statements, closing(open_reader(databases[SMALL].database)) as reader:
            QUESTIONS[question](reader)
        selects = {one.sql for one in statements if one.sql.startswith("SELECT")}
        assert selects
        for sql in selects:
            values = dict.fromkeys(re.findall(r":(\w+)", sql), 1) or (1,) * sql.count("?")
            plan = [str(step[3]) for step in planner.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
            assert not [step for step in plan if re.match(r"SCAN (fills|order_events|position_snapshots|duplicates)\b", step)], (
                plan
            )


def test_the_restarted_writer_and_the_first_records_of_a_run_read_no_history(databases: dict[int, DatabasePaths]) -> None:
    cost = {}
    for size, paths in databases.items():
        with counting() as statements, closing(Store(paths)) as store:
            run = Run("run-5", "newcomer")
            store.append([run.start(recovered_commit_no=size // 4 + 5)])
            store.append(run.entries(fill("first"), snapshot([fill("first")]), fill("h-00000001"), RunEnded(1.0)))
        cost[size] = total(statements)
    assert cost[LARGE].scanned <= SMALL_TABLES, cost
    assert cost[LARGE].steps <= cost[SMALL].steps * 1.5, cost


def test_what_is_recovered_out_of_a_large_history_is_right(databases: dict[int, DatabasePaths]) -> None:
    with closing(open_reader(databases[LARGE].database)) as reader:
        maker, resting = recover(reader, "maker"), recover(reader, "resting")
    assert [row.size for row in maker.rows] == ["3.0"]
    assert [one.fill_id for one in maker.fills] == ["new-1"]
    assert [(order.event.order_id, order.filled_size) for order in maker.open_orders] == [("resting-order", 0.0), ("o-1", 2.0)]
    assert [row.size for row in resting.rows] == ["2.0"]
    assert [one.fill_id for one in resting.fills] == ["late"]


def test_the_databases_are_as_large_as_they_claim(databases: dict[int, DatabasePaths]) -> None:
    for size, paths in databases.items():
        with closing(open_reader(paths.database)) as reader:
            ((rows,),) = reader.execute("SELECT (SELECT count(*) FROM fills) + (SELECT count(*) FROM order_events)")
        assert rows >= size
