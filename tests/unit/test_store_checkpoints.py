"""Checkpoints beside the commits: the WAL begins anew under a writer that never pauses, and what happens there is heard of."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import cast

import apsw
import pytest
from eventually import eventually
from store_case import Run, fill, rows

from horizon.errors import StoreError, StoreStalled
from horizon.paths import DatabasePaths
from horizon.store import checkpoints
from horizon.store.append import Store
from horizon.store.checkpoints import Checkpoints

PAGE = 4096
BOUND, PASS = 200, 40  # pages: small, so that a test passes the bound in a moment
HELD = 2 * BOUND

READER = """
import sys, apsw
connection = apsw.Connection(sys.argv[1], flags=apsw.SQLITE_OPEN_READONLY)
connection.execute("BEGIN")
print(connection.execute("SELECT count(*) FROM fills").get, flush=True)
sys.stdin.read()
"""

IDLER = """
import sys, apsw
connection = apsw.Connection(sys.argv[1], flags=apsw.SQLITE_OPEN_READONLY)
print(connection.execute("SELECT count(*) FROM fills").get, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "PAGES_A_PASS", PASS)
    monkeypatch.setattr(checkpoints, "BOUND_PAGES", BOUND)
    monkeypatch.setattr(checkpoints, "_HELD_PAGES", HELD)


@pytest.fixture
def busy(small_bounds: None, paths: DatabasePaths) -> Iterator[Busy]:
    store = Store(paths)
    yield Busy(store)
    store.close()


class Busy:
    """A store that somebody appends to without a pause."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.run = Run()

    @property
    def beside(self) -> Checkpoints:
        assert self.store._checkpoints is not None
        return self.store._checkpoints

    def append(self) -> bool:
        """One more batch; whether the WAL has begun anew for it."""
        before = self.beside._in_wal
        self.store.append(self.run.entries(*(fill(f"f-{self.run.seq + number}") for number in range(1, 21))))
        return self.beside._in_wal < before

    def goes_on_until(self, probe: Callable[[], object]) -> None:
        def goes_on() -> object:
            self.append()
            return probe()

        eventually(goes_on, 30, interval_s=0)

    def goes_on_until_the_wal_begins_anew(self) -> None:
        eventually(self.append, 30, interval_s=0, what="a WAL that begins anew")

    def goes_on_until_the_wal_has(self, pages: int) -> None:
        while self.beside._in_wal < pages:
            self.append()

    def goes_on_until_it_fails(self, begun_anew: Callable[[], object] = lambda: None) -> StoreError:
        """What it fails with; what was not stored is not counted."""
        for _ in range(1000):
            stored = self.run.seq
            try:
                if self.append():
                    begun_anew()
            except StoreError as error:
                self.run.seq = stored
                return error
        raise AssertionError("nothing has failed")


class Disk:
    """What of a database has certainly been synced, and what Linux may drop when a sync fails."""

    def __init__(self, paths: DatabasePaths) -> None:
        # SQLite's own descriptors: to close another one would drop its locks.
        database, index = checkpoints._descriptor(paths.database), checkpoints._descriptor(paths.database.with_name("x.db-shm"))
        assert database is not None
        assert index is not None
        self._database, self._index = database, index
        self.dropped = False
        self.is_synced()

    def is_synced(self) -> None:
        """To be said when a WAL has just begun anew: all that came before was moved and synced."""
        self._synced = os.pread(self._database, 1 << 26, 0)
        self._salts = os.pread(self._index, 8, 32)

    def has_unsynced_pages(self) -> bool:
        """Not when all of the WAL has been moved: then SQLite has synced, and the WAL begins anew or has begun anew just now."""
        in_wal, moved = (int.from_bytes(os.pread(self._index, 4, place), sys.byteorder) for place in (16, 96))
        return moved < in_wal and os.pread(self._index, 8, 32) == self._salts

    def drop(self) -> None:
        self.dropped = True
        grown = os.fstat(self._database).st_size - len(self._synced)
        os.pwrite(self._database, self._synced + bytes(grown), 0)


def wal_bytes(paths: DatabasePaths) -> int:
    return paths.database.with_name("x.db-wal").stat().st_size


def told(caplog: pytest.LogCaptureFixture, action: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if getattr(record, "action", "") == action]


# ---- the WAL stays small


def test_the_wal_begins_anew_again_and_again_under_a_writer_that_never_pauses(busy: Busy, paths: DatabasePaths) -> None:
    for _ in range(4):
        busy.goes_on_until_the_wal_begins_anew()
        assert wal_bytes(paths) <= (HELD + 100) * (PAGE + 24)
    assert rows(paths.database, "SELECT count(*) FROM fills") == [(busy.run.seq,)]
    assert rows(paths.database, "PRAGMA integrity_check") == [("ok",)]


def test_a_pass_moves_what_is_committed_without_the_writer(busy: Busy, paths: DatabasePaths) -> None:
    size = paths.database.stat().st_size
    busy.goes_on_until_the_wal_has(3 * PASS)
    eventually(lambda: paths.database.stat().st_size > size)


def test_an_idle_database_wakes_nobody(busy: Busy) -> None:
    def has_caught_up() -> bool:
        busy.store.tend()
        return busy.beside._rests.is_set() and busy.beside._in_wal - busy.beside._tried < PASS

    busy.goes_on_until_the_wal_has(3 * PASS)
    eventually(has_caught_up)
    for _ in range(100):
        busy.store.tend()
        assert busy.beside._rests.is_set()
    assert busy.beside._passes.empty()


@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_checkpoint_beside_the_commits_syncs_at_both_levels(small_bounds: None, paths: DatabasePaths, durability: str) -> None:
    """R21: it syncs the WAL before it moves a page of it."""
    store = Store(paths, durability)
    assert store._checkpoints is not None
    assert store._checkpoints._connection.pragma("synchronous") == 2
    store.close()


# ---- a reader


def test_a_reader_that_keeps_its_snapshot_holds_up_no_commit_and_is_told_once_by_its_pid(
    busy: Busy, paths: DatabasePaths, caplog: pytest.LogCaptureFixture
) -> None:
    """R28."""
    caplog.set_level(logging.INFO)
    busy.append()
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(paths.database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == "20\n"
    # When commits go on, far beyond the bound
    busy.goes_on_until(lambda: told(caplog, "wal_held"))
    busy.goes_on_until_the_wal_has(busy.beside._in_wal + 5 * PASS)
    # Then that is told once, with what to do
    assert len(told(caplog, "wal_held")) == 1
    assert f"because a program (pid {reader.pid}) reads the database in one transaction that does not end: end it" in caplog.text
    # And when the reader ends, the WAL begins anew and gives its room back to the disk
    reader.communicate()
    busy.goes_on_until_the_wal_begins_anew()
    assert wal_bytes(paths) <= HELD * PAGE
    busy.goes_on_until(lambda: told(caplog, "wal_released"))
    assert len(told(caplog, "wal_released")) == 1


# ---- what goes wrong beside the commits


@pytest.mark.parametrize("error", [apsw.IOError("disk I/O error"), apsw.FullError("full"), OSError(errno.EIO, "a failed sync")])
def test_what_time_can_cure_stalls_the_store_until_it_is_reopened(
    busy: Busy, paths: DatabasePaths, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """R20, R21."""
    with monkeypatch.context() as broken:
        broken.setattr(Checkpoints, "_pass", _raise(error))
        assert isinstance(busy.goes_on_until_it_fails(), StoreStalled)
    committed = busy.run.seq
    for _ in range(2):
        assert isinstance(busy.goes_on_until_it_fails(), StoreStalled)
        with pytest.raises(StoreStalled):
            busy.store.probe()
    assert rows(paths.database, "SELECT count(*) FROM fills") == [(committed,)]
    busy.store.reopen()
    assert busy.store.cursor("run-1") == committed
    busy.goes_on_until_the_wal_begins_anew()
    assert rows(paths.database, "SELECT count(*) FROM fills") == [(busy.run.seq,)]


@pytest.mark.parametrize("by_whom", ["thread", "writer"])
@pytest.mark.parametrize("is_open_elsewhere", [False, True])
def test_what_a_failed_sync_may_have_dropped_is_moved_again(
    busy: Busy, paths: DatabasePaths, monkeypatch: pytest.MonkeyPatch, by_whom: str, is_open_elsewhere: bool
) -> None:
    """R21: as Linux does it, the pages that could not be written are gone from memory too, and the next sync succeeds."""
    busy.goes_on_until_the_wal_begins_anew()
    busy.store.checkpoint()
    disk = Disk(paths)
    writer = busy.beside._writer

    def fail_once(descriptor: int) -> None:
        if disk.has_unsynced_pages() and not disk.dropped:
            disk.drop()
            raise OSError(errno.EIO, "Input/output error")

    class FailingOnce:
        def wal_checkpoint(self) -> tuple[int, int]:
            if not disk.has_unsynced_pages() or disk.dropped:
                return writer.wal_checkpoint()
            disk.drop()
            raise apsw.IOError("disk I/O error")

    with ExitStack() as programs:
        if is_open_elsewhere:
            command = [sys.executable, "-c", IDLER, str(paths.database)]
            idler = programs.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            assert idler.stdin is not None
            programs.callback(idler.stdin.close)
            assert idler.stdout is not None
            assert idler.stdout.readline()
        if by_whom == "thread":
            monkeypatch.setattr(os, "fdatasync", fail_once)
        else:
            busy.beside._writer = cast(apsw.Connection, FailingOnce())
        assert isinstance(busy.goes_on_until_it_fails(begun_anew=disk.is_synced), StoreStalled)
        assert disk.dropped
        busy.store.reopen()
        busy.goes_on_until_the_wal_begins_anew()
        busy.store.close()
    assert rows(paths.database, "PRAGMA integrity_check") == [("ok",)]
    assert rows(paths.database, "SELECT count(*), count(DISTINCT seq) FROM fills") == [(busy.run.seq, busy.run.seq)]


def test_a_damaged_database_found_beside_the_commits_is_for_a_person(busy: Busy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checkpoints, "_pass", _raise(apsw.CorruptError("database disk image is malformed")))
    error = busy.goes_on_until_it_fails()
    assert type(error) is StoreError
    assert "is damaged" in str(error)


def test_a_checkpoint_of_another_program_is_no_error(busy: Busy, paths: DatabasePaths) -> None:
    other = apsw.Connection(str(paths.database))
    for _ in range(20):
        busy.append()
        with suppress(apsw.BusyError):
            other.wal_checkpoint()
    other.close()
    busy.goes_on_until_the_wal_begins_anew()


def test_nothing_is_moved_into_a_file_that_is_no_longer_the_one_that_was_opened(busy: Busy, paths: DatabasePaths) -> None:
    """R12."""
    busy.append()
    aside = paths.database.with_name("aside")
    paths.database.rename(aside)
    paths.database.write_bytes(b"another file")
    before = aside.stat().st_mtime_ns
    busy.goes_on_until_the_wal_has(3 * PASS)
    eventually(busy.beside._rests.is_set)
    assert aside.stat().st_mtime_ns == before
    assert paths.database.read_bytes() == b"another file"
    aside.replace(paths.database)
    busy.goes_on_until_the_wal_begins_anew()


def test_a_pass_that_hangs_keeps_the_last_checkpoint_waiting_and_not_for_ever(
    busy: Busy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cured = threading.Event()
    monkeypatch.setattr(checkpoints, "_TURN_MAX_S", 0.05)
    monkeypatch.setattr(Checkpoints, "_pass", lambda _: (cured.wait(), (0, 0))[1])
    busy.goes_on_until_the_wal_has(3 * PASS)
    thread = busy.beside._thread
    assert not busy.beside._rests.is_set()
    with pytest.raises(StoreStalled, match="has not come to an end"):
        busy.store.checkpoint()
    busy.store.close()
    assert len(told(caplog, "checkpoint_hangs")) == 1
    cured.set()
    thread.join(10)
    assert not thread.is_alive()


# ---- begin and end


def test_a_store_that_is_closed_leaves_no_thread_and_no_wal(busy: Busy, paths: DatabasePaths) -> None:
    busy.goes_on_until_the_wal_has(3 * PASS)
    thread = busy.beside._thread
    busy.store.checkpoint()
    busy.store.close()
    assert not thread.is_alive()
    assert not paths.database.with_name("x.db-wal").exists()
    assert rows(paths.database, "SELECT count(*) FROM fills") == [(busy.run.seq,)]


@pytest.mark.parametrize(("version", "may"), [("3.51.2", False), ("3.51.3", True), ("3.46.1", False), ("3.100.0", True)])
def test_only_a_library_without_the_fault_of_two_connections_may_do_it(
    monkeypatch: pytest.MonkeyPatch, version: str, may: bool
) -> None:
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: version)
    assert checkpoints.may_run_beside() is may


def test_with_an_older_library_sqlite_checkpoints_in_its_own_way(paths: DatabasePaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.2")
    store, run = Store(paths), Run()
    assert store._checkpoints is None
    size = paths.database.stat().st_size
    while paths.database.stat().st_size == size:
        store.append(run.entries(*(fill(f"f-{run.seq + number}") for number in range(1, 201))))
        assert wal_bytes(paths) < 1200 * PAGE
    store.reopen()
    assert store.cursor("run-1") == run.seq
    store.close()
    assert rows(paths.database, "SELECT count(*) FROM fills") == [(run.seq,)]


def _raise(error: Exception) -> object:
    def fail(_: Checkpoints) -> tuple[int, int]:
        raise error

    return fail
