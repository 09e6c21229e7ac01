"""Store a snapshot: its place in the commit order, its exact state as text, and the page's columns as a rounded view of it."""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import apsw
from msgspec.structs import replace

from horizon.errors import StoreRefused
from horizon.positions import Holding, average_price, holding_of, unrealized_pnl
from horizon.records import PositionRow, PositionSnapshot, Side
from horizon.store.sql import QUERIES

BATCH_STEP_S = 1e-6  # by how much a snapshot_batch exceeds the one before when the clock does not

# Powers of ten: above, a REAL cannot show the value; below, exact sums with it would fill the memory.
_EXPONENT_MAX = 300
_EXPONENT_MIN = -2000


class Author(NamedTuple):
    """Whose snapshot it is, and the place in the commit order that it includes."""

    strategy: str
    run_id: str
    seq: int
    commit_no: int


class NewestSnapshot(NamedTuple):
    """Where a strategy's newest snapshot lies. Without positions it has no rows, and no ids."""

    commit_no: int  # of the newest fill that it includes
    taken_at: float
    first_id: int | None
    last_id: int | None


def newest_snapshot(connection: apsw.Connection, strategy: str) -> NewestSnapshot | None:
    pointer = connection.execute(QUERIES["newest_snapshot"], {"strategy": strategy}).fetchone()
    return None if pointer is None else NewestSnapshot(*pointer)


def snapshot_rows(connection: apsw.Connection, snapshot: NewestSnapshot) -> tuple[PositionRow, ...]:
    ids = {"first_id": snapshot.first_id, "last_id": snapshot.last_id}
    return tuple(
        PositionRow(market, Side(side), *rest) for market, side, *rest in connection.execute(QUERIES["snapshot_rows"], ids)
    )


def knows_all_fills(connection: apsw.Connection, author: Author) -> bool:
    """Whether no fill of another run of the strategy was committed after what this run's recovery included (R2)."""
    return not connection.execute(QUERIES["has_foreign_fills"], {"strategy": author.strategy, "run_id": author.run_id}).get


def store_snapshot(connection: apsw.Connection, author: Author, snapshot: PositionSnapshot) -> int:
    """Store a snapshot and return the number of its rows: none when it equals the strategy's last one, whose place then moves (R6).

    Raises: StoreRefused when a row is not the state of a position.
    """
    if not math.isfinite(snapshot.taken_at):
        raise StoreRefused(f"snapshot: taken_at must be a finite number, got {snapshot.taken_at}")
    columns = [_columns(row, author) for row in snapshot.rows]
    last = newest_snapshot(connection, author.strategy)
    if last is not None and _is_same(snapshot_rows(connection, last), snapshot.rows):
        ids = (last.first_id, last.last_id)
        columns = []
    else:
        ids = _insert(connection, snapshot.taken_at, columns)
    pointer = {
        **author._asdict(),
        "taken_at": snapshot.taken_at,
        "first_id": ids[0],
        "last_id": ids[1],
        "high_water_mark": snapshot.high_water_mark,
        "daily_baseline": snapshot.daily_baseline,
    }
    connection.execute(QUERIES["point_to_snapshot"], pointer)
    return len(columns)


def _columns(row: PositionRow, author: Author) -> tuple[Any, ...]:
    """The columns of a row, without the batch it belongs to."""
    holding = _checked(row)
    return (
        row.market_id, row.side, float(holding.size), float(average_price(holding)), float(holding.realized_pnl),
        float(unrealized_pnl(holding, row.mark)), row.token_id, row.exchange, *author, row.size, row.cost, row.realized_pnl,
        row.fees, row.base_fees, row.multiplier, row.mark,
    )  # fmt: skip


def _checked(row: PositionRow) -> Holding:
    """Refuse texts that are no numbers, and numbers that no fold of fills gives."""
    try:
        holding = holding_of(row)
    except InvalidOperation as error:
        raise StoreRefused(f"snapshot: the state of {row.market_id!r} is not a number") from error
    values = (holding.size, holding.cost, holding.realized_pnl, holding.fees, holding.base_fees)
    if not all(value.is_finite() and _EXPONENT_MIN < value.adjusted() < _EXPONENT_MAX for value in values):
        raise StoreRefused(f"snapshot: the state of {row.market_id!r} is beyond any number that can be stored")
    if not (math.isfinite(row.multiplier) and math.isfinite(row.mark or 0.0)):
        raise StoreRefused(f"snapshot: multiplier and mark of {row.market_id!r} must be finite numbers")
    return holding


def _is_same(stored: tuple[PositionRow, ...], rows: tuple[PositionRow, ...]) -> bool:
    """Equal but for the marks of flat positions, which value nothing: a resting strategy shall store no rows while prices move."""
    return len(stored) == len(rows) and all(
        old == new or (Decimal(new.size).is_zero() and old == replace(new, mark=old.mark))
        for old, new in zip(stored, rows, strict=True)
    )


def _insert(connection: apsw.Connection, taken_at: float, columns: list[tuple[Any, ...]]) -> tuple[int | None, int | None]:
    """Insert rows as one batch and return their first and last id, which lie close together: only this connection writes."""
    if not columns:
        return None, None
    last_batch = connection.execute(QUERIES["meta"], {"key": "snapshot_batch"}).get
    batch = max(taken_at, last_batch + BATCH_STEP_S, math.nextafter(last_batch, math.inf))
    connection.execute(QUERIES["set_meta"], {"key": "snapshot_batch", "value": batch})
    connection.executemany(QUERIES["insert_snapshot_row"], [(batch, *values) for values in columns])
    last_id = connection.last_insert_rowid()
    return last_id - len(columns) + 1, last_id
