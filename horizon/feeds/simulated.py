"""Market data out of a seeded generator: for demos, tests and benchmarks, with no account and no network."""

from __future__ import annotations

import math
import secrets
from collections.abc import Generator, Iterator
from decimal import Decimal
from itertools import count
from random import Random

from horizon.clock import SYSTEM_CLOCK, Clock
from horizon.errors import ConfigError
from horizon.feeds import models
from horizon.feeds.played import PlayedFeed, Tick

MODELS = ("random_walk", "mean_reverting", "jump", "probability")


class Simulated(PlayedFeed):
    """Quotes and trades around the price of a model.

    Events come every `interval_s` seconds from the start on. In each the price moves, the quote follows it, and with the chance
    `trade_share` somebody buys at the ask or sells at the bid. The same seed gives the same prices, sizes and sides, whenever and
    however often `advance` is called. Prices are whole multiples of `tick`; a bid is always below its ask.

    Models: "random_walk" (geometric), "mean_reverting" (pulled to `mean`), "jump" (a random walk that jumps), "probability" (stays
    between 0 and 1, as in a prediction market). Raises: ConfigError naming the argument.
    """

    def __init__(
        self,
        model: str = "random_walk",
        *,
        start: float | None = None,  # the first price: 100, or 0.5 for a probability
        seed: int | None = None,  # None draws one, and `feed.seed` tells it
        volatility: float | None = None,  # over one second, see models.py: 0.001, or 0.02 for a probability
        spread: float | None = None,  # ask - bid: a thousandth of the start, or 0.02 for a probability
        tick: float | None = None,  # the smallest step of a price: 0.01 for a start of 100 to 999 and so on, or for a probability
        interval_s: float = 0.1,  # between two events
        trade_share: float = 0.5,  # of the events that bring a trade, 0..1
        trade_size: float = 1.0,  # the median size of a trade
        mean: float | None = None,  # mean_reverting: what the price is pulled to: the start
        reversion: float | None = None,  # mean_reverting: how fast, per second: 0.05
        jump_rate: float | None = None,  # jump: jumps per second: 0.05
        jump_size: float | None = None,  # jump: the standard deviation of a jump, as a share of the price: 0.01
        paced: bool = True,  # False: one event a call, as fast as the cycle runs
        events: int | None = None,  # the feed ends after so many; None: never
        first_time: float | None = None,  # Unix seconds of the first event; None: when the feed starts
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if model not in MODELS:
            raise ConfigError(f"simulated feed: the model {model!r} is unknown; there are {', '.join(MODELS)}")
        _refuse_for_others(model, "mean_reverting", mean=mean, reversion=reversion)
        _refuse_for_others(model, "jump", jump_rate=jump_rate, jump_size=jump_size)
        bounded = model == "probability"
        below = 1.0 if bounded else math.inf
        self.model = model
        self.seed = secrets.randbelow(2**32) if seed is None else _whole("seed", seed)
        self.first_price = _positive("start", start, 0.5 if bounded else 100.0, below)
        self._volatility = _positive("volatility", volatility, 0.02 if bounded else 0.001, 1.0)
        self._spread = _positive("spread", spread, 0.02 if bounded else self.first_price / 1000, below)
        self._tick = _positive("tick", tick, 0.01 if bounded else _fitting_tick(self.first_price), below / 3)
        self._decimals = max(0, -int(Decimal(repr(self._tick)).normalize().as_tuple().exponent))
        self._interval_s = _positive("interval_s", interval_s)
        self._trade_share = _share("trade_share", trade_share)
        self._trade_size = _positive("trade_size", trade_size)
        self._mean = _positive("mean", mean, self.first_price)
        self._reversion = _positive("reversion", reversion, 0.05)
        self._jump_rate = _positive("jump_rate", jump_rate, 0.05)
        self._jump_size = _positive("jump_size", jump_size, 0.01, 1.0)
        self._events = None if events is None else _whole("events", events, at_least=1)
        if not isinstance(paced, bool):
            raise ConfigError(f"simulated feed: paced must be true or false, got {paced!r}")
        self._first_time = None if first_time is None else _positive("first_time", first_time)
        super().__init__(f"simulated:{model}", 1.0 if paced else None, clock)

    def _play(self) -> Generator[Tick, None, None]:
        first_time = self._clock.now() if self._first_time is None else self._first_time
        # Two generators, so that more or fewer trades leave the path of the price as it is.
        trades = Random(f"{self.seed} trades")  # noqa: S311
        for number, price in zip(count() if self._events is None else range(self._events), self._prices(), strict=False):
            bid, ask = self._quote_around(price)
            # Counted from the first event, not from the one before: no rounding error grows.
            timestamp = first_time + number * self._interval_s
            if trades.random() < self._trade_share:
                is_buy = trades.random() < 0.5
                size = float(f"{self._trade_size * math.exp(trades.gauss(0.0, 1.0)):.4g}")
                yield Tick(timestamp, bid, ask, ask if is_buy else bid, size, is_buy)
            else:
                yield Tick(timestamp, bid, ask)

    def _prices(self) -> Iterator[float]:
        random, step_s = Random(self.seed), self._interval_s  # noqa: S311
        if self.model == "mean_reverting":
            return models.mean_reverting(random, step_s, self.first_price, self._volatility, self._mean, self._reversion)
        if self.model == "jump":
            return models.jump_diffusion(random, step_s, self.first_price, self._volatility, self._jump_rate, self._jump_size)
        if self.model == "probability":
            return models.probability(random, step_s, self.first_price, self._volatility)
        return models.random_walk(random, step_s, self.first_price, self._volatility)

    def _quote_around(self, price: float) -> tuple[float, float]:
        low = max(1, round((price - self._spread / 2) / self._tick))
        high = max(low + 1, round((price + self._spread / 2) / self._tick))
        if self.model == "probability":
            top = math.ceil(1 / self._tick - 1e-9) - 1  # the highest multiple of the tick below 1
            high = min(high, top)
            low = min(low, high - 1)
        return round(low * self._tick, self._decimals), round(high * self._tick, self._decimals)


def _refuse_for_others(model: str, owner: str, **arguments: float | None) -> None:
    """An argument of one model would do nothing for another."""
    for name, value in arguments.items():
        if value is not None and model != owner:
            raise ConfigError(f'simulated feed: {name} belongs to the model "{owner}"; the model here is "{model}"')


def _positive(name: str, given: float | None, default: float = math.nan, below: float = math.inf) -> float:
    value = default if given is None else given
    # The comparison is false for NaN as well; a bool is an int to Python and a slip of the pen here.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < below:
        limit = "" if below == math.inf else f" and below {below:.3g}"
        raise ConfigError(f"simulated feed: {name} must be a number above 0{limit}, got {value!r}")
    return value


def _share(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ConfigError(f"simulated feed: {name} must be a number from 0 to 1, got {value!r}")
    return value


def _whole(name: str, value: int, at_least: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or (at_least is not None and value < at_least):
        limit = "" if at_least is None else f" of at least {at_least}"
        raise ConfigError(f"simulated feed: {name} must be a whole number{limit}, got {value!r}")
    return value


def _fitting_tick(price: float) -> float:
    """A ten-thousandth of the price's power of ten: 0.01 for 100, 0.0001 for 1.39, 1 for 39,000."""
    return float(f"1e{math.floor(math.log10(price)) - 4}")
