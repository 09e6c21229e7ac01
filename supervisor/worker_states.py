"""The states of one process, and what each event does to it: pure, so that every order of events can be tried without a process.

What is wanted (`wanted`) is kept apart from what is: only people and the configuration change it, so a stop by command never looks like a
crash, and a crash never like a stop. `step` returns the new life and what is to be done about it; the loop does that, and tells what came
of it as the next event.

Two incarnations cannot overlap: Spawn is asked for only in states that have no process, and leads into one that has. An event that means
nothing in a state changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import StrEnum
from random import Random

import msgspec
from msgspec.structs import replace

from supervisor.policy import Deaths, StartLimit, Verdict, describe_end, signal_name


class State(StrEnum):
    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"  # it was ready, and shows no sign of life
    STOPPING = "stopping"
    BACKOFF = "backoff"
    QUARANTINED = "quarantined"  # until a person resets it


ALIVE = frozenset({State.STARTING, State.READY, State.DEGRADED, State.STOPPING})  # the states that have a process

_ENDS = frozenset({State.STOPPED, State.BACKOFF, State.QUARANTINED})
TRANSITIONS: dict[State, frozenset[State]] = {
    State.STOPPED: frozenset({State.STARTING, State.QUARANTINED}),
    State.STARTING: _ENDS | {State.READY, State.STOPPING},
    State.READY: _ENDS | {State.DEGRADED, State.STOPPING},
    State.DEGRADED: _ENDS | {State.READY, State.STOPPING},
    State.STOPPING: frozenset({State.STOPPED}),
    State.BACKOFF: frozenset({State.STARTING, State.STOPPED, State.QUARANTINED}),
    State.QUARANTINED: frozenset({State.STOPPED}),
}


class Rules(msgspec.Struct, frozen=True):
    """What the process is judged by."""

    judge: Callable[[int], Verdict]  # of its exit code
    burst: int  # see StartLimit
    interval_s: float
    can_be_reset: bool = True  # by a person; the supervisor itself ends when its writer cannot be kept alive

    @property
    def limit(self) -> StartLimit:
        return StartLimit(self.burst, self.interval_s)


class Life(msgspec.Struct, frozen=True):
    state: State = State.STOPPED
    wanted: bool = False
    deaths: Deaths = Deaths()
    since: float = 0.0  # when it came into its state (monotonic)
    start_at: float | None = None  # when a start is due (monotonic); None: none is
    why: str = ""  # in words, where the state needs them
    is_done: bool = False  # it ended by itself, with nothing left to do
    again: bool = False  # STOPPING, in order to start again
    restarts: int = 0  # starts after it had ended without being told
    pid: int = 0  # of the newest incarnation


# ---- events


class _Event(msgspec.Struct, frozen=True):
    pass


class Want(_Event, frozen=True):
    by: str


class Unwant(_Event, frozen=True):
    by: str


class Restart(_Event, frozen=True):
    by: str


class Reset(_Event, frozen=True):
    """End a quarantine, forget the crashes, start."""

    by: str


class Due(_Event, frozen=True):
    """`start_at` has come, and nothing else stands in its way."""


class Started(_Event, frozen=True):
    pid: int = 0


class StartFailed(_Event, frozen=True):
    why: str


class BecameReady(_Event, frozen=True):
    pass


class Late(_Event, frozen=True):
    """No sign of life for a while."""


class Beat(_Event, frozen=True):
    """Signs of life again."""


class Hung(_Event, frozen=True):
    """No sign of life for so long that it has to go."""

    why: str


class TooMuch(_Event, frozen=True):
    """It takes more of the host than it may."""

    why: str


class Ended(_Event, frozen=True):
    exit_code: int  # negative: the signal
    was_told: bool = False  # to stop
    by_signal: int = 0  # which one made it leave in order, by its own account
    because: str = ""  # in words, where more is known than the exit code says

    @property
    def words(self) -> str:
        return self.because or describe_end(self.exit_code)


class Quarantine(_Event, frozen=True):
    """It was in quarantine when the supervisor ended."""

    why: str


Event = (
    Want | Unwant | Restart | Reset | Due | Started | StartFailed | BecameReady | Late | Beat | Hung | TooMuch | Ended | Quarantine
)  # fmt: skip


# ---- actions


class Spawn(msgspec.Struct, frozen=True):
    """Answered by Started or StartFailed."""


class AskToStop(msgspec.Struct, frozen=True):
    pass


class Kill(msgspec.Struct, frozen=True):
    pass


class Say(msgspec.Struct, frozen=True):
    """A sentence about the process, without its name in front."""

    level: int  # of logging
    sentence: str
    action: str  # key for machines


Action = Spawn | AskToStop | Kill | Say


# ---- rules


def step(life: Life, event: Event, now: float, rules: Rules, random: Random) -> tuple[Life, list[Action]]:
    """What an event makes of a life, and what is to be done now."""
    match event:
        case Want():
            return _want(life, now)
        case Unwant(by):
            return _unwant(life, by, now)
        case Restart(by):
            return _restart(life, by, now)
        case Reset():
            return _reset(life, now)
        case Quarantine(why) if life.state in (State.STOPPED, State.BACKOFF):
            sentence = f"is still in quarantine ({why}); `horizon reset` ends that"
            return _in(life, State.QUARANTINED, now, why=why), [Say(logging.WARNING, sentence, "quarantined")]
        case Due() if life.state not in ALIVE and life.start_at is not None:
            return _in(life, State.STARTING, now), [Spawn()]
        case Started(pid) if life.state in ALIVE:
            return _started(life, pid, now, rules), [Say(logging.INFO, f"was started (pid {pid})", "started")]
        case StartFailed(why) if life.state is State.STOPPING:  # somebody stopped it in that very moment
            return _stopped(life, now), [Say(logging.ERROR, why, "ended")]
        case StartFailed(why) if life.state is State.STARTING:
            return _wait(life, why, logging.ERROR, now, random)
        case BecameReady() if life.state is State.STARTING:
            ready = replace(life, deaths=life.deaths.after_ready(now))
            return _in(ready, State.READY, now), [Say(logging.INFO, "is ready", "ready")]
        case Late() if life.state is State.READY:
            why = "it shows no sign of life"
            return _in(life, State.DEGRADED, now, why=why), [Say(logging.WARNING, "shows no sign of life", "degraded")]
        case Beat() if life.state is State.DEGRADED:
            return _in(life, State.READY, now), [Say(logging.INFO, "shows signs of life again", "recovered")]
        case Hung(why) if life.state in (State.STARTING, State.READY, State.DEGRADED):
            state = State.STARTING if life.state is State.STARTING else State.DEGRADED
            hung = life if life.state is state else _in(life, state, now)
            return replace(hung, why=why), [Say(logging.ERROR, f"hangs: {why}; it is killed", "hang"), Kill()]
        case TooMuch(why) if life.state in (State.STARTING, State.READY, State.DEGRADED):
            return replace(life, why=why), [Say(logging.ERROR, f"{why}; it is killed", "limit"), Kill()]
        case Ended() if life.state in ALIVE:
            return _ended(life, event, now, rules, random)
    return life, []


def _want(life: Life, now: float) -> tuple[Life, list[Action]]:
    wanted = replace(life, wanted=True)
    if life.state is State.STOPPED and life.start_at is None:
        return _start(wanted, now), []
    if life.state is State.STOPPING and not life.again:
        return replace(wanted, again=True), [Say(logging.INFO, "is started again as soon as it has stopped", "wanted")]
    if life.state is State.QUARANTINED:
        return wanted, [_needs_reset(life)]
    return wanted, []


def _unwant(life: Life, by: str, now: float) -> tuple[Life, list[Action]]:
    unwanted = replace(life, wanted=False, again=False)
    if life.state is State.STOPPING:
        return unwanted, []
    if life.state in ALIVE:
        why = f"stopped by {by}"
        return _in(unwanted, State.STOPPING, now, why=why), [
            Say(logging.INFO, f"is asked to stop, by {by}", "stopping"),
            AskToStop(),
        ]
    return _in(unwanted, State.STOPPED, now, why=f"stopped by {by}"), []


def _restart(life: Life, by: str, now: float) -> tuple[Life, list[Action]]:
    if life.state is State.QUARANTINED:
        return replace(life, wanted=True), [_needs_reset(life)]
    if life.state not in ALIVE:
        return _start(life, now), []
    again = replace(life, wanted=True, again=True, deaths=Deaths())
    if life.state is State.STOPPING:
        return again, []
    return _in(again, State.STOPPING, now, again=True), [Say(logging.INFO, f"is started anew, by {by}", "stopping"), AskToStop()]


def _reset(life: Life, now: float) -> tuple[Life, list[Action]]:
    if life.state not in ALIVE:
        return _start(life, now), []
    again = life.state is State.STOPPING
    return replace(life, wanted=True, again=again, deaths=Deaths(ready_since=life.deaths.ready_since)), []


def _start(life: Life, now: float) -> Life:
    """A person or the configuration wants it: at once, and with nothing held against it."""
    return replace(_in(life, State.STOPPED, now), wanted=True, start_at=now, deaths=Deaths(), is_done=False)


def _started(life: Life, pid: int, now: float, rules: Rules) -> Life:
    if not life.deaths.in_a_row:
        return replace(life, pid=pid)
    return replace(life, pid=pid, deaths=life.deaths.after_restart(now, rules.limit), restarts=life.restarts + 1)


def _ended(life: Life, end: Ended, now: float, rules: Rules, random: Random) -> tuple[Life, list[Action]]:
    words = f"(pid {life.pid}) {end.words}"
    verdict = rules.judge(end.exit_code)
    if life.state is State.STOPPING:
        return _stopped(life, now), [Say(logging.WARNING if end.exit_code else logging.INFO, words, "ended")]
    if verdict is Verdict.DONE and (end.by_signal or end.was_told):
        words = f"(pid {life.pid}) left because of {signal_name(end.by_signal)}" if end.by_signal else words
    elif verdict is Verdict.DONE:
        done = replace(life, is_done=True)
        return _in(done, State.STOPPED, now), [Say(logging.INFO, words, "ended")]
    if verdict is Verdict.FINAL:
        remedy = ": correct it, then `horizon reset`" if rules.can_be_reset else ""
        return _quarantined(life, end.words, f"{words}; it is not started again{remedy}", now)
    if not life.deaths.may_restart(now, rules.limit):
        often = f"{rules.burst} times within {rules.interval_s:g} s"
        remedy = "; `horizon reset` starts it anew" if rules.can_be_reset else ""
        why = f"started again {often}; the last one {end.words}"
        return _quarantined(life, why, f"{words}; it is not started again, after {often}{remedy}", now)
    return _wait(life, words, logging.WARNING, now, random)


def _quarantined(life: Life, why: str, sentence: str, now: float) -> tuple[Life, list[Action]]:
    dead = replace(life, deaths=life.deaths.after_death(now))
    return _in(dead, State.QUARANTINED, now, why=why), [Say(logging.ERROR, sentence, "quarantined")]


def _stopped(life: Life, now: float) -> Life:
    """As it was told; or in order to start again, which it does at once."""
    return _in(life, State.STOPPED, now, why="" if life.again else life.why, start_at=now if life.again else None)


def _wait(life: Life, words: str, level: int, now: float, random: Random) -> tuple[Life, list[Action]]:
    deaths = life.deaths.after_death(now)
    wait_s = deaths.wait_s(random)
    waiting = _in(replace(life, deaths=deaths), State.BACKOFF, now, why=words, start_at=now + wait_s)
    return waiting, [Say(level, f"{words}; it is started again in {wait_s:.2f} s", "backoff")]


def _in(life: Life, state: State, now: float, why: str = "", start_at: float | None = None, again: bool = False) -> Life:
    """In another state. What belonged to the one before is over."""
    return replace(life, state=state, since=now, why=why, start_at=start_at, again=again)


def _needs_reset(life: Life) -> Say:
    return Say(logging.WARNING, f"stays in quarantine ({life.why}); `horizon reset` ends that", "refused")
