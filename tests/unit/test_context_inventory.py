"""What a pipeline sees of positions and feeds."""

from __future__ import annotations

from horizon.context import Context, FeedData, InventorySnapshot, feed_of
from horizon.records import Market, Position, Side


def _position(market_id: str, side: Side, size: float, price: float = 0.5, multiplier: float = 1.0) -> Position:
    return Position(market_id, side, size, price, 0.0, 0.0, multiplier=multiplier)


INVENTORY = InventorySnapshot(
    [
        _position("a", Side.Yes, 10.0, 0.4),
        _position("a", Side.No, 4.0, 0.5),
        _position("b", Side.Long, -3.0, 2.0),
    ],
    {"election": frozenset({"a", "c"})},
)


def test_net_is_yes_and_long_less_no() -> None:
    assert INVENTORY.net == 3.0
    assert INVENTORY.net_for_market("a") == 6.0
    assert INVENTORY.net_for_market("b") == -3.0
    assert INVENTORY.net_for_market("elsewhere") == 0.0


def test_an_event_is_the_markets_that_belong_to_it() -> None:
    assert INVENTORY.net_for_event("election") == 6.0
    assert {position.market_id for position in INVENTORY.positions_for_event("election")} == {"a"}
    assert INVENTORY.positions_for_event("unheard of") == []


def test_weights_are_shares_of_what_the_positions_cost() -> None:
    assert INVENTORY.total_value == 4.0 + 2.0 + 6.0
    assert INVENTORY.weight_for_market("a") == 0.5
    assert InventorySnapshot().weight_for_market("a") == 0.0


def test_a_context_alone_is_empty_and_its_feed_was_never_updated() -> None:
    ctx = Context()
    assert ctx.market_id == ""
    assert ctx.feed.is_stale()
    assert ctx.inventory.net == 0.0


def test_the_feed_of_a_market_is_the_one_called_like_it_else_the_first() -> None:
    feeds = {"btc": FeedData(price=1.0), "eth": FeedData(price=2.0)}
    assert Context(feeds=feeds, market=Market("eth")).feed.price == 2.0
    assert Context(feeds=feeds, market=Market("x", ticker="eth")).feed.price == 2.0
    assert Context(feeds=feeds, market=Market("doge")).feed.price == 1.0
    assert feed_of(Market("doge"), {}) is None
