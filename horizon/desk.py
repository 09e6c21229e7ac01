"""What happens to the orders, fills and positions of one run: the engine's inside, without its lock, its start and its end.

The rule of every method (P1, R3): record first, apply after. An order is in the journal before the venue hears of it, a fill before it
changes a position, so memory never runs ahead of what a kill -9 leaves. An exception between the two halts the run.

What a risk check refuses gets no order id: it is recorded as a violation, the first of its kind at once and the rest counted (see
`risk.Violations`). What the venue refuses is an order with status rejected.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress

from prometheus_client import Counter

from horizon.clock import Clock
from horizon.errors import AckTimeout, DeadLettered, Halt, JournalFull, RecordRejected, RiskError, VenueError
from horizon.failpoints import ACTIVE, reach
from horizon.ids import order_id
from horizon.metrics import Metrics, Tally
from horizon.orders import OrderTable, Tracked, event_of_fill, next_event, same_content
from horizon.persistence import Persistence
from horizon.positions import Book
from horizon.pulse import Pulse
from horizon.records import Fill, FillConflict, Order, OrderEvent, OrderRequest, OrderSide, OrderStatus, RiskEvent, RiskEventType
from horizon.risk import Exposure, RiskGate, Violations
from horizon.venues.base import BareVenue, OrderUpdate, SimulatedVenue, VenueEvent

log = logging.getLogger(__name__)

# Looking a member up in its enum costs 0.1 us each time.
_SELL = OrderSide.Sell
_UNFILLED_ENDS = frozenset({OrderStatus.Canceled, OrderStatus.Rejected})
RECENT_FILLS = 1000
INTENT_TIMEOUT_S = 5.0  # for the ack of an order that may only be sent when it is committed; a writer restarts in less
STRANGERS_REMEMBERED = 100_000  # without a database: fills of orders not in memory that are recognised when they come again


class Desk:
    def __init__(
        self,
        venue: BareVenue,
        persistence: Persistence,
        gate: RiskGate,
        clock: Clock,
        pulse: Pulse,
        *,
        commits_intent: bool = False,
    ) -> None:
        """`commits_intent`: the venue hears of an order only when the order is a row of the database."""
        self.venue = venue
        self.gate = gate
        self.book = Book()
        self.orders = OrderTable()
        self.recent_fills: deque[Fill] = deque(maxlen=RECENT_FILLS)
        self.metrics = Metrics()
        self.orders_made = 0
        self.fills_applied = 0
        self.sells_applied = 0  # of them
        self.checks_passed = 0  # orders and changes that the risk checks let pass
        self.checks_refused: dict[str, int] = {}  # by check
        self.order_seconds = Tally()  # until the venue answered
        self.has_missed = False  # the venue could not be heard, and was not asked yet what it would have told
        self.known_until: float | None = None  # the newest fill's time at the venue; stands still while something is missed
        self.events_refused = 0  # what the venue told and cannot be recorded
        self.switched_seq = 0  # of the newest record of the kill switch that this run made
        self._commits_intent = commits_intent
        self._unsent_seq = 0  # of the newest order that was not sent because its ack did not come
        self._persistence = persistence
        self._clock = clock
        self._simulated = venue if isinstance(venue, SimulatedVenue) else None
        # A playback's fills are of orders that this strategy never sent, and its own all the same.
        self._vouches = bool(getattr(venue, "vouches", False))
        # Around every call of the venue. One in this process answers at once, and is called thousands of times a second.
        is_here = self._simulated is not None or hasattr(venue, "exhausted")
        at_once = nullcontext()
        self.calling: Callable[[], AbstractContextManager[None]] = (lambda: at_once) if is_here else pulse.calling
        self._violations = Violations()
        self._strangers: OrderedDict[str, tuple[Fill, int]] = OrderedDict()  # fills of orders not in memory, with their seq
        self._conflicts: set[Fill] = set()
        self._inbox: deque[VenueEvent] = deque()  # what the venue told and was not yet taken
        self._counters: dict[tuple[str, ...], Counter] = {}

    # Orders

    def submit(self, request: OrderRequest) -> Order:
        """Raises: RiskError, JournalFull, VenueError when the venue rejects the order; AckTimeout, DeadLettered when it was not sent."""
        self._refuse_without_room()
        self._check(request)
        tracked = self._make_order(request)
        order = tracked.order
        if self._commits_intent:
            self._commit(tracked)
        self._count("horizon_orders_submitted_total", order.order_side.value)
        try:
            asked_at = self._clock.monotonic()
            with self.calling():
                update = self.venue.submit(order)
            self.order_seconds.observe(self._clock.monotonic() - asked_at)
        except Exception as error:
            self._change(tracked, OrderStatus.Submitted, f"fate unknown: {_text(error)}")
            log.warning("the fate of order %s is unknown: %s", order.id, _text(error), extra={"action": "order_unknown"})
            if not isinstance(error, VenueError):
                raise  # a bug of the adapter: recorded like any lost answer, and not hidden
            return order
        self._take_update(tracked, update)
        if order.status is OrderStatus.Rejected:
            self._count("horizon_order_rejects_total", "venue")
            raise VenueError(f"{self.venue.name} rejected order {order.id}: {order.status_reason or 'without a reason'}")
        if self._simulated is not None:
            self.take_events()
        return order

    def amend(self, tracked: Tracked, new_price: float | None, new_size: float | None) -> None:
        """Raises: RiskError, JournalFull, RecordRejected, VenueError."""
        order = tracked.order
        price = order.price if new_price is None else new_price
        size = order.size if new_size is None else new_size
        if size <= order.filled_size:
            raise RecordRejected(f"order {order.id}: a size of {size!r} cannot be: {order.filled_size!r} are filled already")
        self._refuse_without_room()
        request = OrderRequest(
            order.market_id, order.side, order.order_side, size, price, order.order_type, order.time_in_force, order.post_only
        )
        self._check(request, is_change=True)
        self._change(tracked, reason=f"amend to price {price!r}, size {size!r} is asked for")
        try:
            with self.calling():
                update = self.venue.amend(order.id, price, size)
        except VenueError as error:
            self._change(tracked, reason=f"fate of the amend to price {price!r}, size {size!r} unknown: {error}")
            raise
        if update.price is None and update.size is None:
            self._take_update(tracked, update)
            raise VenueError(f"{self.venue.name} did not amend order {order.id}: {update.reason or update.status}")
        self._change(tracked, price=update.price, size=update.size, reason="amended")
        order.amendment_count += 1

    def cancel(self, tracked: Tracked) -> bool:
        """Whether the venue confirmed it."""
        order = tracked.order
        try:
            with self.calling():
                update = self.venue.cancel(order.id)
        except VenueError as error:
            reason = f"fate of the cancel unknown: {error}"
            if reason != order.status_reason:  # a venue that is away is asked in every cycle
                self._change(tracked, reason=reason)
                log.warning("the cancel of order %s was not answered: %s", order.id, error, extra={"action": "cancel_unknown"})
            return False
        if update.status is OrderStatus.Filled:
            with suppress(VenueError):
                self.take_events()  # it was filled before the cancel arrived; fills alone say so (venue contract)
            return False
        self._take_update(tracked, update)
        return order.status is OrderStatus.Canceled

    def cancel_open(self) -> None:
        """Cancel every open order; a bug of the adapter in one of them must not leave the others in the market."""
        for tracked in self.orders.open():
            try:
                self.cancel(tracked)
            except Exception:
                log.exception("order %s could not be canceled", tracked.order.id, extra={"action": "cancel_failed"})

    def cancel_unrecorded(self) -> None:
        """On the way out of a run that can record nothing more: ask the venue to cancel, whatever it says."""
        for tracked in self.orders.open():
            with suppress(Exception), self.calling():
                self.venue.cancel(tracked.order.id)

    def evict(self, max_age_s: float) -> int:
        """Forget what is finished and acknowledged (R1)."""
        return self.orders.evict(self._clock.monotonic() - max_age_s, self._persistence.committed_seq)

    # Fills

    def tick(self, market_id: str, mid: float) -> int:
        """Move a simulated venue to a price; returns the number of fills, 0 at any other venue."""
        if self._simulated is None:
            return 0
        self._simulated.tick(market_id, mid)
        return self.take_events()

    def take_events(self) -> int:
        """Take what happened at the venue since the last call; returns the number of fills applied. Raises: VenueError.

        After a disconnect it waits until the venue was asked what it did not get to tell (`Lifecycle.poll`): a newer fill that is
        committed first would be the place from which a run that comes after a kill -9 asks.
        """
        try:
            with self.calling():
                heard = self.venue.poll()
        except Exception:
            self.has_missed = True
            raise
        # What one of them raises must not lose the others: they wait for the next call.
        self._inbox.extend(heard)
        applied = 0
        while self._inbox and not self.has_missed:
            applied += self._take(self._inbox[0])
            self._inbox.popleft()
        return applied

    def take_fills(self, fills: Iterable[Fill], vouched: bool = False) -> int:
        """Take fills, also of the past; returns how many were new. `vouched`: the caller knows them to be of this strategy (R4)."""
        return sum(self.take_fill(fill, vouched=True) if vouched else self._take(fill) for fill in fills)

    def take_fill(self, fill: Fill, vouched: bool = False) -> bool:
        """Compare a fill by id, then record it, then apply it. Returns whether it was applied. Raises: RecordRejected."""
        tracked = self.orders.get(fill.order_id)
        if self._is_known(fill, tracked, vouched or self._vouches):
            return False
        if tracked is None and not (vouched or self._vouches or self._persistence.owns(fill.order_id)):
            self._count("horizon_fills_unattributed_total")
            log.debug("fill %s is of order %s, which is not ours", fill.fill_id, fill.order_id, extra={"action": "unattributed"})
            return False
        is_recorded = False
        try:
            seq = self._persistence.record(fill)
            is_recorded = True
            self._apply(fill, tracked, seq)
        except Halt:
            raise
        except BaseException as error:
            if not is_recorded and isinstance(error, Exception):
                raise  # refused, so nothing lies in the journal
            # The journal has the fill, memory perhaps not: it is never stored (R3). Ctrl-C may strike anywhere, also here.
            halt = self._persistence.halted(f"fill {fill.fill_id} was recorded and could not be applied: {_text(error)}")
            if not isinstance(error, Exception):
                raise
            raise halt from error
        return True

    def _take(self, event: VenueEvent) -> bool:
        """Returns whether a fill was applied. What cannot be recorded is left out: else it would stand before all others for ever."""
        try:
            if isinstance(event, Fill):
                return self.take_fill(event)
            if (tracked := self.orders.get(event.order_id)) is not None:
                self._take_update(tracked, event)
        except RecordRejected as error:
            self.events_refused += 1
            what = f"fill {event.fill_id} of order" if isinstance(event, Fill) else "an update of order"
            log.error("%s %s is left out: %s", what, event.order_id, error, extra={"action": "event_refused"})
        return False

    def _apply(self, fill: Fill, tracked: Tracked | None, seq: int) -> None:
        if ACTIVE:
            reach("worker.recorded")
        self.book.apply(fill)
        self.recent_fills.append(fill)
        if not self.has_missed:
            self.known_until = fill.timestamp
        self.fills_applied += 1
        if fill.order_side is _SELL:
            self.sells_applied += 1
        if tracked is None:
            self._remember_stranger(fill, seq)
        else:
            self.orders.add_fill(tracked, fill)
            self._record_change(tracked, event_of_fill(tracked, fill, self._clock.now()))

    # Risk

    def trip(self, reason: str) -> None:
        """Turn the kill switch on and cancel everything. The first reason stays."""
        if self.gate.kill_switch_active:
            return
        self.gate.kill_switch_reason = reason  # before it is recorded, for once: forbidding is never wrong
        self.switched_seq = self._persistence.record(RiskEvent(RiskEventType.KillSwitchActivated, reason, self._clock.now()))
        self._stop_trading(reason)

    def untrip(self) -> None:
        reason = self.gate.kill_switch_reason
        if reason is None:
            return
        self.switched_seq = self._persistence.record(RiskEvent(RiskEventType.KillSwitchDeactivated, reason, self._clock.now()))
        self.gate.kill_switch_reason = None
        log.warning("the kill switch is off again; it was on because: %s", reason, extra={"action": "kill_switch_off"})

    def obey_kill_switch(self, reason: str | None) -> None:
        """Turn the kill switch as a person did, who has recorded it: on for a reason, or off."""
        before, self.gate.kill_switch_reason = self.gate.kill_switch_reason, reason
        if before is None and reason is not None:
            self._stop_trading(reason)
        elif before is not None and reason is None:
            # Else the drawdown that the person has seen would turn it on again at once.
            self.gate.reset_high_water_mark()
            log.warning("a person turned the kill switch off; it was on because: %s", before, extra={"action": "kill_switch_off"})

    def observe_pnl(self, total_pnl: float | None = None) -> None:
        breach = self.gate.observe(sum(self.book.pnl()) if total_pnl is None else total_pnl)
        if breach is not None:
            self.trip(f"drawdown: {breach}")

    def record_unrecorded_violations(self) -> None:
        """At the end of a run: those that were counted only."""
        for check, market_id, count in self._violations.unrecorded():
            self._persistence.record(
                RiskEvent(RiskEventType.Violation, f"{check}: {count} more in {market_id}", self._clock.now())
            )

    def _stop_trading(self, reason: str) -> None:
        log.critical("the kill switch is on: %s", reason, extra={"action": "kill_switch_on"})
        self.cancel_open()

    def _refuse_without_room(self) -> None:
        if self._unsent_seq > self._persistence.committed_seq:
            self._count("horizon_order_rejects_total", "journal")
            raise AckTimeout(
                f"new orders are refused: the writer has not acknowledged record {self._unsent_seq}, and orders are sent only when "
                "they are committed. They go on by themselves when it has caught up"
            )
        if not self._persistence.room_for_orders():
            self._count("horizon_order_rejects_total", "journal")
            raise JournalFull(
                f"new orders are refused: {self._persistence.unacked} records wait for the writer and the journal "
                f"{self._persistence.journal_path} keeps its rest for fills. Orders go on by themselves when the writer has caught up"
            )

    def _check(self, request: OrderRequest, is_change: bool = False) -> None:
        """The risk checks, and what becomes of a refusal. Raises: RiskError."""
        book, name = self.book, self.venue.name
        exposure = Exposure(
            position=book.size(request.market_id, request.side, name),
            notional=book.notional(),
            multiplier=book.multiplier(request.market_id, request.side, name),
            total_pnl=sum(book.pnl()),
        )
        try:
            self.gate.check(request, exposure, is_change=is_change)
        except RiskError as error:
            self._count("horizon_order_rejects_total", error.check)
            self.checks_refused[error.check] = self.checks_refused.get(error.check, 0) + 1
            unrecorded = self._violations.note(error.check, request.market_id, self._clock.monotonic())
            if unrecorded is not None:
                self._persistence.record(
                    RiskEvent(RiskEventType.Violation, _describe(error, request, unrecorded), self._clock.now())
                )
            if error.check == "drawdown":
                self.trip(f"drawdown: {error}")
            raise
        self.checks_passed += 1

    def _make_order(self, request: OrderRequest) -> Tracked:
        """Give an order its id and record it as new: before the venue hears of it (P1)."""
        self.orders_made += 1
        order = Order(
            id=order_id(self._persistence.run_id, self.orders_made),
            market_id=request.market_id,
            side=request.side,
            order_side=request.order_side,
            price=request.price,
            size=request.size,
            remaining_size=request.size,
            order_type=request.order_type,
            time_in_force=request.time_in_force,
            created_at=self._clock.now(),
            exchange=self.venue.name,
            token_id=request.token_id,
            post_only=request.post_only,
        )
        seq = self._persistence.record(next_event(order, order.created_at))
        tracked = Tracked(order, request, seq)
        self.orders.add(tracked)
        return tracked

    def _commit(self, tracked: Tracked) -> None:
        """Wait until the order is a row; without that it is recorded as rejected. Raises: AckTimeout, DeadLettered."""
        try:
            self._persistence.commit(tracked.last_seq, INTENT_TIMEOUT_S)
        except (AckTimeout, DeadLettered) as error:
            self._unsent_seq = tracked.last_seq  # the next one does not wait as long again
            self._change(tracked, OrderStatus.Rejected, f"not sent: {error}")
            self._count("horizon_order_rejects_total", "journal")
            raise type(error)(f"order {tracked.order.id} was not sent: {error}") from error

    def _take_update(self, tracked: Tracked, update: OrderUpdate) -> None:
        """What a venue says of an order; that it is filled, its fills say themselves. A terminal status is final (R8)."""
        counted_by_fills = (OrderStatus.Filled, OrderStatus.PartiallyFilled)
        if tracked.order.is_open() and update.status not in (tracked.order.status, *counted_by_fills):
            self._change(tracked, update.status, update.reason, update.price, update.size)

    def _change(
        self,
        tracked: Tracked,
        status: OrderStatus | None = None,
        reason: str | None = None,
        price: float | None = None,
        size: float | None = None,
    ) -> None:
        self._record_change(tracked, next_event(tracked.order, self._clock.now(), status, reason, price, size))

    def _record_change(self, tracked: Tracked, event: OrderEvent) -> None:
        seq = self._persistence.record(event)
        self.orders.apply(tracked, event, seq, self._clock.monotonic())
        if event.status in _UNFILLED_ENDS:
            self.gate.forget(tracked.request)

    def _is_known(self, fill: Fill, tracked: Tracked | None, vouched: bool) -> bool:
        """Whether this id is known already (R1); with other content it is recorded as a conflict (R4)."""
        known = self.orders.known_fill(fill.fill_id)
        same_strategy = True
        if known is None and fill.fill_id in self._strangers:
            known = self._strangers[fill.fill_id][0]
        if known is None and tracked is None:
            stored = self._persistence.fill_by_id(fill.fill_id)
            if stored is not None:
                known, same_strategy = stored[1], stored[0] == self._persistence.strategy
                if not (same_strategy or vouched or self._persistence.owns(fill.order_id)):
                    return (
                        False  # of another strategy on the same account: known to that one, and no conflict with anything of ours
                    )
        if known is None:
            return False
        if known == fill and same_strategy:
            self._count("horizon_fills_known_total")
        elif fill not in self._conflicts:
            self._conflicts.add(fill)  # a venue tells it again after every reconnect
            self._persistence.record(FillConflict(fill))
            self._count("horizon_fills_conflicting_total")
            amended = same_strategy and same_content(known, fill)
            log.error(
                "fill %s came again %s; it is kept as a dead letter and not applied",
                fill.fill_id,
                "with another fee, time, token or maker flag" if amended else "as another execution",
                extra={"action": "fill_amended" if amended else "fill_conflict"},
            )
        return True

    def _remember_stranger(self, fill: Fill, seq: int) -> None:
        """Until it is acknowledged, from when on the database knows it; without a database as long as there is room."""
        self._strangers[fill.fill_id] = (fill, seq)
        committed = self._persistence.committed_seq if self._persistence.is_on else -1
        while self._strangers:
            oldest = next(iter(self._strangers))
            if self._strangers[oldest][1] > committed and len(self._strangers) <= STRANGERS_REMEMBERED:
                return
            del self._strangers[oldest]

    def _count(self, name: str, *labels: str) -> None:
        counter = self._counters.get((name, *labels))
        if counter is None:
            # Finding a counter by its labels costs more than the rest of a fill's count.
            counter = self._counters[name, *labels] = self.metrics.counter(name).labels(self.venue.name, *labels)
        counter.inc()


def _text(error: BaseException) -> str:
    return str(error) if isinstance(error, VenueError) else f"{type(error).__name__}: {error}"


def _describe(error: RiskError, request: OrderRequest, unrecorded: int) -> str:
    """Worked example: `price: price 1.2 is outside 0.01..0.99 (m, YES BUY 5.0 at 1.2); 37 more of the kind before`."""
    order = f"{request.market_id}, {request.side} {request.order_side} {request.size!r} at {request.price!r}"
    before = f"; {unrecorded} more of the kind before" if unrecorded else ""
    return f"{error.check}: {error} ({order}){before}"
