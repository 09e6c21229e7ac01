"""What a restart finds decided: orphans, holds, the kill switch, the day; with a real writer and real kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import apsw
import pytest
from engines import LOOSE, fill_of
from eventually import eventually
from restarts import REQUEST
from road import a_writer_runs, rows, stop_writer
from scripted_venue import ScriptedVenue

from horizon.engine import Engine
from horizon.errors import AckTimeout, Halt, KillSwitchActive, RiskError, VenueError
from horizon.operator import command
from horizon.paths import DatabasePaths
from horizon.records import OrderSide, OrderStatus
from horizon.risk import RiskConfig
from horizon.store.append import Store
from horizon.venues.base import OrderUpdate
from horizon.wire import Command

Open = Callable[..., Engine]


@pytest.fixture
def make(database: DatabasePaths) -> Iterator[Open]:
    """Engines of strategy `s` on one database, closed at the end whatever the test left of them."""
    made: list[Engine] = []

    def make(**arguments: object) -> Engine:
        given = {
            "risk_config": LOOSE,
            "venue": ScriptedVenue(),
            "db_path": database.database,
            "strategy": "s",
            "lock_timeout_s": 5.0,
            **arguments,
        }
        engine = Engine(**given)  # type: ignore[arg-type]
        made.append(engine)
        engine.start_run()
        return engine

    yield make
    for engine in made:
        with suppress(Halt, AckTimeout):
            engine.close(timeout_s=1.0)


def _decide(database: DatabasePaths, action: str, **arguments: str) -> str:
    return command(database, Command(action, "" if arguments else "s", "ann", "because", arguments))


def _refused(engine: Engine) -> bool:
    """Whether an order is refused now by a person's decision."""
    engine.begin_cycle()
    try:
        engine.submit_order(REQUEST)
    except RiskError as error:
        return error.check in ("hold", "kill_switch")
    finally:
        engine.ship()
    return False


def _killed(database: DatabasePaths, body: str) -> list[str]:
    """Run a strategy `s` in a process that does this and is killed. Returns what it printed."""
    program = f"""
        import os, signal, time
        from engines import LOOSE, fill_of
        from restarts import REQUEST
        from scripted_venue import ScriptedVenue
        from horizon.engine import Engine
        from horizon.records import OrderSide
        venue = ScriptedVenue()
        engine = Engine(LOOSE, db_path={str(database.database)!r}, strategy="s", venue=venue)
    """
    text = textwrap.dedent(program) + textwrap.dedent(body) + "\nos.kill(os.getpid(), signal.SIGKILL)\n"
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, check=False, timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    return done.stdout.split()


LEAVES_TWO_OPEN = """
    for _ in range(2):
        print(engine.submit_order(REQUEST), flush=True)
"""


def test_cancel_ends_the_orders_of_a_killed_run_at_the_venue_and_in_the_database(database: DatabasePaths, make: Open) -> None:
    first, second = _killed(database, LEAVES_TWO_OPEN)
    venue = ScriptedVenue()
    engine = make(venue=venue, orphans="cancel")
    engine.flush()
    assert venue.asked_for("cancel") == [[first], [second]]
    assert engine.db_open_order_ids() == []
    (died,) = rows(database, "SELECT run_id FROM strategy_runs WHERE status = 'died'")
    ends = rows(database, "SELECT order_id, status_reason, run_id FROM order_events WHERE status = 'canceled' ORDER BY id")
    assert ends == [(order_id, f"orphan of run {died[0]}: canceled", engine.db_run_id()) for order_id in (first, second)]


def test_what_the_venue_does_not_answer_stays_listed_for_the_next_run(database: DatabasePaths, make: Open) -> None:
    ids = _killed(database, LEAVES_TWO_OPEN)
    venue = ScriptedVenue()
    venue.answers["cancel"] = VenueError("timed out")
    first = make(venue=venue, orphans="cancel")
    assert first.db_open_order_ids() == ids
    first.close()
    second = make(orphans="cancel")
    assert second.db_open_order_ids() == []


def test_hold_waits_for_a_person_who_releases_it_while_the_run_lives(database: DatabasePaths, make: Open) -> None:
    _killed(database, LEAVES_TWO_OPEN)
    engine = make(orphans="hold")
    with pytest.raises(RiskError, match="horizon orphans release --strategy s"):
        engine.submit_order(REQUEST)
    _decide(database, "release")
    eventually(lambda: not _refused(engine), what="an order that is let through")
    assert len(engine.db_open_order_ids()) == 2, "released is not resolved"


def test_a_release_also_holds_for_the_next_run_but_not_for_orphans_that_came_later(database: DatabasePaths, make: Open) -> None:
    _killed(database, LEAVES_TWO_OPEN)
    eventually(lambda: _died(database), what="the drained journal")
    _decide(database, "release")
    first = make(orphans="hold")
    assert not _refused(first)
    first.cancel_all()
    first.close()
    _killed(database, LEAVES_TWO_OPEN)
    assert _refused(make(orphans="hold"))


def test_with_hold_an_orphan_that_a_person_resolved_is_no_orphan(database: DatabasePaths, make: Open) -> None:
    ids = _killed(database, LEAVES_TWO_OPEN)
    eventually(lambda: _died(database), what="the drained journal")
    for order_id in ids:
        _decide(database, "resolve_orphan", order_id=order_id, status="canceled")
    assert not _refused(make(orphans="hold"))


def test_a_person_holds_and_releases_a_running_strategy(database: DatabasePaths, make: Open) -> None:
    engine = make()
    order_id = engine.submit_order(REQUEST)
    _decide(database, "hold")
    eventually(lambda: _refused(engine), what="the hold")
    assert engine.cancel(order_id)
    _decide(database, "release")
    eventually(lambda: not _refused(engine), what="the release")


def test_a_gap_holds_the_next_run_until_it_is_accepted(database: DatabasePaths, make: Open) -> None:
    """R13."""
    engine = make()
    run_id = engine.db_run_id()
    assert run_id is not None
    engine.close()
    ((last,),) = rows(database, "SELECT committed_seq FROM run_cursors")
    stop_writer(database)
    store = Store(database)
    store.record_gap(run_id, "s", last + 1, last + 5, "the journal is gone")
    store.close()
    held = make()
    with pytest.raises(RiskError, match=f"horizon journal accept-gap {run_id}"):
        held.submit_order(REQUEST)
    _decide(database, "accept_gap", run_id=run_id)
    eventually(lambda: not _refused(held), what="an order after the gap was accepted")


def test_a_restart_does_not_clear_the_kill_switch_of_a_killed_run(database: DatabasePaths, make: Open) -> None:
    _killed(database, 'engine.activate_kill_switch("too much lost")')
    first = make()
    with pytest.raises(KillSwitchActive, match="too much lost"):
        first.submit_order(REQUEST)
    first.close()
    second = make()
    assert second.status().kill_switch_reason == "too much lost"
    _decide(database, "clear")
    eventually(lambda: not _refused(second), what="trading after the switch was cleared")
    second.close()
    assert not make().status().kill_switch_active


def test_a_person_trips_the_kill_switch_of_a_running_strategy_and_it_is_recorded_once(
    database: DatabasePaths, make: Open
) -> None:
    venue = ScriptedVenue()
    engine = make(venue=venue)
    order_id = engine.submit_order(REQUEST)
    _decide(database, "trip")
    eventually(lambda: _refused(engine), what="the kill switch")
    assert [order_id] in venue.asked_for("cancel"), "beside the orders that asked whether it is on already"
    engine.flush()
    assert rows(database, "SELECT count(*) FROM risk_events WHERE event_type = 'kill_switch_activated'") == [(1,)]


def test_a_kill_switch_that_a_person_trips_while_nobody_runs_waits_for_the_next_run(database: DatabasePaths, make: Open) -> None:
    make().close()
    _decide(database, "trip")
    assert _refused(make())


def test_a_run_and_a_person_who_turn_the_switch_agree_with_the_database(database: DatabasePaths, make: Open) -> None:
    engine = make()
    for _ in range(5):
        engine.activate_kill_switch("the strategy's own")
        engine.flush()
        _decide(database, "clear")
        eventually(lambda: not _refused(engine), what="the person's word")
        _decide(database, "trip")
        eventually(lambda: _refused(engine), what="the person's word")
        engine.deactivate_kill_switch()
        engine.flush()
        assert not _refused(engine)
        assert rows(database, "SELECT kill_switch FROM strategy_controls") == [(None,)]


def test_the_day_goes_on_after_a_kill(database: DatabasePaths, make: Open) -> None:
    _killed(
        database,
        """
        engine.set_daily_baseline(0.0)
        engine.update_daily_pnl(7.0)
        engine.process_fill(fill_of("a", 1, size=1.0, price=2.0))
        engine.snapshot_positions()
        engine.process_fill(fill_of("a", 2, size=1.0, price=0.5, order_side=OrderSide.Sell))
        """,
    )
    engine = make()
    gate = engine._desk.gate
    assert (gate.baseline, gate.high_water_mark, engine.status().daily_pnl) == (0.0, 7.0, -1.5)


def test_a_drawdown_that_was_cleared_while_nobody_ran_does_not_stop_the_next_run(database: DatabasePaths, make: Open) -> None:
    strict = RiskConfig(max_portfolio_notional=100.0, price_max=1e9)
    first = make(risk_config=strict)
    first.process_fill(fill_of("a", 1, price=10.0))
    first.process_fill(fill_of("a", 2, price=1.0, order_side=OrderSide.Sell))
    first.update_daily_pnl()
    first.close()
    second = make(risk_config=strict)
    second.update_daily_pnl()
    assert "drawdown" in (second.status().kill_switch_reason or "")
    second.close()
    _decide(database, "clear")
    third = make(risk_config=strict)
    third.update_daily_pnl()
    assert not third.status().kill_switch_active
    assert third.submit_order(REQUEST)


def test_with_committed_intent_every_reader_knows_an_order_before_the_venue_does(database: DatabasePaths, make: Open) -> None:
    venue = ScriptedVenue()
    known: list[object] = []
    venue.on_submit = lambda order: known.extend(
        rows(database, "SELECT status FROM order_events WHERE order_id = ? ORDER BY id", order.id)
    )
    engine = make(venue=venue, intent="committed")
    engine.begin_cycle()
    engine.submit_order(REQUEST)
    assert known == [("new",)]


def test_an_order_that_the_writer_does_not_commit_in_time_is_not_sent(
    database: DatabasePaths, make: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("horizon.desk.INTENT_TIMEOUT_S", 0.2)
    venue = ScriptedVenue()
    engine = make(venue=venue, intent="committed")
    writer = a_writer_runs(database)
    os.kill(writer, signal.SIGSTOP)
    for _ in range(2):
        with pytest.raises(AckTimeout):
            engine.submit_order(REQUEST)
    os.kill(writer, signal.SIGCONT)
    assert venue.asked_for("submit") == []
    engine.flush()
    assert rows(database, "SELECT status FROM order_events ORDER BY id") == [("new",), ("rejected",)]
    assert engine.submit_order(REQUEST)


def test_an_order_that_was_about_to_be_sent_when_its_process_was_killed_is_an_orphan(database: DatabasePaths, make: Open) -> None:
    """Nobody knows whether the venue has it: it is shown as open, and its fate is asked for."""
    _killed(
        database,
        """
        def die(order):
            print(order.id, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        venue.on_submit = die
        engine.submit_order(REQUEST)
        """,
    )
    venue = ScriptedVenue()
    engine = make(venue=venue)
    (orphan,) = engine.db_open_order_ids()
    assert venue.asked_for("order_by_client_id") == [[orphan]]
    engine.close()
    venue.endings[orphan] = OrderUpdate(orphan, OrderStatus.Rejected, "never arrived")
    again = make(venue=venue)
    again.flush()
    assert again.db_open_order_ids() == []


def _died(database: DatabasePaths) -> bool:
    """Whether the killed run is stored as dead; before the writer has made the database there is nothing to ask."""
    try:
        return rows(database, "SELECT status FROM strategy_runs") == [("died",)]
    except apsw.Error:
        return False
