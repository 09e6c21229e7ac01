"""The simulated feed: its models, its pace, and what it refuses."""

from __future__ import annotations

import math
import statistics
from itertools import islice, pairwise
from random import Random
from typing import Any

import pytest
from manual_clock import ManualClock

from horizon.errors import ConfigError
from horizon.feeds import models
from horizon.feeds.base import Feed, FeedData
from horizon.feeds.simulated import MODELS, Simulated


def played(feed: Simulated) -> list[FeedData]:
    feed.start()
    seen = []
    while feed.advance():
        seen.append(feed.snapshot())
    return seen


def test_simulated_keeps_the_feed_protocol() -> None:
    assert isinstance(Simulated(), Feed)


def test_a_feed_that_has_not_started_is_stale_and_gives_nothing() -> None:
    feed = Simulated()
    assert feed.snapshot().is_stale()
    assert not feed.advance()
    assert feed.next_time() is None


@pytest.mark.parametrize("model", MODELS)
def test_every_quote_has_its_bid_below_its_ask_on_the_tick_and_trades_happen_there(model: str) -> None:
    tick = 0.01
    for data in played(Simulated(model, seed=1, volatility=0.2, paced=False, events=2_000)):
        assert 0 < data.bid < data.ask
        assert round(data.bid / tick) * tick == pytest.approx(data.bid, abs=1e-9)
        assert data.bid == float(f"{data.bid:.2f}")
        if data.last_trade_is_buy is not None:
            assert data.last_trade_size > 0


def test_an_event_is_a_quote_and_sometimes_a_trade_against_it() -> None:
    trades = 0
    volume = 0.0
    for data in played(Simulated(seed=3, paced=False, events=1_000, trade_share=0.3, interval_s=1.0)):
        if data.volume_24h > volume:
            trades += 1
            assert data.price == (data.ask if data.last_trade_is_buy else data.bid)
            assert data.volume_24h == pytest.approx(volume + data.last_trade_size)
        volume = data.volume_24h
    assert 230 < trades < 370


def test_without_trades_the_price_is_the_middle_of_the_quote() -> None:
    for data in played(Simulated(seed=3, paced=False, events=50, trade_share=0)):
        assert data.price == data.mid()
        assert data.volume_24h == 0


def test_a_probability_stays_inside_zero_and_one_and_settles() -> None:
    seen = played(Simulated("probability", seed=5, volatility=0.9, interval_s=1.0, paced=False, events=5_000))
    assert all(0.01 <= data.bid < data.ask <= 0.99 for data in seen)
    assert seen[0].mid() == pytest.approx(0.5)
    assert abs(seen[-1].mid() - 0.5) > 0.45


@pytest.mark.parametrize("tick", [0.01, 0.001, 0.05, 0.3])
def test_a_probability_keeps_to_its_tick_below_one(tick: float) -> None:
    for data in played(Simulated("probability", seed=5, tick=tick, volatility=0.9, interval_s=5.0, paced=False, events=500)):
        assert tick <= data.bid < data.ask < 1


def test_more_trades_leave_the_path_of_the_quote_as_it_is() -> None:
    few = played(Simulated("jump", seed=9, paced=False, events=300, trade_share=0.1, first_time=1e9))
    many = played(Simulated("jump", seed=9, paced=False, events=300, trade_share=0.9, first_time=1e9))
    assert [(data.bid, data.ask) for data in few] == [(data.bid, data.ask) for data in many]


def test_two_seeds_give_two_paths_and_a_drawn_seed_can_be_used_again() -> None:
    drawn = Simulated(paced=False, events=100, first_time=1e9)
    again = Simulated(paced=False, events=100, first_time=1e9, seed=drawn.seed)
    other = Simulated(paced=False, events=100, first_time=1e9, seed=drawn.seed + 1)
    assert played(drawn) == played(again) != played(other)


def test_a_second_start_begins_anew() -> None:
    feed = Simulated(seed=4, paced=False, events=20, first_time=1e9)
    assert played(feed) == played(feed)


def test_unpaced_gives_one_event_a_call_and_ends_after_so_many() -> None:
    feed = Simulated(seed=4, paced=False, events=3, interval_s=0.5, first_time=1e9)
    feed.start()
    times = []
    while True:
        times.append(feed.next_time())
        if not feed.advance():
            break
    assert times == [1e9, 1e9 + 0.5, 1e9 + 1.0, None]
    assert not feed.advance()
    assert not feed.snapshot().is_stale()


def test_paced_gives_what_is_due_on_its_clock() -> None:
    clock = ManualClock(now=1_700_000_000.0)
    feed = Simulated(seed=4, interval_s=0.5, clock=clock)
    feed.start()
    assert feed.advance()
    assert feed.snapshot().timestamp == 1_700_000_000.0
    clock.forward(0.4)
    assert feed.advance()
    assert feed.snapshot().timestamp == 1_700_000_000.0
    assert feed.snapshot().age_s == pytest.approx(0.4)
    clock.forward(1.2)
    assert feed.advance()
    assert feed.snapshot().timestamp == 1_700_000_001.5
    assert feed.next_time() == 1_700_000_002.0


def test_an_exhausted_paced_feed_grows_stale() -> None:
    clock = ManualClock()
    feed = Simulated(seed=4, interval_s=1.0, events=2, clock=clock)
    feed.start()
    clock.forward(1.0)
    assert feed.advance()
    assert not feed.advance()
    clock.forward(30.0)
    assert not feed.snapshot().is_stale()
    clock.forward(0.1)
    assert feed.snapshot().is_stale()


def test_a_stopped_feed_gives_nothing_more_and_keeps_what_it_saw() -> None:
    feed = Simulated(seed=4, paced=False)
    feed.start()
    feed.advance()
    seen = feed.snapshot()
    feed.stop()
    feed.stop()
    assert not feed.advance()
    assert feed.snapshot() == seen


def test_a_random_walk_has_the_volatility_that_was_asked_for_and_no_trend() -> None:
    prices = list(islice(models.random_walk(Random(1), 0.25, 100.0, 0.002), 40_001))
    moves = [math.log(after / before) for before, after in pairwise(prices)]
    assert statistics.stdev(moves) == pytest.approx(0.002 * math.sqrt(0.25), rel=0.02)
    ends = [list(islice(models.random_walk(Random(seed), 1.0, 100.0, 0.02), 101))[-1] for seed in range(2_000)]
    assert statistics.mean(ends) == pytest.approx(100.0, abs=3 * statistics.stdev(ends) / math.sqrt(2_000))


def test_a_mean_reverting_price_comes_back_and_stays_near_its_mean() -> None:
    prices = list(islice(models.mean_reverting(Random(1), 1.0, 120.0, 0.001, mean=100.0, reversion=0.05), 50_001))
    assert prices[0] == pytest.approx(120.0)
    distances = [math.log(price / 100.0) for price in prices[1_000:]]
    assert statistics.mean(distances) == pytest.approx(0.0, abs=0.0005)
    assert statistics.stdev(distances) == pytest.approx(0.001 / math.sqrt(2 * 0.05), rel=0.1)


def test_a_jump_model_jumps_as_often_as_asked_and_has_no_trend() -> None:
    prices = list(islice(models.jump_diffusion(Random(1), 1.0, 100.0, 0.0001, jump_rate=0.05, jump_size=0.1), 20_001))
    moves = [abs(math.log(after / before)) for before, after in pairwise(prices)]
    # A jump of less than a hundredth of its size is lost in the noise: 0.8 % of them.
    assert sum(move > 0.001 for move in moves) == pytest.approx(20_000 * -math.expm1(-0.05), rel=0.1)
    ends = [list(islice(models.jump_diffusion(Random(seed), 1.0, 100.0, 0.001, 0.1, 0.05), 101))[-1] for seed in range(2_000)]
    assert statistics.mean(ends) == pytest.approx(100.0, abs=3 * statistics.stdev(ends) / math.sqrt(2_000))


def test_a_probability_is_a_martingale() -> None:
    ends = [list(islice(models.probability(Random(seed), 1.0, 0.3, 0.1), 201))[-1] for seed in range(2_000)]
    assert statistics.mean(ends) == pytest.approx(0.3, abs=3 * statistics.stdev(ends) / math.sqrt(2_000))


def test_the_wildest_walk_neither_overflows_nor_dies() -> None:
    prices = list(islice(models.random_walk(Random(1), 100.0, 1.0, 0.99), 5_000))
    assert all(0 < price < math.inf for price in prices)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"model": "brownian"}, "brownian"),
        ({"start": 0}, "start"),
        ({"start": "100"}, "start"),
        ({"start": math.nan}, "start"),
        ({"model": "probability", "start": 1.0}, "start"),
        ({"seed": 1.5}, "seed"),
        ({"seed": True}, "seed"),
        ({"volatility": -0.1}, "volatility"),
        ({"volatility": 1.0}, "volatility"),
        ({"spread": 0}, "spread"),
        ({"tick": math.inf}, "tick"),
        ({"model": "probability", "tick": 0.5}, "tick"),
        ({"interval_s": 0}, "interval_s"),
        ({"trade_share": 1.1}, "trade_share"),
        ({"trade_size": 0}, "trade_size"),
        ({"events": 0}, "events"),
        ({"events": 10.0}, "events"),
        ({"first_time": -1}, "first_time"),
        ({"paced": "no"}, "paced"),
        ({"mean": 90.0}, "mean_reverting"),
        ({"model": "jump", "reversion": 0.1}, "mean_reverting"),
        ({"jump_rate": 0.1}, "jump"),
        ({"model": "jump", "jump_size": 2}, "jump_size"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(arguments: dict[str, Any], names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        Simulated(**arguments)
