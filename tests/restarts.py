"""Engines that start behind an earlier run, without a database: what it left and what people decided is put in by the test."""

from __future__ import annotations

from typing import Any

from engines import LOOSE, Watched
from scripted_venue import ScriptedVenue

from horizon.records import OrderEvent, OrderRequest, OrderSide, OrderStatus, OrderType, Side, TimeInForce
from horizon.risk import RiskConfig
from horizon.store.recovery import OpenOrder, Recovered
from horizon.wire import Control

REQUEST = OrderRequest("m", Side.Yes, OrderSide.Buy, 5.0, 0.5)


class Restarted(Watched):
    """A run that has just begun. `control` is what the writer said last; a test says more with `decide`."""

    def __init__(
        self, *left: OpenOrder, later: OpenOrder | None = None, control: Control | None = None, venue: object = None,
        orphans: str = "warn", risk: RiskConfig = LOOSE, **found: Any,
    ) -> None:  # fmt: skip
        """`later`: what the database knows of an orphan once the fills that were missed are in it."""
        super().__init__(risk, venue, orphans=orphans)
        self.control = control or Control()
        recovered = Recovered((), [], 0, list(left), None, **found)
        again = recovered._replace(open_orders=[one if later is None else later for one in left])
        persistence = self.engine._persistence
        persistence.recover = lambda: recovered  # type: ignore[method-assign]
        persistence.recover_again = lambda: again  # type: ignore[method-assign]
        persistence.control = lambda: self.control  # type: ignore[method-assign]
        self.engine.start_run()

    def decide(self, **changes: Any) -> None:
        """A person decides, and the next cycle begins."""
        self.control = Control(**changes)
        self.engine.begin_cycle()

    def asked_to_cancel(self) -> list[object]:
        assert isinstance(self.venue, ScriptedVenue)
        return [order_id for (order_id,) in self.venue.asked_for("cancel")]


def left_open(order_id: str, filled_size: float = 0.0, exchange: str = "scripted", recorded_at: float = 1000.0) -> OpenOrder:
    """An order that run `earlier` left open."""
    event = OrderEvent(
        order_id, "m", Side.Yes, OrderSide.Buy, 0.5, 5.0, 0.0, 5.0, OrderType.Limit, TimeInForce.GTC, OrderStatus.Accepted, None,
        exchange, 1000.0, recorded_at,
    )  # fmt: skip
    return OpenOrder("earlier", event, filled_size)
