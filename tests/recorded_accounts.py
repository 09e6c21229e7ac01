"""The recorded accounts of HORIZON_TEST_DATA as playback venues, with what their venue or bot said about them.

The files' oddities stay here: columns, time zones, a fee that is a Python dict in a string. The figures are those of the README
beside the files; what a file says about itself row by row (positions, closed PnL) is read from the row.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from horizon.records import FeeCurrency, Fill
from horizon.venues.playback import Playback, Row

HYPERLIQUID_FILE = "fills/hyperliquid-fills.csv.gz"
HUMMINGBOT_FILE = "fills/hummingbot-binance-spot-sei-usdt.csv"
INDIA = timezone(timedelta(hours=5, minutes=30))

POSITION_TOLERANCE = Decimal("0.000001")
SPOT_TOLERANCE = Decimal("1e-9")  # of a spot position: it is printed with ten significant digits


class Said(NamedTuple):
    """What Hyperliquid said beside one fill, and what our record lacks."""

    position_before: Decimal  # signed
    tolerance: Decimal  # of that, as far as its digits go
    closed_pnl: Decimal  # realised by this fill, without fees
    is_perpetual: bool
    is_closing: bool
    unrecorded: Decimal  # of this market until now: net units that came or left without a fill in the file


class Break(NamedTuple):
    """Where the position before a fill does not follow from the fills before it."""

    market_id: str
    at: str  # the file's time text
    size: Decimal


@dataclass(frozen=True)
class HyperliquidFigures:
    fills: int
    orders: int
    markets: int
    perpetual_fills: int
    perpetual_closings: int
    closed_pnl: Decimal
    fees: Decimal  # of mixed currencies
    end_positions: Mapping[str, Decimal]  # as the venue holds them


@dataclass(frozen=True)
class HyperliquidAccount:
    """One account: its fills, what the venue said beside each of them, and the README's figures."""

    strategy: str
    address: str
    figures: HyperliquidFigures
    fills: Sequence[Fill]
    said: Sequence[Said]
    breaks: Sequence[Break]

    @property
    def end_positions(self) -> dict[str, Decimal]:
        """What the recorded fills alone add up to, without the flat markets: the venue's figures less what is not recorded."""
        unrecorded = {fill.market_id: said.unrecorded for fill, said in zip(self.fills, self.said, strict=True)}
        ends = {market: self.figures.end_positions.get(market, Decimal(0)) - gap for market, gap in unrecorded.items()}
        return {market: size for market, size in ends.items() if size}

    @property
    def closed_pnl(self) -> dict[str, Decimal]:
        """What the venue says was realised in each perpetual."""
        sums: defaultdict[str, Decimal] = defaultdict(Decimal)
        for fill, said in zip(self.fills, self.said, strict=True):
            if said.is_perpetual:
                sums[fill.market_id] += said.closed_pnl
        return dict(sums)

    def playback(self, data: Path, **pace: Any) -> Playback:
        return hyperliquid_playback(data, self.address, **pace)


HYPERLIQUID_ACCOUNTS = {
    "0xae5eacaf9c6b9111fd53034a602c192a04e082ed": HyperliquidFigures(
        fills=563,
        orders=36,
        markets=5,
        perpetual_fills=460,
        perpetual_closings=172,
        closed_pnl=Decimal("67845.619531"),
        fees=Decimal("548.72926461"),
        end_positions={"DYDX": Decimal(600_000), "GMX": Decimal(5_000)},
    ),
    "0x72c6a4624e1dffa724e6d00d64ceae698af892a0": HyperliquidFigures(
        fills=1_430,
        orders=176,
        markets=26,
        perpetual_fills=1_413,
        perpetual_closings=563,
        closed_pnl=Decimal("403011.504159"),
        fees=Decimal("290.01104816"),
        end_positions={"@107": Decimal("2440.83565736")},
    ),
}


def hyperliquid(data: Path, address: str) -> HyperliquidAccount:
    """Read an account; its fills are those of its playback."""
    with gzip.open(data / HYPERLIQUID_FILE, "rt", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["Account"] == address]
    said, breaks = _follow(rows)
    fills = hyperliquid_playback(data, address).fills
    return HyperliquidAccount(f"hyper-{address[:6]}", address, HYPERLIQUID_ACCOUNTS[address], fills, said, breaks)


def hyperliquid_playback(data: Path, address: str, **pace: Any) -> Playback:
    """No column of the file is an id: trade ids were rounded by a spreadsheet, and one hash covers several fills."""
    return Playback(
        data / HYPERLIQUID_FILE,
        {
            "order_id": "Order ID",
            "market_id": "Coin",
            "order_side": "Side",
            "price": "Execution Price",
            "size": "Size Tokens",
            "fee": "Fee",
            "fee_currency": lambda row: FeeCurrency.Base if _fee_is_in_coins(row) else FeeCurrency.Quote,
            "is_maker": lambda row: row["Crossed"] == "FALSE",
            "timestamp": lambda row: datetime.strptime(row["Timestamp IST"], "%d-%m-%Y %H:%M").replace(tzinfo=INDIA).timestamp(),
        },
        name="hyperliquid",
        where=lambda row: row["Account"] == address,
        **pace,
    )


@dataclass(frozen=True)
class HummingbotAccount:
    """The bot's account: its fills, and the figures of its own history report."""

    strategy: str
    fills: Sequence[Fill]
    market_id: str = "SEI-USDT"
    buys: int = 196
    sells: int = 196
    orders: int = 388  # four of them have two fills
    bought: Decimal = Decimal(15_539)
    sold: Decimal = Decimal(15_435)
    paid: Decimal = Decimal("1934.8207")
    received: Decimal = Decimal("1920.9085")
    quote_fees: Decimal = Decimal("1.92090850")
    base_fees: Decimal = Decimal("15.539")
    net: Decimal = Decimal(104)  # before base fees
    end_price: float = 0.12425  # 0.1237 + 0.00055
    trade_pnl: float = -0.9902  # without fees, four digits
    total_pnl: float = -4.84

    def between(self, start: str, end: str) -> list[Fill]:
        """The fills of a window, given in ISO 8601 UTC."""
        first, last = (datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() for text in (start, end))
        return [fill for fill in self.fills if first <= fill.timestamp <= last]

    def playback(self, data: Path, **pace: Any) -> Playback:
        return hummingbot_playback(data, **pace)


def hummingbot(data: Path) -> HummingbotAccount:
    return HummingbotAccount("hummingbot", hummingbot_playback(data).fills)


def hummingbot_playback(data: Path, **pace: Any) -> Playback:
    """The venue numbers its trades per symbol; a buy's fee is in SEI, a sell's in USDT."""
    return Playback(
        data / HUMMINGBOT_FILE,
        {
            "fill_id": lambda row: f"{row['market']}-{row['symbol']}-{row['exchange_trade_id']}",
            "order_id": "order_id",
            "market_id": "symbol",
            "order_side": "trade_type",
            "price": "price",
            "size": "amount",
            "fee": lambda row: flat_fee(row["trade_fee"])["amount"],
            "fee_currency": lambda row: _hummingbot_fee_currency(row),
            "timestamp": lambda row: int(row["timestamp"]) / 1000,
        },
        name="binance",
        **pace,
    )


def flat_fee(text: str) -> dict[str, str]:
    """The one flat fee of a Hummingbot trade_fee: a Python dict in a string, whose texts hold no quotes. Raises: ValueError."""
    if '"' in text or "\\" in text:
        raise ValueError(f"not a fee as Hummingbot writes it: {text!r}")
    fee = json.loads(text.replace("'", '"'))
    if Decimal(fee["percent"]):
        raise ValueError(f"a fee in per cent was not expected: {text!r}")
    (flat,) = fee["flat_fees"]
    return dict(flat)


def _hummingbot_fee_currency(row: Row) -> FeeCurrency:
    currencies = {row["base_asset"]: FeeCurrency.Base, row["quote_asset"]: FeeCurrency.Quote}
    return currencies[flat_fee(row["trade_fee"])["token"]]


def _follow(rows: Sequence[Row]) -> tuple[list[Said], list[Break]]:
    """Add the sizes up by hand, apart from the product's fold, and note where the venue's positions do not follow."""
    positions: defaultdict[str, Decimal] = defaultdict(Decimal)
    unrecorded: defaultdict[str, Decimal] = defaultdict(Decimal)
    said, breaks = [], []
    for row in rows:
        coin, before = row["Coin"], Decimal(row["Start Position"])
        tolerance = max(POSITION_TOLERANCE, abs(before) * SPOT_TOLERANCE if _is_spot(row) else Decimal(0))
        missing = before - positions[coin] - unrecorded[coin]
        if abs(missing) > tolerance:
            unrecorded[coin] += missing
            breaks.append(Break(coin, row["Timestamp IST"], missing))
        size, fee = Decimal(row["Size Tokens"]), Decimal(row["Fee"])
        positions[coin] += (size if row["Side"] == "BUY" else -size) - (fee if _fee_is_in_coins(row) else 0)
        is_closing = row["Direction"].startswith("Close")
        closed_pnl = Decimal(row["Closed PnL"])
        said.append(Said(before, tolerance, closed_pnl, not _is_spot(row), is_closing, unrecorded[coin]))
    return said, breaks


def _is_spot(row: Row) -> bool:
    return row["Coin"].startswith("@")


def _fee_is_in_coins(row: Row) -> bool:
    return _is_spot(row) and row["Side"] == "BUY"
