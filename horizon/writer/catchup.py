"""The one catch-up path: for a gap, a restart of the writer and a dead worker alike, read the run's journal from the cursor on."""

from __future__ import annotations

import logging
from pathlib import Path

from horizon.errors import ForeignJournal
from horizon.failpoints import ACTIVE, reach
from horizon.ids import strategy_lock_name
from horizon.journal import JournalReader
from horizon.locks import is_free
from horizon.store.append import Store
from horizon.writer.batch import MAX_BYTES, Batch, Gap, Run

log = logging.getLogger(__name__)


def open_run(path: Path, store: Store) -> Run:
    """A run as its journal and the database say it stands.

    Raises: JournalCorrupt; ForeignJournal when it belongs to another database (it is only reported then: R13) or is a copy.
    """
    journal = JournalReader(path)
    about = journal.about
    if about.run_id != path.stem:
        journal.close()
        raise ForeignJournal(f"{path}: this is a copy of the journal of run {about.run_id}; move it out of the folder")
    if about.database_id != store.database_id:
        journal.close()
        raise ForeignJournal(
            f"{path}: this journal belongs to another database (id {about.database_id}, ours is {store.database_id})"
        )
    cursor = store.cursor(about.run_id)
    run = Run(about.run_id, about.strategy, journal, cursor, taken=0, offset=0, dead=is_dead(path, about.strategy))
    _find_start(run)
    run.behind = True
    run.dead_letters = store.dead_letters(about.run_id)
    store.raise_durability(about.durability)
    return run


def is_dead(journal: Path, strategy: str) -> bool:
    """Whether the kernel says that a journal's process is gone, by its strategy's lock (R10).

    A lock file that somebody deleted says nothing: its holder may live, and would record into a removed journal.
    """
    lock = journal.with_name(strategy_lock_name(strategy))
    return lock.exists() and is_free(lock)


def read_missing(run: Run, batch: Batch) -> None:
    """Take what the journal has and no message brought. Damage becomes a gap, which is stored once all before it is committed."""
    run.behind = True
    while run.gap is None and not batch.full:
        reading = run.journal.read(run.offset, run.taken + 1, dead=run.dead, max_bytes=MAX_BYTES // 4)
        if reading.frames.payloads:
            batch.take(run, reading.frames, reading.next_offset, from_journal=True)
        if reading.damage is not None:
            _find_way_round(run, reading.damage)
        elif not reading.frames.payloads:
            run.behind = False
            return


def needs_reading(run: Run) -> bool:
    """Whether frames lie unread in a live journal since the last look, so that waiting for their message is not worth it."""
    head_seq = run.journal.head_seq
    overdue = run.taken < run.seen_seq
    run.seen_seq = head_seq
    return overdue


def drained(run: Run) -> bool:
    """Whether a dead run's journal holds nothing more. Call after `read_missing` and a commit."""
    return run.dead and run.gap is None and run.taken <= run.committed and not _rest(run)


def remove(run: Run) -> None:
    """Remove a drained journal, or set it aside when a part of it could not be read."""
    if ACTIVE:
        reach("writer.draining")
    run.journal.close()
    if run.damaged:
        aside = run.journal.path.with_suffix(".damaged")
        run.journal.path.rename(aside)
        log.error(
            "kept the damaged journal of run %s as %s", run.run_id, aside, extra={"action": "journal_aside", "run_id": run.run_id}
        )
    else:
        run.journal.path.unlink(missing_ok=True)


def _rest(run: Run) -> bool:
    reading = run.journal.read(run.offset, run.taken + 1, dead=True, max_bytes=1)
    return bool(reading.frames.payloads) or reading.damage is not None


def _find_start(run: Run) -> None:
    """Where in the journal the record behind the cursor lies."""
    journal = run.journal
    run.taken, run.offset = run.committed, journal.tail
    first = journal.first_seq(run.offset) if journal.head > run.offset else journal.head_seq + 1
    if first is not None and first <= run.committed + 1:
        run.taken = first - 1
    else:
        _find_way_round(run, "the database is older than the journal, or the start of the journal was damaged")
    run.safe = run.taken, run.offset


def _find_way_round(run: Run, damage: str) -> None:
    """Go on at the next intact frame. What is committed already is not missing, whatever the journal holds in its place."""
    journal = run.journal
    if not run.dead and journal.tail > run.offset:
        # Not damage: acks of the writer before us let the worker trim, and write, where we were reading.
        first = journal.first_seq(journal.tail)
        if first is not None and first <= run.committed + 1:
            run.offset, run.taken = journal.tail, first - 1
            return
    expected = max(run.taken, run.committed) + 1
    # Before the search: what a live run appends behind its back is not missing either.
    head_seq, head = journal.head_seq, journal.head
    place = journal.find(expected)
    found = journal.first_seq(place) if place is not None else None
    if place is None or found is None or (not run.dead and found > max(expected, head_seq + 1)):
        place, found, damage = head, max(head_seq, run.taken) + 1, f"to its end: {damage}"
    if found > expected:
        run.gap = Gap(expected, found - 1, place, f"{journal.path.name}: damaged: {damage}")
    else:
        run.offset, run.taken = place, found - 1
