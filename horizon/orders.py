"""The orders of one run in memory: which are open, what their next event says, and which fills they have had.

An order is kept until it is terminal and everything recorded about it is acknowledged (R1); until then its fills are known here, by
id. Pure: what is recorded, and when, is the engine's business. A terminal status is final (R8): a fill that comes after it
changes what is filled, never the status.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from horizon.positions import add_exactly, exact_sum, rest_of
from horizon.records import Fill, Order, OrderEvent, OrderRequest, OrderStatus

# Looking a member up in its enum costs 0.1 us each time.
_PARTIALLY_FILLED = OrderStatus.PartiallyFilled
_FILLED = OrderStatus.Filled


@dataclass(slots=True, eq=False)
class Tracked:
    """An order and what the engine remembers beside it."""

    order: Order
    request: OrderRequest
    last_seq: int = 0  # of the newest record about it
    ended_at: float | None = None  # monotonic seconds, once it is terminal
    fill_ids: list[str] = field(default_factory=list)
    filled: Decimal = Decimal(0)  # by these, exactly


class OrderTable:
    def __init__(self) -> None:
        self._orders: dict[str, Tracked] = {}
        self._open: dict[str, dict[str, Tracked]] = {}  # by market, in the order of submission
        self._ended: dict[str, Tracked] = {}  # in the order of ending
        self._fills: dict[str, Fill] = {}

    def add(self, tracked: Tracked) -> None:
        order = tracked.order
        self._orders[order.id] = self._open.setdefault(order.market_id, {})[order.id] = tracked

    def get(self, order_id: str) -> Tracked | None:
        return self._orders.get(order_id)

    def open(self, market_id: str | None = None) -> list[Tracked]:
        """The open orders of a market or of all, oldest first within a market."""
        if market_id is not None:
            return list(self._open.get(market_id, {}).values())
        return [tracked for market in self._open.values() for tracked in market.values()]

    def open_count(self) -> int:
        return sum(len(market) for market in self._open.values())

    def known_fill(self, fill_id: str) -> Fill | None:
        """A fill of an order in memory."""
        return self._fills.get(fill_id)

    def add_fill(self, tracked: Tracked, fill: Fill) -> None:
        """Know a fill of an order from now on, and count it as filled."""
        self._fills[fill.fill_id] = fill
        tracked.fill_ids.append(fill.fill_id)
        tracked.filled = add_exactly(tracked.filled, fill.size)

    def apply(self, tracked: Tracked, event: OrderEvent, seq: int, now: float) -> None:
        """Let an order become what its event, which has been recorded as `seq`, says."""
        order = tracked.order
        order.status, order.status_reason = event.status, event.status_reason
        order.price, order.size = event.price, event.size
        order.filled_size, order.remaining_size = event.filled_size, event.remaining_size
        tracked.last_seq = seq
        if not order.is_open() and tracked.ended_at is None:
            tracked.ended_at = now
            del self._open[order.market_id][order.id]
            self._ended[order.id] = tracked

    def evict(self, ended_before: float, committed_seq: int) -> int:
        """Forget orders that ended before a monotonic time and whose records are all acknowledged. Returns how many."""
        stale = list(self._stale(ended_before, committed_seq))
        for tracked in stale:
            del self._orders[tracked.order.id], self._ended[tracked.order.id]
            for fill_id in tracked.fill_ids:
                del self._fills[fill_id]
        return len(stale)

    def _stale(self, ended_before: float, committed_seq: int) -> Iterator[Tracked]:
        for tracked in self._ended.values():
            if tracked.ended_at is None or tracked.ended_at > ended_before:
                return
            if tracked.last_seq <= committed_seq:
                yield tracked


def next_event(
    order: Order,
    now: float,
    status: OrderStatus | None = None,
    reason: str | None = None,
    price: float | None = None,
    size: float | None = None,
) -> OrderEvent:
    """The event that says what an order becomes now; what is None stays. `now` is wall time."""
    remaining = order.remaining_size if size is None else max(0.0, exact_sum(size, -order.filled_size))
    return _event(order, now, status or order.status, reason, price, size, order.filled_size, remaining)


def event_of_fill(tracked: Tracked, fill: Fill, now: float) -> OrderEvent:
    """What an order becomes by a fill that was added to it: partially filled or filled; one that has ended keeps its status."""
    order, filled = tracked.order, float(tracked.filled)
    remaining = max(0.0, rest_of(order.size, tracked.filled))
    if not order.is_open():
        reason = f"filled {fill.size!r} more after it had ended"
        return _event(order, now, order.status, reason, None, None, filled, remaining)
    return _event(order, now, _PARTIALLY_FILLED if remaining else _FILLED, None, None, None, filled, remaining)


def same_content(left: Fill, right: Fill) -> bool:
    """Whether two reports of one fill id tell of the same execution (R4). The strategy is compared by whoever knows it."""
    return (
        left.order_id == right.order_id
        and left.market_id == right.market_id
        and left.side is right.side
        and left.order_side is right.order_side
        and left.price == right.price
        and left.size == right.size
        and left.exchange == right.exchange
    )


def _event(
    order: Order,
    now: float,
    status: OrderStatus,
    reason: str | None,
    price: float | None,
    size: float | None,
    filled_size: float,
    remaining_size: float,
) -> OrderEvent:
    # By place: fifteen names cost a third of it, once for every fill.
    return OrderEvent(
        order.id,
        order.market_id,
        order.side,
        order.order_side,
        order.price if price is None else price,
        order.size if size is None else size,
        filled_size,
        remaining_size,
        order.order_type,
        order.time_in_force,
        status,
        reason,
        order.exchange,
        order.created_at,
        now,
    )
