from __future__ import annotations

import apsw
import pytest
from store_case import Run, fill, order_event, original_database, rows, snapshot

from horizon.errors import ConfigError, StoreRefused
from horizon.paths import DatabasePaths
from horizon.positions import Book
from horizon.records import FeeCurrency, OrderSide, OrderStatus, PositionRow, Side
from horizon.store.append import Store
from horizon.store.connection import open_reader
from horizon.store.recovery import Recovered, only_strategy, recover

BUY = fill("f-1", price=0.1, size=3.0, timestamp=2000.0)
SELL = fill("f-2", price=0.3, size=1.0, order_side=OrderSide.Sell, timestamp=1000.0)  # told late: traded before it was recorded


def recovered(paths: DatabasePaths, strategy: str = "maker") -> Recovered:
    reader = open_reader(paths.database)
    try:
        return recover(reader, strategy)
    finally:
        reader.close()


def test_a_strategy_without_a_past_recovers_nothing(store: Store, paths: DatabasePaths) -> None:
    assert recovered(paths) == Recovered((), [], 0, [], None)


def test_without_a_snapshot_every_fill_comes_back_as_it_was(store: Store, paths: DatabasePaths) -> None:
    odd = fill("f-9", side=Side.No, token_id="t", is_maker=True, multiplier=5.0, fee_currency=FeeCurrency.Base)
    store.append(Run().entries(BUY, odd))
    assert recovered(paths) == Recovered((), [BUY, odd], 2, [], None)


def test_the_newest_snapshot_and_the_fills_committed_after_it_come_back(store: Store, paths: DatabasePaths) -> None:
    later = fill("f-3")
    taken = snapshot([BUY, SELL], 1500.0, {"btc": 0.25})
    store.append(Run().entries(BUY, snapshot([BUY]), SELL, taken, later))
    assert recovered(paths) == Recovered(taken.rows, [later], 3, [], 1500.0)


def test_a_late_fill_is_neither_lost_nor_doubled_whatever_its_time(store: Store, paths: DatabasePaths) -> None:
    taken = snapshot([BUY], taken_at=2000.0)  # the trade time of BUY, later than that of SELL
    store.append(Run().entries(BUY, taken, SELL))
    assert recovered(paths).fills == [SELL]


def test_calling_it_twice_changes_nothing(store: Store, paths: DatabasePaths) -> None:
    store.append(Run().entries(BUY, snapshot([BUY]), SELL, order_event("o-1")))
    assert recovered(paths) == recovered(paths)


def test_fills_of_other_strategies_stay_theirs_and_move_the_commit_order(store: Store, paths: DatabasePaths) -> None:
    maker, taker = Run("run-1", "maker"), Run("run-2", "taker")
    store.append(
        [maker.entry(BUY), taker.entry(fill("x")), taker.entry(snapshot([fill("x")])), maker.entry(SELL), taker.entry(fill("y"))]
    )
    assert recovered(paths, "maker") == Recovered((), [BUY, SELL], 4, [], None)
    assert recovered(paths, "taker").fills == [fill("y")]


def test_an_unchanged_snapshot_brings_its_rows_and_its_newest_place(store: Store, paths: DatabasePaths) -> None:
    run, other = Run(), Run("run-2", "taker")
    taken = snapshot([BUY], 1000.0)
    store.append([*run.entries(BUY, taken), other.entry(fill("x")), run.entry(snapshot([BUY], 1001.0)), run.entry(SELL)])
    assert recovered(paths) == Recovered(taken.rows, [SELL], 3, [], 1001.0)


# ---- open orders (R8)


def test_open_orders_come_back_with_what_their_fills_say(store: Store, paths: DatabasePaths) -> None:
    run, other = Run(), Run("run-2", "taker")
    first, second = order_event("o-1", size=0.3), order_event("o-2")
    accepted = order_event("o-2", OrderStatus.Accepted)
    store.append([*run.entries(first, second, accepted), other.entry(order_event("o-9"))])
    store.append(
        run.entries(fill("f-1", order_id="o-1", size=0.1), fill("f-2", order_id="o-1", size=0.2), fill("f-3", order_id="o-7"))
    )
    orders = recovered(paths).open_orders
    assert [(order.run_id, order.event, order.filled_size) for order in orders] == [
        ("run-1", first, 0.3),
        ("run-1", accepted, 0.0),
    ]


def test_an_order_that_ended_is_not_open(store: Store, paths: DatabasePaths) -> None:
    store.append(Run().entries(order_event("o-1"), order_event("o-1", OrderStatus.Canceled)))
    assert recovered(paths).open_orders == []


# ---- whose database it is (R9)


def test_the_only_strategy_is_found_and_several_are_named(store: Store, paths: DatabasePaths) -> None:
    reader = open_reader(paths.database)
    assert only_strategy(reader) is None
    store.append([Run("run-1", "maker").start()])
    assert only_strategy(reader) == "maker"
    store.append(Run("run-2", "arb").entries(fill("f-1")))
    with pytest.raises(ConfigError, match=r"x\.db holds several strategies: name one of arb, maker"):
        only_strategy(reader)
    reader.close()


# ---- what the original left

ORIGINAL = """
INSERT INTO strategy_runs VALUES ('run-a', 'maker', 'paper', 100.0, NULL, NULL);
INSERT INTO position_snapshots VALUES
    (1, 200.0, 'btc', 'long', 9.0, 9.0, 9.0, 9.0, NULL, 'paper'),
    (2, 300.0, 'btc', 'long', 3.0, 0.1, 0.5, 0.0, 't', 'paper'), (3, 300.0, 'rain', 'YES', -2.0, 0.7, 0.0, 0.0, NULL, 'paper');
INSERT INTO fills VALUES
    ('f-1', 'o-1', 'btc', 'long', 'buy', 0.1, 1.0, 0.0, 299.0, NULL, 'paper', 1.0),
    ('f-2', 'o-1', 'btc', 'Long', 'Buy', 0.2, 1.0, 0.0, 300.0, NULL, 'paper', 1.0),
    ('f-3', 'o-1', 'btc', 'long', 'sell', 0.3, 1.0, 0.0, 301.0, NULL, 'paper', 1.0);
INSERT INTO order_events VALUES
    (1, 'o-1', 'btc', 'long', 'buy', 0.1, 5.0, 0.0, 5.0, 'Limit', 'GTC', 'accepted', NULL, 'paper', 1.0, 1.0);
"""


def test_a_database_of_the_original_is_replayed_by_the_rule_of_its_page(paths: DatabasePaths) -> None:
    original_database(paths.database, ORIGINAL)
    Store(paths).close()
    found = recovered(paths)
    assert found.snapshot_at == 300.0
    assert found.rows == (
        PositionRow("btc", Side.Long, "paper", "t", "3.0", "0.30", "0.5", "0", "0"),
        PositionRow("rain", Side.Yes, "paper", None, "-2.0", "-1.40", "0.0", "0", "0"),
    )
    assert [fill.fill_id for fill in found.fills] == ["f-2", "f-3"]
    assert found.commit_no == 3
    assert [(order.run_id, order.event.order_id, order.filled_size) for order in found.open_orders] == [(None, "o-1", 3.0)]
    assert Book.restore(found.rows, found.fills).size("btc", Side.Long, "paper") == 3.0


def test_our_fills_come_after_those_of_the_original_whatever_their_time(paths: DatabasePaths) -> None:
    original_database(paths.database, ORIGINAL)
    store = Store(paths)
    ours = fill("ours", timestamp=1.0)
    run = Run()
    store.append([run.start(recovered_commit_no=3), run.entry(ours)])
    found = recovered(paths)
    assert [fill.fill_id for fill in found.fills] == ["f-2", "f-3", "ours"]
    taken = snapshot([ours])
    store.append([run.entry(taken), run.entry(fill("last"))])
    assert recovered(paths).rows == taken.rows
    assert [fill.fill_id for fill in recovered(paths).fills] == ["last"]
    store.close()


def test_another_strategy_does_not_get_what_the_original_left(paths: DatabasePaths) -> None:
    original_database(paths.database, ORIGINAL)
    store = Store(paths)
    store.append(Run("run-2", "newcomer").entries(fill("own")))
    assert recovered(paths, "newcomer") == Recovered((), [fill("own")], 4, [], None)
    store.close()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            "UPDATE fills SET side = 'maybe' WHERE fill_id = 'f-2'",
            "stored fill 'f-2' cannot be read: 'maybe' is not a valid Side",
        ),
        (
            "UPDATE fills SET size = 0 WHERE fill_id = 'f-2'",
            "stored fill 'f-2' cannot be read: fill 'f-2': size must be positive",
        ),
        ("UPDATE position_snapshots SET side = 'maybe'", "stored position of 'btc' cannot be read"),
        ("UPDATE open_orders SET order_type = 'maybe'", "stored order 'o-1' cannot be read"),
    ],
)
def test_a_row_that_is_no_record_is_named(damage: str, said: str, paths: DatabasePaths) -> None:
    original_database(paths.database, ORIGINAL)
    Store(paths).close()
    connection = apsw.Connection(str(paths.database))
    connection.execute(damage)
    connection.close()
    with pytest.raises(StoreRefused, match=said):
        recovered(paths)


def test_a_stored_fill_that_cannot_be_read_makes_its_repetition_a_dead_letter(paths: DatabasePaths) -> None:
    original_database(paths.database, ORIGINAL)
    store = Store(paths)
    store._connection.execute("UPDATE fills SET side = 'maybe'")
    assert store.append(Run().entries(fill("f-1"), fill("f-9"))).rows == {"unstorable": 1, "fill": 1}
    assert rows(paths.dead_letters, "SELECT seq FROM dead_letters") == [(1,)]
    store.close()
