"""kill -9 the writer at random instants while four workers record: nothing lost, nothing twice, order kept."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import pytest
from eventually import eventually
from road import kill_writer, rows, script, writer_pid

from horizon.paths import DatabasePaths

WORKERS = 4
EVENTS = 50_000
KILLS = 10


@pytest.mark.timeout(300)
def test_ten_writer_kills_lose_nothing_and_double_nothing(database: DatabasePaths) -> None:
    # Given four workers that record 50,000 events each
    workers = [
        subprocess.Popen([sys.executable, script("recording.py"), str(database.database), f"worker-{number}", str(EVENTS)])
        for number in range(WORKERS)
    ]
    # When the writer is killed ten times, each time a random moment after it committed something new
    chance = random.Random(20_26)
    kills = 0
    while kills < KILLS and any(worker.poll() is None for worker in workers):
        pid = eventually(lambda: writer_pid(database), what="a writer")
        moment = time.monotonic() + chance.uniform(0.0, 0.4)
        eventually(lambda moment=moment: time.monotonic() >= moment, interval_s=0.001)  # type: ignore[misc]
        if writer_pid(database) == pid and database.database.exists():
            kill_writer(database)
            kills += 1
    for worker in workers:
        assert worker.wait(240) == 0
    # Then every event is there once, in the order recorded
    assert kills == KILLS
    assert rows(database, "SELECT count(*), count(DISTINCT fill_id) FROM fills") == [(WORKERS * EVENTS // 2,) * 2]
    assert rows(database, "SELECT count(*), count(DISTINCT order_id) FROM order_events") == [(WORKERS * EVENTS // 2,) * 2]
    assert rows(database, "SELECT count(*) FROM duplicates") == [(0,)]
    for table, order in (("fills", "commit_no"), ("order_events", "id")):
        assert not rows(
            database,
            f"SELECT run_id, seq FROM (SELECT run_id, seq, lag(seq) OVER (PARTITION BY run_id ORDER BY {order}) AS before FROM {table}) "
            "WHERE seq <= before",
        ), f"{table} are in the order recorded"
    assert rows(database, "SELECT count(*), min(committed_seq), max(committed_seq) FROM run_cursors") == [
        (WORKERS, EVENTS + 2, EVENTS + 2)
    ]
