"""How much memory do supervisor, writer and strategies take, and does it grow under load?

Models a supervisor with two strategies, one that does nothing and one that trades every 20 ms, and beside them workers that record one
fill to three order events at a rate, on the same writer. After a warm-up of a fifth of the time, `seconds` in all, every second:

- `private`: what would be free if the process ended. `rss`: resident, with files that are mapped (journals, up to 256 MB of the database
  in the writer): it rises with the database until that is mapped whole, and is no cost that anybody could save.
- `growth_mib_per_h`: the slope of a straight line through `private`.

`--seconds 600 --rate 10000` is the figure that counts; in a minute the slope is mostly chance.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from bench.options import MAX, Measured, Options, Row, Series
from bench.supervised import TRADER, supervised
from bench.sustained import Process, loaded, look

_WARM_UP = 0.2
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
                    continue  # a journal that is always full says nothing about growth
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
    warm = [(at, one) for at, one in looks if at >= _WARM_UP * looks[-1][0]]
    private = [one.private_mib for _, one in warm]
    slope = 0.0
    if len(warm) > 1:
        slope = statistics.linear_regression([at / 3600 for at, _ in warm], private).slope
    return {
        "process": name,
        "private_mib_min": round(min(private), 1),
        "private_mib": round(statistics.median(private), 1),
        "private_mib_max": round(max(private), 1),
        "rss_mib": round(statistics.median(one.rss_mib for _, one in warm), 1),
        "files": max(one.files for _, one in warm),
        "growth_mib_per_h": round(slope, 1),
    }
