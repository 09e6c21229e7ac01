"""What can be seen of the victims from outside, without a question to any of them: births, commits and acks.

An ack moves the tail word of a run's journal; a commit touches the `-wal` file, whose times are read without opening it (R11); a birth is a
journal or a process that was not there. So the watch holds no connection to the database and keeps no lock or index of it alive.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import NamedTuple

from horizon.errors import JournalCorrupt
from horizon.journal import JournalReader
from horizon.paths import JOURNAL_SUFFIX, DatabasePaths


class Pending(NamedTuple):
    """A kill whose consequences are not over."""

    killed_at: float  # monotonic
    strategy: str | None  # None: any
    newer_than: str  # only the ack of a run that was begun later tells it


class Watch:
    """Looks when `look` is called; times are monotonic seconds."""

    def __init__(self, paths: DatabasePaths) -> None:
        self.started_at = 0.0  # the newest of each kind
        self.committed_at = 0.0
        self.acked_at = 0.0
        self.trading: set[str] = set()  # strategies that had an ack since `forget`
        self.newest_run = ""
        self.longest_gap_s = 0.0
        self.recovery_s: list[float] = []
        self._paths = paths
        self._wal = paths.database.with_name(paths.database.name + "-wal")
        self._wal_time = 0
        self._journals: dict[str, tuple[JournalReader, int]] = {}  # by file name, with the tail that was seen last
        self._left_alone: set[str] = set()
        self._pending: list[Pending] = []

    def look(self) -> None:
        now = time.monotonic()
        with suppress(OSError):
            touched = self._wal.stat().st_mtime_ns
            if touched != self._wal_time:
                self._wal_time, self.committed_at = touched, now
        self._meet_journals(now)
        for name, (reader, seen) in self._journals.items():
            tail = reader.tail
            if tail != seen:
                self._journals[name] = reader, tail
                self._note_ack(name.removesuffix(JOURNAL_SUFFIX), reader.about.strategy, now)

    def killed(self, strategy: str | None, by_newer_run: bool = True) -> None:
        """Measure from here to the next commit: of this strategy, or, for None, of whoever is the first."""
        self._pending.append(Pending(time.monotonic(), strategy, self.newest_run if by_newer_run else ""))

    def forget(self) -> None:
        """A new round: nobody trades yet."""
        self.trading.clear()

    def close(self) -> None:
        for reader, _ in self._journals.values():
            reader.close()
        self._journals.clear()

    def _meet_journals(self, now: float) -> None:
        try:
            names = {name for name in os.listdir(self._paths.folder) if name.endswith(JOURNAL_SUFFIX)}  # noqa: PTH208
        except FileNotFoundError:
            return
        for name in self._journals.keys() - names:
            self._journals.pop(name)[0].close()
        for name in names - self._journals.keys() - self._left_alone:
            try:
                reader = JournalReader(self._paths.folder / name)
            except FileNotFoundError:
                continue
            except JournalCorrupt:
                self._left_alone.add(name)  # the referee will say what it cost
                continue
            self._journals[name] = reader, reader.tail
            self.started_at = now
            self.newest_run = max(self.newest_run, name.removesuffix(JOURNAL_SUFFIX))

    def _note_ack(self, run_id: str, strategy: str, now: float) -> None:
        if self.acked_at:
            self.longest_gap_s = max(self.longest_gap_s, now - self.acked_at)
        self.acked_at = now
        self.trading.add(strategy)
        over = [one for one in self._pending if one.strategy in (None, strategy) and run_id > one.newer_than]
        for one in over:
            self._pending.remove(one)
            self.recovery_s.append(now - one.killed_at)
