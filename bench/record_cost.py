"""What does recording cost the strategy, at which rate?

Models one strategy alone: a Poisson stream of fills of one open order. A fill that is due wakes the strategy, as a venue's socket would,
and all that is due by then is handled in one cycle: `per_cycle` fills. At the rate `max` a cycle holds 64. Timed is what stands between
the fill and the strategy's next line, call by call (the clock's own 0.1 µs is in it):

- `Recorder.record`: encode the fill, write it to the journal.
- `Engine.process_fill`: compare it by id, record it and the order's event, apply it to order and position.
- `... ship`: what the end of a cycle costs on top, once for all its fills: one message is sent, the acks that are there are taken.
- `... all`: from the fill's intended moment to the end of its cycle, so that a stall is charged to every fill behind it.

At a low rate the caches are cold between two fills: that is what trading looks like, and it costs more than a loop at full speed.
The first half second of a row warms up; at the rate `max` the first 2,000 fills do.
"""

from __future__ import annotations

import gc
import math
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from bench.events import fills
from bench.machine import sync_cost_us
from bench.open_loop import Alarm, arrivals, quantiles, shares_above
from bench.options import MAX, Measured, Options, Row, rate_name
from bench.repeats import spread
from bench.writer import end_writer
from horizon.engine import Engine
from horizon.ids import new_run_id, order_id
from horizon.link import Readable
from horizon.paths import DatabasePaths
from horizon.recorder import Recorder
from horizon.records import Fill, OrderRequest, OrderSide, Side
from horizon.risk import RiskConfig

_UNPACED = 10_000  # fills of a row without a pace: what a journal has room for, as nobody waits there
_UNPACED_CYCLE = 64
_UNPACED_WARM_UP = 2_000
_WARM_UP_S = 0.5
_FLUSH_S = 60.0
_NO_LIMITS = RiskConfig(
    max_position_per_market=math.inf, max_portfolio_notional=math.inf, max_order_size=math.inf, price_max=math.inf
)


class _Run(Protocol):
    """A recorder or an engine, as the cycle drives it."""

    def begin_cycle(self) -> None: ...
    def ship(self) -> None: ...
    def wait(self, timeout_s: float, also: Sequence[Readable] = ()) -> None: ...
    def flush(self, timeout_s: float) -> None: ...


class _Way(NamedTuple):
    """One of the two, and how it takes fills of one order."""

    name: str
    run: _Run
    call: Callable[[Fill], object]
    new_order: Callable[[float], str]  # called with the price, in whose rate no other order is


class _Case(NamedTuple):
    name: str
    rate: float


class _Costs(NamedTuple):
    """In microseconds: of each fill, each cycle, each fill."""

    call: list[float]
    ship: list[float]
    all: list[float]


def measure(folder: Path, options: Options) -> Measured:
    measured: dict[_Case, list[_Costs]] = {}
    syncs: list[dict[str, float]] = []
    for _ in range(options.repeats):
        syncs.append(sync_cost_us(folder))
        for opened in (_recorder, _engine):
            with opened(folder / "run") as way:
                for number, rate in enumerate(options.rates):
                    measured.setdefault(_Case(way.name, rate), []).append(_costs(way, rate, options.seconds, number))
    disk = spread("fdatasync_us", [one["p50"] for one in syncs]) | {"fdatasync_p99_us": max(one["p99"] for one in syncs)}
    rows = [row | disk for case, ones in sorted(measured.items(), key=lambda item: item[0].name) for row in _rows(case, ones)]
    return Measured(rows, {f"{case.name}|{rate_name(case.rate)}": _curve(ones) for case, ones in measured.items()})


@contextmanager
def _recorder(folder: Path) -> Iterator[_Way]:
    folder.mkdir()
    with closing(Recorder.open(DatabasePaths.of(folder / "horizon.db"), "bench")) as recorder:
        yield _Way("Recorder.record", recorder, recorder.record, lambda _: order_id(new_run_id(), 1))
    end_writer(recorder.paths)
    shutil.rmtree(folder)


@contextmanager
def _engine(folder: Path) -> Iterator[_Way]:
    folder.mkdir()
    paths = DatabasePaths.of(folder / "horizon.db")
    with closing(Engine(_NO_LIMITS, db_path=str(paths.database), strategy="bench")) as engine:

        def new_order(price: float) -> str:
            return engine.submit_order(OrderRequest("market", Side.Long, OrderSide.Buy, size=1e9, price=price))

        yield _Way("Engine.process_fill", engine, engine.process_fill, new_order)
    end_writer(paths)
    shutil.rmtree(folder)


def _costs(way: _Way, rate: float, seconds: float, number: int) -> _Costs:
    due_after = [] if rate == MAX else arrivals(rate, _WARM_UP_S + seconds, seed=number)
    stream = fills(way.new_order(number + 1.0), len(due_after) or _UNPACED)
    way.run.flush(_FLUSH_S)
    # The stream is ours, not the strategy's: the collector must not walk through it while the clock runs.
    gc.collect()
    gc.freeze()
    costs = _paced(way, stream, due_after) if due_after else _unpaced(way, stream)
    gc.unfreeze()
    way.run.flush(_FLUSH_S)
    return costs


def _paced(way: _Way, stream: list[Fill], due_after: list[float]) -> _Costs:
    costs = _Costs([], [], [])
    at = warm = warm_cycles = 0
    start = time.monotonic()
    with closing(Alarm()) as alarm:
        while at < len(stream):
            if (left := start + due_after[at] - time.monotonic()) > 0:
                alarm.set(start + due_after[at])
                way.run.wait(left, (alarm,))
                continue
            if due_after[at] < _WARM_UP_S:
                warm, warm_cycles = len(costs.call), len(costs.ship)
            first = at
            way.run.begin_cycle()
            while at < len(stream) and start + due_after[at] <= time.monotonic():
                costs.call.append(_timed_us(way.call, stream[at]))
                at += 1
            costs.ship.append(_end_us(way.run))
            ended = time.monotonic()
            costs.all.extend([(ended - start - after) * 1e6 for after in due_after[first:at]])
    return _Costs(costs.call[warm:], costs.ship[warm_cycles:], costs.all[warm:])


def _unpaced(way: _Way, stream: list[Fill]) -> _Costs:
    costs = _Costs([], [], [])
    for first in range(0, len(stream), _UNPACED_CYCLE):
        way.run.begin_cycle()
        costs.call.extend([_timed_us(way.call, fill) for fill in stream[first : first + _UNPACED_CYCLE]])
        costs.ship.append(_end_us(way.run))
    return _Costs(costs.call[_UNPACED_WARM_UP:], costs.ship[_UNPACED_WARM_UP // _UNPACED_CYCLE :], [])


def _timed_us(call: Callable[[Fill], object], fill: Fill) -> float:
    began = time.perf_counter()
    call(fill)
    return (time.perf_counter() - began) * 1e6


def _end_us(run: _Run) -> float:
    began = time.perf_counter()
    run.ship()
    run.wait(0)
    return (time.perf_counter() - began) * 1e6


def _rows(case: _Case, ones: list[_Costs]) -> list[Row]:
    parts = {case.name: [one.call for one in ones], f"{case.name}, ship": [one.ship for one in ones]}
    if case.rate != MAX:
        parts[f"{case.name}, all"] = [one.all for one in ones]
    per_cycle = sum(len(one.call) for one in ones) / sum(len(one.ship) for one in ones)
    return [_row(what, case.rate, per_cycle, costs) for what, costs in parts.items()]


def _row(what: str, rate: float, per_cycle: float, repeats: list[list[float]]) -> Row:
    measured = [quantiles(costs_us) for costs_us in repeats]
    return {
        "what": what,
        "rate": rate_name(rate),
        "times": sum(map(len, repeats)),
        "per_cycle": round(per_cycle, 1),
        **spread("p50_us", [one.p50 for one in measured], 1),
        **spread("p99_us", [one.p99 for one in measured], 1),
        "p99.9_us": round(statistics.median(one.p999 for one in measured), 1),
        "max_us": round(max(one.max for one in measured), 1),
    }


def _curve(ones: list[_Costs]) -> list[list[float]]:
    """All repeats together."""
    values = [value for one in ones for value in one.call]
    return [[round(value, 2), round(share, 7)] for value, share in shares_above(values)]
