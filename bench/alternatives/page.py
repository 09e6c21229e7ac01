"""The tables, pragmas and rows of the persistence page, as a strategy that writes by itself would use them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import apsw
from msgspec.structs import astuple

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
_PAGE_FILL = len(FILL_COLUMNS) - 1  # the fields of Fill that the page knows come first


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
    """In the order of the columns."""
    values = (value.value if hasattr(value, "value") else value for value in astuple(event))
    return (*islice(values, _PAGE_FILL), time.time()) if isinstance(event, Fill) else tuple(values)


def insert(table: str, columns: list[str], mark: str = "?") -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join([mark] * len(columns))})"


def count(paths: Iterator[Path] | list[Path]) -> int:
    total = 0
    for path in paths:
        with closing(connect(path)) as connection:
            found: Any = connection.execute("SELECT (SELECT count(*) FROM fills) + (SELECT count(*) FROM order_events)").get
            total += int(found)
    return total
