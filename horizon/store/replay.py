"""Try a dead letter once more, because a person says so: after an upgrade of Horizon, or to apply what a venue corrected.

Its record becomes a row of its own run and seq, at the end of the commit order: recovery folds it as the newest fill, and a live run
of the strategy is told to recover (R2). Nothing that is true now is changed by an old record: what would do that is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import apsw

from horizon.errors import CommandRefused, DecodeError, StoreRefused
from horizon.records import Fill, FillConflict, OrderEvent, PositionSnapshot, Record, RiskEvent, RiskEventType
from horizon.store.dead_letters import DeadLetter
from horizon.store.fills import Difference, StoredFill, difference, stored_fill
from horizon.store.recovery import open_order
from horizon.store.sql import QUERIES
from horizon.store.transaction import Entry, Stretch, Transaction
from horizon.store.translate import translated
from horizon.wire import decode_record


def replay(connection: apsw.Connection, letter: DeadLetter, now: float, runs: Mapping[str, str]) -> str:
    """Store what a dead letter holds, inside the caller's transaction, and say what became of it.

    `runs` are the runs that live or are not drained yet, with their strategies. Raises: CommandRefused.
    """
    cursor = connection.execute(QUERIES["committed_seq"], (letter.run_id,)).get
    if not isinstance(cursor, int) or cursor < letter.seq:
        raise CommandRefused(f"run {letter.run_id} is not drained up to record {letter.seq} yet: try again when it is")
    try:
        record = decode_record(letter.payload)
    except DecodeError as error:
        raise CommandRefused(
            f"{_name(letter)} still is no record that this Horizon can read ({error}): "
            "replay it with the version that wrote it, or dismiss it"
        ) from error
    fill = record.fill if isinstance(record, FillConflict) else record
    stored = stored_fill(connection, fill.fill_id) if isinstance(fill, Fill) else None
    if isinstance(fill, Fill) and stored is not None:
        return _replay_known_fill(connection, letter, fill, stored, now, runs)
    _refuse_old_news(connection, letter, record)
    return _write(connection, letter, record, now)


def _replay_known_fill(
    connection: apsw.Connection, letter: DeadLetter, fill: Fill, stored: StoredFill, now: float, runs: Mapping[str, str]
) -> str:
    found = difference(stored, letter.strategy, fill)
    if found is None and letter.kind in ("unstorable", "undecodable"):
        _write_duplicate(connection, letter, fill, now)
        return f"fill {fill.fill_id} is stored already; {_name(letter)} counts as a duplicate of it now"
    if found is None:
        return f"fill {fill.fill_id} is stored as {_name(letter)} has it; nothing was left to change"
    if found.kind == "conflict":
        raise _conflict(letter, found)
    if letter.strategy in runs.values():
        raise CommandRefused(
            f"{letter.strategy} is running, and its positions are made of the fill as it is stored: stop it, replay, start it again"
        )
    changes = {name: getattr(fill, name) for name in ("fee", "timestamp", "token_id", "is_maker", "multiplier", "fee_currency")}
    connection.execute(QUERIES["amend_fill"], {"fill_id": fill.fill_id, **changes})
    connection.execute(QUERIES["distrust_snapshot"], {"strategy": letter.strategy})
    return f"amended: {found.reason}; the next start of {letter.strategy} folds all its fills again"


def _refuse_old_news(connection: apsw.Connection, letter: DeadLetter, record: Record) -> None:
    """Refuse a record that would make something true again which was true once."""
    if isinstance(record, FillConflict):
        raise _conflict(letter, Difference("conflict", f"a fill of the id {record.fill.fill_id!r} was known with other content"))
    if isinstance(record, PositionSnapshot):
        raise CommandRefused(f"{_name(letter)} is an old snapshot, which the fills since have overtaken: dismiss it")
    if isinstance(record, RiskEvent) and record.event_type is not RiskEventType.Violation:
        raise CommandRefused(
            f"{_name(letter)} is an old {record.event_type.value}: trip or clear the kill switch as it should be now, "
            "then dismiss the letter"
        )
    if isinstance(record, OrderEvent):
        found = open_order(connection, record.order_id)
        if found is None or found[1].event.recorded_at > record.recorded_at:
            raise CommandRefused(
                f"{_name(letter)} is an event of order {record.order_id}, which has ended or of which newer events are stored: "
                "the old one would take their place in every view; dismiss it"
            )


def _write(connection: apsw.Connection, letter: DeadLetter, record: Record, now: float) -> str:
    work = Transaction(connection, now)
    try:
        with translated(Path(connection.filename)):
            work.write((Stretch.of(Entry(letter.run_id, letter.strategy, letter.seq, letter.payload, record, None)),))
            work.finish()
            connection.execute(QUERIES["uncount_dead_letter"], {"run_id": letter.run_id})
    except StoreRefused as error:
        raise CommandRefused(f"{_name(letter)} still cannot be stored ({error}): dismiss it") from error
    return f"{_name(letter)} is stored as {type(record).__name__} now"


def _write_duplicate(connection: apsw.Connection, letter: DeadLetter, fill: Fill, now: float) -> None:
    work = Transaction(connection, now)
    work.write_known_fill(Entry(letter.run_id, letter.strategy, letter.seq, letter.payload, fill, None))
    connection.execute(QUERIES["uncount_dead_letter"], {"run_id": letter.run_id})


def _conflict(letter: DeadLetter, found: Difference) -> CommandRefused:
    return CommandRefused(
        f"{_name(letter)} cannot be replayed, because {found.reason}, and Horizon does not choose between them. Ask the venue. If the "
        "stored fill is right, dismiss the letter; if the venue executed both, give this one to engine.process_fill under an id of "
        "its own, then dismiss the letter"
    )


def _name(letter: DeadLetter) -> str:
    return f"record {letter.seq} of run {letter.run_id}"
