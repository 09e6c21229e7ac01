"""The records that the benchmarks record: one fill to three order events, as a quoting strategy makes them."""

from __future__ import annotations

import time

from horizon.ids import fill_id, order_id
from horizon.records import Fill, OrderEvent, OrderSide, OrderStatus, OrderType, Side, TimeInForce

_STATUSES = (OrderStatus.New, OrderStatus.Accepted, OrderStatus.Filled)


def fills(order: str, count: int) -> list[Fill]:
    """Partial fills of one order."""
    return [_fill(order, number) for number in range(1, count + 1)]


def mixed(run_id: str, count: int) -> list[Fill | OrderEvent]:
    """Orders in turn, each of them new, accepted, executed and filled."""
    records: list[Fill | OrderEvent] = []
    for number in range(1, count // 4 + 2):
        new, accepted, filled = (_order_event(run_id, number, status) for status in _STATUSES)
        records += [new, accepted, _fill(order_id(run_id, number), number), filled]
    return records[:count]


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
