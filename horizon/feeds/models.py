"""Price models: each is an endless series of prices, one every `step_s` seconds, that begins with the start price.

Pure: the same generator of random numbers gives the same series. Volatility is the standard deviation of the logarithm of the price
(of its log-odds, for a probability) over one second: 0.001 makes a price move by about 0.1 % in a second, 0.77 % in a minute.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random

# However long or wild a run is, exp() neither overflows nor reaches 0: a price stays within a factor of a million of its start.
LOG_RANGE = math.log(1e6)


def random_walk(random: Random, step_s: float, start: float, volatility: float) -> Iterator[float]:
    """Geometric Brownian motion without drift: the expected price stays at the start."""
    return jump_diffusion(random, step_s, start, volatility, jump_rate=0.0, jump_size=0.0)


def jump_diffusion(
    random: Random, step_s: float, start: float, volatility: float, jump_rate: float, jump_size: float
) -> Iterator[float]:
    """A random walk with jumps, `jump_rate` a second on average and at most one a step, of standard deviation `jump_size`.

    Source: Merton, Option pricing when underlying stock returns are discontinuous, 1976.
    """
    deviation = volatility * math.sqrt(step_s)
    jump_probability = -math.expm1(-jump_rate * step_s)
    # The mean of exp(x) is exp(deviation² / 2) for a normal x: taken off, so that the price has no trend.
    drift = -(deviation**2) / 2 - math.log1p(jump_probability * math.expm1(jump_size**2 / 2))
    log_move = 0.0
    while True:
        yield start * math.exp(log_move)
        log_move += drift + random.gauss(0.0, deviation)
        if jump_rate and random.random() < jump_probability:
            log_move += random.gauss(0.0, jump_size)
        log_move = max(-LOG_RANGE, min(LOG_RANGE, log_move))


def mean_reverting(
    random: Random, step_s: float, start: float, volatility: float, mean: float, reversion: float
) -> Iterator[float]:
    """An Ornstein-Uhlenbeck process of the log price: it is pulled to `mean` with the rate `reversion` a second.

    Worked number: reversion 0.05 halves a distance in ln 2 / 0.05 = 13.9 s; with volatility 0.001 the price stays
    within 0.001 / sqrt(2 * 0.05) = 0.32 % of its mean two thirds of the time. The step is exact, not Euler's.
    """
    kept = math.exp(-reversion * step_s)
    deviation = volatility * math.sqrt((1 - kept**2) / (2 * reversion))
    distance = math.log(start / mean)
    while True:
        yield mean * math.exp(distance)
        distance = max(-LOG_RANGE, min(LOG_RANGE, distance * kept + random.gauss(0.0, deviation)))


def probability(random: Random, step_s: float, start: float, volatility: float) -> Iterator[float]:
    """A price between 0 and 1 whose log-odds diffuse, and which is a martingale, as the odds of an event should be.

    By Itô's formula p = 1 / (1 + exp(-x)) has no trend when x drifts by tanh(x / 2) * volatility² / 2 a second. So it ends up
    near 0 or near 1, like a market that settles.
    """
    deviation = volatility * math.sqrt(step_s)
    log_odds = math.log(start / (1 - start))
    while True:
        yield 1 / (1 + math.exp(-log_odds))
        log_odds += math.tanh(log_odds / 2) * deviation**2 / 2 + random.gauss(0.0, deviation)
        log_odds = max(-LOG_RANGE, min(LOG_RANGE, log_odds))
