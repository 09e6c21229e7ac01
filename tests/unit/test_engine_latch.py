"""The kill switch as a latch, and the day's drawdown over several runs."""

from __future__ import annotations

import pytest
from engines import fill_of
from restarts import REQUEST, Restarted

from horizon.errors import KillSwitchActive
from horizon.persistence import Persistence
from horizon.records import OrderSide, PositionRow, PositionSnapshot, Side
from horizon.risk import RiskConfig
from horizon.wire import Control


def _is_on(run: Restarted) -> str | None:
    return run.engine.status().kill_switch_reason


@pytest.fixture
def acknowledged(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The committed seq, for the test to raise."""
    committed = [0]
    monkeypatch.setattr(Persistence, "committed_seq", property(lambda _self: committed[0]))
    return committed


def test_a_kill_switch_outlives_the_run_that_turned_it_on() -> None:
    run = Restarted(kill_switch="drawdown: too much")
    with pytest.raises(KillSwitchActive, match="drawdown: too much"):
        run.engine.submit_order(REQUEST)
    assert [kind for kind, _ in run.risk_events()] == ["violation"], "it is recorded already"


def test_a_strategy_may_turn_off_what_an_earlier_run_turned_on_and_that_is_recorded() -> None:
    run = Restarted(kill_switch="by hand")
    run.engine.deactivate_kill_switch()
    assert run.engine.submit_order(REQUEST)
    assert run.risk_events() == [("kill_switch_deactivated", "by hand")]


def test_a_person_trips_it_and_the_next_cycle_cancels_and_refuses_without_recording_it_again() -> None:
    run = Restarted()
    order_id = run.engine.submit_order(REQUEST)
    run.decide(kill_switch="the exchange misbehaves")
    assert run.asked_to_cancel() == [order_id]
    with pytest.raises(KillSwitchActive, match="the exchange misbehaves"):
        run.engine.submit_order(REQUEST)
    assert [kind for kind, _ in run.risk_events()] == ["violation"]


def test_a_person_clears_it_and_trading_goes_on() -> None:
    run = Restarted(kill_switch="by hand")
    run.decide()
    assert run.engine.submit_order(REQUEST)
    assert run.risk_events() == []


def test_outside_of_cycles_an_order_and_a_sleep_obey_too() -> None:
    run = Restarted()
    run.control = Control(kill_switch="now")
    with pytest.raises(KillSwitchActive):
        run.engine.submit_order(REQUEST)
    run.control = Control()
    run.engine.wait(0.001)
    assert _is_on(run) is None


def test_what_this_run_did_to_the_switch_counts_until_the_writer_has_it(acknowledged: list[int]) -> None:
    run = Restarted()
    run.engine.activate_kill_switch("our own")
    run.decide(hold="an older word, without our switch")
    assert _is_on(run) == "our own"
    acknowledged[0] = len(run.records)
    run.decide(kill_switch="our own", hold="an older word, without our switch")
    assert _is_on(run) == "our own"
    run.decide(hold="an older word, without our switch")
    assert _is_on(run) is None


def test_a_hold_is_obeyed_at_once_while_the_switch_waits_for_its_ack(acknowledged: list[int]) -> None:
    run = Restarted()
    run.engine.activate_kill_switch("our own")
    run.engine.deactivate_kill_switch()
    run.decide(kill_switch="our own", hold="maintenance")
    assert _is_on(run) is None
    assert run.engine._desk.gate.hold_reason is not None
    acknowledged[0] = len(run.records)
    run.decide(hold="maintenance")
    assert _is_on(run) is None


def _lose(run: Restarted, money: float) -> None:
    number = len(run.records)
    for order_side, price in ((OrderSide.Buy, money), (OrderSide.Sell, 0.0)):
        run.engine.process_fill(fill_of(f"o{number}-{order_side}", size=1.0, price=price, order_side=order_side))
    run.engine.update_daily_pnl()


def test_a_snapshot_keeps_where_the_day_began_and_its_high() -> None:
    run = Restarted()
    run.engine.set_daily_baseline(3.0)
    run.engine.update_daily_pnl(7.0)
    run.engine.update_daily_pnl(5.0)
    run.engine.end_run()
    snapshot = next(one for one in run.records if isinstance(one, PositionSnapshot))
    assert (snapshot.daily_baseline, snapshot.high_water_mark) == (3.0, 7.0)


def test_the_drawdown_limit_counts_what_was_lost_before_a_restart() -> None:
    """5 % of 1000 may be lost in a day: 30 before the restart and 30 after it are too much, either alone is not."""
    lost = PositionRow("m", Side.Yes, "scripted", None, "0", "0", "-30", "0", "0")
    run = Restarted(risk=RiskConfig(), daily_baseline=0.0, high_water_mark=0.0)
    run.engine._desk.book = run.engine._desk.book.restore([lost])
    assert _is_on(run) is None
    _lose(run, 30.0)
    assert "drawdown" in (_is_on(run) or "")
    fresh = Restarted(risk=RiskConfig())
    _lose(fresh, 30.0)
    assert _is_on(fresh) is None


def test_a_day_that_was_resumed_shows_its_pnl() -> None:
    run = Restarted(daily_baseline=4.0, high_water_mark=9.0)
    assert run.engine.status().daily_pnl == -4.0
    assert run.engine._desk.gate.high_water_mark == 9.0


def test_a_drawdown_that_a_person_has_cleared_does_not_trip_again_by_itself(acknowledged: list[int]) -> None:
    run = Restarted(risk=RiskConfig())
    _lose(run, 60.0)
    assert _is_on(run) is not None
    acknowledged[0] = len(run.records)
    run.decide(kill_switch=_is_on(run))
    run.decide()
    run.engine.update_daily_pnl()
    assert _is_on(run) is None
    _lose(run, 60.0)
    assert _is_on(run) is not None, "from there on it counts again"
