"""Control groups as far as they are files: where they may be made, what is written into them, what their words mean."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from horizon.config import Limits
from supervisor import cgroups
from supervisor.cgroups import Group, Groups, NotDelegated
from supervisor.limits import LOOK_EVERY_S, Mark, Memory

MIB = 1 << 20
NO_LIMIT = Limits()


class Host:
    """A folder that looks like the groups of a host, in one of which this process is."""

    def __init__(self, folder: Path, own: str = "horizon.service") -> None:
        self.place, self.process, self.own = folder / "cgroup", folder / "process", folder / "cgroup" / own
        self.process.mkdir()
        (self.process / "cgroup").write_text(f"1:name=systemd:/elsewhere\n0::/{own}\n")
        self.make(self.own)

    def make(self, group: Path, *pids: int) -> None:
        group.mkdir(parents=True)
        (group / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids or [os.getpid()]))
        (group / "cgroup.controllers").write_text("cpu memory pids\n")
        (group / "cgroup.type").write_text("domain\n")
        (group / "cgroup.subtree_control").write_text("")

    def open(self) -> Groups:
        return Groups.open(self.place, self.process)


@pytest.fixture(autouse=True)
def childless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests leave this process helpers of multiprocessing, which would be moved too: here a file takes one pid."""
    monkeypatch.setattr(cgroups, "_children", list)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def group(tmp_path: Path) -> Group:
    group = Group(tmp_path)
    group.limit(Limits(memory_max_mb=200))
    (tmp_path / "cgroup.procs").write_text("7\n8\n")
    return group


def _word(file: Path) -> str:
    return file.read_text().strip()


# ---- where they may be made


def test_the_supervisor_leaves_its_own_group_for_one_below_it_and_lets_groups_have_limits(host: Host) -> None:
    host.open()
    assert _word(host.own / "supervisor" / "cgroup.procs") == str(os.getpid())
    assert _word(host.own / "cgroup.subtree_control") == "+memory"


def test_a_supervisor_after_one_that_was_killed_stays_in_its_place(tmp_path: Path) -> None:
    host = Host(tmp_path, own="horizon.service/supervisor")
    (host.own.parent / "cgroup.procs").write_text("")
    for name in ("cgroup.controllers", "cgroup.type", "cgroup.subtree_control"):
        (host.own.parent / name).write_text("memory")
    host.open()
    assert not (host.own / "supervisor").exists()


def test_groups_that_a_killed_supervisor_left_are_removed_when_they_are_empty(host: Host) -> None:
    empty, last_words = host.own / "strategy-maker.1", host.own / "strategy-taker.1"
    empty.mkdir()
    host.make(last_words, 7)
    groups = host.open()
    groups.sweep(1.0)
    assert (empty.exists(), last_words.exists()) == (False, True)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda host: (host.process / "cgroup").write_text("4:memory:/\n"), "no cgroup v2"),
        (lambda host: (host.process / "cgroup").write_text("0::/../other\n"), "is not below"),
        (lambda host: (host.own / "cgroup.controllers").write_text("cpu pids\n"), "memory controller"),
        (lambda host: (host.own / "cgroup.type").unlink(), "root of all groups"),
        (lambda host: (host.own / "cgroup.procs").write_text(f"{os.getpid()}\n1\n2\n"), "2 other processes"),
        (lambda host: (host.own / "cgroup.controllers").unlink(), "No such file"),
        (lambda host: (host.process / "cgroup").unlink(), "No such file"),
    ],
)
def test_where_nothing_is_delegated_there_are_no_groups_and_a_reason(host: Host, spoil, why: str) -> None:  # type: ignore[no-untyped-def]
    spoil(host)
    with pytest.raises(NotDelegated, match=why):
        host.open()
    assert not (host.own / "supervisor").exists()


def test_a_group_that_may_not_be_written_is_not_delegated(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path.name != "cgroup.subtree_control")
    with pytest.raises(NotDelegated, match=r"cgroup\.subtree_control may not be written"):
        host.open()


def test_a_kernel_that_refuses_in_the_middle_leaves_everything_as_it_was(host: Host) -> None:
    (host.own / "cgroup.subtree_control").unlink()
    (host.own / "cgroup.subtree_control").mkdir()  # what is written to it fails
    with pytest.raises(NotDelegated, match=r"cgroup\.subtree_control"):
        host.open()
    assert str(os.getpid()) in (host.own / "cgroup.procs").read_text().split()


# ---- what is written into them


def test_a_limit_is_one_of_the_whole_group_and_swap_is_no_way_around_it(host: Host) -> None:
    group = host.open().make("maker", Limits(memory_max_mb=200))
    assert group is not None
    assert _word(group.folder / "memory.max") == str(200 * MIB)
    assert (_word(group.folder / "memory.swap.max"), _word(group.folder / "memory.oom.group")) == ("0", "1")


def test_every_incarnation_has_a_group_of_its_own_whatever_the_strategy_is_called(host: Host) -> None:
    groups = host.open()
    made = [groups.make(name, NO_LIMIT) for name in ("maker", "maker", "../maker/..", "ü" * 200)]
    names = [group.folder.relative_to(host.own).as_posix() for group in made if group is not None]
    assert names[:3] == ["strategy-maker.1", "strategy-maker.2", "strategy-.._maker_...3"]
    assert len(set(names)) == 4
    assert len(names[3].encode()) < 255


def test_a_name_that_a_killed_supervisor_used_is_not_used_again(host: Host) -> None:
    host.make(host.own / "strategy-maker.1", 7)
    group = host.open().make("maker", NO_LIMIT)
    assert group is not None
    assert group.folder.name == "strategy-maker.2"


def test_a_group_that_cannot_be_made_is_said_once_and_stops_nobody(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    groups = host.open()
    (host.own / "cgroup.procs").unlink()
    for file in host.own.rglob("*"):
        if file.is_file():
            file.unlink()
    (host.own / "supervisor").rmdir()
    host.own.rmdir()
    assert [groups.make("maker", NO_LIMIT) for _ in range(3)] == [None] * 3
    assert len([entry for entry in caplog.records if "looked at once a second" in entry.message]) == 1


# ---- what their words mean


@pytest.mark.parametrize(
    ("events", "why"),
    [
        (
            "low 0\nhigh 0\nmax 31\noom 2\noom_kill 3\noom_group_kill 1\n",
            "because it took more than its limit of 200 MiB of memory",
        ),
        ("max 0\noom 0\noom_kill 1\n", "because the host, or the group that Horizon runs in, had no memory left"),
        ("max 31\noom 0\noom_kill 0\n", ""),
    ],
)
def test_the_reason_of_an_end_is_what_the_kernel_counted(group: Group, events: str, why: str) -> None:
    (group.folder / "memory.events").write_text(events)
    assert group.why_killed() == (f"was killed {why}" if why else "")


def test_without_the_kernels_word_there_is_no_reason(group: Group) -> None:
    assert group.why_killed() == ""


def test_a_group_is_killed_as_a_whole(group: Group) -> None:
    group.kill()
    assert _word(group.folder / "cgroup.kill") == "1"


def test_the_kernel_keeps_the_limit_of_who_is_in_the_group_and_all_else_is_watched(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.limits.held_bytes", lambda pid, precisely_above: 300 * MIB)
    limits = Limits(memory_max_mb=200)
    member, stranger = Memory(group), Memory(group)
    assert member.look(7, limits, LOOK_EVERY_S)[0] is Mark.HIGH
    assert stranger.look(9, limits, LOOK_EVERY_S)[0] is Mark.MAX
