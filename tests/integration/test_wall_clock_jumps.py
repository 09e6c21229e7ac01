"""A whole Horizon under libfaketime: the time of the day jumps, and nobody is killed, restarted, or loses a fill."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from eventually import eventually
from road import rows
from supervised import Up, configure

from horizon.errors import ExitCode

pytestmark = pytest.mark.faketime


@pytest.fixture
def turn_clock(tmp_path: Path) -> Callable[[str], object]:
    """Say by how much the time of the day is wrong from now on."""
    offset = tmp_path / "offset"
    offset.write_text("+0")
    return offset.write_text


@pytest.fixture
def up(tmp_path: Path, turn_clock: Callable[[str], object]) -> Iterator[Up]:
    configure(tmp_path, "trader", more="degraded_after_s = 5.0")
    environment = {
        "LD_PRELOAD": str(next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))),
        "FAKETIME_TIMESTAMP_FILE": str(tmp_path / "offset"),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    running = Up(tmp_path, environment=environment)
    yield running
    running.end()


def test_strategies_trade_on_through_jumps_of_the_wall_clock(up: Up, turn_clock: Callable[[str], object]) -> None:
    seen = up.folder / "trader.seen"
    up.is_ready("trader")
    pids = up.pid_of("trader"), up.pid_of("writer")

    def fills() -> list[str]:
        return seen.read_text().split() if seen.exists() else []

    # When the clock jumps forward by a year, back by two, and to where it was
    for jump in ("+365d", "-365d", "+0"):
        turn_clock(jump)
        before = len(fills())
        eventually(lambda before=before: len(fills()) >= before + 10, 30.0, what=f"fills at {jump}:\n{up.log()}")
    # Then it is the same strategy and the same writer, and every fill is stored once, in the order in which it came
    assert (up.pid_of("trader"), up.pid_of("writer")) == pids
    assert up.stop() == ExitCode.DONE
    stored = [fill_id for (fill_id,) in rows(up.paths, "SELECT fill_id FROM fills ORDER BY rowid")]
    assert len(set(stored)) == len(stored)
    assert [fill_id for fill_id in stored if fill_id in set(fills())] == fills()
    (spread,) = rows(up.paths, "SELECT MAX(timestamp) - MIN(timestamp) FROM fills")
    assert spread[0] > 700 * 86400, "the clock did not jump"
    (runs,) = rows(up.paths, "SELECT COUNT(*), MIN(status) FROM strategy_runs")
    assert runs == (1, "ended")
