"""Whatever happens to a process in whatever order: what must hold of its states."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from supervisor.policy import CEILING_S, FIRST_CEILING_S, FORGOTTEN_AFTER_S, judge_worker, judge_writer
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
    Spawn,
    Started,
    StartFailed,
    State,
    Unwant,
    Want,
    step,
)

EXIT_CODES = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 77, -9, -11, -15, -64])
EVENTS = st.one_of(
    st.sampled_from([Want("x"), Unwant("x"), Restart("x"), Reset("x"), Due(), Started(1), StartFailed("no memory")]),
    st.sampled_from([BecameReady(), Late(), Beat(), Hung("silent"), Quarantine("before")]),
    st.builds(Ended, EXIT_CODES, st.booleans(), st.sampled_from([0, 15])),
)
RULES = st.builds(Rules, st.sampled_from([judge_worker, judge_writer]), st.integers(0, 6), st.floats(0.1, 600.0))
TIMED = st.lists(st.tuples(EVENTS, st.floats(0.0, 120.0)), max_size=80)


@given(events=TIMED, rules=RULES, seed=st.integers(0, 2**32))
def test_a_state_changes_only_into_one_that_the_table_allows(events: list[tuple[Event, float]], rules: Rules, seed: int) -> None:
    life, now, random = Life(), 0.0, Random(seed)
    for event, passed_s in events:
        now += passed_s
        before = life
        life, actions = step(life, event, now, rules, random)
        assert life.state is before.state or life.state in TRANSITIONS[before.state]
        assert (Spawn() in actions) <= (before.state not in ALIVE and life.state is State.STARTING)
        assert (AskToStop() in actions or Kill() in actions) <= (before.state in ALIVE)
        # What is wanted is changed by people and the configuration only.
        assert life.wanted == before.wanted or isinstance(event, Want | Unwant | Restart | Reset)
        # Nothing is due while there is a process, or when nobody wants one; and nothing that is wanted is just forgotten.
        assert life.start_at is None or (life.wanted and life.state in (State.STOPPED, State.BACKOFF))
        assert life.start_at is not None or life.state is not State.BACKOFF


@given(events=TIMED, rules=RULES, seed=st.integers(0, 2**32))
def test_whatever_has_happened_a_stop_and_a_death_lead_to_stopped_for_good(
    events: list[tuple[Event, float]], rules: Rules, seed: int
) -> None:
    life, now, random = Life(), 0.0, Random(seed)
    for event, passed_s in events:
        now += passed_s
        life, _ = step(life, event, now, rules, random)
    for event in (Unwant("x"), Ended(-9, was_told=True)):
        life, _ = step(life, event, now, rules, random)
    assert (life.state, life.wanted, life.start_at) == (State.STOPPED, False, None)
    assert step(life, Due(), now + 1e6, rules, random) == (life, [])


LIVES = st.lists(
    st.tuples(st.booleans(), st.floats(0.0, 200.0), EXIT_CODES.filter(lambda code: code not in (0, 2, 3))), max_size=40
)


@given(lives=LIVES, burst=st.integers(0, 6), interval_s=st.floats(1.0, 600.0), seed=st.integers(0, 2**32))
def test_what_crashes_again_and_again_waits_within_bounds_and_keeps_to_the_start_limit(
    lives: list[tuple[bool, float, int]], burst: int, interval_s: float, seed: int
) -> None:
    rules, random = Rules(judge_worker, burst, interval_s), Random(seed)
    life, now = step(Life(), Want("x"), 0.0, rules, random)[0], 0.0
    restarts: list[float] = []
    in_a_row = 0
    for becomes_ready, lived_s, exit_code in lives:
        for event in (Due(), Started(1), BecameReady() if becomes_ready else Late()):
            life, _ = step(life, event, now, rules, random)
        born, now = now, now + lived_s
        life, _ = step(life, Ended(exit_code), now, rules, random)
        # Then it is quarantined exactly when one more start would break the limit
        recent = [at for at in restarts if now - at < interval_s]
        assert (life.state is State.QUARANTINED) == (0 < burst <= len(recent))
        if life.state is State.QUARANTINED:
            return
        # and waits no longer than the ceiling, which doubles with every death until it was ready for a minute
        in_a_row = 1 if becomes_ready and now - born >= FORGOTTEN_AFTER_S else in_a_row + 1
        assert life.start_at is not None
        assert now <= life.start_at <= now + min(CEILING_S, FIRST_CEILING_S * 2 ** (in_a_row - 1))
        now = life.start_at
        restarts.append(now)


class OneProcess(RuleBasedStateMachine):
    """A loop as dutiful as the real one, over one process that does what it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.random = Random(1)
        self.rules = Rules(judge_worker, burst=3, interval_s=100.0)
        self.now = 0.0
        self.life = Life()
        self.is_alive = False
        self.is_told = False
        self.is_killed = False
        self.fails = False  # the next start
        self.restarts: list[float] = []  # after crashes, since a person last wanted something
        self.has_crashed = False

    def feed(self, event: Event) -> None:
        self.life, actions = step(self.life, event, self.now, self.rules, self.random)
        for action in actions:
            self.act(action)

    def act(self, action: Action) -> None:
        if isinstance(action, Spawn):
            assert not self.is_alive, "two processes at once"
            assert self.life.wanted, "started against the will of a person"
            if self.fails:
                self.feed(StartFailed("no memory"))
                return
            self.is_alive, self.is_told, self.is_killed = True, False, False
            if self.has_crashed:
                self.restarts.append(self.now)
            self.feed(Started(1))
        elif isinstance(action, AskToStop):
            assert self.is_alive
            self.is_told = True
        elif isinstance(action, Kill):
            assert self.is_alive
            self.is_killed = True

    @rule(seconds=st.floats(0.0, 60.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: not self.is_alive and self.life.start_at is not None)
    @rule(fails=st.booleans())
    def the_time_for_a_start_has_come(self, fails: bool) -> None:
        assert self.life.start_at is not None
        self.now = max(self.now, self.life.start_at)
        self.fails = fails
        self.feed(Due())

    @precondition(lambda self: self.is_alive)
    @rule(exit_code=EXIT_CODES, by_signal=st.sampled_from([0, 15]))
    def the_process_ends(self, exit_code: int, by_signal: int) -> None:
        exit_code = -9 if self.is_killed else exit_code
        self.is_alive = False
        self.has_crashed = not self.is_told
        self.feed(Ended(exit_code, self.is_told, by_signal))
        if self.life.state is State.BACKOFF:
            assert self.life.start_at is not None
            ceiling = min(CEILING_S, FIRST_CEILING_S * 2 ** (self.life.deaths.in_a_row - 1))
            assert self.now <= self.life.start_at <= self.now + ceiling

    @precondition(lambda self: self.is_alive)
    @rule(event=st.sampled_from([BecameReady(), Late(), Beat(), Hung("silent")]))
    def the_process_shows_something(self, event: Event) -> None:
        self.feed(event)

    @rule(event=st.sampled_from([Want("x"), Unwant("x"), Restart("x"), Reset("x")]))
    def a_person_decides(self, event: Event) -> None:
        before = self.life.deaths
        self.feed(event)
        if self.life.deaths != before and not self.life.deaths.restarts:
            self.restarts.clear()
            self.has_crashed = self.has_crashed and self.life.state is State.BACKOFF

    @invariant()
    def the_state_knows_whether_there_is_a_process(self) -> None:
        assert (self.life.state in ALIVE) == self.is_alive

    @invariant()
    def the_start_limit_holds(self) -> None:
        recent = [at for at in self.restarts if self.now - at < self.rules.interval_s]
        assert len(recent) <= self.rules.burst

    @invariant()
    def what_is_wanted_runs_or_is_due_or_has_a_reason_not_to(self) -> None:
        has_reason = self.life.is_done or self.life.state is State.QUARANTINED
        assert not self.life.wanted or self.is_alive or self.life.start_at is not None or has_reason


TestOneProcess = OneProcess.TestCase
