"""A supervised writer leaves after the last record, whenever the supervisor dies or says stop."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from eventually import eventually
from road import kill_writer, rows
from samples import fill

from horizon.channel import Channel, Ready, Stop, pair
from horizon.paths import DatabasePaths
from horizon.recorder import Recorder

Start = Callable[..., tuple[subprocess.Popen[bytes], Channel]]


@pytest.fixture
def start(database: DatabasePaths) -> Iterator[Start]:
    """Start a writer as the supervisor does; what is said to it before lies in its channel when it begins."""
    started: list[tuple[subprocess.Popen[bytes], Channel]] = []

    def a_writer(said_before: Stop | None = None, is_orphan: bool = False) -> tuple[subprocess.Popen[bytes], Channel]:
        ours, theirs = pair()
        channel = Channel(ours)
        if said_before is not None:
            channel.send(said_before)
        if is_orphan:
            channel.close()
        command = [sys.executable, "-m", "horizon.writer", "--supervised", "--database", str(database.database)]
        with theirs:
            process = subprocess.Popen([*command, "--channel-fd", str(theirs.fileno())], pass_fds=(theirs.fileno(),))
        started.append((process, channel))
        return started[-1]

    yield a_writer
    for process, channel in started:
        channel.close()
        process.kill()
        process.wait()


@pytest.fixture
def left_journal(database: DatabasePaths) -> None:
    """A run that ended when there was no writer."""
    with closing(Recorder.open(database, "s")) as recorder:
        kill_writer(database)
        recorder.record(fill(1))
    assert database.journals()


@pytest.mark.usefixtures("left_journal")
def test_a_writer_that_is_told_to_stop_before_it_has_begun_drains_first(database: DatabasePaths, start: Start) -> None:
    writer, _ = start(said_before=Stop(10.0))
    assert writer.wait(20) == 0
    assert rows(database, "SELECT count(*) FROM fills") == [(1,)]
    assert not database.journals()


@pytest.mark.usefixtures("left_journal")
def test_a_writer_whose_supervisor_died_before_it_was_ready_drains_and_leaves(database: DatabasePaths, start: Start) -> None:
    writer, _ = start(is_orphan=True)
    assert writer.wait(20) == 0
    assert rows(database, "SELECT count(*) FROM fills") == [(1,)]
    assert not database.journals()


def test_a_writer_whose_supervisor_dies_stays_for_a_run_that_has_just_begun(database: DatabasePaths, start: Start) -> None:
    # Given a run whose journal the writer has not met: it looks once a second
    writer, channel = start()
    eventually(lambda: any(isinstance(message, Ready) for message in channel.receive()), 20)
    with closing(Recorder.open(database, "s", may_start_writer=False)) as recorder:
        # When the supervisor dies
        channel.close()
        # Then what the run records from now on is stored, and the writer leaves after it
        recorder.record(fill(1))
        recorder.flush(10.0)
        assert writer.poll() is None
    assert writer.wait(20) == 0
    assert not database.journals()
