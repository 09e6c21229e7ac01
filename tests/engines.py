"""Engines for tests without a database, and a look at what they would record."""

from __future__ import annotations

from manual_clock import ManualClock
from scripted_venue import ScriptedVenue

from horizon.engine import Engine
from horizon.records import Fill, Order, OrderEvent, OrderSide, Record, RiskEvent, Side
from horizon.risk import RiskConfig

LOOSE = RiskConfig(
    max_position_per_market=1e9, max_portfolio_notional=1e12, max_order_size=1e9, rate_limit_sustained=1e9, rate_limit_burst=1_000_000,
    dedup_window_ms=0.0, price_min=-1e9, price_max=1e9,
)  # fmt: skip


class Watched:
    """An engine, its venue and clock, and every record in the order it was made."""

    def __init__(
        self, risk: RiskConfig = LOOSE, venue: object = None, clock: ManualClock | None = None, orphans: str = "warn"
    ) -> None:
        self.clock = clock or ManualClock()
        self.venue = venue if venue is not None else ScriptedVenue()
        self.engine = Engine(risk, venue=self.venue, clock=self.clock, strategy="s", orphans=orphans)  # type: ignore[arg-type]
        self.records: list[Record] = []
        self.engine._persistence.record = self._record  # type: ignore[method-assign]

    def _record(self, record: Record) -> int:
        self.records.append(record)
        return len(self.records)

    def statuses(self) -> list[str]:
        return [record.status.value for record in self.records if isinstance(record, OrderEvent)]

    def risk_events(self) -> list[tuple[str, str | None]]:
        return [(record.event_type.value, record.details) for record in self.records if isinstance(record, RiskEvent)]

    def kinds(self) -> list[str]:
        return [type(record).__name__ for record in self.records]

    def order(self, order_id: str) -> Order:
        tracked = self.engine._desk.orders.get(order_id)
        assert tracked is not None
        return tracked.order

    def count(self, name: str, **labels: str) -> float:
        value = self.engine.metrics.registry.get_sample_value(name, {"venue": self.engine.exchange_name(), **labels})
        return value or 0.0


def fill_of(order_id: str, number: int = 1, size: float = 1.0, price: float = 0.5, **changes: object) -> Fill:
    values: dict[str, object] = {
        "fill_id": f"{order_id}-{number:04d}",
        "order_id": order_id,
        "market_id": "m",
        "side": Side.Yes,
        "order_side": OrderSide.Buy,
        "price": price,
        "size": size,
        "timestamp": 1_700_000_000.0,
        "exchange": "scripted",
    }
    return Fill(**(values | changes))  # type: ignore[arg-type]
