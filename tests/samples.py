"""Records with plain values, for tests that are not about the values."""

from __future__ import annotations

from horizon.records import Fill, OrderEvent, OrderSide, OrderStatus, OrderType, Side, TimeInForce


def fill(number: int = 1, **changes: object) -> Fill:
    values: dict[str, object] = {
        "fill_id": f"fill-{number:08d}",
        "order_id": f"order-{number:08d}",
        "market_id": "btc-usd",
        "side": Side.Long,
        "order_side": OrderSide.Buy if number % 2 else OrderSide.Sell,
        "price": 100.5,
        "size": 0.1,
        "fee": 0.01,
        "timestamp": 1_700_000_000.0 + number,
        "exchange": "paper",
    }
    return Fill(**(values | changes))  # type: ignore[arg-type]


def order_event(number: int = 1, status: OrderStatus = OrderStatus.New, **changes: object) -> OrderEvent:
    values: dict[str, object] = {
        "order_id": f"order-{number:08d}",
        "market_id": "btc-usd",
        "side": Side.Long,
        "order_side": OrderSide.Buy,
        "price": 100.5,
        "size": 1.0,
        "filled_size": 0.0,
        "remaining_size": 1.0,
        "order_type": OrderType.Limit,
        "time_in_force": TimeInForce.GTC,
        "status": status,
        "status_reason": None,
        "exchange": "paper",
        "created_at": 1_700_000_000.0,
        "recorded_at": 1_700_000_000.5,
    }
    return OrderEvent(**(values | changes))  # type: ignore[arg-type]
