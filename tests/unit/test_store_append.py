from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from store_case import FixedClock, Run, fate_of_every_seq, fill, order_event, rows, snapshot

from horizon.paths import DatabasePaths
from horizon.records import (
    FeeCurrency,
    FillConflict,
    OrderSide,
    OrderStatus,
    RiskEvent,
    RiskEventType,
    RunEnded,
    RunStarted,
    Side,
)
from horizon.store.append import Store


@pytest.fixture
def paths(tmp_path: Path) -> DatabasePaths:
    return DatabasePaths.of(tmp_path / "x.db")


@pytest.fixture
def store(paths: DatabasePaths) -> Iterator[Store]:
    store = Store(paths, clock=FixedClock(5000.0))
    yield store
    store.close()


def test_a_fill_is_a_row_with_every_field(store: Store, paths: DatabasePaths) -> None:
    made = fill("f-1", side=Side.Yes, token_id="t", is_maker=True, multiplier=5.0, fee_currency=FeeCurrency.Base)
    store.append(Run().entries(made))
    assert rows(paths.database, "SELECT * FROM fills") == [
        (
            "f-1",
            "order-1",
            "btc",
            "yes",
            "buy",
            100.5,
            2.0,
            0.01,
            1000.0,
            "t",
            "paper",
            5000.0,
            "maker",
            "run-1",
            1,
            1,
            1,
            5.0,
            "base",
        )
    ]


def test_an_order_event_is_a_row_with_every_field(store: Store, paths: DatabasePaths) -> None:
    store.append(Run().entries(order_event("o-1", OrderStatus.Rejected, status_reason="too large")))
    assert rows(paths.database, "SELECT * FROM order_events") == [
        (
            *(
                1,
                "o-1",
                "btc",
                "long",
                "buy",
                100.5,
                2.0,
                0.0,
                2.0,
                "limit",
                "gtc",
                "rejected",
                "too large",
                "paper",
                999.0,
                1000.0,
            ),
            *("maker", "run-1", 1),
        )
    ]


def test_a_risk_event_is_a_row(store: Store, paths: DatabasePaths) -> None:
    store.append(Run().entries(RiskEvent(RiskEventType.KillSwitchActivated, "drawdown", 1000.0)))
    assert rows(paths.database, "SELECT * FROM risk_events") == [
        (1, "kill_switch_activated", "drawdown", 1000.0, "maker", "run-1", 1)
    ]


def test_a_run_has_its_start_and_its_end_in_one_row(store: Store, paths: DatabasePaths) -> None:
    run = Run()
    store.append(Run("run-0").entries(*(fill(f"f-{number}") for number in range(7))))
    store.append([run.start(recovered_commit_no=7)])
    columns = (
        "strategy_name, exchange, started_at, ended_at, config, strategy, seq, ended_seq, pid, status, end_reason, "
        "recovered_commit_no"
    )
    started = ("maker", "paper", 1000.0)
    assert rows(paths.database, f"SELECT {columns} FROM strategy_runs") == [
        (*started, None, "{}", "maker", 1, None, 4711, "running", None, 7)
    ]
    store.append(run.entries(RunEnded(2000.0, "stopped")))
    assert rows(paths.database, f"SELECT {columns} FROM strategy_runs") == [
        (*started, 2000.0, "{}", "maker", 1, 2, 4711, "ended", "stopped", 7)
    ]


def test_a_run_cannot_have_recovered_a_later_place_than_there_is(store: Store, paths: DatabasePaths) -> None:
    """A backup was restored under its journal: what it knew is missing, so it knows no more than the database (R2)."""
    store.append(Run("run-0").entries(fill("f-1"), fill("f-2")))
    store.append([Run().start(recovered_commit_no=99)])
    assert rows(paths.database, "SELECT recovered_commit_no FROM strategy_runs") == [(2,)]


def test_an_outcome_says_how_far_each_run_is_and_counts_every_kind(store: Store) -> None:
    maker, taker = Run("run-1", "maker"), Run("run-2", "taker")
    entries = [
        maker.start(), taker.start(), maker.entry(fill("f-1")), taker.entry(order_event("o-1")), maker.entry(None, "garbage"),
        taker.entry(fill("f-1", order_id="other")), maker.entry(snapshot([fill("f-1")])), maker.entry(fill("f-1")),
        taker.entry(RunEnded(1.0)),
    ]  # fmt: skip
    outcome = store.append(entries)
    assert outcome.committed == {"run-1": 5, "run-2": 4}
    assert outcome.dead_letters == {"run-1": [3], "run-2": [3]}
    assert outcome.recover == set()
    assert outcome.rows == {
        "run": 3, "fill": 1, "order_event": 1, "undecodable": 1, "conflict": 1, "snapshot": 1, "duplicate": 1,
    }  # fmt: skip


def test_the_totals_of_a_run_add_up(store: Store, paths: DatabasePaths) -> None:
    run = Run()
    store.append(run.entries(fill("f-1"), order_event("o-1"), order_event("o-1", OrderStatus.Canceled), fill("f-1"), None))
    columns = "committed_seq, last_commit_no, fills, order_events, orders, duplicates, dead_letters"
    assert rows(paths.database, f"SELECT {columns} FROM run_cursors") == [(5, 1, 1, 2, 1, 1, 1)]


def test_nothing_at_all_can_be_appended(store: Store) -> None:
    assert store.append([]).committed == {}


# ---- exactly once


def test_what_is_committed_already_is_skipped(store: Store, paths: DatabasePaths) -> None:
    entries = Run().entries(fill("f-1"), order_event("o-1"), fill("f-2"))
    store.append(entries[:2])
    outcome = store.append(entries)
    assert outcome.committed == {"run-1": 3}
    assert outcome.rows == {"fill": 1}
    assert store.append(entries).rows == {}
    assert rows(paths.database, "SELECT count(*) FROM order_events") == [(1,)]


def test_a_missing_seq_is_refused_with_everything_around_it(store: Store, paths: DatabasePaths) -> None:
    entries = Run().entries(fill("f-1"), fill("f-2"), fill("f-3"))
    with pytest.raises(ValueError, match="run run-1 is at seq 1: 3 cannot come next"):
        store.append([entries[0], entries[2]])
    assert rows(paths.database, "SELECT count(*) FROM fills") == [(0,)]
    assert store.append(entries).committed == {"run-1": 3}


def test_the_cursor_survives_a_restart_of_the_writer(store: Store, paths: DatabasePaths) -> None:
    entries = Run().entries(fill("f-1"), order_event("o-1"))
    store.append(entries)
    store.close()
    store.reopen()
    assert store.cursor("run-1") == 2
    assert store.cursor("run-unknown") == 0
    store.append(entries)
    assert rows(paths.database, "SELECT count(*) FROM order_events") == [(1,)]


def test_fills_are_numbered_in_the_order_they_are_committed_over_all_runs(store: Store, paths: DatabasePaths) -> None:
    """R7."""
    first, second = Run("run-1"), Run("run-2", "taker")
    store.append([first.entry(fill("a")), second.entry(fill("b")), first.entry(fill("c"))])
    store.append([second.entry(fill("d"))])
    assert rows(paths.database, "SELECT fill_id, commit_no, rowid FROM fills ORDER BY rowid") == [
        ("a", 1, 1), ("b", 2, 2), ("c", 3, 3), ("d", 4, 4),
    ]  # fmt: skip


def test_a_number_in_the_commit_order_is_never_given_twice(store: Store, paths: DatabasePaths) -> None:
    """R7."""
    run = Run()
    store.append(run.entries(fill("a"), fill("b")))
    store._connection.execute("DELETE FROM fills")  # as retention will
    store.append(run.entries(fill("c")))
    assert rows(paths.database, "SELECT fill_id, commit_no FROM fills") == [("c", 3)]


# ---- one bad record never fails its neighbours


def test_bytes_that_are_no_record_become_a_dead_letter(store: Store, paths: DatabasePaths) -> None:
    run = Run()
    outcome = store.append([run.entry(fill("f-1")), run.entry(None, "the tag 'x' is not known"), run.entry(fill("f-2"))])
    assert (outcome.committed, outcome.dead_letters) == ({"run-1": 3}, {"run-1": [2]})
    columns = "run_id, seq, strategy, kind, reason, payload, fill_id, captured_at"
    assert rows(paths.dead_letters, f"SELECT {columns} FROM dead_letters") == [
        ("run-1", 2, "maker", "undecodable", "the tag 'x' is not known", b"\xc1garbage", None, 5000.0)
    ]
    assert store.dead_letters("run-1") == [2]


def test_a_value_that_the_schema_refuses_becomes_a_dead_letter_and_its_neighbours_rows(
    store: Store, paths: DatabasePaths
) -> None:
    """R19: the batch is repeated record by record."""
    run = Run()
    bad = order_event("o-2", recorded_at=math.nan)
    outcome = store.append(run.entries(order_event("o-1"), fill("f-1"), bad, fill("f-2"), order_event("o-3")))
    assert outcome.committed == {"run-1": 5}
    assert outcome.rows == {"fill": 2, "order_event": 2, "unstorable": 1}
    ((seq, kind, reason, payload),) = rows(paths.dead_letters, "SELECT seq, kind, reason, payload FROM dead_letters")
    assert (seq, kind, payload) == (3, "unstorable", msgspec.msgpack.encode(bad))
    assert "NOT NULL constraint failed: order_events.recorded_at" in reason
    assert rows(paths.database, "SELECT order_id FROM order_events") == [("o-1",), ("o-3",)]
    assert rows(paths.database, "SELECT order_id FROM open_orders") == [("o-1",), ("o-3",)]


@pytest.mark.parametrize(
    "bad",
    [
        RunStarted("maker", "paper", math.nan),
        RunStarted("maker", "paper", 1.0, None, 1 << 64),
        RunEnded(1.0),  # of a run without a start
    ],
)
def test_a_record_of_any_kind_that_cannot_be_stored_blocks_nobody(bad: RunStarted, store: Store, paths: DatabasePaths) -> None:
    run = Run()
    entries = [run.entry(fill("f-1")), run.entry(fill("f-2"))._replace(records=[bad]), run.entry(fill("f-3"))]
    outcome = store.append(entries)
    assert outcome.rows == {"fill": 2, "unstorable": 1}
    assert fate_of_every_seq(paths, "run-1") == {1: ["fill"], 2: ["dead letter"], 3: ["fill"]}


def test_a_second_start_and_a_second_end_of_a_run_are_dead_letters(store: Store, paths: DatabasePaths) -> None:
    run = Run()
    store.append([run.start(), run.start(), *run.entries(RunEnded(1.0, "first"), RunEnded(2.0, "second"))])
    assert fate_of_every_seq(paths, "run-1") == {1: ["start"], 2: ["dead letter"], 3: ["end"], 4: ["dead letter"]}
    assert rows(paths.database, "SELECT ended_at, end_reason FROM strategy_runs") == [(1.0, "first")]


# ---- fills whose id is known (R4)


def test_a_fill_that_comes_again_is_one_row_and_one_line_of_duplicates(store: Store, paths: DatabasePaths) -> None:
    run = Run()
    store.append(run.entries(fill("f-1")))
    outcome = store.append(run.entries(order_event("o-1"), fill("f-1"), fill("f-2")))
    assert outcome.rows == {"order_event": 1, "duplicate": 1, "fill": 1}
    assert rows(paths.database, "SELECT * FROM duplicates") == [("run-1", 3, "f-1")]
    assert fate_of_every_seq(paths, "run-1") == {1: ["fill"], 2: ["order event"], 3: ["duplicate"], 4: ["fill"]}


def test_a_fill_that_comes_twice_in_one_batch_is_one_row(store: Store, paths: DatabasePaths) -> None:
    assert store.append(Run().entries(fill("f-1"), fill("f-1"))).rows == {"fill": 1, "duplicate": 1}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"order_id": "order-2"}, "order_id order-1 -> order-2"),
        ({"market_id": "eth"}, "market_id btc -> eth"),
        ({"side": Side.No}, "side LONG -> NO"),
        ({"order_side": OrderSide.Sell}, "order_side BUY -> SELL"),
        ({"price": 100.6}, "price 100.5 -> 100.6"),
        ({"size": 3.0}, "size 2.0 -> 3.0"),
        ({"exchange": "other"}, "exchange paper -> other"),
        ({"price": 1.0, "fee": 9.0}, "price 100.5 -> 1.0"),
    ],
)
def test_a_known_fill_with_other_content_is_a_conflict(
    change: dict[str, object], said: str, store: Store, paths: DatabasePaths
) -> None:
    run = Run()
    store.append(run.entries(fill("f-1"), fill("f-1", **change)))
    assert rows(paths.dead_letters, "SELECT seq, kind, reason, fill_id FROM dead_letters") == [
        (2, "conflict", f"fill 'f-1' is stored with other content: {said}", "f-1")
    ]
    assert rows(paths.database, "SELECT price, size FROM fills") == [(100.5, 2.0)]


@pytest.mark.parametrize(
    "change",
    [
        {"fee": 0.02}, {"timestamp": 1001.0}, {"token_id": "t"}, {"is_maker": True}, {"multiplier": 2.0},
        {"fee_currency": FeeCurrency.Base},
    ],
)  # fmt: skip
def test_a_known_fill_with_other_details_is_an_amendment(change: dict[str, object], store: Store, paths: DatabasePaths) -> None:
    outcome = store.append(Run().entries(fill("f-1"), fill("f-1", **change)))
    assert outcome.rows == {"fill": 1, "amended": 1}
    assert outcome.dead_letters == {"run-1": [2]}
    ((kind, reason),) = rows(paths.dead_letters, "SELECT kind, reason FROM dead_letters")
    assert kind == "amended"
    assert f"is stored with other details: {next(iter(change))} " in reason


def test_a_fill_of_another_strategy_under_a_known_id_is_a_conflict(store: Store, paths: DatabasePaths) -> None:
    store.append(Run("run-1", "maker").entries(fill("f-1")))
    store.append(Run("run-2", "taker").entries(fill("f-1")))
    assert rows(paths.dead_letters, "SELECT run_id, kind, reason FROM dead_letters") == [
        ("run-2", "conflict", "fill 'f-1' is stored with other content: strategy 'maker' -> 'taker'")
    ]


def test_a_later_run_of_the_same_strategy_may_tell_a_fill_again(store: Store) -> None:
    store.append(Run("run-1").entries(fill("f-1")))
    assert store.append(Run("run-2").entries(fill("f-1"))).rows == {"duplicate": 1}


@pytest.mark.parametrize(
    ("told", "kind", "said"),
    [
        (fill("f-1", price=1.0), "conflict", "price 100.5 -> 1.0"),
        (fill("f-1", fee=1.0), "amended", "fee 0.01 -> 1.0"),
        (fill("f-1"), "conflict", "equals the stored one"),
        (fill("f-2"), "conflict", "is not stored"),
    ],
)
def test_a_conflict_that_the_engine_saw_is_always_a_dead_letter(
    told: FillConflict, kind: str, said: str, store: Store, paths: DatabasePaths
) -> None:
    run = Run()
    store.append([run.entry(fill("f-1")), run.entry(FillConflict(told))])  # type: ignore[arg-type]
    ((seq, stored_kind, reason, fill_id),) = rows(paths.dead_letters, "SELECT seq, kind, reason, fill_id FROM dead_letters")
    assert (seq, stored_kind, fill_id) == (2, kind, told.fill_id)  # type: ignore[attr-defined]
    assert said in reason
    assert rows(paths.database, "SELECT count(*) FROM fills") == [(1,)]


# ---- open orders


def open_orders(paths: DatabasePaths) -> list[tuple[object, ...]]:
    return rows(paths.database, "SELECT order_id, status, filled_size, run_id, seq FROM open_orders ORDER BY rowid")


def test_an_order_is_open_from_new_until_a_terminal_status(store: Store, paths: DatabasePaths) -> None:
    run = Run()
    store.append(run.entries(order_event("o-1"), order_event("o-2")))
    store.append(
        run.entries(order_event("o-1", OrderStatus.Accepted), order_event("o-2", OrderStatus.PartiallyFilled, filled_size=1.0))
    )
    assert open_orders(paths) == [("o-1", "accepted", 0.0, "run-1", 3), ("o-2", "partially_filled", 1.0, "run-1", 4)]
    store.append(run.entries(order_event("o-1", OrderStatus.Canceled), order_event("o-2", OrderStatus.Filled)))
    assert open_orders(paths) == []


@pytest.mark.parametrize("end", [OrderStatus.Filled, OrderStatus.Canceled, OrderStatus.Rejected])
def test_a_terminal_status_is_final(end: OrderStatus, store: Store, paths: DatabasePaths) -> None:
    """R8."""
    run = Run()
    events = [order_event("o-1"), order_event("o-1", end), order_event("o-1", OrderStatus.Accepted)]
    store.append(run.entries(*events))
    assert open_orders(paths) == []
    for event in events:
        store.append(run.entries(msgspec.structs.replace(event, order_id="o-2")))
    assert open_orders(paths) == []


def test_a_later_run_changes_an_order_of_an_earlier_one(store: Store, paths: DatabasePaths) -> None:
    store.append(Run("run-1").entries(order_event("o-1")))
    store.append(Run("run-2").entries(order_event("o-1", OrderStatus.Accepted)))
    assert open_orders(paths) == [("o-1", "accepted", 0.0, "run-2", 1)]


# ---- gaps and dead runs


def test_a_gap_is_written_down_and_passed(store: Store, paths: DatabasePaths) -> None:
    """R13: the gap and the cursor are one transaction."""
    run = Run()
    store.append(run.entries(fill("f-1")))
    store.record_gap("run-1", "maker", 2, 4, "the journal is damaged at byte 96")
    assert rows(paths.database, "SELECT * FROM run_gaps") == [
        ("run-1", 2, 4, "the journal is damaged at byte 96", 5000.0, None, None)
    ]
    run.seq = 4
    assert store.append(run.entries(fill("f-2"))).committed == {"run-1": 5}
    assert fate_of_every_seq(paths, "run-1") == {1: ["fill"], 2: ["gap"], 3: ["gap"], 4: ["gap"], 5: ["fill"]}


def test_a_gap_that_is_passed_already_changes_nothing(store: Store, paths: DatabasePaths) -> None:
    store.append(Run().entries(fill("f-1"), fill("f-2")))
    store.record_gap("run-1", "maker", 1, 2, "told again")
    assert rows(paths.database, "SELECT count(*) FROM run_gaps") == [(0,)]


def test_a_gap_must_begin_behind_the_cursor(store: Store) -> None:
    with pytest.raises(ValueError, match="committed up to 0: a gap cannot begin at 3"):
        store.record_gap("run-1", "maker", 3, 4, "?")


def test_a_run_whose_process_is_gone_is_closed_as_died(store: Store, paths: DatabasePaths) -> None:
    store.append([Run("run-1").start()])
    store.close_died_run("run-1", 3000.0)
    store.close_died_run("run-unknown", 3000.0)
    assert rows(paths.database, "SELECT ended_at, status, end_reason FROM strategy_runs") == [(3000.0, "died", "died")]


def test_a_run_that_ended_did_not_die(store: Store, paths: DatabasePaths) -> None:
    run = Run()
    store.append([run.start(), run.entry(RunEnded(2000.0))])
    store.close_died_run("run-1", 3000.0)
    assert rows(paths.database, "SELECT ended_at, status FROM strategy_runs") == [(2000.0, "ended")]


def test_an_end_that_is_found_later_corrects_a_run_that_was_taken_for_dead(store: Store, paths: DatabasePaths) -> None:
    run = Run()
    store.append([run.start()])
    store.close_died_run("run-1", 3000.0)
    store.append([run.entry(RunEnded(2000.0, "stopped"))])
    assert rows(paths.database, "SELECT ended_at, status, end_reason FROM strategy_runs") == [(2000.0, "ended", "stopped")]
