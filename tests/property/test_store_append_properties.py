"""However records of several runs mix, are cut into batches, are sent again, and however often the writer starts over:
the database is the one that a single pass makes, and every seq of every run ended as exactly one thing."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import cast

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_case import FixedClock, Run, fate_of_every_seq, fill, order_event, rows, snapshot

from horizon.journal import JournalReader
from horizon.paths import DatabasePaths
from horizon.records import FillConflict, OrderStatus, PositionSnapshot, Record, RiskEvent, RiskEventType, RunEnded
from horizon.store.append import Store, Stretch
from horizon.wire import Frames
from horizon.writer.batch import Batch
from horizon.writer.batch import Run as WriterRun

TABLES = (
    "fills", "order_events", "position_snapshots", "risk_events", "strategy_runs", "run_cursors", "duplicates", "open_orders",
    "newest_snapshots",
)  # fmt: skip
ONE_FILE = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

fills = st.builds(
    lambda number, change: fill(f"f-{number}", **change),
    st.integers(0, 12),
    st.sampled_from([{}, {}, {}, {"price": 1.0}, {"fee": 9.0}]),
)
order_events = st.builds(
    lambda number, status, recorded_at: order_event(f"o-{number}", status, recorded_at=recorded_at),
    st.integers(0, 3),
    st.sampled_from(OrderStatus),
    st.sampled_from([1.0, 1.0, 1.0, math.nan]),  # NaN is refused by the schema
)
snapshots = st.one_of(
    st.just(PositionSnapshot(1.0, ())),
    st.integers(0, 2).map(lambda number: snapshot([fill(f"f-{number}", size=number + 1.0)])),
)
others: st.SearchStrategy[Record | None] = st.one_of(
    st.just(RiskEvent(RiskEventType.Violation, None, 1.0)), fills.map(FillConflict), st.just(RunEnded(1.0)), st.none()
)
records = st.one_of(fills, fills, order_events, order_events, snapshots, others)
RUNS = (("run-1", "maker"), ("run-2", "maker"), ("run-3", "taker"))
histories = st.lists(st.tuples(st.sampled_from(range(len(RUNS))), records), max_size=40)


@ONE_FILE
@given(history=histories, data=st.data())
def test_any_cut_with_any_resends_and_restarts_gives_what_one_pass_gives(
    history: list[tuple[int, Record | None]], data: st.DataObject
) -> None:
    entries = numbered(history)
    with tempfile.TemporaryDirectory() as folder:
        straight, winding = DatabasePaths.of(Path(folder) / "straight.db"), DatabasePaths.of(Path(folder) / "winding.db")
        store = Store(straight, clock=FixedClock())
        for entry in entries:
            store.append(as_read([entry]))
        store.close()

        store = Store(winding, clock=FixedClock())
        done = 0
        while done < len(entries):
            resent = data.draw(st.integers(0, done), label="resent from")
            done = data.draw(st.integers(done + 1, len(entries)), label="up to")
            store.append(as_read(entries[resent:done]))
            if data.draw(st.booleans(), label="restart"):
                store.reopen()
        store.close()

        for table in TABLES:
            assert content(winding, table) == content(straight, table)
        assert rows(winding.dead_letters, "SELECT * FROM dead_letters ORDER BY run_id, seq") == rows(
            straight.dead_letters, "SELECT * FROM dead_letters ORDER BY run_id, seq"
        )


@ONE_FILE
@given(history=histories, size=st.integers(1, 50))
def test_every_seq_of_every_run_ends_as_exactly_one_thing_in_the_order_recorded(
    history: list[tuple[int, Record | None]], size: int
) -> None:
    entries = numbered(history)
    with tempfile.TemporaryDirectory() as folder:
        paths = DatabasePaths.of(Path(folder) / "x.db")
        store = Store(paths, clock=FixedClock())
        for start in range(0, len(entries), size):
            store.append(entries[start : start + size])
        store.close()
        for run_id, last, without_rows, refused in rows(
            paths.database, "SELECT run_id, committed_seq, snapshots_without_rows, snapshots_refused FROM run_cursors"
        ):
            fates = fate_of_every_seq(paths, run_id)
            assert all(len(fate) == 1 for fate in fates.values()), fates
            unseen = set(range(1, last + 1)) - set(fates)
            taken = {one.first_seq for one in entries if one.run_id == run_id and isinstance(one.records[0], PositionSnapshot)}
            assert unseen <= taken
            assert len(unseen) == without_rows + refused
            assert last == max(one.last_seq for one in entries if one.run_id == run_id)
        for table, order in (("fills", "rowid"), ("order_events", "id"), ("position_snapshots", "id")):
            for run_id, _ in RUNS:
                seqs = rows(paths.database, f"SELECT seq FROM {table} WHERE run_id = '{run_id}' ORDER BY {order}")
                assert seqs == sorted(seqs)
        numbers = [number for (number,) in rows(paths.database, "SELECT commit_no FROM fills ORDER BY rowid")]
        assert numbers == list(range(1, len(numbers) + 1))


def numbered(history: Sequence[tuple[int, Record | None]]) -> list[Stretch]:
    runs = [Run(run_id, strategy) for run_id, strategy in RUNS]
    return [*(run.start() for run in runs), *(runs[number].entry(record) for number, record in history)]


def as_read(entries: Sequence[Stretch]) -> list[Stretch]:
    """What the writer makes of their bytes: neighbours of one run are decoded together and stay together."""
    batch = Batch()
    for run_id, group in groupby(entries, key=lambda entry: entry.run_id):
        neighbours = list(group)
        run = WriterRun(run_id, dict(RUNS)[run_id], cast(JournalReader, None), committed=0, taken=0, offset=0)
        frames = Frames(neighbours[0].first_seq, [entry.payloads[0] for entry in neighbours], size=0)
        assert batch.take(run, frames, 0, from_journal=True)
    return batch.stretches


def content(paths: DatabasePaths, table: str) -> list[tuple[object, ...]]:
    return rows(paths.database, f"SELECT rowid, * FROM {table} ORDER BY rowid")
