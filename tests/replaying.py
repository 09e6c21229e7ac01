"""A process that trades one recorded day with hz.run: `python replaying.py DATA DATABASE DAY`. Prints what its engine held, as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from recorded_feeds import binance_quotes, binance_trades, eurusd_quotes, mtgox_trades

import horizon as hz

DAYS = {
    "binance": {"btcusdt": binance_quotes, "trades": binance_trades},
    "eurusd": {"eurusd": eurusd_quotes},
    "mtgox": {"btcusd": mtgox_trades},
}
REQUOTE_EVERY = 10  # cycles


class Quoter:
    """Quotes both sides at the touch, so that paper fills are many; leans against its position."""

    def __init__(self) -> None:
        self.engine: hz.Engine | None = None
        self.cycles = 0

    def __call__(self, ctx: hz.Context) -> hz.Quote | None:
        self.engine = ctx.params["engine"]
        self.cycles += 1
        if self.cycles % REQUOTE_EVERY or not ctx.feed.mid():
            return None
        half = max(ctx.feed.ask - ctx.feed.bid, ctx.feed.mid() * 1e-4) / 2
        middle = ctx.feed.mid() - ctx.inventory.net * half / 10
        return hz.Quote(round(middle - half, 6), round(middle + half, 6), 0.1)


def main(data: Path, database: str, day: str) -> None:
    quoter = Quoter()
    market = next(iter(DAYS[day]))
    hz.run(
        name=day,
        markets=[hz.Market(market, asset_class="crypto")],
        feeds={name: feed(data) for name, feed in DAYS[day].items()},
        pipeline=[quoter],
        risk=hz.Risk(max_position=100, max_notional=1e9, max_drawdown_pct=100, max_order_size=10, rate_limit=1e6, rate_burst=1000000,
                     price_min=0.0001, price_max=1e6),
        db_path=database,
    )  # fmt: skip
    engine = quoter.engine
    assert engine is not None
    held = [[one.market_id, one.size, one.avg_entry_price, one.realized_pnl, one.fees] for one in engine.all_positions()]
    print(
        json.dumps(
            {
                "strategy": day,
                "cycles": quoter.cycles,
                "fills": engine.fills_applied,
                "orders": engine.orders_submitted,
                "held": held,
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
