"""What lies in the folder of journals, as somebody sees who may only read: whose each is, whether its run lives, what is not stored."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from horizon.errors import JournalCorrupt
from horizon.journal import About, JournalReader
from horizon.locks import is_free
from horizon.paths import DatabasePaths
from horizon.store.connection import open_reader
from horizon.store.sql import CHECKS
from horizon.store.translate import reading


class Left(NamedTuple):
    """One journal at one moment."""

    path: Path
    problem: str | None  # why it cannot be read at all
    about: About | None = None
    is_dead: bool = False  # its strategy's lock is free: no process records into it
    is_locked: bool = False  # neither: somebody deleted the lock file, and nobody can tell
    first_seq: int | None = None  # of the first record behind committed_seq that can be read; None: there is none
    last_seq: int = 0
    committed_seq: int = 0
    used_bytes: int = 0
    capacity: int = 0

    @property
    def unacked(self) -> int:
        """Records that are not in the database."""
        return max(0, self.last_seq - self.committed_seq)

    @property
    def missing(self) -> tuple[int, int] | None:
        """The seqs that neither the database nor the journal has (R13)."""
        first = self.last_seq + 1 if self.first_seq is None else self.first_seq
        return (self.committed_seq + 1, first - 1) if first > self.committed_seq + 1 else None


def committed_seqs(paths: DatabasePaths) -> dict[str, int]:
    """How far each run is committed; nothing when there is no database that could say. Raises: StoreError."""
    if not paths.database.exists():
        return {}
    with closing(open_reader(paths.database)) as connection, reading(connection):
        if connection.pragma("user_version") == 0:
            return {}
        return {row[0]: row[2] for row in connection.execute(CHECKS["cursors"])}


def left_in(paths: DatabasePaths, cursors: Mapping[str, int]) -> list[Left]:
    """Every journal beside a database, oldest run first. `cursors`: run_id -> committed_seq."""
    found = []
    for path in paths.journals():
        try:
            found.append(_look(path, paths, cursors))
        except FileNotFoundError:
            continue  # drained and removed meanwhile
        except (JournalCorrupt, OSError) as error:
            found.append(Left(path, str(error)))
    return found


def _look(path: Path, paths: DatabasePaths, cursors: Mapping[str, int]) -> Left:
    journal = JournalReader(path)
    try:
        head, tail, committed_seq = journal.head, journal.tail, cursors.get(journal.about.run_id, 0)
        lock = paths.strategy_lock(journal.about.strategy)
        is_dead = lock.exists() and is_free(lock)
        return Left(
            path,
            None,
            journal.about,
            is_dead,
            lock.exists() and not is_dead,
            _first_seq(journal, committed_seq),
            journal.head_seq,
            committed_seq,
            head - tail,
            journal.capacity,
        )
    finally:
        journal.close()


def _first_seq(journal: JournalReader, committed_seq: int) -> int | None:
    """As the writer looks for it: what is trimmed may still lie there, whole, when a database is older than its journal."""
    if journal.head_seq <= committed_seq:
        return None
    first = journal.first_seq(journal.tail) if journal.head > journal.tail else None
    if first is not None and first <= committed_seq + 1:
        return committed_seq + 1
    place = journal.find(committed_seq + 1)
    return None if place is None else journal.first_seq(place)
