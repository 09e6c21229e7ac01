"""Orders: recorded before the venue hears of them, never guessed about."""

from __future__ import annotations

import pytest
from engines import Watched, fill_of

from horizon.errors import KillSwitchActive, NotThereYet, RecordRejected, RiskError, VenueError
from horizon.records import OrderRequest, OrderSide, OrderStatus, OrderType, Quote, RunStarted, Side
from horizon.risk import RiskConfig
from horizon.venues.base import OrderUpdate
from horizon.venues.paper import Paper


@pytest.fixture
def watched() -> Watched:
    return Watched()


def _request(size: float = 5.0, price: float = 0.5, order_side: OrderSide = OrderSide.Buy) -> OrderRequest:
    return OrderRequest("m", Side.Yes, order_side, size, price)


def test_an_order_is_recorded_as_new_before_the_venue_hears_of_it(watched: Watched) -> None:
    recorded: list[list[str]] = []
    watched.venue.on_submit = lambda order: recorded.append(watched.statuses())
    order_id = watched.engine.submit_order(_request())
    assert recorded == [["new"]]
    assert watched.statuses() == ["new", "accepted"]
    assert watched.venue.asked_for("submit") == [[order_id]]


def test_ids_of_orders_contain_the_id_of_the_run_and_rise(watched: Watched) -> None:
    first, second = (watched.engine.submit_order(_request(price=price)) for price in (0.4, 0.5))
    run_id = first.rpartition("-")[0]
    assert (first, second) == (f"{run_id}-00000001", f"{run_id}-00000002")
    assert run_id == watched.engine._persistence.run_id


def test_an_order_whose_answer_is_lost_stays_open_and_says_so(watched: Watched) -> None:
    watched.venue.answers["submit"] = VenueError("timed out")
    order_id = watched.engine.submit_order(_request())
    order = watched.order(order_id)
    assert (order.status, order.status_reason) == (OrderStatus.Submitted, "fate unknown: timed out")
    assert [one.id for one in watched.engine.open_orders()] == [order_id]
    watched.venue.events = [OrderUpdate(order_id, OrderStatus.Accepted)]
    watched.engine.poll_fills()
    assert watched.statuses() == ["new", "submitted", "accepted"]


def test_a_bug_of_an_adapter_is_recorded_as_unknown_and_not_hidden(watched: Watched) -> None:
    watched.venue.answers["submit"] = KeyError("price")
    with pytest.raises(KeyError):
        watched.engine.submit_order(_request())
    assert watched.statuses() == ["new", "submitted"]
    assert watched.engine.open_orders()[0].status_reason == "fate unknown: KeyError: 'price'"


def test_a_rejection_is_an_error_with_the_venues_reason(watched: Watched) -> None:
    watched.venue.answers["submit"] = OrderUpdate("", OrderStatus.Rejected, "post only would cross")
    with pytest.raises(VenueError, match="post only would cross"):
        watched.engine.submit_order(_request())
    assert watched.statuses() == ["new", "rejected"]
    assert watched.engine.open_orders() == []
    assert watched.count("horizon_order_rejects_total", layer="venue") == 1


def test_a_quote_is_a_buy_at_the_bid_and_a_sell_at_the_ask(watched: Watched) -> None:
    ids = watched.engine.submit_quotes("m", [Quote(0.4, 0.6, 7.0)])
    orders = watched.engine.open_orders_for_market("m")
    assert [order.id for order in orders] == ids
    assert [(order.side, order.order_side, order.price, order.size) for order in orders] == [
        (Side.Yes, OrderSide.Buy, 0.4, 7.0),
        (Side.Yes, OrderSide.Sell, 0.6, 7.0),
    ]
    watched.engine.submit_quotes("n", [Quote(0.4, 0.6)], Side.Long)
    assert {order.side for order in watched.engine.open_orders_for_market("n")} == {Side.Long}


def test_a_refused_leg_of_a_quote_is_left_out_and_the_other_placed() -> None:
    watched = Watched(RiskConfig())
    (placed,) = watched.engine.submit_quotes("m", [Quote(0.001, 0.5)])
    assert watched.order(placed).order_side is OrderSide.Sell
    ((kind, details),) = watched.risk_events()
    assert kind == "violation"
    assert details == "price: price 0.001 is outside 0.01..0.99 (m, YES BUY 5.0 at 0.001)"
    assert watched.count("horizon_order_rejects_total", layer="price") == 1


def test_a_refusal_gets_no_order_id_and_repeats_are_counted_until_the_run_ends() -> None:
    watched = Watched(RiskConfig())
    for _ in range(40):
        with pytest.raises(RiskError):
            watched.engine.submit_order(_request(price=2.0))
    assert watched.engine.orders_submitted == 0
    assert watched.statuses() == []
    assert len(watched.risk_events()) == 1
    watched.engine.end_run()
    assert watched.risk_events()[1] == ("violation", "price: 39 more in m")


def test_a_market_order_is_checked_at_the_mark(watched: Watched) -> None:
    with pytest.raises(RiskError, match="no price of m is known"):
        watched.engine.submit_market_order("m", Side.Yes, OrderSide.Buy, 5.0)
    watched.engine.update_mark_price("m", Side.Yes, 0.42)
    order = watched.order(watched.engine.submit_market_order("m", Side.Yes, OrderSide.Buy, 5.0))
    assert (order.order_type, order.price, order.post_only) == (OrderType.Market, 0.42, False)
    other = watched.order(watched.engine.submit_market_order("m", Side.Yes, OrderSide.Buy, 5.0, price=0.43))
    assert other.price == 0.43


def test_a_cancel_that_the_venue_confirms_ends_the_order(watched: Watched) -> None:
    order_id = watched.engine.submit_order(_request())
    assert watched.engine.cancel(order_id)
    assert watched.statuses() == ["new", "accepted", "canceled"]
    assert not watched.engine.cancel_order(order_id), "it is over already"
    assert not watched.engine.cancel("unheard of")


def test_a_cancel_without_an_answer_leaves_the_order_open_and_is_recorded_once(watched: Watched) -> None:
    order_id = watched.engine.submit_order(_request())
    watched.venue.answers["cancel"] = VenueError("timed out")
    assert not watched.engine.cancel(order_id)
    assert not watched.engine.cancel(order_id)
    assert watched.statuses() == ["new", "accepted", "accepted"]
    assert watched.order(order_id).status_reason == "fate of the cancel unknown: timed out"


def test_a_cancel_that_lost_the_race_is_told_by_the_fill(watched: Watched) -> None:
    order_id = watched.engine.submit_order(_request())
    watched.venue.answers["cancel"] = OrderUpdate(order_id, OrderStatus.Filled)
    watched.venue.events = [fill_of(order_id, size=5.0)]
    assert not watched.engine.cancel(order_id)
    assert watched.statuses() == ["new", "accepted", "filled"]


def test_all_orders_or_those_of_a_market_are_canceled(watched: Watched) -> None:
    for market_id in ("m", "m", "n"):
        watched.engine.submit_order(OrderRequest(market_id, Side.Yes, OrderSide.Buy, 1.0, 0.5))
    assert watched.engine.cancel_market("m") == 2
    assert watched.engine.cancel_market("m") == 0
    assert watched.engine.cancel_all() == 1


def test_an_amend_changes_price_and_size_under_the_same_id(watched: Watched) -> None:
    order_id = watched.engine.submit_order(_request())
    assert watched.engine.amend_order(order_id, new_price=0.4) == order_id
    assert watched.engine.amend_order(order_id, new_size=8.0) == order_id
    assert watched.venue.asked_for("amend") == [[order_id, 0.4, 5.0], [order_id, 0.4, 8.0]]
    order = watched.order(order_id)
    assert (order.price, order.size, order.remaining_size, order.amendment_count) == (0.4, 8.0, 8.0, 2)


def test_an_amend_is_recorded_before_the_venue_is_asked(watched: Watched) -> None:
    order_id = watched.engine.submit_order(_request())
    watched.venue.answers["amend"] = VenueError("timed out")
    with pytest.raises(VenueError, match="timed out"):
        watched.engine.amend_order(order_id, new_price=0.4)
    reasons = [record.status_reason for record in watched.records if getattr(record, "order_id", "") == order_id]
    assert reasons[2:] == [
        "amend to price 0.4, size 5.0 is asked for",
        "fate of the amend to price 0.4, size 5.0 unknown: timed out",
    ]
    assert watched.order(order_id).price == 0.5


def test_an_amend_that_the_venue_refuses_changes_nothing(watched: Watched) -> None:
    order_id = watched.engine.submit_order(_request())
    watched.venue.answers["amend"] = OrderUpdate(order_id, OrderStatus.Accepted, "too small")
    with pytest.raises(VenueError, match="too small"):
        watched.engine.amend_order(order_id, new_size=6.0)
    assert watched.order(order_id).size == 5.0


def test_an_amend_passes_the_risk_checks_as_well() -> None:
    watched = Watched(RiskConfig())
    order_id = watched.engine.submit_order(_request())
    with pytest.raises(RiskError, match="max_order_size"):
        watched.engine.amend_order(order_id, new_size=51.0)
    assert watched.venue.asked_for("amend") == []


def test_an_order_cannot_become_smaller_than_what_is_filled(watched: Watched) -> None:
    order_id = watched.engine.submit_order(_request())
    watched.venue.events = [fill_of(order_id, size=3.0)]
    watched.engine.poll_fills()
    with pytest.raises(RecordRejected, match=r"3\.0 are filled already"):
        watched.engine.amend_order(order_id, new_size=3.0)


def test_only_open_orders_can_be_amended(watched: Watched) -> None:
    order_id = watched.engine.submit_order(_request())
    watched.engine.cancel(order_id)
    with pytest.raises(VenueError, match="is not open"):
        watched.engine.amend_order(order_id, new_price=0.4)


def test_an_ending_that_the_venue_reports_by_itself_is_recorded_and_final(watched: Watched) -> None:
    order_id = watched.engine.submit_order(_request())
    watched.venue.events = [
        OrderUpdate(order_id, OrderStatus.Canceled, "expired"),
        OrderUpdate(order_id, OrderStatus.Accepted),
        OrderUpdate("of somebody else", OrderStatus.Canceled),
    ]
    watched.engine.poll_fills()
    assert watched.statuses() == ["new", "accepted", "canceled"]
    assert watched.order(order_id).status_reason == "expired"


def test_what_strategies_get_is_a_copy(watched: Watched) -> None:
    order_id = watched.engine.submit_order(_request())
    watched.engine.open_orders()[0].status = OrderStatus.Filled
    assert watched.order(order_id).status is OrderStatus.Accepted


def test_ended_orders_are_forgotten_once_they_are_old_and_acknowledged(watched: Watched) -> None:
    """R1: an order leaves memory only when it has ended and all its records are acknowledged."""
    first = watched.engine.submit_order(_request())
    watched.engine.cancel(first)
    watched.clock.forward(301.0)
    still_open = watched.engine.submit_order(_request(price=0.4))
    assert watched.engine.evict_stale_orders() == 0, "its last record has seq 4 and nothing is acknowledged"
    assert watched.engine._desk.orders.evict(watched.clock.monotonic() - 300.0, committed_seq=4) == 1
    assert watched.engine._desk.orders.get(first) is None
    assert [order.id for order in watched.engine.open_orders()] == [still_open]


def test_the_kill_switch_forbids_orders_cancels_and_is_recorded(watched: Watched) -> None:
    order_id = watched.engine.submit_order(_request())
    watched.engine.activate_kill_switch("a person said so")
    watched.engine.activate_kill_switch("another reason")
    assert watched.order(order_id).status is OrderStatus.Canceled
    with pytest.raises(KillSwitchActive, match="a person said so"):
        watched.engine.submit_order(_request())
    status = watched.engine.status()
    assert (status.kill_switch_active, status.kill_switch_reason) == (True, "a person said so")
    watched.engine.deactivate_kill_switch()
    watched.engine.deactivate_kill_switch()
    watched.engine.submit_order(_request())
    kinds = [kind for kind, _ in watched.risk_events()]
    assert kinds == ["kill_switch_activated", "violation", "kill_switch_deactivated"]


def test_a_drawdown_turns_the_kill_switch_on_and_cancels_everything() -> None:
    watched = Watched(RiskConfig())
    resting = watched.engine.submit_order(_request(price=0.1))
    bought = watched.engine.submit_order(_request(size=50.0, price=0.9))
    watched.venue.events = [fill_of(bought, size=50.0, price=0.9)]
    watched.engine.poll_fills()
    watched.engine.update_mark_price("m", Side.Yes, 0.9)
    watched.engine.update_daily_pnl()
    assert not watched.engine.status().kill_switch_active
    watched.engine.update_mark_price("m", Side.Yes, -0.2)
    with pytest.raises(RiskError, match="daily PnL"):
        watched.engine.submit_order(_request(price=0.2))
    assert watched.engine.status().kill_switch_active
    assert watched.order(resting).status is OrderStatus.Canceled
    assert watched.engine.status().daily_pnl == -55.0


def test_what_the_daily_pnl_counts_from_can_be_set(watched: Watched) -> None:
    watched.engine.update_daily_pnl(10.0)
    watched.engine.set_daily_baseline(4.0)
    watched.engine.update_daily_pnl(10.0)
    assert watched.engine.status().daily_pnl == 6.0
    watched.engine.reset_daily_pnl()
    assert watched.engine.status().daily_pnl == 0.0


def test_another_exchange_without_a_venue_is_not_there_yet() -> None:
    from horizon.engine import Engine

    with pytest.raises(NotThereYet, match="polymarket"):
        Engine(exchange_type="polymarket", private_key="secret")


def test_what_the_originals_engine_has_besides_says_that_it_is_not_there(watched: Watched) -> None:
    with pytest.raises(NotThereYet, match=r"Engine\.submit_bracket: Horizon does not have contingent orders"):
        watched.engine.submit_bracket("m", stop=0.4)
    with pytest.raises(AttributeError, match="no attribute 'submit_everything'"):
        watched.engine.submit_everything  # noqa: B018


def test_parameters_change_while_the_strategy_runs(watched: Watched) -> None:
    engine = watched.engine
    engine.update_param("spread", 0.1)
    engine.update_params_batch({"spread": 0.2, "size": 5})
    assert (engine.get_param("spread"), engine.get_param("none", 7)) == (0.2, 7)
    assert engine.remove_param("size")
    assert not engine.remove_param("size")
    assert engine.get_all_params() == {"spread": 0.2}


def test_paper_orders_go_their_way_through_the_engine() -> None:
    watched = Watched(venue=Paper())
    engine = watched.engine
    assert (engine.exchange_name(), engine.exchange_names(), engine.exchange_count()) == ("paper", ["paper"], 1)
    engine.submit_quotes("m", [Quote(0.45, 0.55, 10.0)])
    assert engine.tick("m", 0.5) == 0
    assert engine.tick("m", 0.44) == 1
    (position,) = engine.positions_for_market("m")
    assert (position.size, position.avg_entry_price, position.fees) == (10.0, 0.45, 0.0045)
    assert watched.statuses() == ["new", "accepted", "new", "accepted", "filled"]


def test_a_market_order_at_the_paper_venue_is_filled_when_it_is_sent() -> None:
    watched = Watched(venue=Paper())
    watched.engine.tick("m", 0.5)
    watched.engine.update_mark_price("m", Side.Yes, 0.5)
    order_id = watched.engine.submit_market_order("m", Side.Yes, OrderSide.Buy, 4.0)
    assert watched.order(order_id).status is OrderStatus.Filled
    assert watched.engine.positions()[0].size == 4.0


def test_no_price_moves_a_venue_that_is_not_simulated(watched: Watched) -> None:
    assert watched.engine.tick("m", 0.5) == 0


def test_a_run_begins_with_its_start_and_ends_in_the_order_of_a_clean_end(watched: Watched) -> None:
    order_id = watched.engine.submit_order(_request())
    assert isinstance(watched.records[0], RunStarted)
    watched.venue.events = [fill_of(order_id, size=2.0)]
    watched.engine.close()
    assert watched.kinds()[-5:] == ["OrderEvent", "Fill", "OrderEvent", "PositionSnapshot", "RunEnded"]
    assert watched.statuses() == ["new", "accepted", "canceled", "canceled"]
    assert [name for name, *_ in watched.venue.asked][-2:] == ["cancel", "close"]


def test_nothing_can_be_ordered_after_the_end(watched: Watched) -> None:
    watched.engine.submit_order(_request())
    watched.engine.end_run()
    with pytest.raises(Exception, match="make a new Engine"):
        watched.engine.submit_order(_request())
    records = len(watched.records)
    watched.engine.close()
    watched.engine.close()
    assert len(watched.records) == records


def test_an_order_that_the_venue_did_not_cancel_stays_open_for_the_next_run(watched: Watched) -> None:
    watched.engine.submit_order(_request())
    watched.venue.answers["cancel"] = VenueError("timed out")
    watched.engine.end_run()
    assert watched.statuses() == ["new", "accepted", "accepted"]
    records = len(watched.records)
    assert watched.engine.cancel_all() == 0
    assert len(watched.records) == records, "nothing is recorded behind the end"


def test_with_closes_the_engine_and_says_what_ended_it() -> None:
    watched = Watched()

    def trade() -> None:
        with watched.engine as engine:
            engine.submit_order(_request())
            raise ZeroDivisionError("oops")

    with pytest.raises(ZeroDivisionError):
        trade()
    assert watched.records[-1].reason == "ZeroDivisionError: oops"  # type: ignore[union-attr]
