"""The one catch-up path: for a gap, a restart of the writer and a dead worker alike, read the run's journal from the cursor on."""

from __future__ import annotations

import logging
from pathlib import Path

from horizon.errors import ForeignJournal
from horizon.journal import JournalReader
from horizon.store.append import Store
from horizon.writer.batch import MAX_BYTES, Batch, Gap, Run

log = logging.getLogger(__name__)


def open_run(path: Path, store: Store) -> Run:
    """A run as its journal and the database say it stands.

    Raises: JournalCorrupt; ForeignJournal when it belongs to another database (it is only reported then: R13).
    """
    journal = JournalReader(path)
    about = journal.about
    if about.database_id != store.database_id:
        journal.close()
        raise ForeignJournal(
            f"{path}: this journal belongs to another database (id {about.database_id}, ours is {store.database_id})"
        )
    cursor = store.cursor(about.run_id)
    run = Run(about.run_id, about.strategy, journal, cursor, taken=0, offset=0)
    _find_start(run)
    run.seen_seq = journal.head_seq
    run.dead_letters = store.dead_letters(about.run_id)
    store.raise_durability(about.durability)
    return run


def read_missing(run: Run, batch: Batch) -> None:
    """Take what the journal has and no message brought. Damage becomes a gap, which is stored once all before it is committed."""
    while run.gap is None and not batch.full:
        reading = run.journal.read(run.offset, run.taken + 1, dead=run.dead, max_bytes=MAX_BYTES // 4)
        if reading.frames:
            batch.take(run, reading.frames, reading.next_offset, from_journal=True)
        if reading.damage is not None:
            _find_way_round(run, reading.damage)
        elif not reading.frames:
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
    return bool(reading.frames) or reading.damage is not None


def _find_start(run: Run) -> None:
    """Where in the journal the record behind the cursor lies."""
    journal = run.journal
    tail = journal.tail
    first = journal.first_seq(tail) if journal.head > tail else journal.head_seq + 1
    if first is None or first > run.committed + 1:
        place = journal.find(run.committed + 1)
        if place is not None and (found := journal.first_seq(place)) is not None and (first is None or found < first):
            tail, first = place, found
    if first is None:
        first = run.committed + 1  # nothing intact: the reading meets the damage and says so
    if first > run.committed + 1:
        reason = f"the journal begins at seq {first}: the database is older than the journal, or the journal was damaged"
        run.gap = Gap(run.committed + 1, first - 1, tail, reason)
    run.taken, run.offset = min(first - 1, run.committed), tail
    run.safe = run.taken, run.offset


def _find_way_round(run: Run, damage: str) -> None:
    journal = run.journal
    if not run.dead and journal.tail > run.offset:
        # Not damage: acks of the writer before us let the worker trim, and write, where we were reading.
        first = journal.first_seq(journal.tail)
        if first is not None and first <= run.committed + 1:
            run.offset, run.taken = journal.tail, first - 1
            return
    expected = run.taken + 1
    place = journal.find(expected)
    found = journal.first_seq(place) if place is not None else None
    if place is not None and found is not None:
        run.gap = Gap(expected, found - 1, place, f"{journal.path.name}: damaged: {damage}")
    else:
        run.gap = Gap(
            expected, max(journal.head_seq, expected), journal.head, f"{journal.path.name}: damaged to its end: {damage}"
        )
