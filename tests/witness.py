"""A strategy that is killed in tests, and its witness: every record is written down before and after the call that records it.

The witness is a file, written with os.write, so what it holds is outside the victim's memory and survives kill -9. The test compares it
with the database. The trading is what a strategy does in a cycle: fills that it is told of, orders, their cancels, snapshots.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

import horizon as hz
from horizon.context import Context
from horizon.persistence import Persistence
from horizon.records import PositionRow, Record
from horizon.risk import RiskConfig

LOOSE = RiskConfig(
    max_position_per_market=1e9, max_portfolio_notional=1e12, max_order_size=1e9, rate_limit_sustained=1e9, rate_limit_burst=1_000_000,
    dedup_window_ms=0.0, price_min=0.0, price_max=1e9,
)  # fmt: skip
TOLD_PER_CYCLE = 3
SNAPSHOT_EVERY = 7  # cycles
TOLD_AGAIN = 20  # fills of earlier runs, as a venue re-sends them when it is connected to


class Before(msgspec.Struct, frozen=True, array_like=True, tag="before"):
    """`record()` is about to be called."""

    run_id: str
    record: Record


class After(msgspec.Struct, frozen=True, array_like=True, tag="after"):
    """`record()` has returned."""

    run_id: str
    seq: int


class State(msgspec.Struct, frozen=True, array_like=True, tag="state"):
    """The positions in memory, when `seq` was the run's last record."""

    run_id: str
    seq: int
    rows: tuple[PositionRow, ...]


Line = Before | After | State


def trade(name: str) -> None:
    """What the strategy's file calls."""
    witness = os.open(f"{name}.witness", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    told_before = [line.record for line in read(Path(f"{name}.witness")) if isinstance(line, Before)]
    old_fills = [record for record in told_before if isinstance(record, hz.Fill) and record.market_id == f"{name}-told"]
    record = Persistence.record

    def say(line: Line) -> None:
        # A newline on both sides: a line that a kill cut off spoils no other.
        os.write(witness, b"\n" + msgspec.json.encode(line) + b"\n")

    def witnessed(self: Persistence, what: Record) -> int:
        say(Before(self.run_id, what))
        seq = record(self, what)
        say(After(self.run_id, seq))
        return seq

    def cycle(ctx: Context) -> list[hz.Quote]:
        engine: Any = ctx.params["engine"]
        while old_fills:
            engine.process_fill(old_fills.pop())
        for _ in range(TOLD_PER_CYCLE):
            engine.process_fill(_fill(name, engine.db_run_id(), engine.fills_applied))
        if engine.orders_submitted % (2 * SNAPSHOT_EVERY) == 0:
            engine.snapshot_positions()
        say(State(engine.db_run_id(), engine._persistence.last_seq, engine._desk.book.snapshot()))
        mid = ctx.feeds["price"].mid()
        return [hz.Quote(mid - 0.01, mid + 0.01, 1.0)]

    del old_fills[:-TOLD_AGAIN]
    Persistence.record = witnessed  # type: ignore[method-assign]
    hz.run(
        name, markets=[name], feeds={"price": hz.Simulated(seed=1, interval_s=0.01)}, pipeline=[cycle], risk=LOOSE, interval=0.01
    )  # fmt: skip


def read(path: Path) -> list[Line]:
    """What the witness of a strategy says; none when it never ran."""
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    return [line for text in lines if (line := _line(text)) is not None]


def _line(text: bytes) -> Line | None:
    try:
        return msgspec.json.decode(text, type=Line)  # type: ignore[no-any-return]
    except msgspec.DecodeError:
        return None


def _fill(name: str, run_id: str, number: int) -> hz.Fill:
    """Sizes and prices whose sums as floats would drift, buys and sells through zero, fees of both kinds."""
    return hz.Fill(
        fill_id=f"{name}-{run_id}-{number:06d}",
        order_id=f"told-{run_id}-{number:06d}",
        market_id=f"{name}-told",
        side=hz.Side.Yes,
        order_side=hz.OrderSide.Buy if number * 7 % 5 < 3 else hz.OrderSide.Sell,
        price=round(0.1 + number % 13 * 0.07, 2),
        size=round(0.1 + number % 11 * 0.3, 1),
        fee=round(number % 3 * 0.001, 3),
        timestamp=1_700_000_000.0 + number,
        exchange="elsewhere",
        fee_currency=hz.FeeCurrency.Base if number % 4 == 0 else hz.FeeCurrency.Quote,
    )
