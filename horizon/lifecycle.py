"""How a run begins and ends: recover, record the start, connect, take what was missed, settle orphans; cancel, snapshot, record the end.

First start and start after a crash are one path (design section 5). So are a kill switch or hold found at the start and one that comes
while the run lives: what people decide is a latch in the database, and `obey` does it. What happens in between is `desk.py`; the
lock is the engine's.
"""

from __future__ import annotations

import logging
import os
import shlex
from contextlib import suppress

import msgspec

from horizon.clock import Clock
from horizon.desk import Desk
from horizon.errors import AckTimeout, DeadLettered, Halt, HorizonError, VenueError
from horizon.failpoints import ACTIVE, reach
from horizon.persistence import Persistence
from horizon.positions import Book, exact_sum
from horizon.records import OrderStatus, PositionSnapshot, RunEnded, RunStarted
from horizon.store.recovery import OpenOrder, Recovered
from horizon.venues.base import OrderUpdate, can_be_asked
from horizon.wire import Control

log = logging.getLogger(__name__)

OVERLAP_S = 3600.0  # how much further back than what is known a venue is asked: clocks differ, reports come late
_ORPHANS_SHOWN = 5


class Lifecycle:
    def __init__(self, persistence: Persistence, desk: Desk, clock: Clock, orphans: str = "warn") -> None:
        """`orphans`: "warn", "cancel" or "hold"; see `Engine`."""
        self.has_started = False  # its start is recorded
        self.has_begun = False  # it may trade
        self.has_ended = False
        self._persistence = persistence
        self._desk = desk
        self._clock = clock
        self._orphan_policy = orphans
        self._held_by: Control | None = None  # whose hold is in force
        self._switched_by: Control | None = None  # whose kill switch is
        self._own_hold: str | None = None  # why this run holds itself, until a person releases it
        self._recovered: Recovered | None = None
        self._is_connected = False
        self._begun_at: float | None = None  # wall time

    def begin(self, strategy: str | None = None, config: str | None = None) -> None:
        """Everything that happens once, before the first order or fill of a run. What failed is tried again by the next call."""
        if self.has_ended:
            raise HorizonError("this engine's run has ended; make a new Engine for a new run")
        if self.has_begun and strategy is None:
            return
        self._persistence.open(strategy)
        if self.has_begun:
            return
        if self._recovered is None:
            self.recover()
        if not self.has_started:
            self._record_start(config)
        if not self._is_connected:
            with self._desk.calling():
                self._desk.venue.connect()
            self._is_connected = True
        if self.take_missed_fills() and self._orphans():
            self._recovered = self._persistence.recover_again()  # some of them may be of orphans
        self._settle_orphans()
        self._begun_at = self._clock.now()
        self._desk.known_until = self._known_until()
        self.has_begun = True

    def recover(self) -> None:
        """Restore the positions; twice changes nothing."""
        found = self._persistence.recover()
        if found is None:
            return
        if ACTIVE:
            reach("worker.recovering")
        book = Book.restore(found.rows, found.fills)
        book.take_marks_of(self._desk.book)
        self._desk.book = book
        is_first, self._recovered = self._recovered is None, found
        if is_first:
            self._resume(found)

    def obey(self) -> None:
        """Do what people decided since the last call: kill switch on or off, hold, release. It is recorded already. Raises: Halt."""
        if not self.has_begun or self.has_ended:
            return
        self._persistence.hear()
        control = self._persistence.control()
        if control is None:
            return
        if control is not self._held_by:
            if self._held_by is not None and control.released_at != self._held_by.released_at:
                self._own_hold = None
            self._held_by = control
            self._hold(control.hold)
        # Until the writer has what this run did to the switch itself, the run knows better.
        if control is not self._switched_by and self._persistence.committed_seq >= self._desk.switched_seq:
            self._switched_by = control
            self._desk.obey_kill_switch(control.kill_switch)

    def orphan_ids(self) -> list[str]:
        """Orders that earlier runs left open, as the database knows it now."""
        found = self._persistence.recover()
        return [] if found is None else [orphan.event.order_id for orphan in self._orphans_in(found)]

    def poll(self) -> int:
        """Take the venue's news, and after a disconnect also what it did not get to tell. Raises: VenueError."""
        applied = self._desk.take_events()
        if self._desk.has_missed:
            applied += self.take_missed_fills()
            self._desk.has_missed = False
            applied += self._desk.take_events()
        return applied

    def take_missed_fills(self) -> int:
        """Ask the venue for fills since the newest known one; returns how many were new."""
        venue, since = self._desk.venue, self._known_until()
        if since is None or not can_be_asked(venue):
            return 0
        with self._desk.calling():
            missed = venue.fills_since(since - OVERLAP_S)
        # Oldest first: whatever ends this half-way, the newest fill that was taken tells where to go on.
        return self._desk.take_fills(sorted(missed, key=lambda fill: fill.timestamp))

    def snapshot(self) -> None:
        if ACTIVE:
            reach("worker.snapshotting")
        gate = self._desk.gate
        self._persistence.record(
            PositionSnapshot(self._clock.now(), self._desk.book.snapshot(), gate.high_water_mark, gate.baseline)
        )

    def end(self, reason: str) -> None:
        """The order of a clean end: cancel, take late fills, snapshot, record the end. A bug of the adapter stops none of it."""
        self._desk.cancel_open()
        try:
            self.poll()
        except Exception as error:
            trace = None if isinstance(error, VenueError) else error
            log.warning(
                "late fills could not be asked for: %s; the next run asks again", error, exc_info=trace,
                extra={"action": "late_fills"},
            )  # fmt: skip
        self._desk.record_unrecorded_violations()
        self.snapshot()
        if ACTIVE:
            reach("worker.ending")
        self._persistence.record(RunEnded(self._clock.now(), reason))
        self.has_ended = True
        if ACTIVE:
            reach("worker.ended")

    def leave(self, timeout_s: float, reason: str) -> None:
        """End the run, if there is one, and wait for the last ack. Raises: AckTimeout, Halt.

        After a halt nothing is recorded any more, also no snapshot (R3): orders are canceled at the venue, and that is all.
        """
        if self._persistence.halt is not None:
            self._desk.cancel_unrecorded()
            return
        try:
            if self.has_started and not self.has_ended:
                self.end(reason)
            self._persistence.flush(timeout_s)
        except DeadLettered as error:
            log.error("%s", error, extra={"action": "dead_letters"})
        except Halt:
            self._desk.cancel_unrecorded()
            raise

    def _record_start(self, config: str | None) -> None:
        place = 0 if self._recovered is None else self._recovered.commit_no
        self._persistence.record(
            RunStarted(self._persistence.strategy, self._desk.venue.name, self._clock.now(), config, os.getpid(), place)
        )
        self.has_started = True

    def _resume(self, found: Recovered) -> None:
        """Go on with what outlives a run beside the positions: the day's PnL, the kill switch, the hold."""
        gate, total_pnl = self._desk.gate, sum(self._desk.book.pnl())
        if found.daily_baseline is None or found.high_water_mark is None:
            # The restored PnL is where the day begins: against zero it could trip the drawdown limit at once.
            gate.start_day(total_pnl)
        else:
            gate.resume_day(found.daily_baseline, found.high_water_mark)
            gate.observe(total_pnl)
            if found.snapshot_at is not None and (found.kill_switch_cleared_at or 0.0) > found.snapshot_at:
                # As if it had been cleared while a run lived: the drawdown that the person has seen is not counted again.
                gate.reset_high_water_mark()
        self._report(found)
        # What comes after the writer's welcome is newer than what was read now.
        self._held_by = self._switched_by = self._persistence.control()
        self._desk.obey_kill_switch(found.kill_switch)
        if not can_be_asked(self._desk.venue):
            self._own_hold = (
                f"{self._desk.venue.name} cannot be asked what happened while nobody listened: its adapter has no fills_since or no "
                "order_by_client_id"
            )
        self._hold(found.hold)

    def _hold(self, decided: str | None) -> None:
        """Put in force what people decided, beside the run's own reason."""
        reason = "; ".join(one for one in (decided, self._own_hold) if one is not None)
        before, self._desk.gate.hold_reason = self._desk.gate.hold_reason, self._say_held(reason) if reason else None
        if self._desk.gate.hold_reason == before:
            return
        if reason:
            log.warning("%s", self._desk.gate.hold_reason, extra={"action": "hold"})
        else:
            log.warning("%s is released and may order again", self._persistence.strategy, extra={"action": "release"})

    def _say_held(self, reason: str) -> str:
        strategy = self._persistence.strategy
        way = f"`horizon orphans release --strategy {shlex.quote(strategy)} --reason WHY` lets it order again"
        gaps = self._recovered.gaps if self._recovered is not None else ()
        lost = dict.fromkeys(gap.run_id for gap in gaps if gap.run_id in reason)
        if lost:
            accept = ", ".join(f"`horizon journal accept-gap {run_id} --reason WHY`" for run_id in lost)
            way = f"{accept} accepts what is missing; after any other hold {way}"
        return f"{strategy} is held and may cancel but not order: {reason}. {way}"

    def _settle_orphans(self) -> None:
        """Record how orders of earlier runs ended, where that is known (R8), and do with the others what the policy says."""
        alive = [orphan for orphan in self._orphans() if not self._settle(orphan)]
        if alive and self._orphan_policy == "cancel":
            alive = self._cancel_orphans(alive)
        if not alive:
            return
        shown = _shown([orphan.event.order_id for orphan in alive])
        log.warning(
            "%s: %d orders of earlier runs may still be alive: %s", self._persistence.strategy, len(alive), shown,
            extra={"action": "orphans_alive"},
        )  # fmt: skip
        undecided = [orphan for orphan in alive if not self._was_released(orphan)]
        if undecided and self._orphan_policy == "hold":
            orphans = (
                f"{len(undecided)} orders of earlier runs may still be alive: {_shown([o.event.order_id for o in undecided])}"
            )
            self._own_hold = orphans if self._own_hold is None else f"{self._own_hold}; {orphans}"
            self._hold(None if self._held_by is None else self._held_by.hold)

    def _settle(self, orphan: OpenOrder) -> bool:
        """Record how an order ended: filled by its fills, or over at the venue. False while nobody knows that it did."""
        if orphan.filled_size >= orphan.event.size:
            self._record_end(orphan, OrderStatus.Filled, f"filled by its fills; run {orphan.run_id} did not come to record it")
            return True
        venue = self._desk.venue
        if orphan.event.exchange != venue.name or not can_be_asked(venue):
            return False
        try:
            with self._desk.calling():
                update = venue.order_by_client_id(orphan.event.order_id)
            return self._take_end(orphan, update)
        except VenueError as error:
            log.warning("order %s: %s", orphan.event.order_id, error, extra={"action": "orphan_unknown"})
            return False

    def _cancel_orphans(self, orphans: list[OpenOrder]) -> list[OpenOrder]:
        """Ask the venue to cancel orders and record what it says. Returns those of which nobody knows that they ended."""
        venue, alive = self._desk.venue, []
        is_filled = False
        for orphan in orphans:
            order_id = orphan.event.order_id
            if orphan.event.exchange != venue.name:
                log.warning(
                    "order %s was sent to %s and cannot be canceled at %s", order_id, orphan.event.exchange, venue.name,
                    extra={"action": "orphan_elsewhere"},
                )  # fmt: skip
                alive.append(orphan)
                continue
            try:
                with self._desk.calling():
                    update = venue.cancel(order_id)
            except VenueError as error:
                log.warning("the cancel of order %s was not answered: %s", order_id, error, extra={"action": "cancel_unknown"})
                alive.append(orphan)
                continue
            log.info(
                "order %s, left open by run %s: %s", order_id, orphan.run_id, update.status.value, extra={"action": "orphan"}
            )
            if not self._take_end(orphan, update):
                alive.append(orphan)
                is_filled = is_filled or update.status is OrderStatus.Filled
        return self._settle_filled(alive) if is_filled else alive

    def _settle_filled(self, orphans: list[OpenOrder]) -> list[OpenOrder]:
        """Some were filled before they could be canceled: their fills say so. Returns the others."""
        with suppress(VenueError, AckTimeout):
            self._desk.take_events()
            self.take_missed_fills()
            again = self._persistence.recover_again()
            now = {} if again is None else {order.event.order_id: order for order in again.open_orders}
            orphans = [now.get(orphan.event.order_id, orphan) for orphan in orphans]
        return [orphan for orphan in orphans if orphan.filled_size < orphan.event.size or not self._settle(orphan)]

    def _take_end(self, orphan: OpenOrder, update: OrderUpdate | None) -> bool:
        """Whether the venue says that the order is over. One that does not know it proves nothing; fills tell by themselves."""
        if update is None or update.status not in (OrderStatus.Canceled, OrderStatus.Rejected):
            return False
        self._record_end(orphan, update.status, f"orphan of run {orphan.run_id}: {update.reason or update.status.value}")
        return True

    def _record_end(self, orphan: OpenOrder, status: OrderStatus, reason: str) -> None:
        self._persistence.record(
            msgspec.structs.replace(
                orphan.event,
                status=status,
                status_reason=reason,
                filled_size=orphan.filled_size,
                remaining_size=max(0.0, exact_sum(orphan.event.size, -orphan.filled_size)),
                recorded_at=self._clock.now(),
            )
        )

    def _was_released(self, orphan: OpenOrder) -> bool:
        """Whether a person let the strategy order again when this order was known to be open."""
        released_at = None if self._held_by is None else self._held_by.released_at
        return released_at is not None and orphan.event.recorded_at <= released_at

    def _known_until(self) -> float | None:
        """The venue's time up to which fills are known; None: there can be none yet.

        The newest known fill tells, not our clock, which may jump. Where there is no fill, the oldest order that may have one is
        as far as one has to look.
        """
        if self._desk.known_until is not None:
            return self._desk.known_until
        newest = self._persistence.newest_fill_time()
        if newest is not None:
            return newest
        orders_since = [orphan.event.created_at for orphan in self._orphans()]
        if self._begun_at is not None:
            orders_since.append(self._begun_at)
        return min(orders_since, default=None)

    def _orphans(self) -> list[OpenOrder]:
        return [] if self._recovered is None else self._orphans_in(self._recovered)

    def _orphans_in(self, found: Recovered) -> list[OpenOrder]:
        own = self._persistence.run_id
        return [order for order in found.open_orders if order.run_id != own]

    def _report(self, found: Recovered) -> None:
        strategy = self._persistence.strategy
        if found.rows or found.fills:
            log.info(
                "%s recovered its positions (%d open): a snapshot of %d and %d fills after it",
                strategy,
                self._desk.book.active_count(),
                len(found.rows),
                len(found.fills),
                extra={"action": "recovered"},
            )
        orphans = [orphan.event.order_id for orphan in self._orphans_in(found)]
        if orphans:
            log.warning(
                "%s: earlier runs left %d orders open: %s", strategy, len(orphans), _shown(orphans), extra={"action": "orphans"}
            )


def _shown(order_ids: list[str]) -> str:
    return ", ".join(order_ids[:_ORPHANS_SHOWN]) + (", …" if len(order_ids) > _ORPHANS_SHOWN else "")
