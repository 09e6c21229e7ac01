"""What a supervised writer tells: that its loop turns, that the database takes rows, what it is doing. In real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from eventually import eventually
from road import rows
from samples import fill

from horizon.channel import Channel, Ready, WriterBeat, pair
from horizon.paths import DatabasePaths
from horizon.recorder import Recorder


class Writer:
    """A writer as the supervisor starts it, and what it has told so far."""

    def __init__(self, database: DatabasePaths, folder: Path) -> None:
        ours, theirs = pair()
        self.channel = Channel(ours)
        self.dump = folder / "dump"
        self.err = folder / "err"
        dump = os.open(self.dump, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600)
        fds = (theirs.fileno(), dump)
        command = [sys.executable, "-m", "horizon.writer", "--supervised", "--database", str(database.database)]
        command += ["--channel-fd", str(fds[0]), "--dump-fd", str(fds[1])]
        with theirs, self.err.open("w") as err:
            self.process = subprocess.Popen(command, pass_fds=fds, stderr=err)
        os.close(dump)
        self.heard: list[object] = []
        eventually(lambda: any(isinstance(message, Ready) for message in self.hear()), 20.0, what="a writer that is ready")

    def hear(self) -> list[object]:
        self.heard += self.channel.receive()
        return self.heard

    def next_beat(self, timeout_s: float = 10.0) -> WriterBeat:
        before = len(self.hear())
        return eventually(
            lambda: next((one for one in self.hear()[before:] if isinstance(one, WriterBeat)), None), timeout_s, what="a beat"
        )

    def ages(self) -> list[float]:
        return [message.commit_age_s for message in self.hear() if isinstance(message, WriterBeat)]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.channel.close()


@pytest.fixture
def writer(database: DatabasePaths, tmp_path: Path) -> Iterator[Writer]:
    started = Writer(database, tmp_path)
    yield started
    started.end()


def test_a_beat_a_second_counts_rounds_and_what_was_committed(writer: Writer, database: DatabasePaths) -> None:
    first = writer.next_beat()
    with closing(Recorder.open(database, "maker", may_start_writer=False)) as recorder:
        for number in range(3):
            recorder.record(fill(number))
        recorder.flush(10.0)
        beat = eventually(lambda: beat if (beat := writer.next_beat()).committed == 3 else None)
    assert beat.progress > first.progress
    assert beat.commit_age_s < 3.0
    assert (beat.stalled, beat.dead_letters) == ("", 0)


def test_an_idle_writer_proves_that_the_database_takes_rows(writer: Writer, database: DatabasePaths) -> None:
    eventually(lambda: max(writer.ages(), default=0.0) > 3.0 and writer.ages()[-1] < 2.0, 15.0, what="an age that falls back")
    assert rows(database, "SELECT count(*) FROM horizon_meta WHERE key = 'probed_at'") == [(1,)]
    assert max(writer.ages()) < 8.0
    assert all(message.committed == 0 for message in writer.hear() if isinstance(message, WriterBeat))


def test_an_idle_writer_whose_database_takes_no_rows_says_so_once_until_it_does_again(
    writer: Writer, database: DatabasePaths
) -> None:
    blocker = apsw.Connection(str(database.database))
    with closing(blocker):
        blocker.execute("BEGIN IMMEDIATE")
        beat = eventually(lambda: beat if (beat := writer.next_beat(30.0)).stalled else None, 40.0)
        assert "lock" in beat.stalled or "busy" in beat.stalled, beat
        assert beat.commit_age_s > 4.0
        blocker.execute("ROLLBACK")
    beat = eventually(lambda: beat if not (beat := writer.next_beat(30.0)).stalled else None, 40.0)
    assert beat.commit_age_s < 5.0
    text = writer.err.read_text()
    assert (text.count("STALLED"), text.count("can be written again")) == (1, 1), text


def test_a_writer_tells_what_it_is_doing_when_it_is_asked(writer: Writer) -> None:
    writer.process.send_signal(signal.SIGUSR2)
    eventually(lambda: "horizon/writer/loop.py" in writer.dump.read_text(), what="a dump")
    writer.next_beat()


def test_a_writer_that_hangs_does_not_outlive_its_supervisor_for_long_by_what_the_kernel_was_told(writer: Writer) -> None:
    """The alarm itself takes a minute; here stands that the signal which sets it is caught."""
    status = Path(f"/proc/{writer.process.pid}/status").read_text()
    caught = int(status.split("SigCgt:", 1)[1].split("\n", 1)[0], 16)
    assert caught >> (signal.SIGRTMAX - 1 - 4) & 0b11111, "one of the signals that stand for 60 to 64 seconds"
