"""What must hold for every history of fills: exactness, and that it does not matter where snapshots cut it."""

from __future__ import annotations

import decimal
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from horizon.positions import Book
from horizon.records import FeeCurrency, Fill, OrderSide, PositionRow, Side

# Numbers as venues write them, and any others that a float can hold.
WRITTEN = st.decimals(min_value="0.00000001", max_value="1000000", places=8, allow_nan=False).map(float)
ANY = st.floats(min_value=1e-12, max_value=1e12, allow_nan=False, allow_infinity=False)
NUMBERS = st.one_of(WRITTEN, ANY, st.sampled_from([0.1, 0.2, 0.3]))


def _fills(*fee_currencies: FeeCurrency) -> st.SearchStrategy[list[Fill]]:
    fill = st.builds(
        Fill,
        fill_id=st.just("f"),
        order_id=st.just("o"),
        market_id=st.sampled_from(["a", "b"]),
        side=st.sampled_from([Side.Yes, Side.Long]),
        order_side=st.sampled_from(list(OrderSide)),
        price=st.one_of(NUMBERS, NUMBERS.map(lambda number: -number), st.just(0.0)),
        size=NUMBERS,
        fee=st.one_of(st.just(0.0), NUMBERS, NUMBERS.map(lambda number: -number)),
        timestamp=st.just(1.0),
        fee_currency=st.sampled_from(fee_currencies or tuple(FeeCurrency)),
        multiplier=st.sampled_from([1.0, 50.0, 0.01]),
    )
    return st.lists(fill, max_size=40)


@given(_fills(), st.lists(st.integers(min_value=0, max_value=40), max_size=5))
def test_a_history_cut_into_snapshots_anywhere_gives_the_same_bits(fills: list[Fill], cuts: list[int]) -> None:
    """R5."""
    whole = Book.restore((), fills)
    rows: tuple[PositionRow, ...] = ()
    for start, end in pairwise([0, *sorted(min(cut, len(fills)) for cut in cuts), len(fills)]):
        rows = Book.restore(rows, fills[start:end]).snapshot()
    assert rows == whole.snapshot()


@given(_fills(FeeCurrency.Quote))
def test_sizes_and_fees_are_exact_sums_of_what_the_venue_wrote(fills: list[Fill]) -> None:
    sizes: dict[tuple[str, Side], Fraction] = {}
    fees: dict[tuple[str, Side], Fraction] = {}
    for fill in fills:
        key = fill.market_id, fill.side
        signed = _exactly(fill.size) * (1 if fill.order_side is OrderSide.Buy else -1)
        sizes[key] = sizes.get(key, Fraction(0)) + signed
        fees[key] = fees.get(key, Fraction(0)) + _exactly(fill.fee)
    rows = {(row.market_id, row.side): row for row in Book.restore((), fills).snapshot()}
    assert {key: Fraction(row.size) for key, row in rows.items()} == sizes
    assert {key: Fraction(row.fees) for key, row in rows.items()} == fees


@given(_fills(FeeCurrency.Quote))
def test_no_money_appears_or_vanishes_by_rounding(fills: list[Fill]) -> None:
    """What was paid is either in the cost of what is held or realized: rounding an average may only move it between the two."""
    book = Book()
    paid: dict[tuple[str, Side], Fraction] = {}
    for fill in fills:
        one = Fill(
            fill.fill_id,
            fill.order_id,
            fill.market_id,
            fill.side,
            fill.order_side,
            fill.price,
            fill.size,
            timestamp=fill.timestamp,
        )
        book.apply(one)
        signed = _exactly(one.size) * (1 if one.order_side is OrderSide.Buy else -1)
        key = one.market_id, one.side
        paid[key] = paid.get(key, Fraction(0)) + signed * _exactly(one.price)
    for row in book.snapshot():
        assert Fraction(row.cost) - Fraction(row.realized_pnl) == paid[row.market_id, row.side]


@given(_fills(), st.integers(min_value=1, max_value=5))
def test_a_strategys_own_decimal_context_changes_nothing_and_is_left_alone(fills: list[Fill], digits: int) -> None:
    expected = Book.restore((), fills).snapshot()
    with decimal.localcontext() as context:
        context.prec = digits
        context.rounding = decimal.ROUND_UP
        context.traps[decimal.Inexact] = True
        assert Book.restore((), fills).snapshot() == expected
        assert decimal.getcontext().prec == digits


@given(_fills(), NUMBERS)
def test_totals_are_those_of_the_positions_at_every_moment(fills: list[Fill], mark: float) -> None:
    book = Book()
    for fill in fills:
        book.apply(fill)
        book.mark(fill.market_id, fill.side, mark)
        fresh = Book.restore(book.snapshot())
        assert book.pnl() == fresh.pnl()
        assert book.notional() == fresh.notional()


@given(NUMBERS, st.integers(min_value=1, max_value=200))
@settings(max_examples=25)
def test_what_is_bought_and_sold_again_nets_to_nothing(size: float, times: int) -> None:
    book = Book()
    for order_side in (OrderSide.Buy, OrderSide.Sell):
        for _ in range(times):
            book.apply(Fill("f", "o", "m", Side.Long, order_side, 0.7, size))
    assert book.snapshot()[0].size == "0"
    assert book.pnl() == (0.0, 0.0)


def test_a_million_fills_of_a_tenth_net_to_exactly_nothing() -> None:
    book = Book()
    buy = Fill("f", "o", "m", Side.Long, OrderSide.Buy, 0.3, 0.1)
    sell = Fill("f", "o", "m", Side.Long, OrderSide.Sell, 0.3, 0.1)
    for _ in range(500_000):
        book.apply(buy)
    assert book.size("m", Side.Long, "") == 50_000.0
    for _ in range(500_000):
        book.apply(sell)
    assert book.size("m", Side.Long, "") == 0.0
    assert book.pnl() == (0.0, 0.0)


def _exactly(number: float) -> Fraction:
    return Fraction(Decimal(repr(number)))
