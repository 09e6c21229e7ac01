"""How a run begins and ends: recover, record the start, connect, take what was missed, settle orphans; cancel, snapshot, record the end.

First start and start after a crash are one path (design section 5). What happens in between is `desk.py`; the lock is the engine's.
"""

from __future__ import annotations

import logging
import os

import msgspec

from horizon.clock import Clock
from horizon.desk import Desk
from horizon.errors import DeadLettered, Halt, HorizonError, VenueError
from horizon.persistence import Persistence
from horizon.positions import Book, exact_sum
from horizon.records import OrderStatus, PositionSnapshot, RunEnded, RunStarted
from horizon.store.recovery import OpenOrder, Recovered

log = logging.getLogger(__name__)

OVERLAP_S = 3600.0  # how much further back than what is known a venue is asked: clocks differ, reports come late
_ORPHANS_SHOWN = 5


class Lifecycle:
    def __init__(self, persistence: Persistence, desk: Desk, clock: Clock) -> None:
        self.has_started = False  # its start is recorded
        self.has_begun = False  # it may trade
        self.has_ended = False
        self._persistence = persistence
        self._desk = desk
        self._clock = clock
        self._recovered: Recovered | None = None
        self._is_connected = False
        self._missed_some = False  # the venue could not be heard
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
            self._desk.venue.connect()
            self._is_connected = True
        self.take_missed_fills()
        self._settle_orphans()
        self._begun_at = self._clock.now()
        self.has_begun = True

    def recover(self) -> None:
        """Restore the positions; twice changes nothing."""
        found = self._persistence.recover()
        if found is None:
            return
        book = Book.restore(found.rows, found.fills)
        book.take_marks_of(self._desk.book)
        self._desk.book = book
        if self._recovered is None:
            # The restored PnL is where the day begins: against zero it could trip the drawdown limit at once.
            self._desk.gate.start_day(sum(book.pnl()))
            self._report(found)
        self._recovered = found

    def orphan_ids(self) -> list[str]:
        """Orders that earlier runs left open, as the database knows it now."""
        found = self._persistence.recover()
        return [] if found is None else [orphan.event.order_id for orphan in self._orphans(found)]

    def poll(self) -> int:
        """Take the venue's news, and after a disconnect also what it did not get to tell. Raises: VenueError."""
        try:
            applied = self._desk.take_events()
        except VenueError:
            self._missed_some = True
            raise
        if self._missed_some:
            applied += self.take_missed_fills()
            self._missed_some = False
        return applied

    def take_missed_fills(self) -> int:
        """Ask the venue for fills since the newest known one; returns how many were new."""
        since = self._known_until()
        return 0 if since is None else self._desk.take_fills(self._desk.venue.fills_since(since - OVERLAP_S))

    def snapshot(self) -> None:
        self._persistence.record(PositionSnapshot(self._clock.now(), self._desk.book.snapshot()))

    def end(self, reason: str) -> None:
        """The order of a clean end: cancel, take late fills, snapshot, record the end."""
        for tracked in self._desk.orders.open():
            self._desk.cancel(tracked)
        try:
            self._desk.take_events()
        except VenueError as error:
            log.warning("late fills could not be asked for: %s; the next run asks again", error, extra={"action": "late_fills"})
        self._desk.record_unrecorded_violations()
        self.snapshot()
        self._persistence.record(RunEnded(self._clock.now(), reason))
        self.has_ended = True

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

    def _settle_orphans(self) -> None:
        """Record how orders of earlier runs ended, where that is known (R8): filled by their fills, or over at the venue."""
        for orphan in self._orphans(self._recovered) if self._recovered is not None else ():
            event, filled = orphan.event, orphan.filled_size
            if filled >= event.size:
                status, reason = OrderStatus.Filled, f"filled by its fills; run {orphan.run_id} did not come to record it"
            elif (ending := self._ending_at_venue(orphan)) is not None:
                status, reason = ending
            else:
                continue
            self._persistence.record(
                msgspec.structs.replace(
                    event,
                    status=status,
                    status_reason=reason,
                    filled_size=filled,
                    remaining_size=max(0.0, exact_sum(event.size, -filled)),
                    recorded_at=self._clock.now(),
                )
            )

    def _ending_at_venue(self, orphan: OpenOrder) -> tuple[OrderStatus, str] | None:
        """How an order ended, None while it may be alive: a venue of another name, or one that does not know it, proves nothing."""
        venue = self._desk.venue
        if orphan.event.exchange != venue.name:
            return None
        try:
            update = venue.order_by_client_id(orphan.event.order_id)
        except VenueError as error:
            log.warning("order %s: %s", orphan.event.order_id, error, extra={"action": "orphan_unknown"})
            return None
        if update is None or update.status not in (OrderStatus.Canceled, OrderStatus.Rejected):
            return None
        return update.status, f"orphan of run {orphan.run_id}: {update.reason or update.status.value}"

    def _known_until(self) -> float | None:
        """The venue's time up to which fills are known; None: there can be none yet.

        The newest known fill tells, not our clock, which may jump. Where there is no fill, the oldest order that may have one is
        as far as one has to look.
        """
        if self._desk.recent_fills:
            return self._desk.recent_fills[-1].timestamp
        newest = self._persistence.newest_fill_time()
        if newest is not None:
            return newest
        orphans = self._orphans(self._recovered) if self._recovered is not None else []
        orders_since = [orphan.event.created_at for orphan in orphans]
        if self._begun_at is not None:
            orders_since.append(self._begun_at)
        return min(orders_since, default=None)

    def _orphans(self, found: Recovered) -> list[OpenOrder]:
        own = self._persistence.run_id
        return [order for order in found.open_orders if order.run_id != own]

    def _report(self, found: Recovered) -> None:
        strategy = self._persistence.strategy
        if found.rows or found.fills:
            log.info(
                "%s recovered %d positions: a snapshot of %d and %d fills after it",
                strategy,
                self._desk.book.active_count(),
                len(found.rows),
                len(found.fills),
                extra={"action": "recovered"},
            )
        orphans = [orphan.event.order_id for orphan in self._orphans(found)]
        if orphans:
            shown = ", ".join(orphans[:_ORPHANS_SHOWN]) + (", …" if len(orphans) > _ORPHANS_SHOWN else "")
            log.warning("%s: earlier runs left %d orders open: %s", strategy, len(orphans), shown, extra={"action": "orphans"})
