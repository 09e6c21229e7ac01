"""Fills: compared by id, recorded, then applied, exactly once."""

from __future__ import annotations

import pytest
from engines import Watched, fill_of

from horizon.errors import Halt, RecordRejected, StoreStalled, VenueError
from horizon.records import Fill, FillConflict, OrderRequest, OrderSide, OrderStatus, Side
from horizon.venues.base import OrderUpdate


@pytest.fixture
def watched() -> Watched:
    return Watched()


def _buy(watched: Watched, size: float = 5.0) -> str:
    return watched.engine.submit_order(OrderRequest("m", Side.Yes, OrderSide.Buy, size, 0.5))


def _deliver(watched: Watched, *fills: Fill) -> int:
    watched.venue.events = list(fills)
    return watched.engine.poll_fills()


def test_a_fill_is_recorded_then_its_order_event_and_both_are_applied(watched: Watched) -> None:
    order_id = _buy(watched)
    assert _deliver(watched, fill_of(order_id, size=2.0)) == 1
    assert watched.kinds()[-2:] == ["Fill", "OrderEvent"]
    order = watched.order(order_id)
    assert (order.status, order.filled_size, order.remaining_size) == (OrderStatus.PartiallyFilled, 2.0, 3.0)
    assert watched.engine.positions()[0].size == 2.0
    assert (watched.engine.fills_applied, len(watched.engine.recent_fills())) == (1, 1)
    assert watched.count("horizon_fills_total", side="buy") == 1


def test_parts_add_up_in_decimals_until_the_order_is_filled(watched: Watched) -> None:
    order_id = _buy(watched, 0.3)
    _deliver(watched, fill_of(order_id, 1, 0.1), fill_of(order_id, 2, 0.2))
    assert watched.statuses() == ["new", "accepted", "partially_filled", "filled"]
    assert watched.order(order_id).filled_size == 0.3


def test_a_fill_that_comes_again_is_counted_and_changes_nothing(watched: Watched) -> None:
    """R1: compared by id before anything is recorded."""
    order_id = _buy(watched)
    fill = fill_of(order_id)
    assert _deliver(watched, fill, fill) == 1
    records = len(watched.records)
    assert _deliver(watched, fill) == 0
    assert len(watched.records) == records
    assert watched.engine.positions()[0].size == 1.0
    assert watched.count("horizon_fills_known_total") == 2


@pytest.mark.parametrize(
    "change", [{"price": 0.6}, {"size": 2.0}, {"market_id": "n"}, {"order_side": OrderSide.Sell}, {"fee": 0.1}]
)
def test_a_known_id_with_other_content_is_kept_as_a_conflict_and_not_applied(watched: Watched, change: dict[str, object]) -> None:
    order_id = _buy(watched)
    other = fill_of(order_id, **change)  # type: ignore[arg-type]
    _deliver(watched, fill_of(order_id), other, other)
    conflicts = [record for record in watched.records if isinstance(record, FillConflict)]
    assert conflicts == [FillConflict(other)], "once, however often the venue tells it"
    assert watched.engine.positions()[0].size == 1.0
    assert watched.count("horizon_fills_conflicting_total") == 1


def test_fills_of_orders_of_others_are_counted_and_not_applied(watched: Watched) -> None:
    """R4: what a venue tells of others is not this strategy's."""
    assert _deliver(watched, fill_of("of somebody else")) == 0
    assert watched.engine.positions() == []
    assert watched.count("horizon_fills_unattributed_total") == 1


def test_the_callers_word_makes_a_fill_his(watched: Watched) -> None:
    """R4: `process_fill` vouches for the fill."""
    fill = fill_of("placed by hand")
    assert watched.engine.process_fill(fill)
    assert not watched.engine.process_fill(fill)
    assert watched.engine.positions()[0].size == 1.0


def test_the_fills_of_a_venue_that_vouches_are_the_strategys(watched: Watched) -> None:
    venue = watched.venue
    venue.vouches = True
    vouching = Watched(venue=venue)
    assert _deliver(vouching, fill_of("recorded elsewhere")) == 1


def test_a_fill_after_the_cancel_changes_the_position_and_not_the_status(watched: Watched) -> None:
    order_id = _buy(watched)
    watched.engine.cancel(order_id)
    assert _deliver(watched, fill_of(order_id, size=5.0)) == 1
    order = watched.order(order_id)
    assert (order.status, order.filled_size) == (OrderStatus.Canceled, 5.0)
    assert order.status_reason == "filled 5.0 more after it had ended"
    assert watched.engine.positions()[0].size == 5.0


def test_a_fill_of_an_order_that_was_forgotten_is_still_taken_once(watched: Watched) -> None:
    """R1: the order has left memory; the id of the fill is still known."""
    order_id = _buy(watched)
    watched.engine.cancel(order_id)
    watched.engine._desk.orders.evict(watched.clock.monotonic(), committed_seq=99)
    fill = fill_of(order_id)
    assert _deliver(watched, fill, fill) == 1
    assert watched.count("horizon_fills_unattributed_total") == 0


def test_what_a_venue_tells_behind_something_that_fails_is_not_lost(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    order_id = _buy(watched)
    stranger = fill_of("unknown")
    lookups = iter([StoreStalled("locked"), None])

    def look_up(fill_id: str) -> None:
        found = next(lookups)
        if found is not None:
            raise found

    monkeypatch.setattr(watched.engine._persistence, "fill_by_id", look_up)
    with pytest.raises(StoreStalled):
        _deliver(watched, stranger, fill_of(order_id))
    assert watched.engine.positions() == []
    assert watched.engine.poll_fills() == 1
    assert watched.engine.positions()[0].size == 1.0


def test_an_exception_between_record_and_apply_halts_the_run_for_good(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    order_id = _buy(watched)

    def fail(fill: Fill) -> None:
        raise ValueError("no room in memory")

    monkeypatch.setattr(watched.engine._desk.book, "apply", fail)
    with pytest.raises(Halt, match="was recorded and could not be applied: ValueError: no room in memory"):
        _deliver(watched, fill_of(order_id))
    with pytest.raises(Halt, match="could not be applied"):
        watched.engine.ship()
    kinds = watched.kinds()
    watched.engine.close()
    assert watched.kinds() == kinds, "doubtful memory is never stored (R3)"
    assert watched.venue.asked_for("cancel") == [[order_id]], "the order is canceled at the venue all the same"


def test_ctrl_c_between_record_and_apply_leaves_no_snapshot(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    order_id = _buy(watched)

    def interrupt(fill: Fill) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watched.engine._desk.book, "apply", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _deliver(watched, fill_of(order_id))
    watched.engine.close()
    assert "PositionSnapshot" not in watched.kinds()


def test_recent_fills_are_the_last_thousand(watched: Watched) -> None:
    order_id = _buy(watched, 2000.0)
    _deliver(watched, *(fill_of(order_id, number) for number in range(1100)))
    recent = watched.engine.recent_fills()
    assert (len(recent), recent[-1].fill_id) == (1000, f"{order_id}-1099")


def test_after_a_disconnect_the_venue_is_asked_what_was_missed(watched: Watched) -> None:
    order_id = _buy(watched)
    watched.venue.is_away = True
    with pytest.raises(VenueError):
        watched.engine.poll_fills()
    watched.venue.is_away = False
    missed = fill_of(order_id, timestamp=watched.clock.now())
    watched.venue.history = [missed]
    assert watched.engine.poll_fills() == 1
    assert watched.engine.poll_fills() == 0, "and only once"
    assert len(watched.venue.asked_for("fills_since")) == 1


def test_sync_positions_takes_what_the_venue_knows_and_the_engine_does_not(watched: Watched) -> None:
    order_id = _buy(watched)
    first, second = (fill_of(order_id, number, timestamp=watched.clock.now()) for number in (1, 2))
    _deliver(watched, first)
    watched.venue.history = [first, second]
    assert watched.engine.sync_positions() == 1
    assert watched.engine.positions()[0].size == 2.0


@pytest.mark.parametrize("price", [float("nan"), float("inf")])
def test_a_mark_that_is_no_number_is_refused(watched: Watched, price: float) -> None:
    with pytest.raises(RecordRejected, match="finite"):
        watched.engine.update_mark_price("m", Side.Yes, price)


def test_status_sums_up_what_the_positions_say(watched: Watched) -> None:
    order_id = _buy(watched)
    _deliver(watched, fill_of(order_id, size=4.0, price=0.5))
    watched.engine.update_mark_price("m", Side.Yes, 0.75)
    watched.clock.forward(3.0)
    status = watched.engine.status()
    assert (status.running, status.open_orders, status.active_positions) == (True, 1, 1)
    assert (status.total_realized_pnl, status.total_unrealized_pnl, status.total_pnl()) == (0.0, 1.0, 1.0)
    assert status.uptime_secs == 3.0
    watched.engine.end_run()
    assert not watched.engine.status().running


def test_a_flat_position_is_none_and_its_profit_stays(watched: Watched) -> None:
    order_id = _buy(watched)
    _deliver(watched, fill_of(order_id, 1, 5.0, 0.5), fill_of(order_id, 2, 5.0, 0.6, order_side=OrderSide.Sell))
    assert watched.engine.positions() == []
    assert watched.engine.all_positions()[0].realized_pnl == 0.5


def test_an_update_says_nothing_of_filled_sizes(watched: Watched) -> None:
    order_id = _buy(watched)
    watched.venue.events = [OrderUpdate(order_id, OrderStatus.Filled)]
    watched.engine.poll_fills()
    assert watched.order(order_id).status is OrderStatus.Accepted, "fills are counted by fills alone"


def test_an_event_says_what_remains_in_decimals(watched: Watched) -> None:
    order_id = _buy(watched, 0.3)
    _deliver(watched, fill_of(order_id, size=0.1))
    order = watched.order(order_id)
    assert (order.filled_size, order.remaining_size) == (0.1, 0.2)


def test_without_a_database_nothing_is_kept_and_everything_works(watched: Watched) -> None:
    engine = watched.engine
    assert not engine.has_persistence()
    assert (engine.recover_state(), engine.db_run_id(), engine.db_open_order_ids(), engine.snapshot_positions()) == (
        0,
        None,
        [],
        0,
    )
    engine.flush()
    assert (engine.unacked, engine.latency_ms, engine.journal_path) == (0, None, "")
