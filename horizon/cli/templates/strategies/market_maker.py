"""Market maker: quote both sides of a prediction market around what it is worth, and lean against what is held.

Alone:       python strategies/market_maker.py     or    horizon run strategies/market_maker.py
Supervised:  horizon up                            (the table [strategies.market_maker] in horizon.toml)
"""

import horizon as hz

# A prediction market pays 1 if the event happens and 0 if not, so its price is a probability.
MARKET = hz.Market("rain-in-london-tomorrow", "Rain in London tomorrow?")


def fair_value(ctx: hz.Context) -> float | None:
    """The first step of the pipeline. What it returns goes to the next one."""
    if ctx.feed.is_stale():
        return None
    return ctx.feed.mid()


def quote(ctx: hz.Context, fair: float | None) -> list[hz.Quote]:
    """The last step returns the quotes to have in the market instead of the last cycle's; None would leave those as they are."""
    if fair is None:
        return []
    held = ctx.inventory.net_for_market(MARKET.id)
    # Long: quote lower, so that the next sale is likelier than the next purchase. Short: the other way round.
    lean = held * ctx.params["lean_per_unit"]
    return hz.quotes(fair - lean, spread=ctx.params["spread"], size=5)


if __name__ == "__main__":
    hz.run(
        name="market_maker",
        markets=[MARKET],
        # Data out of a generator: no account, no network; seed=1 would repeat it. Put your own feed here.
        feeds={MARKET.id: hz.Simulated("probability", volatility=0.05)},
        pipeline=[fair_value, quote],
        params={"spread": 0.04, "lean_per_unit": 0.0005},
        # Limits that every order must pass. The defaults suit prices between 0.01 and 0.99.
        risk=hz.Risk(max_position=60, max_order_size=10),
        interval=0.5,  # seconds between two cycles
    )
