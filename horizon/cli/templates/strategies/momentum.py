"""Momentum: a price that rises faster than usual is expected to go on, so follow it, and get out when it turns.

Alone:       python strategies/momentum.py     or    horizon run strategies/momentum.py
Supervised:  horizon up                        (the table [strategies.momentum] in horizon.toml)
"""

from collections import deque
from statistics import fmean

import horizon as hz

MARKET = hz.Market("BTC-USD", "Bitcoin", asset_class="crypto")
SIZE = 0.01  # bought or sold at a time
MAX_HELD = 0.04  # units, long or short

prices: deque[float] = deque(maxlen=200)


def trend(ctx: hz.Context) -> float | None:
    """How far the fast average stands above the slow one, as a share of the price."""
    fast, slow = ctx.params["fast"], ctx.params["slow"]
    if not ctx.feed.is_stale():
        prices.append(ctx.feed.mid())
    if len(prices) < slow:
        return None
    newest = list(prices)[-slow:]
    return fmean(newest[-fast:]) / fmean(newest) - 1


def follow(ctx: hz.Context, strength: float | None) -> list[hz.Quote]:
    """Cross the spread in the direction of the trend; the other side of the quote stays out of reach."""
    held = ctx.inventory.net_for_market(MARKET.id)
    if strength is not None and strength > 0 and held < MAX_HELD:
        return [hz.Quote(ctx.feed.ask, round(ctx.feed.ask * 1.05, 2), SIZE)]
    if strength is not None and strength < 0 and held > -MAX_HELD:
        return [hz.Quote(round(ctx.feed.bid * 0.95, 2), ctx.feed.bid, SIZE)]
    return []  # nothing in the market


if __name__ == "__main__":
    hz.run(
        name="momentum",
        markets=[MARKET],
        feeds={MARKET.id: hz.Simulated("jump", start=60_000.0, spread=10.0)},
        pipeline=[trend, follow],
        params={"fast": 3, "slow": 8},
        risk=hz.Risk.equity(),
        interval=0.5,
    )
