"""What becomes of orders that earlier runs left open, by policy."""

from __future__ import annotations

import pytest
from engines import fill_of
from restarts import Restarted, left_open
from scripted_venue import ScriptedVenue

from horizon.engine import Engine
from horizon.errors import ConfigError, VenueError
from horizon.records import OrderEvent, OrderStatus
from horizon.venues.base import OrderUpdate


def _endings(run: Restarted) -> list[tuple[str, str, str | None]]:
    return [(one.order_id, one.status.value, one.status_reason) for one in run.records if isinstance(one, OrderEvent)]


def _left_alive(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if getattr(record, "action", "") == "orphans_alive"]


def test_an_unknown_policy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match='orphans must be "warn" or "cancel" or "hold", got \'panic\''):
        Engine(orphans="panic")


def test_by_default_orphans_are_listed_and_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    run = Restarted(left_open("a"), left_open("b"))
    assert run.asked_to_cancel() == []
    assert _endings(run) == []
    assert _left_alive(caplog) == ["s: 2 orders of earlier runs may still be alive: a, b"]


def test_cancel_asks_the_venue_to_cancel_each_and_records_what_it_says(caplog: pytest.LogCaptureFixture) -> None:
    venue = ScriptedVenue()
    venue.answers["cancel"] = OrderUpdate("", OrderStatus.Canceled, "on request")
    run = Restarted(left_open("a"), left_open("b", filled_size=2.0), venue=venue, orphans="cancel")
    assert run.asked_to_cancel() == ["a", "b"]
    assert _endings(run) == [
        ("a", "canceled", "orphan of run earlier: on request"),
        ("b", "canceled", "orphan of run earlier: on request"),
    ]
    newest = run.records[-1]
    assert isinstance(newest, OrderEvent)
    assert (newest.filled_size, newest.remaining_size) == (2.0, 3.0)
    assert _left_alive(caplog) == []


def test_cancel_does_not_ask_for_what_the_venue_says_is_over() -> None:
    venue = ScriptedVenue()
    venue.endings["a"] = OrderUpdate("a", OrderStatus.Rejected, "too late")
    run = Restarted(left_open("a"), left_open("b", filled_size=5.0), venue=venue, orphans="cancel")
    assert run.asked_to_cancel() == []
    assert [(order_id, status) for order_id, status, _ in _endings(run)] == [("a", "rejected"), ("b", "filled")]


def test_a_cancel_without_an_answer_proves_nothing_and_the_order_stays_listed(caplog: pytest.LogCaptureFixture) -> None:
    venue = ScriptedVenue()
    venue.answers["cancel"] = VenueError("timed out")
    run = Restarted(left_open("a"), venue=venue, orphans="cancel")
    assert _endings(run) == []
    assert _left_alive(caplog) == ["s: 1 orders of earlier runs may still be alive: a"]


def test_an_orphan_that_was_filled_before_it_could_be_canceled_ends_by_its_fills() -> None:
    venue = ScriptedVenue()
    venue.answers["cancel"] = OrderUpdate("a", OrderStatus.Filled)
    assert _endings(Restarted(left_open("a"), venue=venue, orphans="cancel")) == [], "the answer alone is no fill"
    run = Restarted(left_open("a"), later=left_open("a", filled_size=5.0), venue=venue, orphans="cancel")
    assert [(order_id, status) for order_id, status, _ in _endings(run)] == [("a", "filled")]


def test_an_order_of_another_exchange_cannot_be_canceled_here(caplog: pytest.LogCaptureFixture) -> None:
    run = Restarted(left_open("a", exchange="elsewhere"), orphans="cancel")
    assert run.asked_to_cancel() == []
    assert "order a was sent to elsewhere and cannot be canceled at scripted" in caplog.text
    assert len(_left_alive(caplog)) == 1


def test_fills_that_were_missed_count_before_an_orphan_is_settled() -> None:
    venue = Vouching()
    venue.history = [fill_of("a", size=2.0)]
    venue.endings["a"] = OrderUpdate("a", OrderStatus.Canceled)
    run = Restarted(left_open("a"), later=left_open("a", filled_size=2.0), venue=venue)
    newest = run.records[-1]
    assert isinstance(newest, OrderEvent)
    assert (newest.status, newest.filled_size) == (OrderStatus.Canceled, 2.0)


class Vouching(ScriptedVenue):
    vouches = True


def test_orphans_are_settled_once_for_a_run() -> None:
    run = Restarted(left_open("a"), orphans="cancel")
    run.engine.start_run()
    run.engine.poll_fills()
    assert run.asked_to_cancel() == ["a"]
