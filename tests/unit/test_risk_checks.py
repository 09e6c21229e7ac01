"""The nine checks before an order, in the original's order, with its defaults."""

from __future__ import annotations

import msgspec
import pytest
from manual_clock import ManualClock

from horizon.errors import ConfigError, KillSwitchActive, NotThereYet, RiskError
from horizon.records import OrderRequest, OrderSide, OrderType, Side
from horizon.risk import Exposure, Risk, RiskConfig, RiskGate, Violations

FLAT = Exposure(position=0.0, notional=0.0, multiplier=1.0, total_pnl=0.0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def gate(clock: ManualClock) -> RiskGate:
    return RiskGate(RiskConfig(), clock.monotonic)


def _order(size: float = 5.0, price: float = 0.5, order_side: OrderSide = OrderSide.Buy, **changes: object) -> OrderRequest:
    return OrderRequest("m", Side.Yes, order_side, size, price, **changes)  # type: ignore[arg-type]


def _refused_by(gate: RiskGate, request: OrderRequest, exposure: Exposure = FLAT) -> str:
    with pytest.raises(RiskError) as refusal:
        gate.check(request, exposure)
    return refusal.value.check


def test_defaults_are_the_originals() -> None:
    assert msgspec.structs.astuple(RiskConfig()) == (100.0, 1000.0, 5.0, 50.0, 50.0, 300, 1000.0, None, 0.01, 0.99)


def test_short_names_build_the_same_limits() -> None:
    assert Risk().to_config() == RiskConfig()
    equity = Risk.equity().to_config()
    assert equity.max_position_per_market == 1000.0
    assert (equity.max_portfolio_notional, equity.max_order_size, equity.price_max) == (100_000.0, 500.0, 100_000.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_order_size", 0.0),
        ("rate_limit_sustained", -1.0),
        ("max_portfolio_notional", float("nan")),
        ("dedup_window_ms", -1.0),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_by_its_name(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        RiskConfig(**{name: value})


def test_a_lowest_price_above_the_highest_is_refused() -> None:
    with pytest.raises(ConfigError, match="price_min"):
        RiskConfig(price_min=1.0, price_max=0.5)


def test_a_limit_per_event_is_not_there_yet() -> None:
    with pytest.raises(NotThereYet, match="max_position_per_event"):
        RiskConfig(max_position_per_event=10.0)


def test_a_plain_order_passes(gate: RiskGate) -> None:
    gate.check(_order(), FLAT)


def test_the_kill_switch_comes_before_everything(gate: RiskGate) -> None:
    gate.kill_switch_reason = "a person said so"
    with pytest.raises(KillSwitchActive, match="a person said so"):
        gate.check(_order(price=7.0), FLAT)


@pytest.mark.parametrize("price", [0.009, 0.991, -0.5])
def test_prices_out_of_range_are_refused(gate: RiskGate, price: float) -> None:
    assert _refused_by(gate, _order(price=price)) == "price"


@pytest.mark.parametrize("price", [0.01, 0.99])
def test_the_range_of_prices_includes_its_ends(gate: RiskGate, price: float) -> None:
    gate.check(_order(price=price), FLAT)


def test_a_market_order_has_no_limit_price_to_check(gate: RiskGate) -> None:
    gate.check(_order(price=7.0, order_type=OrderType.Market), FLAT)


def test_negative_prices_pass_when_they_are_configured(clock: ManualClock) -> None:
    RiskGate(RiskConfig(price_min=-100.0), clock.monotonic).check(_order(price=-37.63), FLAT)


def test_an_order_above_the_largest_size_is_refused(gate: RiskGate) -> None:
    gate.check(_order(size=50.0), FLAT)
    assert _refused_by(gate, _order(size=50.1)) == "order_size"


def test_the_position_after_the_order_is_what_is_limited(gate: RiskGate) -> None:
    gate.check(_order(size=10.0), FLAT._replace(position=90.0))
    assert _refused_by(gate, _order(size=10.1), FLAT._replace(position=90.0)) == "position"
    assert _refused_by(gate, _order(size=10.1, order_side=OrderSide.Sell), FLAT._replace(position=-90.0)) == "position"


def test_a_position_beyond_its_limit_may_be_reduced(gate: RiskGate) -> None:
    gate.check(_order(order_side=OrderSide.Sell), FLAT._replace(position=150.0, notional=5000.0))
    assert _refused_by(gate, _order(), FLAT._replace(position=150.0)) == "position"


def test_position_limits_are_compared_in_decimals(clock: ManualClock) -> None:
    gate = RiskGate(RiskConfig(max_position_per_market=0.3), clock.monotonic)
    gate.check(_order(size=0.2), FLAT._replace(position=0.1))  # as floats 0.1 + 0.2 is above 0.3


def test_the_notional_of_all_positions_is_limited(gate: RiskGate) -> None:
    gate.check(_order(size=20.0), FLAT._replace(notional=990.0))
    assert _refused_by(gate, _order(size=20.2), FLAT._replace(notional=990.0)) == "notional"
    assert _refused_by(gate, _order(size=20.0), FLAT._replace(notional=990.0, multiplier=2.0)) == "notional"


def test_a_drawdown_is_measured_from_the_days_high(gate: RiskGate) -> None:
    assert gate.observe(30.0) is None
    assert gate.observe(-20.0) is None, "50 below the high are 5 % of a notional of 1000: the limit itself"
    assert "5 %" in str(gate.observe(-21.0))
    assert gate.daily_pnl == -21.0
    assert _refused_by(gate, _order(), FLAT._replace(total_pnl=-21.0)) == "drawdown"


def test_a_new_day_and_a_reset_high_start_from_here(gate: RiskGate) -> None:
    gate.observe(100.0)
    gate.start_day(40.0)
    assert gate.observe(-5.0) is None
    gate.reset_high_water_mark()
    assert gate.observe(-50.0) is None
    assert gate.observe(-60.0) is not None


def test_a_burst_passes_and_then_so_many_a_second(clock: ManualClock) -> None:
    gate = RiskGate(RiskConfig(rate_limit_sustained=2.0, rate_limit_burst=3, dedup_window_ms=0.0), clock.monotonic)
    for _ in range(3):
        gate.check(_order(), FLAT)
    assert _refused_by(gate, _order()) == "rate_limit"
    clock.forward(0.5)
    gate.check(_order(), FLAT)
    assert _refused_by(gate, _order()) == "rate_limit"
    clock.forward(3600.0)
    for _ in range(3):
        gate.check(_order(), FLAT)
    assert _refused_by(gate, _order()) == "rate_limit", "the bucket holds no more than a burst"


def test_an_equal_order_within_the_window_is_a_duplicate(gate: RiskGate, clock: ManualClock) -> None:
    gate.check(_order(), FLAT)
    clock.forward(0.999)
    assert _refused_by(gate, _order()) == "duplicate"
    gate.check(_order(price=0.51), FLAT)
    clock.forward(0.001)
    gate.check(_order(), FLAT)


def test_an_order_that_was_canceled_makes_no_duplicate(gate: RiskGate) -> None:
    """A quote that is canceled and sent again in every cycle is no order doubled by mistake."""
    first, second = _order(), _order()
    gate.check(first, FLAT)
    gate.forget(first)
    gate.check(second, FLAT)
    gate.forget(first)
    assert _refused_by(gate, _order()) == "duplicate", "only the order that is remembered can be forgotten"


def test_a_change_of_an_open_order_is_no_duplicate_but_counts_for_the_rate(clock: ManualClock) -> None:
    gate = RiskGate(RiskConfig(rate_limit_burst=2), clock.monotonic)
    gate.check(_order(), FLAT)
    gate.check(_order(), FLAT, is_change=True)
    assert _refused_by(gate, _order(price=0.6)) == "rate_limit"


def test_checks_run_in_the_originals_order(clock: ManualClock) -> None:
    """Everything is wrong with this order; what is put right one by one shows the order of the checks."""
    gate = RiskGate(RiskConfig(rate_limit_burst=1, rate_limit_sustained=1e-9), clock.monotonic)
    gate.check(_order(price=0.5, size=5.0), FLAT)
    gate.kill_switch_reason = "on"
    exposure = Exposure(position=99.0, notional=999.0, multiplier=1.0, total_pnl=-500.0)
    assert _refused_by(gate, _order(price=5.0, size=60.0), exposure) == "kill_switch"
    gate.kill_switch_reason = None
    assert _refused_by(gate, _order(price=5.0, size=60.0), exposure) == "price"
    assert _refused_by(gate, _order(size=60.0), exposure) == "order_size"
    assert _refused_by(gate, _order(), exposure) == "position"
    assert _refused_by(gate, _order(), exposure._replace(position=0.0)) == "notional"
    assert _refused_by(gate, _order(), exposure._replace(position=0.0, notional=0.0)) == "drawdown"
    gate.start_day(-500.0)
    assert _refused_by(gate, _order(), FLAT._replace(total_pnl=-500.0)) == "rate_limit"
    gate._tokens = 1.0
    assert _refused_by(gate, _order(), FLAT._replace(total_pnl=-500.0)) == "duplicate"


def test_violations_are_told_at_once_then_once_a_minute_with_their_number() -> None:
    violations = Violations()
    assert violations.note("price", "m", 0.0) == 0
    assert [violations.note("price", "m", 1.0), violations.note("price", "m", 59.9)] == [None, None]
    assert violations.note("price", "n", 1.0) == 0
    assert violations.note("size", "m", 1.0) == 0
    assert violations.note("price", "m", 60.0) == 2
    assert violations.note("price", "m", 61.0) is None
    assert violations.unrecorded() == [("price", "m", 1)]
    assert violations.unrecorded() == []
