"""The worked examples of average cost, fees and crossing zero."""

from __future__ import annotations

import pytest

from horizon.positions import Book, exact_sum
from horizon.records import FeeCurrency, Fill, OrderSide, Position, Side


def _fill(signed_size: float, price: float, fee: float = 0.0, **changes: object) -> Fill:
    side = OrderSide.Buy if signed_size > 0 else OrderSide.Sell
    return Fill("f", "o", "m", Side.Long, side, price, abs(signed_size), fee, 1.0, exchange="paper", **changes)  # type: ignore[arg-type]


def _after(*fills: Fill) -> Position:
    (position,) = Book.restore((), fills).all_positions()
    return position


def test_the_average_weighs_sizes_and_a_sale_realizes_against_it() -> None:
    bought = _after(_fill(10, 100, 1), _fill(10, 110, 1))
    assert (bought.size, bought.avg_entry_price, bought.realized_pnl) == (20.0, 105.0, 0.0)
    sold = _after(_fill(10, 100, 1), _fill(10, 110, 1), _fill(-5, 120, 0.5))
    assert (sold.size, sold.avg_entry_price, sold.realized_pnl, sold.fees) == (15.0, 105.0, 75.0, 2.5)


def test_a_sale_through_zero_closes_at_cost_and_opens_the_rest_at_its_price() -> None:
    flipped = _after(_fill(10, 100), _fill(-15, 110))
    assert (flipped.size, flipped.avg_entry_price, flipped.realized_pnl) == (-5.0, 110.0, 100.0)
    covered = _after(_fill(10, 100), _fill(-15, 110), _fill(5, 90))
    assert (covered.size, covered.avg_entry_price, covered.realized_pnl) == (0.0, 0.0, 200.0)


def test_a_tenth_and_two_tenths_less_three_tenths_are_nothing() -> None:
    assert _after(_fill(0.1, 1), _fill(0.2, 1), _fill(-0.3, 1)).size == 0.0
    assert exact_sum(0.1, 0.2) == 0.3


def test_a_fee_in_what_was_bought_leaves_fewer_units_at_the_same_average() -> None:
    position = _after(_fill(10, 2, 0.01, fee_currency=FeeCurrency.Base))
    assert position.size == 9.99
    assert position.avg_entry_price == 2.0
    assert (position.fees, position.base_fees) == (0.0, 0.01)


def test_a_rebate_is_a_negative_fee() -> None:
    assert _after(_fill(1, 100, 0.5), _fill(1, 100, -0.2)).fees == 0.3


def test_profit_counts_the_multiplier() -> None:
    position = _after(_fill(1, 5000, multiplier=50.0), _fill(-1, 5001, multiplier=50.0))
    assert position.realized_pnl == 50.0


def test_unrealized_profit_is_valued_at_the_mark_and_is_nothing_without_one() -> None:
    book = Book.restore((), [_fill(-2, 10)])
    assert book.positions()[0].unrealized_pnl == 0.0
    book.mark("m", Side.Long, 9.0)
    assert book.positions()[0].unrealized_pnl == 2.0
    assert book.notional() == 18.0


def test_whole_numbers_and_floats_and_both_zeros_are_one_text() -> None:
    rows = Book.restore((), [_fill(1, 3), _fill(1, -0.0)]).snapshot()
    assert rows == Book.restore((), [_fill(1.0, 3.0), _fill(1.0, 0.0)]).snapshot()


def test_the_exact_state_survives_a_snapshot_that_no_float_could_hold() -> None:
    thirds = [_fill(3, 1), _fill(-1, 2), _fill(1, 1.1)]
    rows = Book.restore((), thirds).snapshot()
    assert Book.restore(rows).snapshot() == rows


@pytest.mark.parametrize("side", [Side.Yes, Side.No])
def test_sides_are_positions_of_their_own(side: Side) -> None:
    book = Book.restore((), [Fill("f", "o", "m", side, OrderSide.Buy, 0.4, 5.0), _fill(1, 10)])
    assert {(position.side, position.size) for position in book.positions()} == {(side, 5.0), (Side.Long, 1.0)}
