"""Recorded accounts played through engines at the same time into one database: the engine and a reader agree with the venue."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from recorded_accounts import HYPERLIQUID_ACCOUNTS, HummingbotAccount, HyperliquidAccount, hummingbot, hyperliquid
from road import rows, script

from horizon.paths import DatabasePaths
from horizon.positions import exact
from horizon.records import FeeCurrency, OrderSide
from horizon.store.connection import open_reader
from horizon.store.read import PositionView, positions

pytestmark = pytest.mark.recorded

Played = dict[str, dict[str, Any]]


@pytest.fixture
def played(recorded_data: Path, database: DatabasePaths) -> Played:
    """All three accounts, each in a process of its own, all at once; what each held when it stopped, by strategy."""
    players = [
        subprocess.Popen(
            [sys.executable, script("playing.py"), str(recorded_data), str(database.database), name], stdout=subprocess.PIPE
        )
        for name in (*HYPERLIQUID_ACCOUNTS, "hummingbot")
    ]
    results = [json.loads(player.communicate(timeout=100)[0]) for player in players]
    assert [player.returncode for player in players] == [0, 0, 0]
    return {result["strategy"]: result for result in results}


def by_market(database: DatabasePaths, strategy: str) -> dict[str, PositionView]:
    with closing(open_reader(database.database)) as reader:
        return {position.market_id: position for position in positions(reader, strategy=strategy)}


def total(numbers: list[float]) -> Decimal:
    return sum((exact(number) for number in numbers), Decimal(0))


def test_recorded_accounts_end_where_their_venues_say(recorded_data: Path, database: DatabasePaths, played: Played) -> None:
    for address in HYPERLIQUID_ACCOUNTS:
        _check_hyperliquid(hyperliquid(recorded_data, address), database, played)
    _check_hummingbot(hummingbot(recorded_data), database, played)
    # Every fill is one row, of the strategy that got it; what was delivered again changed nothing.
    counted = dict(rows(database, "SELECT strategy, count(*) FROM fills GROUP BY strategy"))
    assert counted == {strategy: result["fills"] for strategy, result in played.items()}
    assert rows(database, "SELECT count(*) FROM run_gaps") == [(0,)]


def _check_hyperliquid(account: HyperliquidAccount, database: DatabasePaths, played: Played) -> None:
    result = played[account.strategy]
    assert result["mismatches"] == [], "positions before each fill"
    stored = by_market(database, account.strategy)
    held = {market: (size, realized, fees, base_fees) for market, size, realized, fees, base_fees in result["held"]}
    assert {market: (one.size, one.realized_pnl, one.fees, one.base_fees) for market, one in stored.items()} == held
    ends = {market: exact(size) for market, (size, *_) in held.items() if abs(size) > 1e-6}
    assert ends.keys() == account.end_positions.keys()
    for market, size in account.end_positions.items():
        assert abs(ends[market] - size) <= Decimal("1e-6")
    for market, closed in account.closed_pnl.items():
        realized = exact(held[market][1])
        closings = sum(
            said.is_closing for fill, said in zip(account.fills, account.said, strict=True) if fill.market_id == market
        )
        assert abs(realized - closed) <= max(abs(closed) / 1000, Decimal("0.01") * closings), market
    assert abs(total([fees + base for _, _, fees, base in held.values()]) - account.figures.fees) <= Decimal("1e-6")


def _check_hummingbot(account: HummingbotAccount, database: DatabasePaths, played: Played) -> None:
    (held,) = played[account.strategy]["held"]
    stored = by_market(database, account.strategy)[account.market_id]
    assert [account.market_id, stored.size, stored.realized_pnl, stored.fees, stored.base_fees] == held
    assert exact(stored.fees) == account.quote_fees
    assert exact(stored.base_fees) == account.base_fees
    # The bot's report leaves fees out of its net; we hold what is left after those taken in SEI.
    assert exact(stored.size) + exact(stored.base_fees) == account.net
    volumes = {
        OrderSide(side): (
            total([size for size, _ in sizes]),
            sum((exact(size) * exact(price) for size, price in sizes), Decimal(0)),
        )
        for side in ("buy", "sell")
        if (
            sizes := rows(database, "SELECT size, price FROM fills WHERE strategy = ? AND order_side = ?", account.strategy, side)
        )
    }
    assert volumes[OrderSide.Buy][0] == account.bought
    assert volumes[OrderSide.Sell][0] == account.sold
    assert abs(volumes[OrderSide.Buy][1] - account.paid) < Decimal("0.0001")
    assert abs(volumes[OrderSide.Sell][1] - account.received) < Decimal("0.0001")
    assert {
        FeeCurrency(row[0])
        for row in rows(database, "SELECT DISTINCT fee_currency FROM fills WHERE strategy = ?", account.strategy)
    } == {
        FeeCurrency.Base,
        FeeCurrency.Quote,
    }
