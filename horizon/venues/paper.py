"""The paper venue: orders that fill when a price crosses them, in this process, with no account and no network.

The original's rules: a tick fills every buy with price >= mid and every sell with price <= mid, at the order's own limit; a fee is
a rate on |size x price|. Market orders are takers and fill at the mid. Where the original is silent or impractical:

- **Maker or taker** is decided when an order arrives (or its price is amended), against the newest mid: a limit beyond it would
  have met the other side at once, so it is a taker's. Without a mid yet, the first tick decides. The original compares at the
  time of the fill, which makes a taker of every resting order that a moving price runs through.
- **A market order** fills at once when a mid is known, else at the first tick.
- **Partial fills.** A tick fills `partial_fill_ratio` of the *order*. The last fill takes the rest, however small, and all sizes
  are cut in decimals so that they sum up to the order's size exactly.
- **FAK and FOK** look at the newest mid on arrival and are rejected when there is none: FAK takes one tick's share and the rest is
  canceled; FOK is canceled when that share is not the whole order. GTD and Day rest like GTC: a request carries no expiry, and no
  order may depend on the wall clock.
- **`post_only`** is accepted and ignored: it is the default of a request, and the original fills such orders when they cross.
- **A No order** is compared with 1 - mid, as the run loop marks No positions: the mid is the price of Yes.
- **The past.** Orders live as long as this object. An order it does not know ended with the process that sent it: Canceled.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, ROUND_HALF_EVEN, Context, Decimal

from horizon.clock import SYSTEM_CLOCK, Clock
from horizon.errors import ConfigError, VenueError
from horizon.ids import fill_id
from horizon.positions import exact
from horizon.records import Fill, Order, OrderSide, OrderStatus, OrderType, Side, TimeInForce
from horizon.venues.base import OrderUpdate, VenueEvent

REMEMBERED = 10_000

_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
# A share of 12 digits leaves room for the rest of the order in the 15 digits that a float keeps of any decimal.
_SHARE = Context(prec=12, rounding=ROUND_HALF_EVEN, Emax=MAX_EMAX, Emin=MIN_EMIN)
_DUST = Decimal("0.000001")  # of an order: a smaller rest is filled along instead of being left behind
_ONE = Decimal(1)

_GONE = "the paper venue does not hold this order: its orders end with the process that sent them"


class Paper:
    """The venue of paper trading. Deterministic: the same orders and ticks give the same fills with the same ids.

    Shape: `fills_since` and the endings of orders reach back `remembered` fills and orders.
    Raises: ConfigError for a rate that is not finite, or a ratio outside 0 < ratio <= 1.
    Source: the original's paper exchange, its fee and partial fill settings.
    """

    name = "paper"

    def __init__(
        self,
        fee_rate: float = 0.001,
        maker_fee_rate: float | None = None,
        taker_fee_rate: float | None = None,
        partial_fill_ratio: float = 1.0,
        *,
        remembered: int = REMEMBERED,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._maker_rate = _rate("maker", fee_rate if maker_fee_rate is None else maker_fee_rate)
        self._taker_rate = _rate("taker", fee_rate if taker_fee_rate is None else taker_fee_rate)
        if not 0.0 < partial_fill_ratio <= 1.0:
            raise ConfigError(f"paper venue: the partial fill ratio must be above 0 and at most 1, got {partial_fill_ratio}")
        self._ratio = exact(float(partial_fill_ratio))
        self._clock = clock
        self._mids: dict[str, float] = {}
        self._open: dict[str, _OpenOrder] = {}
        self._books: dict[str, dict[str, _OpenOrder]] = {}  # by market, in the order of arrival
        self._ended: OrderedDict[str, OrderUpdate] = OrderedDict()
        self._remembered = remembered
        self._fills: deque[Fill] = deque(maxlen=remembered)
        self._events: list[VenueEvent] = []

    def connect(self) -> None:
        pass

    def close(self) -> None:
        pass

    def submit(self, order: Order) -> OrderUpdate:
        """Accept an order; FAK and FOK are rejected while no mid is known. An id that is known already makes no second order."""
        if order.id in self._open or order.id in self._ended:
            return self.order_by_client_id(order.id)
        mid = self._mids.get(order.market_id)
        now_or_never = order.time_in_force in (TimeInForce.FAK, TimeInForce.FOK)
        if now_or_never and mid is None:
            reason = f"no price of {order.market_id} is known yet, and a {order.time_in_force} order cannot wait for one"
            return self._remember(OrderUpdate(order.id, OrderStatus.Rejected, reason))
        taken = _OpenOrder.of(order)
        self._open[order.id] = self._books.setdefault(order.market_id, {})[order.id] = taken
        if mid is not None:
            taken.meet(mid)
            if now_or_never:
                self._fill_now_or_never(taken, mid, order.time_in_force)
            elif taken.is_market:
                self._fill(taken, mid)
        return OrderUpdate(order.id, OrderStatus.Accepted)

    def cancel(self, order_id: str) -> OrderUpdate:
        order = self._open.get(order_id)
        return self._end(order, OrderStatus.Canceled) if order else self.order_by_client_id(order_id)

    def amend(self, order_id: str, price: float, size: float) -> OrderUpdate:
        """Change an open order; refused when the size does not exceed what is filled. A new price decides maker or taker anew."""
        order = self._open.get(order_id)
        if order is None:
            return self.order_by_client_id(order_id)
        if not (math.isfinite(price) and math.isfinite(size)):
            return OrderUpdate(order_id, order.status, f"price and size must be finite numbers, got {price} and {size}")
        filled = _EXACT.subtract(order.size, order.rest)
        rest = _EXACT.subtract(exact(float(size)), filled)
        if rest <= 0 or not _fits_a_float(rest):
            return OrderUpdate(order_id, order.status, f"{filled} are filled already, which a size of {size} does not fit")
        if price != order.price and not order.is_market:
            order.price, order.is_maker = float(price), None
            if order.market_id in self._mids:
                order.meet(self._mids[order.market_id])
        order.size, order.rest = exact(float(size)), rest
        return OrderUpdate(order_id, order.status, price=price, size=size)

    def tick(self, market_id: str, mid: float) -> int:
        """Match the open orders of a market against a price; the fills wait for `poll`. Returns their number.

        Raises: VenueError when the mid is NaN or infinite.
        """
        if not math.isfinite(mid):
            raise VenueError(f"paper: the price of {market_id} must be a finite number, got {mid}")
        mid = self._mids[market_id] = float(mid)  # strategies and feeds also hand over the numbers of numpy
        filled = 0
        for order in list(self._books.get(market_id, {}).values()):
            order.meet(mid)
            if order.crosses(mid):
                self._fill(order, mid)
                filled += 1
        return filled

    def poll(self) -> list[VenueEvent]:
        events, self._events = self._events, []
        return events

    def fills_since(self, timestamp: float) -> list[Fill]:
        return [fill for fill in self._fills if fill.timestamp >= timestamp]

    def order_by_client_id(self, order_id: str) -> OrderUpdate:
        """How an order stands or ended; one that is not known here is Canceled."""
        order = self._open.get(order_id)
        if order is not None:
            return OrderUpdate(order_id, order.status)
        return self._ended.get(order_id) or OrderUpdate(order_id, OrderStatus.Canceled, _GONE)

    def _fill_now_or_never(self, order: _OpenOrder, mid: float, time_in_force: TimeInForce) -> None:
        order.is_maker = False
        enough = time_in_force is TimeInForce.FAK or self._next_size(order) == order.rest
        if enough and order.crosses(mid):
            self._fill(order, mid)
        if order.rest:
            self._events.append(self._end(order, OrderStatus.Canceled, f"{time_in_force}: not more could be filled at once"))

    def _fill(self, order: _OpenOrder, mid: float) -> None:
        size = self._next_size(order)
        price = order.price_for(mid) if order.is_market else order.price
        rate = self._maker_rate if order.is_maker else self._taker_rate
        order.fills += 1
        fill = Fill(
            fill_id=fill_id(order.order_id, order.fills),
            order_id=order.order_id,
            market_id=order.market_id,
            side=order.side,
            order_side=order.order_side,
            price=price,
            size=float(size),
            fee=float(_EXACT.multiply(rate, _EXACT.multiply(size, exact(abs(price))))),
            timestamp=self._clock.now(),
            token_id=order.token_id,
            exchange=self.name,
            is_maker=bool(order.is_maker),
        )
        self._fills.append(fill)
        self._events.append(fill)
        order.rest = _EXACT.subtract(order.rest, size)
        if not order.rest:
            self._end(order, OrderStatus.Filled)

    def _next_size(self, order: _OpenOrder) -> Decimal:
        """One tick's share of the order, or all the rest when what would remain is dust or is no float's shortest text."""
        share = _SHARE.multiply(self._ratio, order.size)
        left = _EXACT.subtract(order.rest, share)
        if left <= _EXACT.multiply(_DUST, order.size) or not (_fits_a_float(share) and _fits_a_float(left)):
            return order.rest
        return share

    def _end(self, order: _OpenOrder, status: OrderStatus, reason: str | None = None) -> OrderUpdate:
        del self._open[order.order_id]
        del self._books[order.market_id][order.order_id]
        return self._remember(OrderUpdate(order.order_id, status, reason))

    def _remember(self, ending: OrderUpdate) -> OrderUpdate:
        self._ended[ending.order_id] = ending
        if len(self._ended) > self._remembered:
            self._ended.popitem(last=False)
        return ending


@dataclass(slots=True)
class _OpenOrder:
    """The venue's own copy of an order: the engine goes on changing the one it submitted."""

    order_id: str
    market_id: str
    side: Side
    order_side: OrderSide
    price: float
    size: Decimal
    rest: Decimal
    is_market: bool
    token_id: str | None
    is_maker: bool | None  # None until the order has met a mid
    fills: int = 0

    @classmethod
    def of(cls, order: Order) -> _OpenOrder:
        size = exact(float(order.size))
        is_market = order.order_type is OrderType.Market
        return cls(
            order_id=order.id,
            market_id=order.market_id,
            side=order.side,
            order_side=order.order_side,
            price=float(order.price),
            size=size,
            rest=size,
            is_market=is_market,
            token_id=order.token_id,
            is_maker=False if is_market else None,
        )

    @property
    def status(self) -> OrderStatus:
        return OrderStatus.PartiallyFilled if self.fills else OrderStatus.Accepted

    def meet(self, mid: float) -> None:
        """The first mid an order meets decides whether it makes or takes."""
        if self.is_maker is None:
            price = self.price_for(mid)
            self.is_maker = self.price <= price if self.order_side is OrderSide.Buy else self.price >= price

    def crosses(self, mid: float) -> bool:
        if self.is_market:
            return True
        price = self.price_for(mid)
        return self.price >= price if self.order_side is OrderSide.Buy else self.price <= price

    def price_for(self, mid: float) -> float:
        """The mid of what this order trades: worked number, a mid of 0.6 is 0.4 for No."""
        return float(_EXACT.subtract(_ONE, exact(mid))) if self.side is Side.No else mid


def _rate(role: str, rate: float) -> Decimal:
    if not math.isfinite(rate):
        raise ConfigError(f"paper venue: the {role} fee rate must be a finite number, got {rate}")
    return exact(float(rate))


def _fits_a_float(number: Decimal) -> bool:
    """Whether a fill can carry this size: the shortest text of the float is the number itself."""
    return exact(float(number)) == number
