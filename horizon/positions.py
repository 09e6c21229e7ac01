"""Fold fills into positions, exactly. Pure: no clock, no file, no global state.

Average cost, as the original's line B states it: buying 10 at 100 and 10 at 110 averages 105, selling 5 at 120 then realises 75.
A sale through zero closes at average cost and opens the rest at the fill's price. Fees enter neither cost nor PnL; a fee taken
from what was bought (`FeeCurrency.Base`) removes its units at average cost.

Why decimals: a REAL is read as the shortest text that gives it back, sums and products are exact and divisions are rounded in one
fixed context, so 0.1 + 0.2 - 0.3 is 0 and any split of a history into snapshots gives the same bits. Floats drift, and six
fixed decimals lose real prices. Every operation names its decimal context: the caller's rounds as a strategy may have told it to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, ROUND_HALF_EVEN, Context, Decimal
from functools import lru_cache
from typing import NamedTuple

import msgspec

from horizon.records import FeeCurrency, Fill, OrderSide, Position, PositionRow, Side

EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
ROUND = Context(prec=34, rounding=ROUND_HALF_EVEN, Emax=MAX_EMAX, Emin=MIN_EMIN)
# Not operators: the context that makes them exact must be set and taken back around them, which costs a fifth of a fold.
_add, _subtract, _multiply, _multiply_and_add = EXACT.add, EXACT.subtract, EXACT.multiply, EXACT.fma
ZERO = Decimal(0)
# Looking a member up in its enum costs 0.1 us each time.
_SELL = OrderSide.Sell
_BASE = FeeCurrency.Base


class PositionKey(NamedTuple):
    """What one position is kept under, within one strategy."""

    exchange: str
    market_id: str
    side: Side


class Holding(msgspec.Struct, frozen=True, gc=False):
    """The exact state of one position. `cost` is size times average price, signed like `size`."""

    size: Decimal = ZERO
    cost: Decimal = ZERO
    realized_pnl: Decimal = ZERO
    fees: Decimal = ZERO
    base_fees: Decimal = ZERO
    multiplier: float = 1.0
    token_id: str | None = None


def fold(holding: Holding, fill: Fill) -> Holding:
    """The holding after one more fill."""
    size, cost, realized = holding.size, holding.cost, holding.realized_pnl
    price, quantity = exact(fill.price), exact(fill.size)
    if fill.order_side is _SELL:
        quantity = quantity.copy_negate()
    if not size or size.is_signed() == quantity.is_signed():
        cost = _multiply_and_add(quantity, price, cost)
        size = _add(size, quantity)
    else:
        gain, size, cost = _close(size, cost, quantity, price)
        realized = _add(realized, gain if fill.multiplier == 1.0 else _multiply(gain, exact(fill.multiplier)))
    fees, base_fees = holding.fees, holding.base_fees
    if fill.fee:
        fee = exact(fill.fee)
        if fill.fee_currency is _BASE:
            size, cost = _take_from_holding(size, cost, fee, price)
            base_fees = _add(base_fees, fee)
        else:
            fees = _add(fees, fee)
    return Holding(size, cost, realized, fees, base_fees, fill.multiplier, fill.token_id or holding.token_id)


class Book:
    """The positions of one strategy and the marks they are valued at."""

    def __init__(self) -> None:
        # Kept under plain tuples, which compare equal to a PositionKey and are made eight times faster, once for every fill.
        self._holdings: dict[tuple[str, str, Side], Holding] = {}
        self._marks: dict[tuple[str, Side], float] = {}
        self._pnl: tuple[float, float] | None = None  # asked for several times between two changes

    def apply(self, fill: Fill) -> None:
        key = (fill.exchange, fill.market_id, fill.side)
        self._holdings[key] = fold(self._holdings.get(key, _FLAT), fill)
        self._pnl = None

    def mark(self, market_id: str, side: Side, price: float) -> None:
        """Value the positions of a market at this price from now on, on every exchange."""
        self._marks[market_id, side] = price
        self._pnl = None

    def take_marks_of(self, other: Book) -> None:
        """Prefer the marks of another book, which are newer than those of a snapshot."""
        self._marks |= other._marks
        self._pnl = None

    def size(self, market_id: str, side: Side, exchange: str) -> float:
        return float(self._holdings.get((exchange, market_id, side), _FLAT).size)

    def multiplier(self, market_id: str, side: Side, exchange: str) -> float:
        return self._holdings.get((exchange, market_id, side), _FLAT).multiplier

    def pnl(self) -> tuple[float, float]:
        """Realized and unrealized, summed over all positions."""
        if self._pnl is None:
            realized = unrealized = ZERO
            for (_, market_id, side), holding in self._holdings.items():
                realized = _add(realized, holding.realized_pnl)
                if holding.size:
                    unrealized = _add(unrealized, unrealized_pnl(holding, self._marks.get((market_id, side))))
            self._pnl = float(realized), float(unrealized)
        return self._pnl

    def notional(self) -> float:
        """The sum of |size| x price x multiplier, at the mark where there is one, else at cost."""
        total = 0.0
        for (_, market_id, side), holding in self._holdings.items():
            if holding.size:
                mark = self._marks.get((market_id, side))
                cost = float(holding.cost) if mark is None else float(holding.size) * mark
                total += abs(cost * holding.multiplier)
        return total

    def active_count(self) -> int:
        """How many positions are not flat."""
        return sum(1 for holding in self._holdings.values() if holding.size)

    def mark_of(self, market_id: str, side: Side) -> float | None:
        return self._marks.get((market_id, side))

    def positions(self) -> list[Position]:
        """The positions that are not flat, as floats for people and strategies."""
        return [self._view(key, holding) for key, holding in self if holding.size]

    def all_positions(self) -> list[Position]:
        """Also the flat ones, which still hold realized PnL and fees."""
        return [self._view(key, holding) for key, holding in self]

    def snapshot(self) -> tuple[PositionRow, ...]:
        """The exact state as text; `restore` of it gives the same bits back. A flat market keeps its row."""
        return tuple(
            PositionRow(
                market_id=key.market_id,
                side=key.side,
                exchange=key.exchange,
                token_id=holding.token_id,
                size=str(holding.size),
                cost=str(holding.cost),
                realized_pnl=str(holding.realized_pnl),
                fees=str(holding.fees),
                base_fees=str(holding.base_fees),
                multiplier=holding.multiplier,
                mark=self._marks.get((key.market_id, key.side)),
            )
            for key, holding in self
        )

    @classmethod
    def restore(cls, rows: Iterable[PositionRow], fills: Iterable[Fill] = ()) -> Book:
        """The book of a snapshot and the fills committed after it."""
        book = cls()
        for row in rows:
            book._holdings[row.exchange, row.market_id, row.side] = holding_of(row)
            if row.mark is not None:
                book.mark(row.market_id, row.side, row.mark)
        for fill in fills:
            book.apply(fill)
        return book

    def __iter__(self) -> Iterator[tuple[PositionKey, Holding]]:
        return ((PositionKey(*key), holding) for key, holding in self._holdings.items())

    def __len__(self) -> int:
        return len(self._holdings)

    def _view(self, key: PositionKey, holding: Holding) -> Position:
        return Position(
            market_id=key.market_id,
            side=key.side,
            size=float(holding.size),
            avg_entry_price=float(average_price(holding)),
            realized_pnl=float(holding.realized_pnl),
            unrealized_pnl=float(unrealized_pnl(holding, self._marks.get((key.market_id, key.side)))),
            token_id=holding.token_id,
            exchange=key.exchange,
            multiplier=holding.multiplier,
            fees=float(holding.fees),
            base_fees=float(holding.base_fees),
        )


def holding_of(row: PositionRow) -> Holding:
    """The exact state that a snapshot's row carries."""
    return Holding(
        size=Decimal(row.size),
        cost=Decimal(row.cost),
        realized_pnl=Decimal(row.realized_pnl),
        fees=Decimal(row.fees),
        base_fees=Decimal(row.base_fees),
        multiplier=row.multiplier,
        token_id=row.token_id,
    )


def average_price(holding: Holding) -> Decimal:
    return ROUND.divide(holding.cost, holding.size) if holding.size else ZERO


def unrealized_pnl(holding: Holding, mark: float | None) -> Decimal:
    """(size x mark - cost) x multiplier; 0 without a mark."""
    if mark is None or not holding.size:
        return ZERO
    gain = _multiply_and_add(holding.size, exact(mark), holding.cost.copy_negate())
    return _multiply(gain, exact(holding.multiplier))


@lru_cache(maxsize=8192)
def exact(number: float) -> Decimal:
    """The shortest decimal text that gives this float back, as a number: 0.1 is 0.1."""
    # Prices and sizes come again and again, so most are looked up. Adding 0.0 makes 1 and 1.0, 0.0 and -0.0 (equal keys) one text.
    return Decimal(repr(number + 0.0))


def exact_sum(left: float, right: float) -> float:
    """The sum of two numbers as decimals: 0.1 and 0.2 are 0.3."""
    return float(_add(exact(left), exact(right)))


def add_exactly(total: Decimal, number: float) -> Decimal:
    """A total that goes on as a decimal: no float between has to be read again."""
    return _add(total, exact(number))


def rest_of(whole: float, part: Decimal) -> float:
    """What is left of a number without a part of it: of 1 without 0.3 it is 0.7."""
    return float(_subtract(exact(whole), part))


_FLAT = Holding()


def _close(size: Decimal, cost: Decimal, quantity: Decimal, price: Decimal) -> tuple[Decimal, Decimal, Decimal]:
    """Reduce a holding by a fill of the other direction: (gain in price points, size, cost) afterwards."""
    rest = _add(size, quantity)
    if not rest:
        return _subtract(_multiply(size, price), cost), ZERO, ZERO
    if rest.is_signed() != size.is_signed():
        return _subtract(_multiply(size, price), cost), rest, _multiply(rest, price)
    closed = quantity.copy_negate()
    removed = ROUND.divide(_multiply(cost, closed), size)
    return _subtract(_multiply(closed, price), removed), rest, _subtract(cost, removed)


def _take_from_holding(size: Decimal, cost: Decimal, fee: Decimal, price: Decimal) -> tuple[Decimal, Decimal]:
    """Remove fee units at average cost, or at the fill's price when the holding is flat."""
    rest = _subtract(size, fee)
    if not rest:
        return ZERO, ZERO
    if not size:
        return rest, _multiply(rest, price)
    return rest, ROUND.divide(_multiply(cost, rest), size)
