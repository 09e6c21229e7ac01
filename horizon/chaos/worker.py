"""The victim: a real `hz.run` whose pipeline does a seeded mix of everything a strategy does, under the eyes of a witness."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import horizon as hz
from horizon import runner
from horizon.chaos.exchange import Exchange
from horizon.chaos.witness import Witness
from horizon.context import Context
from horizon.engine import Engine
from horizon.errors import Halt, HorizonError
from horizon.records import OrderRequest, OrderSide, Side
from horizon.risk import RiskConfig

MARKETS = ("alpha", "beta", "gamma")
_NO_LIMITS = RiskConfig(
    max_position_per_market=1e12, max_portfolio_notional=1e12, max_daily_drawdown_pct=1e12, max_order_size=1e9,
    rate_limit_sustained=1e9, rate_limit_burst=1_000_000_000, dedup_window_ms=0.0,
)  # fmt: skip
_INTERVAL_S = 0.02
_BURST = 150
_OPEN_ORDERS = 40
_SIZES = (0.1, 0.2, 0.3, 1.0, 3.0, 7.5, 0.001, 33.333333)


def trade(name: str, seed: int, database: str, durability: str, witness: str, account: str, stop_timeout_s: float) -> None:
    """Be one strategy until told to stop, under a supervisor or alone; every incarnation draws other numbers of the same seed."""
    lives = len(list(Path(witness).iterdir()))
    chance = Random(f"{seed} {name} {lives}")  # noqa: S311
    watched = Witness(Path(witness))
    watched.attend()
    if runner.assignment is None:
        runner.assignment = runner.Assignment(
            name=name, db_path=Path(database), durability=durability, stop_timeout_s=stop_timeout_s
        )
    try:
        hz.run(
            name,
            exchange=Exchange(Path(account), name, chance),
            markets=MARKETS,
            feeds={market: hz.Simulated(seed=seed, interval_s=0.05) for market in MARKETS},
            pipeline=[Mix(chance, watched).act],
            risk=_NO_LIMITS,
            interval=_INTERVAL_S,
        )
    except Halt as halt:
        print(f"{name} halted: {halt.reason}", file=sys.stderr)
        sys.exit(halt.exit_code)


class Mix:
    """Orders, cancels, amends and snapshots, in bursts, evenly and not at all."""

    def __init__(self, chance: Random, witness: Witness) -> None:
        self._chance = chance
        self._witness = witness
        self._pace = 3
        self._rounds_left = 0

    def act(self, context: Context) -> None:
        """A pipeline function: it orders by itself, so it returns no quotes."""
        engine: Engine = context.params["engine"]
        if self._rounds_left == 0:
            self._pace, self._rounds_left = self._chance.choice(((3, 60), (3, 60), (1, 90), (10, 15), (_BURST, 1), (0, 40)))
        self._rounds_left -= 1
        for _ in range(self._pace):
            self._act(engine, context.market_id)
        self._witness.note(engine.all_positions())

    def _act(self, engine: Engine, market_id: str) -> None:
        chance = self._chance
        opened = engine.open_orders_for_market(market_id)
        what = chance.random()
        try:
            if what < 0.7 and len(opened) < _OPEN_ORDERS:
                side, order_side = chance.choice((Side.Yes, Side.No)), chance.choice((OrderSide.Buy, OrderSide.Sell))
                price = round(chance.uniform(0.02, 0.98), chance.choice((2, 3)))
                engine.submit_order(OrderRequest(market_id, side, order_side, chance.choice(_SIZES), price))
            elif what < 0.97 and opened:
                order = chance.choice(opened)
                if what < 0.9:
                    engine.cancel(order.id)
                else:
                    engine.amend_order(order.id, new_price=round(chance.uniform(0.02, 0.98), 2))
            elif what > 0.995:
                engine.snapshot_positions()
        except HorizonError:
            pass  # a rejected order, an amend that came too late, a full journal: what it recorded is what counts
