"""A strategy that leaks, with a helper that leaks, beside a healthy one: on a kernel that keeps the limit, in a group that is delegated.

Run in the machine of the power cut, for few hosts of tests have control groups of version 2 with a memory controller.
"""

from __future__ import annotations

from typing import Any

import pytest
from debian_guest import Guest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

USERS = ("root", "trader")
LIMIT = "was killed because it took more than its limit of 64 MiB of memory"

Seen = dict[str, Any]


@pytest.fixture(scope="module")
def all_seen(guest: Guest) -> dict[str, Seen]:
    """What each user saw; both ran side by side."""
    said = guest.boot("limits", lambda said: any(one["what"] == "finished" for one in said), timeout_s=600)
    return {one["user"]: one for one in said if "user" in one}


@pytest.fixture(params=USERS)
def seen(request: pytest.FixtureRequest, all_seen: dict[str, Seen]) -> Seen:
    seen = all_seen[request.param]
    assert seen["what"] == "seen", "\n".join([seen["traceback"], *seen["log"]])
    return seen


def test_the_kernel_kills_what_takes_more_than_its_limit_and_the_reason_is_a_sentence(seen: Seen) -> None:
    assert seen["why_no_groups"] == ""
    assert seen["after"]["leaky"]["last_end"] == LIMIT
    ends = [line for line in seen["log"] if LIMIT in line]
    assert ends
    assert all("it is started again in" in line for line in ends), "with back-off"
    assert seen["after"]["leaky"]["pid"] != seen["first"]["leaky"]["pid"]
    assert not any("and memory_max_mb is" in line for line in seen["log"]), "nobody else had to"


def test_a_helper_goes_with_its_strategy_whatever_session_it_has(seen: Seen) -> None:
    assert seen["helpers"]
    assert seen["left"] == []
    assert seen["left_at_the_end"] == []


def test_a_strategy_beside_it_keeps_its_process_and_trades_on(seen: Seen) -> None:
    assert seen["after"]["healthy"]["pid"] == seen["first"]["healthy"]["pid"]
    assert seen["after"]["healthy"]["restarts"] == 0
    assert seen["after"]["healthy"]["fills"] > seen["first"]["healthy"]["fills"]


def test_each_strategy_has_a_group_of_its_own_and_the_writer_is_in_none_of_them(seen: Seen) -> None:
    assert seen["first"]["healthy"]["pid"] in seen["during"]["strategy-healthy.1"]
    assert {seen["pid"], seen["first"]["writer"]["pid"]} <= set(seen["during"]["supervisor"])
    assert set(seen["during"]) - {"supervisor", "strategy-healthy.1"} <= {f"strategy-leaky.{number}" for number in range(9)}


def test_no_group_is_left(seen: Seen) -> None:
    assert seen["exit_code"] == 0
    assert seen["groups_left"] == []
