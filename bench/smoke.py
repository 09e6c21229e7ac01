"""Has the road become slower than what is written down? Ratios within one run, because a shared machine moves every figure by 2x.

Three costs per event, each against a direct INSERT with a commit of its own, which is what a strategy without Horizon would write:

- `record`: what the strategy pays (encode and journal).
- `road`: from the first record of a stream until all of it is acknowledged, so also the writer's half.
- `encode`: msgspec alone, the floor under `record`.

A repeat measures all four one after the other; a round is three repeats and takes their medians. The check fails when a ratio is more
than twice what bench/results/smoke.json says in three rounds, one after the other.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import apsw
import msgspec

from bench.events import fills
from bench.machine import facts
from bench.writer import wait_for_writer_to_leave
from horizon.ids import new_run_id, order_id
from horizon.paths import DatabasePaths
from horizon.recorder import Recorder
from horizon.records import Fill

_EVENTS = 4000
_REPEATS = 3
_ROUNDS = 3
_ALLOWED = 2.0

Ratios = dict[str, float]


def check(written: Path, *, write_down: bool) -> int:
    """Measure and compare, or write down what is measured. Returns the exit code."""
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=written.parent) as folder:
        place = Path(folder)
        recorder = Recorder.open(DatabasePaths.of(place / "road.db"), "smoke")
        direct = _direct(place / "direct.db")
        try:
            if write_down:
                rounds = [_round(recorder, direct) for _ in range(_ROUNDS)]
                ratios = {name: round(statistics.median(one[name] for one in rounds), 4) for name in rounds[0]}
                written.write_text(json.dumps({"machine": facts(place), "ratios": ratios}, indent=2) + "\n")
                print(f"written down in {written}: {ratios}")
                return 0
            return _compare(json.loads(written.read_text())["ratios"], lambda: _round(recorder, direct))
        finally:
            direct.close()
            recorder.close()
            wait_for_writer_to_leave(recorder.paths)


def _compare(written: Ratios, measure: Callable[[], Ratios]) -> int:
    for number in range(1, _ROUNDS + 1):
        measured = measure()
        worse = {name: measured[name] / ratio for name, ratio in written.items() if measured[name] > _ALLOWED * ratio}
        for name, ratio in written.items():
            print(f"round {number}: {name} costs {measured[name]:.3f} of a direct INSERT, written down is {ratio:.3f}")
        if not worse:
            return 0
    print(f"more than {_ALLOWED:g} times slower than what is written down, {_ROUNDS} times in a row: {', '.join(worse)}")
    return 1


def _round(recorder: Recorder, direct: apsw.Connection) -> Ratios:
    repeats = [_repeat(recorder, direct) for _ in range(_REPEATS)]
    return {name: statistics.median(one[name] for one in repeats) for name in repeats[0]}


def _repeat(recorder: Recorder, direct: apsw.Connection) -> Ratios:
    stream = fills(order_id(new_run_id(), 1), _EVENTS)
    encode = msgspec.msgpack.Encoder().encode
    encode_s = _timed(stream, encode)
    recorder.begin_cycle()
    began = time.perf_counter()
    record_s = _timed(stream, recorder.record)
    recorder.ship()
    recorder.flush(60)
    road_s = time.perf_counter() - began
    insert_s = _timed(stream, lambda fill: _insert(direct, fill))
    return {"record": record_s / insert_s, "road": road_s / insert_s, "encode": encode_s / insert_s}


def _timed(stream: list[Fill], call: Callable[[Fill], object]) -> float:
    began = time.perf_counter()
    for fill in stream:
        call(fill)
    return time.perf_counter() - began


def _direct(path: Path) -> apsw.Connection:
    """The `fills` table of the persistence page with its pragmas."""
    connection = apsw.Connection(str(path))
    for pragma in (
        "journal_mode = WAL",
        "synchronous = NORMAL",
        "cache_size = -8000",
        "temp_store = MEMORY",
        "mmap_size = 268435456",
    ):
        connection.pragma(*pragma.split(" = "))
    connection.execute(
        "CREATE TABLE fills (fill_id TEXT PRIMARY KEY, order_id TEXT NOT NULL, market_id TEXT NOT NULL, side TEXT NOT NULL, "
        "order_side TEXT NOT NULL, price REAL NOT NULL, size REAL NOT NULL, fee REAL NOT NULL DEFAULT 0.0, timestamp REAL NOT NULL, "
        "token_id TEXT, exchange TEXT NOT NULL DEFAULT '', inserted_at REAL NOT NULL)"
    )
    return connection


def _insert(connection: apsw.Connection, fill: Fill) -> None:
    connection.execute(
        "INSERT INTO fills VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(fill_id) DO NOTHING",
        (
            *(
                fill.fill_id,
                fill.order_id,
                fill.market_id,
                fill.side.value,
                fill.order_side.value,
                fill.price,
                fill.size,
                fill.fee,
            ),
            *(fill.timestamp, fill.token_id, fill.exchange, time.time()),
        ),
    )
