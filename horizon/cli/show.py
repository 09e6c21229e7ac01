"""`horizon fills`, `positions`, `orders`, `runs`: what a database holds, as a table or as one JSON document.

Read-only, also beside a running writer. JSON has every column under its name in the database; a table has those that people ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from horizon.cli.database import DATABASE, database_to_read, reader
from horizon.cli.output import emit_json, emit_table, remark
from horizon.cli.since import since_option
from horizon.cli.text import Column, counted, duration, number, rounded, utc
from horizon.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from horizon.store.read import FillRow, OrderRow, PositionView, RunRow

NEWEST = 50


class Query(NamedTuple):
    """What was asked for. `limit` is None for no limit."""

    database: Path
    strategy: str | None
    market: str | None
    limit: int | None
    all_: bool
    since: float | None
    as_json: bool

    @property
    def enough(self) -> int | None:
        """One more than will be shown: so it is known whether there are more."""
        return None if self.limit is None else self.limit + 1


def _asks(
    all_: str, since: str, market: str = "In this market only.", limit: str = f"The newest N instead of {NEWEST}."
) -> Callable[[Callable[[Query], None]], Callable[..., None]]:
    """The options that the four commands share, handed over as one Query; the texts say what they mean here."""

    def decorate(command: Callable[[Query], None]) -> Callable[..., None]:
        @DATABASE
        @click.option("--strategy", metavar="NAME", help="Of this strategy only.")
        @click.option("--market", metavar="ID", help=market)
        @click.option("--limit", type=click.IntRange(min=1), metavar="N", help=limit)
        @click.option("--all", "all_", is_flag=True, help=all_)
        @click.option(
            "--since", callback=since_option, metavar="TIME", help=f"{since}: 10m, 2h, 1d, ISO 8601 (UTC), or Unix seconds."
        )
        @click.option("--json", "as_json", is_flag=True, help="One JSON document with every column.")
        @wraps(command)
        def asked(db: Path | None, **options: Any) -> None:
            command(Query(database_to_read(db), **options))

        return asked

    return decorate


@click.command()
@_asks(all_=f"All of them, not only the newest {NEWEST}.", since="Traded since then")
def fills(query: Query) -> None:
    """Show fills, newest first."""
    from horizon.store import read

    query = _newest(query)
    with reader(query.database) as connection:
        rows = read.fills(connection, strategy=query.strategy, market=query.market, since=query.since, limit=query.enough)
    _show(query, "fills", rows, _FILL_COLUMNS, _fill_cells)


@click.command()
@_asks(all_="Flat ones too: they hold realized PnL and fees.", since="Changed by a fill since then", limit="At most N.")
def positions(query: Query) -> None:
    """Show open positions.

    Sizes and costs are those of the newest fill, marks those of the newest snapshot.
    """
    from horizon.store import read

    with reader(query.database) as connection:
        rows = read.positions(connection, strategy=query.strategy, market=query.market)
        if query.since is not None:
            newer = read.fills(connection, strategy=query.strategy, market=query.market, since=query.since, limit=None)
            changed = {(fill.strategy, fill.exchange, fill.market_id, fill.side) for fill in newer}
            rows = [row for row in rows if (row.strategy, row.exchange, row.market_id, row.side) in changed]
    shown = rows if query.all_ else [row for row in rows if row.size]
    _show(query, "positions" if query.all_ else "open positions", shown, _POSITION_COLUMNS, _position_cells, _totals(rows))
    if len(shown) < len(rows):
        remark(f"{counted(len(rows) - len(shown), 'flat position')} not shown; see --all")


@click.command()
@_asks(all_="Also orders that are done.", since="Changed since then")
def orders(query: Query) -> None:
    """Show open orders, newest first."""
    from horizon.store import read

    query = query._replace(limit=query.limit or NEWEST)
    with reader(query.database) as connection:
        rows = read.orders(
            connection,
            strategy=query.strategy,
            market=query.market,
            since=query.since,
            limit=query.enough,
            all_=query.all_,
        )
    _show(query, "orders" if query.all_ else "open orders", rows, _ORDER_COLUMNS, _order_cells)


@click.command()
@_asks(all_=f"All of them, not only the newest {NEWEST}.", since="That still ran then", market="With a fill in this market.")
def runs(query: Query) -> None:
    """Show runs of strategies, newest first."""
    from horizon.store import read

    query = _newest(query)
    with reader(query.database) as connection:
        rows = read.runs(connection, strategy=query.strategy, market=query.market, since=query.since, limit=query.enough)
    _show(query, "runs", rows, _RUN_COLUMNS, _run_cells)


def _newest(query: Query) -> Query:
    return query._replace(limit=query.limit or (None if query.all_ else NEWEST))


def _show(
    query: Query,
    what: str,
    rows: Sequence[Any],
    columns: Sequence[Column],
    cells: Callable[[Any], list[str]],
    totals: list[str] | None = None,
) -> None:
    shown = rows[: query.limit]
    if query.as_json:
        emit_json([row._asdict() for row in shown])
    elif shown:
        emit_table(columns, [*map(cells, shown), *([totals] if totals else [])])
    else:
        remark(f"no {what} in {query.database}{_asked_for(query)}")
    if len(shown) < len(rows):
        remark(f"more {what} not shown; see --limit")


def _asked_for(query: Query) -> str:
    words = [f"strategy {query.strategy}"] if query.strategy else []
    words += [f"market {query.market}"] if query.market else []
    words += [f"since {utc(query.since)}"] if query.since is not None else []
    return f" for {', '.join(words)}" if words else ""


# Figures stand to the right; names lose their end and ids their front before a whole column goes.
_STRATEGY = Column("strategy", cut="end")
_MARKET = Column("market", cut="end")
_EXCHANGE = Column("exchange", dispensable=9)

_FILL_COLUMNS = (
    *(Column("time"), _STRATEGY, _MARKET, Column("side")),
    *(Column("price", right=True), Column("size", right=True), Column("fee", right=True, dispensable=1)),
    *(_EXCHANGE, Column("fill_id", cut="front", dispensable=2)),
)


def _fill_cells(row: FillRow) -> list[str]:
    return [
        *(utc(row.timestamp), row.strategy or "-", row.market_id, f"{row.order_side} {row.side}"),
        *(number(row.price), number(row.size), number(row.fee)),
        *(row.exchange, row.fill_id),
    ]


_ORDER_COLUMNS = (
    *(Column("recorded"), _STRATEGY._replace(dispensable=1), _MARKET, Column("side")),
    *(Column("price", right=True), Column("size", right=True), Column("filled", right=True, dispensable=2), Column("status")),
    *(_EXCHANGE, Column("order_id", cut="front", dispensable=3), Column("reason", cut="end", dispensable=4)),
)


def _order_cells(row: OrderRow) -> list[str]:
    return [
        *(utc(row.recorded_at), row.strategy or "-", row.market_id, f"{row.order_side} {row.side}"),
        *(number(row.price), number(row.size), number(row.filled_size), row.status),
        *(row.exchange, row.order_id, row.status_reason or ""),
    ]


_POSITION_COLUMNS = (
    *(_STRATEGY, _EXCHANGE, _MARKET, Column("side"), Column("size", right=True), Column("avg_price", right=True)),
    *(Column("realized", right=True), Column("unrealized", right=True), Column("fees", right=True, dispensable=1)),
)


def _position_cells(row: PositionView) -> list[str]:
    return [
        *(row.strategy, row.exchange, row.market_id, row.side, number(row.size), rounded(row.avg_entry_price)),
        *(rounded(row.realized_pnl), rounded(row.unrealized_pnl), rounded(row.fees)),
    ]


def _totals(rows: Sequence[PositionView]) -> list[str] | None:
    """Of all that were asked for, also the flat ones that are not shown."""
    if len(rows) < 2:
        return None
    sums = (sum(column) for column in zip(*((row.realized_pnl, row.unrealized_pnl, row.fees) for row in rows), strict=True))
    return ["total", *[""] * 5, *map(rounded, sums)]


_RUN_COLUMNS = (
    *(Column("started"), _STRATEGY, _EXCHANGE, Column("status"), Column("lasted", right=True)),
    *(Column("orders", right=True, dispensable=1), Column("events", right=True, dispensable=3), Column("fills", right=True)),
    Column("dead_letters", right=True),
    *(Column("run_id", cut="front", dispensable=2), Column("reason", cut="end", dispensable=4)),
)


def _run_cells(row: RunRow) -> list[str]:
    until = row.ended_at or (SYSTEM_CLOCK.now() if row.status == "running" else None)
    return [
        *(utc(row.started_at), row.strategy, row.exchange, row.status or ("ended" if row.ended_at else "-")),
        duration(None if until is None else until - row.started_at),
        *(str(row.orders), str(row.order_events), str(row.fills), str(row.dead_letters)),
        *(row.run_id, row.end_reason or ""),
    ]
