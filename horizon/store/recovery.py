"""What a strategy's next run starts from: its newest snapshot and the fills committed after it, read-only.

By commit order and not by time: `timestamp >=` loses a late fill and doubles one on the boundary. Only what the original left, which
has no such order, is replayed by the rule of its page. Call it when every older journal of the strategy has been drained.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Context, Decimal
from typing import Any, NamedTuple

import apsw

from horizon.errors import ConfigError, RecordRejected, StoreRefused
from horizon.positions import exact
from horizon.records import Fill, OrderEvent, OrderSide, OrderStatus, OrderType, PositionRow, Side, TimeInForce
from horizon.store.controls import UnacceptedGap, control_of, gaps_of
from horizon.store.fills import fill_of
from horizon.store.snapshots import newest_snapshot, snapshot_rows
from horizon.store.sql import QUERIES
from horizon.store.transaction import newest_commit_no
from horizon.store.translate import reading

# Wide enough for any sum and product of two floats; Decimal's operators would round in a context that a strategy may have changed.
_EXACT = Context(prec=1000)


class OpenOrder(NamedTuple):
    """An order that was open when its run ended."""

    run_id: str | None  # of its newest event; None: an order of the original
    event: OrderEvent  # the newest one
    filled_size: float  # the exact sum of its recorded fills, which may be ahead of its newest event (R8)


class Recovered(NamedTuple):
    """`Book.restore(rows, fills)` gives the positions; `commit_no` is what RunStarted carries (R2)."""

    rows: tuple[PositionRow, ...]
    fills: list[Fill]  # committed after the snapshot, in commit order
    commit_no: int  # the newest place in the commit order when this was read
    open_orders: list[OpenOrder]  # in the order they were opened
    snapshot_at: float | None  # when the snapshot was taken
    kill_switch: str | None = None  # why trading is forbidden; a latch that outlives every run
    hold: str | None = None  # why the strategy may cancel but not order; also for gaps
    gaps: tuple[UnacceptedGap, ...] = ()
    kill_switch_cleared_at: float | None = None  # when it was turned off, where that was its last change
    high_water_mark: float | None = None  # as the newest snapshot had them
    daily_baseline: float | None = None


class State(NamedTuple):
    """The positions of one strategy, before folding."""

    rows: tuple[PositionRow, ...]
    fills: list[Fill]
    snapshot_at: float | None


def recover(connection: apsw.Connection, strategy: str) -> Recovered:
    """Everything a new run of the strategy needs. Changes nothing. Raises: StoreError."""
    with reading(connection):
        state = read_state(connection, strategy)
        orders = [_open_order(connection, row) for row in connection.execute(QUERIES["open_orders_of"], {"strategy": strategy})]
        commit_no = newest_commit_no(connection)
        control, gaps = control_of(connection, strategy), gaps_of(connection, strategy)
        baselines = connection.execute(QUERIES["baselines"], {"strategy": strategy}).fetchone() or (None, None)
        cleared_at = connection.execute(QUERIES["kill_switch_cleared_at"], {"strategy": strategy}).get
        return Recovered(
            state.rows, state.fills, commit_no, orders, state.snapshot_at, control.kill_switch, control.hold, gaps, cleared_at, *baselines
        )  # fmt: skip


def open_order(connection: apsw.Connection, order_id: str) -> tuple[str, OpenOrder] | None:
    """An order that is open, and its strategy; inside the caller's transaction."""
    row = connection.execute(QUERIES["open_order_by_id"], {"order_id": order_id}).fetchone()
    return None if row is None else (row[0] or "", _open_order(connection, row[1:]))


def only_strategy(connection: apsw.Connection) -> str | None:
    """The strategy of a database that knows one (R9). None: it knows none yet. Raises: ConfigError naming several."""
    with reading(connection):
        names = strategies(connection)
    if len(names) > 1:
        raise ConfigError(f"{connection.filename} holds several strategies: name one of {', '.join(names)}")
    return names[0] if names else None


def strategies(connection: apsw.Connection) -> list[str]:
    """Every strategy that has recorded something, by name."""
    return [name for (name,) in connection.execute(QUERIES["original_strategies" if is_original(connection) else "strategies"])]


def is_original(connection: apsw.Connection) -> bool:
    """Whether no writer of ours has upgraded the database yet: it has the page's columns only."""
    return bool(connection.pragma("user_version") == 0)


def read_state(connection: apsw.Connection, strategy: str) -> State:
    """Snapshot and later fills of a strategy, inside the caller's read transaction."""
    snapshot = newest_snapshot(connection, strategy)
    if snapshot is not None:
        return State(snapshot_rows(connection, snapshot), _fills(connection, strategy, snapshot.commit_no), snapshot.taken_at)
    last_original = _meta(connection, "original_commit_no")
    state = State((), [], None)
    if strategy == _meta(connection, "original_strategy"):
        state = read_original_state(connection, _meta(connection, "original_snapshot_id"), last_original)
    return state._replace(fills=state.fills + _fills(connection, strategy, last_original))


def read_original_state(connection: apsw.Connection, last_snapshot_id: int, last_rowid: int) -> State:
    """What the page says: the newest batch, then every fill with a trade time at or after it. Uses the page's columns only."""
    found: list[Any] = connection.execute(QUERIES["original_snapshot"], {"last_id": last_snapshot_id}).fetchall()
    taken_at = found[0][-1] if found else None
    fills = connection.execute(QUERIES["original_fills_since"], {"timestamp": taken_at, "last": last_rowid})
    return State(tuple(_original_row(*row[:-1]) for row in found), [fill_of(row) for row in fills], taken_at)


def _fills(connection: apsw.Connection, strategy: str, after: int) -> list[Fill]:
    ((first, last),) = connection.execute(QUERIES["fill_range_of"], {"strategy": strategy, "after": after})
    rows = connection.execute(QUERIES["fills_between"], {"strategy": strategy, "after": first, "last": last})
    return [fill_of(row) for row in rows]


def _meta(connection: apsw.Connection, key: str) -> Any:
    return connection.execute(QUERIES["meta"], {"key": key}).get


def _original_row(
    market_id: str, side: str, exchange: str, token_id: str | None, size: float, average: float, realized_pnl: float
) -> PositionRow:
    """A position of the original as exact state: its floats stand for the shortest text that gives them back."""
    try:
        cost = _EXACT.multiply(exact(size), exact(average))
        return PositionRow(market_id, Side(side.lower()), exchange, token_id, repr(size), str(cost), repr(realized_pnl), "0", "0")
    except (ValueError, AttributeError) as error:
        raise StoreRefused(f"the stored position of {market_id!r} cannot be read: {error}") from error


def _open_order(connection: apsw.Connection, row: tuple[Any, ...]) -> OpenOrder:
    run_id, opened_commit_no, *columns = row
    event = _order_event(*columns)
    key = {"market_id": event.market_id, "order_id": event.order_id, "after": opened_commit_no}
    sizes = connection.execute(QUERIES["fill_sizes_of_order"], key)
    return OpenOrder(run_id, event, _exact_sum(size for (size,) in sizes))


def _order_event(
    order_id: str, market_id: str, side: str, order_side: str, price: float, size: float, filled_size: float, remaining_size: float,
    order_type: str, time_in_force: str, status: str, status_reason: str | None, exchange: str, created_at: float, recorded_at: float,
) -> OrderEvent:  # fmt: skip
    try:
        return OrderEvent(
            order_id, market_id, Side(side.lower()), OrderSide(order_side.lower()), price, size, filled_size, remaining_size,
            OrderType(order_type.lower()), TimeInForce(time_in_force.lower()), OrderStatus(status.lower()), status_reason, exchange,
            created_at, recorded_at,
        )  # fmt: skip
    except (RecordRejected, ValueError, TypeError, AttributeError) as error:
        raise StoreRefused(f"the stored order {order_id!r} cannot be read: {error}") from error


def _exact_sum(sizes: Iterable[float]) -> float:
    total = Decimal(0)
    for size in sizes:
        total = _EXACT.add(total, exact(size))
    return float(total)
