"""A process that plays one recorded account through an Engine: `python playing.py DATA DATABASE ACCOUNT`.

Before every fill it compares what the engine holds with what the venue said, and at the end it prints what the engine holds as JSON.
"""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from pathlib import Path

from recorded_accounts import HyperliquidAccount, hummingbot, hyperliquid

from horizon import Engine
from horizon.positions import exact
from horizon.records import Side

REDELIVERED = 3


def main(data: Path, database: str, name: str) -> None:
    account = hyperliquid(data, name) if name.startswith("0x") else hummingbot(data)
    playback = account.playback(data, rows_per_poll=1, redeliver=REDELIVERED)
    mismatches = []
    with Engine(db_path=database, strategy=account.strategy, venue=playback) as engine:
        engine.start_run(account.strategy)
        for number, fill in enumerate(account.fills):
            if isinstance(account, HyperliquidAccount):
                said = account.said[number]
                held = sum((exact(one.size) for one in engine.positions_for_market(fill.market_id)), Decimal(0))
                if abs(held + said.unrecorded - said.position_before) > said.tolerance:
                    mismatches.append([fill.fill_id, str(held), str(said.position_before)])
            while engine.fills_applied == number:
                engine.poll_fills()
        held_at_the_end = [
            [one.market_id, one.size, one.realized_pnl, one.fees, one.base_fees]
            for one in engine.all_positions()
            if one.side is Side.Long
        ]
    print(
        json.dumps({"strategy": account.strategy, "fills": len(account.fills), "mismatches": mismatches, "held": held_at_the_end})
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
