"""The checks before an order, and the kill switch. Pure: time comes in as a function, positions as figures, nothing is recorded.

The nine checks run in the original's order: kill switch, price, size, order size, position, notional, drawdown, rate, duplicate;
behind the kill switch comes ours, the hold.
An order that makes a position or the notional smaller passes those two limits, also when they are exceeded already: a limit that
forbids to get out is no protection. Limits count positions, not orders that rest in the market, as the original does.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from horizon.errors import ConfigError, KillSwitchActive, NotThereYet, RiskError
from horizon.positions import exact_sum
from horizon.records import OrderRequest, OrderSide, OrderType, Side

VIOLATION_EVERY_S = 60.0


class RiskConfig(msgspec.Struct, frozen=True):
    """The limits of one strategy; defaults are the original's. Raises: ConfigError for a limit that makes no sense."""

    max_position_per_market: float = 100.0  # units, of one market and side, either sign
    max_portfolio_notional: float = 1000.0  # money: sum of |size| x price x multiplier over all positions
    max_daily_drawdown_pct: float = 5.0  # fall of the daily PnL below its high, in percent of max_portfolio_notional
    max_order_size: float = 50.0  # units
    rate_limit_sustained: float = 50.0  # orders per second
    rate_limit_burst: int = 300  # orders at once
    dedup_window_ms: float = 1000.0  # an equal order within this time is refused, unless the first was canceled; 0 turns it off
    max_position_per_event: float | None = None
    price_min: float = 0.01
    price_max: float = 0.99

    def __post_init__(self) -> None:
        for name in (
            "max_position_per_market", "max_portfolio_notional", "max_daily_drawdown_pct", "max_order_size",
            "rate_limit_sustained", "rate_limit_burst",
        ):  # fmt: skip
            if not getattr(self, name) > 0:
                raise ConfigError(f"risk: {name} must be positive, got {getattr(self, name)}")
        if not self.dedup_window_ms >= 0:
            raise ConfigError(f"risk: dedup_window_ms must not be negative, got {self.dedup_window_ms}")
        if not self.price_min <= self.price_max:
            raise ConfigError(f"risk: price_min {self.price_min} is above price_max {self.price_max}")
        if self.max_position_per_event is not None:
            raise NotThereYet("risk: max_position_per_event needs events, which Horizon does not have yet; leave it out")


class Risk(msgspec.Struct, frozen=True):
    """The same limits under the original's short names; `hz.run(risk=...)` and `Engine(...)` take either."""

    max_position: float = 100.0
    max_notional: float = 1000.0
    max_drawdown_pct: float = 5.0
    max_order_size: float = 50.0
    rate_limit: float = 50.0
    rate_burst: int = 300
    price_min: float = 0.01
    price_max: float = 0.99

    @classmethod
    def equity(cls) -> Risk:
        """Limits for prices that are not probabilities: positions of 1000, 100,000 notional, orders of 500, prices to 100,000."""
        return cls(max_position=1000.0, max_notional=100_000.0, max_order_size=500.0, price_max=100_000.0)

    def to_config(self) -> RiskConfig:
        return RiskConfig(
            max_position_per_market=self.max_position,
            max_portfolio_notional=self.max_notional,
            max_daily_drawdown_pct=self.max_drawdown_pct,
            max_order_size=self.max_order_size,
            rate_limit_sustained=self.rate_limit,
            rate_limit_burst=self.rate_burst,
            price_min=self.price_min,
            price_max=self.price_max,
        )


class Exposure(NamedTuple):
    """What the checks have to know of the positions, for one order."""

    position: float  # signed units of the order's market and side
    notional: float  # of all positions, in money
    multiplier: float  # of the order's market
    total_pnl: float  # realized and unrealized, of all positions


class RiskGate:
    """The limits and what they remember: the kill switch, the day's PnL and its high, the rate, the newest orders."""

    def __init__(self, config: RiskConfig, now: Callable[[], float]) -> None:
        """`now` gives seconds that only rise: the monotonic clock, or the market's time in a replay."""
        self.config = config
        self.kill_switch_reason: str | None = None
        self.hold_reason: str | None = None  # why the strategy may cancel but not order, and what a person can do
        self.daily_pnl = 0.0
        self.now = now
        self._baseline = 0.0
        self._high_water = 0.0
        self._tokens = float(config.rate_limit_burst)
        self._tokens_at = now()
        # The newest orders, oldest first, and until when an equal one is a duplicate.
        self._newest: OrderedDict[_Key, tuple[float, OrderRequest]] = OrderedDict()

    @property
    def kill_switch_active(self) -> bool:
        return self.kill_switch_reason is not None

    def check(self, request: OrderRequest, exposure: Exposure, *, is_change: bool = False) -> None:
        """Let an order through and remember it. Raises: RiskError, KillSwitchActive when trading is forbidden.

        `is_change`: the request is what an open order is to become, so an equal one before it is no duplicate.
        """
        self._check_limits(request, exposure)
        self._check_rate()
        if not is_change:
            self._check_duplicate(request)

    def forget(self, request: OrderRequest) -> None:
        """The order was canceled or rejected: an equal one after it doubles nothing."""
        key = _key(request)
        if key in self._newest and self._newest[key][1] is request:
            del self._newest[key]

    def observe(self, total_pnl: float) -> str | None:
        """Take in the PnL of now. Returns why trading must end when the day's drawdown is beyond its limit."""
        self.daily_pnl = total_pnl - self._baseline
        self._high_water = max(self._high_water, self.daily_pnl)
        drawdown = self._high_water - self.daily_pnl
        drawdown_pct = 100.0 * drawdown / self.config.max_portfolio_notional
        if drawdown_pct <= self.config.max_daily_drawdown_pct:
            return None
        return (
            f"the daily PnL is {drawdown:.10g} below its high, {drawdown_pct:.4g} % of max_portfolio_notional "
            f"({self.config.max_portfolio_notional:g}); allowed are {self.config.max_daily_drawdown_pct:g} %"
        )

    def start_day(self, total_pnl: float) -> None:
        """Count the day's PnL and its high from here."""
        self._baseline = total_pnl
        self.daily_pnl = self._high_water = 0.0

    def resume_day(self, baseline: float, high_water_mark: float) -> None:
        """Go on with the day of the run before: both are total PnL."""
        self._baseline = baseline
        self._high_water = high_water_mark - baseline

    @property
    def baseline(self) -> float:
        """The total PnL that the day's PnL is counted from."""
        return self._baseline

    @property
    def high_water_mark(self) -> float:
        """The highest total PnL of the day."""
        return self._baseline + self._high_water

    def reset_high_water_mark(self) -> None:
        self._high_water = self.daily_pnl

    def _check_limits(self, request: OrderRequest, exposure: Exposure) -> None:
        config = self.config
        if self.kill_switch_reason is not None:
            raise KillSwitchActive("kill_switch", f"the kill switch is on: {self.kill_switch_reason}")
        if self.hold_reason is not None:
            raise RiskError("hold", self.hold_reason)
        if request.order_type is OrderType.Limit and not config.price_min <= request.price <= config.price_max:
            raise RiskError("price", f"price {request.price:g} is outside {config.price_min:g}..{config.price_max:g}")
        if not 0 < request.size < math.inf:
            raise RiskError("size", f"size must be positive, got {request.size}")
        if request.size > config.max_order_size:
            raise RiskError("order_size", f"size {request.size:g} is above max_order_size {config.max_order_size:g}")
        before = abs(exposure.position)
        after = abs(exact_sum(exposure.position, request.size if request.order_side is OrderSide.Buy else -request.size))
        if after > config.max_position_per_market and after > before:
            raise RiskError(
                "position",
                f"the position would be {after:.10g}, above max_position_per_market {config.max_position_per_market:g}",
            )
        notional = exposure.notional + (after - before) * abs(request.price) * exposure.multiplier
        if notional > config.max_portfolio_notional and after > before:
            raise RiskError(
                "notional",
                f"the notional would be {notional:.10g}, above max_portfolio_notional {config.max_portfolio_notional:g}",
            )
        breach = self.observe(exposure.total_pnl)
        if breach is not None:
            raise RiskError("drawdown", breach)

    def _check_rate(self) -> None:
        """A token bucket: it holds `burst` tokens and gains `sustained` a second."""
        now = self.now()
        gained = max(0.0, now - self._tokens_at) * self.config.rate_limit_sustained
        self._tokens = min(self.config.rate_limit_burst, self._tokens + gained)
        self._tokens_at = now
        if self._tokens < 1.0:
            raise RiskError(
                "rate_limit",
                f"more than {self.config.rate_limit_sustained:g} orders a second after a burst of {self.config.rate_limit_burst}",
            )
        self._tokens -= 1.0

    def _check_duplicate(self, request: OrderRequest) -> None:
        now, key = self.now(), _key(request)
        while self._newest:
            oldest = next(iter(self._newest))
            if self._newest[oldest][0] > now:
                break
            del self._newest[oldest]
        if key in self._newest:
            raise RiskError("duplicate", f"an equal order was submitted less than {self.config.dedup_window_ms:g} ms ago")
        if self.config.dedup_window_ms:
            self._newest[key] = (now + self.config.dedup_window_ms / 1000, request)


class Violations:
    """Which violations are recorded: the first of a kind (check and market), then at most one a minute, with the number between.

    A strategy that is refused in every cycle, or in a tight loop, would fill the journal with what the rate limit is there to stop.
    """

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], tuple[float, int]] = {}  # when one was recorded last, how many came since

    def note(self, check: str, market_id: str, now: float) -> int | None:
        """One more. Returns how many of its kind went unrecorded before it, or None when this one is to be counted only."""
        recorded_at, unrecorded = self._kinds.get((check, market_id), (-math.inf, 0))
        if now - recorded_at < VIOLATION_EVERY_S:
            self._kinds[check, market_id] = (recorded_at, unrecorded + 1)
            return None
        self._kinds[check, market_id] = (now, 0)
        return unrecorded

    def unrecorded(self) -> list[tuple[str, str, int]]:
        """(check, market, how many) of those that were counted only; they count as recorded from here."""
        rest = [(check, market_id, count) for (check, market_id), (_, count) in self._kinds.items() if count]
        self._kinds.clear()
        return rest


_Key = tuple[str, Side, OrderSide, OrderType, float, float]


def _key(request: OrderRequest) -> _Key:
    return request.market_id, request.side, request.order_side, request.order_type, request.price, request.size
