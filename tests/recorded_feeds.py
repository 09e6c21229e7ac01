"""The recorded market data of HORIZON_TEST_DATA as feeds: by default as fast as possible, one row a call."""

from __future__ import annotations

from pathlib import Path

from horizon.clock import SYSTEM_CLOCK, Clock
from horizon.feeds.replay import Replay

BINANCE_TRADES = 2_001
BINANCE_QUOTES = 451
EURUSD_QUOTES = 41_367
MTGOX_TRADES = 2_331


def binance_trades(data: Path, speed: float | str = "max", clock: Clock = SYSTEM_CLOCK) -> Replay:
    """BTC/USDT, the first 46 seconds of 2021-01-08. When the buyer was the maker, the seller took."""
    return Replay(
        data / "ticks/binance-btcusdt-trades-20210108.csv",
        columns={"size": "quantity", "side": "buyer_maker"},
        sides={"True": "sell", "False": "buy"},
        time_unit="iso",
        speed=speed,
        clock=clock,
    )


def binance_quotes(data: Path, speed: float | str = "max", clock: Clock = SYSTEM_CLOCK) -> Replay:
    """The quotes of the same seconds."""
    return Replay(data / "ticks/binance-btcusdt-quotes-20210108.csv", "quotes", time_unit="iso", speed=speed, clock=clock)


def eurusd_quotes(data: Path, speed: float | str = "max", clock: Clock = SYSTEM_CLOCK) -> Replay:
    """EUR/USD, the whole of 2014-05-07: a zip of one file without a header, in milliseconds since midnight."""
    return Replay(
        data / "ticks/oanda-eurusd-quotes-20140507.zip",
        "quotes",
        columns={"timestamp": 0, "bid": 1, "ask": 2},
        time_unit="ms",
        date="2014-05-07",
        header=False,
        speed=speed,
        clock=clock,
    )


def mtgox_trades(data: Path, speed: float | str = "max", clock: Clock = SYSTEM_CLOCK) -> Replay:
    """BTC/USD, the whole of 2013-01-01. The id is the time in microseconds; `type` is the side that took."""
    return Replay(
        data / "ticks/mtgox-btcusd-trades-20130101.csv",
        columns={"timestamp": "id", "size": "amount", "side": "type"},
        time_unit="us",
        speed=speed,
        clock=clock,
    )
