"""What the supervisor does about a death: the table of exit codes, and what is remembered."""

from __future__ import annotations

import signal

import pytest

from horizon.errors import ExitCode
from supervisor.policy import FIRST_CEILING_S, FORGOTTEN_AFTER_S, Deaths, Verdict, judge_worker, judge_writer


@pytest.mark.parametrize("exit_code", [ExitCode.USAGE, ExitCode.STRATEGY])
def test_a_worker_that_would_fail_again_is_not_started_again(exit_code: int) -> None:
    assert judge_worker(exit_code) is Verdict.FINAL


@pytest.mark.parametrize("exit_code", [ExitCode.FAILED, ExitCode.HALTED, ExitCode.STORE, ExitCode.NOBODY, 77, -signal.SIGKILL])
def test_a_worker_that_a_new_start_can_cure_is_started_again(exit_code: int) -> None:
    assert judge_worker(exit_code) is Verdict.AGAIN


def test_a_worker_that_ended_by_itself_is_done() -> None:
    assert judge_worker(ExitCode.DONE) is Verdict.DONE


@pytest.mark.parametrize("exit_code", [ExitCode.DONE, ExitCode.FAILED, ExitCode.HALTED, -signal.SIGKILL])
def test_a_writer_is_never_done(exit_code: int) -> None:
    assert judge_writer(exit_code) is Verdict.AGAIN


@pytest.mark.parametrize("exit_code", [ExitCode.STORE, ExitCode.USAGE])
def test_an_unusable_database_ends_everything(exit_code: int) -> None:
    assert judge_writer(exit_code) is Verdict.FINAL


def test_deaths_in_a_row_are_counted_while_the_process_is_not_ready_for_long() -> None:
    deaths = Deaths().after_death(0.0).after_ready(1.0).after_death(1.0 + FORGOTTEN_AFTER_S - 0.1)
    assert deaths.in_a_row == 2


def test_a_minute_of_being_ready_makes_the_next_death_the_first_one() -> None:
    deaths = Deaths(in_a_row=9).after_ready(1.0).after_death(1.0 + FORGOTTEN_AFTER_S)
    assert deaths.in_a_row == 1


def test_an_incarnation_that_never_became_ready_profits_from_no_earlier_one() -> None:
    deaths = Deaths().after_ready(0.0).after_death(10.0).after_death(10.0 + 2 * FORGOTTEN_AFTER_S)
    assert deaths.in_a_row == 2


def test_the_first_wait_is_short() -> None:
    class Longest:
        def uniform(self, low: float, high: float) -> float:
            return high

    waits = [Deaths(in_a_row=n).wait_s(Longest()) for n in (1, 2, 3, 8, 9)]  # type: ignore[arg-type]
    assert waits == [FIRST_CEILING_S, 0.5, 1.0, 30.0, 30.0]
