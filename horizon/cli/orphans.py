"""`horizon orphans`: orders that were left open by runs that ended, and strategies that wait for a person to decide about them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from horizon.cli.database import DATABASE, database_to_read, reader
from horizon.cli.operating import AS_JSON, YES, confirm, decides, order, tell
from horizon.cli.output import emit_json, emit_table, remark
from horizon.cli.text import Column, number, utc
from horizon.paths import DatabasePaths

if TYPE_CHECKING:
    from horizon.store.read import OrderRow

_COLUMNS = (
    *(Column("recorded"), Column("strategy", cut="end"), Column("market", cut="end"), Column("side")),
    *(Column("price", right=True), Column("size", right=True), Column("filled", right=True), Column("status")),
    *(Column("exchange", dispensable=2), Column("order_id")),
)


@click.group()
def orphans() -> None:
    """See and decide about orders that ended runs left open."""


@orphans.command("list")
@DATABASE
@click.option("--strategy", metavar="NAME", help="Of this strategy only.")
@AS_JSON
def list_(db: Path | None, strategy: str | None, as_json: bool) -> None:
    """List open orders whose run has ended."""
    path = database_to_read(db)
    rows = _orphans(path, strategy)
    if as_json:
        emit_json([row._asdict() for row in rows])
    elif rows:
        emit_table(_COLUMNS, [_cells(row) for row in rows])
    else:
        remark(f"no orphans in {path}")


@orphans.command()
@click.argument("order_id")
@DATABASE
@click.option(
    "--status", required=True, type=click.Choice(["canceled", "rejected", "filled"]), help="How it ended, as the venue says."
)
@decides
@YES
@AS_JSON
def resolve(order_id: str, db: Path | None, status: str, who: str | None, reason: str, yes: bool, as_json: bool) -> None:
    """Write down how ORDER_ID ended. Ask the venue first: nothing is sent to it."""
    confirm(f"Write down that order {order_id} is {status}?", yes)
    tell(order(db, "resolve_orphan", who=who, reason=reason, order_id=order_id, status=status), as_json)


@orphans.command()
@DATABASE
@click.option("--strategy", required=True, metavar="NAME", help="The strategy that may order again.")
@decides
@YES
@AS_JSON
def release(db: Path | None, strategy: str, who: str | None, reason: str, yes: bool, as_json: bool) -> None:
    """Let a strategy that is held order again."""
    confirm(f"Let {strategy} order again?", yes)
    tell(order(db, "release", strategy=strategy, who=who, reason=reason), as_json)


def _orphans(path: Path, strategy: str | None) -> list[OrderRow]:
    from horizon.store import read
    from horizon.store.journals import left_in

    # The lock of the strategy says who lives (R10), not what a dead run left written down.
    living = {left.about.run_id for left in left_in(DatabasePaths.of(path), {}) if left.about is not None and left.is_locked}
    with reader(path) as connection:
        return [row for row in read.orders(connection, strategy=strategy, limit=None) if row.run_id not in living]


def _cells(row: OrderRow) -> list[str]:
    return [
        *(utc(row.recorded_at), row.strategy or "-", row.market_id, f"{row.order_side} {row.side}"),
        *(number(row.price), number(row.size), number(row.filled_size), row.status),
        *(row.exchange, row.order_id),
    ]
