"""Checkpoints beside the commits: a thread of the writer moves what is committed from the WAL into the database.

SQLite's own way does that inside the COMMIT with which the WAL reaches 1,000 pages: every 4 MB one commit, and whoever waits for it,
waits for the copying and for two syncs. Here a second connection does it while the first goes on, woken for every 1,000 pages: an idle
database costs nothing, a busy one is checkpointed all the time. Only with SQLite 3.51.3 or newer: before, two connections that write
and checkpoint at once can lose committed pages. With an older one SQLite's own way stays.

Why the writer does the last bit itself: a WAL is used from its beginning again when all of it has been moved at the moment of a
commit, and a thread beside a writer that never pauses is always some pages late. So when the WAL has reached its bound the thread moves
what it can, syncs the database, moves what came meanwhile, and hands over. The writer moves the rest between two transactions: about
1 ms, whatever the bound. Without that sync beforehand the writer would wait for it, 30 ms under full load.

Each takes its turn: the writer wakes the thread only when it rests, and checkpoints only while it rests.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

import apsw

from horizon.errors import StoreStalled
from horizon.failpoints import ACTIVE, reach
from horizon.store.connection import connect
from horizon.store.translate import translated

log = logging.getLogger(__name__)

_BOTH_MAY_WRITE_SINCE = (3, 51, 3)
_PAGE_BYTES = 4096  # of every database that SQLite has made since 2016; with others the sizes below are others
PAGES_A_PASS = 1000  # as many as SQLite's own way moves at once
BOUND_PAGES = (64 << 20) // _PAGE_BYTES  # 16 MiB made the writer's part four times as frequent and no shorter
_HELD_PAGES = 2 * BOUND_PAGES  # a WAL of this size is one that somebody keeps from beginning anew
_MOVED_AT = 96  # in the -shm file: nBackfill, how many pages have been moved (SQLite's "WAL-mode File Format", section 2.2)
_CATCH_UPS = 5  # passes in a row before the writer takes over what is left
_TURN_MAX_S = 5.0  # how long the writer waits for the thread when it closes or has to checkpoint itself


def may_run_beside() -> bool:
    """Whether two connections may write and checkpoint at once with the SQLite at hand."""
    return tuple(map(int, apsw.sqlite_lib_version().split("."))) >= _BOTH_MAY_WRITE_SINCE


def beside(writer: apsw.Connection, path: Path, is_ours: Callable[[], bool]) -> Checkpoints | None:
    """Take the checkpoints of `writer` over from SQLite; None leaves them to it.

    `is_ours` says whether the files at `path` are the ones that the writer has open (R12). Raises: what SQLite raises; StoreStalled.
    """
    return Checkpoints(writer, path, is_ours) if may_run_beside() else None


class Checkpoints:
    """The thread and its connection. The methods are for the thread of the writer, between two transactions."""

    def __init__(self, writer: apsw.Connection, path: Path, is_ours: Callable[[], bool]) -> None:
        self._writer = writer
        self._path = path
        self._is_ours = is_ours
        self._in_wal = 0  # pages, as of the newest commit
        self._tried = 0  # of these: how many there were when moving them was last tried
        self._is_almost_done = False  # the rest is for the writer
        self._is_kept = False  # a reader needs pages that the newest pass wanted to move
        self._is_held = False  # told that the WAL cannot begin anew
        self._woken_at = float("inf")  # monotonic seconds; infinity: told that this pass hangs
        self._failure: Exception | None = None
        self._passes: SimpleQueue[bool] = SimpleQueue()  # False: the end
        self._rests = threading.Event()
        self._rests.set()
        # What a reader made grow is given back. Above the bound, or each round would cut the file and let it grow again.
        writer.pragma("journal_size_limit", _HELD_PAGES * _PAGE_BYTES)
        writer.set_wal_hook(self._note_commit)  # instead of SQLite's own way, which is such a hook too
        # `power` whatever the writer's: it costs nothing here, because a checkpoint syncs the same way at both levels.
        self._connection = connect(path, "power")
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # a limit of the host: time may cure it (R20)
            self._connection.close()
            raise StoreStalled(f"{path}: no thread can be started for its checkpoints ({error}); it is tried again") from error

    def tend(self) -> None:
        """Wake the thread or do the last bit for it, when it is time. Raises: StoreStalled, StoreError, also for what the thread met."""
        if not self._rests.is_set():
            self._tell_hang()
            return
        self._raise_failure()
        if self._is_almost_done:
            self._is_almost_done = False
            with translated(self._path):
                self._move(self._writer)
            self._tried = self._in_wal
        if self._tried > self._in_wal:  # the WAL has begun anew
            self._tried = 0
        if self._in_wal - self._tried >= PAGES_A_PASS:
            self._tell_size()
            self._woken_at = time.monotonic()
            self._rests.clear()
            self._passes.put(True)

    def finish(self) -> None:
        """Move all that can be moved now, after the thread's turn. Raises: StoreStalled, StoreError, also for what the thread met."""
        if not self._rests.wait(_TURN_MAX_S):
            raise StoreStalled(f"a checkpoint of {self._path} has not come to an end for {_TURN_MAX_S:g} s")
        self._raise_failure()
        with translated(self._path):
            self._move(self._writer)

    def close(self) -> None:
        """End the thread. One that hangs in a sync is left behind; until it ends, no other checkpoint succeeds."""
        self._in_wal = self._tried = 0  # whatever is asked after this wakes nobody
        self._passes.put(False)
        self._thread.join(_TURN_MAX_S)
        if self._thread.is_alive():
            log.warning(
                "a checkpoint of %s has not come to an end for %g s and is left behind", self._path, _TURN_MAX_S,
                extra={"action": "checkpoint_hangs"},
            )  # fmt: skip

    def _note_commit(self, _connection: apsw.Connection, _name: str, in_wal: int) -> int:
        """SQLite calls this after each commit; an exception from here would make a commit look failed."""
        self._in_wal = in_wal
        return apsw.SQLITE_OK

    def _raise_failure(self) -> None:
        if self._failure is not None:
            with translated(self._path):
                raise self._failure

    def _tell_hang(self) -> None:
        if time.monotonic() - self._woken_at > _TURN_MAX_S:
            self._woken_at = float("inf")
            log.error(
                "a checkpoint of %s has not come to an end for %g s: its disk hangs. Commits go on, and the WAL grows (%d MiB)",
                self._path, _TURN_MAX_S, self._in_wal * _PAGE_BYTES >> 20,
                extra={"action": "checkpoint_hangs"},
            )  # fmt: skip

    def _tell_size(self) -> None:
        """Say once that the WAL grows beyond its bound because of a reader, and once that it no longer does (R28)."""
        if self._in_wal >= _HELD_PAGES and self._is_kept and not self._is_held:
            self._is_held = True
            readers = ", ".join(f"pid {pid}" for pid in _readers(self._path)) or "it cannot be told which"
            log.warning(
                "the WAL of %s has passed %d MiB and grows on, because a program (%s) reads the database in one transaction that does "
                "not end: end it; commits go on, but the disk fills up",
                self._path, _HELD_PAGES * _PAGE_BYTES >> 20, readers,
                extra={"action": "wal_held"},
            )  # fmt: skip
        elif self._in_wal < BOUND_PAGES and self._is_held:
            self._is_held = False
            log.warning("the WAL of %s has begun anew and is within its bound", self._path, extra={"action": "wal_released"})

    # ---- the thread

    def _run(self) -> None:
        try:
            while self._passes.get():
                self._catch_up()
                self._rests.set()
        except Exception as failure:  # the writer raises it; a reopened store begins with another thread
            self._failure = failure
        finally:
            self._rests.set()
            self._connection.close()

    def _catch_up(self) -> None:
        """One pass; and near the bound as many as it takes until what is left is short."""
        in_wal, moved = self._pass()
        self._is_kept = moved < in_wal
        if in_wal < BOUND_PAGES or self._is_kept:
            return
        for _ in range(_CATCH_UPS):
            before = moved
            self._sync_database()
            in_wal, moved = self._pass()
            if moved - before <= PAGES_A_PASS:
                break
        self._is_almost_done = 0 < moved == in_wal

    def _pass(self) -> tuple[int, int]:
        """Move what is committed now, as far as readers allow. Returns the pages in the WAL and how many of them have been moved."""
        self._tried = self._in_wal
        if not self._is_ours():
            return 0, 0  # nothing is written to files that were replaced; the writer finds that out before its next commit
        if ACTIVE:
            reach("writer.checkpointing_beside")
        return self._move(self._connection)

    def _sync_database(self) -> None:
        """SQLite syncs the database only in a pass that has moved everything, which is the writer's: do it here, where nobody waits."""
        descriptor = _descriptor(self._path)
        if descriptor is not None:
            try:
                os.fdatasync(descriptor)
            except OSError:
                self._have_all_moved_again()
                raise

    # ---- both

    def _move(self, connection: apsw.Connection) -> tuple[int, int]:
        """Returns the pages in the WAL and how many of them have been moved; of nothing when somebody else checkpoints."""
        try:
            return connection.wal_checkpoint()
        except apsw.BusyError:
            return 0, 0
        except apsw.Error:
            self._have_all_moved_again()
            raise

    def _have_all_moved_again(self) -> None:
        """Let SQLite take nothing for moved, as after a crash (R21).

        It counts pages as moved before the database is synced. When that sync fails, Linux may have dropped them, and says so only
        once: the next sync succeeds, and the WAL, which alone has the pages, would be written over.
        """
        descriptor = _descriptor(self._path.with_name(f"{self._path.name}-shm"))
        if descriptor is not None:
            os.pwrite(descriptor, bytes(4), _MOVED_AT)


def _descriptor(path: Path) -> int | None:
    """SQLite's own one of a file: another one, once it is closed, would drop its locks (R11)."""
    with suppress(FileNotFoundError):
        named = path.stat()
        for link in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                if os.path.samestat(link.stat(), named):
                    return int(link.name)
    return None


def _readers(path: Path) -> list[int]:
    """The processes that hold a transaction which reads the database, as far as the kernel tells."""
    first, last = 123, 127  # the bytes of the -shm file that readers lock (SQLite's WAL format, section "WAL locks")
    found = set()
    with suppress(OSError):
        status = path.with_name(f"{path.name}-shm").stat()
        file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if len(words) == 8 and words[5] == file and first <= int(words[6]) <= last:
                found.add(int(words[4]))
    return sorted(found - {0, os.getpid()})
