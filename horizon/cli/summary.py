"""`horizon summary`: what a database holds of each strategy, whether anything is missing, and how to look closer."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from horizon.cli.database import DATABASE, database_to_read, reader
from horizon.cli.output import emit, emit_json, remark
from horizon.cli.text import cell_width, counted, number, one_line, rounded
from horizon.paths import DatabasePaths
from horizon.positions import exact_sum

if TYPE_CHECKING:
    from horizon.store.read import PositionView, StrategySummary


VOLUME_FILLS = 100_000  # so many are summed in a tenth of a second; everything else is known without reading them


class Totals(NamedTuple):
    """Of all runs of one strategy. Money is in the quote currency of what was traded."""

    strategy: str
    runs: int
    orders: int
    open_orders: int
    order_events: int
    fills: int
    volume: float | None  # None: of too many fills to be summed unasked
    fees: float
    position: float  # net over all markets
    open_positions: int
    realized_pnl: float
    unrealized_pnl: float
    duplicates: int  # fills that were told again, and are one row
    dead_letters: int  # records that could not be stored, kept in dlq.db
    gaps: int  # records that a damaged journal could not give back


@click.command()
@DATABASE
@click.option("--volume", is_flag=True, help=f"The volume too, when there are more than {VOLUME_FILLS:,} fills: reads them all.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def summary(db: Path | None, volume: bool, as_json: bool) -> None:
    """Sum up what was recorded, per strategy."""
    from horizon.store import read

    path = database_to_read(db)
    with reader(path) as connection:
        summaries = read.summary(connection)
        positions = read.positions(connection)
        is_quick = sum(one.fills for one in summaries) <= VOLUME_FILLS
        volumes = read.volumes(connection) if volume or is_quick else None
    rows = [_totals(one, [p for p in positions if p.strategy == one.strategy], volumes) for one in summaries]
    if as_json:
        emit_json([row._asdict() for row in rows])
    elif rows:
        emit("\n".join([*_described(rows, path), "", *_look_closer(db)]))
    else:
        remark(f"nothing is recorded in {path}")


def _totals(summary: StrategySummary, positions: Sequence[PositionView], volumes: dict[str, float] | None) -> Totals:
    return Totals(
        strategy=summary.strategy,
        runs=summary.runs,
        orders=summary.orders,
        open_orders=summary.open_orders,
        order_events=summary.order_events,
        fills=summary.fills,
        volume=None if volumes is None else volumes.get(summary.strategy, 0.0),
        fees=_sum(position.fees for position in positions),
        position=_sum(-position.size if position.side == "no" else position.size for position in positions),
        open_positions=sum(1 for position in positions if position.size),
        realized_pnl=_sum(position.realized_pnl for position in positions),
        unrealized_pnl=_sum(position.unrealized_pnl for position in positions),
        duplicates=summary.duplicates,
        dead_letters=summary.dead_letters,
        gaps=summary.gaps,
    )


def _sum(numbers: Iterable[float]) -> float:
    return reduce(exact_sum, numbers, 0.0)


def _described(rows: Sequence[Totals], path: Path) -> list[str]:
    width = max(cell_width(one_line(row.strategy)) for row in rows)
    lines = [f"Recorded in {path}:"]
    for row in rows:
        name = one_line(row.strategy)
        first, *more = [_did(row), _earned(row), *_troubles(row, path)]
        lines += [f"  {name}{' ' * (width - cell_width(name))}  {first}", *(f"  {' ' * width}  {line}" for line in more)]
    return lines


def _did(row: Totals) -> str:
    still_open = f" ({row.open_orders} open)" if row.open_orders else ""
    return (
        f"{counted(row.runs, 'run')}, {counted(row.orders, 'order')}{still_open}, {counted(row.order_events, 'order event')}, "
        f"{counted(row.fills, 'fill')}"
    )


def _earned(row: Totals) -> str:
    held = f"position {number(round(row.position, 8))}" if row.open_positions < 2 else f"{row.open_positions} positions"
    return (
        f"volume {'not summed (see --volume)' if row.volume is None else rounded(row.volume, 2)}, fees {rounded(row.fees, 4)}, {held}, "
        f"realized PnL {rounded(row.realized_pnl, 4)}, unrealized {rounded(row.unrealized_pnl, 4)}"
    )


def _troubles(row: Totals, path: Path) -> list[str]:
    dead_letters = f"{counted(row.dead_letters, 'dead letter')} in {DatabasePaths.of(path).dead_letters}"
    return [
        *([f"{counted(row.duplicates, 'fill')} told again and stored once"] if row.duplicates else []),
        *([dead_letters] if row.dead_letters else []),
        *([f"{counted(row.gaps, 'record')} lost in a damaged journal: see the table run_gaps"] if row.gaps else []),
    ]


def _look_closer(db: Path | None) -> list[str]:
    """Without --db the same commands find the same database."""
    option = f" --db {shlex.quote(str(db))}" if db else ""
    views = ("fills --limit 20", "positions", "orders --all", "runs")
    return ["Look closer:", *(f"  horizon {view}{option}" for view in views)]
