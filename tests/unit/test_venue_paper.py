from __future__ import annotations

import msgspec
import pytest

from horizon.errors import ConfigError, VenueError
from horizon.positions import exact
from horizon.records import Fill, Order, OrderSide, OrderStatus, OrderType, Side, TimeInForce
from horizon.testing import FakeClock
from horizon.venues.base import OrderUpdate, SimulatedVenue
from horizon.venues.paper import Paper

MARKET = "BTC-USD"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def paper(clock: FakeClock) -> Paper:
    return Paper(clock=clock)


def order(
    number: int = 1,
    price: float = 100.0,
    size: float = 10.0,
    order_side: OrderSide = OrderSide.Buy,
    **changes: object,
) -> Order:
    made = Order(f"order-{number}", MARKET, Side.Long, order_side, price, size, remaining_size=size)
    return msgspec.structs.replace(made, **changes)


def fills(paper: Paper) -> list[Fill]:
    return [event for event in paper.poll() if isinstance(event, Fill)]


def test_paper_is_a_simulated_venue(paper: Paper) -> None:
    assert isinstance(paper, SimulatedVenue)
    assert paper.name == "paper"


@pytest.mark.parametrize(
    ("order_side", "price", "mid", "fills_now"),
    [
        (OrderSide.Buy, 100.0, 99.0, True),
        (OrderSide.Buy, 100.0, 100.0, True),
        (OrderSide.Buy, 100.0, 100.01, False),
        (OrderSide.Sell, 100.0, 101.0, True),
        (OrderSide.Sell, 100.0, 100.0, True),
        (OrderSide.Sell, 100.0, 99.99, False),
        (OrderSide.Buy, -5.0, -6.0, True),
    ],
)
def test_an_order_fills_at_its_own_limit_when_the_mid_crosses_it(
    paper: Paper, order_side: OrderSide, price: float, mid: float, fills_now: bool
) -> None:
    assert paper.submit(order(price=price, order_side=order_side)).status is OrderStatus.Accepted
    assert paper.tick(MARKET, mid) == int(fills_now)
    assert [fill.price for fill in fills(paper)] == ([price] if fills_now else [])


def test_a_fill_says_everything_about_itself(paper: Paper, clock: FakeClock) -> None:
    paper.submit(order(price=0.5, size=10.0, token_id="token"))
    clock.advance(5)
    paper.tick(MARKET, 0.4)
    assert fills(paper) == [
        Fill(
            fill_id="order-1-0001",
            order_id="order-1",
            market_id=MARKET,
            side=Side.Long,
            order_side=OrderSide.Buy,
            price=0.5,
            size=10.0,
            fee=0.005,
            timestamp=clock.now(),
            token_id="token",
            exchange="paper",
            is_maker=False,
        )
    ]


def test_other_markets_are_not_ticked(paper: Paper) -> None:
    paper.submit(order())
    assert paper.tick("ETH-USD", 1.0) == 0


def test_orders_fill_in_the_order_they_came(paper: Paper) -> None:
    for number in (3, 1, 2):
        paper.submit(order(number))
    assert paper.tick(MARKET, 90.0) == 3
    assert [fill.order_id for fill in fills(paper)] == ["order-3", "order-1", "order-2"]


def test_a_filled_order_does_not_fill_again(paper: Paper) -> None:
    paper.submit(order())
    assert paper.tick(MARKET, 90.0) == 1
    assert paper.tick(MARKET, 90.0) == 0
    assert paper.order_by_client_id("order-1") == OrderUpdate("order-1", OrderStatus.Filled)


def test_the_engine_may_change_its_order_after_submit(paper: Paper) -> None:
    submitted = order()
    paper.submit(submitted)
    submitted.price, submitted.size = 1.0, 1.0
    paper.tick(MARKET, 90.0)
    assert [(fill.price, fill.size) for fill in fills(paper)] == [(100.0, 10.0)]


def test_a_known_id_makes_no_second_order(paper: Paper) -> None:
    paper.submit(order())
    assert paper.submit(order()).status is OrderStatus.Accepted
    assert paper.tick(MARKET, 90.0) == 1
    assert paper.submit(order()).status is OrderStatus.Filled


def test_a_no_order_is_compared_with_one_minus_the_mid(paper: Paper) -> None:
    paper.submit(order(price=0.4, side=Side.No))
    assert paper.tick(MARKET, 0.59) == 0
    assert paper.tick(MARKET, 0.6) == 1
    assert fills(paper)[0].price == 0.4


def test_a_mid_that_is_not_a_number_is_refused(paper: Paper) -> None:
    paper.submit(order())
    with pytest.raises(VenueError, match="price of BTC-USD must be a finite number, got nan"):
        paper.tick(MARKET, float("nan"))


# Fees


@pytest.mark.parametrize(
    ("seen_at_submit", "price", "order_side", "is_maker"),
    [
        (100.0, 99.0, OrderSide.Buy, True),
        (100.0, 100.0, OrderSide.Buy, True),
        (100.0, 101.0, OrderSide.Buy, False),
        (100.0, 101.0, OrderSide.Sell, True),
        (100.0, 99.0, OrderSide.Sell, False),
        (None, 101.0, OrderSide.Buy, False),
    ],
)
def test_the_first_mid_an_order_meets_decides_maker_or_taker(
    seen_at_submit: float | None, price: float, order_side: OrderSide, is_maker: bool, clock: FakeClock
) -> None:
    paper = Paper(maker_fee_rate=0.0002, taker_fee_rate=0.002, clock=clock)
    if seen_at_submit is not None:
        paper.tick(MARKET, seen_at_submit)
    paper.submit(order(price=price, order_side=order_side))
    paper.tick(MARKET, 100.0)
    paper.tick(MARKET, 50.0 if order_side is OrderSide.Buy else 200.0)
    (fill,) = fills(paper)
    assert fill.is_maker is is_maker
    assert fill.fee == pytest.approx((0.0002 if is_maker else 0.002) * price * 10, rel=1e-15)


@pytest.mark.parametrize(
    ("rates", "maker", "taker"),
    [
        ({}, 0.001, 0.001),
        ({"fee_rate": 0.003}, 0.003, 0.003),
        ({"fee_rate": 0.001, "taker_fee_rate": 0.003}, 0.001, 0.003),
        ({"maker_fee_rate": 0.0}, 0.0, 0.001),
        ({"maker_fee_rate": -0.0001}, -0.0001, 0.001),
    ],
)
def test_maker_and_taker_rates_override_the_fee_rate(rates: dict[str, float], maker: float, taker: float) -> None:
    paper = Paper(**rates)
    paper.tick(MARKET, 100.0)
    paper.submit(order(1, price=100.0, size=1.0))
    paper.submit(order(2, price=200.0, size=1.0))
    paper.tick(MARKET, 100.0)
    assert [fill.fee for fill in fills(paper)] == [maker * 100, taker * 200]


def test_a_fee_is_positive_on_a_negative_price(paper: Paper) -> None:
    paper.submit(order(price=-37.0, size=10.0))
    paper.tick(MARKET, -40.0)
    assert fills(paper)[0].fee == 0.37


def test_a_fee_is_the_exact_product_of_what_people_read(paper: Paper) -> None:
    paper.submit(order(price=0.1, size=3.0))
    paper.tick(MARKET, 0.05)
    assert fills(paper)[0].fee == 0.0003


# Market orders


def test_a_market_order_takes_at_the_known_mid_at_once(paper: Paper) -> None:
    paper.tick(MARKET, 99.5)
    paper.submit(order(order_type=OrderType.Market, price=0.0))
    (fill,) = fills(paper)
    assert (fill.price, fill.size, fill.is_maker) == (99.5, 10.0, False)


def test_a_market_order_waits_for_the_first_mid(paper: Paper) -> None:
    paper.submit(order(order_type=OrderType.Market, price=0.0, order_side=OrderSide.Sell))
    assert fills(paper) == []
    assert paper.tick(MARKET, 101.5) == 1
    assert [(fill.price, fill.is_maker) for fill in fills(paper)] == [(101.5, False)]


# Partial fills


@pytest.mark.parametrize(
    ("ratio", "size", "sizes"),
    [
        (0.5, 10.0, [5.0, 5.0]),
        (0.4, 10.0, [4.0, 4.0, 2.0]),
        (0.25, 0.3, [0.075, 0.075, 0.075, 0.075]),
        (1 / 3, 10.0, [3.33333333333, 3.33333333333, 3.33333333334]),
        (0.7, 0.1, [0.07, 0.03]),
    ],
)
def test_each_tick_fills_a_share_of_the_order_and_the_last_one_the_rest(ratio: float, size: float, sizes: list[float]) -> None:
    paper = Paper(partial_fill_ratio=ratio)
    paper.submit(order(size=size))
    while paper.tick(MARKET, 90.0):
        pass
    filled = fills(paper)
    assert [fill.size for fill in filled] == sizes
    assert sum(exact(fill.size) for fill in filled) == exact(size)
    assert [fill.fill_id for fill in filled] == [f"order-1-{number:04d}" for number in range(1, len(sizes) + 1)]


@pytest.mark.parametrize(("noisy", "ratio"), [(0.1 + 0.7, 1 / 3), (0.1 + 0.2, 0.5), (1e15 / 7, 0.3), (5e-324, 0.5)])
def test_a_size_with_float_noise_is_cut_without_loss(noisy: float, ratio: float) -> None:
    paper = Paper(partial_fill_ratio=ratio)
    paper.submit(order(size=noisy))
    while paper.tick(MARKET, 90.0):
        pass
    assert sum(exact(fill.size) for fill in fills(paper)) == exact(noisy)


def test_a_part_filled_order_says_so_and_can_be_canceled() -> None:
    paper = Paper(partial_fill_ratio=0.5)
    paper.submit(order())
    paper.tick(MARKET, 90.0)
    assert paper.order_by_client_id("order-1").status is OrderStatus.PartiallyFilled
    assert paper.cancel("order-1").status is OrderStatus.Canceled
    assert paper.tick(MARKET, 90.0) == 0
    assert [fill.size for fill in fills(paper)] == [5.0]


# Cancel and amend


def test_a_canceled_order_never_fills(paper: Paper) -> None:
    paper.submit(order())
    assert paper.cancel("order-1") == OrderUpdate("order-1", OrderStatus.Canceled)
    assert paper.tick(MARKET, 90.0) == 0
    assert paper.cancel("order-1").status is OrderStatus.Canceled


def test_a_fill_before_the_cancel_is_reported_and_the_cancel_says_filled(paper: Paper) -> None:
    paper.submit(order())
    paper.tick(MARKET, 90.0)
    assert paper.cancel("order-1").status is OrderStatus.Filled
    assert len(fills(paper)) == 1


def test_an_amended_order_keeps_its_id_and_fills_at_the_new_price(paper: Paper) -> None:
    paper.submit(order(price=80.0))
    assert paper.amend("order-1", 100.0, 4.0) == OrderUpdate("order-1", OrderStatus.Accepted, price=100.0, size=4.0)
    paper.tick(MARKET, 90.0)
    assert [(fill.order_id, fill.price, fill.size) for fill in fills(paper)] == [("order-1", 100.0, 4.0)]


def test_an_amended_price_decides_maker_or_taker_anew(paper: Paper) -> None:
    paper.tick(MARKET, 100.0)
    paper.submit(order(price=90.0))
    paper.amend("order-1", 110.0, 10.0)
    paper.tick(MARKET, 100.0)
    assert fills(paper)[0].is_maker is False


def test_an_amended_size_is_the_total_with_what_is_filled() -> None:
    paper = Paper(partial_fill_ratio=0.5)
    paper.submit(order(size=10.0))
    paper.tick(MARKET, 90.0)
    assert paper.amend("order-1", 100.0, 6.0).size == 6.0
    paper.tick(MARKET, 90.0)
    assert [fill.size for fill in fills(paper)] == [5.0, 1.0]
    assert paper.order_by_client_id("order-1").status is OrderStatus.Filled


@pytest.mark.parametrize("size", [5.0, 3.0, float("nan")])
def test_an_amend_that_cannot_be_is_refused_and_changes_nothing(size: float) -> None:
    paper = Paper(partial_fill_ratio=0.5)
    paper.submit(order(size=10.0))
    paper.tick(MARKET, 90.0)
    answer = paper.amend("order-1", 100.0, size)
    assert answer.status is OrderStatus.PartiallyFilled
    assert answer.price is None
    assert answer.reason
    paper.tick(MARKET, 90.0)
    assert [fill.size for fill in fills(paper)] == [5.0, 5.0]


def test_an_amend_of_a_finished_order_says_how_it_ended(paper: Paper) -> None:
    paper.submit(order())
    paper.tick(MARKET, 90.0)
    assert paper.amend("order-1", 1.0, 1.0) == OrderUpdate("order-1", OrderStatus.Filled)


# Time in force


def test_post_only_orders_that_cross_are_filled(paper: Paper) -> None:
    paper.tick(MARKET, 90.0)
    paper.submit(order(post_only=True))
    assert paper.tick(MARKET, 90.0) == 1


@pytest.mark.parametrize("time_in_force", [TimeInForce.GTC, TimeInForce.GTD, TimeInForce.Day])
def test_resting_orders_do_not_depend_on_the_wall_clock(paper: Paper, clock: FakeClock, time_in_force: TimeInForce) -> None:
    paper.submit(order(time_in_force=time_in_force))
    clock.set_wall(clock.now() + 7 * 86_400)
    assert paper.tick(MARKET, 90.0) == 1


@pytest.mark.parametrize("time_in_force", [TimeInForce.FAK, TimeInForce.FOK])
def test_now_or_never_needs_a_known_price(paper: Paper, time_in_force: TimeInForce) -> None:
    answer = paper.submit(order(time_in_force=time_in_force))
    assert answer.status is OrderStatus.Rejected
    assert "no price of BTC-USD is known yet" in str(answer.reason)
    assert paper.tick(MARKET, 90.0) == 0


@pytest.mark.parametrize("time_in_force", [TimeInForce.FAK, TimeInForce.FOK])
def test_now_or_never_fills_at_once_and_takes(paper: Paper, time_in_force: TimeInForce) -> None:
    paper.tick(MARKET, 100.0)
    assert paper.submit(order(time_in_force=time_in_force)).status is OrderStatus.Accepted
    (fill,) = paper.poll()
    assert isinstance(fill, Fill)
    assert (fill.size, fill.is_maker) == (10.0, False)
    assert paper.order_by_client_id("order-1").status is OrderStatus.Filled


@pytest.mark.parametrize("time_in_force", [TimeInForce.FAK, TimeInForce.FOK])
def test_now_or_never_is_canceled_when_nothing_crosses(paper: Paper, time_in_force: TimeInForce) -> None:
    paper.tick(MARKET, 101.0)
    paper.submit(order(time_in_force=time_in_force))
    (update,) = paper.poll()
    assert isinstance(update, OrderUpdate)
    assert update.status is OrderStatus.Canceled
    assert paper.tick(MARKET, 90.0) == 0


def test_fill_and_kill_takes_one_share_and_the_rest_is_canceled() -> None:
    paper = Paper(partial_fill_ratio=0.4)
    paper.tick(MARKET, 90.0)
    paper.submit(order(time_in_force=TimeInForce.FAK))
    fill, update = paper.poll()
    assert isinstance(fill, Fill)
    assert fill.size == 4.0
    assert isinstance(update, OrderUpdate)
    assert update.status is OrderStatus.Canceled


def test_fill_or_kill_is_all_or_nothing() -> None:
    paper = Paper(partial_fill_ratio=0.4)
    paper.tick(MARKET, 90.0)
    paper.submit(order(time_in_force=TimeInForce.FOK))
    (update,) = paper.poll()
    assert isinstance(update, OrderUpdate)
    assert update.status is OrderStatus.Canceled


# Memory


def test_poll_gives_each_event_once(paper: Paper) -> None:
    paper.submit(order())
    paper.tick(MARKET, 90.0)
    assert len(paper.poll()) == 1
    assert paper.poll() == []


def test_fills_since_includes_the_time_itself_and_what_was_not_polled(paper: Paper, clock: FakeClock) -> None:
    for number in (1, 2):
        paper.submit(order(number))
        paper.tick(MARKET, 90.0)
        clock.advance(1)
    last = clock.now() - 1
    assert [fill.order_id for fill in paper.fills_since(last)] == ["order-2"]
    assert [fill.order_id for fill in paper.fills_since(0.0)] == ["order-1", "order-2"]


def test_an_order_of_an_earlier_process_is_canceled(paper: Paper) -> None:
    for answer in (paper.order_by_client_id("older"), paper.cancel("older"), paper.amend("older", 1.0, 1.0)):
        assert answer.status is OrderStatus.Canceled
        assert "end with the process" in str(answer.reason)


def test_memory_is_bounded_and_open_orders_are_never_forgotten(clock: FakeClock) -> None:
    paper = Paper(remembered=10, clock=clock)
    paper.submit(order(0, price=1.0))
    for number in range(1, 101):
        paper.submit(order(number))
        paper.tick(MARKET, 90.0)
    assert len(fills(paper)) == 100
    assert len(paper.fills_since(0.0)) == 10
    assert paper.order_by_client_id("order-100").status is OrderStatus.Filled
    assert paper.order_by_client_id("order-0").status is OrderStatus.Accepted


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"fee_rate": float("nan")}, "maker fee rate must be a finite number, got nan"),
        ({"taker_fee_rate": float("inf")}, "taker fee rate must be a finite number, got inf"),
        ({"partial_fill_ratio": 0.0}, "above 0 and at most 1, got 0.0"),
        ({"partial_fill_ratio": 1.1}, "above 0 and at most 1, got 1.1"),
        ({"partial_fill_ratio": float("nan")}, "above 0 and at most 1, got nan"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments: dict[str, float], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Paper(**arguments)
