"""A venue that sends every old fill again after a kill changes neither rows nor positions (R1, R4)."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from eventually import eventually
from road import dead_letters, rows

from horizon.paths import DatabasePaths
from horizon.positions import Book
from horizon.store.connection import open_reader
from horizon.store.recovery import recover
from horizon.venues.playback import Playback

FILLS = 600
COLUMNS = {name: name for name in ("fill_id", "order_id", "market_id", "order_side", "price", "size", "fee", "timestamp")}

# Plays the file from its first row, prints every new fill before the next, and at the end what the engine holds.
PLAYER = """
import json, sys
from horizon import Engine
from horizon.venues.playback import Playback
venue = Playback(sys.argv[1], {columns}, name="venue", rows_per_poll=10, redeliver=100)
with Engine(db_path=sys.argv[2], strategy="maker", venue=venue) as engine:
    engine.start_run("maker")
    while not venue.exhausted:
        if engine.poll_fills():
            print(engine.fills_applied, flush=True)
            if engine.fills_applied % 50 == 0:
                engine.snapshot_positions()
        engine.wait(0.0005)
    print(json.dumps([[one.market_id, one.size, one.realized_pnl, one.fees] for one in engine.all_positions()]))
"""


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """Fills of two markets, bought and sold in turns, in sizes that no float holds exactly."""
    path = tmp_path / "fills.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(COLUMNS))
        writer.writeheader()
        for number in range(FILLS):
            side = "buy" if number % 3 else "sell"
            values = (
                f"t-{number}",
                f"o-{number // 4}",
                f"m{number % 2}",
                side,
                f"0.{number % 7 + 1}",
                f"0.{number % 9 + 1}",
                "0.01",
                1000,
            )
            writer.writerow(dict(zip(COLUMNS, values, strict=True)))
    return path


def start(history: Path, database: DatabasePaths) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", PLAYER.format(columns=COLUMNS), str(history), str(database.database)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def held(book: Book) -> list[list[object]]:
    return sorted([one.market_id, one.size, one.realized_pnl, one.fees] for one in book.all_positions())


def test_a_venue_that_sends_everything_again_after_each_kill_changes_nothing(database: DatabasePaths, history: Path) -> None:
    fills = Playback(history, COLUMNS, name="venue").fills
    # Given three incarnations that are killed amid new fills, each after the venue has told it all the old ones again
    for _ in range(3):
        player = start(history, database)
        assert player.stdout is not None
        for _ in range(10):
            player.stdout.readline()
        player.kill()
        player.communicate()
        assert player.returncode == -signal.SIGKILL
    # When one plays to the end, and one more hears nothing but old fills
    told = [start(history, database).communicate(timeout=60)[0].splitlines() for _ in range(2)]
    # Then every fill is one row, in the order of the venue, and both held the fold of all fills
    assert [fill_id for (fill_id,) in rows(database, "SELECT fill_id FROM fills ORDER BY commit_no")] == [
        one.fill_id for one in fills
    ]
    expected = held(Book.restore((), fills))
    assert [sorted(json.loads(lines[-1])) for lines in told] == [expected, expected]
    assert len(told[1]) == 1, "nothing was new to the last one"
    with closing(open_reader(database.database)) as reader:
        found = recover(reader, "maker")
    assert held(Book.restore(found.rows, found.fills)) == expected
    assert dead_letters(database) == []


def test_a_fill_that_comes_again_with_another_price_after_a_kill_is_a_dead_letter(database: DatabasePaths, history: Path) -> None:
    player = start(history, database)
    assert player.stdout is not None
    for _ in range(5):
        player.stdout.readline()
    os.kill(player.pid, signal.SIGKILL)
    player.communicate()
    lines = history.read_text().splitlines()
    lines[1] = lines[1].replace("sell,0.1,", "sell,0.9,")
    history.write_text("\n".join(lines) + "\n")
    held_now = json.loads(start(history, database).communicate(timeout=60)[0].splitlines()[-1])
    eventually(lambda: [kind for _, _, kind, *_ in dead_letters(database)] == ["conflict"])
    assert rows(database, "SELECT price FROM fills WHERE fill_id = 't-0'") == [(0.1,)]
    with closing(open_reader(database.database)) as reader:
        found = recover(reader, "maker")
    assert held(Book.restore(found.rows, found.fills)) == sorted(held_now)
