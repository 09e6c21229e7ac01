"""Copies of a database: made while trading goes on, checked before they are believed, and put back.

A copy is what a database is: NAME and, where there are dead letters, NAME.d/dlq.db. The trading database is copied first and dlq.db
next, so the copy has at least the letters that its cursors count (R27). The source's read transaction stays open over all steps:
SQLite would begin the copy again at every commit of the writer otherwise, and never come to an end. Until it is over the WAL grows.

A copy has its final name only when it is whole. It is in rollback mode: one file, which needs no -wal beside it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import apsw

from horizon.clock import SYSTEM_CLOCK, Clock
from horizon.errors import ConfigError, StoreError
from horizon.locks import FileLock, is_free
from horizon.paths import DatabasePaths, sync_folder
from horizon.store.check import Report, check
from horizon.store.connection import BUSY_TIMEOUT_MS, open_reader
from horizon.store.journals import Left, committed_seqs, left_in
from horizon.store.place import refuse_unfit_place
from horizon.store.sql import QUERIES
from horizon.store.translate import translated

_PAGES_A_STEP = 4096
_POLL_S = 0.02


class Backup(NamedTuple):
    """A copy, what is wrong with it, and what was recorded before it began and is not in it."""

    path: str
    size_bytes: int
    report: Report
    not_in_it: list[str]


class Restoration(NamedTuple):
    """What a restore did. `consequences`: what becomes of the journals that lie beside the database (R13)."""

    database: str
    kept: list[str]  # the files that were there before, under their new names
    consequences: list[str]
    runs_taken_back: int
    records_taken_back: int


class TakenBack(NamedTuple):
    """What a database has and an older backup of it lacks."""

    runs: int  # of which the backup knows nothing
    records: int  # of these and of runs that went on


def back_up(paths: DatabasePaths, target: Path, drain_timeout_s: float = 10.0, clock: Clock = SYSTEM_CLOCK) -> Backup:
    """Copy a database to a file, or into a folder under a dated name, and check the copy.

    Waits until a running writer has committed what was recorded before. Raises: ConfigError when the target is there already, StoreError.
    """
    if target.is_dir():
        target = target / f"{paths.database.stem}-{_moment(clock)}{paths.database.suffix}"
    copy = DatabasePaths.of(target)
    if copy.database.exists() or copy.dead_letters.exists():
        raise ConfigError(f"{copy.database if copy.database.exists() else copy.dead_letters} exists already: name another file")
    recorded = left_in(paths, committed_seqs(paths))
    if not is_free(paths.writer_lock):
        _wait_until_committed(paths, recorded, drain_timeout_s)
    with translated(copy.database):
        _copy(paths.database, copy.database, copy.database)
        if paths.dead_letters.exists():
            copy.folder.mkdir(mode=0o700, exist_ok=True)
            _copy(paths.dead_letters, copy.dead_letters, copy.dead_letters)
        size = copy.database.stat().st_size
    not_in_it = _missing_in(recorded, committed_seqs(copy))
    return Backup(str(copy.database), size, check(copy), not_in_it)


def consequences(source: Path, paths: DatabasePaths) -> list[str]:
    """What the journals beside a database will mean to a backup that is put there: what is lost, and what the writer makes of it."""
    backup = DatabasePaths.of(source)
    found = []
    for left in left_in(paths, committed_seqs(backup)):
        if left.about is None:
            found.append(f"{left.problem}: it cannot be read, and the writer leaves it alone")
        elif left.about.database_id != _database_id(source):
            found.append(
                f"{left.path} belongs to another database than the backup: the writer leaves it alone, nothing of it is stored"
            )
        elif left.missing is not None:
            first, last = left.missing
            found.append(
                f"the backup is older than {left.path}: records {first} to {last} of run {left.about.run_id} of {left.about.strategy} "
                "are in neither. The writer will write them down as a gap, and the strategy may not order until "
                f"`horizon journal accept-gap {left.about.run_id} --reason WHY`"
            )
    return found


def taken_back(source: Path, paths: DatabasePaths) -> TakenBack:
    """What a restore takes back: nothing where the database is another one than the backup's, or tells nobody what it has."""
    try:
        if not paths.database.exists() or _database_id(source) != _database_id(paths.database):
            return TakenBack(0, 0)
        present = committed_seqs(paths)
    except StoreError:
        return TakenBack(0, 0)
    backup = committed_seqs(DatabasePaths.of(source))
    records = sum(max(0, seq - backup.get(run_id, 0)) for run_id, seq in present.items())
    return TakenBack(len(present.keys() - backup.keys()), records)


def restore(source: Path, paths: DatabasePaths, clock: Clock = SYSTEM_CLOCK) -> Restoration:
    """Put a backup in the place of a database and keep what was there under a dated name.

    Raises: StoreError while a writer or a strategy uses the database, with nothing changed.
    """
    told = consequences(source, paths)
    moment = _moment(clock)
    with translated(paths.database):
        whole = paths.database.with_name(f"{paths.database.name}.restored")
        refuse_unfit_place(whole)  # not the database itself: a restore that was killed may have left it with two names
        paths.folder.mkdir(mode=0o700, exist_ok=True)
        lock = FileLock(paths.writer_lock)
        # Held until the end: no writer can start on half a database.
        if not lock.take(f"pid={os.getpid()} kind=restore database={paths.database}"):
            raise StoreError(f"a writer owns {paths.database} ({lock.hint()}): stop the supervisor and every strategy first")
        try:
            _refuse_living(paths)
            back = taken_back(source, paths)
            keeps_letters = not paths.database.exists() or _is_same_database(source, paths.database)
            _copy(source, paths.database, whole, rename=False)
            kept = _set_aside(paths.database, moment)
            whole.rename(paths.database)
            kept += _restore_letters(DatabasePaths.of(source).dead_letters, paths.dead_letters, moment, keeps_letters)
            sync_folder(paths.database.parent)
        finally:
            lock.release()
    return Restoration(str(paths.database), kept, told, back.runs, back.records)


def _wait_until_committed(paths: DatabasePaths, recorded: list[Left], timeout_s: float) -> None:
    until = time.monotonic() + timeout_s
    while _missing_in(recorded, committed_seqs(paths)) and time.monotonic() < until:
        time.sleep(_POLL_S)


def _missing_in(recorded: list[Left], cursors: Mapping[str, int]) -> list[str]:
    """What journals had before a moment, and a database has not."""
    missing = []
    for left in recorded:
        if left.about is None:
            missing.append(f"{left.problem}: what it holds is not in the backup")
            continue
        count = left.last_seq - cursors.get(left.about.run_id, 0)
        if count > 0:
            missing.append(f"{count} records of run {left.about.run_id} of {left.about.strategy}, in {left.path}")
    return missing


def _copy(source: Path, named: Path, target: Path, rename: bool = True) -> None:
    """Copy a database, whatever it holds, to a file that has its name only when it is whole."""
    partial = target.with_name(target.name + ".partial") if rename else target
    partial.unlink(missing_ok=True)
    try:
        with closing(_reader(source)) as origin, closing(apsw.Connection(str(partial))) as copy:
            origin.execute("BEGIN")
            origin.execute(QUERIES["table_names"]).fetchall()  # a transaction begins with its first read
            with copy.backup("main", origin, "main") as backup:
                while not backup.done:
                    backup.step(_PAGES_A_STEP)
            copy.pragma("journal_mode", "delete")
    except BaseException:
        partial.unlink(missing_ok=True)  # half a copy on a full disk helps nobody
        raise
    if rename:
        partial.rename(named)
        sync_folder(named.parent)


def _reader(path: Path) -> apsw.Connection:
    if not path.is_file():
        raise StoreError(f"there is no database at {path}")
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    return connection


def _refuse_living(paths: DatabasePaths) -> None:
    """A run that waits for a writer would trade on with what the backup does not know."""
    for lock in (paths.supervisor_lock, *sorted(paths.folder.glob("strategy-*.lock"))):
        if not is_free(lock):
            raise StoreError(f"{paths.database} is in use ({FileLock(lock).hint() or lock.name}): stop it first")


def _is_same_database(source: Path, target: Path) -> bool:
    """Whether a backup is one of this database; a target that cannot be read may be."""
    try:
        return _database_id(source) == _database_id(target)
    except StoreError:
        return True


def _database_id(path: Path) -> str | None:
    with closing(open_reader(path)) as connection, translated(path):
        if connection.pragma("user_version") == 0:
            return None
        return str(connection.execute(QUERIES["meta"], {"key": "database_id"}).get)


def _set_aside(database: Path, moment: str) -> list[str]:
    """Keep a database with its WAL under a dated name, so that nothing of it is left beside the new one.

    Linked first and taken away next: killed in between, the file has two names, and no writer takes it for whole (R12). A -wal that
    stayed would be applied to the new database and destroy it.
    """
    kept = []
    aside = database.with_name(f"{database.name}.before-restore-{moment}")
    for suffix in ("", "-wal"):
        old = database.with_name(database.name + suffix)
        if old.exists():
            new = aside.with_name(aside.name + suffix)
            new.hardlink_to(old)
            kept.append(str(new))
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    return kept


def _restore_letters(source: Path, target: Path, moment: str, keeps_letters: bool) -> list[str]:
    """The letters that lie here are as new as those of the backup, or newer: they stay, unless they are of another database."""
    if target.exists() and keeps_letters:
        return []
    kept = _set_aside(target, moment)
    if source.exists():
        _copy(source, target, target)
    else:
        target.unlink(missing_ok=True)
    return kept


def _moment(clock: Clock) -> str:
    return datetime.fromtimestamp(clock.now(), UTC).strftime("%Y%m%dT%H%M%SZ")
