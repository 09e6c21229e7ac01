"""What a pipeline function sees: the feeds, the inventory, its market, the engine's status and the parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from horizon.feeds.base import FeedData
from horizon.records import EngineStatus, Market, Position, Side

__all__ = ["Context", "FeedData", "InventorySnapshot", "feed_of"]


class InventorySnapshot(msgspec.Struct, frozen=True):
    """The positions at the moment the context was made. Net counts Yes and Long as plus, No as minus."""

    positions: Sequence[Position] = ()
    events: Mapping[str, frozenset[str]] = {}  # ids of the run's markets by the event they belong to

    @property
    def net(self) -> float:
        return sum(_signed(position) for position in self.positions)

    def net_for_market(self, market_id: str) -> float:
        return sum(_signed(position) for position in self.positions if position.market_id == market_id)

    def positions_for_event(self, event_id: str) -> list[Position]:
        """Of the markets whose `Market.event_id` this is."""
        members = self.events.get(event_id, frozenset())
        return [position for position in self.positions if position.market_id in members]

    def net_for_event(self, event_id: str) -> float:
        return sum(_signed(position) for position in self.positions_for_event(event_id))

    @property
    def total_value(self) -> float:
        """What all positions cost: the sum of |size| x average entry price x multiplier."""
        return sum(_value(position) for position in self.positions)

    def weight_for_market(self, market_id: str) -> float:
        """The market's share of `total_value`, 0 to 1."""
        total = self.total_value
        own = sum(_value(position) for position in self.positions if position.market_id == market_id)
        return own / total if total else 0.0


class Context(msgspec.Struct):
    """The argument of every pipeline function. `params` also holds `engine`, `fills_this_cycle` and the runtime parameters."""

    feeds: dict[str, FeedData] = {}
    inventory: InventorySnapshot = InventorySnapshot()
    market: Market | None = None
    event: None = None  # events are not there yet
    status: EngineStatus | None = None
    params: dict[str, Any] = {}

    @property
    def market_id(self) -> str:
        return self.market.id if self.market is not None else ""

    @property
    def feed(self) -> FeedData:
        """The feed that prices this market: see `feed_of`. One that was never updated when there is no feed at all."""
        name = feed_of(self.market, self.feeds)
        return self.feeds[name] if name is not None else FeedData()


def feed_of(market: Market | None, feeds: Mapping[str, object]) -> str | None:
    """The name of the feed that prices a market: the one called like it, else the first."""
    if market is not None:
        for name in (market.id, market.slug, market.ticker, market.name):
            if name and name in feeds:
                return name
    return next(iter(feeds), None)


def _signed(position: Position) -> float:
    return -position.size if position.side is Side.No else position.size


def _value(position: Position) -> float:
    return abs(position.size * position.avg_entry_price * position.multiplier)
