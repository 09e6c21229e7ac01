"""The fold of `horizon db check` is `positions.fold` to the last digit, whatever the fills and however they come in pages."""

from __future__ import annotations

from decimal import Context, localcontext

from hypothesis import given
from hypothesis import strategies as st

from horizon.positions import Book
from horizon.records import FeeCurrency, Fill, OrderSide, Side
from horizon.store.refold import Holdings

TICKS = st.integers(-2000, 2000).map(lambda ticks: ticks / 100)
ANY = st.floats(-1e12, 1e12, allow_nan=False, allow_infinity=False)
ODD = st.sampled_from([0.0, -0.0, 1e-05, 1.5e-05, 1e-08, 1.2e-07, 1e15, 1e16, 1e22, 1e-300, 0.1 + 0.2, 100.0, 2.5e-09])
PRICES = TICKS | ANY | ODD
SIZES = st.integers(1, 40).map(lambda units: units / 10) | st.floats(1e-9, 1e9) | ODD.filter(lambda size: size > 0)
FEES = (
    st.integers(-50_000, 50_000).map(lambda units: units / 1e8)
    | st.integers(0, 10**16).map(lambda units: units / 1e8)
    | ANY
    | ODD
)


@st.composite
def _fills(draw: st.DrawFn) -> Fill:
    return Fill(
        "f", "o", draw(st.sampled_from(["btc", "eth"])), draw(st.sampled_from(Side)), draw(st.sampled_from(OrderSide)), draw(PRICES),
        draw(SIZES), draw(FEES), 1.0, draw(st.sampled_from([None, "", "t-1", "t-2"])), draw(st.sampled_from(["paper", ""])), False,
        draw(st.sampled_from([1.0, 50.0, 0.1])), draw(st.sampled_from(FeeCurrency)),
    )  # fmt: skip


def _row(number: int, fill: Fill) -> tuple[object, ...]:
    """As the query `fills_share` gives it."""
    kind = (fill.order_side is OrderSide.Sell) + 2 * (fill.fee_currency is FeeCurrency.Base)
    return (
        number, kind, "maker", "run", number, "o", fill.exchange, fill.market_id, fill.side.value, fill.price, fill.size, fill.fee,
        fill.token_id, fill.multiplier,
    )  # fmt: skip


@given(fills=st.lists(_fills(), max_size=40), cut=st.integers(0, 40), seen=st.booleans())
def test_the_fold_of_a_check_gives_the_digits_of_the_fold_that_trades(fills: list[Fill], cut: int, seen: bool) -> None:
    book = Book()
    for fill in fills:
        book.apply(fill)
    rows = [_row(number, fill) for number, fill in enumerate(fills, start=1)]
    holdings = Holdings({})
    with localcontext(Context(prec=3)):  # as a strategy may have left it
        holdings.fold(rows[:cut], lambda rowid: None)
        if seen:
            holdings.of("maker")  # a snapshot that is compared changes nothing
        holdings.fold(rows[cut:], lambda rowid: None)
        folded = holdings.of("maker")
    assert {(key.exchange, key.market_id, key.side.value): _texts(holding) for key, holding in book} == {
        key: _texts(holding) for key, holding in folded.items()
    }


@given(fills=st.lists(_fills(), max_size=20), irregular=st.sets(st.integers(1, 20)))
def test_a_row_that_is_folded_by_itself_takes_its_turn(fills: list[Fill], irregular: set[int]) -> None:
    book = Book()
    for fill in fills:
        book.apply(fill)
    holdings = Holdings({})
    rows = [
        (number, None, *_row(number, fill)[2:]) if number in irregular else _row(number, fill)
        for number, fill in enumerate(fills, start=1)
    ]
    holdings.fold(rows, lambda number: holdings.apply("maker", fills[number - 1]))
    assert {(key.exchange, key.market_id, key.side.value): _texts(holding) for key, holding in book} == {
        key: _texts(holding) for key, holding in holdings.of("maker").items()
    }


@given(fills=st.lists(_fills(), min_size=1, max_size=20), cut=st.integers(0, 20))
def test_it_goes_on_where_another_fold_has_ended(fills: list[Fill], cut: int) -> None:
    first, book = Book(), Book()
    for fill in fills[:cut]:
        first.apply(fill)
    for fill in fills:
        book.apply(fill)
    begun = [((key.exchange, key.market_id, key.side.value), holding) for key, holding in first]
    holdings = Holdings({"maker": begun})
    holdings.fold([_row(number, fill) for number, fill in enumerate(fills[cut:], start=1)], lambda rowid: None)
    assert {(key.exchange, key.market_id, key.side.value): _texts(holding) for key, holding in book} == {
        key: _texts(holding) for key, holding in holdings.of("maker").items()
    }


def _texts(holding: object) -> list[str]:
    names = ("size", "cost", "realized_pnl", "fees", "base_fees", "multiplier", "token_id")
    return [str(getattr(holding, name)) for name in names]
