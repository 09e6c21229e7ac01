from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import apsw
import msgspec
import pytest
from samples import fill, order_event
from store_case import Run

from horizon.chaos.referee import Verdict, judge
from horizon.chaos.witness import About, held
from horizon.paths import DatabasePaths
from horizon.positions import Book
from horizon.records import Fill, FillConflict, OrderStatus, PositionSnapshot, Record, RunEnded, RunStarted
from horizon.store.append import Store


class Case(NamedTuple):
    """A small trial: what the witness and the exchange wrote, and the database."""

    paths: DatabasePaths
    witness: Path
    account: Path

    def judged(self) -> Verdict:
        return judge(self.paths.database, self.witness, self.account)

    def change(self, sql: str, database: Path | None = None) -> None:
        with closing(apsw.Connection(str(database or self.paths.database))) as connection:
            connection.execute(sql)

    @property
    def log(self) -> Path:
        return next(self.witness.iterdir())

    def rewrite(self, change: Callable[[list[bytes]], list[bytes]]) -> None:
        lines = self.log.read_bytes().splitlines(keepends=True)
        self.log.write_bytes(b"".join(change(lines)))


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """One run: two orders, four fills, a conflict, a snapshot, a second one that says nothing new, a clean end."""
    case = Case(DatabasePaths.of(tmp_path / "trades.db"), tmp_path / "witness", tmp_path / "accounts")
    case.witness.mkdir()
    (case.account / "0").mkdir(parents=True)
    fills = [fill(number, order_id=f"order-{number:08d}") for number in range(1, 5)]
    book = Book.restore((), fills)
    snapshot = PositionSnapshot(1_700_000_100.0, book.snapshot())
    records: list[Record] = [
        RunStarted("maker", "paper", 1000.0, "{}", 4711, 0),
        *(order_event(1), order_event(2, OrderStatus.New), fills[0], order_event(1, OrderStatus.PartiallyFilled), fills[1]),
        *(fills[2], fills[3], FillConflict(msgspec.structs.replace(fills[0], price=7.0)), snapshot, snapshot),
        RunEnded(1_700_000_200.0, "ended"),
    ]
    run = Run("01-run", "maker")
    with closing(Store(case.paths)) as store:
        store.append(run.entries(*records))
    lines = [b"r " + msgspec.json.encode(About("01-run", "maker", 4711))]
    for seq, record in enumerate(records, 1):
        lines += [b"b " + msgspec.json.encode(record), b"a %d" % seq]
        if seq == 10:
            lines.append(b"s 10 " + msgspec.json.encode(held(book.all_positions())))
    (case.witness / "01-run.log").write_bytes(b"\n".join(lines) + b"\n")
    (case.account / "0" / "maker.fills").write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in fills))
    return case


def faults(verdict: Verdict) -> dict[str, int]:
    names = (
        "lost",
        "duplicated",
        "out_of_order",
        "altered",
        "invented",
        "missed",
        "dead_lettered",
        "positions_off",
        "journals_left",
    )
    assert verdict.is_clean == (not any(getattr(verdict, name) for name in names))
    return {name: count for name in names if (count := getattr(verdict, name))}


def test_a_database_that_holds_what_was_recorded_is_clean(case: Case) -> None:
    verdict = case.judged()
    assert (faults(verdict), verdict.examples) == ({}, [])
    assert (verdict.runs, verdict.events, verdict.executions, verdict.dead_letters) == (1, 12, 4, 1)
    assert verdict.states == 4, "a state that was shown, two snapshots, and what a new run would recover"


def test_a_removed_fill_is_lost_and_the_positions_are_off(case: Case) -> None:
    case.change("DELETE FROM fills WHERE seq = 6")
    verdict = case.judged()
    assert faults(verdict)["lost"] == 1
    assert verdict.positions_off
    assert "seq 6 of run 01-run is nowhere" in verdict.examples[0]


def test_a_removed_order_event_is_lost(case: Case) -> None:
    case.change("DELETE FROM order_events WHERE seq = 5")
    assert faults(case.judged()) == {"lost": 1}


@pytest.mark.parametrize("table", ["strategy_runs", "position_snapshots"])
def test_a_removed_row_of_any_table_is_lost(case: Case, table: str) -> None:
    case.change(f"DELETE FROM {table}")
    assert faults(case.judged())["lost"] >= 1


def test_a_removed_dead_letter_is_lost(case: Case) -> None:
    case.change("DELETE FROM dead_letters", case.paths.dead_letters)
    assert faults(case.judged()) == {"lost": 1}


def test_a_doubled_order_event_is_duplicated(case: Case) -> None:
    columns = (
        "order_id, market_id, side, order_side, price, size, filled_size, remaining_size, order_type, time_in_force, status, "
        "status_reason, exchange, created_at, recorded_at, strategy, run_id, seq"
    )
    case.change(f"INSERT INTO order_events ({columns}) SELECT {columns} FROM order_events WHERE seq = 5")
    assert faults(case.judged()) == {"duplicated": 1}


def test_a_fill_that_is_there_twice_under_two_ids_is_duplicated(case: Case) -> None:
    columns = (
        "order_id, market_id, side, order_side, price, size, fee, timestamp, token_id, exchange, inserted_at, strategy, run_id, seq, "
        "is_maker, multiplier, fee_currency"
    )
    case.change(f"INSERT INTO fills (fill_id, commit_no, {columns}) SELECT 'again', 99, {columns} FROM fills WHERE seq = 8")
    verdict = case.judged()
    assert faults(verdict)["duplicated"] == 1
    assert verdict.positions_off


def test_fills_in_swapped_commit_order_are_out_of_order(case: Case) -> None:
    case.change("UPDATE fills SET commit_no = 1000 WHERE seq = 4")
    assert faults(case.judged())["out_of_order"] == 1


def test_order_events_in_swapped_order_are_out_of_order(case: Case) -> None:
    case.change("UPDATE order_events SET id = 1000 WHERE seq = 2")
    assert faults(case.judged()) == {"out_of_order": 1}


def test_a_changed_size_is_altered_and_puts_positions_off(case: Case) -> None:
    case.change("UPDATE fills SET size = 0.10000000000000002 WHERE seq = 7")
    verdict = case.judged()
    assert faults(verdict)["altered"] == 1
    assert verdict.positions_off


@pytest.mark.parametrize("change", ["exact_size = '0.5'", "exact_fees = '0.050'"])
def test_a_stored_snapshot_that_differs_in_one_digit_is_altered_and_recovers_wrong(case: Case, change: str) -> None:
    case.change(f"UPDATE position_snapshots SET {change}")
    assert faults(case.judged()) == {"altered": 1, "positions_off": 1}


def test_a_position_that_the_victim_held_otherwise_is_off(case: Case) -> None:
    case.rewrite(
        lambda lines: [b's 10 [["paper","btc-usd","long",0.1,1,0,0,0]]\n' if line[:1] == b"s" else line for line in lines]
    )
    assert faults(case.judged()) == {"positions_off": 1}


def test_a_row_without_a_line_before_it_is_invented(case: Case) -> None:
    case.rewrite(lambda lines: lines[:-2])
    assert faults(case.judged()) == {"invented": 1}


def test_a_record_that_was_in_flight_may_be_there_or_not(case: Case) -> None:
    case.rewrite(lambda lines: lines[:-1])
    there = case.judged()
    case.change("UPDATE strategy_runs SET ended_seq = NULL")
    case.change("UPDATE run_cursors SET committed_seq = committed_seq - 1")
    absent = case.judged()
    assert (faults(there), faults(absent)) == ({}, {})
    assert there.in_flight == absent.in_flight == 1


def test_a_last_line_that_the_kill_cut_off_does_not_count(case: Case) -> None:
    case.rewrite(lambda lines: [*lines[:-1], lines[-1][:-2]])
    verdict = case.judged()
    assert (faults(verdict), verdict.in_flight) == ({}, 1)


def test_an_execution_that_nobody_recorded_is_missed(case: Case) -> None:
    with (case.account / "0" / "maker.fills").open("ab") as file:
        file.write(msgspec.json.encode(fill(9)) + b"\n")
    assert faults(case.judged()) == {"missed": 1}


def test_a_true_execution_that_was_taken_for_a_conflict_is_found(case: Case) -> None:
    first: Fill = fill(1, order_id="order-00000001", price=7.0)
    path = case.account / "0" / "maker.fills"
    path.write_bytes(path.read_bytes().replace(msgspec.json.encode(fill(1)), msgspec.json.encode(first)))
    assert faults(case.judged()) == {"altered": 1, "dead_lettered": 1}


def test_a_journal_that_is_left_after_the_end_is_found(case: Case) -> None:
    case.paths.journal("02-run").write_bytes(b"")
    assert faults(case.judged()) == {"journals_left": 1}


def test_a_gap_that_the_writer_wrote_down_is_a_loss(case: Case) -> None:
    case.change("DELETE FROM order_events WHERE seq = 5")
    case.change("INSERT INTO run_gaps (run_id, from_seq, to_seq, reason, recorded_at) VALUES ('01-run', 5, 5, 'damaged', 0)")
    assert faults(case.judged()) == {"lost": 1}
