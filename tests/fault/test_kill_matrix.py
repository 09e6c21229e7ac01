"""kill -9 of each process while the system is at each point: nothing lost, nothing twice, order kept, positions exact to the bit.

Whoever comes by the armed point first stands still there, so X dies while the system is at Y. Every cell begins with what a system
that was killed as a whole has left, so each start has journals to drain and positions to recover.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from audit import assert_nothing_lost_nothing_twice
from besieged import STRATEGIES, Besieged
from eventually import eventually

from horizon.failpoints import POINTS

VICTIMS = ("worker", "writer", "supervisor", "all")


class Moment(NamedTuple):
    """Where the system stands still, and how it is brought there."""

    name: str
    point: str
    reached: str  # by: the start, trading, a new writer, an I/O error, the stop
    victims: tuple[str, ...] = VICTIMS  # those that live then


_NO_WORKER = ("writer", "supervisor", "all")
MOMENTS = (
    Moment("starting_a_run_whose_journal_has_no_name", "worker.journal_unnamed", "start"),
    Moment("starting_a_run_whose_journal_is_made", "worker.journal_made", "start"),
    Moment("starting_another_writer", "writer.starting", "new writer"),
    Moment("starting_the_first_child", "supervisor.starting", "start", _NO_WORKER),
    Moment("recovering_positions", "worker.recovering", "start"),
    Moment("recovering_a_journal_that_is_stored_and_not_removed", "writer.draining", "start", _NO_WORKER),
    Moment("recording_bytes_that_are_not_published", "worker.appending", "trading"),
    Moment("recording_a_fill_that_is_not_applied", "worker.recorded", "trading"),
    Moment("recording_under_a_supervisor_that_stands_still", "supervisor.running", "trading"),
    Moment("mid_batch", "writer.batch_taken", "trading"),
    Moment("between_commit_and_ack", "writer.committed", "trading"),
    Moment("checkpointing_beside_the_commits", "writer.checkpointing_beside", "trading"),
    Moment("checkpointing_after_an_io_error", "writer.checkpointing", "io error"),
    Moment("checkpointing_at_the_end", "writer.checkpointing", "stop", _NO_WORKER),
    Moment("snapshotting", "worker.snapshotting", "trading"),
    Moment("stopping_a_run_whose_end_is_not_recorded", "worker.ending", "stop"),
    Moment("stopping_a_run_whose_end_is_recorded", "worker.ended", "stop"),
    Moment("stopping_the_writer", "writer.stopping", "stop", _NO_WORKER),
    Moment("stopping_the_workers", "supervisor.stopping", "stop"),
)
CELLS = [
    pytest.param(victim, moment, id=f"kill_{victim}_while_{moment.name}")
    for moment in MOMENTS for victim in moment.victims
]  # fmt: skip


def test_every_point_is_in_the_matrix() -> None:
    assert {moment.point for moment in MOMENTS} == set(POINTS)


@pytest.mark.parametrize(("victim", "moment"), CELLS)
def test_nothing_is_lost_and_nothing_twice(system: Besieged, victim: str, moment: Moment) -> None:
    # Given a system in which somebody stands still at the moment
    _bring_to(system, moment)
    held = system.held()
    living = system.processes()
    # When the victim is killed, and whoever is left goes on
    system.kill(*_pids(victim, living, held))
    with suppress(ProcessLookupError):
        os.kill(held, signal.SIGCONT)
    # Then, when everything runs again and has drained, every record is there once, and every position is the fold of its fills
    if victim in ("supervisor", "all"):
        system.is_gone()
    elif moment.reached == "stop":
        assert system.up is not None
        assert system.up.wait() == 0
    if victim in ("supervisor", "all") or moment.reached == "stop":
        system.start()
    system.trades()
    system.stop()
    assert system.up is not None
    assert_nothing_lost_nothing_twice(system.up.paths, *STRATEGIES)


def _bring_to(system: Besieged, moment: Moment) -> None:
    if moment.reached == "start":
        system.arm()
    up = system.start(moment.point)
    if moment.reached == "start":
        return
    system.trades()
    if moment.reached == "new writer":
        system.arm()
        system.kill(system.processes()["writer"])
    elif moment.reached == "io error":
        _fail_writes_once(system, system.processes()["writer"])
    else:
        system.arm()
        if moment.reached == "stop":
            up.send(signal.SIGTERM)


def _fail_writes_once(system: Besieged, writer: int) -> None:
    """A file may not grow any more, until the writer has noticed."""
    assert system.up is not None
    system.arm()
    process = psutil.Process(writer)
    before = process.rlimit(psutil.RLIMIT_FSIZE)
    process.rlimit(psutil.RLIMIT_FSIZE, (0, before[1]))
    system.up.says("STALLED")
    process.rlimit(psutil.RLIMIT_FSIZE, before)


def _pids(victim: str, living: dict[str, int], held: int) -> list[int]:
    if victim == "all":
        return list(living.values())
    if victim == "worker":
        workers = [living[name] for name in STRATEGIES if name in living]
        return [held if held in workers else workers[0]]
    return [living[victim]]


@pytest.fixture
def system(tmp_path: Path, wreck: Path) -> Iterator[Besieged]:
    besieged = Besieged(tmp_path, like=wreck)
    yield besieged
    besieged.end()


@pytest.fixture(scope="session")
def wreck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a system leaves that was killed as a whole while it traded."""
    folder = tmp_path_factory.mktemp("wreck")
    besieged = Besieged(folder)
    try:
        up = besieged.start()
        besieged.trades()
        besieged.kill(*besieged.processes().values())
        eventually(lambda: not up.left_processes(), what="the end of every process")
    finally:
        besieged.end()
    assert up.paths.journals()
    return folder
