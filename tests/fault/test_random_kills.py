"""kill -9 at random instants, chosen by a seed: nothing lost, nothing twice, order kept, positions exact to the bit."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pytest
from audit import assert_nothing_lost_nothing_twice
from besieged import STRATEGIES, Besieged
from eventually import eventually

KILLS = 40
SEEDS = (1, 2, 3, 4)
PER_START = 4  # who dies often is started again later and later


class Kill(NamedTuple):
    start: int  # of the system, counted from 0: each start ends with the death of all
    victim: str
    trading: bool  # all strategies trade at first; else the victim may die while it starts
    after_s: float


def kills_of(seed: int, number: int) -> list[Kill]:
    """Pure: the same seed gives the same kills. A third of them come within 5 ms."""
    chance = random.Random(seed)
    kills: list[Kill] = []
    start = in_a_row = 0
    while len(kills) < number:
        victim = chance.choice((*STRATEGIES, "writer", "writer", "all"))
        in_a_row += 1
        is_last = victim == "all" or in_a_row == PER_START or len(kills) == number - 1
        after_s = chance.choice((0.005, 0.1, 0.5)) * chance.random()
        kills.append(Kill(start, "all" if is_last else victim, chance.random() < 0.5, after_s))
        if is_last:
            start, in_a_row = start + 1, 0
    return kills


def test_the_same_seed_chooses_the_same_kills() -> None:
    assert kills_of(1, 100) == kills_of(1, 100) != kills_of(2, 100)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", SEEDS)
def test_random_kills_lose_nothing_and_double_nothing(system: Besieged, seed: int) -> None:
    for _, kills in groupby(kills_of(seed, KILLS // len(SEEDS)), key=lambda kill: kill.start):
        system.start()
        for kill in kills:
            if kill.trading:
                system.trades()
            names = ("supervisor",) if kill.victim == "all" else (kill.victim,)
            living = eventually(lambda names=names: _living(system, *names), 20, 0.002, what=f"{kill.victim}, to be killed")
            moment = time.monotonic() + kill.after_s
            eventually(lambda moment=moment: time.monotonic() >= moment, interval_s=0.0005)
            system.kill(*(living.values() if kill.victim == "all" else [living[kill.victim]]))
        system.is_gone()
    system.start()
    system.trades()
    system.stop()
    assert system.up is not None
    assert assert_nothing_lost_nothing_twice(system.up.paths, *STRATEGIES) > 100


def _living(system: Besieged, *names: str) -> dict[str, int] | None:
    """Everybody who lives, once those named do."""
    living = system.processes()
    return living if living.keys() >= set(names) else None


@pytest.fixture
def system(tmp_path: Path) -> Iterator[Besieged]:
    besieged = Besieged(tmp_path)
    yield besieged
    besieged.end()
