"""Order intent: what is known of an order before the venue hears of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from engines import Watched
from restarts import REQUEST

from horizon.engine import Engine
from horizon.errors import AckTimeout, ConfigError, DeadLettered
from horizon.persistence import Persistence


class Committing(Watched):
    """An engine that sends what is committed; `failure` is what the wait for the ack ends with."""

    def __init__(self) -> None:
        super().__init__()
        self.failure: Exception | None = None
        self.waited_for: list[int] = []
        self.engine._desk._commits_intent = True
        self.engine._persistence.commit = self._commit  # type: ignore[method-assign]

    def _commit(self, seq: int, timeout_s: float) -> None:
        assert timeout_s > 0
        assert self.statuses()[-1] == "new", "it is recorded, and the venue has not answered"
        self.waited_for.append(seq)
        if self.failure is not None:
            raise self.failure


def test_committed_intent_needs_a_database() -> None:
    with pytest.raises(ConfigError, match="there is no database to commit to"):
        Engine(intent="committed")
    with pytest.raises(ConfigError, match='intent must be "journal" or "committed", got \'maybe\''):
        Engine(intent="maybe", db_path=Path("unused.db"))


def test_an_order_is_sent_when_its_record_is_committed() -> None:
    watched = Committing()
    order_id = watched.engine.submit_order(REQUEST)
    assert watched.waited_for == [2], "the order's record, behind the run's start"
    assert watched.venue.asked_for("submit") == [[order_id]]


def test_an_order_whose_ack_does_not_come_is_recorded_as_rejected_and_not_sent() -> None:
    watched = Committing()
    watched.failure = AckTimeout("3 records are not acknowledged after 5 s")
    with pytest.raises(AckTimeout, match="was not sent: 3 records are not acknowledged"):
        watched.engine.submit_order(REQUEST)
    assert watched.statuses() == ["new", "rejected"]
    assert watched.venue.asked_for("submit") == []
    assert watched.engine.open_orders() == []
    assert watched.count("horizon_order_rejects_total", layer="journal") == 1
    assert watched.count("horizon_orders_submitted_total", side="buy") == 0


def test_while_the_writer_is_behind_the_next_order_does_not_wait_as_long_again(monkeypatch: pytest.MonkeyPatch) -> None:
    committed = [0]
    monkeypatch.setattr(Persistence, "committed_seq", property(lambda _self: committed[0]))
    watched = Committing()
    watched.failure = AckTimeout("too late")
    for _ in range(3):
        with pytest.raises(AckTimeout):
            watched.engine.submit_order(REQUEST)
    assert watched.waited_for == [2]
    assert watched.statuses() == ["new", "rejected"]
    watched.failure = None
    committed[0] = 2
    assert watched.engine.submit_order(REQUEST)


def test_an_order_that_became_a_dead_letter_is_not_sent() -> None:
    watched = Committing()
    watched.failure = DeadLettered("record 2 could not be stored")
    with pytest.raises(DeadLettered, match="was not sent: record 2"):
        watched.engine.submit_order(REQUEST)
    assert watched.statuses() == ["new", "rejected"]
    assert watched.venue.asked_for("submit") == []


def test_by_default_nothing_waits() -> None:
    watched = Watched()
    watched.engine._persistence.commit = pytest.fail  # type: ignore[method-assign]
    assert watched.engine.submit_order(REQUEST)
