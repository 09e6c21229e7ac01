"""What simulated and replayed feeds share: ticks with times of their own, played on a clock or one a call.

Owns the order of ticks, market time and staleness. Where the ticks come from is the subclass's business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator

import msgspec

from horizon.clock import Clock
from horizon.errors import ConfigError
from horizon.feeds.base import FeedData
from horizon.feeds.volume import RollingVolume


class Tick(msgspec.Struct, frozen=True, gc=False):
    """One event of a market: a quote, a trade, or both at once. None means that this half did not happen."""

    timestamp: float  # Unix seconds, market time
    bid: float | None = None  # bid and ask come together
    ask: float | None = None
    price: float | None = None  # of a trade
    size: float = 0.0  # of that trade, >= 0
    is_buy: bool | None = None  # the side that took liquidity, where it is known


class PlayedFeed(ABC):
    """Plays ticks in the order of their times, each exactly once, however often `advance` is called.

    Paced (`speed` is a number): market time starts at the first tick when the feed starts, and runs `speed` times as fast as the
    monotonic clock. Age is measured in market time, so a feed whose ticks are all played grows stale. Not paced (`speed` is
    None): one tick a call, and market time is the time of the newest tick.

    A source that fails midway has its good ticks played first; then every `advance` raises what was wrong.
    """

    paced: bool

    def __init__(self, source: str, speed: float | None, clock: Clock) -> None:
        self.paced = speed is not None
        self._source = source
        self._speed = speed or 0.0
        self._clock = clock
        self._ticks: Generator[Tick, None, None] | None = None
        self._next: Tick | None = None
        self._problem: ConfigError | None = None
        self._first_timestamp = 0.0
        self._started_at = 0.0
        self._forget()

    @abstractmethod
    def _play(self) -> Generator[Tick, None, None]:
        """All ticks, in order of time; closing it lets go of what it reads. Raises: ConfigError."""

    def start(self) -> None:
        """Begin at the first tick; a second start begins anew. Raises: ConfigError."""
        self.stop()
        self._forget()
        self._ticks = self._play()
        self._next = next(self._ticks, None)
        self._first_timestamp = self._next.timestamp if self._next else 0.0
        self._started_at = self._clock.monotonic()

    def stop(self) -> None:
        """Let go of the source. What was seen stays in `snapshot`."""
        if self._ticks is not None:
            self._ticks.close()
        self._next = None
        self._problem = None

    def advance(self) -> bool:
        if self._next is None:
            if self._problem is not None:
                raise self._problem
            return False
        if not self.paced:
            self._take(self._next)
            return True
        now = self._market_time()
        while self._next is not None and self._next.timestamp <= now:
            self._take(self._next)
        return True

    def next_time(self) -> float | None:
        return self._next.timestamp if self._next is not None else None

    def snapshot(self) -> FeedData:
        if not self._timestamp:
            return FeedData(source=self._source)
        quote, trade, now = self._quote, self._trade, self._market_time()
        bid, ask = (quote.bid or 0.0, quote.ask or 0.0) if quote else (0.0, 0.0)
        return FeedData(
            price=(bid + ask) / 2 if trade is None else trade.price or 0.0,
            timestamp=self._timestamp,
            bid=bid,
            ask=ask,
            volume_24h=self._volume.total(now),
            source=self._source,
            last_trade_size=trade.size if trade else 0.0,
            last_trade_is_buy=trade.is_buy if trade else None,
            age_s=now - self._timestamp,
        )

    def _forget(self) -> None:
        self._quote: Tick | None = None
        self._trade: Tick | None = None
        self._timestamp = 0.0
        self._volume = RollingVolume()

    def _take(self, tick: Tick) -> None:
        self._timestamp = tick.timestamp
        if tick.bid is not None:
            self._quote = tick
        if tick.price is not None:
            self._trade = tick
            self._volume.add(tick.timestamp, tick.size)
        self._next = self._read()

    def _read(self) -> Tick | None:
        assert self._ticks is not None
        try:
            return next(self._ticks, None)
        except ConfigError as error:
            # A generator that raised looks exhausted from then on: without this a broken line would end the feed in silence.
            self._problem = error
            return None

    def _market_time(self) -> float:
        if not self.paced:
            return self._timestamp
        return self._first_timestamp + (self._clock.monotonic() - self._started_at) * self._speed
