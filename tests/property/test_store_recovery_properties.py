"""Recovery gives the exact fold of all recorded fills, bit for bit, wherever snapshots were taken and runs began."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_case import FixedClock, Run, fill

from horizon.paths import DatabasePaths
from horizon.positions import Book
from horizon.records import FeeCurrency, Fill, OrderSide, PositionSnapshot, Side
from horizon.store.append import Store
from horizon.store.connection import open_reader
from horizon.store.read import positions
from horizon.store.recovery import recover

PRICES = (0.1, 0.3, 7.0, 100.5, 1e-7, 123456789.123)
SIZES = (0.1, 0.2, 0.3, 1.0, 3.0, 1e-8)

trades = st.fixed_dictionaries(
    {
        "market_id": st.sampled_from(["btc", "eth"]),
        "side": st.sampled_from([Side.Long, Side.Yes]),
        "order_side": st.sampled_from(OrderSide),
        "price": st.sampled_from(PRICES),
        "size": st.sampled_from(SIZES),
        "fee": st.sampled_from([0.0, 0.1, 1e-9]),
        "fee_currency": st.sampled_from(FeeCurrency),
        "timestamp": st.sampled_from([1.0, 1000.0]),
    }
)
steps = st.tuples(st.sampled_from(["maker", "taker"]), st.one_of(trades, st.sampled_from(["snapshot", "restart", "flush"])))


class Live(NamedTuple):
    """What a process holds: its run, its positions, and what it saw since the beginning of all runs."""

    run: Run
    book: Book
    seen: list[Fill]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(history=st.lists(steps, max_size=40))
def test_what_a_restarted_strategy_holds_is_the_fold_of_everything_it_recorded(
    history: list[tuple[str, dict[str, object] | str]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = DatabasePaths.of(Path(folder) / "x.db")
        store = Store(paths, clock=FixedClock())
        reader = open_reader(paths.database)
        alive: dict[str, Live] = {}
        waiting = []
        for number, (strategy, step) in enumerate(history):
            if strategy not in alive or step == "restart":
                store.append(waiting)
                waiting = []
                found = recover(reader, strategy)
                run = Run(f"run-{number}", strategy)
                waiting.append(run.start(found.commit_no))
                alive[strategy] = Live(
                    run, Book.restore(found.rows, found.fills), alive[strategy].seen if strategy in alive else []
                )
            live = alive[strategy]
            if isinstance(step, dict):
                made = fill(f"f-{number}", **step)
                live.book.apply(made)
                live.seen.append(made)
                waiting.append(live.run.entry(made))
            elif step == "snapshot":
                waiting.append(live.run.entry(PositionSnapshot(1.0, live.book.snapshot())))
            elif step == "flush":
                assert store.append(waiting).recover == set()
                waiting = []
        store.append(waiting)

        for strategy, live in alive.items():
            found = recover(reader, strategy)
            everything = Book.restore((), live.seen)
            assert Book.restore(found.rows, found.fills).snapshot() == everything.snapshot()
            assert live.book.snapshot() == everything.snapshot()
            shown = [(view.market_id, view.size, view.realized_pnl) for view in positions(reader, strategy=strategy)]
            assert shown == [(held.market_id, held.size, held.realized_pnl) for held in everything.all_positions()]
        reader.close()
        store.close()
