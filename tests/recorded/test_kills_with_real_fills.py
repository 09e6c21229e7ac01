"""Real accounts, killed again and again, end as they end without kills: same rows, same positions, same realised PnL, bit by bit."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from recorded_accounts import HYPERLIQUID_ACCOUNTS
from road import rows, script

from horizon.paths import DatabasePaths
from horizon.positions import Book
from horizon.records import PositionRow
from horizon.store.connection import open_reader
from horizon.store.recovery import recover, strategies

pytestmark = pytest.mark.recorded


def play(data: Path, paths: DatabasePaths, name: str, *kill_after: str) -> int:
    arguments = [sys.executable, script("playing_on.py"), str(data), str(paths.database), name, *kill_after]
    return subprocess.run(arguments, check=False, timeout=100).returncode


def state(paths: DatabasePaths) -> tuple[PositionRow, ...]:
    """The exact decimals of every position, as the next run would begin with."""
    with closing(open_reader(paths.database)) as reader:
        (strategy,) = strategies(reader)
        found = recover(reader, strategy)
    return Book.restore(found.rows, found.fills).snapshot()


def stored(paths: DatabasePaths) -> list[tuple[object, ...]]:
    return rows(
        paths, "SELECT fill_id, order_id, market_id, order_side, price, size, fee, timestamp FROM fills ORDER BY commit_no"
    )


@pytest.mark.parametrize(
    ("name", "kill_every"), [*((address, 500) for address in HYPERLIQUID_ACCOUNTS), ("hummingbot", 100)], ids=str
)
def test_an_account_killed_every_so_many_fills_ends_as_one_that_never_was(
    recorded_data: Path, tmp_path: Path, name: str, kill_every: int
) -> None:
    once, killed = DatabasePaths.of(tmp_path / "once.db"), DatabasePaths.of(tmp_path / "killed.db")
    assert play(recorded_data, once, name) == 0
    ends: list[int] = []
    while not ends or ends[-1] != 0:
        ends.append(play(recorded_data, killed, name, str(kill_every)))
    fills = len(stored(once))
    assert ends == [-signal.SIGKILL] * (fills // kill_every) + [0]
    assert stored(killed) == stored(once)
    assert state(killed) == state(once)
    assert rows(killed, "SELECT status, count(*) FROM strategy_runs GROUP BY status ORDER BY status") == [
        *([("died", len(ends) - 1)] if len(ends) > 1 else []),
        ("ended", 1),
    ]
    assert rows(killed, "SELECT count(*) FROM run_gaps") == [(0,)]
