"""Each verb of the control socket over a supervisor that is only a table: what it does, what it refuses, and that it never waits."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from eventually import eventually
from manual_clock import ManualClock
from pretended import Pretended, write_config

from horizon.control import (
    Done,
    Down,
    Dump,
    DumpReply,
    PlanReply,
    Refused,
    Reload,
    Reply,
    Request,
    Reset,
    Restart,
    Start,
    Status,
    Stop,
)
from horizon.errors import ExitCode
from supervisor.control import Peer
from supervisor.verbs import DUMP_WITHIN_S, STATUS_FRESH_S, Verbs

ANN = Peer(4242, 1000, frozenset({1000}), "ann")


@pytest.fixture
def supervisor(tmp_path: Path) -> Pretended:
    return Pretended(tmp_path, "calm", "eager")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def verbs(supervisor: Pretended, clock: ManualClock) -> Verbs:
    return Verbs(supervisor, clock)


def reply_to(verbs: Verbs, supervisor: Pretended, request: Request) -> Reply:
    """Asked again, as the server does it, until there is one."""
    answer = verbs.answer(request, ANN)
    if not callable(answer):
        return answer
    now = 0.0

    def turn() -> Reply | None:
        nonlocal now
        now += 1.0
        supervisor.desired.keep(now)
        assert callable(answer)
        return answer()

    return eventually(turn, what=f"a reply to {request}")  # type: ignore[return-value]


def refusal(verbs: Verbs, supervisor: Pretended, request: Request) -> Refused:
    reply = reply_to(verbs, supervisor, request)
    assert isinstance(reply, Refused), reply
    return reply


@pytest.mark.parametrize(
    ("request_", "done"),
    [
        (Start(["calm"]), ["want calm"]),
        (Stop(["eager", "calm"]), ["unwant eager", "unwant calm"]),
        (Stop(["calm", "calm"]), ["unwant calm"]),
        (Restart(["all"]), ["restart calm", "restart eager"]),
        (Reset(["calm"]), ["reset calm"]),
    ],
)
def test_a_command_reaches_the_strategies_that_it_names(
    verbs: Verbs, supervisor: Pretended, request_: Request, done: list[str]
) -> None:
    reply = reply_to(verbs, supervisor, request_)
    assert supervisor.done == done
    assert isinstance(reply, Done)
    assert set(reply.starts.values()) == {1}, "which incarnation it found"


def test_a_wrong_name_changes_nothing_and_is_told_the_near_one(verbs: Verbs, supervisor: Pretended) -> None:
    refused = refusal(verbs, supervisor, Stop(["eager", "clam"]))
    assert refused == Refused("there is no strategy 'clam'; did you mean calm?", ExitCode.USAGE)
    assert not supervisor.done
    assert "there are calm, eager" in refusal(verbs, supervisor, Stop(["writer"])).reason


def test_a_command_is_answered_when_it_is_stored(verbs: Verbs, supervisor: Pretended) -> None:
    answer = verbs.answer(Stop(["calm"]), ANN)
    assert callable(answer)
    assert answer() is None, "nobody has stored anything yet"
    assert isinstance(reply_to(verbs, supervisor, Stop(["calm"])), Done)
    assert isinstance(answer(), Done)


def test_what_cannot_be_stored_is_said(verbs: Verbs, supervisor: Pretended) -> None:
    supervisor.paths.desired.mkdir()
    assert "done, but not stored" in refusal(verbs, supervisor, Stop(["calm"])).reason


def test_who_asked_for_what_is_written_down(verbs: Verbs, supervisor: Pretended, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for request in (Stop(["calm", "eager"]), Reload(dry_run=True), Down(), Dump("writer"), Status()):
        reply_to(verbs, supervisor, request) if not isinstance(request, Dump) else verbs.answer(request, ANN)
    assert [record.getMessage() for record in caplog.records if getattr(record, "action", "") == "command"] == [
        "ann (uid 1000, pid 4242): stop calm eager",
        "ann (uid 1000, pid 4242): reload --dry-run",
        "ann (uid 1000, pid 4242): down",
        "ann (uid 1000, pid 4242): dump writer",
    ]


def test_many_who_ask_at_once_get_one_answer_and_a_command_makes_a_new_one(
    verbs: Verbs, supervisor: Pretended, clock: ManualClock
) -> None:
    first = verbs.answer(Status(), ANN)
    assert verbs.answer(Status(), ANN) is first
    clock.forward(STATUS_FRESH_S)
    second = verbs.answer(Status(), ANN)
    assert second is not first
    verbs.answer(Stop(["calm"]), ANN)
    assert verbs.answer(Status(), ANN) is not second


def test_down_is_taken_again_and_again(verbs: Verbs, supervisor: Pretended) -> None:
    assert isinstance(reply_to(verbs, supervisor, Down()), Done)
    assert isinstance(reply_to(verbs, supervisor, Down()), Done)
    for request in (Start(["calm"]), Restart(["all"]), Reload()):
        assert "everything is being stopped" in refusal(verbs, supervisor, request).reason


# ---- reload


def test_a_dry_run_says_what_would_change_and_changes_nothing(verbs: Verbs, supervisor: Pretended, tmp_path: Path) -> None:
    running = supervisor.config
    write_config(tmp_path, "calm", "bold", tables={"calm": "interval = 3"})
    assert reply_to(verbs, supervisor, Reload(dry_run=True)) == PlanReply(
        add=["bold"], remove=["eager"], restart=["calm"], applied=False, starts={"calm": 1}
    )
    assert supervisor.config is running
    assert not supervisor.done


def test_a_reload_hands_over_the_new_configuration(verbs: Verbs, supervisor: Pretended, tmp_path: Path) -> None:
    write_config(tmp_path, "calm", "eager", more="[supervisor]\nhang_after_s = 4")
    assert reply_to(verbs, supervisor, Reload()) == PlanReply(live=["supervisor.hang_after_s"], applied=True)
    assert supervisor.config.supervisor.hang_after_s == 4
    assert supervisor.done == ["reload"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[strategies.calm\n", "not valid TOML"),
        ('[strategies.calm]\nfile = "gone.py"', "gone.py does not exist"),
        ('[database]\ndurability = "power"\n[strategies.calm]\nfile = "calm.py"', "database.durability cannot be changed"),
    ],
)
def test_a_file_that_is_wrong_changes_nothing(
    verbs: Verbs, supervisor: Pretended, tmp_path: Path, text: str, reason: str
) -> None:
    (tmp_path / "horizon.toml").write_text(text)
    refused = refusal(verbs, supervisor, Reload())
    assert reason in refused.reason
    assert refused.exit_code == ExitCode.USAGE
    assert not supervisor.done


# ---- dump


def test_a_dump_comes_when_it_is_complete(verbs: Verbs, supervisor: Pretended) -> None:
    answer = verbs.answer(Dump("calm"), ANN)
    assert callable(answer)
    assert answer() is None
    supervisor.dumps["calm"] = "Thread 0x1: in trade"
    assert answer() == DumpReply("Thread 0x1: in trade")


def test_a_process_that_does_not_tell_is_not_waited_for_for_ever(verbs: Verbs, supervisor: Pretended, clock: ManualClock) -> None:
    answer = verbs.answer(Dump("calm"), ANN)
    assert callable(answer)
    clock.forward(DUMP_WITHIN_S)
    reply = answer()
    assert isinstance(reply, Refused)
    assert reply.exit_code == ExitCode.DEADLINE


def test_there_is_nothing_to_dump_of_what_does_not_run(verbs: Verbs, supervisor: Pretended) -> None:
    supervisor.set("calm", state="stopped", pid=None)
    assert refusal(verbs, supervisor, Dump("calm")).reason == "calm is stopped: it has no process that could be asked"
    assert "there is no strategy 'calmly'; did you mean calm?" in refusal(verbs, supervisor, Dump("calmly")).reason
    assert not supervisor.done
