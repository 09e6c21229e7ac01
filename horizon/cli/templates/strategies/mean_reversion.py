"""Mean reversion: a price that strayed from its average is expected back, so buy below the usual range and sell above it.

Alone:       python strategies/mean_reversion.py     or    horizon run strategies/mean_reversion.py
Supervised:  horizon up                              (the table [strategies.mean_reversion] in horizon.toml)
"""

from collections import deque
from statistics import fmean, pstdev

import horizon as hz

# An asset class makes positions long (or short) instead of yes and no.
MARKET = hz.Market("ETH-USD", "Ether", asset_class="crypto")
WINDOW = 20  # prices
BAND = 1.0  # standard deviations from the average
MAX_HELD = 2.0  # units, long or short

prices: deque[float] = deque(maxlen=WINDOW)


def usual_range(ctx: hz.Context) -> tuple[float, float] | None:
    """Where the price has been lately: (low, high)."""
    if not ctx.feed.is_stale():
        prices.append(ctx.feed.mid())
    if len(prices) < 5:
        return None
    mean, deviation = fmean(prices), pstdev(prices)
    return mean - BAND * deviation, mean + BAND * deviation


def quote(ctx: hz.Context, usual: tuple[float, float] | None) -> hz.Quote | None:
    """Wait at both ends of the range."""
    if usual is None:
        return None
    low, high = usual
    held = ctx.inventory.net_for_market(MARKET.id)
    # A side that would take the position too far moves out of reach; never pay more than the market asks.
    bid = min(low, ctx.feed.ask) if held < MAX_HELD else low * 0.9
    ask = max(high, ctx.feed.bid) if held > -MAX_HELD else high * 1.1
    return hz.Quote(round(bid, 2), round(ask, 2), size=0.5)


if __name__ == "__main__":
    hz.run(
        name="mean_reversion",
        markets=[MARKET],
        feeds={MARKET.id: hz.Simulated("mean_reverting", start=2000.0, volatility=0.002, reversion=0.5)},
        pipeline=[usual_range, quote],
        # Limits for prices that are no probabilities.
        risk=hz.Risk.equity(),
        interval=0.5,
    )
