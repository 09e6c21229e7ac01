"""An exchange in memory, to try an adapter against without a network."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

from horizon.clock import Clock
from horizon.testing.clock import FakeClock


class ToyExchange:
    """What real exchanges are like, in small: numbers are texts, times are milliseconds, executions are numbered per symbol, an
    order knows only how much of it is filled so far, and the line can be cut. Replies are dicts, as decoded JSON is.

    The first methods are requests, which raise ConnectionError without a line; the last ones are for tests.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or FakeClock()
        self._orders: dict[str, dict[str, str]] = {}
        self._executions: list[dict[str, str]] = []
        self._numbers: Counter[str] = Counter()
        self._quotes: dict[str, dict[str, str]] = {}
        self._is_cut = False

    def place(self, client_id: str, symbol: str, direction: str, price: str, size: str) -> dict[str, str]:
        self._need_line()
        order = {"client_id": client_id, "symbol": symbol, "direction": direction, "price": price, "size": size}
        return self._orders.setdefault(client_id, order | {"filled": "0", "state": "open"}).copy()

    def cancel(self, client_id: str) -> dict[str, str]:
        self._need_line()
        order = self._orders[client_id]
        if order["state"] == "open":
            order["state"] = "canceled"
        return order.copy()

    def replace(self, client_id: str, price: str, size: str) -> dict[str, str]:
        self._need_line()
        order = self._orders[client_id]
        if order["state"] == "open" and Decimal(size) > Decimal(order["filled"]):
            order |= {"price": price, "size": size}
        return order.copy()

    def order(self, client_id: str) -> dict[str, str] | None:
        self._need_line()
        order = self._orders.get(client_id)
        return order and order.copy()

    def executions(self, skip: int = 0) -> list[dict[str, str]]:
        """The account's executions, oldest first, without the first `skip`."""
        self._need_line()
        return self._executions[skip:]

    def quote(self, symbol: str) -> dict[str, str]:
        self._need_line()
        return self._quotes.get(symbol, {})

    def execute(self, client_id: str, size: float) -> None:
        """Let an order find somebody on the other side. Raises: ValueError when it is not open or smaller than that."""
        order = self._orders[client_id]
        filled = Decimal(order["filled"]) + Decimal(str(size))
        if order["state"] != "open" or filled > Decimal(order["size"]):
            raise ValueError(f"{size} of order {client_id} cannot be executed: {order}")
        order["filled"] = str(filled)
        if filled == Decimal(order["size"]):
            order["state"] = "filled"
        self._numbers[order["symbol"]] += 1
        copied = {key: order[key] for key in ("client_id", "symbol", "direction", "price")}
        number = str(self._numbers[order["symbol"]])
        self._executions.append(copied | {"trade_id": number, "size": str(size), "fee": "0.01", "time_ms": self._now_ms()})

    def move(self, symbol: str, bid: float, ask: float) -> None:
        """Let the market move."""
        self._quotes[symbol] = {"bid": str(bid), "ask": str(ask), "time_ms": self._now_ms()}

    def cut(self) -> None:
        self._is_cut = True

    def restore(self) -> None:
        self._is_cut = False

    def _need_line(self) -> None:
        if self._is_cut:
            raise ConnectionError("no route to the exchange")

    def _now_ms(self) -> str:
        return str(round(self._clock.now() * 1000))
