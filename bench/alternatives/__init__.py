"""What would one use today instead: how fast is it, and what does a kill lose?

Models W strategies on one host, each a process that keeps one fill to three order events, in every way that is at hand: the same
events, the same machine, the same run. In each repeat the ways come one after the other, in another order each time, each on an empty
store of its own; ratios are taken within a repeat.

- At a rate the arrivals are Poisson, and times count from the intended moment of an event. `p50_us` to `max_us`: until the strategy
  could go on. For all but Horizon that is after the commit; with Horizon the event is in the journal by then, which survives the death
  of every process, as a commit with synchronous = NORMAL does. `cycle_p99_us`: with what else the way does in the strategy's process
  (Horizon sends). `committed_p50_us`, `committed_p99_us`: until the strategy knew that anybody can read it.
- At the rate `max` each calls again as soon as it can; the times then are those of the calls. `per_s`: committed, the draining included.
- `unsent`: the share of events that were never made, because the way had not come to them after twice the time: it is saturated, and
  its times are what they had grown to.
- `errors_per_1000`: events that were refused at first ("database is locked"), and stored by a further attempt.
- `lost_caller`, `lost_store`: events whose call had returned and that nobody found after a SIGKILL of the calling processes, or of what
  stands behind them (server, writer); the worst of the kills. A kill is no power cut: for that, compare `power` with Redis's `always`
  and with PostgreSQL.
- `against`: Horizon with durability `process`, times: committed per second at `max`, p99 at a rate. Above 1 Horizon is better.

The servers are the benchmark's own, on sockets of their own, and leave with it. What is not installed is left out with a line.
"""

from __future__ import annotations

import random
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.alternatives.horizon_road import Horizon
from bench.alternatives.load import Lost, Seen, drive, kill_callers, kill_service
from bench.alternatives.orm import Peewee, SqlAlchemy
from bench.alternatives.postgres import Postgres
from bench.alternatives.redis_stream import RedisStream
from bench.alternatives.sqlite_files import SqliteFiles
from bench.alternatives.way import CannotServe, Way
from bench.machine import sync_cost_us
from bench.open_loop import quantiles
from bench.options import MAX, Measured, Options, Row, Series, rate_name
from bench.repeats import paired_ratio, spread

_KILLS = 3
_OURS = "Horizon, process"


class _One(NamedTuple):
    """One repeat of one row."""

    per_s: float
    seen: list[Seen]

    @property
    def returned_us(self) -> list[float]:
        return [value for one in self.seen for value in one.returned_us]


class _Case(NamedTuple):
    way: str
    workers: int
    rate: float


def ways(durabilities: Sequence[str]) -> list[Way]:
    """All of them, ours first."""
    return [
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
    present = [way for way in ways(options.durabilities) if _is_present(way, folder / "first")]
    measured: dict[_Case, list[_One]] = {}
    syncs_us = []
    for repeat in range(options.repeats):
        syncs_us.append(sync_cost_us(folder)["p50"])
        for way in random.Random(repeat).sample(present, len(present)):
            for case, one in _in_turn(way, folder / f"{repeat}", options):
                measured.setdefault(case, []).append(one)
    lost = {way.name: _lost_by_kills(way, folder / "kills", max(options.workers)) for way in present}
    names = [way.name for way in present]
    cases = sorted(measured, key=lambda case: (case.workers, case.rate == MAX, case.rate, names.index(case.way)))
    rows = [_row(case, measured, lost[case.way]) | spread("fdatasync_us", syncs_us) for case in cases]
    return Measured(rows, _curves(measured))


def _is_present(way: Way, folder: Path) -> bool:
    """Start it once; say why it is left out."""
    if absent := way.missing():
        print(f"left out: {way.name}: there is no {absent}")
        return False
    folder.mkdir()
    try:
        with way.serve(folder):
            return True
    except CannotServe as error:
        print(f"left out: {way.name}: {error}")
        return False
    finally:
        shutil.rmtree(folder)


def _in_turn(way: Way, folder: Path, options: Options) -> list[tuple[_Case, _One]]:
    found = []
    for workers in options.workers:
        folder.mkdir()
        with way.serve(folder) as service:
            before = service.count()
            for rate in options.rates if way.paced else [rate for rate in options.rates if rate == MAX]:
                seen = drive(way, folder, workers, rate, options.seconds)
                stored = sum(one.stored for one in seen)
                after = service.count()
                if after - before != stored:
                    raise SystemExit(f"{way.name}: {stored} events were stored, {after - before} are found: worthless")
                before = after
                took_s = max(one.ended for one in seen) - min(one.began for one in seen)
                found.append((_Case(way.name, workers, rate), _One(stored / took_s, seen)))
        shutil.rmtree(folder)
    return found


def _lost_by_kills(way: Way, folder: Path, callers: int) -> tuple[list[Lost], list[Lost]]:
    """By kills of the callers, and of what stands behind them."""
    found: tuple[list[Lost], list[Lost]] = [], []
    for kill, results in zip((kill_callers, kill_service), found, strict=True):
        for number in range(_KILLS):
            folder.mkdir()
            with way.serve(folder) as service:
                one = kill(way, folder, service, callers, number)
            shutil.rmtree(folder)
            if one is None:
                break
            results.append(one)
    return found


def _row(case: _Case, measured: dict[_Case, list[_One]], lost: tuple[list[Lost], list[Lost]]) -> Row:
    ones = measured[case]
    returned = [quantiles(one.returned_us) for one in ones]
    cycle = [quantiles([value for seen in one.seen for value in seen.cycle_us]) for one in ones]
    committed = [quantiles([value for seen in one.seen for value in seen.committed_us]) for one in ones]
    stored = sum(seen.stored for one in ones for seen in one.seen)
    unsent = sum(seen.unsent for one in ones for seen in one.seen)
    errors = sum(seen.errors for one in ones for seen in one.seen)
    ours = measured.get(case._replace(way=_OURS))
    against: str | float = "-"
    if ours is not None and case.rate == MAX:
        against = paired_ratio([one.per_s for one in ours], [one.per_s for one in ones])
    elif ours is not None:
        against = paired_ratio([one.p99 for one in returned], [quantiles(one.returned_us).p99 for one in ours])
    by_caller, by_store = lost
    return {
        "way": case.way,
        "workers": case.workers,
        "rate": rate_name(case.rate),
        **spread("per_s", [one.per_s for one in ones]),
        "p50_us": round(statistics.median(one.p50 for one in returned), 1),
        **spread("p99_us", [one.p99 for one in returned], 1),
        "p99.9_us": round(statistics.median(one.p999 for one in returned), 1),
        "max_us": round(max(one.max for one in returned), 1),
        "cycle_p99_us": "-" if case.rate == MAX else round(statistics.median(one.p99 for one in cycle), 1),
        "committed_p50_us": "-" if case.rate == MAX else round(statistics.median(one.p50 for one in committed), 1),
        "committed_p99_us": "-" if case.rate == MAX else round(statistics.median(one.p99 for one in committed), 1),
        "unsent": round(unsent / (stored + unsent), 3),
        "errors_per_1000": round(1000 * errors / stored, 1),
        "against": against,
        "lost_caller": max(one.lost for one in by_caller),
        "lost_store": max(one.lost for one in by_store) if by_store else "-",
    }


def _curves(measured: dict[_Case, list[_One]]) -> Series:
    """For the picture: which share of the events took longer, all repeats together. Points as [µs, share]."""
    curves = {}
    for case, ones in measured.items():
        ranked = sorted(value for one in ones for value in one.returned_us)
        shares = [10 ** (-step / 20) for step in range(101)]
        curves[f"{case.way}|{case.workers}|{rate_name(case.rate)}"] = [
            [round(ranked[min(len(ranked) - 1, int(len(ranked) * (1 - share)))], 1), round(share, 6)]
            for share in shares
            if share * len(ranked) >= 1
        ]
    return curves
