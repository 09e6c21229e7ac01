"""The contract between the cycle and a source of market data, and what a pipeline sees of it."""

from __future__ import annotations

import time
from typing import Protocol, runtime_checkable

import msgspec

STALE_AFTER_S = 30.0


class FeedData(msgspec.Struct, frozen=True):
    """The newest state of one feed. Zero means that this side has not been seen yet."""

    price: float = 0.0  # last trade, or the middle of the quote where there are no trades
    timestamp: float = 0.0  # Unix seconds of the last update, in the market's time
    bid: float = 0.0
    ask: float = 0.0
    volume_24h: float = 0.0
    source: str = ""
    last_trade_size: float = 0.0
    last_trade_is_buy: bool | None = None
    age_s: float | None = None  # since the last update, on the feed's own clock, when this was taken

    def is_stale(self, max_age_secs: float = STALE_AFTER_S) -> bool:
        """Whether the last update is older than this; a feed that never had one is stale."""
        age_s = self.age()
        return age_s is None or age_s > max_age_secs

    def age(self) -> float | None:
        """Seconds since the last update; None before the first."""
        if self.timestamp <= 0:
            return None
        # A replay's timestamps lie years back: its age is told by the feed, in the market's time.
        return time.time() - self.timestamp if self.age_s is None else self.age_s

    def mid(self) -> float:
        """The middle of bid and ask, else the last price, else 0."""
        return (self.bid + self.ask) / 2 if self.bid > 0 and self.ask > 0 else self.price


@runtime_checkable
class Feed(Protocol):
    """A source of market data for one name in `ctx.feeds`. Called from one thread.

    `paced` is True when the feed follows a clock and the cycle keeps its interval; False when the feed moves one event a call
    (a replay as fast as possible) and the cycle runs without sleeping until it is exhausted.
    """

    paced: bool

    def start(self) -> None:
        """Open what the feed reads. Raises: ConfigError with the file or address when it cannot."""
        ...

    def stop(self) -> None: ...

    def advance(self) -> bool:
        """Take in what has happened since the last call (paced) or the next event (not paced). Never blocks.

        Returns False once nothing more will ever come: the call that takes the last event still returns True, so that the cycle
        sees it; every later one changes nothing and returns False. Raises: ConfigError when what it reads is broken for good.
        """
        ...

    def next_time(self) -> float | None:
        """The market time of the next event, where it is known: unpaced feeds are advanced in this order."""
        ...

    def snapshot(self) -> FeedData: ...
