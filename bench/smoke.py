"""Has the road become slower than what is written down? Ratios within one run, because a shared machine moves every figure by 2x.

Two costs per event:

- `record`: what the strategy pays (number, encode, journal).
- `road`: from the first record of a stream until all of it is acknowledged, so also the writer's half.

Both against a direct INSERT with a commit of its own, which is what a strategy without Horizon would write and which lives on the same
disk; `record` also against an empty record loop, one call of a function that does nothing with the record, which lives on the same
processor. (The road waits for another process, the empty loop never: on a busy machine their ratio would say nothing.)

The three loops take turns in short stretches, and the median stretch counts, so that a busy machine takes from all of them alike. A
round is three such repeats and takes their medians. The check fails when a ratio is more than twice what bench/results/smoke.json says
in each of three rounds, one after the other.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import apsw

from bench.alternatives.page import FILL_COLUMNS, connect, insert, make_tables, row
from bench.events import fills
from bench.machine import facts
from bench.writer import end_writer
from horizon.ids import new_run_id, order_id
from horizon.paths import DatabasePaths
from horizon.recorder import Recorder
from horizon.records import Fill

_STRETCH = 200  # events
_STRETCHES = 20
_EMPTY_LOOPS = 10  # over a stretch, which alone takes too little time to be timed
_REPEATS = 3
_ROUNDS = 3
_ALLOWED = 2.0
_TIMEOUT_S = 60.0

Ratios = Mapping[str, float]


def check(written: Path, *, write_down: bool) -> int:
    """Measure and compare, or write down what is measured. Returns the exit code."""
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=written.parent) as folder, _round_in(Path(folder)) as measure:
        if not write_down:
            return compare(json.loads(written.read_text())["ratios"], measure)
        ratios = _medians([measure() for _ in range(_ROUNDS)])
        written.write_text(json.dumps({"machine": facts(Path(folder)), "ratios": ratios}, indent=2) + "\n")
        print(f"written down in {written}: {ratios}")
        return 0


def compare(written: Ratios, measure: Callable[[], Ratios]) -> int:
    """1 when the same ratio is too high in every round, else 0 at the first round that shows it."""
    worse = set(written)
    for number in range(1, _ROUNDS + 1):
        measured = measure()
        for name, ratio in written.items():
            print(f"round {number}: {name} {measured[name]:.3g}, written down is {ratio:.3g}")
        worse &= {name for name, ratio in written.items() if measured[name] > _ALLOWED * ratio}
        if not worse:
            return 0
    print(f"more than {_ALLOWED:g} times what is written down, {_ROUNDS} times in a row: {', '.join(sorted(worse))}")
    return 1


@contextmanager
def _round_in(folder: Path) -> Iterator[Callable[[], Ratios]]:
    paths = DatabasePaths.of(folder / "road.db")
    make_tables(folder / "direct.db")
    recorder = Recorder.open(paths, "smoke")
    try:
        with closing(connect(folder / "direct.db")) as direct:
            yield lambda: _medians([_repeat(recorder, direct) for _ in range(_REPEATS)])
    finally:
        recorder.close()
        end_writer(paths)


def _medians(found: list[Ratios]) -> Ratios:
    return {name: float(f"{statistics.median(one[name] for one in found):.3g}") for name in found[0]}


def _repeat(recorder: Recorder, direct: apsw.Connection) -> Ratios:
    stream = fills(order_id(new_run_id(), 1), 2 * _STRETCHES * _STRETCH)
    to_interleave, to_send = stream[: len(stream) // 2], stream[len(stream) // 2 :]
    empty_s, record_s, insert_s = [], [], []
    for first in range(0, len(to_interleave), _STRETCH):
        stretch = to_interleave[first : first + _STRETCH]
        empty_s.append(_timed(stretch * _EMPTY_LOOPS, _keep_nothing))
        recorder.begin_cycle()
        record_s.append(_timed(stretch, recorder.record))
        recorder.flush(_TIMEOUT_S)  # the writer rests while SQLite has its turn
        insert_s.append(_timed(stretch, lambda fill: direct.execute(_INSERT, row(fill))))
    empty, record, inserted = (statistics.median(times) for times in (empty_s, record_s, insert_s))
    road = _road_s(recorder, to_send)
    return {
        "record / INSERT": record / inserted,
        "road / INSERT": road / inserted,
        "record / empty loop": record / empty,
    }


def _road_s(recorder: Recorder, stream: list[Fill]) -> float:
    """Per event."""
    began = time.perf_counter()
    for first in range(0, len(stream), _STRETCH):
        recorder.begin_cycle()
        for fill in stream[first : first + _STRETCH]:
            recorder.record(fill)
        recorder.ship()
        recorder.hear()
    recorder.flush(_TIMEOUT_S)
    return (time.perf_counter() - began) / len(stream)


def _timed(stretch: list[Fill], call: Callable[[Fill], object]) -> float:
    """Seconds per call."""
    began = time.perf_counter()
    for fill in stretch:
        call(fill)
    return (time.perf_counter() - began) / len(stretch)


def _keep_nothing(record: Fill) -> None:
    pass


_INSERT = insert("fills", FILL_COLUMNS)
