"""How long from the start of a killed strategy to its first order, and how long a look at a database takes, with ten million fills?

Models what `history.py` makes: ten strategies of twenty markets each, a million fills and as many order events of each.

- `recovery`: 10k, 100k, 1M fills of one strategy behind its newest snapshot, and at last all strategies without any, which is
  10M: read by commit order, made into fills, folded. `passed` are the rows of others that lie between. For the smallest also the way
  of the persistence page, `timestamp >= ?` on a table without such an index: the same fills, read and folded likewise. `read` is the
  statement alone, where the ways differ. The smallest once more with a fiftieth of the history: it makes no difference.
- `start`: from `Engine(...)` to the end of `start_run` of a killed strategy, with 10k records in its journal that no writer has seen,
  and with none. A writer is started too: both processes were killed. The start of Python itself is left out of that of the strategy.
- `check`: the whole of `horizon db check`, and with it every fill folded in decimals. By all processors, and by two; `processor_s` is
  what all its processes take together, which a machine with other work to do changes less.
- `view`: what the commands ask by default, from the open of the database to the rows; and `horizon fills` as a command, with the
  start of Python.

Needs 6 GB of disk. Once through takes about five minutes on four cores, which is why it is not repeated unless `--repeats` says so.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw

from bench.events import mixed
from bench.history import TURN_FILLS, History, make_history
from bench.options import Options, Row
from bench.repeats import paired_ratio, spread
from bench.writer import end_writer
from horizon.engine import Engine
from horizon.ids import new_run_id
from horizon.journal import DEFAULT_BYTES, About, Journal
from horizon.locks import FileLock
from horizon.paths import DatabasePaths
from horizon.positions import Book
from horizon.store import read
from horizon.store.append import Store
from horizon.store.check import check
from horizon.store.connection import open_reader
from horizon.store.crew import processors
from horizon.store.fills import fill_of
from horizon.store.recovery import recover
from horizon.store.sql import QUERIES

_NEEDS_BYTES = 6 << 30
_UNDRAINED = (0, 10_000)
_SMALL_RUNS = 1  # of two strategies: a fiftieth of the history
_VIEWS: dict[str, Callable[[apsw.Connection], object]] = {
    "fills": lambda reader: read.fills(reader, limit=51),
    "fills of a market": lambda reader: read.fills(reader, market="market-07", limit=51),
    "fills of a strategy": lambda reader: read.fills(reader, strategy="strategy-03", limit=51),
    "open orders": lambda reader: read.orders(reader, limit=51),
    "all orders": lambda reader: read.orders(reader, limit=51, all_=True),
    "positions": read.positions,
    "runs": lambda reader: read.runs(reader, limit=51),
    "summary": read.summary,
}


def measure(folder: Path, options: Options) -> list[Row]:
    free = shutil.disk_usage(folder).free
    if free < _NEEDS_BYTES:
        raise SystemExit(f"ten million fills take 6 GB of disk, and there are {free / 2**30:.1f} GB free at {folder}")
    paths = DatabasePaths.of(folder / "history.db")
    small = DatabasePaths.of(folder / "small" / "history.db")
    small.database.parent.mkdir()
    history, little = make_history(paths), make_history(small, _SMALL_RUNS, 2)
    # The recoveries come behind everything that needs the snapshots where they were made, and the starts, which record, come last.
    rows = [_row("view", name, history.fills, _times(options, _viewed(paths, view))) for name, view in _VIEWS.items()]
    rows.append(_row("view", "horizon fills, as a command", history.fills, _times(options, lambda: _command(paths))))
    rows += _checks(paths, history, options)
    rows += _recoveries(paths, history, small, little, options)
    _begin_at(paths, history.fills)
    rows += [
        _row("start", f"{undrained} undrained", history.fills, _starts(paths, history, undrained, options))
        for undrained in _UNDRAINED
    ]
    return rows


def _row(what: str, of: str, history: int, ms: list[float], **more: str | int | float) -> Row:
    return {
        "what": what,
        "of": of,
        "history": history,
        **spread("ms", ms, 2),
        "passed": "-",
        "page_ms": "-",
        "ratio": "-",
        "processor_s": "-",
        **more,
    }


def _times(options: Options, action: Callable[[], float | None]) -> list[float]:
    """Milliseconds that it took, or that it says it took."""
    times = []
    for _ in range(options.repeats):
        began = time.perf_counter()
        told = action()
        times.append((time.perf_counter() - began) * 1000 if told is None else told)
    return times


def _viewed(paths: DatabasePaths, view: Callable[[apsw.Connection], object]) -> Callable[[], None]:
    def look() -> None:
        with closing(open_reader(paths.database)) as reader:
            view(reader)

    return look


def _command(paths: DatabasePaths) -> None:
    command = [sys.executable, "-m", "horizon", "fills", "--db", str(paths.database)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[1])


# ---- check


def _checks(paths: DatabasePaths, history: History, options: Options) -> Iterator[Row]:
    """By all processors first; then on two of them, as on a small host."""
    allowed = os.sched_getaffinity(0)
    for cores in sorted({processors(), 2}, reverse=True):
        os.sched_setaffinity(0, set(sorted(allowed)[:cores]))
        began = _processor_s()
        try:
            times = _times(options, lambda: _checked(paths, history))
        finally:
            os.sched_setaffinity(0, allowed)
        each = round((_processor_s() - began) / options.repeats, 1)
        yield _row("check", f"{cores} processors", history.fills, times, processor_s=each)


def _processor_s() -> float:
    """Of this process and of those that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _checked(paths: DatabasePaths, history: History) -> None:
    report = check(paths)
    if report.findings or report.fills != history.fills:
        raise SystemExit(f"the history is not as it was made: {report}")


# ---- recovery


def _recoveries(paths: DatabasePaths, history: History, small: DatabasePaths, little: History, options: Options) -> Iterator[Row]:
    for database, made in ((small, little), (paths, history)):
        _begin_at(database, made.fills - TURN_FILLS)
        yield from _against_the_page(database, made, options)
    for tail, name in ((100_000, "100k fills"), (1_000_000, "1M fills")):
        passed = tail * (len(history.strategies) - 1)
        _begin_at(paths, history.fills - tail - passed)
        times = _times(options, lambda tail=tail: _recovered(paths, history.strategies[-1:], tail))  # type: ignore[misc]
        yield _row("recovery", name, history.fills, times, passed=passed)
    # Once: a minute, and nothing but ten times the row before.
    once = options._replace(repeats=1)
    yield _row(
        "recovery",
        "10M fills, all strategies",
        history.fills,
        _times(once, lambda: _recovered(paths, history.strategies, history.fills)),
    )


def _begin_at(paths: DatabasePaths, commit_no: int) -> None:
    """Have the strategies' newest snapshots lie at this place; at 0 none counts. That of a strategy that rests moves so, too."""
    with closing(apsw.Connection(str(paths.database))) as connection:
        connection.execute("UPDATE newest_snapshots SET commit_no = ?", (commit_no or -1,))


def _recovered(paths: DatabasePaths, strategies: list[str], fills: int) -> None:
    """From the open of the database to the positions."""
    folded = 0
    with closing(open_reader(paths.database)) as reader:
        for strategy in strategies:
            found = recover(reader, strategy)
            Book.restore(found.rows, found.fills)
            folded += len(found.fills)
    if folded != fills:
        raise SystemExit(f"{folded} fills were recovered, not {fills}")


def _against_the_page(paths: DatabasePaths, history: History, options: Options) -> list[Row]:
    """The last 10,000 fills of all, which are one strategy's: in turn by commit order and by time."""
    strategy, since = history.strategies[-1], history.fills - TURN_FILLS
    with closing(open_reader(paths.database)) as reader:
        ((timestamp,),) = reader.execute("SELECT timestamp FROM fills WHERE rowid = ?", (since + 1,))
    by_order = {"strategy": strategy, "after": since, "last": history.fills}
    by_time = {"last": history.fills, "timestamp": timestamp}
    found: dict[str, list[float]] = {"read": [], "page read": [], "whole": [], "page": []}
    for _ in range(options.repeats):
        with closing(open_reader(paths.database)) as reader:
            for name, query, bindings in (("read", "fills_between", by_order), ("page read", "original_fills_since", by_time)):
                began = time.perf_counter()
                rows = reader.execute(QUERIES[query], bindings).fetchall()
                found[name].append((time.perf_counter() - began) * 1000)
                if len(rows) != TURN_FILLS:
                    raise SystemExit(f"{query} gave {len(rows)} fills, not {TURN_FILLS}")
        found["whole"] += _times(options._replace(repeats=1), lambda: _recovered(paths, [strategy], TURN_FILLS))
        found["page"] += _times(options._replace(repeats=1), lambda: _by_time(paths, by_time))
    return [
        _row(
            "recovery", of, history.fills, found[ours], passed=0, page_ms=round(statistics.median(found[page]), 2),
            ratio=paired_ratio(found[page], found[ours]),
        )
        for of, ours, page in (("10k fills", "whole", "page"), ("10k fills, read only", "read", "page read"))
    ]  # fmt: skip


def _by_time(paths: DatabasePaths, by_time: dict[str, Any]) -> None:
    """As the page has it, where one file holds one book."""
    with closing(open_reader(paths.database)) as reader:
        rows: Any = reader.execute(
            "SELECT * FROM position_snapshots WHERE snapshot_batch = (SELECT max(snapshot_batch) FROM position_snapshots)"
        )
        rows.fetchall()
        Book.restore((), [fill_of(row) for row in reader.execute(QUERIES["original_fills_since"], by_time)])


# ---- start


def _starts(paths: DatabasePaths, history: History, undrained: int, options: Options) -> list[float]:
    return _times(options, lambda: _start(paths, history.strategies[-1], undrained))


def _start(paths: DatabasePaths, strategy: str, undrained: int) -> float:
    _leave_journal(paths, strategy, undrained)
    began = time.perf_counter()
    engine = Engine(db_path=paths.database, strategy=strategy)
    engine.recover_state()
    engine.start_run(strategy)
    lasted = time.perf_counter() - began
    engine.close()
    end_writer(paths)
    return lasted * 1000


def _leave_journal(paths: DatabasePaths, strategy: str, events: int) -> None:
    """What a killed run leaves: a journal that nobody has drained, and a free lock."""
    if not events:
        return
    with closing(Store(paths)) as store:
        database_id = store.database_id
    lock = FileLock(paths.strategy_lock(strategy))
    if not lock.take():
        raise SystemExit(f"{lock.path} is held: another benchmark runs here")
    run_id = new_run_id()
    journal = Journal(paths.journal(run_id), About(database_id, run_id, strategy, "process", os.getpid()), DEFAULT_BYTES)
    for event in mixed(run_id, events):
        journal.append(event)
    journal.close()
    lock.release()
