from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import apsw
import pytest
from store_case import Run, fill, order_event, original_database, snapshot

from horizon.paths import DatabasePaths
from horizon.records import OrderSide, OrderStatus, RunEnded, Side
from horizon.store import read
from horizon.store.append import Store
from horizon.store.connection import open_reader
from horizon.store.sql import QUERIES

ORIGINAL = """
INSERT INTO strategy_runs VALUES ('run-a', 'my_strategy', 'paper', 100.0, NULL, NULL);
INSERT INTO position_snapshots VALUES (1, 300.0, 'btc', 'long', 3.0, 0.1, 0.5, 0.0, NULL, 'paper');
INSERT INTO fills VALUES
    ('f-1', 'o-1', 'btc', 'long', 'buy', 0.1, 3.0, 0.25, 299.0, NULL, 'paper', 1.0),
    ('f-2', 'o-1', 'btc', 'long', 'buy', 0.2, 1.0, 0.5, 301.0, NULL, 'paper', 1.0),
    ('f-3', 'o-2', 'rain', 'yes', 'buy', 0.3, 1.0, 0.0, 302.0, NULL, 'paper', 1.0);
INSERT INTO order_events VALUES
    (1, 'o-1', 'btc', 'long', 'buy', 0.1, 4.0, 0.0, 4.0, 'limit', 'gtc', 'new', NULL, 'paper', 1.0, 1.0),
    (2, 'o-2', 'rain', 'yes', 'buy', 0.3, 5.0, 0.0, 5.0, 'limit', 'gtc', 'new', NULL, 'paper', 1.0, 2.0),
    (3, 'o-1', 'btc', 'long', 'buy', 0.1, 4.0, 4.0, 0.0, 'limit', 'gtc', 'filled', NULL, 'paper', 1.0, 3.0);
"""


@pytest.fixture
def reader(store: Store, paths: DatabasePaths) -> Iterator[apsw.Connection]:
    connection = open_reader(paths.database)
    yield connection
    connection.close()


@pytest.fixture
def original(paths: DatabasePaths) -> Iterator[apsw.Connection]:
    """A database of the original that no writer has upgraded."""
    original_database(paths.database, ORIGINAL)
    connection = open_reader(paths.database)
    yield connection
    connection.close()


# ---- fills


def test_fills_are_shown_newest_first_by_commit_order(store: Store, reader: apsw.Connection) -> None:
    store.append(Run().entries(fill("a", timestamp=9.0), fill("b", timestamp=1.0), fill("c", timestamp=5.0)))
    assert [row.fill_id for row in read.fills(reader)] == ["c", "b", "a"]
    assert [row.fill_id for row in read.fills(reader, limit=2)] == ["c", "b"]
    assert len(read.fills(reader, limit=None)) == 3


def test_fills_are_chosen_by_strategy_market_and_time(store: Store, reader: apsw.Connection) -> None:
    maker, taker = Run("run-1", "maker"), Run("run-2", "taker")
    store.append([*maker.entries(fill("a"), fill("b", market_id="eth", timestamp=2000.0)), *taker.entries(fill("c"), fill("d"))])
    assert [row.fill_id for row in read.fills(reader, strategy="maker")] == ["b", "a"]
    assert [row.fill_id for row in read.fills(reader, market="btc")] == ["d", "c", "a"]
    assert [row.fill_id for row in read.fills(reader, market="btc", strategy="maker")] == ["a"]
    assert [row.fill_id for row in read.fills(reader, since=2000.0)] == ["b"]
    assert read.fills(reader, strategy="nobody") == []


def test_a_row_of_fills_says_who_recorded_it(store: Store, reader: apsw.Connection) -> None:
    store.append(Run().entries(fill("a", is_maker=True)))
    (row,) = read.fills(reader)
    assert (row.strategy, row.run_id, row.seq, row.commit_no, row.is_maker, row.multiplier, row.fee_currency) == (
        "maker", "run-1", 1, 1, 1, 1.0, "quote",
    )  # fmt: skip


def test_a_fill_is_found_by_its_id_with_its_strategy(store: Store, reader: apsw.Connection) -> None:
    made = fill("a", side=Side.No, token_id="t", is_maker=True)
    store.append(Run().entries(made))
    assert read.fill_by_id(reader, "a") == ("maker", made)
    assert read.fill_by_id(reader, "b") is None


def test_a_run_is_known_with_its_strategy(store: Store, reader: apsw.Connection) -> None:
    store.append(Run("run-1", "maker").entries(fill("a")))
    assert read.strategy_of_run(reader, "run-1") == "maker"
    assert read.strategy_of_run(reader, "run-2") is None


# ---- orders


def test_open_orders_are_shown_newest_first_with_their_newest_event(store: Store, reader: apsw.Connection) -> None:
    run = Run()
    store.append(
        run.entries(order_event("o-1"), order_event("o-2"), order_event("o-3"), order_event("o-1", OrderStatus.Accepted))
    )
    store.append(run.entries(order_event("o-2", OrderStatus.Canceled)))
    assert [(row.order_id, row.status) for row in read.orders(reader)] == [("o-3", "new"), ("o-1", "accepted")]
    assert [row.order_id for row in read.orders(reader, limit=1)] == ["o-3"]


def test_all_orders_are_shown_once_each(store: Store, reader: apsw.Connection) -> None:
    run = Run()
    store.append(
        run.entries(order_event("o-1"), order_event("o-2"), order_event("o-1", OrderStatus.Canceled), order_event("o-3"))
    )
    assert [(row.order_id, row.status) for row in read.orders(reader, all_=True)] == [
        ("o-3", "new"),
        ("o-1", "canceled"),
        ("o-2", "new"),
    ]
    assert [row.order_id for row in read.orders(reader, all_=True, limit=2)] == ["o-3", "o-1"]


def test_orders_are_chosen_by_strategy_market_and_time(store: Store, reader: apsw.Connection) -> None:
    store.append(Run("run-1", "maker").entries(order_event("o-1"), order_event("o-2", market_id="eth", recorded_at=2000.0)))
    store.append(Run("run-2", "taker").entries(order_event("o-3")))
    for all_ in (False, True):
        assert [row.order_id for row in read.orders(reader, strategy="maker", all_=all_)] == ["o-2", "o-1"]
        assert [row.order_id for row in read.orders(reader, market="btc", all_=all_)] == ["o-3", "o-1"]
        assert [row.order_id for row in read.orders(reader, since=2000.0, all_=all_)] == ["o-2"]


# ---- positions


def test_positions_are_those_of_the_newest_fill_valued_at_the_newest_mark(store: Store, reader: apsw.Connection) -> None:
    first, second = fill("f-1", price=0.1, size=1.0, fee=0.1), fill("f-2", price=0.2, size=2.0, fee=0.2)
    store.append(Run().entries(first, snapshot([first], marks={"btc": 0.5}), second))
    (position,) = read.positions(reader)
    assert position == read.PositionView("maker", "paper", "btc", "long", 3.0, 0.5 / 3, 0.0, 1.0, 0.3, 0.0, None, 1.0)


def test_positions_of_every_strategy_are_shown_each_from_its_own_snapshot(store: Store, reader: apsw.Connection) -> None:
    maker, taker = Run("run-1", "maker"), Run("run-2", "taker")
    store.append([maker.entry(fill("a", size=1.0)), taker.entry(fill("b", size=5.0, market_id="eth"))])
    store.append([maker.entry(snapshot([fill("a", size=1.0)])), maker.entry(fill("c", size=1.0, order_side=OrderSide.Sell))])
    assert [(row.strategy, row.market_id, row.size) for row in read.positions(reader)] == [
        ("maker", "btc", 0.0),
        ("taker", "eth", 5.0),
    ]
    assert [row.strategy for row in read.positions(reader, strategy="taker")] == ["taker"]
    assert [row.strategy for row in read.positions(reader, market="btc")] == ["maker"]
    assert read.positions(reader, strategy="nobody") == []


# ---- runs and totals


def test_runs_are_shown_newest_first_with_what_became_of_their_records(store: Store, reader: apsw.Connection) -> None:
    first, second = Run("run-1", "maker"), Run("run-2", "taker")
    store.append([first.start(), *first.entries(fill("a"), fill("a"), None, order_event("o-1"), RunEnded(2000.0, "stopped"))])
    store.append([second.start()])
    newest, oldest = read.runs(reader)
    assert (newest.run_id, newest.status, newest.committed_seq) == ("run-2", "running", 1)
    assert oldest == read.RunRow(
        "run-1", "maker", "paper", 1000.0, 2000.0, "{}", "ended", "stopped", 4711, 6, 1, 1, 1, 1, 1, 0
    )  # fmt: skip
    assert [run.run_id for run in read.runs(reader, strategy="maker")] == ["run-1"]
    assert [run.run_id for run in read.runs(reader, limit=1)] == ["run-2"]


def test_a_summary_adds_up_the_runs_of_each_strategy(store: Store, reader: apsw.Connection) -> None:
    first, second, other = Run("run-1"), Run("run-2"), Run("run-3", "taker")
    store.append(first.entries(fill("a"), order_event("o-1"), order_event("o-2"), order_event("o-1", OrderStatus.Canceled)))
    store.append([*second.entries(fill("a"), None, fill("b")), other.entry(fill("c"))])
    store.record_gap("run-2", "maker", 4, 6, "damaged")
    assert read.summary(reader) == [
        read.StrategySummary(
            "maker", runs=2, orders=2, order_events=3, fills=2, open_orders=1, duplicates=1, dead_letters=1, gaps=3
        ),
        read.StrategySummary("taker", 1, 0, 0, 1, 0, 0, 0, 0),
    ]


def test_volume_is_the_money_that_fills_moved(store: Store, reader: apsw.Connection) -> None:
    store.append(Run().entries(fill("a", price=2.0, size=3.0), fill("b", price=-1.0, size=2.0, multiplier=5.0)))
    assert read.volumes(reader) == {"maker": 16.0}


# ---- a database of the original


def test_an_original_database_is_read_without_being_changed(original: apsw.Connection, paths: DatabasePaths) -> None:
    assert [(row.fill_id, row.strategy, row.run_id) for row in read.fills(original, limit=2)] == [
        ("f-3", "my_strategy", None), ("f-2", "my_strategy", None),
    ]  # fmt: skip
    assert [row.fill_id for row in read.fills(original, market="btc", since=300.0)] == ["f-2"]
    assert [row.fill_id for row in read.fills(original, strategy="my_strategy")] == ["f-3", "f-2", "f-1"]
    assert [(row.order_id, row.status) for row in read.orders(original)] == [("o-2", "new")]
    assert [(row.order_id, row.status) for row in read.orders(original, all_=True)] == [("o-1", "filled"), ("o-2", "new")]
    assert [(row.market_id, row.size, row.fees) for row in read.positions(original)] == [("btc", 4.0, 0.5), ("rain", 1.0, 0.0)]
    assert [(row.run_id, row.strategy, row.status) for row in read.runs(original)] == [("run-a", "my_strategy", None)]
    assert read.summary(original) == [read.StrategySummary("my_strategy", 1, 2, 3, 3, 1, 0, 0, 0)]
    assert read.volumes(original) == {"my_strategy": pytest.approx(0.8)}
    assert read.fill_by_id(original, "f-3") == ("my_strategy", fill_of_the_original())
    assert read.strategy_of_run(original, "run-a") is None
    assert original.pragma("user_version") == 0


def fill_of_the_original() -> object:
    return fill("f-3", order_id="o-2", market_id="rain", side=Side.Yes, price=0.3, size=1.0, fee=0.0, timestamp=302.0)


def test_an_original_database_has_nothing_of_another_strategy(original: apsw.Connection) -> None:
    assert read.fills(original, strategy="other") == []
    assert read.orders(original, strategy="other", all_=True) == []
    assert read.positions(original, strategy="other") == []
    assert read.runs(original, strategy="other") == []


def test_an_original_database_says_the_same_before_and_after_the_upgrade(original: apsw.Connection, paths: DatabasePaths) -> None:
    def said(connection: apsw.Connection) -> list[Any]:
        return [
            [row[:12] for row in read.fills(connection)],
            [row[:15] for row in read.orders(connection)],
            [row[:15] for row in read.orders(connection, all_=True)],
            read.positions(connection),
            [row[:5] for row in read.runs(connection)],
        ]

    before = said(original)
    Store(paths).close()
    upgraded = open_reader(paths.database)
    assert said(upgraded) == before
    upgraded.close()


# ---- plans: what a view costs does not grow with the tables

BIG = ("fills", "order_events", "position_snapshots", "duplicates")
DEFAULT_VIEWS = (
    "newest_fills", "newest_fills_of_market", "newest_open_orders", "newest_order_events", "newest_runs", "summary", "strategies",
    "fills_between", "snapshot_rows", "fill_by_id", "fill_sizes_of_order", "newest_snapshot", "has_foreign_fills", "newest_commit_no",
    "is_renumbered",
)  # fmt: skip


@pytest.mark.parametrize("view", DEFAULT_VIEWS)
def test_no_default_view_reads_or_sorts_a_whole_table(view: str, reader: apsw.Connection) -> None:
    values = dict.fromkeys(re.findall(r":(\w+)", QUERIES[view]), None)
    plan = [str(step[3]) for step in reader.execute(f"EXPLAIN QUERY PLAN {QUERIES[view]}", values)]
    assert plan
    # newest_order_events goes backwards over the table and is left when enough orders are seen.
    allowed = ("SCAN order_events",) if view == "newest_order_events" else ()
    scans = [step for step in plan if re.match(rf"SCAN ({'|'.join(BIG)})\b", step) and step not in allowed]
    assert not scans, plan
    if any(big in " ".join(plan) for big in BIG):
        assert not [step for step in plan if "TEMP B-TREE" in step], plan


def test_the_fills_of_a_resting_strategy_are_found_without_passing_what_others_did(store: Store, reader: apsw.Connection) -> None:
    store.append(Run("run-1", "maker").entries(fill("a")))
    store.append(Run("run-2", "taker").entries(*(fill(f"x-{n}") for n in range(5000))))
    steps = 0

    def count() -> bool:
        nonlocal steps
        steps += 1
        return False

    reader.set_progress_handler(count, 100)
    assert [row.fill_id for row in read.fills(reader, strategy="maker")] == ["a"]
    assert [row.size for row in read.positions(reader, strategy="maker")] == [2.0]
    assert steps < 50
