"""Outages: what a venue did not get to tell is asked for, wherever the outage was noticed, and nothing it tells blocks the rest."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from engines import Watched, fill_of
from scripted_venue import ScriptedVenue

from horizon.errors import RecordRejected, VenueError
from horizon.records import Fill, OrderEvent, OrderRequest, OrderSide, OrderStatus, Record, Side
from horizon.venues.base import OrderUpdate

LAST_HEARD = 1_700_000_000.0


class Simulated(ScriptedVenue):
    def tick(self, market_id: str, mid: float) -> int:
        return 0


@pytest.fixture
def watched() -> Watched:
    return Watched(venue=Simulated())


def _buy(watched: Watched) -> str:
    return watched.engine.submit_order(OrderRequest("m", Side.Yes, OrderSide.Buy, 100.0, 0.5))


def _order_with_a_fill(watched: Watched) -> str:
    order_id = _buy(watched)
    watched.venue.events = [fill_of(order_id, 1, timestamp=LAST_HEARD)]
    watched.engine.poll_fills()
    return order_id


def _long_outage(watched: Watched, order_id: str) -> tuple[Fill, Fill]:
    """Two hours away: a fill at the beginning, which only history knows, and one that comes live afterwards."""
    watched.venue.is_away = True
    with pytest.raises(VenueError):
        watched.engine.poll_fills()
    watched.venue.is_away = False
    early, live = fill_of(order_id, 2, timestamp=LAST_HEARD + 60), fill_of(order_id, 3, timestamp=LAST_HEARD + 7200)
    watched.venue.history, watched.venue.events = [live, early], [live]
    return early, live


def _fills(watched: Watched) -> list[Record]:
    return [record for record in watched.records if isinstance(record, Fill)]


def test_an_outage_longer_than_the_overlap_loses_no_fill_and_the_oldest_are_recorded_first(watched: Watched) -> None:
    early, live = _long_outage(watched, _order_with_a_fill(watched))
    assert watched.engine.poll_fills() == 2
    assert watched.venue.asked_for("fills_since") == [[LAST_HEARD - 3600]]
    assert _fills(watched)[1:] == [early, live]


def test_live_fills_wait_until_history_answers_whoever_asks_for_them(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill -9 in between loses nothing: the newest fill that is recorded is still the one before the outage."""
    order_id = _order_with_a_fill(watched)
    early, live = _long_outage(watched, order_id)
    with monkeypatch.context() as patch:
        patch.setattr(watched.venue, "fills_since", _cut)
        with pytest.raises(VenueError):
            watched.engine.poll_fills()
        assert watched.engine.tick("m", 0.5) == 0
        assert len(_fills(watched)) == 1
    by_hand = fill_of(order_id, 4, timestamp=LAST_HEARD + 9000)
    watched.engine.process_fill(by_hand)
    assert watched.engine.poll_fills() == 2, "a fill that the caller knows does not move the place"
    assert _fills(watched)[1:] == [by_hand, early, live]


def test_history_that_could_be_taken_only_in_part_is_asked_for_again(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    _long_outage(watched, _order_with_a_fill(watched))
    with monkeypatch.context() as patch:
        patch.setattr(watched.engine._desk, "take_fills", _cut)
        with pytest.raises(VenueError):
            watched.engine.poll_fills()
    assert watched.engine.poll_fills() == 2


@pytest.mark.parametrize(
    "notice",
    [
        lambda watched, order_id: watched.engine.cancel(order_id),
        lambda watched, order_id: watched.engine.tick("m", 0.5),
        lambda watched, order_id: _buy(watched),
        lambda watched, order_id: watched.engine.poll_fills(),
    ],
    ids=["cancel", "tick", "submit", "poll"],
)
@pytest.mark.parametrize("error", [VenueError("the stream was cut"), ConnectionError("a bug of the adapter")])
def test_an_outage_is_remembered_wherever_it_was_noticed(
    notice: Callable[[Watched, str], object], error: Exception, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = _order_with_a_fill(watched)
    watched.venue.answers["cancel"] = OrderUpdate(order_id, OrderStatus.Filled)

    def poll() -> list[Fill]:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(watched.venue, "poll", poll)
        with suppress(VenueError, ConnectionError):
            notice(watched, order_id)
    watched.venue.history = [fill_of(order_id, 2, timestamp=LAST_HEARD + 1)]
    assert watched.engine.poll_fills() == 1
    assert watched.engine.poll_fills() == 0
    assert len(watched.venue.asked_for("fills_since")) == 1, "and only once"


def test_a_run_that_ends_after_an_outage_asks_for_what_it_missed(watched: Watched) -> None:
    _long_outage(watched, _order_with_a_fill(watched))
    watched.engine.end_run()
    assert watched.engine.fills_applied == 3


@pytest.mark.parametrize("is_live", [True, False], ids=["live", "history"])
def test_what_cannot_be_recorded_is_left_out_and_the_next_ones_are_taken(
    is_live: bool, watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    order_id = _order_with_a_fill(watched)
    bad, good = fill_of(order_id, 2), fill_of(order_id, 3)
    _refuse(watched, monkeypatch, lambda record: record == bad)
    if is_live:
        watched.venue.events = [bad, good]
        assert watched.engine.poll_fills() == 1
    else:
        watched.venue.history = [bad, good]
        assert watched.engine.sync_positions() == 1
    assert watched.engine.poll_fills() == 0
    assert watched.engine._desk.events_refused == 1
    assert f"fill {bad.fill_id} of order {order_id} is left out: no bytes for it" in caplog.text
    with pytest.raises(RecordRejected):
        watched.engine.process_fill(bad)


def test_an_update_that_cannot_be_recorded_is_left_out_too(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    order_id = _buy(watched)
    _refuse(watched, monkeypatch, lambda record: isinstance(record, OrderEvent) and record.status is OrderStatus.Canceled)
    watched.venue.events = [OrderUpdate(order_id, OrderStatus.Canceled), fill_of(order_id)]
    assert watched.engine.poll_fills() == 1
    assert f"an update of order {order_id} is left out" in caplog.text


def test_a_bug_of_the_adapter_on_the_way_out_stops_neither_the_other_cancels_nor_the_end(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = _buy(watched), _buy(watched)

    def broken() -> list[Fill]:
        raise TypeError("None is no list")

    _break_the_cancel_of(first, watched, monkeypatch)
    monkeypatch.setattr(watched.venue, "poll", broken)
    watched.engine.end_run()
    assert watched.venue.asked_for("cancel") == [[second]]
    assert watched.kinds()[-2:] == ["PositionSnapshot", "RunEnded"]
    assert f"order {first} could not be canceled" in caplog.text
    assert "late fills could not be asked for: None is no list; the next run asks again" in caplog.text


def test_a_bug_of_the_adapter_in_one_cancel_does_not_keep_the_kill_switch_from_the_others(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = _buy(watched), _buy(watched)
    _break_the_cancel_of(first, watched, monkeypatch)
    watched.engine.activate_kill_switch("enough")
    assert watched.venue.asked_for("cancel") == [[second]]


def _break_the_cancel_of(broken: str, watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of the adapter, which shows with one order."""
    cancel = watched.venue.cancel

    def fails_once(order_id: str) -> OrderUpdate:
        if order_id == broken:
            raise KeyError("orderId")
        answer: OrderUpdate = cancel(order_id)
        return answer

    monkeypatch.setattr(watched.venue, "cancel", fails_once)


def _cut(*_: object) -> list[Fill]:
    raise VenueError("history was cut")


def _refuse(watched: Watched, monkeypatch: pytest.MonkeyPatch, is_bad: Callable[[Record], bool]) -> None:
    record = watched.engine._persistence.record

    def refusing(one: Record) -> int:
        if is_bad(one):
            raise RecordRejected("no bytes for it")
        return record(one)

    monkeypatch.setattr(watched.engine._persistence, "record", refusing)
