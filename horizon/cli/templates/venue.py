"""A venue of your own, to start from. `ToyExchange` stands for your exchange's client library: put that in its place.

Use it: hz.run(..., exchange=MyVenue(client)), or by dotted path in horizon.toml. Check it before it sees money, in a test of yours:

    exchange = ToyExchange()
    check_venue(
        lambda: MyVenue(exchange),
        market_id="BTC-USD",
        fill=lambda venue, order, size: exchange.execute(order.id, size),
        disconnect=lambda venue: exchange.cut(),
        reconnect=lambda venue: exchange.restore(),
    )
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

from horizon.errors import VenueError
from horizon.records import Fill, Order, OrderSide, OrderStatus, Side
from horizon.testing import ToyExchange
from horizon.venues.base import OrderUpdate, VenueEvent

P = ParamSpec("P")
T = TypeVar("T")

STATUS = {"open": OrderStatus.Accepted, "canceled": OrderStatus.Canceled, "filled": OrderStatus.Filled}


class MyVenue:
    """Keeps the protocol `horizon.venues.base.Venue`, which needs no base class."""

    name = "mine"  # stored in the exchange column
    vouches = False  # True only if this account belongs to this strategy alone

    def __init__(self, client: ToyExchange | None = None, account: str = "main") -> None:
        self._client = client or ToyExchange()
        self._account = account
        self._seen = 0  # executions that poll has passed on

    def connect(self) -> None:
        self._ask(self._client.executions)  # fails here rather than in the first cycle

    def close(self) -> None:
        pass

    def submit(self, order: Order) -> OrderUpdate:
        # Our id is the client order id: after a lost answer the exchange can still be asked what became of the order.
        direction = order.order_side.value
        return _update(self._ask(self._client.place, order.id, order.market_id, direction, str(order.price), str(order.size)))

    def cancel(self, order_id: str) -> OrderUpdate:
        return _update(self._ask(self._client.cancel, order_id))  # of a filled order it says Filled: that is how it ended

    def amend(self, order_id: str, price: float, size: float) -> OrderUpdate:
        reply = self._ask(self._client.replace, order_id, str(price), str(size))
        if (reply["price"], reply["size"]) != (str(price), str(size)):
            return OrderUpdate(order_id, STATUS[reply["state"]], "the exchange did not change it")
        return OrderUpdate(order_id, STATUS[reply["state"]], price=price, size=size)

    def poll(self) -> Sequence[VenueEvent]:
        executions = self._ask(self._client.executions, self._seen)
        self._seen += len(executions)
        return [self._fill(execution) for execution in executions]

    def fills_since(self, timestamp: float) -> Sequence[Fill]:
        fills = [self._fill(execution) for execution in self._ask(self._client.executions)]
        return [fill for fill in fills if fill.timestamp >= timestamp]

    def order_by_client_id(self, order_id: str) -> OrderUpdate | None:
        reply = self._ask(self._client.order, order_id)
        return _update(reply) if reply else None

    def _fill(self, execution: dict[str, str]) -> Fill:
        # This exchange numbers executions per symbol: the id is only unique together with venue, account and symbol.
        symbol = execution["symbol"]
        return Fill(
            fill_id=f"{self.name}-{self._account}-{symbol}-{execution['trade_id']}",
            order_id=execution["client_id"],
            market_id=symbol,
            side=Side.Long,
            order_side=OrderSide(execution["direction"]),
            price=float(execution["price"]),  # from the exchange's text, never from arithmetic
            size=float(execution["size"]),
            fee=float(execution["fee"]),
            timestamp=int(execution["time_ms"]) / 1000,
            exchange=self.name,
        )

    def _ask(self, request: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return request(*args, **kwargs)
        except OSError as error:  # the answer is unknown: never guess what it would have been
            raise VenueError(f"{self.name}: {request.__name__} got no answer: {error}") from error


def _update(reply: dict[str, str]) -> OrderUpdate:
    return OrderUpdate(reply["client_id"], STATUS[reply["state"]])
