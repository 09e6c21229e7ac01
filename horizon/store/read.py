"""What people ask of a database: fills, orders, positions, runs. Read-only; everything is fetched before it is returned (R28).

Newest first by commit order. The default views touch as many rows as they show, however large the tables are. A database of the
original, which no writer has upgraded yet, is shown by the page's columns alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import apsw

from horizon.positions import Book
from horizon.records import OPEN_STATUSES, Fill
from horizon.store.fills import fill_of, stored_fill
from horizon.store.recovery import State, is_original, read_original_state, read_state, strategies
from horizon.store.sql import QUERIES
from horizon.store.translate import reading

_ALL = -1  # SQLite's word for no limit
_LAST_ID = (1 << 63) - 1


class FillRow(NamedTuple):
    """A row of `fills`: the page's columns, then ours, which are None in what the original wrote."""

    fill_id: str
    order_id: str
    market_id: str
    side: str
    order_side: str
    price: float
    size: float
    fee: float
    timestamp: float
    token_id: str | None
    exchange: str
    inserted_at: float
    strategy: str | None = None
    run_id: str | None = None
    seq: int | None = None
    commit_no: int | None = None
    is_maker: int | None = None
    multiplier: float | None = None
    fee_currency: str | None = None


class OrderRow(NamedTuple):
    """The newest event of an order."""

    order_id: str
    market_id: str
    side: str
    order_side: str
    price: float
    size: float
    filled_size: float
    remaining_size: float
    order_type: str
    time_in_force: str
    status: str
    status_reason: str | None
    exchange: str
    created_at: float
    recorded_at: float
    strategy: str | None = None
    run_id: str | None = None


class PositionView(NamedTuple):
    """A position of one strategy as of its newest committed fill, valued at the mark of its newest snapshot."""

    strategy: str
    exchange: str
    market_id: str
    side: str
    size: float  # signed
    avg_entry_price: float
    realized_pnl: float
    unrealized_pnl: float
    fees: float
    base_fees: float
    token_id: str | None
    multiplier: float


class RunRow(NamedTuple):
    """A run, and what became of its records."""

    run_id: str
    strategy: str
    exchange: str
    started_at: float
    ended_at: float | None
    config: str | None
    status: str | None = None  # running, ended, died
    end_reason: str | None = None
    pid: int | None = None
    committed_seq: int = 0
    fills: int = 0
    order_events: int = 0
    orders: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    snapshots_refused: int = 0


class StrategySummary(NamedTuple):
    """Totals over all runs of a strategy."""

    strategy: str
    runs: int
    orders: int
    order_events: int
    fills: int
    open_orders: int
    duplicates: int
    dead_letters: int
    gaps: int  # records that a damaged journal could not give back


def fills(
    connection: apsw.Connection,
    *,
    strategy: str | None = None,
    market: str | None = None,
    since: float | None = None,
    limit: int | None = 50,
) -> list[FillRow]:
    """Fills, newest first; `since` is a trade time in Unix seconds, limit None is all of them."""
    with reading(connection):
        query = "newest_fills" if market is None else "newest_fills_of_market"
        values = {"strategy": strategy, "market": market, "since": since, "limit": _limit(limit)}
        if not is_original(connection):
            return [FillRow(*row) for row in connection.execute(QUERIES[query], values)]
        name = _original_strategy(connection)
        if strategy not in (None, name):
            return []
        return [FillRow(*row)._replace(strategy=name) for row in connection.execute(QUERIES["original_newest_fills"], values)]


def orders(
    connection: apsw.Connection,
    *,
    strategy: str | None = None,
    market: str | None = None,
    since: float | None = None,
    limit: int | None = 50,
    all_: bool = False,
) -> list[OrderRow]:
    """The newest event of each order, newest first; open orders only, unless `all_`. `since` is a time of recording."""
    with reading(connection):
        values = {"strategy": strategy, "market": market, "since": since, "limit": _limit(limit)}
        if not is_original(connection):
            if not all_:
                return [OrderRow(*row) for row in connection.execute(QUERIES["newest_open_orders"], values)]
            return _newest_of_each_order(
                (OrderRow(*row) for row in connection.execute(QUERIES["newest_order_events"], values)), limit
            )
        name = _original_strategy(connection)
        if strategy not in (None, name):
            return []
        events = (
            OrderRow(*row)._replace(strategy=name) for row in connection.execute(QUERIES["original_newest_order_events"], values)
        )
        return _newest_of_each_order(events, limit, open_only=not all_)


def positions(connection: apsw.Connection, *, strategy: str | None = None, market: str | None = None) -> list[PositionView]:
    """Every position, flat ones too: they hold realized PnL and fees. By strategy, in the order the positions were opened."""
    with reading(connection):
        views = [view for name, state in _states(connection, strategy) for view in _position_views(name, state)]
    return [view for view in views if market in (None, view.market_id)]


def runs(
    connection: apsw.Connection,
    *,
    strategy: str | None = None,
    market: str | None = None,
    since: float | None = None,
    limit: int | None = 50,
) -> list[RunRow]:
    """Runs, newest first: those with a fill in a market, which reads all fills of it; those that still ran at a time."""
    with reading(connection):
        query = "original_newest_runs" if is_original(connection) else "newest_runs"
        values = {"strategy": strategy, "market": market, "since": since, "limit": _limit(limit)}
        return [RunRow(*row) for row in connection.execute(QUERIES[query], values)]


def summary(connection: apsw.Connection) -> list[StrategySummary]:
    """What the database holds, per strategy; of a database of the original only what it knows."""
    with reading(connection):
        if not is_original(connection):
            return [StrategySummary(*row) for row in connection.execute(QUERIES["summary"])]
        events = (
            OrderRow(*row) for row in connection.execute(QUERIES["original_newest_order_events"], {"market": None, "since": None})
        )
        open_orders = _newest_of_each_order(events, None, open_only=True)
        counts: Any = connection.execute(QUERIES["original_summary"]).get
        values = [_original_strategy(connection), *counts, len(open_orders), 0, 0, 0]
        return [StrategySummary(*values)]


def volumes(connection: apsw.Connection) -> dict[str, float]:
    """The money that each strategy's fills moved: the sum of price x size x multiplier. Reads every fill."""
    with reading(connection):
        if is_original(connection):
            volume: Any = connection.execute(QUERIES["original_volume"]).get
            return {_original_strategy(connection): volume}
        return dict(connection.execute(QUERIES["volumes"]))


def fill_by_id(connection: apsw.Connection, fill_id: str) -> tuple[str, Fill] | None:
    """The strategy and the content of a stored fill (R1); the strategy is '' when a program of the original inserted it."""
    with reading(connection):
        if not is_original(connection):
            stored = stored_fill(connection, fill_id)
            return None if stored is None else (stored.strategy or "", stored.fill)
        row = connection.execute(QUERIES["original_fill_by_id"], {"fill_id": fill_id}).fetchone()
        return None if row is None else (_original_strategy(connection), fill_of(row))


def strategy_of_run(connection: apsw.Connection, run_id: str) -> str | None:
    """Whose run it is: a venue reports fills of orders that an earlier run sent (R4)."""
    with reading(connection):
        row = None if is_original(connection) else connection.execute(QUERIES["strategy_of_run"], (run_id,)).fetchone()
    return None if row is None else str(row[0])


def _limit(limit: int | None) -> int:
    return _ALL if limit is None else limit


def _original_strategy(connection: apsw.Connection) -> str:
    """The original knows one book per file; it belongs to the strategy that ran last."""
    row = connection.execute(QUERIES["original_strategy"]).fetchone()
    return "default" if row is None else str(row[0])


def _newest_of_each_order(events: Iterable[OrderRow], limit: int | None, *, open_only: bool = False) -> list[OrderRow]:
    """Take events, newest first, until enough orders are seen."""
    seen: set[str] = set()
    found: list[OrderRow] = []
    for event in events:
        if limit is not None and len(found) >= limit:
            break
        if event.order_id not in seen:
            seen.add(event.order_id)
            if not open_only or event.status in OPEN_STATUSES:
                found.append(event)
    return found


def _states(connection: apsw.Connection, strategy: str | None) -> list[tuple[str, State]]:
    if is_original(connection):
        name = _original_strategy(connection)
        return [(name, read_original_state(connection, _LAST_ID, _LAST_ID))] if strategy in (None, name) else []
    names = strategies(connection) if strategy is None else [strategy]
    return [(name, read_state(connection, name)) for name in names]


def _position_views(strategy: str, state: State) -> Iterable[PositionView]:
    for position in Book.restore(state.rows, state.fills).all_positions():
        yield PositionView(
            strategy, position.exchange, position.market_id, position.side.value, position.size, position.avg_entry_price,
            position.realized_pnl, position.unrealized_pnl, position.fees, position.base_fees, position.token_id, position.multiplier,
        )  # fmt: skip
