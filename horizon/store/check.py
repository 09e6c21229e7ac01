"""`horizon db check`: whether a database keeps the promises, judged from its rows alone.

It reads beside a running writer. What may be read is taken down first, in one short transaction: how far each run is committed, and
the last row of every table. Rows are only ever appended, so the pages that follow need no transaction around them all, and the WAL
does not grow while ten million fills are folded. Only SQLite's own check of the pages is one long read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

import apsw

from horizon.errors import StoreError, StoreRefused
from horizon.locks import is_free
from horizon.paths import DatabasePaths
from horizon.positions import Book
from horizon.store.accounts import Accounts, Cursor, Say
from horizon.store.chains import OrderChains
from horizon.store.connection import open_reader
from horizon.store.fills import fill_of
from horizon.store.journals import left_in
from horizon.store.letters import reader_of_letters
from horizon.store.migrate import NEWEST_VERSION
from horizon.store.recovery import read_original_state
from horizon.store.refold import Refold, Stored, StoredRow, whole_snapshots
from horizon.store.sql import CHECKS, QUERIES
from horizon.store.translate import reading, translated

PAGE_ROWS = 5000
_SAID_OF_EACH = 20  # findings of one kind in full; a cut cable has thousands of ends
_PAGES_MAX_SHOWN = 100  # lines of SQLite's own check


class Finding(NamedTuple):
    """Something that is wrong. `kind`: integrity, seq, fill, order, snapshot, gap, dead letter, journal."""

    kind: str
    text: str


class Report(NamedTuple):
    """What was checked and what was found. `remarks` are worth knowing and nothing wrong."""

    database: str
    findings: list[Finding]
    remarks: list[str]
    runs: int
    fills: int
    order_events: int
    snapshots: int  # compared with the fold of their fills
    journals: int


def check(paths: DatabasePaths) -> Report:
    """Check a database and the journals beside it. Changes nothing. Raises: StoreError when it cannot be read at all."""
    found = _Findings()
    with closing(open_reader(paths.database)) as connection, translated(paths.database):
        _check_pages(connection, found.say("integrity"))
        version = connection.pragma("user_version")
        if found.findings:
            found.remarks.append("the rows were not looked at: what a damaged file says about them is worth nothing")
            return found.report(paths)
        if version != NEWEST_VERSION:
            found.remarks.append(f"schema version {version}: more is checked once a writer has upgraded it to {NEWEST_VERSION}")
            return found.report(paths)
        start = _start(connection)
        found.counts["runs"] = len(start.cursors)
        accounts = Accounts(start.cursors)
        _check_rows(connection, start, accounts, found)
        _tick_rest(connection, start, accounts)
        _check_dead_letters(paths, start, accounts, found)
        accounts.close(found.say("seq"))
        database_id = str(connection.execute(QUERIES["meta"], {"key": "database_id"}).get)
    _check_gaps(start, found)
    _check_journals(paths, database_id, {cursor.run_id: cursor.committed_seq for cursor in start.cursors}, found)
    return found.report(paths)


class _Last(NamedTuple):
    """The last row of each table."""

    fill: int
    order_event: int
    snapshot_row: int
    risk_event: int
    duplicate: int


class _Start(NamedTuple):
    """What is true of the moment at which the check began."""

    last: _Last
    cursors: list[Cursor]
    run_seqs: list[Any]  # run_id, seq of its start, seq of its end
    gaps: list[Any]
    open_orders: list[str]
    pointed: list[Stored]  # the newest snapshot of each strategy
    replayed: list[Any]  # run_id, seq, strategy, when
    begun: dict[str, Book]  # what the original left
    original_commit_no: int


class _Findings:
    """Collects, and cuts off what comes too often."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.remarks: list[str] = []
        self.counts = {"runs": 0, "fills": 0, "order_events": 0, "snapshots": 0, "journals": 0}
        self._of_each: Counter[str] = Counter()

    def say(self, kind: str) -> Say:
        def say(text: str) -> None:
            self._of_each[kind] += 1
            if self._of_each[kind] <= _SAID_OF_EACH:
                self.findings.append(Finding(kind, text))

        return say

    def report(self, paths: DatabasePaths) -> Report:
        for kind, count in self._of_each.items():
            if count > _SAID_OF_EACH:
                self.findings.append(Finding(kind, f"and {count - _SAID_OF_EACH} more like these"))
        return Report(str(paths.database), self.findings, self.remarks, **self.counts)


def _check_pages(connection: apsw.Connection, say: Say) -> None:
    try:
        lines = [str(line) for (line,) in connection.execute(f"PRAGMA integrity_check({_PAGES_MAX_SHOWN})")]
    except apsw.CorruptError as error:
        lines = [str(error)]
    for line in lines:
        if line != "ok":
            say(line)


def _start(connection: apsw.Connection) -> _Start:
    with reading(connection):
        last: Any = connection.execute(CHECKS["last_rows"]).fetchone()
        pointers: list[Any] = connection.execute(CHECKS["snapshot_pointers"]).fetchall()
        original: dict[str, Any] = {key: connection.execute(QUERIES["meta"], {"key": key}).get for key in _ORIGINAL}
        begun: dict[str, Book] = {}
        if original["original_strategy"] is not None:
            state = read_original_state(connection, original["original_snapshot_id"], original["original_commit_no"])
            begun[original["original_strategy"]] = Book.restore(state.rows, state.fills)
        return _Start(
            last=_Last(*last),
            cursors=[Cursor(*row) for row in connection.execute(CHECKS["cursors"])],
            run_seqs=connection.execute(CHECKS["run_seqs"]).fetchall(),
            gaps=connection.execute(CHECKS["gaps"]).fetchall(),
            open_orders=[order_id for (order_id,) in connection.execute(CHECKS["open_order_ids"])],
            pointed=[_pointed(connection, *pointer) for pointer in pointers],
            replayed=connection.execute(CHECKS["replayed"]).fetchall(),
            begun=begun,
            original_commit_no=original["original_commit_no"],
        )


_ORIGINAL = ("original_strategy", "original_snapshot_id", "original_commit_no")


def _pointed(connection: apsw.Connection, strategy: str, commit_no: int, first_id: int | None, last_id: int | None) -> Stored:
    rows: tuple[StoredRow, ...] = ()
    if first_id is not None and last_id is not None:
        bounds = {"after": first_id - 1, "last": last_id, "limit": last_id - first_id + 1}
        rows = tuple(StoredRow(*row) for row in connection.execute(CHECKS["snapshots_page"], bounds))
    return Stored(commit_no, f"newest snapshot of {strategy}", strategy, None, rows)


def _pages(connection: apsw.Connection, query: str, last: int) -> Iterator[tuple[Any, ...]]:
    """Every row up to the last one, in the order of its number, which is its first column."""
    after = 0
    while True:
        page: list[Any] = connection.execute(CHECKS[query], {"after": after, "last": last, "limit": PAGE_ROWS}).fetchall()
        if not page:
            return
        yield from page
        after = page[-1][0]


def _check_rows(connection: apsw.Connection, start: _Start, accounts: Accounts, found: _Findings) -> None:
    """Every row once: its seq is ticked off, fills are folded, orders are followed."""
    chains = OrderChains(found.say("order"))
    replayed_at: dict[str, float] = {}
    for _, _, strategy, at in start.replayed:
        replayed_at[strategy] = max(at, replayed_at.get(strategy, 0.0))
    snapshots = _ticked(_pages(connection, "snapshots_page", start.last.snapshot_row), accounts)
    refold = Refold(whole_snapshots(snapshots, start.pointed), start.begun, replayed_at, found.say("snapshot"))
    events = _pages(connection, "order_events_page", start.last.order_event)
    fills = _pages(connection, "fills_page", start.last.fill)
    # Both tables side by side, at the pace of their lengths: so few orders wait for their other half.
    pace = start.last.order_event / max(1, start.last.fill)
    due = 0.0
    before = 0
    for row in fills:
        commit_no = _check_fill(row, start.original_commit_no, accounts, chains, refold, found.say("fill"))
        if commit_no < before:
            found.say("fill")(f"fill {row[5]!r} has the number {commit_no} in the commit order, and lies behind number {before}")
        before = max(before, commit_no)
        found.counts["fills"] += 1
        due += pace
        while due >= 1.0 and (event := next(events, None)) is not None:
            _check_event(event, accounts, chains)
            found.counts["order_events"] += 1
            due -= 1.0
    for event in events:
        _check_event(event, accounts, chains)
        found.counts["order_events"] += 1
    refold.close()
    chains.close(start.open_orders)
    found.counts["snapshots"] = refold.compared
    if refold.outdated:
        found.remarks.append(f"snapshots from before a dead letter was replayed, not compared: {refold.outdated}")
    if chains.late_fills:
        found.remarks.append(f"orders with fills that came after, or without, an event of theirs: {chains.late_fills}")


def _tick_rest(connection: apsw.Connection, start: _Start, accounts: Accounts) -> None:
    """Tick off what is neither a fill nor an order event nor a snapshot."""
    for what, query, last in (
        ("risk event", "risk_events_page", start.last.risk_event),
        ("duplicate", "duplicates_page", start.last.duplicate),
    ):
        for _, run_id, seq in _pages(connection, query, last):
            if run_id is not None and seq is not None:
                accounts.tick(what, run_id, seq)
    for run_id, started, ended in start.run_seqs:
        for what, seq in (("run start", started), ("run end", ended)):
            if seq is not None:
                accounts.tick(what, run_id, seq)
    for run_id, from_seq, to_seq, *_ in start.gaps:
        accounts.tick_range("missing record", run_id, from_seq, to_seq)


def _check_fill(
    row: tuple[Any, ...], last_original: int, accounts: Accounts, chains: OrderChains, refold: Refold, say: Say
) -> int:
    """Returns its place in the commit order."""
    rowid, commit_no, strategy, run_id, seq, _, order_id, *_ = row
    place: int = rowid if commit_no is None else commit_no
    if run_id is not None:
        if seq is not None:
            accounts.tick("fill", run_id, seq)
        accounts.note_commit_no(run_id, place)
    try:
        fill = fill_of(row[5:])
    except StoreRefused as error:
        say(str(error))
        return place
    chains.fill(order_id, fill.size)
    # What the original left is in the book already; what its programs added since belongs to no strategy.
    if place > last_original and strategy is not None:
        refold.fill(place, strategy, fill)
    return place


def _check_event(row: tuple[Any, ...], accounts: Accounts, chains: OrderChains) -> None:
    _, run_id, seq, order_id, status, filled_size = row
    if run_id is not None and seq is not None:
        accounts.tick("order event", run_id, seq)
        if status == "new":
            accounts.note_order(run_id)
    chains.event(order_id, status, filled_size, run_id is not None)


def _ticked(rows: Iterator[tuple[Any, ...]], accounts: Accounts) -> Iterator[tuple[Any, ...]]:
    """The rows of snapshots, each snapshot ticked off once."""
    before: tuple[str, int] | None = None
    for row in rows:
        run_id, seq = row[2], row[3]
        if run_id is not None and seq is not None and (run_id, seq) != before:
            before = run_id, seq
            accounts.tick("snapshot", run_id, seq)
        yield row


def _check_dead_letters(paths: DatabasePaths, start: _Start, accounts: Accounts, found: _Findings) -> None:
    expected = sum(cursor.dead_letters for cursor in start.cursors)
    if not paths.dead_letters.exists():
        if expected:
            found.say("dead letter")(f"{paths.dead_letters} is missing, and {expected} records should lie in it")
        return
    replayed = {(run_id, seq) for run_id, seq, *_ in start.replayed}
    try:
        with closing(reader_of_letters(paths.dead_letters)) as connection, translated(paths.dead_letters):
            _check_pages(connection, found.say("integrity"))
            last: Any = connection.execute(CHECKS["last_letter"]).get
            for _, run_id, seq in _pages(connection, "letters_page", last):
                # One that was replayed is a row now, or has changed one.
                is_row = (run_id, seq) in replayed and accounts.is_ticked(run_id, seq)
                if accounts.has_passed(run_id, seq) and not is_row:
                    accounts.tick("dead letter", run_id, seq)
    except StoreError as error:
        found.say("integrity")(str(error))


def _check_gaps(start: _Start, found: _Findings) -> None:
    say = found.say("gap")
    for run_id, from_seq, to_seq, reason, _, accepted_at, accepted_by in start.gaps:
        what = f"run {run_id}: records {from_seq} to {to_seq} are missing ({reason})"
        if accepted_at is None:
            say(f"{what}; `horizon journal accept-gap {run_id} --reason WHY` lets its strategy trade on without them")
        else:
            found.remarks.append(f"{what}; accepted by {accepted_by}")


def _check_journals(paths: DatabasePaths, database_id: str, cursors: dict[str, int], found: _Findings) -> None:
    say = found.say("journal")
    writer_runs = not is_free(paths.writer_lock)
    for left in left_in(paths, cursors):
        found.counts["journals"] += 1
        if left.about is None:
            say(str(left.problem))
        elif left.about.database_id != database_id:
            say(f"{left.path} belongs to another database (id {left.about.database_id}, this is {database_id})")
        elif not left.is_dead and not left.is_locked:
            say(f"{left.path}: the lock of {left.about.strategy} was deleted, so nobody can tell if its run lives")
        elif left.is_dead and writer_runs:
            found.remarks.append(f"{left.path} was left over; the writer is about to drain it")
        elif left.is_dead and left.unacked:
            say(f"{left.path} was left over with {left.unacked} records that are not stored; `horizon journal drain` stores them")
        elif left.is_dead:
            found.remarks.append(f"{left.path} is left of a run that died; everything in it is stored; the next start removes it")
