"""What a run counts and can be asked for, as its metrics tell it."""

from __future__ import annotations

import gc
import weakref

import pytest
from engines import LOOSE, Watched, fill_of
from msgspec.structs import replace

from horizon.errors import RiskError
from horizon.records import OrderRequest, OrderSide, Side


def _request(size: float = 1.0, price: float = 0.5) -> OrderRequest:
    return OrderRequest("m", Side.Yes, OrderSide.Buy, size, price)


def _value(watched: Watched, name: str, **labels: str) -> float | None:
    return watched.engine.metrics.registry.get_sample_value(name, labels)


def test_orders_positions_and_profit_are_told_as_they_are() -> None:
    watched = Watched()
    order_id = watched.engine.submit_order(_request(2.0))
    watched.engine.submit_order(_request(1.0, 0.4))
    venue = watched.engine.exchange_name()
    assert _value(watched, "horizon_orders_open", venue=venue) == 2
    watched.engine.process_fill(fill_of(order_id, size=2.0, exchange=venue))
    watched.engine.update_mark_price("m", Side.Yes, 0.6)
    assert _value(watched, "horizon_positions_open", venue=venue) == 1
    assert _value(watched, "horizon_pnl", kind="unrealized") == pytest.approx(0.2)
    assert _value(watched, "horizon_pnl", kind="realized") == 0


def test_what_the_risk_checks_decide_is_counted_by_layer() -> None:
    watched = Watched(replace_risk(max_order_size=5.0))
    watched.engine.submit_order(_request(1.0))
    for _ in range(3):
        with pytest.raises(RiskError) as refused:
            watched.engine.submit_order(_request(9.0))
    assert _value(watched, "horizon_risk_decisions_total", layer="all", kind="pass") == 1
    assert _value(watched, "horizon_risk_decisions_total", layer=refused.value.check, kind="reject") == 3


def test_the_time_of_a_venue_is_a_histogram() -> None:
    watched = Watched()
    assert _value(watched, "horizon_order_latency_seconds_count", venue=watched.engine.exchange_name()) is None
    watched.engine.submit_order(_request())
    assert _value(watched, "horizon_order_latency_seconds_count", venue=watched.engine.exchange_name()) == 1


def test_a_kill_switch_is_told() -> None:
    watched = Watched()
    assert _value(watched, "horizon_kill_switch_active") == 0
    watched.engine.activate_kill_switch("test")
    assert _value(watched, "horizon_kill_switch_active") == 1


def test_an_engine_that_is_dropped_goes_at_once() -> None:
    watched = Watched()
    engine = weakref.ref(watched.engine)
    desk = weakref.ref(watched.engine._desk)
    gc.disable()
    try:
        del watched.engine
        watched.__dict__.clear()
        assert engine() is None
        assert desk() is None
    finally:
        gc.enable()


def replace_risk(**changes: float) -> object:
    return replace(LOOSE, **changes)
