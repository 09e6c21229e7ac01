"""Three recorded days drive three strategies at once through paper venues into one database."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from road import rows, script

from horizon.paths import DatabasePaths
from horizon.store.connection import open_reader
from horizon.store.read import positions

pytestmark = pytest.mark.recorded

EVENTS = {"binance": 2001 + 451, "eurusd": 41_367, "mtgox": 2331}


def test_three_days_at_once_end_in_one_database_as_their_processes_held_them(
    recorded_data: Path, database: DatabasePaths
) -> None:
    traders = [
        subprocess.Popen(
            [sys.executable, script("replaying.py"), str(recorded_data), str(database.database), day], stdout=subprocess.PIPE
        )
        for day in EVENTS
    ]
    results = [json.loads(trader.communicate(timeout=110)[0]) for trader in traders]
    assert [trader.returncode for trader in traders] == [0, 0, 0]
    for result in results:
        day = result["strategy"]
        assert result["cycles"] == EVENTS[day], "every recorded event was one cycle"
        assert result["fills"] > 50
        # Every fill that the strategy saw is one row, and the rows' fold is what the process held.
        assert rows(database, "SELECT count(*), count(DISTINCT fill_id) FROM fills WHERE strategy = ?", day) == [
            (result["fills"],) * 2
        ]
        with closing(open_reader(database.database)) as reader:
            stored = positions(reader, strategy=day)
        assert [[one.market_id, one.size, one.avg_entry_price, one.realized_pnl, one.fees] for one in stored] == result["held"]
        assert rows(database, "SELECT count(*) FROM order_events WHERE strategy = ? AND status = 'new'", day) == [
            (result["orders"],)
        ]
    assert rows(database, "SELECT count(*) FROM open_orders") == [(0,)]
    assert rows(database, "SELECT count(*) FROM strategy_runs WHERE status = 'ended'") == [(3,)]
