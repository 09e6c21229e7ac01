"""What happened: the records that travel the road, and the types strategies are written with.

Names, argument order and defaults are those of the original (reference: its type pages), so that a strategy written for its paper
mode runs unchanged. Records are frozen and checked when they are built and again when they are decoded. Prices and sizes are
floats that stand for the shortest decimal text which gives them back (0.1 is 0.1); times are Unix seconds, UTC.
"""

from __future__ import annotations

import hashlib
from enum import Enum
from math import inf, isfinite

import msgspec
from msgspec.structs import force_setattr

from horizon.errors import RecordRejected

TEXT_MAX_BYTES = 4096
_MAY_BE_MISSING = frozenset({"token_id", "status_reason", "details", "config"})


class _Word(str, Enum):
    """An enum stored as its lower snake case word and printed in capitals, as the original does."""

    def __str__(self) -> str:
        return self.name.upper()


class Side(_Word):
    Yes = "yes"
    No = "no"
    Long = "long"


class OrderSide(_Word):
    Buy = "buy"
    Sell = "sell"


class OrderType(_Word):
    Limit = "limit"
    Market = "market"


class TimeInForce(_Word):
    GTC = "gtc"
    GTD = "gtd"
    FOK = "fok"
    FAK = "fak"
    Day = "day"


class OrderStatus(_Word):
    New = "new"
    Submitted = "submitted"
    Accepted = "accepted"
    PartiallyFilled = "partially_filled"
    Filled = "filled"
    Canceled = "canceled"
    Rejected = "rejected"

    @property
    def is_open(self) -> bool:
        return self in OPEN_STATUSES


OPEN_STATUSES = frozenset({OrderStatus.New, OrderStatus.Submitted, OrderStatus.Accepted, OrderStatus.PartiallyFilled})


class FeeCurrency(_Word):
    """What a fee is counted in: the quote currency, or the thing that was bought (most spot venues take it from there)."""

    Quote = "quote"
    Base = "base"


class RiskEventType(_Word):
    KillSwitchActivated = "kill_switch_activated"
    KillSwitchDeactivated = "kill_switch_deactivated"
    Violation = "violation"


class RunStatus(_Word):
    Running = "running"
    Ended = "ended"
    Died = "died"


class Fill(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="f"):
    """One execution against our order.

    Raises: RecordRejected when a number is NaN or infinite or the size is not positive. Source: persistence page, `fills`.
    """

    fill_id: str  # unique over all venues, accounts and markets: see the venue contract
    order_id: str
    market_id: str
    side: Side
    order_side: OrderSide
    price: float  # quote currency per unit; negative prices exist (spreads, power)
    size: float  # units, > 0
    fee: float = 0.0  # in fee_currency; a rebate is negative
    timestamp: float = 0.0  # when the venue executed it
    token_id: str | None = None
    exchange: str = ""
    is_maker: bool = False
    multiplier: float = 1.0  # money per unit and price point
    fee_currency: FeeCurrency = FeeCurrency.Quote

    def __post_init__(self) -> None:
        fill_id, order_id, market_id = self.fill_id, self.order_id, self.market_id
        token_id, exchange = self.token_id, self.exchange
        # So are nearly all: finite floats and short, plain texts. What is not is mended or refused below, piece by piece.
        if (
            type(self.price) is type(self.size) is type(self.fee) is type(self.timestamp) is type(self.multiplier) is float
            and isfinite(self.price + self.fee + self.timestamp + self.multiplier)  # NaN and infinity survive any sum
            and 0.0 < self.size < inf
            and type(fill_id) is type(order_id) is type(market_id) is type(exchange) is str
            and (token_id is None or type(token_id) is str)
            and fill_id and order_id and market_id
            and (texts := fill_id + order_id + market_id + exchange + (token_id or "")).isascii()
            and len(texts) <= TEXT_MAX_BYTES
        ):  # fmt: skip
            return
        numbers = ("price", "size", "fee", "timestamp", "multiplier")
        _make_plain(self, numbers)
        _refuse_numbers(self, "fill", fill_id, numbers)
        _refuse_sizes(self, "fill", fill_id)
        _refuse_missing_ids(self, "fill", ("fill_id", "order_id", "market_id"))
        _tidy_texts(self, ("fill_id", "order_id", "market_id", "token_id", "exchange"))


class OrderEvent(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="o"):
    """One status change of one order. Source: persistence page, `order_events`."""

    order_id: str
    market_id: str
    side: Side
    order_side: OrderSide
    price: float
    size: float
    filled_size: float
    remaining_size: float
    order_type: OrderType
    time_in_force: TimeInForce
    status: OrderStatus
    status_reason: str | None
    exchange: str
    created_at: float  # when the order was made
    recorded_at: float  # when this change was recorded

    def __post_init__(self) -> None:
        price, size, filled, remaining = self.price, self.size, self.filled_size, self.remaining_size
        order_id, market_id, exchange, reason = self.order_id, self.market_id, self.exchange, self.status_reason
        if (  # as in a fill
            type(price) is type(size) is type(filled) is type(remaining) is type(self.created_at) is float
            and isfinite(price + filled + remaining + self.created_at)
            and 0.0 < size < inf
            and type(order_id) is type(market_id) is type(exchange) is str
            and (reason is None or type(reason) is str)
            and order_id and market_id
            and (texts := order_id + market_id + exchange + (reason or "")).isascii()
            and len(texts) <= TEXT_MAX_BYTES
        ):  # fmt: skip
            return
        numbers = ("price", "size", "filled_size", "remaining_size", "created_at")
        _make_plain(self, numbers)
        _refuse_numbers(self, "order event", order_id, numbers)
        _refuse_sizes(self, "order event", order_id)
        _refuse_missing_ids(self, "order event", ("order_id", "market_id"))
        _tidy_texts(self, ("order_id", "market_id", "status_reason", "exchange"))


class PositionRow(msgspec.Struct, frozen=True, array_like=True):
    """One position inside a snapshot: the fold's exact state as decimal text (R5), and the mark it was valued at."""

    market_id: str
    side: Side
    exchange: str
    token_id: str | None
    size: str
    cost: str
    realized_pnl: str
    fees: str
    base_fees: str
    multiplier: float = 1.0
    mark: float | None = None


class PositionSnapshot(msgspec.Struct, frozen=True, array_like=True, tag="s"):
    """All positions of one run at one moment, as one frame and one transaction (R5)."""

    taken_at: float
    rows: tuple[PositionRow, ...]
    high_water_mark: float | None = None  # of the total PnL, for the drawdown limit
    daily_baseline: float | None = None  # the total PnL that the day's PnL is counted from


class RiskEvent(msgspec.Struct, frozen=True, array_like=True, tag="k"):
    """A kill switch on or off, or a violation of a limit. Source: persistence page, `risk_events`."""

    event_type: RiskEventType
    details: str | None
    timestamp: float

    def __post_init__(self) -> None:
        _refuse_numbers(self, "risk event", self.event_type.value, ("timestamp",))
        _tidy_texts(self, ("details",))


class FillConflict(msgspec.Struct, frozen=True, array_like=True, tag="c"):
    """A fill whose id is known with other content (R1, R4). It is never applied; the writer makes it a dead letter."""

    fill: Fill


class RunStarted(msgspec.Struct, frozen=True, array_like=True, tag="a"):
    """The first record of a run. `recovered_commit_no` is the place in the commit order that its recovery included (R2)."""

    strategy: str
    exchange: str
    started_at: float
    config: str | None = None  # JSON, without secrets
    pid: int = 0
    recovered_commit_no: int = 0

    def __post_init__(self) -> None:
        _tidy_texts(self, ("strategy", "exchange", "config"))


class RunEnded(msgspec.Struct, frozen=True, array_like=True, tag="z"):
    """The last record of a run that ended cleanly."""

    ended_at: float
    reason: str = "ended"

    def __post_init__(self) -> None:
        _tidy_texts(self, ("reason",))


Record = Fill | OrderEvent | PositionSnapshot | RiskEvent | FillConflict | RunStarted | RunEnded


class Quote(msgspec.Struct, frozen=True):
    """What a pipeline wants to have in the market: a bid, an ask, and the size of both. Raises: RecordRejected when crossed."""

    bid: float
    ask: float
    size: float = 5.0

    def __post_init__(self) -> None:
        _make_plain(self, ("bid", "ask", "size"))
        _refuse_numbers(self, "quote", f"{self.bid} / {self.ask}", ("bid", "ask", "size"))
        if self.bid > self.ask:
            raise RecordRejected(f"quote: the bid {self.bid} is above the ask {self.ask}")
        if self.size <= 0:
            raise RecordRejected(f"quote: size must be positive, got {self.size}")

    def mid(self) -> float:
        return (self.bid + self.ask) / 2

    def spread(self) -> float:
        return self.ask - self.bid


def quotes(fair: float, spread: float, size: float = 5.0) -> list[Quote]:
    """One two-sided quote around a fair value, clamped to 0.01..0.99 as prediction markets need it; [] when that crosses.

    Worked number: quotes(0.5, 0.04) is [Quote(bid=0.48, ask=0.52, size=5)]. For other price ranges build `Quote` directly.
    """
    bid = round(max(0.01, min(0.99, fair - spread / 2)), 10)
    ask = round(max(0.01, min(0.99, fair + spread / 2)), 10)
    return [] if bid >= ask else [Quote(bid, ask, size)]


class Market(msgspec.Struct, frozen=True):
    """A market a strategy trades. `multiplier` is money per unit and price point (futures, options)."""

    id: str
    name: str = ""
    slug: str = ""
    exchange: str = "paper"
    expiry: str | None = None
    active: bool = True
    yes_token_id: str | None = None
    no_token_id: str | None = None
    condition_id: str | None = None
    neg_risk: bool = False
    ticker: str | None = None
    event_id: str | None = None
    outcome_name: str | None = None
    asset_class: str | None = None
    underlying: str | None = None
    strike_price: float | None = None
    option_type: str | None = None
    multiplier: float = 1.0


class OrderRequest(msgspec.Struct, frozen=True):
    """An order before it has an id. Raises: RecordRejected when a number is NaN or infinite or the size is not positive."""

    market_id: str
    side: Side
    order_side: OrderSide
    size: float
    price: float
    order_type: OrderType = OrderType.Limit
    time_in_force: TimeInForce = TimeInForce.GTC
    post_only: bool = True
    token_id: str | None = None
    neg_risk: bool = False

    def __post_init__(self) -> None:
        _make_plain(self, ("price", "size"))
        _refuse_numbers(self, "order", self.market_id, ("price", "size"))
        _refuse_sizes(self, "order", self.market_id)


class Order(msgspec.Struct, kw_only=False):
    """One of our orders as the engine knows it now. The engine changes it; strategies read it."""

    id: str
    market_id: str
    side: Side
    order_side: OrderSide
    price: float
    size: float
    filled_size: float = 0.0
    remaining_size: float = 0.0
    order_type: OrderType = OrderType.Limit
    time_in_force: TimeInForce = TimeInForce.GTC
    status: OrderStatus = OrderStatus.New
    status_reason: str | None = None
    created_at: float = 0.0
    exchange: str = ""
    amendment_count: int = 0
    token_id: str | None = None
    post_only: bool = True

    def is_open(self) -> bool:
        return self.status in OPEN_STATUSES


class Position(msgspec.Struct, frozen=True):
    """A net holding: size is signed, negative is short. `fees` and `base_fees` are kept apart from cost and PnL."""

    market_id: str
    side: Side
    size: float
    avg_entry_price: float
    realized_pnl: float
    unrealized_pnl: float
    token_id: str | None = None
    exchange: str = ""
    multiplier: float = 1.0
    fees: float = 0.0
    base_fees: float = 0.0


class EngineStatus(msgspec.Struct, frozen=True):
    running: bool
    kill_switch_active: bool
    kill_switch_reason: str | None
    open_orders: int
    active_positions: int
    total_realized_pnl: float
    total_unrealized_pnl: float
    daily_pnl: float
    uptime_secs: float

    def total_pnl(self) -> float:
        return self.total_realized_pnl + self.total_unrealized_pnl


def _make_plain(struct: msgspec.Struct, names: tuple[str, ...]) -> None:
    """Turn integers and numpy's floats into plain floats, which have one text and one encoding."""
    for name in names:
        value = getattr(struct, name)
        if type(value) is not float:
            try:
                force_setattr(struct, name, float(value))
            except (TypeError, ValueError) as error:
                raise RecordRejected(f"{type(struct).__name__}: {name} must be a number, got {value!r}") from error


def _refuse_numbers(struct: msgspec.Struct, kind: str, key: str, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(struct, name)
        if not isfinite(value):
            raise RecordRejected(f"{kind} {key!r}: {name} must be a finite number, got {value}")


def _refuse_sizes(struct: msgspec.Struct, kind: str, key: str) -> None:
    size: float = struct.size  # type: ignore[attr-defined]
    if size <= 0:
        raise RecordRejected(f"{kind} {key!r}: size must be positive, got {size}")


def _refuse_missing_ids(struct: msgspec.Struct, kind: str, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(struct, name)
        if type(value) is not str or not value:
            raise RecordRejected(f"{kind}: {name} must be a text that is not empty, got {value!r}")


def _tidy_texts(struct: msgspec.Struct, names: tuple[str, ...]) -> None:
    """Make texts such that they can be recorded: text that UTF-8 can write, of 4 KiB at most, so that one venue's error page cannot
    fill a journal.

    The mark holds a digest of the whole: two ids that differ only in what was replaced or cut stay two.
    """
    for name in names:
        text = getattr(struct, name)
        if text is None and name in _MAY_BE_MISSING:
            continue
        if not isinstance(text, str):
            raise RecordRejected(f"{type(struct).__name__}: {name} must be a text, got {text!r}")
        if type(text) is not str:
            text = str.__str__(text)  # numpy's, or a word of an enum: they have no encoding
            force_setattr(struct, name, text)
        if text.isascii() and len(text) <= TEXT_MAX_BYTES:
            continue
        whole = text.encode("utf-8", "surrogatepass")
        data = text.encode("utf-8", "backslashreplace")  # a lone surrogate, as JSON can hold one, is no UTF-8
        if data == whole and len(data) <= TEXT_MAX_BYTES:
            continue
        mark = f"…[{'cut' if len(data) > TEXT_MAX_BYTES else 'replaced'}, sha256 {hashlib.sha256(whole).hexdigest()[:16]}]"
        kept = data[: TEXT_MAX_BYTES - len(mark.encode())].decode("utf-8", "ignore")
        force_setattr(struct, name, kept + mark)
