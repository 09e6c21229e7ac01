"""A database as years of trading leave it, made in a minute: ten strategies, twenty markets each, and nothing wrong in it.

A run has 100,000 fills in orders of five, and as many order events; ten snapshots; ids as Horizon makes them; prices on ticks of 0.01,
sizes and fees that hardly repeat. The strategies take turns of 10,000 fills, and the last run of each is still open, with orders.
Every run trades the same round, which ends flat, so that a snapshot follows from the rounds before it: `horizon db check` folds
all fills one by one and finds the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from typing import Any, NamedTuple

import apsw

from horizon.ids import new_run_id, order_id
from horizon.paths import DatabasePaths
from horizon.positions import EXACT, Holding, average_price, fold
from horizon.records import Fill, OrderSide, Side
from horizon.store.append import Store

TURN_FILLS = 10_000  # of one strategy, and a snapshot behind them
MARKETS = 20
_ORDER_FILLS = 5
_ORDER_RECORDS = 10  # new, accepted, fill, fill, partially filled, fill, fill, partially filled, fill, filled
_TURNS = 10  # of a run
_RUN_FILLS = _TURNS * TURN_FILLS
_TURN_ORDERS = TURN_FILLS // _ORDER_FILLS
_RUN_ORDERS = _TURNS * _TURN_ORDERS
_MARKET_FILLS = _RUN_FILLS // MARKETS  # of a round
_OPEN_ORDERS = 100  # of each strategy
_BEGAN = 1_700_000_000.0
_FILL_S = 0.01  # between two fills

# Between rounds and rows: fill n of all is fill i of a strategy's run; its order is the o-th of the run; markets take turns by order.
_FILLS = """
INSERT INTO fills (
    rowid, fill_id, order_id, market_id, side, order_side, price, size, fee, timestamp, exchange, inserted_at, strategy, run_id, seq,
    commit_no, is_maker, multiplier, fee_currency
)
WITH RECURSIVE counted(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM counted WHERE n + 1 < :fills),
placed AS (
    SELECT n, n / :turn % :strategies AS s, n / :turn / :strategies / 10 AS k, n / :turn / :strategies % 10 * :turn + n % :turn AS i
    FROM counted
)
SELECT n + 1, format('%s-%08d-%04d', runs.run_id, i / 5 + 1, i % 5 + 1), format('%s-%08d', runs.run_id, i / 5 + 1), round.market_id,
       'long', round.order_side, round.price, round.size, round.fee, :began + n * :step, 'paper', :began + n * :step, runs.strategy,
       runs.run_id, 2 + 10 * (i / 5) + i / :turn + CASE i % 5 WHEN 0 THEN 2 WHEN 1 THEN 3 WHEN 2 THEN 5 WHEN 3 THEN 6 ELSE 8 END,
       n + 1, 0, 1.0, 'quote'
FROM placed
CROSS JOIN runs ON runs.rowid = k * :strategies + s
CROSS JOIN round ON round.rowid = (s * 20 + i / 5 % 20) * 5000 + i / 100 * 5 + i % 5
"""
_ORDER_EVENTS = """
INSERT INTO order_events (
    order_id, market_id, side, order_side, price, size, filled_size, remaining_size, order_type, time_in_force, status, exchange,
    created_at, recorded_at, strategy, run_id, seq
)
WITH RECURSIVE counted(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM counted WHERE n + 1 < :fills),
placed AS (
    SELECT n, n / :turn % :strategies AS s, n / :turn / :strategies / 10 AS k, n / :turn / :strategies % 10 * :turn + n % :turn AS i
    FROM counted
)
SELECT format('%s-%08d', runs.run_id, i / 5 + 1), orders.market_id, 'long', orders.order_side, orders.price, orders.size,
       CASE i % 5 WHEN 2 THEN orders.after_two WHEN 3 THEN orders.after_four WHEN 4 THEN orders.size ELSE 0.0 END,
       CASE i % 5 WHEN 2 THEN round(orders.size - orders.after_two, 3) WHEN 3 THEN round(orders.size - orders.after_four, 3)
                  WHEN 4 THEN 0.0 ELSE orders.size END,
       'limit', 'gtc',
       CASE i % 5 WHEN 0 THEN 'new' WHEN 1 THEN 'accepted' WHEN 4 THEN 'filled' ELSE 'partially_filled' END,
       'paper', :began + n * :step, :began + n * :step, runs.strategy, runs.run_id,
       2 + 10 * (i / 5) + i / :turn + CASE i % 5 WHEN 0 THEN 0 WHEN 1 THEN 1 WHEN 2 THEN 4 WHEN 3 THEN 7 ELSE 9 END
FROM placed
CROSS JOIN runs ON runs.rowid = k * :strategies + s
CROSS JOIN orders ON orders.rowid = (s * 20 + i / 5 % 20) * 1000 + i / 100
"""
_TABLES = """
CREATE TEMP TABLE runs (run_id TEXT, strategy TEXT);
CREATE TEMP TABLE round (market_id TEXT, order_side TEXT, price REAL, size REAL, fee REAL);
CREATE TEMP TABLE orders (market_id TEXT, order_side TEXT, price REAL, size REAL, after_two REAL, after_four REAL);
"""
_SNAPSHOT_ROW = """
INSERT INTO position_snapshots (
    snapshot_batch, market_id, side, size, avg_entry_price, realized_pnl, unrealized_pnl, exchange, strategy, run_id, seq, commit_no,
    exact_size, exact_cost, exact_realized_pnl, exact_fees, exact_base_fees, multiplier
) VALUES (?, ?, 'long', ?, ?, ?, 0.0, 'paper', ?, ?, ?, ?, ?, ?, ?, ?, ?, 1.0)
"""
_RUN = """
INSERT INTO strategy_runs (
    run_id, strategy_name, exchange, started_at, ended_at, strategy, seq, ended_seq, pid, status, end_reason, recovered_commit_no
) VALUES (?1, ?2, 'paper', ?3, ?4, ?2, 1, ?5, 1, ?6, NULL, ?7)
"""
_CURSOR = """
INSERT INTO run_cursors (run_id, strategy, committed_seq, last_commit_no, fills, order_events, orders) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_OPEN_EVENT = """
INSERT INTO order_events (
    order_id, market_id, side, order_side, price, size, remaining_size, order_type, time_in_force, status, exchange, created_at,
    recorded_at, strategy, run_id, seq
) VALUES (?1, ?2, 'long', 'buy', 1.0, 1.0, 1.0, 'limit', 'gtc', 'new', 'paper', ?3, ?3, ?4, ?5, ?6)
"""
_OPEN_ORDER = """
INSERT INTO open_orders (
    order_id, market_id, side, order_side, price, size, filled_size, remaining_size, order_type, time_in_force, status, exchange,
    created_at, recorded_at, strategy, run_id, seq, opened_commit_no
) VALUES (?1, ?2, 'long', 'buy', 1.0, 1.0, 0.0, 1.0, 'limit', 'gtc', 'new', 'paper', ?3, ?3, ?4, ?5, ?6, ?7)
"""

_POINTER = """
INSERT INTO newest_snapshots (strategy, run_id, seq, commit_no, taken_at, first_id, last_id) VALUES (?, ?, ?, ?, ?, ?, ?)
"""


class History(NamedTuple):
    """What was made."""

    fills: int
    strategies: list[str]  # the last one has the last 10,000 fills of all
    markets: list[str]


class _Round(NamedTuple):
    """What a strategy trades in one market in a run."""

    fills: list[tuple[str, float, float, float]]  # order_side, price, size, fee
    holdings: list[Holding]  # after each of the turns, from flat


def make_history(paths: DatabasePaths, runs_each: int = 10, strategies: int = 10) -> History:
    """Make a database with 100,000 fills and as many order events for each run; 10 million with the defaults, in 5 GB."""
    with closing(Store(paths)):
        pass
    made = History(
        runs_each * strategies * _RUN_FILLS,
        [f"strategy-{number:02d}" for number in range(strategies)],
        [f"market-{number:02d}" for number in range(MARKETS)],
    )
    with closing(apsw.Connection(str(paths.database))) as connection:
        connection.pragma("journal_mode", "off")
        connection.pragma("synchronous", "off")
        connection.pragma("cache_size", -200_000)
        connection.execute(_TABLES)
        indexes = [
            sql for (sql,) in connection.execute("SELECT sql FROM sqlite_schema WHERE name IN ('fills_market', 'fills_order')")
        ]
        connection.execute("BEGIN; DROP INDEX fills_market; DROP INDEX fills_order")
        _fill_tables(connection, made, runs_each)
        for sql in indexes:
            connection.execute(sql)
        connection.execute("COMMIT")
        connection.pragma("journal_mode", "wal")
    return made


def _fill_tables(connection: apsw.Connection, made: History, runs_each: int) -> None:
    strategies = len(made.strategies)
    rng = random.Random(5)
    rounds = [[_round(rng, market) for market in made.markets] for _ in made.strategies]
    runs = [(new_run_id(), strategy) for _ in range(runs_each) for strategy in made.strategies]
    connection.executemany(
        "INSERT INTO runs (rowid, run_id, strategy) VALUES (?, ?, ?)", ((n, *run) for n, run in enumerate(runs))
    )
    flat = ((market, *fill) for of_one in rounds for market, one in zip(made.markets, of_one, strict=True) for fill in one.fills)
    connection.executemany(
        "INSERT INTO round (rowid, market_id, order_side, price, size, fee) VALUES (?, ?, ?, ?, ?, ?)",
        ((n, *fill) for n, fill in enumerate(flat)),
    )
    connection.execute("""
        INSERT INTO orders (rowid, market_id, order_side, price, size, after_two, after_four)
        SELECT rowid / 5, market_id, order_side, price, round(sum(size), 3), round(sum(iif(rowid % 5 < 2, size, 0)), 3),
               round(sum(iif(rowid % 5 < 4, size, 0)), 3)
        FROM round GROUP BY rowid / 5
    """)
    bindings = {"fills": made.fills, "turn": TURN_FILLS, "strategies": strategies, "began": _BEGAN, "step": _FILL_S}
    connection.execute(_FILLS, bindings)
    connection.execute(_ORDER_EVENTS, bindings)
    _store_snapshots(connection, made, rounds, runs)
    for number, (run_id, strategy) in enumerate(runs):
        _store_run(connection, made, run_id, strategy, number // strategies, number >= len(runs) - strategies)
    connection.execute("UPDATE horizon_meta SET value = ? WHERE key = 'commit_no'", (made.fills,))
    connection.execute(
        "UPDATE horizon_meta SET value = (SELECT max(snapshot_batch) FROM position_snapshots) WHERE key = 'snapshot_batch'"
    )


def _store_snapshots(connection: apsw.Connection, made: History, rounds: list[list[_Round]], runs: list[tuple[str, str]]) -> None:
    """One behind every turn: in the commit order, as the writer stores them."""
    strategies = len(made.strategies)
    for number in range(made.fills // TURN_FILLS):
        turns, s = divmod(number, strategies)
        k, turn = divmod(turns, _TURNS)
        run_id, strategy = runs[k * strategies + s]
        place = (number + 1) * TURN_FILLS
        author = (strategy, run_id, _snapshot_seq(turn), place)
        markets = zip(made.markets, rounds[s], strict=True)
        rows = [(_BEGAN + place * _FILL_S, market, *_columns(one, k, turn, author)) for market, one in markets]
        connection.executemany(_SNAPSHOT_ROW, rows)


def _snapshot_seq(turn: int) -> int:
    return 2 + _ORDER_RECORDS * _TURN_ORDERS * (turn + 1) + turn


def _store_run(connection: apsw.Connection, made: History, run_id: str, strategy: str, k: int, is_open: bool) -> None:
    """The run and its cursor; one that is open also has the pointer to its snapshot, and orders."""
    strategies, s = len(made.strategies), made.strategies.index(strategy)
    first = (k * _TURNS * strategies + s) * TURN_FILLS
    last = first + ((_TURNS - 1) * strategies + 1) * TURN_FILLS
    started_at, ended_at = _BEGAN + first * _FILL_S, _BEGAN + last * _FILL_S
    before = first - (strategies - 1) * TURN_FILLS if k else 0
    ended = _snapshot_seq(_TURNS - 1) + 1
    opened = _OPEN_ORDERS if is_open else 0
    outcome = (None, None, "running") if is_open else (ended_at, ended, "ended")
    connection.execute(_RUN, (run_id, strategy, started_at, *outcome, before))
    committed = ended - 1 + opened if is_open else ended
    connection.execute(_CURSOR, (run_id, strategy, committed, last, _RUN_FILLS, _RUN_FILLS + opened, _RUN_ORDERS + opened))
    if is_open:
        last_id = last // TURN_FILLS * MARKETS
        connection.execute(_POINTER, (strategy, run_id, ended - 1, last, ended_at, last_id - MARKETS + 1, last_id))
    for number in range(opened):
        order = order_id(run_id, _RUN_ORDERS + number + 1)
        row = (order, made.markets[number % MARKETS], ended_at, strategy, run_id, ended + number)
        connection.execute(_OPEN_EVENT, row)
        connection.execute(_OPEN_ORDER, (*row, last))


def _columns(one: _Round, k: int, turn: int, author: tuple[Any, ...]) -> tuple[Any, ...]:
    """Behind the market, in the order of the statement: the state after k whole rounds and some turns."""
    holding = one.holdings[turn]
    realized, fees = holding.realized_pnl, holding.fees
    if k:
        whole = one.holdings[-1]
        realized = EXACT.fma(whole.realized_pnl, Decimal(k), realized)
        fees = EXACT.fma(whole.fees, Decimal(k), fees)
    return (
        float(holding.size), float(average_price(holding)), float(realized), *author,
        *map(str, (holding.size, holding.cost, realized, fees, holding.base_fees)),
    )  # fmt: skip


def _round(rng: random.Random, market: str) -> _Round:
    """1000 orders of five fills each, flat at the end; prices walk in ticks."""
    fills: list[tuple[str, float, float, float]] = []
    ticks, held = rng.randrange(4000, 16_000), 0  # hundredths; thousandths
    for sizes, is_buy in _orders(rng):
        ticks = max(100, ticks + rng.randrange(-20, 21))
        for size in sizes:
            price = (ticks + rng.randrange(3)) / 100
            fills.append(("buy" if is_buy else "sell", price, size / 1000, round(price * size / 1000 * 0.0002, 8)))
            held += size if is_buy else -size
    holding, holdings = Holding(), []
    for number, (order_side, price, units, fee) in enumerate(fills, start=1):
        fill = Fill("f", "o", market, Side.Long, OrderSide(order_side), price, units, fee, _BEGAN, None, "paper")
        holding = fold(holding, fill)
        if number % (_MARKET_FILLS // _TURNS) == 0:
            holdings.append(holding)
    return _Round(fills, holdings)


def _orders(rng: random.Random) -> Iterator[tuple[list[int], bool]]:
    """Sizes in thousandths of the fills of each order, and whether it buys. The last order makes the position flat."""
    held = 0
    for _ in range(_MARKET_FILLS // _ORDER_FILLS - 1):
        is_buy = rng.random() < (0.2 if held > 20_000 else 0.8 if held < -20_000 else 0.5)
        sizes = [rng.randrange(1, 3000) for _ in range(_ORDER_FILLS)]
        change = sum(sizes) if is_buy else -sum(sizes)
        if abs(held + change) < _ORDER_FILLS:  # the last order has five fills, whatever it takes
            sizes[0] += 2 * _ORDER_FILLS
            change = sum(sizes) if is_buy else -sum(sizes)
        held += change
        yield sizes, is_buy
    part = abs(held) // _ORDER_FILLS
    yield [part] * (_ORDER_FILLS - 1) + [abs(held) - (_ORDER_FILLS - 1) * part], held < 0
