"""A disk that fills up: no ack, a clear alarm, and on it goes by itself when there is room."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alarms import Alarms
from engines import LOOSE, fill_of
from eventually import eventually
from road import rows, start_writer
from samples import fill
from scripted_venue import ScriptedVenue
from supervised import TRADER

from horizon import Engine
from horizon.errors import AckTimeout, JournalFull
from horizon.paths import DatabasePaths
from horizon.recorder import Recorder
from horizon.records import OrderRequest, OrderSide, Side

pytestmark = pytest.mark.root

JOURNAL_BYTES = 4 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill_up(folder: Path) -> Path:
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            return ballast


def test_a_full_disk_stops_the_acks_and_nothing_else(small_disk: Path) -> None:
    # Given a writer at work on a small disk
    paths = DatabasePaths.of(small_disk / "trades.db")
    writer = start_writer(paths)
    alarms = Alarms(writer)
    recorder = Recorder.open(paths, "maker", may_start_writer=False, journal_bytes=JOURNAL_BYTES)
    recorder.record(fill(1))
    recorder.flush(10)
    # When the disk is full
    ballast = _fill_up(small_disk)
    for number in range(2, 5002):
        recorder.record(fill(number))
    with pytest.raises(AckTimeout):
        recorder.flush(2.0)
    # Then nothing is acknowledged that is not stored, the alarm is out, and recording goes on
    stored = rows(paths, "SELECT count(*) FROM fills")[0][0]
    assert recorder.committed_seq <= stored < 5001
    eventually(lambda: "STALLED" in alarms.text, what="the alarm")
    assert "full" in alarms.text.lower()
    recorder.record(fill(6000))
    # And when there is room again, it goes on by itself
    ballast.unlink()
    recorder.flush(30)
    assert rows(paths, "SELECT count(*), count(DISTINCT fill_id) FROM fills") == [(5002, 5002)]
    eventually(lambda: "resumed" in alarms.text)
    recorder.close()
    writer.terminate()
    assert writer.wait(20) == 0
    alarms.close()


def test_a_start_on_a_full_disk_waits_for_room(small_disk: Path) -> None:
    paths = DatabasePaths.of(small_disk / "trades.db")
    paths.folder.mkdir(mode=0o700)
    ballast = _fill_up(small_disk)
    writer = start_writer(paths)
    alarms = Alarms(writer)
    eventually(lambda: "STALLED" in alarms.text, what="the alarm")
    assert writer.poll() is None
    ballast.unlink()
    recorder = Recorder.open(paths, "maker", may_start_writer=False, journal_bytes=JOURNAL_BYTES)
    recorder.record(fill(1))
    recorder.flush(20)
    recorder.close()
    writer.terminate()
    assert writer.wait(20) == 0
    alarms.close()


def test_on_a_full_disk_fills_are_still_taken_while_new_orders_are_refused(small_disk: Path, small_journals: None) -> None:
    # Given a strategy with an order at its venue, on a disk that is full
    paths = DatabasePaths.of(small_disk / "trades.db")
    writer = start_writer(paths)
    alarms = Alarms(writer)
    venue = ScriptedVenue()
    engine = Engine(LOOSE, db_path=paths.database, strategy="maker", venue=venue, may_start_writer=False)
    resting = engine.submit_order(OrderRequest("coin", Side.Yes, OrderSide.Buy, 1_000_000, 0.5))
    engine.flush(10)
    ballast = _fill_up(small_disk)
    # When more is filled than may wait beside new orders
    taken = 0
    while engine.room_for_orders():
        venue.events = [fill_of(resting, taken + number) for number in range(1, 101)]
        taken += engine.poll_fills()
    # Then new orders are refused with a sentence, and fills are taken
    with pytest.raises(JournalFull, match=r"new orders are refused: \d+ records wait for the writer"):
        engine.submit_order(OrderRequest("coin", Side.Yes, OrderSide.Buy, 1, 0.5))
    venue.events = [fill_of(resting, taken + 1)]
    assert engine.poll_fills() == 1
    # And when there is room again, orders go on by themselves
    ballast.unlink()
    engine.flush(30)
    assert rows(paths, "SELECT count(*), count(DISTINCT fill_id) FROM fills") == [(taken + 1, taken + 1)]
    engine.submit_order(OrderRequest("coin", Side.Yes, OrderSide.Buy, 1, 0.5))
    engine.close(20)
    writer.terminate()
    assert writer.wait(20) == 0
    alarms.close()


def test_horizon_up_waits_for_room_instead_of_ending(small_disk: Path) -> None:
    (small_disk / "trader.py").write_text(TRADER.replace("MARKET", "hz.Market('coin', asset_class='crypto')"))
    (small_disk / "horizon.toml").write_text('[database]\npath = "horizon.db"\n[strategies.trader]\nfile = "trader.py"\n')
    ballast = _fill_up(small_disk)
    up = subprocess.Popen(
        [sys.executable, "-P", "-m", "supervisor", "--config", str(small_disk / "horizon.toml")], stderr=subprocess.PIPE
    )
    alarms = Alarms(up)
    eventually(lambda: "waiting until there is room" in alarms.text, what="the alarm")
    ballast.unlink()
    # The journal of a run needs its 16 MiB too; what matters here is that the supervisor goes on by itself.
    eventually(lambda: "writer is ready" in alarms.text, timeout_s=30, what="the writer")
    up.terminate()
    up.wait(60)
    alarms.close()
