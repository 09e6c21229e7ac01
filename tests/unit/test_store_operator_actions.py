"""What people ask the writer for: each is done once, in one transaction with its line in operator_actions, or refused with a reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from store_case import FixedClock, Run, fate_of_every_seq, fill, order_event, rows, snapshot

from horizon.errors import CommandRefused
from horizon.paths import DatabasePaths
from horizon.positions import Book
from horizon.records import (
    FeeCurrency,
    OrderStatus,
    PositionSnapshot,
    Record,
    RiskEvent,
    RiskEventType,
    RunEnded,
)
from horizon.store.append import Store
from horizon.store.connection import open_reader
from horizon.store.recovery import Recovered, recover
from horizon.wire import Command, Control

Ask = Callable[..., str]

ON, OFF = RiskEventType.KillSwitchActivated, RiskEventType.KillSwitchDeactivated


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(5000.0)


@pytest.fixture
def store(paths: DatabasePaths, clock: FixedClock) -> Iterator[Store]:
    store = Store(paths, clock=clock)
    yield store
    store.close()


@pytest.fixture
def paths(tmp_path: Any) -> DatabasePaths:
    return DatabasePaths.of(tmp_path / "x.db")


@pytest.fixture
def ask(store: Store) -> Ask:
    """Give a command under an id of its own."""
    given = 0

    def ask(action: str, strategy: str = "maker", runs: dict[str, str] | None = None, **arguments: str) -> str:
        nonlocal given
        given += 1
        return store.operate(f"id-{given}", command(action, strategy, **arguments), runs or {})

    return ask


def command(action: str, strategy: str = "maker", **arguments: str) -> Command:
    return Command(action, strategy, "alice", "it looks wrong", arguments)


def recovered(paths: DatabasePaths, strategy: str = "maker") -> Recovered:
    reader = open_reader(paths.database)
    try:
        return recover(reader, strategy)
    finally:
        reader.close()


def actions(paths: DatabasePaths) -> list[tuple[Any, ...]]:
    return rows(paths.database, "SELECT id, at, who, action, strategy, reason, details FROM operator_actions ORDER BY rowid")


def counts(paths: DatabasePaths) -> tuple[Any, ...]:
    (found,) = rows(paths.database, "SELECT committed_seq, fills, order_events, duplicates, dead_letters FROM run_cursors")
    return found


def letter(paths: DatabasePaths, seq: int) -> tuple[Any, ...]:
    sql = f"SELECT dismissed_at, dismissed_by, replayed_at FROM dead_letters WHERE seq = {seq}"
    (found,) = rows(paths.dead_letters, sql)
    return found


# ---- the kill switch


def test_a_trip_is_a_latch_a_risk_event_and_a_line_of_who_and_why(store: Store, paths: DatabasePaths, ask: Ask) -> None:
    store.append(Run().entries(fill("f-1")))
    assert ask("trip") == "the kill switch of maker is on: it looks wrong"
    assert store.controls() == {"maker": Control("it looks wrong")}
    assert recovered(paths).kill_switch == "it looks wrong"
    assert rows(paths.database, "SELECT kill_switch_at, kill_switch_by FROM strategy_controls") == [(5000.0, "alice")]
    assert rows(paths.database, "SELECT event_type, details, timestamp, strategy, run_id, seq FROM risk_events") == [
        ("kill_switch_activated", "it looks wrong (alice)", 5000.0, "maker", None, None)
    ]
    assert actions(paths) == [
        ("id-1", 5000.0, "alice", "trip", "maker", "it looks wrong", "the kill switch of maker is on: it looks wrong")
    ]


def test_a_clear_lets_trading_go_on(store: Store, paths: DatabasePaths, ask: Ask) -> None:
    store.append(Run().entries(fill("f-1")))
    ask("trip")
    assert ask("clear") == "the kill switch of maker is off; it was on: it looks wrong"
    assert store.controls() == {"maker": Control()}
    assert recovered(paths).kill_switch is None
    assert [kind for (kind,) in rows(paths.database, "SELECT event_type FROM risk_events ORDER BY id")] == [ON.value, OFF.value]


def test_a_second_trip_keeps_the_first_reason_and_tells_it(store: Store, paths: DatabasePaths, ask: Ask) -> None:
    run = Run()
    store.append(run.entries(RiskEvent(ON, "drawdown 12 %", 4000.0)))
    assert ask("trip") == "the kill switch of maker was on already: drawdown 12 %"
    assert len(rows(paths.database, "SELECT * FROM risk_events")) == 1
    store.append(run.entries(RiskEvent(ON, "again", 4001.0)))
    assert recovered(paths).kill_switch == "drawdown 12 %"
    assert len(actions(paths)) == 1


def test_a_clear_of_what_is_off_changes_nothing_and_is_written_down(store: Store, paths: DatabasePaths, ask: Ask) -> None:
    store.append(Run().entries(fill("f-1")))
    assert ask("clear") == "the kill switch of maker was off already"
    assert not rows(paths.database, "SELECT * FROM risk_events")
    assert len(actions(paths)) == 1


def test_a_run_s_own_kill_switch_outlives_the_run_until_it_is_turned_off(store: Store, paths: DatabasePaths) -> None:
    first, second = Run("run-1"), Run("run-2")
    store.append([first.start(), *first.entries(RiskEvent(ON, "daily loss", 4000.0), RunEnded(4001.0))])
    assert recovered(paths).kill_switch == "daily loss"
    assert recovered(paths, "taker").kill_switch is None
    assert rows(paths.database, "SELECT kill_switch_at, kill_switch_by FROM strategy_controls") == [(4000.0, "run run-1")]
    store.append([second.start(), *second.entries(RiskEvent(OFF, None, 4002.0))])
    assert recovered(paths).kill_switch is None


def test_a_violation_turns_nothing_on(store: Store, paths: DatabasePaths) -> None:
    store.append(Run().entries(RiskEvent(RiskEventType.Violation, "too large", 4000.0)))
    assert store.controls() == {}


def test_a_kill_switch_in_a_batch_that_is_refused_is_not_latched_twice_or_lost(store: Store) -> None:
    outcome = store.append(Run().entries(fill("f-1"), RiskEvent(ON, "loss", 1.0), fill("f-1", price=7.0)))
    assert outcome.rows == {"fill": 1, "risk_event": 1, "conflict": 1}
    assert store.controls() == {"maker": Control("loss")}


# ---- hold


def test_a_hold_stands_until_it_is_released_and_the_release_is_dated(store: Store, paths: DatabasePaths, ask: Ask) -> None:
    store.append(Run().entries(fill("f-1")))
    ask("hold")
    assert recovered(paths).hold == "it looks wrong"
    assert store.controls()["maker"] == Control(None, "it looks wrong")
    assert ask("release") == "maker is released"
    assert recovered(paths).hold is None
    assert store.controls()["maker"] == Control(None, None, 5000.0)


def test_hold_and_kill_switch_leave_each_other_alone(store: Store, ask: Ask) -> None:
    store.append(Run().entries(fill("f-1")))
    ask("hold")
    ask("trip")
    assert store.controls()["maker"] == Control("it looks wrong", "it looks wrong")
    ask("release")
    assert store.controls()["maker"] == Control("it looks wrong", None, 5000.0)


def test_a_strategy_that_runs_and_has_recorded_nothing_can_be_stopped(store: Store, ask: Ask) -> None:
    ask("trip", "fresh", runs={"run-9": "fresh"})
    assert store.controls()["fresh"].kill_switch == "it looks wrong"


def test_a_misspelled_strategy_is_refused_because_it_would_protect_nobody(store: Store, paths: DatabasePaths, ask: Ask) -> None:
    store.append(Run().entries(fill("f-1")))
    for action in ("trip", "clear", "hold", "release"):
        with pytest.raises(CommandRefused, match="no strategy named 'makre' has run on this database; known are: maker"):
            ask(action, "makre")
    assert actions(paths) == []


# ---- gaps


def test_a_gap_holds_its_strategy_until_somebody_accepts_it(store: Store, paths: DatabasePaths, ask: Ask) -> None:
    store.append(Run().entries(fill("f-1")))
    store.record_gap("run-1", "maker", 2, 4, "damaged")
    state = recovered(paths)
    assert [tuple(gap) for gap in state.gaps] == [("run-1", 2, 4, "damaged", 5000.0)]
    assert state.hold == "records 2 to 4 of run run-1 are missing, and nobody has accepted that"
    assert store.controls()["maker"].hold == state.hold
    assert recovered(paths, "taker").hold is None
    assert ask("release") == f"maker is released, and still held: {state.hold}"
    assert ask("accept_gap", "", run_id="run-1") == "accepted that records 2 to 4 of run run-1 of maker are lost"
    assert recovered(paths).gaps == ()
    assert recovered(paths).hold is None
    assert rows(paths.database, "SELECT accepted_at, accepted_by FROM run_gaps") == [(5000.0, "alice")]
    with pytest.raises(CommandRefused, match="run run-1 of maker has no gap that waits"):
        ask("accept_gap", "", run_id="run-1")


@pytest.mark.parametrize(
    ("strategy", "arguments", "sentence"),
    [
        ("maker", {}, "accept_gap needs run_id"),
        ("maker", {"run_id": "run-7"}, "the database knows no run 'run-7'"),
        ("taker", {"run_id": "run-1"}, "run run-1 belongs to maker, not to taker"),
    ],
)
def test_a_gap_that_is_not_meant_is_not_accepted(
    strategy: str, arguments: dict[str, str], sentence: str, store: Store, paths: DatabasePaths, ask: Ask
) -> None:
    store.append(Run().entries(fill("f-1")))
    store.record_gap("run-1", "maker", 2, 4, "damaged")
    with pytest.raises(CommandRefused, match=sentence):
        ask("accept_gap", strategy, **arguments)
    assert len(recovered(paths).gaps) == 1


# ---- orphans


@pytest.mark.parametrize(
    ("status", "filled", "remaining"), [("canceled", 0.5, 1.5), ("rejected", 0.5, 1.5), ("filled", 2.0, 0.0)]
)
def test_an_orphan_ends_as_a_person_says_with_his_name_and_reason(
    status: str, filled: float, remaining: float, store: Store, paths: DatabasePaths, ask: Ask
) -> None:
    store.append(Run().entries(order_event("o-1"), fill("f-1", order_id="o-1", size=0.5)))
    assert ask("resolve_orphan", "", order_id="o-1", status=status) == f"order o-1 of maker is {status}"
    assert recovered(paths).open_orders == []
    columns = "status, status_reason, filled_size, remaining_size, created_at, recorded_at, strategy, run_id, seq"
    assert rows(paths.database, f"SELECT {columns} FROM order_events ORDER BY id DESC LIMIT 1") == [
        (status, "resolved by alice: it looks wrong", filled, remaining, 999.0, 5000.0, "maker", None, None)
    ]
    assert counts(paths)[2] == 1, "the event is nobody's record"
    with pytest.raises(CommandRefused, match="no order 'o-1' is open"):
        ask("resolve_orphan", "", order_id="o-1", status=status)


def test_an_order_of_a_run_that_lives_is_no_orphan(store: Store, paths: DatabasePaths, ask: Ask) -> None:
    store.append(Run().entries(order_event("o-1")))
    with pytest.raises(CommandRefused, match="belongs to run run-1 of maker, which is running or not drained yet"):
        ask("resolve_orphan", runs={"run-1": "maker"}, order_id="o-1", status="canceled")
    assert len(recovered(paths).open_orders) == 1
    assert ask("resolve_orphan", runs={"run-2": "maker"}, order_id="o-1", status="canceled")


@pytest.mark.parametrize("status", ["accepted", "new", "gone", ""])
def test_an_orphan_ends_in_a_terminal_status_or_not_at_all(status: str, store: Store, ask: Ask) -> None:
    store.append(Run().entries(order_event("o-1")))
    with pytest.raises(CommandRefused, match=r"resolve_orphan needs status|an orphan ends as one of filled, canceled, rejected"):
        ask("resolve_orphan", order_id="o-1", status=status)


# ---- dead letters


def amendment(store: Store, **changes: Any) -> Run:
    """A run with a fill and, as its second record, the same fill with other details."""
    run = Run()
    store.append([*run.entries(fill("f-1"), fill("f-1", **changes)), run.start(), run.entry(RunEnded(4000.0))])
    return run


@pytest.mark.parametrize(
    "change",
    [
        {"fee": 0.02}, {"timestamp": 1001.0}, {"token_id": "t"}, {"is_maker": True}, {"multiplier": 2.0},
        {"fee_currency": FeeCurrency.Base},
    ],
)  # fmt: skip
def test_replaying_an_amendment_applies_what_the_venue_corrected(
    change: dict[str, Any], store: Store, paths: DatabasePaths, ask: Ask
) -> None:
    amendment(store, **change)
    assert ask("replay", "", run_id="run-1", seq="2").startswith("amended: fill 'f-1' is stored with other details")
    assert recovered(paths).fills == [fill("f-1", **change)]
    assert letter(paths, 2) == (None, None, 5000.0)
    assert fate_of_every_seq(paths, "run-1")[2] == ["dead letter"], "the details are in the row, the record stays where it was"


def test_an_amended_fill_is_in_the_positions_although_a_snapshot_had_included_it(
    store: Store, paths: DatabasePaths, ask: Ask
) -> None:
    run = Run()
    taken = snapshot([fill("f-1")])
    baselines = PositionSnapshot(taken.taken_at, taken.rows, 12.5, -1.0)
    store.append([run.start(), *run.entries(fill("f-1"), baselines, fill("f-1", fee=9.0))])
    ask("replay", run_id="run-1", seq="4")
    state = recovered(paths)
    (position,) = Book.restore(state.rows, state.fills).all_positions()
    assert position.fees == 9.0
    assert (state.high_water_mark, state.daily_baseline) == (12.5, -1.0), "what the risk checks knew still holds"
    again = Run("run-2")
    store.append([again.start(state.commit_no), again.entry(snapshot([fill("f-1", fee=9.0)]))])
    assert recovered(paths).fills == []
    assert recovered(paths).snapshot_at == 1000.0


def test_an_amendment_waits_until_the_strategy_is_stopped(store: Store, paths: DatabasePaths, ask: Ask) -> None:
    amendment(store, fee=0.02)
    with pytest.raises(CommandRefused, match=r"maker is running.*stop it, replay, start it again"):
        ask("replay", runs={"run-2": "maker"}, run_id="run-1", seq="2")
    assert recovered(paths).fills == [fill("f-1")]
    assert letter(paths, 2) == (None, None, None)


def test_replaying_twice_does_it_once(store: Store, paths: DatabasePaths, ask: Ask) -> None:
    amendment(store, fee=0.02)
    ask("replay", run_id="run-1", seq="2")
    before = rows(paths.database, "SELECT * FROM fills")
    assert ask("replay", run_id="run-1", seq="2") == "record 2 of run run-1 was replayed already"
    assert rows(paths.database, "SELECT * FROM fills") == before


def test_a_mark_that_a_crash_has_lost_is_made_again(store: Store, paths: DatabasePaths) -> None:
    amendment(store, fee=0.02)
    mark = store._dead_letters.mark_replayed
    store._dead_letters.mark_replayed = lambda *_: None  # type: ignore[method-assign]
    replayed = store.operate("id-1", command("replay", run_id="run-1", seq="2"), {})
    store._dead_letters.mark_replayed = mark  # type: ignore[method-assign]
    assert letter(paths, 2) == (None, None, None)
    assert store.operate("id-1", command("replay", run_id="run-1", seq="2"), {}) == replayed, "the answer of the first time"
    assert letter(paths, 2) == (None, None, 5000.0)


def test_a_conflict_is_refused_and_the_sentence_says_what_a_person_can_do(store: Store, paths: DatabasePaths, ask: Ask) -> None:
    store.append(Run().entries(fill("f-1"), fill("f-1", price=7.0)))
    with pytest.raises(
        CommandRefused, match=r"cannot be replayed, because .*price 100.5 -> 7.0.*Ask the venue.*dismiss the letter"
    ):
        ask("replay", run_id="run-1", seq="2")
    assert actions(paths) == []
    assert ask("dismiss", run_id="run-1", seq="2") == "record 2 of run run-1 stays a dead letter and is dismissed"
    assert letter(paths, 2) == (5000.0, "alice", None)
    with pytest.raises(CommandRefused, match="was dismissed already, by alice"):
        ask("dismiss", run_id="run-1", seq="2")


def readable_after_all(run: Run, record: Record) -> Any:
    """A record that the version before this one could not read."""
    return run.entry(record)._replace(records=[None], problems={run.seq: "not a record: unknown tag"})


@pytest.mark.parametrize(
    ("record", "table"),
    [
        (fill("f-2"), "fill"),
        (RiskEvent(RiskEventType.Violation, "too large", 4000.0), "risk event"),
        (order_event("o-1", OrderStatus.Canceled, recorded_at=2000.0), "order event"),
    ],
)
def test_what_can_be_read_after_all_becomes_the_row_of_its_run_and_seq(
    record: Record, table: str, store: Store, paths: DatabasePaths, ask: Ask
) -> None:
    run = Run()
    entries = [*run.entries(fill("f-1"), order_event("o-1")), readable_after_all(run, record), run.entry(fill("f-3"))]
    store.append(entries)
    assert counts(paths) == (4, 2, 1, 0, 1)
    assert ask("replay", run_id="run-1", seq="3") == f"record 3 of run run-1 is stored as {type(record).__name__} now"
    assert set(fate_of_every_seq(paths, "run-1")[3]) == {table, "dead letter"}
    committed, *_, dead = counts(paths)
    assert (committed, dead) == (4, 0), "the cursor stays where it was"
    assert ask("replay", run_id="run-1", seq="3") == "record 3 of run run-1 was replayed already"
    assert len(fate_of_every_seq(paths, "run-1")[3]) == 2


def test_a_replayed_fill_is_the_newest_and_a_run_that_does_not_know_it_must_recover(
    store: Store, paths: DatabasePaths, ask: Ask
) -> None:
    old, live = Run("run-1"), Run("run-2")
    store.append([old.start(), old.entry(fill("f-1")), readable_after_all(old, fill("f-2"))])
    store.append([live.start(1), live.entry(snapshot([fill("f-1")]))])
    ask("replay", runs={"run-2": "maker"}, run_id="run-1", seq="3")
    assert recovered(paths).fills == [fill("f-2")]
    assert store.append([live.entry(snapshot([fill("f-1")], 2000.0))]).recover == {"run-2"}


def test_a_fill_that_came_again_meanwhile_counts_as_a_duplicate(store: Store, paths: DatabasePaths, ask: Ask) -> None:
    run = Run()
    store.append([readable_after_all(run, fill("f-1")), run.entry(fill("f-1"))])
    assert "counts as a duplicate of it now" in ask("replay", run_id="run-1", seq="1")
    assert counts(paths) == (2, 1, 0, 1, 0)


def test_bytes_that_are_no_record_stay_a_dead_letter(store: Store, paths: DatabasePaths, ask: Ask) -> None:
    store.append(Run().entries(None))
    with pytest.raises(CommandRefused, match="still is no record that this Horizon can read"):
        ask("replay", run_id="run-1", seq="1")
    assert counts(paths) == (1, 0, 0, 0, 1)


def test_a_record_that_the_database_refuses_again_changes_nothing(store: Store, paths: DatabasePaths, ask: Ask) -> None:
    run = Run()
    store.append([run.entry(RunEnded(1.0))])
    with pytest.raises(CommandRefused, match=r"still cannot be stored .*it has no start.*: dismiss it"):
        ask("replay", run_id="run-1", seq="1")
    assert counts(paths) == (1, 0, 0, 0, 1)
    assert letter(paths, 1) == (None, None, None)


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (snapshot([fill("f-1")]), "is an old snapshot, which the fills since have overtaken"),
        (RiskEvent(OFF, None, 4000.0), "is an old kill_switch_deactivated: trip or clear the kill switch as it should be now"),
        (order_event("o-1", OrderStatus.Accepted), "which has ended or of which newer events are stored"),
        (order_event("o-2", OrderStatus.Accepted, recorded_at=1.0), "which has ended or of which newer events are stored"),
    ],
)
def test_old_news_does_not_become_true_again(record: Record, sentence: str, store: Store, paths: DatabasePaths, ask: Ask) -> None:
    run = Run()
    events = run.entries(order_event("o-1"), order_event("o-1", OrderStatus.Canceled), order_event("o-2"))
    store.append([*events, readable_after_all(run, record)])
    with pytest.raises(CommandRefused, match=sentence):
        ask("replay", run_id="run-1", seq="4")
    assert actions(paths) == []


def test_a_letter_whose_seq_is_not_passed_yet_is_not_replayed(store: Store, ask: Ask) -> None:
    payload = msgspec.msgpack.encode(fill("f-1"))
    store._dead_letters.capture([("run-1", 1, "maker", "unstorable", "?", payload, "f-1", 1.0)])  # type: ignore[list-item]
    with pytest.raises(CommandRefused, match="run run-1 is not drained up to record 1 yet"):
        ask("replay", run_id="run-1", seq="1")


@pytest.mark.parametrize("action", ["replay", "dismiss"])
def test_only_a_dead_letter_can_be_replayed_or_dismissed(action: str, store: Store, ask: Ask) -> None:
    store.append(Run().entries(fill("f-1"), fill("f-1", fee=7.0)))
    for arguments, sentence in (
        ({"run_id": "run-1", "seq": "1"}, "record 1 of run run-1 is no dead letter"),
        ({"run_id": "run-1", "seq": "two"}, "'two' is not the seq of a dead letter"),
        ({"run_id": "run-1"}, f"{action} needs seq"),
        ({"seq": "1"}, f"{action} needs run_id"),
    ):
        with pytest.raises(CommandRefused, match=sentence):
            ask(action, "", **arguments)
    with pytest.raises(CommandRefused, match="dead letter run-1 2 belongs to maker, not to taker"):
        ask(action, "taker", run_id="run-1", seq="2")


def test_what_was_replayed_is_not_dismissed(store: Store, ask: Ask) -> None:
    amendment(store, fee=0.02)
    ask("replay", run_id="run-1", seq="2")
    with pytest.raises(CommandRefused, match="was replayed: there is nothing left to dismiss"):
        ask("dismiss", run_id="run-1", seq="2")


# ---- every command


def test_a_command_that_is_sent_again_is_answered_again_and_done_once(
    store: Store, paths: DatabasePaths, clock: FixedClock
) -> None:
    store.append(Run().entries(fill("f-1")))
    first = store.operate("id-1", command("hold"), {})
    store.operate("id-2", command("release"), {})
    clock.time = 6000.0
    assert store.operate("id-1", command("hold"), {}) == first
    assert store.controls()["maker"].hold is None, "the hold was not put on again"
    assert len(actions(paths)) == 2


@pytest.mark.parametrize("changes", [{"who": ""}, {"who": "  "}, {"reason": ""}, {"reason": "x" * 1001}])
def test_nobody_acts_without_a_name_and_a_reason(changes: dict[str, str], store: Store, paths: DatabasePaths) -> None:
    store.append(Run().entries(fill("f-1")))
    with pytest.raises(CommandRefused, match=r"trip needs a (name|reason).*it is written down"):
        store.operate("id-1", replace(command("trip"), **changes), {})
    assert store.controls() == {}


def test_an_unknown_command_is_refused_by_its_name(store: Store, ask: Ask) -> None:
    with pytest.raises(CommandRefused, match="the writer knows no command 'reboot'; it knows trip, clear, hold"):
        ask("reboot")


# ---- what the risk checks knew


def test_the_baselines_of_the_newest_snapshot_are_recovered(store: Store, paths: DatabasePaths) -> None:
    run = Run()
    store.append([run.start(), run.entry(fill("f-1"))])
    assert recovered(paths)[-2:] == (None, None)
    rows_ = snapshot([fill("f-1")]).rows
    store.append([run.entry(PositionSnapshot(1000.0, rows_, 10.0, 4.0))])
    store.append([run.entry(PositionSnapshot(1001.0, rows_, 12.0, 5.0))])
    assert recovered(paths)[-2:] == (12.0, 5.0), "also of a snapshot whose positions had not changed"
