"""A venue that does what a test tells it to, and notes what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from horizon.errors import VenueError
from horizon.records import Fill, Order, OrderStatus
from horizon.venues.base import OrderUpdate, VenueEvent


class ScriptedVenue:
    """Accepts, cancels and amends everything until a test puts other answers into `answers`; an exception there is raised."""

    def __init__(self, name: str = "scripted") -> None:
        self.name = name
        self.asked: list[tuple[object, ...]] = []
        self.answers: dict[str, OrderUpdate | Exception] = {}
        self.events: list[VenueEvent] = []  # what the next poll brings
        self.history: list[Fill] = []  # what fills_since brings
        self.endings: dict[str, OrderUpdate] = {}  # what order_by_client_id knows
        self.on_submit: Callable[[Order], None] = lambda order: None
        self.is_away = False

    def connect(self) -> None:
        self._ask("connect")

    def close(self) -> None:
        self.asked.append(("close",))

    def submit(self, order: Order) -> OrderUpdate:
        self.on_submit(order)
        self._ask("submit", order.id)
        return self._answer("submit") or OrderUpdate(order.id, OrderStatus.Accepted)

    def cancel(self, order_id: str) -> OrderUpdate:
        self._ask("cancel", order_id)
        return self._answer("cancel") or OrderUpdate(order_id, OrderStatus.Canceled)

    def amend(self, order_id: str, price: float, size: float) -> OrderUpdate:
        self._ask("amend", order_id, price, size)
        return self._answer("amend") or OrderUpdate(order_id, OrderStatus.Accepted, price=price, size=size)

    def poll(self) -> Sequence[VenueEvent]:
        if self.is_away:
            raise VenueError("no route to the exchange")
        events, self.events = self.events, []
        return events

    def fills_since(self, timestamp: float) -> Sequence[Fill]:
        self._ask("fills_since", timestamp)
        return [fill for fill in self.history if fill.timestamp >= timestamp]

    def order_by_client_id(self, order_id: str) -> OrderUpdate | None:
        self._ask("order_by_client_id", order_id)
        return self.endings.get(order_id)

    def asked_for(self, what: str) -> list[tuple[object, ...]]:
        return [rest for name, *rest in self.asked if name == what]

    def _ask(self, *what: object) -> None:
        self.asked.append(what)
        if self.is_away:
            raise VenueError("no route to the exchange")

    def _answer(self, what: str) -> OrderUpdate | None:
        answer = self.answers.get(what)
        if isinstance(answer, Exception):
            raise answer
        return answer
