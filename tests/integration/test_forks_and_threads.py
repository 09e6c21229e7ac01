"""A strategy may use a process pool and threads: nothing is lost and nothing doubled."""

from __future__ import annotations

import subprocess
import sys

import pooling
from road import rows, script

from horizon.paths import DatabasePaths


def test_a_strategy_with_a_process_pool_and_eight_threads_loses_and_doubles_nothing(database: DatabasePaths) -> None:
    strategy = subprocess.run(
        [sys.executable, script("pooling.py"), str(database.database)], capture_output=True, text=True, timeout=60, check=False
    )
    assert strategy.returncode == 0, strategy.stderr
    expected = pooling.THREADS * pooling.FILLS
    # Every fill was taken once; handed over a second time, none of them was new.
    assert strategy.stdout.split() == [str(expected), "0", str(sum(number * number for number in range(pooling.JOBS)))]
    assert rows(database, "SELECT count(*), count(DISTINCT fill_id) FROM fills") == [(expected, expected)]
    assert rows(database, "SELECT count(*) FROM duplicates") == [(0,)]
    assert rows(database, "SELECT status FROM strategy_runs") == [("ended",)]
