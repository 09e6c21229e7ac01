"""Records refuse what must not be recorded, and say which value it was."""

from __future__ import annotations

import math

import msgspec
import pytest
from samples import fill, order_event

from horizon.errors import RecordRejected
from horizon.ids import fill_id, new_run_id, order_id
from horizon.records import (
    TEXT_MAX_BYTES,
    Fill,
    OrderRequest,
    OrderSide,
    OrderStatus,
    OrderType,
    Quote,
    Side,
    TimeInForce,
    quotes,
)


@pytest.mark.parametrize("name", ["price", "size", "fee", "timestamp", "multiplier"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_fill_refuses_numbers_that_are_not_finite(name: str, value: float) -> None:
    with pytest.raises(RecordRejected, match=f"fill 'fill-00000001': {name} must be"):
        fill(1, **{name: value})


@pytest.mark.parametrize("size", [0.0, -0.0, -1.0])
def test_a_fill_refuses_a_size_that_is_not_positive(size: float) -> None:
    with pytest.raises(RecordRejected, match="size must be positive"):
        fill(1, size=size)


@pytest.mark.parametrize("name", ["price", "filled_size", "remaining_size"])
def test_an_order_event_refuses_numbers_that_are_not_finite(name: str) -> None:
    with pytest.raises(RecordRejected, match=name):
        order_event(1, **{name: math.nan})


def test_an_order_refuses_bad_numbers_before_it_has_an_id() -> None:
    with pytest.raises(RecordRejected, match="price must be a finite number"):
        OrderRequest("m", Side.Yes, OrderSide.Buy, 1.0, math.nan)
    with pytest.raises(RecordRejected, match="size must be positive"):
        OrderRequest("m", Side.Yes, OrderSide.Buy, 0.0, 0.5)


def test_negative_prices_are_real_and_huge_numbers_are_numbers() -> None:
    assert fill(1, price=-37.63).price == -37.63
    assert fill(1, price=1e308, timestamp=1e308).price == 1e308


def test_a_crossed_quote_is_refused() -> None:
    with pytest.raises(RecordRejected, match="above the ask"):
        Quote(0.6, 0.5)


def test_quotes_are_clamped_to_what_prediction_markets_allow() -> None:
    assert quotes(0.5, 0.04) == [Quote(0.48, 0.52, 5.0)]
    assert quotes(0.999, 0.1, size=2) == [Quote(0.949, 0.99, 2)]
    assert quotes(1.5, 0.1) == []


def test_overlong_texts_are_cut_with_a_mark() -> None:
    event = order_event(1, status_reason="é" * 5000)
    assert event.status_reason is not None
    assert "…[cut, sha256 " in event.status_reason
    assert len(event.status_reason.encode()) <= TEXT_MAX_BYTES


def test_two_long_ids_that_differ_at_their_ends_stay_two() -> None:
    first, second = (fill(1, fill_id="x" * 5000 + end).fill_id for end in ("a", "b"))
    assert first != second


@pytest.mark.parametrize("name", ["fill_id", "order_id", "market_id", "token_id", "exchange"])
@pytest.mark.parametrize("rest", ["", "é" * 5000], ids=["short", "long"])
def test_a_text_that_utf8_cannot_write_is_made_one_and_stays_distinct(name: str, rest: str) -> None:
    texts = [getattr(fill(1, **{name: text + rest}), name) for text in ("a\ud800", "a\ud801", "a\\ud800")]
    assert len(set(texts)) == 3
    for text in texts:
        assert len(text.encode()) <= TEXT_MAX_BYTES
        assert getattr(fill(1, **{name: text}), name) == text, "read again it is the same"
    assert texts[0].startswith("a\\ud800")


def test_a_fill_with_a_lone_surrogate_comes_back_from_its_bytes() -> None:
    one = fill(1, token_id="a\ud800b")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=Fill) == one


class TextOfAnotherLibrary(str):
    """As numpy's."""


def test_texts_of_other_types_become_plain_texts() -> None:
    assert type(fill(1, token_id=TextOfAnotherLibrary("7")).token_id) is str
    assert fill(1, exchange=Side.Yes).exchange == "yes"


@pytest.mark.parametrize(("name", "value"), [("token_id", 7), ("token_id", b"7"), ("exchange", None), ("exchange", 7)])
def test_a_text_that_is_none_is_refused_unless_it_may_be_missing(name: str, value: object) -> None:
    with pytest.raises(RecordRejected, match=f"Fill: {name} must be a text, got {value!r}"):
        fill(1, **{name: value})
    assert fill(1, token_id=None).token_id is None


@pytest.mark.parametrize("name", ["fill_id", "order_id", "market_id"])
@pytest.mark.parametrize("value", ["", None, 7])
def test_a_fill_needs_its_ids(name: str, value: object) -> None:
    with pytest.raises(RecordRejected, match=f"{name} must be a text"):
        fill(1, **{name: value})


def test_enums_are_stored_in_lower_snake_case_and_printed_in_capitals() -> None:
    assert [side.value for side in Side] == ["yes", "no", "long"]
    assert str(Side.Long) == "LONG"
    assert OrderStatus.PartiallyFilled.value == "partially_filled"
    assert [kind.value for kind in OrderType] == ["limit", "market"]
    assert [kind.value for kind in TimeInForce] == ["gtc", "gtd", "fok", "fak", "day"]


def test_the_open_statuses_are_the_originals() -> None:
    assert {status.value for status in OrderStatus if status.is_open} == {"new", "submitted", "accepted", "partially_filled"}


def test_ids_sort_by_the_time_they_were_made_and_contain_their_run() -> None:
    run = new_run_id()
    ids = [order_id(run, number) for number in (1, 9, 10, 99, 100)]
    assert ids == sorted(ids)
    assert all(one.startswith(run) for one in ids)
    assert fill_id(ids[0], 2).startswith(ids[0])
    assert len({new_run_id() for _ in range(1000)}) == 1000


def test_fills_take_the_arguments_in_the_order_of_the_table() -> None:
    by_place = Fill("f", "o", "m", Side.Yes, OrderSide.Buy, 0.5, 2.0, 0.1, 3.0, "token", "paper")
    assert (by_place.fee, by_place.timestamp, by_place.token_id, by_place.exchange) == (0.1, 3.0, "token", "paper")


class FloatOfAnotherLibrary(float):
    """As numpy's: a float whose text is not a number."""

    def __repr__(self) -> str:
        return f"np.float64({float(self)})"


def test_numbers_of_other_types_become_plain_floats() -> None:
    one = fill(1, price=FloatOfAnotherLibrary(0.1), size=2)
    assert [type(value) for value in (one.price, one.size)] == [float, float]
    assert repr(one.price) == "0.1"
    with pytest.raises(RecordRejected, match="price must be a number, got 'cheap'"):
        fill(1, price="cheap")
