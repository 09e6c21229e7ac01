"""The states of one process: what each event makes of each of them, without a process."""

from __future__ import annotations

import logging
import signal
from random import Random

import pytest

from horizon.errors import ExitCode
from supervisor.policy import Deaths, judge_worker, judge_writer
from supervisor.worker_states import (
    ALIVE,
    TRANSITIONS,
    Action,
    AskToStop,
    Beat,
    BecameReady,
    Due,
    Ended,
    Event,
    Hung,
    Kill,
    Late,
    Life,
    Quarantine,
    Reset,
    Restart,
    Rules,
    Say,
    Spawn,
    Started,
    StartFailed,
    State,
    Unwant,
    Want,
    step,
)

RULES = Rules(judge_worker, burst=3, interval_s=300.0)
NEW = Life()
UP = (Want("x"), Due(), Started(7), BecameReady())


def after(*events: Event, life: Life = NEW, rules: Rules = RULES, now: float = 0.0) -> tuple[Life, list[Action]]:
    """The life after these events, and what the last of them asks for."""
    actions: list[Action] = []
    for event in events:
        life, actions = step(life, event, now, rules, Random(0))
    return life, actions


def said(actions: list[Action]) -> str:
    return " | ".join(action.sentence for action in actions if isinstance(action, Say))


def test_a_wanted_process_is_due_at_once_and_nothing_is_started_before_the_loop_says_so() -> None:
    life, actions = after(Want("a person"), now=5.0)
    assert (life.state, life.wanted, life.start_at, actions) == (State.STOPPED, True, 5.0, [])


def test_a_start_leads_to_ready() -> None:
    life, actions = after(Want("x"), Due())
    assert (life.state, actions) == (State.STARTING, [Spawn()])
    life, actions = after(Started(7), BecameReady(), life=life)
    assert (life.state, said(actions)) == (State.READY, "is ready")


def test_nothing_is_started_that_nobody_wants() -> None:
    assert after(Due()) == (NEW, [])


def test_a_process_that_ended_with_nothing_left_to_do_is_done_and_not_started_again() -> None:
    life, _ = after(*UP, Ended(ExitCode.DONE))
    assert (life.state, life.is_done, life.wanted, life.start_at) == (State.STOPPED, True, True, None)


def test_a_process_that_a_stranger_asked_to_leave_is_started_again() -> None:
    life, actions = after(*UP, Ended(ExitCode.DONE, by_signal=signal.SIGTERM))
    assert (life.state, life.is_done) == (State.BACKOFF, False)
    assert "SIGTERM" in said(actions)


@pytest.mark.parametrize("exit_code", [ExitCode.FAILED, ExitCode.HALTED, -signal.SIGKILL, -40])
def test_a_crash_is_followed_by_a_wait_and_a_new_start(exit_code: int) -> None:
    life, actions = after(*UP, Ended(exit_code), now=100.0)
    assert life.state is State.BACKOFF
    assert life.start_at is not None
    assert 100.0 <= life.start_at <= 100.25
    assert "it is started again in" in said(actions)
    life, actions = after(Due(), life=life)
    assert actions == [Spawn()]
    assert after(Started(8), life=life)[0].restarts == 1


@pytest.mark.parametrize("exit_code", [ExitCode.USAGE, ExitCode.STRATEGY])
def test_what_would_end_the_same_way_again_is_quarantined_at_once(exit_code: int) -> None:
    life, actions = after(Want("x"), Due(), Started(7), Ended(exit_code))
    assert (life.state, life.start_at) == (State.QUARANTINED, None)
    assert str(int(exit_code)) in life.why
    assert "horizon reset" in said(actions)


def test_the_writer_is_never_done() -> None:
    life, _ = after(*UP, Ended(ExitCode.DONE), rules=Rules(judge_writer, 3, 300.0))
    assert life.state is State.BACKOFF


def crash(life: Life, times: int, rules: Rules = RULES, now: float = 0.0) -> Life:
    for _ in range(times):
        life, _ = after(Due(), Started(7), Ended(1), life=life, rules=rules, now=now)
    return life


def test_what_dies_after_the_last_start_of_the_burst_is_quarantined() -> None:
    life = crash(after(Want("x"))[0], times=3)
    assert life.state is State.BACKOFF
    life = crash(life, times=1)
    assert life.state is State.QUARANTINED
    assert "3 times within 300 s" in life.why


def test_starts_that_are_older_than_the_interval_do_not_count() -> None:
    life = crash(after(Want("x"))[0], times=3)
    assert crash(life, times=2, now=300.0).state is State.BACKOFF


def test_a_burst_of_zero_is_no_limit() -> None:
    rules = Rules(judge_worker, burst=0, interval_s=300.0)
    life = crash(after(Want("x"))[0], times=200, rules=rules)
    assert life.state is State.BACKOFF
    assert life.deaths.restarts == ()


def test_a_program_that_cannot_be_started_is_tried_for_ever() -> None:
    life, _ = after(Want("x"))
    for _ in range(50):
        life, actions = after(Due(), StartFailed("cannot be started: no memory"), life=life)
    assert life.state is State.BACKOFF
    assert "no memory; it is started again in" in said(actions)


@pytest.mark.parametrize("events", [(), (Late(),)])
def test_a_stop_is_asked_for_and_its_end_is_no_crash(events: tuple[Event, ...]) -> None:
    life, actions = after(*UP, *events, Unwant("a person"))
    assert (life.state, life.wanted, AskToStop() in actions) == (State.STOPPING, False, True)
    life, actions = after(Ended(-signal.SIGKILL, was_told=True), life=life)
    assert (life.state, life.start_at, life.deaths.in_a_row) == (State.STOPPED, None, 0)
    assert life.why == "stopped by a person"


def test_a_stop_ends_a_wait_for_the_next_start() -> None:
    life, actions = after(*UP, Ended(1), Unwant("a person"))
    assert (life.state, life.start_at, actions) == (State.STOPPED, None, [])
    assert after(Due(), life=life)[1] == []


def test_a_restart_starts_only_when_the_old_process_has_ended_and_then_at_once() -> None:
    life, actions = after(*UP, Restart("a person"))
    assert (life.state, life.again, AskToStop() in actions) == (State.STOPPING, True, True)
    assert after(Due(), life=life)[1] == []
    life, _ = after(Ended(ExitCode.DONE, was_told=True), life=life, now=9.0)
    assert (life.state, life.start_at, life.again) == (State.STOPPED, 9.0, False)
    assert after(Due(), Started(8), life=life)[0].restarts == 0


def test_a_start_during_a_stop_starts_again_and_a_stop_after_it_does_not() -> None:
    life, _ = after(*UP, Unwant("x"), Want("x"))
    assert (life.state, life.again) == (State.STOPPING, True)
    life, _ = after(Unwant("x"), Ended(0, was_told=True), life=life)
    assert (life.state, life.start_at, life.wanted) == (State.STOPPED, None, False)


def test_a_restart_does_not_wait_for_the_back_off() -> None:
    life, _ = after(*UP, Ended(1), Restart("x"), now=50.0)
    assert (life.state, life.start_at, life.deaths) == (State.STOPPED, 50.0, Deaths())


@pytest.mark.parametrize("event", [Want("x"), Restart("x")])
def test_a_quarantine_ends_by_reset_only_and_says_so(event: Event) -> None:
    quarantined, _ = after(Want("x"), Due(), Started(7), Ended(3))
    life, actions = after(event, life=quarantined)
    assert life.state is State.QUARANTINED
    assert "horizon reset" in said(actions)
    life, _ = after(Reset("x"), life=life, now=4.0)
    assert (life.state, life.start_at, life.deaths) == (State.STOPPED, 4.0, Deaths())


def test_a_stop_of_what_is_in_quarantine_is_remembered() -> None:
    life, _ = after(Want("x"), Due(), Started(7), Ended(3), Unwant("x"))
    assert (life.state, life.wanted) == (State.STOPPED, False)


def test_a_reset_of_a_running_process_forgets_its_crashes_and_leaves_it_alone() -> None:
    life = crash(after(Want("x"))[0], times=2)
    life, _ = after(Due(), Started(7), BecameReady(), life=life, now=3.0)
    life, actions = after(Reset("x"), life=life)
    assert (life.state, life.deaths, actions) == (State.READY, Deaths(ready_since=3.0), [])


def test_a_quarantine_of_the_last_supervisor_still_holds() -> None:
    life, actions = after(Want("x"), Quarantine("started again 5 times"))
    assert (life.state, life.start_at, life.wanted) == (State.QUARANTINED, None, True)
    assert "started again 5 times" in said(actions)
    assert after(Due(), life=life)[1] == []


def test_a_process_without_signs_of_life_is_degraded_until_they_come_again() -> None:
    life, _ = after(*UP, Late())
    assert life.state is State.DEGRADED
    assert after(Late(), life=life) == (life, [])
    assert after(Beat(), life=life)[0].state is State.READY


@pytest.mark.parametrize("events", [UP, (*UP, Late()), UP[:3]])
def test_what_hangs_is_killed_and_its_death_is_a_crash(events: tuple[Event, ...]) -> None:
    life, actions = after(*events, Hung("no sign of life for 10 s"))
    assert Kill() in actions
    assert any(isinstance(action, Say) and action.level >= logging.ERROR for action in actions)
    assert after(Ended(-signal.SIGKILL), life=life)[0].state is State.BACKOFF


def test_nobody_who_is_being_stopped_is_judged() -> None:
    life, _ = after(*UP, Unwant("x"))
    for event in (Late(), Hung("x"), Beat(), BecameReady()):
        assert after(event, life=life) == (life, [])


def test_a_program_that_could_not_be_started_while_it_was_being_stopped_is_stopped() -> None:
    life, _ = after(Want("x"), Due(), Unwant("x"), StartFailed("no memory"))
    assert (life.state, life.start_at) == (State.STOPPED, None)


def test_the_last_failure_is_forgotten_by_who_is_started_by_hand() -> None:
    life, _ = after(*UP, Ended(0), Want("a person"), now=8.0)
    assert (life.state, life.start_at, life.is_done) == (State.STOPPED, 8.0, False)


def test_every_state_has_its_transitions_and_every_process_can_end() -> None:
    assert set(TRANSITIONS) == set(State)
    assert all(State.STOPPED in TRANSITIONS[state] for state in ALIVE)


def test_nobody_is_told_to_reset_a_writer() -> None:
    rules = Rules(judge_writer, 3, 300.0, can_be_reset=False)
    for exit_code in (ExitCode.STORE, ExitCode.USAGE):
        _, actions = after(*UP, Ended(exit_code), rules=rules)
        assert "horizon reset" not in said(actions)
