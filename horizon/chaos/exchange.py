"""An exchange of the worst manners, and the account that it keeps: what it executed is in a file before anybody is told.

Its news come late, out of order and again; two strategies trade on one account, so each hears of the other's fills; after a reconnect it
tells everything once more; once in a while it tells a fill again with another price, which must become a dead letter and nothing else.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from random import Random

import msgspec

from horizon.clock import SYSTEM_CLOCK
from horizon.ids import fill_id
from horizon.positions import exact_sum
from horizon.records import Fill, Order, OrderStatus
from horizon.venues.base import OrderUpdate, VenueEvent

SUFFIX = ".fills"
_TOLD_AGAIN = 300  # fills of each strategy that a reconnect brings again
_LINE_BYTES = 400
_LATE = (0, 0, 0, 1, 1, 3)  # polls that a fill lets wait for it
_SHARES = (1.0, 1.0, 0.5, 0.1)  # of what is left of an order


class Exchange:
    """One strategy's connection to the exchange. Keeps `horizon.venues.base.SimulatedVenue`."""

    name = "chaos"

    def __init__(self, account: Path, strategy: str, chance: Random) -> None:
        self._account = account
        self._own = account / f"{strategy}{SUFFIX}"
        self._fd = os.open(self._own, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._read_up_to: dict[Path, int] = {path: path.stat().st_size for path in self._others()}
        self._chance = chance
        self._orders: dict[str, _Order] = {}
        self._news: list[tuple[int, VenueEvent]] = []  # each with the polls that it still waits
        self._told: deque[Fill] = deque(maxlen=_TOLD_AGAIN)

    def connect(self) -> None:
        pass

    def close(self) -> None:
        os.close(self._fd)

    def submit(self, order: Order) -> OrderUpdate:
        if self._chance.random() < 0.02:
            return OrderUpdate(order.id, OrderStatus.Rejected, "a bad day")
        self._orders[order.id] = _Order(order)
        if self._chance.random() < 0.5:
            self._execute(self._orders[order.id])
        return OrderUpdate(order.id, OrderStatus.Accepted)

    def cancel(self, order_id: str) -> OrderUpdate:
        self._orders.pop(order_id, None)
        return OrderUpdate(order_id, OrderStatus.Canceled)

    def amend(self, order_id: str, price: float, size: float) -> OrderUpdate:
        held = self._orders.get(order_id)
        if held is None:
            return OrderUpdate(order_id, OrderStatus.Canceled, "not here")
        filled = exact_sum(held.order.size, -held.rest)
        if size <= filled:
            return OrderUpdate(order_id, OrderStatus.Accepted, "too small")
        held.order.price, held.order.size, held.rest = price, size, exact_sum(size, -filled)
        return OrderUpdate(order_id, OrderStatus.Accepted, price=price, size=size)

    def tick(self, market_id: str, mid: float) -> int:  # noqa: ARG002
        """Let some of the open orders of a market trade, whatever the price is."""
        resting = [held for held in self._orders.values() if held.order.market_id == market_id and self._chance.random() < 0.1]
        for held in resting:
            self._execute(held)
        return len(resting)

    def poll(self) -> list[VenueEvent]:
        """What is not held back, out of order, with some old fills and what the account's other strategy did."""
        # With no order left open it is the end of a run, and everything is told.
        due = [event for wait, event in self._news if wait <= 0 or not self._orders]
        self._news = [(wait - 1, event) for wait, event in self._news if wait > 0 and self._orders]
        self._chance.shuffle(due)
        again = list(self._told)
        self._told.extend(event for event in due if isinstance(event, Fill))
        if again and self._chance.random() < 0.1:
            due += self._chance.sample(again, min(5, len(again)))
        if again and self._chance.random() < 0.001:
            fill = self._chance.choice(again)
            due.append(msgspec.structs.replace(fill, price=exact_sum(fill.price, 0.01)))
        if self._chance.random() < 0.1:
            due += self._news_of_others()
        return due

    def fills_since(self, timestamp: float) -> Sequence[Fill]:  # noqa: ARG002
        """The newest fills of the whole account, as after every reconnect; what a killed run never heard of is among them."""
        return [fill for path in [self._own, *self._others()] for fill in _newest(path, _TOLD_AGAIN)]

    def order_by_client_id(self, order_id: str) -> OrderUpdate:
        """It cancels what a lost connection leaves behind."""
        held = self._orders.get(order_id)
        return OrderUpdate(order_id, OrderStatus.Canceled if held is None else OrderStatus.Accepted)

    def _execute(self, held: _Order) -> None:
        order = held.order
        size = float(f"{held.rest * self._chance.choice(_SHARES):.6g}")
        rest = exact_sum(held.rest, -size)
        if size <= 0 or rest <= 0:
            size, rest = held.rest, 0.0
        held.rest, held.fills = rest, held.fills + 1
        fill = Fill(
            fill_id(order.id, held.fills), order.id, order.market_id, order.side, order.order_side, order.price, size,
            fee=float(f"{size * order.price * 0.001:.6g}"), timestamp=SYSTEM_CLOCK.now(), token_id=order.token_id,
            exchange=self.name, is_maker=self._chance.random() < 0.5,
        )  # fmt: skip
        os.write(self._fd, msgspec.json.encode(fill) + b"\n")
        self._news.append((self._chance.choice(_LATE), fill))
        if rest <= 0:
            del self._orders[order.id]

    def _others(self) -> list[Path]:
        return [path for path in sorted(self._account.glob(f"*{SUFFIX}")) if path != self._own]

    def _news_of_others(self) -> list[Fill]:
        """The newest fill of each other strategy of the account, if there is a new one."""
        news = []
        for path in self._others():
            size = path.stat().st_size
            if size > self._read_up_to.get(path, 0):
                self._read_up_to[path] = size
                news += _newest(path, 1)
        return news


class _Order:
    """The exchange's own copy of an order."""

    def __init__(self, order: Order) -> None:
        self.order = msgspec.structs.replace(order)
        self.rest = order.size
        self.fills = 0


def read_fills(path: Path) -> list[bytes]:
    """Every execution of a strategy, as JSON, in the order of execution."""
    return path.read_bytes().split(b"\n")[:-1]


def _newest(path: Path, count: int) -> list[Fill]:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - count * _LINE_BYTES))
        whole = file.read().split(b"\n")[:-1]
    # The first line may be cut, unless the file begins with it.
    lines = [line for line in whole[-count:] if line.startswith(b'["f"')]
    return [msgspec.json.decode(line, type=Fill) for line in lines]
