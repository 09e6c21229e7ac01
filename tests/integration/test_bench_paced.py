"""The load of the benchmarks, against a real writer: every event has its times, and they count from its intended moment."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import cast

from bench.events import mixed
from bench.paced import Listener, drive
from bench.writer import end_writer, private_writer
from horizon.locks import is_free
from horizon.paths import DatabasePaths
from horizon.store.connection import open_reader


def test_every_event_behind_the_warm_up_has_its_times_and_is_in_the_database(tmp_path: Path) -> None:
    paths = DatabasePaths.of(tmp_path / "x.db")
    with private_writer(paths, "process"), closing(cast(Listener, Listener.open(paths, "one"))) as recorder:
        due_after = [0.002 * number for number in range(100)] + [0.2] * 20
        seen = drive(recorder, mixed(recorder.run_id, 120), due_after, warm_up_s=0.1)
        assert (seen.recorded, len(seen.recorded_us), len(seen.committed_ms)) == (120, 70, 70)
        assert seen.cycles <= 101  # the last twenty were due at once
        assert all(
            0 < recorded / 1000 < committed for recorded, committed in zip(seen.recorded_us, seen.committed_ms, strict=True)
        )
        with closing(open_reader(paths.database)) as reader:
            assert reader.execute("SELECT (SELECT count(*) FROM fills) + (SELECT count(*) FROM order_events)").get == 120


def test_a_writer_with_its_checkpoints_between_the_commits_serves_the_same_strategies(tmp_path: Path) -> None:
    paths = DatabasePaths.of(tmp_path / "x.db")
    with (
        private_writer(paths, "power", checkpoints_inline=True),
        closing(cast(Listener, Listener.open(paths, "one"))) as recorder,
    ):
        assert drive(recorder, mixed(recorder.run_id, 40), [0.001] * 40, warm_up_s=0.0).recorded == 40


def test_a_writer_that_is_ended_has_let_go_of_its_database(tmp_path: Path) -> None:
    paths = DatabasePaths.of(tmp_path / "x.db")
    with private_writer(paths, "process"):
        assert not is_free(paths.writer_lock)
    assert is_free(paths.writer_lock)
    end_writer(paths)  # nothing is left to be ended
