"""The records that the benchmarks record: one fill to three order events, as a quoting strategy makes them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count

from horizon.ids import fill_id, order_id
from horizon.records import Fill, OrderEvent, OrderSide, OrderStatus, OrderType, Side, TimeInForce

_STATUSES = (OrderStatus.New, OrderStatus.Accepted, OrderStatus.Filled)


def fills(order: str, how_many: int) -> list[Fill]:
    """Partial fills of one order."""
    return [_fill(order, number) for number in range(1, how_many + 1)]


def mixed(run_id: str, how_many: int) -> list[Fill | OrderEvent]:
    """Orders in turn, each of them new, accepted, executed and filled."""
    records: list[Fill | OrderEvent] = []
    for number in range(1, how_many // 4 + 2):
        new, accepted, filled = (_order_event(run_id, number, status) for status in _STATUSES)
        records += [new, accepted, _fill(order_id(run_id, number), number), filled]
    return records[:how_many]


def endless(run_id: str) -> Iterator[Fill | OrderEvent]:
    """As `mixed`, made one by one and never ending, for a load that nobody can count before."""
    for number in count(1):
        new, accepted, filled = (_order_event(run_id, number, status) for status in _STATUSES)
        yield from (new, accepted, _fill(order_id(run_id, number), number), filled)


def _fill(order: str, number: int) -> Fill:
    return Fill(fill_id(order, number), order, "market", Side.Long, OrderSide.Buy, 100.25, 1.5, 0.15, time.time(), None, "paper")


def _order_event(run_id: str, number: int, status: OrderStatus) -> OrderEvent:
    now = time.time()
    filled = 1.5 if status is OrderStatus.Filled else 0.0
    return OrderEvent(
        order_id=order_id(run_id, number),
        market_id="market",
        side=Side.Long,
        order_side=OrderSide.Buy,
        price=100.25,
        size=1.5,
        filled_size=filled,
        remaining_size=1.5 - filled,
        order_type=OrderType.Limit,
        time_in_force=TimeInForce.GTC,
        status=status,
        status_reason=None,
        exchange="paper",
        created_at=now,
        recorded_at=now,
    )
