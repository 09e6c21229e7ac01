"""What a run can be asked for at any time, as metrics: the road of a fill does not count what somebody reads once a second."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

from horizon.desk import Desk
from horizon.metrics import Reading
from horizon.persistence import Persistence
from horizon.turns import TurnLock


def tell_figures(desk: Desk, persistence: Persistence, lock: TurnLock) -> None:
    """Let the desk's metrics ask for the run's figures; the engine's lock covers that too (R25)."""
    weakly = weakref.ref(desk)  # its own metrics must not keep it alive

    def readings() -> Iterable[Reading]:
        asked = weakly()
        if asked is None:
            return []
        with lock:
            return [*_of_desk(asked), *_of_road(persistence)]

    desk.metrics.tell(readings)


def _of_desk(desk: Desk) -> Iterable[Reading]:
    venue = (desk.venue.name,)
    realized, unrealized = desk.book.pnl()
    yield Reading("horizon_fills_total", desk.fills_applied - desk.sells_applied, (*venue, "buy"))
    yield Reading("horizon_fills_total", desk.sells_applied, (*venue, "sell"))
    yield Reading("horizon_orders_open", desk.orders.open_count(), venue)
    yield Reading("horizon_positions_open", desk.book.active_count(), venue)
    yield Reading("horizon_pnl", realized, ("realized",))
    yield Reading("horizon_pnl", unrealized, ("unrealized",))
    yield Reading("horizon_kill_switch_active", desk.gate.kill_switch_active)
    yield Reading("horizon_hold_active", desk.gate.hold_reason is not None)
    yield Reading("horizon_events_refused_total", desk.events_refused, venue)
    yield Reading("horizon_risk_decisions_total", desk.checks_passed, ("all", "pass"))
    for check, count in desk.checks_refused.items():
        yield Reading("horizon_risk_decisions_total", count, (check, "reject"))
    if desk.order_seconds.count:
        yield Reading("horizon_order_latency_seconds", desk.order_seconds, venue)


def _of_road(persistence: Persistence) -> Iterable[Reading]:
    if not persistence.is_on:
        return
    yield Reading("horizon_records_recorded_total", persistence.last_seq)
    yield Reading("horizon_unacked_records", persistence.unacked)
    yield Reading("horizon_journal_bytes", persistence.unacked_bytes)
    if persistence.seconds_to_ack is not None:
        yield Reading("horizon_event_commit_seconds", persistence.seconds_to_ack)
