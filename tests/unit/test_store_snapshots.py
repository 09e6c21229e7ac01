from __future__ import annotations

import math

import msgspec
import pytest
from store_case import Run, fate_of_every_seq, fill, original_database, rows, snapshot

from horizon.paths import DatabasePaths
from horizon.records import OrderSide, PositionSnapshot, RunEnded
from horizon.store.append import Store

BUY = fill("f-1", price=0.1, size=3.0)
SELL = fill("f-2", price=0.3, size=3.0, order_side=OrderSide.Sell)


def places(paths: DatabasePaths) -> list[tuple[object, ...]]:
    return rows(paths.database, "SELECT strategy, run_id, seq, commit_no FROM newest_snapshots ORDER BY strategy")


def count(paths: DatabasePaths) -> int:
    ((number,),) = rows(paths.database, "SELECT count(*) FROM position_snapshots")
    return int(number)


def test_a_row_carries_the_exact_state_and_the_rounded_view_of_the_page(store: Store, paths: DatabasePaths) -> None:
    """R5: the whole state of the fold as decimal text."""
    fills = [
        fill("f-1", price=0.1, size=1.0, fee=0.1),
        fill("f-2", price=0.2, size=2.0, fee=0.2),
        fill("f-3", market_id="eth", size=5.0),
    ]
    store.append(Run().entries(*fills, snapshot(fills, 1000.0, {"btc": 0.5})))
    assert rows(
        paths.database,
        "SELECT snapshot_batch, market_id, side, size, avg_entry_price, realized_pnl, unrealized_pnl, token_id, exchange, strategy, "
        "run_id, seq, commit_no, exact_size, exact_cost, exact_realized_pnl, exact_fees, exact_base_fees, multiplier, mark "
        "FROM position_snapshots",
    ) == [
        (
            *(1000.0, "btc", "long", 3.0, 0.5 / 3, 0.0, 1.0, None, "paper", "maker", "run-1", 4, 3),
            *("3.0", "0.50", "0", "0.3", "0", 1.0, 0.5),
        ),
        (
            *(1000.0, "eth", "long", 5.0, 100.5, 0.0, 0.0, None, "paper", "maker", "run-1", 4, 3),
            *("5.0", "502.50", "0", "0.01", "0", 1.0, None),
        ),
    ]  # fmt: skip


def test_a_snapshot_includes_the_fills_before_it_and_not_those_behind_it_in_one_batch(store: Store, paths: DatabasePaths) -> None:
    run, other = Run("run-1", "maker"), Run("run-2", "taker")
    store.append([run.entry(BUY), other.entry(fill("x")), run.entry(snapshot([BUY])), run.entry(SELL), other.entry(fill("y"))])
    assert places(paths) == [("maker", "run-1", 2, 2)]
    assert rows(paths.database, "SELECT commit_no FROM position_snapshots") == [(2,)]


def test_a_snapshot_equal_to_the_last_one_stores_no_rows_and_moves_its_place(store: Store, paths: DatabasePaths) -> None:
    """R6."""
    run, other = Run("run-1", "maker"), Run("run-2", "taker")
    store.append(run.entries(BUY, snapshot([BUY])))
    store.append(other.entries(fill("x")))
    assert store.append(run.entries(snapshot([BUY], 2000.0))).rows == {"snapshot_without_rows": 1}
    assert count(paths) == 1
    assert places(paths) == [("maker", "run-1", 3, 2)]


def test_a_flat_position_is_the_same_at_every_mark_and_an_open_one_is_not(store: Store, paths: DatabasePaths) -> None:
    run = Run()
    store.append(run.entries(BUY, snapshot([BUY], marks={"btc": 0.2}), snapshot([BUY], marks={"btc": 0.3})))
    assert count(paths) == 2
    store.append(run.entries(SELL, snapshot([BUY, SELL], marks={"btc": 0.2}), snapshot([BUY, SELL], marks={"btc": 0.3})))
    assert count(paths) == 3


def test_a_flat_market_keeps_its_row(store: Store, paths: DatabasePaths) -> None:
    """R5."""
    store.append(Run().entries(BUY, SELL, snapshot([BUY, SELL])))
    assert rows(paths.database, "SELECT size, avg_entry_price, exact_realized_pnl FROM position_snapshots") == [
        (0.0, 0.0, "0.60")
    ]


def test_a_snapshot_without_positions_has_a_place_and_no_rows(store: Store, paths: DatabasePaths) -> None:
    run = Run()
    outcome = store.append(run.entries(PositionSnapshot(1000.0, ()), PositionSnapshot(1001.0, ())))
    assert outcome.rows == {"snapshot_without_rows": 2}
    assert places(paths) == [("maker", "run-1", 2, 0)]
    assert rows(paths.database, "SELECT committed_seq, snapshots_without_rows FROM run_cursors") == [(2, 2)]


def test_the_batch_rises_strictly_whatever_the_clocks_say(store: Store, paths: DatabasePaths) -> None:
    """R5."""
    run, other = Run("run-1", "maker"), Run("run-2", "taker")
    store.append([run.entry(BUY), run.entry(snapshot([BUY], 1000.0)), other.entry(fill("x"))])
    store.append([other.entry(snapshot([fill("x")], 500.0)), run.entry(SELL), run.entry(snapshot([BUY, SELL], 1e300))])
    store.append([run.entry(fill("f-3")), run.entry(snapshot([fill("f-3")], 1001.0))])
    batches = [batch for (batch,) in rows(paths.database, "SELECT snapshot_batch FROM position_snapshots ORDER BY id")]
    assert batches == [1000.0, 1000.000001, 1e300, math.nextafter(1e300, math.inf)]


def test_the_batch_rises_beyond_what_the_original_left(paths: DatabasePaths) -> None:
    original_database(
        paths.database, "INSERT INTO position_snapshots VALUES (1, 9000.0, 'btc', 'long', 1.0, 1.0, 0.0, 0.0, NULL, '')"
    )
    store = Store(paths)
    store.append(Run().entries(BUY, snapshot([BUY], 1000.0)))
    assert rows(paths.database, "SELECT max(snapshot_batch) FROM position_snapshots") == [(9000.000001,)]
    store.close()


# ---- only one who knows all fills may store a snapshot (R2)


def test_a_snapshot_is_refused_when_another_run_of_the_strategy_committed_fills_since_the_recovery(
    store: Store, paths: DatabasePaths
) -> None:
    old, new = Run("run-1"), Run("run-2")
    store.append([old.start(), old.entry(BUY)])
    store.append([new.start(recovered_commit_no=1)])
    outcome = store.append([old.entry(SELL), new.entry(fill("f-3")), new.entry(snapshot([BUY, fill("f-3")]))])
    assert outcome.recover == {"run-2"}
    assert outcome.rows == {"fill": 2, "snapshot_refused": 1}
    assert outcome.committed == {"run-1": 3, "run-2": 3}
    assert (count(paths), places(paths)) == (0, [])
    assert rows(paths.database, "SELECT snapshots_refused FROM run_cursors WHERE run_id = 'run-2'") == [(1,)]


def test_fills_that_the_recovery_included_are_no_reason_to_refuse(store: Store) -> None:
    old, new = Run("run-1"), Run("run-2")
    store.append([old.start(), *old.entries(BUY, SELL)])
    assert store.append([new.start(recovered_commit_no=2), new.entry(snapshot([BUY, SELL]))]).rows["snapshot"] == 1


def test_fills_of_other_strategies_are_no_reason_to_refuse(store: Store) -> None:
    maker, taker = Run("run-1", "maker"), Run("run-2", "taker")
    outcome = store.append([maker.start(), taker.start(), taker.entry(fill("x")), maker.entry(BUY), maker.entry(snapshot([BUY]))])
    assert outcome.rows["snapshot"] == 1


def test_duplicates_and_order_events_of_another_run_are_no_reason_to_refuse(store: Store) -> None:
    old, new = Run("run-1"), Run("run-2")
    store.append([old.start(), old.entry(BUY), new.start(recovered_commit_no=1)])
    store.append([new.entry(fill("f-3"))])
    store.append([old.entry(fill("f-3")), old.entry(RunEnded(1.0))])
    assert store.append([new.entry(snapshot([BUY, fill("f-3")]))]).recover == set()


def test_the_refusal_holds_in_a_batch_that_goes_record_by_record(store: Store) -> None:
    old, new = Run("run-1"), Run("run-2")
    store.append([old.start(), new.start(recovered_commit_no=0), old.entry(BUY)])
    assert store.append([new.entry(BUY), new.entry(snapshot([BUY]))]).recover == {"run-2"}


# ---- a snapshot that is none


@pytest.mark.parametrize(
    "change",
    [
        {"size": "many"}, {"cost": "NaN"}, {"realized_pnl": "Infinity"}, {"fees": "1E+400"}, {"base_fees": "1E-999999"}, {"mark": math.inf},
        {"multiplier": math.nan}, {"size": ""},
    ],
)  # fmt: skip
def test_a_row_that_no_fold_gives_makes_the_whole_snapshot_a_dead_letter(
    change: dict[str, object], store: Store, paths: DatabasePaths
) -> None:
    run = Run()
    good = snapshot([BUY, fill("f-3", market_id="eth")])
    bad = PositionSnapshot(1000.0, (good.rows[0], msgspec.structs.replace(good.rows[1], **change)))
    outcome = store.append(run.entries(BUY, bad, good))
    assert outcome.rows == {"fill": 1, "unstorable": 1, "snapshot": 1}
    assert count(paths) == 2
    assert fate_of_every_seq(paths, "run-1") == {1: ["fill"], 2: ["dead letter"], 3: ["snapshot"]}


def test_a_snapshot_without_a_time_is_a_dead_letter(store: Store) -> None:
    assert store.append(Run().entries(PositionSnapshot(math.nan, ()))).rows == {"unstorable": 1}
