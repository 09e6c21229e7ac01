"""What would one use today instead: how fast is it, and what does a kill lose?

Models W strategies on one host, each a process that keeps one fill to three order events, in every way that is at hand: the same
events, the same machine, the same run. In each repeat the ways come one after the other, in another order each time, each on an empty
store of its own, and each caller stores a hundred events before the clock starts; ratios are taken within a repeat.

- At a rate the arrivals are Poisson, and times count from the intended moment of an event. `p50_us` to `max_us`: until the strategy
  could go on. For all but Horizon that is after the commit; with Horizon the event is in the journal by then, which survives the death
  of every process, as a commit with synchronous = NORMAL does. `call_p50_us` to `call_p99.9_us`: of that the call alone, without the
  wait for a processor and for the events before. `cycle_p50_us`, `cycle_p99_us`: with what else the way does in the
  strategy's process (Horizon sends and looks for acks). `committed_p50_us`, `committed_p99_us`: until the strategy knew that anybody
  can read it.
- `nothing` is an empty call: what the pace and the machine's other processes add to every way. A figure that is not well above it is
  the machine's, not the way's.
- At the rate `max` each calls again as soon as it can; the times then are those of the calls. `per_s`: committed, until the last event
  was. `loaded_per_s`: committed by the moment at which the calls stopped, in the time until then.
- `unsent`: the share of events that were never made, because the way had not come to them after twice the time: it is saturated, and
  its times are what they had grown to, and it is asked only once.
- `errors_per_1000`: events that were refused at first ("database is locked"), and stored by a further attempt.
- `lost_caller`, `lost_store`: events whose call had returned and that nobody found after a SIGKILL of the calling processes, or of what
  stands behind them (server, writer); the worst of the kills. A kill is no power cut: for that, compare `power` with Redis's `always`
  and with PostgreSQL.
- `less_per_s`, `less_loaded_per_s`, `slower_p50`, `slower_p99`, `slower_p99.9`: how many times less or slower than Horizon with
  durability `process` in the same repeat; `slower_call_p99`, `slower_call_p99.9`: the call alone; `slower_cycle_p99`: against all that
  Horizon does in the strategy's process.

The servers are the benchmark's own, on sockets of their own, and leave with it. What is not installed is left out with a line.
"""

from __future__ import annotations

import random
import shutil
import statistics
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.alternatives.horizon_road import Horizon
from bench.alternatives.load import Lost, Seen, drive, kill_callers, kill_service
from bench.alternatives.orm import Peewee, SqlAlchemy
from bench.alternatives.postgres import Postgres
from bench.alternatives.redis_stream import RedisStream
from bench.alternatives.sqlite_files import SqliteFiles
from bench.alternatives.way import CannotServe, Nothing, Way
from bench.machine import sync_cost_us
from bench.open_loop import Quantiles, quantiles, shares_above
from bench.options import MAX, Measured, Options, Row, Series, rate_name
from bench.repeats import spread

_KILLS = 2
_SATURATED = 0.9
_OURS = "Horizon, process"


class _One(NamedTuple):
    """One repeat of one row."""

    stored: int
    intended_per_s: float  # 0 when there was no pace
    per_s: float
    loaded_per_s: float
    unsent: int
    errors: int
    returned: Quantiles
    call: Quantiles
    cycle: Quantiles
    committed: Quantiles
    returned_us: array[float]

    @property
    def is_saturated(self) -> bool:
        """It ended so late that the times tell how long it was asked, not what it takes."""
        return self.unsent > 0 or self.loaded_per_s < _SATURATED * self.intended_per_s


class _Case(NamedTuple):
    way: str
    workers: int
    rate: float


def ways(durabilities: Sequence[str]) -> list[Way]:
    """All of them, the floor and ours first."""
    return [
        Nothing("nothing"),
        *(Horizon(f"Horizon, {durability}", durability) for durability in durabilities),
        SqliteFiles("SQLite, one file, autocommit"),
        SqliteFiles("SQLite, one file, BEGIN IMMEDIATE", begin="BEGIN IMMEDIATE"),
        SqliteFiles("SQLite, one file, read then write", begin="BEGIN", reads_first=True),
        SqliteFiles("SQLite, a file each", own_files=True),
        SqlAlchemy("SQLAlchemy, one file"),
        SqlAlchemy("SQLAlchemy, a file each", own_files=True),
        Peewee("peewee, one file"),
        RedisStream("Redis XADD, everysec", "everysec"),
        RedisStream("Redis XADD, always", "always"),
        Postgres("PostgreSQL INSERT"),
        Postgres("PostgreSQL COPY by 1000", copies=True, paced=False),
    ]


def measure(folder: Path, options: Options) -> Measured:
    lost = {}
    present = []
    for way in ways(options.durabilities):
        if (found := _lost_by_kills(way, folder / "kills", max(options.workers))) is not None:
            present.append(way)
            lost[way.name] = found
    measured: dict[_Case, list[_One]] = {}
    syncs_us = []
    for repeat in range(options.repeats):
        syncs_us.append(sync_cost_us(folder)["p50"])
        for way in random.Random(repeat).sample(present, len(present)):
            _measure_in_turn(way, folder / f"{repeat}", options, measured)
    names = [way.name for way in present]
    measured = {case: ones for case, ones in measured.items() if ones}
    cases = sorted(measured, key=lambda case: (case.workers, case.rate == MAX, case.rate, names.index(case.way)))
    made_of = {way.name: way.made_of() for way in present}
    rows = [
        _row(case, measured, *lost[case.way]) | {"made_of": made_of[case.way]} | spread("fdatasync_us", syncs_us)
        for case in cases
    ]
    return Measured(rows, _curves({case: measured[case] for case in cases}))


def _measure_in_turn(way: Way, folder: Path, options: Options, measured: dict[_Case, list[_One]]) -> None:
    """Every rate once, but for those that a repeat before has shown to be too high: three times the same would show no more."""
    for workers in options.workers:
        folder.mkdir()
        with way.serve(folder) as service:
            before = service.count()
            for rate in options.rates:
                known = measured.setdefault(_Case(way.name, workers, rate), [])
                if not (way.flooded if rate == MAX else way.paced) or (known and known[-1].is_saturated):
                    continue
                seen = drive(way, folder, workers, rate, options.seconds)
                after = service.count()
                _compare(way, sum(one.warm + one.stored for one in seen), before, after)
                before = after
                known.append(_one(seen, rate))
        shutil.rmtree(folder)


def _compare(way: Way, stored: int, before: int | None, after: int | None) -> None:
    if before is not None and after is not None and after - before != stored:
        raise SystemExit(f"{way.name}: {stored} events were stored, {after - before} are found: worthless")


def _one(seen: list[Seen], rate: float) -> _One:
    stored = sum(one.stored for one in seen)
    began, stopped, ended = min(one.began for one in seen), max(one.stopped for one in seen), max(one.ended for one in seen)
    returned_us, cycle_us, committed_us = (
        array("d", (value for one in seen for value in getattr(one, times)))
        for times in ("returned_us", "cycle_us", "committed_us")
    )
    return _One(
        stored,
        rate,
        stored / (ended - began),
        (stored - sum(one.behind for one in seen)) / (stopped - began),
        sum(one.unsent for one in seen),
        sum(one.errors for one in seen),
        quantiles(returned_us),
        quantiles([value for one in seen for value in one.call_us]),
        quantiles(cycle_us),
        quantiles(committed_us),
        returned_us if rate != MAX else array("d"),
    )


def _lost_by_kills(way: Way, folder: Path, callers: int) -> tuple[list[Lost], list[Lost]] | None:
    """By kills of the callers, and of what stands behind them. None, with a line, when the way is not there."""
    if absent := way.missing():
        print(f"left out: {way.name}: there is no {absent}")
        return None
    found: tuple[list[Lost], list[Lost]] = [], []
    folder.mkdir()
    try:
        with way.serve(folder) as service:
            if service.count() is not None:
                for kill, results in zip((kill_callers, kill_service), found, strict=True):
                    for number in range(_KILLS):
                        if (one := kill(way, folder, service, callers, number)) is None:
                            break
                        results.append(one)
    except CannotServe as error:
        print(f"left out: {way.name}: {error}")
        return None
    finally:
        shutil.rmtree(folder)
    return found


def _row(case: _Case, measured: dict[_Case, list[_One]], by_caller: list[Lost], by_store: list[Lost]) -> Row:
    ones = measured[case]
    paced = case.rate != MAX
    stored = sum(one.stored for one in ones)
    unsent = sum(one.unsent for one in ones)

    def middle(figures: Iterable[float]) -> float:
        return round(statistics.median(figures), 1)

    return {
        "way": case.way,
        "workers": case.workers,
        "rate": rate_name(case.rate),
        **spread("per_s", [one.per_s for one in ones]),
        "loaded_per_s": round(statistics.median(one.loaded_per_s for one in ones)),
        "p50_us": middle(one.returned.p50 for one in ones),
        **spread("p99_us", [one.returned.p99 for one in ones], 1),
        "p99.9_us": middle(one.returned.p999 for one in ones),
        "max_us": round(max(one.returned.max for one in ones), 1),
        "call_p50_us": middle(one.call.p50 for one in ones) if paced else "-",
        "call_p99_us": middle(one.call.p99 for one in ones) if paced else "-",
        "call_p99.9_us": middle(one.call.p999 for one in ones) if paced else "-",
        "cycle_p50_us": middle(one.cycle.p50 for one in ones) if paced else "-",
        "cycle_p99_us": middle(one.cycle.p99 for one in ones) if paced else "-",
        "committed_p50_us": middle(one.committed.p50 for one in ones) if paced else "-",
        "committed_p99_us": middle(one.committed.p99 for one in ones) if paced else "-",
        "unsent": round(unsent / (stored + unsent), 3),
        "errors_per_1000": round(1000 * sum(one.errors for one in ones) / stored, 1),
        **_against_ours(paced, ones, measured.get(case._replace(way=_OURS))),
        "lost_caller": max((one.lost for one in by_caller), default="-"),
        "lost_store": max((one.lost for one in by_store), default="-"),
    }


def _against_ours(paced: bool, ones: list[_One], ours: list[_One] | None) -> Row:
    compared: dict[str, Callable[[_One, _One], float]] = {
        "slower_p50": lambda one, our: one.returned.p50 / our.returned.p50,
        "slower_p99": lambda one, our: one.returned.p99 / our.returned.p99,
        "slower_p99.9": lambda one, our: one.returned.p999 / our.returned.p999,
        "slower_call_p99": lambda one, our: one.call.p99 / our.call.p99,
        "slower_call_p99.9": lambda one, our: one.call.p999 / our.call.p999,
        "slower_cycle_p99": lambda one, our: one.cycle.p99 / our.cycle.p99,
        "less_per_s": lambda one, our: our.per_s / one.per_s,
        "less_loaded_per_s": lambda one, our: our.loaded_per_s / one.loaded_per_s,
    }
    return {
        name: "-"
        if ours is None or paced == name.startswith("less_")
        else round(statistics.median(compare(one, our) for one, our in zip(ones, ours, strict=False)), 2)
        for name, compare in compared.items()
    }


def _curves(measured: dict[_Case, list[_One]]) -> Series:
    """For the picture: which share of the events took longer, all repeats together. Points as [µs, share]."""
    return {
        f"{case.way}|{case.workers}|{rate_name(case.rate)}": [
            [round(us, 1), round(share, 7)] for us, share in shares_above([value for one in ones for value in one.returned_us])
        ]
        for case, ones in measured.items()
        if case.rate != MAX
    }
