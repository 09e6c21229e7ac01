from __future__ import annotations

from collections import Counter

import pytest

from horizon.chaos.plan import CLOSE_S, FullDisk, Kill, Moment, Pause, Round, Target, make_plan


def kills_of(plan: list[Round]) -> list[Kill]:
    return [step for one in plan for step in one.steps if isinstance(step, Kill)]


def test_the_same_seed_gives_the_same_plan_and_another_seed_another() -> None:
    assert make_plan(7, 200) == make_plan(7, 200)
    assert make_plan(7, 200) != make_plan(8, 200)


@pytest.mark.parametrize("count", [1, 2, 5, 12, 40, 200])
def test_a_plan_has_as_many_kills_as_were_asked_for(count: int) -> None:
    assert len(kills_of(make_plan(1, count))) == count


def test_every_kind_of_victim_dies_and_workers_most_often() -> None:
    targets = Counter(kill.target for kill in kills_of(make_plan(3, 200)))
    assert set(targets) == set(Target)
    assert targets[Target.WORKER] == max(targets.values())


def test_a_third_of_the_kills_is_within_five_milliseconds_of_a_start_a_commit_or_an_ack() -> None:
    kills = kills_of(make_plan(4, 200))
    close = Counter(kill.moment for kill in kills if kill.moment is not Moment.ANY)
    assert sum(close.values()) == 67
    assert set(close) == {Moment.START, Moment.COMMIT, Moment.ACK}
    assert max(close.values()) - min(close.values()) <= 1
    assert all(0 <= kill.delay_s <= CLOSE_S for kill in kills)


def test_every_round_but_the_last_ends_with_the_death_of_the_supervisor_or_of_all() -> None:
    *rounds, last = make_plan(5, 200)
    for one in rounds:
        enders = [step for step in one.steps if isinstance(step, Kill) and step.target in (Target.SUPERVISOR, Target.ALL)]
        assert enders == [one.steps[-1]]
    assert last.supervised
    assert not any(isinstance(step, Kill) and step.target in (Target.SUPERVISOR, Target.ALL) for step in last.steps)


def test_strategies_that_run_alone_have_no_supervisor_to_kill() -> None:
    alone = [one for one in make_plan(6, 200) if not one.supervised]
    assert alone
    assert not any(isinstance(step, Kill) and step.target is Target.SUPERVISOR for one in alone for step in one.steps)


def test_processes_are_stopped_for_a_while_and_the_disk_is_filled_only_when_it_is_a_small_one() -> None:
    steps = [step for one in make_plan(9, 200) for step in one.steps]
    assert any(isinstance(step, Pause) for step in steps)
    assert not any(isinstance(step, FullDisk) for step in steps)
    assert any(isinstance(step, FullDisk) for one in make_plan(9, 200, small_disk=True) for step in one.steps)
