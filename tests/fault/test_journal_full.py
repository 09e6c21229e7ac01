"""A writer that does not answer: fills are taken from the journal's reserve, new orders refused; when that is used up, the run halts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from engines import LOOSE, fill_of
from eventually import eventually
from road import rows, writer_pid
from scripted_venue import ScriptedVenue

from horizon import Engine
from horizon.errors import ExitCode, JournalFull
from horizon.paths import DatabasePaths
from horizon.records import OrderRequest, OrderSide, Side

ORDER = OrderRequest("coin", Side.Yes, OrderSide.Buy, 1, 0.5)

# One order rests and is filled as soon as the file `flood` is there; the other market is quoted in every cycle.
STRATEGY = """
    import sys
    from functools import partial
    from pathlib import Path

    import horizon as hz
    from engines import LOOSE, fill_of
    from horizon.recorder import Recorder
    from scripted_venue import ScriptedVenue

    Recorder.open = partial(Recorder.open, journal_bytes=2 << 20)
    flood = Path(sys.argv[1])


    class Flooding(ScriptedVenue):
        resting = None
        told = 0

        def submit(self, order):
            if order.market_id == "resting":
                self.resting = order.id
            return super().submit(order)

        def poll(self):
            if not flood.exists():
                return []
            self.told += 100
            return [fill_of(self.resting, number, market_id="resting") for number in range(self.told - 99, self.told + 1)]


    def quote(ctx):
        if ctx.market.id == "coin" or venue.resting is None:
            return [hz.Quote(0.4, 0.6, 1_000_000)]


    venue = Flooding()
    try:
        hz.run(
            name="maker", exchange=venue, mode="live", markets=["coin", "resting"], feeds={"coin": hz.Simulated("probability")},
            pipeline=[quote], risk=LOOSE, interval=0.005,
        )
    finally:
        print("canceled the resting order:", [venue.resting] in venue.asked_for("cancel"))
"""


def test_while_the_writer_does_not_answer_fills_are_taken_and_new_orders_refused(
    database: DatabasePaths, small_journals: None
) -> None:
    # Given a run whose writer does not answer
    venue = ScriptedVenue()
    engine = Engine(LOOSE, db_path=database.database, strategy="maker", venue=venue)
    resting = engine.submit_order(OrderRequest("coin", Side.Yes, OrderSide.Buy, 1_000_000, 0.5))
    engine.flush(10)
    writer = _stop(database)
    # When more is filled than may wait beside new orders
    taken = 0
    while engine.room_for_orders():
        venue.events = [fill_of(resting, taken + number) for number in range(1, 101)]
        taken += engine.poll_fills()
    # Then new orders are refused with a sentence, and fills are taken
    with pytest.raises(JournalFull, match=r"new orders are refused: \d+ records wait for the writer"):
        engine.submit_order(ORDER)
    venue.events = [fill_of(resting, taken + 1)]
    assert engine.poll_fills() == 1
    # And when the writer answers again, orders go on by themselves
    os.kill(writer, signal.SIGCONT)
    engine.flush(30)
    engine.submit_order(ORDER)
    engine.close(20)
    assert rows(database, "SELECT count(*), count(DISTINCT fill_id) FROM fills") == [(taken + 1, taken + 1)]


def test_when_the_journals_reserve_is_used_up_the_run_cancels_and_halts(database: DatabasePaths, tmp_path: Path) -> None:
    # Given a strategy at work
    file, flood = tmp_path / "strategy.py", tmp_path / "flood"
    file.write_text(textwrap.dedent(STRATEGY))
    helpers = Path(__file__).parents[1]
    log = tmp_path / "log"
    with log.open("w") as output:
        strategy = subprocess.Popen(
            [sys.executable, str(file), str(flood)],
            stdout=output,
            stderr=output,
            env={**os.environ, "HORIZON_DB": str(database.database), "PYTHONPATH": f"{helpers}{os.pathsep}{helpers.parent}"},
        )
    try:
        eventually(lambda: _has_order(database), timeout_s=20, what="the resting order")
        # When its writer does not answer and the fills do not end
        writer = _stop(database)
        flood.touch()
        assert strategy.wait(60) == ExitCode.HALTED
        os.kill(writer, signal.SIGCONT)
    finally:
        strategy.kill()
        strategy.wait()
    # Then it refused new orders first, canceled the open one, and halted
    said = log.read_text()
    assert "new orders are refused" in said
    assert "halted: " in said
    assert "canceled the resting order: True" in said
    # And everything it recorded is stored once the writer answers
    ((fills,),) = eventually(lambda: not database.journals() and rows(database, "SELECT count(*) FROM fills"), timeout_s=30)
    assert fills > 1000
    filled = "SELECT max(filled_size) FROM order_events WHERE market_id = 'resting'"
    assert rows(database, filled)[0][0] in (fills, fills - 1)  # the fill and its order's event are two records (R8)


def _stop(database: DatabasePaths) -> int:
    writer = writer_pid(database)
    assert writer is not None
    os.kill(writer, signal.SIGSTOP)
    return writer


def _has_order(database: DatabasePaths) -> bool:
    return (
        database.database.exists()
        and bool(rows(database, "SELECT 1 FROM sqlite_master WHERE name = 'open_orders'"))
        and bool(rows(database, "SELECT 1 FROM order_events WHERE market_id = 'resting' AND status = 'accepted'"))
    )
