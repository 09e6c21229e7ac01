from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from horizon.positions import exact
from horizon.records import Fill, Order, OrderSide, OrderStatus, Side
from horizon.venues.paper import Paper

sizes = st.floats(min_value=1e-12, max_value=1e12, allow_nan=False)
ratios = st.floats(min_value=0.05, max_value=1.0)


@given(size=sizes, ratio=ratios)
def test_partial_fills_sum_up_to_the_order_exactly(size: float, ratio: float) -> None:
    paper = Paper(partial_fill_ratio=ratio)
    paper.submit(Order("o", "m", Side.Long, OrderSide.Buy, 1.0, size))
    ticks = 0
    while paper.tick("m", 1.0):
        ticks += 1
        assert ticks <= 21
    assert sum(exact(fill.size) for fill in paper.fills_since(0.0)) == exact(size)
    assert paper.order_by_client_id("o").status is OrderStatus.Filled


steps = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.sampled_from([98.0, 99.0, 101.0, 102.0]), st.sampled_from(list(OrderSide))),
        st.tuples(st.just("tick"), st.sampled_from([97.0, 99.5, 100.5, 103.0])),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("amend"), st.integers(0, 20), st.sampled_from([0.3, 1.0, 2.5])),
        st.tuples(st.just("poll")),
    ),
    max_size=60,
)


@given(steps=steps, ratio=st.sampled_from([1.0, 0.5, 0.3]))
def test_every_fill_is_polled_once_with_its_own_id_and_no_order_overfills(steps: list[tuple], ratio: float) -> None:
    paper, polled, totals = Paper(partial_fill_ratio=ratio), [], {}
    for number, step in enumerate(steps):
        match step:
            case ("submit", price, order_side):
                totals[f"o{number}"] = 1.0
                paper.submit(Order(f"o{number}", "m", Side.Long, order_side, price, 1.0))
            case ("tick", mid):
                paper.tick("m", mid)
            case ("cancel", index):
                paper.cancel(f"o{index}")
            case ("amend", index, size):
                answer = paper.amend(f"o{index}", 100.0, size)
                if answer.size is not None:
                    totals[f"o{index}"] = answer.size
            case _:
                polled += paper.poll()
    polled += paper.poll()
    fills = [event for event in polled if isinstance(event, Fill)]
    assert fills == paper.fills_since(0.0)
    assert len({fill.fill_id for fill in fills}) == len(fills)
    for order_id, size in totals.items():
        filled = sum(exact(fill.size) for fill in fills if fill.order_id == order_id)
        assert filled <= exact(size)
        assert (filled == exact(size)) == (paper.order_by_client_id(order_id).status is OrderStatus.Filled)
