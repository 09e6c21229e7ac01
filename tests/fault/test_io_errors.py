"""A disk that answers with errors, call by call: no ack, no crash, one alarm, and on it goes by itself when the errors end."""

from __future__ import annotations

import errno
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from alarms import Alarms
from eventually import eventually
from road import kill_writer, rows, start_writer
from samples import fill

from horizon.errors import AckTimeout
from horizon.paths import DatabasePaths
from horizon.recorder import Recorder

pytestmark = pytest.mark.compiler

SHIM = Path(__file__).parents[1] / "shim" / "io_errors.c"
JOURNAL_BYTES = 2 << 20
WAL, DATABASE = "trades.db-wal", "trades.db"


class Disk:
    """The rules that the shim in the writer follows."""

    def __init__(self, rules: Path) -> None:
        self._rules = rules

    def fail(self, call: str, number: int, *files: str) -> None:
        """Let every `call` ("sync" or "write") on files whose path ends like this fail; "kill" ends the writer at its N-th write."""
        new = self._rules.with_suffix(".new")
        new.write_text("".join(f"{call} {number} {file}\n" for file in files))
        new.rename(self._rules)  # a process never reads half of them

    def heal(self) -> None:
        self._rules.unlink()

    def refused(self, call: str, file: str) -> int:
        """How many calls have failed by such a rule."""
        refused = Path(f"{self._rules}.refused")
        lines = refused.read_text().splitlines() if refused.exists() else []
        return sum(line.startswith(f"{call} ") and line.endswith(f" {file}") for line in lines)


class Writer:
    """A supervised writer on that disk."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._alarms = Alarms(process)

    def says(self, text: str) -> int:
        return self._alarms.text.count(text)

    def end(self) -> None:
        self.process.terminate()
        assert self.process.wait(20) == 0
        self.close()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._alarms.close()
        print(self._alarms.text)  # shown when the test fails


Start = Callable[..., Writer]


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None:
        pytest.fail("there is no C compiler to build tests/shim/io_errors.c with: apt-get install gcc libc6-dev", pytrace=False)
    library = tmp_path_factory.mktemp("shim") / "io_errors.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(library), str(SHIM), "-ldl"]
    subprocess.run(command, check=True)
    return library


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "rules")


@pytest.fixture
def start(database: DatabasePaths, shim: Path, tmp_path: Path) -> Iterator[Start]:
    """Start a writer whose system calls go through the shim."""
    writers: list[Writer] = []

    def start(durability: str = "power") -> Writer:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("LD_PRELOAD", str(shim))
            environment.setenv("HORIZON_IO_RULES", str(tmp_path / "rules"))
            writers.append(Writer(start_writer(database, "--durability", durability)))
        return writers[-1]

    yield start
    for writer in writers:
        writer.close()


@pytest.mark.parametrize(
    ("durability", "call", "number"),
    [
        ("power", "sync", errno.EIO),
        ("power", "write", errno.EIO),
        ("power", "write", errno.ENOSPC),
        ("process", "write", errno.EIO),
        ("process", "write", errno.ENOSPC),
    ],
)
def test_errors_of_the_disk_stop_the_acks_and_it_goes_on_by_itself(
    database: DatabasePaths, disk: Disk, start: Start, durability: str, call: str, number: int
) -> None:
    # Given a writer at work
    writer = start(durability)
    recorder = _open(database, durability)
    recorder.record(fill(1))
    recorder.flush(10)
    # When the disk fails
    disk.fail(call, number, WAL)
    for one in range(2, 1002):
        recorder.record(fill(one))
    with pytest.raises(AckTimeout):
        recorder.flush(2.0)
    # Then nothing is acknowledged, there was one alarm, and the writer lives and does not hammer the disk
    assert recorder.committed_seq == 1
    assert writer.says("STALLED") == 1
    assert writer.process.poll() is None
    assert 1 <= disk.refused(call, WAL) < 50
    # And when the errors end, it goes on by itself
    disk.heal()
    recorder.flush(30)
    assert rows(database, "SELECT count(*), count(DISTINCT fill_id) FROM fills") == [(1001, 1001)]
    assert rows(database, "SELECT count(*) FROM duplicates") == [(0,)]
    eventually(lambda: writer.says("resumed") == 1, what="the end of the alarm")
    assert writer.says("STALLED") == 1
    recorder.close()
    writer.end()


def test_r21_after_a_failed_sync_nothing_is_acknowledged_before_a_checkpoint_succeeded(
    database: DatabasePaths, disk: Disk, start: Start
) -> None:
    writer = start("power")
    recorder = _open(database, "power")
    recorder.record(fill(1))
    recorder.flush(10)
    # Given a commit whose sync failed: the kernel may have dropped the pages, and a second sync of them would lie
    disk.fail("sync", errno.EIO, WAL)
    recorder.record(fill(2))
    eventually(lambda: writer.says("STALLED"), what="the alarm")
    # When the log can be synced again, and the database, which a checkpoint needs, can not
    disk.fail("sync", errno.EIO, f"/{DATABASE}")
    eventually(lambda: disk.refused("sync", f"/{DATABASE}") >= 2, timeout_s=20, what="tries of a checkpoint")
    # Then nothing is acknowledged
    with pytest.raises(AckTimeout):
        recorder.flush(1.0)
    assert recorder.committed_seq == 1
    # And a checkpoint that succeeds ends it
    disk.heal()
    recorder.flush(30)
    assert rows(database, "SELECT fill_id FROM fills ORDER BY rowid") == [(fill(1).fill_id,), (fill(2).fill_id,)]
    recorder.close()
    writer.end()


def test_a_writer_that_dies_after_a_failed_sync_leaves_nothing_to_be_stored_twice(
    database: DatabasePaths, disk: Disk, start: Start
) -> None:
    start("power")
    recorder = _open(database, "power")
    recorder.record(fill(1))
    recorder.flush(10)
    # Given a commit that lies in the log, and was never acknowledged because its sync failed
    disk.fail("sync", errno.EIO, WAL)
    for one in range(2, 102):
        recorder.record(fill(one))
    with pytest.raises(AckTimeout):
        recorder.flush(0.5)
    # When the writer is killed and the next one finds a healthy disk
    kill_writer(database)
    disk.heal()
    writer = start("power")
    recorder.flush(30)
    # Then every fill is there once
    assert rows(database, "SELECT count(*), count(DISTINCT fill_id) FROM fills") == [(101, 101)]
    assert rows(database, "SELECT count(*) FROM duplicates") == [(0,)]
    recorder.close()
    writer.end()


@pytest.mark.parametrize("call", ["sync", "write"])
def test_a_start_on_a_failing_disk_waits_for_its_cure(database: DatabasePaths, disk: Disk, start: Start, call: str) -> None:
    disk.fail(call, errno.EIO, WAL, DATABASE)
    writer = start("power")
    eventually(lambda: writer.says("STALLED"), what="the alarm")
    assert writer.process.poll() is None
    disk.heal()
    recorder = _open(database, "power")
    recorder.record(fill(1))
    recorder.flush(20)
    assert writer.says("STALLED") == 1
    recorder.close()
    writer.end()


@pytest.mark.parametrize(
    ("durability", "call", "number"),
    [
        ("process", "write", errno.EIO),
        ("process", "write", errno.ENOSPC),
        ("process", "sync", errno.EIO),
        ("power", "sync", errno.EIO),
    ],
)
def test_errors_of_a_checkpoint_beside_the_commits_stop_the_acks_and_it_goes_on_by_itself(
    database: DatabasePaths, disk: Disk, start: Start, durability: str, call: str, number: int
) -> None:
    """R20, R21: the log takes everything, and only the database, which a checkpoint writes, can not be written."""
    # Given a writer at work
    writer = start(durability)
    recorder = _open(database, durability)
    recorder.record(fill(1))
    recorder.flush(10)
    # When checkpoints fail, under a load that needs them
    disk.fail(call, number, f"/{DATABASE}")
    recorded = 1
    while not writer.says("STALLED"):
        _record(recorder, recorded + 1, recorded + 1000)
        recorded += 1000
        with suppress(AckTimeout):
            recorder.flush(1.0)
        assert recorded < 1_000_000
    # Then nothing is acknowledged, there was one alarm, and the writer lives and does not hammer the disk
    acked = recorder.committed_seq
    recorder.record(fill(recorded + 1))
    with pytest.raises(AckTimeout):
        recorder.flush(1.0)
    assert recorder.committed_seq == acked
    assert writer.says("STALLED") == 1
    assert writer.process.poll() is None
    assert 1 <= disk.refused(call, f"/{DATABASE}") < 50
    # And when the errors end, it goes on by itself
    disk.heal()
    recorder.flush(30)
    assert rows(database, "SELECT count(*), count(DISTINCT fill_id) FROM fills") == [(recorded + 1, recorded + 1)]
    assert rows(database, "SELECT count(*) FROM duplicates") == [(0,)]
    eventually(lambda: writer.says("resumed") == 1, what="the end of the alarm")
    recorder.close()
    writer.end()


@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_kill_in_the_middle_of_a_checkpoint_beside_the_commits_loses_nothing(
    database: DatabasePaths, disk: Disk, start: Start, durability: str
) -> None:
    # Given a writer that dies when a checkpoint has moved a hundred pages of some thousand
    writer = start(durability)
    recorder = _open(database, durability)
    disk.fail("kill", 100, f"/{DATABASE}")
    recorded = 0
    while writer.process.poll() is None:
        _record(recorder, recorded + 1, recorded + 1000)
        recorded += 1000
        with suppress(AckTimeout):
            recorder.flush(1.0)
        assert recorded < 1_000_000
    assert writer.process.returncode == -signal.SIGKILL
    assert disk.refused("kill", f"/{DATABASE}") == 1
    # Then the database is whole, and what was acknowledged is in it
    assert rows(database, "PRAGMA integrity_check") == [("ok",)]
    assert rows(database, "SELECT count(*) FROM fills")[0][0] >= recorder.committed_seq
    # And the next writer stores the rest, once
    disk.heal()
    start(durability)
    recorder.flush(30)
    assert rows(database, "SELECT count(*), count(DISTINCT fill_id) FROM fills") == [(recorded, recorded)]
    assert rows(database, "SELECT count(*) FROM duplicates") == [(0,)]
    recorder.close()


def _record(recorder: Recorder, first: int, last: int) -> None:
    recorder.begin_cycle()
    for number in range(first, last + 1):
        recorder.record(fill(number))
    recorder.ship()


def _open(database: DatabasePaths, durability: str) -> Recorder:
    return Recorder.open(database, "maker", durability=durability, may_start_writer=False, journal_bytes=JOURNAL_BYTES)
