"""What is done to the victims, and when: a seeded list of kills, pauses and full disks. Pure: the same seed gives the same plan.

A round is one life of everything: it begins with a start and ends with the death of the supervisor or of all. Its other kills are dealt
out evenly, because a supervisor waits longer and longer before it starts again what keeps dying, and a plan shall not measure that.
"""

from __future__ import annotations

from enum import Enum
from itertools import cycle
from random import Random
from typing import NamedTuple

CLOSE_S = 0.005  # "within 5 ms after" a start, a commit or an ack
_SHARE_OF_ALL = 0.12
_SHARE_OF_SUPERVISOR = 0.08
_SHARE_OF_WRITER = 0.25  # of the kills that end no round
_GAP_S = (0.02, 0.5)
_STOPPED_S = (0.05, 1.2)
_FULL_S = (0.5, 2.0)


class Target(Enum):
    WORKER = "worker"
    WRITER = "writer"
    SUPERVISOR = "supervisor"
    ALL = "all at once"


class Moment(Enum):
    """What a kill waits for, to strike within 5 ms after it."""

    ANY = "any moment"
    START = "a start"
    COMMIT = "a commit"
    ACK = "an ack"


class Kill(NamedTuple):
    """SIGKILL. `pick` (0 to 1) says which one, where there are several."""

    target: Target
    moment: Moment
    gap_s: float  # since the step before
    delay_s: float  # since the moment, up to CLOSE_S
    pick: float
    when_all_trade: bool = False  # wait until every strategy trades again


class Pause(NamedTuple):
    """SIGSTOP, and SIGCONT after a while. The victim may be killed meanwhile."""

    target: Target
    gap_s: float
    stopped_s: float
    pick: float


class FullDisk(NamedTuple):
    """Fill the disk of the database to its last byte, and empty it after a while."""

    gap_s: float
    full_s: float


Step = Kill | Pause | FullDisk


class Round(NamedTuple):
    supervised: bool  # else the strategies run alone and share a private writer
    steps: tuple[Step, ...]


def make_plan(seed: int, kills: int, small_disk: bool = False) -> list[Round]:
    """All rounds. The last one has no last kill: it ends by a clean stop, and is supervised."""
    chance = Random(f"plan {seed}")  # noqa: S311
    enders = [Target.ALL] * round(kills * _SHARE_OF_ALL) + [Target.SUPERVISOR] * round(kills * _SHARE_OF_SUPERVISOR)
    chance.shuffle(enders)
    others = kills - len(enders)
    writers = round(others * _SHARE_OF_WRITER)
    targets = [Target.WRITER] * writers + [Target.WORKER] * (others - writers)
    chance.shuffle(targets)
    # Every third kill is close to something, each kind of moment as often as the others.
    close = cycle((Moment.START, Moment.COMMIT, Moment.ACK))
    moments = [next(close) if number % 3 == 0 else Moment.ANY for number in range(kills)]
    chance.shuffle(moments)

    rounds = []
    for number in range(len(enders) + 1):
        share = targets[number :: len(enders) + 1]
        ender = enders[number] if number < len(enders) else None
        steps: list[Step] = []
        for target in [*share, *([ender] if ender else [])]:
            steps.append(_kill(chance, target, moments.pop(), is_first=not steps))
            if chance.random() < 0.25:
                steps.append(_pause(chance))
            if small_disk and chance.random() < 0.1:
                steps.append(_full_disk(chance))
        if ender is not None:
            steps = _ending_with(ender, steps)
        if small_disk and ender is None:
            steps.append(_full_disk(chance))  # at least once, however short the plan is
        alone = ender is Target.ALL and chance.random() < 0.6
        rounds.append(Round(not alone, tuple(steps)))
    return rounds


def kills_in(rounds: list[Round]) -> list[Kill]:
    return [step for one in rounds for step in one.steps if isinstance(step, Kill)]


def _kill(chance: Random, target: Target, moment: Moment, is_first: bool) -> Kill:
    # Most lives come to trade before the first kill; the others learn what a death in the middle of a start does.
    when_all_trade = is_first and moment is not Moment.START and chance.random() < 0.8
    # What the step before has killed is about to start again.
    gap_s = 0.0 if moment is Moment.START else chance.uniform(*_GAP_S)
    return Kill(target, moment, gap_s, chance.uniform(0.0, CLOSE_S), chance.random(), when_all_trade)


def _pause(chance: Random) -> Pause:
    target = Target.WRITER if chance.random() < 0.3 else Target.WORKER
    return Pause(target, chance.uniform(*_GAP_S), chance.uniform(*_STOPPED_S), chance.random())


def _full_disk(chance: Random) -> FullDisk:
    return FullDisk(chance.uniform(*_GAP_S), chance.uniform(*_FULL_S))


def _ending_with(ender: Target, steps: list[Step]) -> list[Step]:
    """A pause that was dealt out after the last kill comes before it."""
    last = next(step for step in reversed(steps) if isinstance(step, Kill) and step.target is ender)
    return [*(step for step in steps if step is not last), last]
