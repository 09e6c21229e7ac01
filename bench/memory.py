"""How much memory do supervisor, writer and strategies take, and does it grow under load?

Models a supervisor with two strategies, one that does nothing and one that trades every 20 ms, and beside them workers that record one
fill to three order events at a rate, on the same writer. Every second for `seconds`, of which the first 60 (or two fifths) warm up:

- `private`: what would be free if the process ended. `rss`: resident, with files that are mapped (journals, up to 256 MB of the database
  in the writer): it rises with the database until that is mapped whole, and is no cost that anybody could save. `pss`: the same, with
  what several processes share divided among them.
- `growth_mib_per_min`: the slope of a straight line through `private`.

`--seconds 600` is the figure that counts; in a minute or so the slope still holds what happens to be warmed up late.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from bench.options import MAX, Measured, Options, Row, Series
from bench.repeats import spread
from bench.supervised import TRADER, supervised
from bench.sustained import Process, loaded, look

_WARM_UP_S = 60.0  # caches of a fixed size fill meanwhile
_WARM_UP_MOST = 0.4  # of a row
_LOOK_EVERY_S = 1.0
_IDLE = """
import horizon as hz

hz.run("idle", markets=["coin"], feeds={"price": hz.Simulated(seed=1, interval_s=1.0)}, pipeline=[lambda ctx: []], interval=1.0)
"""


def measure(folder: Path, options: Options) -> Measured:
    rows: list[Row] = []
    series: Series = {}
    for durability in options.durabilities:
        for workers in options.workers:
            for rate in options.rates:
                if rate == MAX:
                    raise SystemExit("memory needs rates: a journal that is always full says nothing about growth")
                where = f"{durability}-{workers}-{rate:g}"
                looks = _looks(folder / where, durability, workers, rate, options.seconds)
                case: Row = {"durability": durability, "workers": workers, "rate": rate}
                rows += [case | _row(name, seen) for name, seen in looks.items()]
                for name, seen in looks.items():
                    series[f"{name}, {where}|private MiB"] = [[round(at / 60, 3), round(one.private_mib, 2)] for at, one in seen]
    return Measured(rows, series)


def _looks(folder: Path, durability: str, workers: int, rate: float, seconds: float) -> dict[str, list[tuple[float, Process]]]:
    settings = f'[database]\ndurability = "{durability}"'
    with supervised(folder, {"idle": _IDLE, "trader": TRADER}, settings, tables="interval = 0.02") as running:
        pids = {"supervisor": running.process.pid}
        for name in ("writer", "idle", "trader"):
            pid = running.process_of(name).pid
            assert pid is not None
            pids[name] = pid
        looks: dict[str, list[tuple[float, Process]]] = {name: [] for name in pids}
        with loaded(folder, running.paths, workers, rate, durability, window_s=seconds) as load:
            began = time.monotonic()
            while (at := time.monotonic() - began) < seconds:
                for name, pid in pids.items():
                    looks[name].append((at, look(pid)))
                load.windows(_LOOK_EVERY_S)
    return looks


def _row(name: str, looks: list[tuple[float, Process]]) -> Row:
    warm_up_s = min(_WARM_UP_S, _WARM_UP_MOST * looks[-1][0])
    warm = [(at, one) for at, one in looks if at >= warm_up_s]
    private = [one.private_mib for _, one in warm]
    slope = 0.0
    if len(warm) > 1:
        slope = statistics.linear_regression([at / 60 for at, _ in warm], private).slope
    return {
        "process": name,
        **spread("private_mib", private, 1),
        **spread("pss_mib", [one.pss_mib for _, one in warm], 1),
        **spread("rss_mib", [one.rss_mib for _, one in warm], 1),
        "files": max(one.files for _, one in warm),
        "growth_mib_per_min": round(slope, 2),
    }
