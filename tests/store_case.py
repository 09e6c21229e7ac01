"""What the tests of the store share: short ways to write records and entries, and to read what became of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import apsw
import msgspec

from horizon.paths import DatabasePaths
from horizon.positions import Book
from horizon.records import (
    Fill,
    OrderEvent,
    OrderSide,
    OrderStatus,
    OrderType,
    PositionSnapshot,
    Record,
    RunStarted,
    Side,
    TimeInForce,
)
from horizon.store.append import Stretch
from horizon.store.sql import SCHEMA

PAGE_COLUMNS = {
    "fills": "fill_id order_id market_id side order_side price size fee timestamp token_id exchange inserted_at",
    "order_events": "id order_id market_id side order_side price size filled_size remaining_size order_type time_in_force status "
    "status_reason exchange created_at recorded_at",
    "position_snapshots": "id snapshot_batch market_id side size avg_entry_price realized_pnl unrealized_pnl token_id exchange",
    "risk_events": "id event_type details timestamp",
    "strategy_runs": "run_id strategy_name exchange started_at ended_at config",
}


class FixedClock:
    """A clock that stands still until it is set."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.time = now

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


class Run:
    """One run of a strategy, which numbers its records as a recorder does."""

    def __init__(self, run_id: str = "run-1", strategy: str = "maker") -> None:
        self.run_id = run_id
        self.strategy = strategy
        self.seq = 0

    def entry(self, record: Record | None, problem: str | None = None) -> Stretch:
        self.seq += 1
        payload = b"\xc1garbage" if record is None else msgspec.msgpack.encode(record)
        return Stretch(self.run_id, self.strategy, self.seq, [payload], [record], {} if problem is None else {self.seq: problem})

    def entries(self, *records: Record | None) -> list[Stretch]:
        return [self.entry(record) for record in records]

    def start(self, recovered_commit_no: int = 0) -> Stretch:
        return self.entry(RunStarted(self.strategy, "paper", 1000.0, "{}", 4711, recovered_commit_no))


def fill(fill_id: str, **changes: Any) -> Fill:
    values: dict[str, Any] = {
        "order_id": "order-1", "market_id": "btc", "side": Side.Long, "order_side": OrderSide.Buy, "price": 100.5, "size": 2.0,
        "fee": 0.01, "timestamp": 1000.0, "exchange": "paper",
    }  # fmt: skip
    return Fill(fill_id, **{**values, **changes})


def order_event(order_id: str, status: OrderStatus = OrderStatus.New, **changes: Any) -> OrderEvent:
    values: dict[str, Any] = {
        "market_id": "btc", "side": Side.Long, "order_side": OrderSide.Buy, "price": 100.5, "size": 2.0, "filled_size": 0.0,
        "remaining_size": 2.0, "order_type": OrderType.Limit, "time_in_force": TimeInForce.GTC, "status_reason": None,
        "exchange": "paper", "created_at": 999.0, "recorded_at": 1000.0,
    }  # fmt: skip
    return OrderEvent(order_id, status=status, **{**values, **changes})


def snapshot(fills: Iterable[Fill], taken_at: float = 1000.0, marks: dict[str, float] | None = None) -> PositionSnapshot:
    """What a run would snapshot after these fills."""
    book = Book.restore((), fills)
    for market, mark in (marks or {}).items():
        book.mark(market, Side.Long, mark)
    return PositionSnapshot(taken_at, book.snapshot())


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """Ask a database through a connection of its own."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return [tuple(row) for row in connection.execute(sql)]
    finally:
        connection.close()


def original_database(path: Path, script: str = "") -> None:
    """A database as the original leaves it: the page's tables in WAL mode, user_version 0."""
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "wal")
    connection.execute(SCHEMA)
    connection.execute(script)
    connection.close()


def fate_of_every_seq(paths: DatabasePaths, run_id: str) -> dict[int, list[str]]:
    """Where each seq of a run ended: every list has one element when nothing is lost and nothing is double."""
    fates: dict[int, list[str]] = {}
    queries = {
        "fill": "SELECT seq FROM fills WHERE run_id = '{}'",
        "order event": "SELECT seq FROM order_events WHERE run_id = '{}'",
        "risk event": "SELECT seq FROM risk_events WHERE run_id = '{}'",
        "snapshot": "SELECT DISTINCT seq FROM position_snapshots WHERE run_id = '{}'",
        "start": "SELECT seq FROM strategy_runs WHERE run_id = '{}'",
        "end": "SELECT ended_seq FROM strategy_runs WHERE run_id = '{}' AND ended_seq IS NOT NULL",
        "duplicate": "SELECT seq FROM duplicates WHERE run_id = '{}'",
    }
    for fate, sql in queries.items():
        for (seq,) in rows(paths.database, sql.format(run_id)):
            fates.setdefault(seq, []).append(fate)
    for (seq,) in rows(paths.dead_letters, f"SELECT seq FROM dead_letters WHERE run_id = '{run_id}'"):
        fates.setdefault(seq, []).append("dead letter")
    for first, last in rows(paths.database, f"SELECT from_seq, to_seq FROM run_gaps WHERE run_id = '{run_id}'"):
        for seq in range(first, last + 1):
            fates.setdefault(seq, []).append("gap")
    return fates
