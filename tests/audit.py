"""Compare a database with the witnesses of its strategies: nothing lost, nothing twice, in order, positions exact to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import witness
from msgspec.structs import astuple, replace
from road import dead_letters, rows

from horizon.paths import DatabasePaths
from horizon.positions import Book
from horizon.records import Fill, OrderEvent, PositionRow, Record, RunEnded, RunStarted, Side
from horizon.store.connection import open_reader
from horizon.store.fills import fill_of
from horizon.store.recovery import recover


@dataclass
class Run:
    """What the witness saw of one run."""

    run_id: str
    begun: list[Record] = field(default_factory=list)  # the first of them has seq 1
    returned: int = 0
    states: list[witness.State] = field(default_factory=list)


def assert_nothing_lost_nothing_twice(paths: DatabasePaths, *strategies: str) -> int:
    """Everything is drained: every record of every run is in the database once. Returns how many records that are."""
    assert not paths.journals(), "every journal is drained"
    assert rows(paths, "SELECT * FROM run_gaps") == []
    assert rows(paths, "SELECT * FROM duplicates") == []
    assert dead_letters(paths) == []
    total = 0
    for strategy in strategies:
        seen = _witnessed(paths.database.parent / f"{strategy}.witness")
        for run in seen:
            total += _assert_run_is_stored(paths, run)
        _assert_order(paths, strategy, {run.run_id for run in seen})
        _assert_positions(paths, strategy, seen)
    return total


def _witnessed(path: Path) -> list[Run]:
    runs: dict[str, Run] = {}
    for line in witness.read(path):
        run = runs.setdefault(line.run_id, Run(line.run_id))
        if isinstance(line, witness.Before):
            run.begun.append(line.record)
        elif isinstance(line, witness.After):
            assert line.seq == len(run.begun), "a seq per call, rising by one"
            run.returned = line.seq
        else:
            run.states.append(line)
    return list(runs.values())


def _assert_run_is_stored(paths: DatabasePaths, run: Run) -> int:
    committed = next((seq for (seq,) in rows(paths, "SELECT committed_seq FROM run_cursors WHERE run_id = ?", run.run_id)), 0)
    assert committed >= run.returned, f"run {run.run_id} lost {run.returned - committed} records"
    assert committed <= len(run.begun), f"run {run.run_id} has {committed - len(run.begun)} records that nobody made"
    expected: dict[tuple[str, int], tuple[Any, ...]] = {}
    for seq, record in enumerate(run.begun[:committed], 1):
        if isinstance(record, Fill | OrderEvent):
            expected[type(record).__name__, seq] = tuple(map(_plain, astuple(record)))
        elif isinstance(record, RunStarted | RunEnded):
            expected[type(record).__name__, seq] = ()
    stored = list(_stored(paths, run.run_id))
    assert len(stored) == len(dict(stored)), f"run {run.run_id} has a record twice"
    assert dict(stored) == expected, f"the rows of run {run.run_id} are its records"
    return int(committed)


def _stored(paths: DatabasePaths, run_id: str) -> Iterator[tuple[tuple[str, int], tuple[Any, ...]]]:
    """The rows of a run, each under its kind and seq."""
    for seq, *columns in rows(paths, f"SELECT seq, {_columns(Fill)} FROM fills WHERE run_id = ?", run_id):
        yield ("Fill", seq), tuple(map(_plain, astuple(fill_of(tuple(columns)))))
    for seq, *columns in rows(paths, f"SELECT seq, {_columns(OrderEvent)} FROM order_events WHERE run_id = ?", run_id):
        yield ("OrderEvent", seq), tuple(columns)
    for seq, ended_seq, status in rows(paths, "SELECT seq, ended_seq, status FROM strategy_runs WHERE run_id = ?", run_id):
        yield ("RunStarted", seq), ()
        if ended_seq is not None:
            yield ("RunEnded", ended_seq), ()
        assert status == ("died" if ended_seq is None else "ended"), f"run {run_id}"


def _assert_order(paths: DatabasePaths, strategy: str, run_ids: set[str]) -> None:
    for table, order in (("fills", "commit_no"), ("order_events", "id")):
        places = rows(paths, f"SELECT run_id, seq FROM {table} WHERE strategy = ? ORDER BY {order}", strategy)
        assert places == sorted(places), f"{table} of {strategy} are in the order recorded"
        assert {run_id for run_id, _ in places} <= run_ids, f"{table} of {strategy} are of runs that there were"


def _assert_positions(paths: DatabasePaths, strategy: str, runs: list[Run]) -> None:
    """The fold of all fills, at every moment that somebody said what the positions are, says the same to the bit."""
    query = f"SELECT run_id, seq, commit_no, {_columns(Fill)} FROM fills WHERE strategy = ? ORDER BY commit_no"
    book = Book()
    folded: dict[int, dict[Any, PositionRow]] = {0: {}}  # commit_no -> positions after it
    places: list[tuple[str, int, int]] = []  # (run_id, seq, commit_no), rising
    for run_id, seq, commit_no, *columns in rows(paths, query, strategy):
        book.apply(fill_of(tuple(columns)))
        folded[commit_no] = _by_key(book.snapshot())
        places.append((run_id, seq, commit_no))
    for state in (state for run in runs for state in run.states):
        place = max((commit_no for run_id, seq, commit_no in places if (run_id, seq) <= (state.run_id, state.seq)), default=0)
        assert _by_key(state.rows) == folded[place], f"positions of {strategy} in memory after seq {state.seq} of {state.run_id}"
    own = [commit_no for _, _, commit_no in places]
    for place, positions in _snapshots(paths, strategy):
        included = max((commit_no for commit_no in own if commit_no <= place), default=0)
        assert _by_key(positions) == folded[included], f"the snapshot of {strategy} at place {place} of the commit order"
    with closing(open_reader(paths.database)) as reader:
        found = recover(reader, strategy)
    assert _by_key(Book.restore(found.rows, found.fills).snapshot()) == _by_key(book.snapshot()), f"what {strategy} recovers"


def _snapshots(paths: DatabasePaths, strategy: str) -> Iterator[tuple[int, tuple[PositionRow, ...]]]:
    """(place in the commit order, rows) of every stored snapshot."""
    exact = "exact_size, exact_cost, exact_realized_pnl, exact_fees, exact_base_fees, multiplier"
    batches: dict[tuple[str, int, int], list[PositionRow]] = {}
    for run_id, seq, commit_no, market_id, side, *rest in rows(
        paths,
        f"SELECT run_id, seq, commit_no, market_id, side, exchange, token_id, {exact} FROM position_snapshots WHERE strategy = ? "
        "ORDER BY id",
        strategy,
    ):
        batches.setdefault((run_id, seq, commit_no), []).append(PositionRow(market_id, Side(side), *rest))
    return ((commit_no, tuple(batch)) for (_, _, commit_no), batch in batches.items())


def _by_key(positions: tuple[PositionRow, ...]) -> dict[Any, PositionRow]:
    """Without the marks, which are no matter of the fills."""
    return {(row.exchange, row.market_id, row.side): replace(row, mark=None) for row in positions}


def _columns(kind: type[Fill | OrderEvent]) -> str:
    return ", ".join(kind.__struct_fields__)


def _plain(value: Any) -> Any:
    return getattr(value, "value", value)
