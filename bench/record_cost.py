"""What does recording cost the strategy, at which rate?

Models one strategy alone: a Poisson stream of fills of one open order, each fill in a cycle of its own. Timed is what stands between
the fill and the strategy's next line:

- `Recorder.record`: encode the fill, write it to the journal.
- `Engine.process_fill`: compare it by id, record it and the order's event, apply it to order and position.
- `... ship`: what the end of the cycle costs on top: one message is sent, the acks that are there are taken.
- `... all`: from the fill's intended time to the end of its cycle, so that a stall is charged to every fill behind it.

At a low rate the caches are cold between two fills: that is what trading looks like, and it costs more than a loop at full speed.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from bench.events import fills
from bench.open_loop import arrivals, quantiles, wait_until
from bench.options import MAX, Options, Row, rate_name
from bench.writer import wait_for_writer_to_leave
from horizon.engine import Engine
from horizon.ids import new_run_id, order_id
from horizon.paths import DatabasePaths
from horizon.recorder import Recorder
from horizon.records import Fill, OrderRequest, OrderSide, Side
from horizon.risk import RiskConfig

_UNPACED = 20_000  # fills of a row without a pace
_FLUSH_S = 60.0
_NO_LIMITS = RiskConfig(
    max_position_per_market=math.inf, max_portfolio_notional=math.inf, max_order_size=math.inf, price_max=math.inf
)


class _Run(Protocol):
    """A recorder or an engine, as the cycle drives it."""

    def begin_cycle(self) -> None: ...
    def ship(self) -> None: ...
    def wait(self, timeout_s: float) -> None: ...
    def flush(self, timeout_s: float) -> None: ...


def measure(folder: Path, options: Options) -> list[Row]:
    return _recorder_rows(folder / "recorder.db", options) + _engine_rows(folder / "engine.db", options)


def _recorder_rows(database: Path, options: Options) -> list[Row]:
    recorder = Recorder.open(DatabasePaths.of(database), "bench")
    rows = []
    for rate in options.rates:
        stream = fills(order_id(new_run_id(), 1), _count(rate, options))
        rows += _rows("Recorder.record", rate, options, recorder, recorder.record, stream)
    recorder.close()
    wait_for_writer_to_leave(recorder.paths)
    return rows


def _engine_rows(database: Path, options: Options) -> list[Row]:
    engine = Engine(_NO_LIMITS, db_path=str(database), strategy="bench")
    rows = []
    for rate in options.rates:
        order = engine.submit_order(OrderRequest("market", Side.Long, OrderSide.Buy, size=1e9, price=rate + 1))
        stream = fills(order, _count(rate, options))
        rows += _rows("Engine.process_fill", rate, options, engine, engine.process_fill, stream)
    engine.close()
    wait_for_writer_to_leave(DatabasePaths.of(database))
    return rows


def _count(rate: float, options: Options) -> int:
    return _UNPACED if rate == MAX else len(_due_times(rate, options))


def _due_times(rate: float, options: Options) -> list[float]:
    return arrivals(rate, options.seconds, seed=1)


def _rows(name: str, rate: float, options: Options, run: _Run, call: Callable[[Fill], object], stream: list[Fill]) -> list[Row]:
    due_after = [0.0] * len(stream) if rate == MAX else _due_times(rate, options)
    calls_us, ships_us, all_us = [], [], []
    # The stream is ours, not the strategy's: the collector must not walk through it while the clock runs.
    gc.collect()
    gc.freeze()
    start = time.monotonic()
    for fill, after in zip(stream, due_after, strict=True):
        wait_until(start + after)
        run.begin_cycle()
        began = time.perf_counter()
        call(fill)
        called = time.perf_counter()
        run.ship()
        run.wait(0)
        ended = time.perf_counter()
        calls_us.append((called - began) * 1e6)
        ships_us.append((ended - called) * 1e6)
        all_us.append((time.monotonic() - (start + after)) * 1e6)
    gc.unfreeze()
    run.flush(_FLUSH_S)
    parts = {name: calls_us, f"{name}, ship": ships_us}
    if rate != MAX:
        parts[f"{name}, all"] = all_us
    return [_row(part, rate, costs) for part, costs in parts.items()]


def _row(what: str, rate: float, costs_us: list[float]) -> Row:
    measured = quantiles(costs_us)
    return {
        "what": what,
        "rate": rate_name(rate),
        "fills": len(costs_us),
        "p50_us": round(measured.p50, 1),
        "p99_us": round(measured.p99, 1),
        "p99.9_us": round(measured.p999, 1),
        "max_us": round(measured.max, 1),
    }
