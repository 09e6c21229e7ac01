"""Hold: a strategy may cancel but not order, until a person decides."""

from __future__ import annotations

import pytest
from restarts import REQUEST, Restarted, left_open
from scripted_venue import ScriptedVenue

from horizon.errors import RiskError
from horizon.records import Fill, Order, OrderStatus, Quote
from horizon.store.controls import UnacceptedGap
from horizon.venues.base import BareVenue, OrderUpdate, Venue, VenueEvent, can_be_asked
from horizon.venues.paper import Paper
from horizon.wire import Control


class MuteVenue:
    """An adapter that cannot say what happened while nobody listened."""

    name = "mute"

    def connect(self) -> None: ...

    def close(self) -> None: ...

    def submit(self, order: Order) -> OrderUpdate:
        return OrderUpdate(order.id, OrderStatus.Accepted)

    def cancel(self, order_id: str) -> OrderUpdate:
        return OrderUpdate(order_id, OrderStatus.Canceled)

    def amend(self, order_id: str, price: float, size: float) -> OrderUpdate:
        return OrderUpdate(order_id, OrderStatus.Accepted, price=price, size=size)

    def poll(self) -> list[VenueEvent]:
        return []


def _refusal(run: Restarted) -> str:
    with pytest.raises(RiskError) as refused:
        run.engine.submit_order(REQUEST)
    assert refused.value.check == "hold"
    return str(refused.value)


def test_with_policy_hold_an_orphan_forbids_orders_and_the_sentence_says_who_lifts_that() -> None:
    run = Restarted(left_open("a"), orphans="hold")
    assert _refusal(run) == (
        "s is held and may cancel but not order: 1 orders of earlier runs may still be alive: a. "
        "`horizon orphans release --strategy s --reason WHY` lets it order again"
    )
    assert run.asked_to_cancel() == []
    assert run.statuses() == [], "a refusal is no order"
    assert run.count("horizon_order_rejects_total", layer="hold") == 1


def test_with_policy_hold_nothing_is_held_when_every_orphan_is_known_to_be_over() -> None:
    venue = ScriptedVenue()
    venue.endings["a"] = OrderUpdate("a", OrderStatus.Canceled)
    run = Restarted(left_open("a"), venue=venue, orphans="hold")
    assert run.engine.submit_order(REQUEST)


def test_a_release_lets_the_run_order_again_within_a_cycle() -> None:
    run = Restarted(left_open("a"), orphans="hold")
    run.decide(released_at=2000.0)
    assert run.engine.submit_order(REQUEST)


def test_a_hold_of_a_person_that_ends_does_not_release_the_runs_own() -> None:
    run = Restarted(left_open("a"), orphans="hold")
    run.decide(hold="maintenance")
    assert "maintenance; 1 orders of earlier runs" in _refusal(run)
    run.decide()
    assert "1 orders of earlier runs" in _refusal(run)


def test_orphans_that_were_there_at_a_release_hold_no_later_run() -> None:
    known = Restarted(left_open("a", recorded_at=1000.0), orphans="hold", control=Control(released_at=1500.0))
    assert known.engine.submit_order(REQUEST)
    new = Restarted(left_open("a", recorded_at=1000.0), left_open("b", recorded_at=1600.0), orphans="hold",
                    control=Control(released_at=1500.0))  # fmt: skip
    assert "1 orders of earlier runs may still be alive: b" in _refusal(new)


def test_a_held_strategy_cancels_and_does_not_amend() -> None:
    run = Restarted()
    first, second = run.engine.submit_order(REQUEST), run.engine.submit_order(REQUEST)
    run.decide(hold="a person looks at it")
    with pytest.raises(RiskError, match="a person looks at it"):
        run.engine.amend_order(first, new_price=0.4)
    assert run.engine.submit_quotes("m", [Quote(0.4, 0.6)]) == []
    assert run.engine.cancel(first)
    assert run.engine.cancel_all() == 1
    assert run.asked_to_cancel() == [first, second]


def test_a_hold_that_was_there_before_the_run_is_found_at_its_start() -> None:
    run = Restarted(hold="maintenance")
    assert "maintenance" in _refusal(run)
    run.decide(released_at=2000.0)
    assert run.engine.submit_order(REQUEST)


def test_a_gap_that_nobody_accepted_holds_and_the_sentence_names_the_command_for_it() -> None:
    """R13."""
    hold = "records 5 to 9 of run r1 are missing, and nobody has accepted that"
    run = Restarted(hold=hold, gaps=(UnacceptedGap("r1", 5, 9, "damaged", 1000.0),))
    assert "`horizon journal accept-gap r1 --reason WHY` accepts what is missing" in _refusal(run)
    run.decide(hold=hold, released_at=2000.0)
    assert "accept-gap" in _refusal(run), "a release is no acceptance"
    run.decide(released_at=2000.0)
    assert run.engine.submit_order(REQUEST)


def test_the_name_in_the_sentence_can_be_pasted_into_a_shell() -> None:
    run = Restarted(hold="maintenance")
    run.engine._persistence._strategy = "two words"
    run.decide(hold="more maintenance")
    assert "--strategy 'two words' --reason WHY`" in _refusal(run)


def test_an_adapter_that_cannot_be_asked_what_was_missed_starts_held() -> None:
    run = Restarted(left_open("a", exchange="mute"), venue=MuteVenue(), orphans="cancel")
    assert "mute cannot be asked what happened while nobody listened" in _refusal(run)
    assert run.statuses() == ["canceled"], "cancels are allowed, also of orphans"
    run.decide(released_at=2000.0)
    assert run.engine.submit_order(REQUEST)
    assert run.engine.sync_positions() == 0


def test_what_an_adapter_only_inherits_from_the_protocol_tells_nothing() -> None:
    class Half(MuteVenue):
        def fills_since(self, timestamp: float) -> list[Fill]:
            return []

    class Inheriting(Half, Venue):  # type: ignore[misc]
        pass

    assert isinstance(MuteVenue(), BareVenue)
    assert [can_be_asked(venue) for venue in (MuteVenue(), Half(), Inheriting())] == [False, False, False]
    assert can_be_asked(ScriptedVenue())
    assert can_be_asked(Paper())


def test_a_hold_and_its_end_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    run = Restarted()
    for _ in range(3):
        run.decide(hold="maintenance")
    for _ in range(3):
        run.decide()
    said = [record.getMessage() for record in caplog.records if getattr(record, "action", "") in ("hold", "release")]
    assert said[1:] == ["s is released and may order again"]
    assert "maintenance" in said[0]
