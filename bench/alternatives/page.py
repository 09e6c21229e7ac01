"""The tables, pragmas and rows of the persistence page, as a strategy that writes by itself would use them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw

import horizon.store
from bench.alternatives.way import Event
from horizon.records import Fill

TABLES = (Path(horizon.store.__file__).parent / "schema.sql").read_text()
PRAGMAS = {
    "journal_mode": "WAL",
    "synchronous": "NORMAL",
    "cache_size": "-8000",
    "temp_store": "MEMORY",
    "mmap_size": "268435456",
    "busy_timeout": "5000",
}
# fmt: off
FILL_COLUMNS = [
    "fill_id", "order_id", "market_id", "side", "order_side", "price", "size", "fee", "timestamp", "token_id", "exchange", "inserted_at",
]
ORDER_EVENT_COLUMNS = [
    "order_id", "market_id", "side", "order_side", "price", "size", "filled_size", "remaining_size", "order_type", "time_in_force",
    "status", "status_reason", "exchange", "created_at", "recorded_at",
]
# fmt: on


def make_tables(path: Path) -> None:
    with closing(connect(path)) as connection:
        connection.execute(TABLES)


def connect(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(5000)
    for name, value in PRAGMAS.items():
        connection.pragma(name, value)
    return connection


def row(event: Event) -> tuple[Any, ...]:
    """In the order of the columns, written out: what it costs is every other way's, so it must not be slow."""
    e = event
    if isinstance(e, Fill):
        return (
            e.fill_id, e.order_id, e.market_id, e.side._value_, e.order_side._value_, e.price, e.size, e.fee, e.timestamp,
            e.token_id, e.exchange, time.time(),
        )  # fmt: skip
    return (
        e.order_id, e.market_id, e.side._value_, e.order_side._value_, e.price, e.size, e.filled_size, e.remaining_size,
        e.order_type._value_, e.time_in_force._value_, e.status._value_, e.status_reason, e.exchange, e.created_at, e.recorded_at,
    )  # fmt: skip


def insert(table: str, columns: list[str], mark: str = "?") -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join([mark] * len(columns))})"


def count(paths: Iterable[Path]) -> int:
    total = 0
    for path in paths:
        with closing(connect(path)) as connection:
            found: Any = connection.execute("SELECT (SELECT count(*) FROM fills) + (SELECT count(*) FROM order_events)").get
            total += int(found)
    return total
