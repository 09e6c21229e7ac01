"""`horizon db check`: whether a database keeps the promises, judged from its rows alone.

It reads beside a running writer. What may be read is taken down first, in one short transaction: how far each run is committed, and
the last row of every table. Rows are only ever appended, so the pages that follow need no transaction around them all, and the WAL
does not grow while ten million fills are folded. Only SQLite's own check of the pages is one long read.

A large database is read by as many processes as there are processors (`crew.py`), each of which follows some markets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

import apsw

from horizon.errors import HorizonError, StoreError
from horizon.locks import is_free
from horizon.paths import DatabasePaths
from horizon.positions import Book, Holding
from horizon.store.accounts import Accounts, Cursor, Say
from horizon.store.chains import judge
from horizon.store.connection import open_reader
from horizon.store.crew import Crew, processors, whole_check, wrong_pages
from horizon.store.journals import left_in
from horizon.store.letters import reader_of_letters
from horizon.store.migrate import NEWEST_VERSION
from horizon.store.recovery import read_original_state
from horizon.store.refold import Key, Stored, StoredRow, add_up
from horizon.store.share import Last, Seen, Share, pages
from horizon.store.sql import CHECKS, QUERIES
from horizon.store.translate import reading, translated

_SMALL_ROWS = 100_000  # which one process checks before another one has started
_SAID_OF_EACH = 20  # findings of one kind in full; a cut cable has thousands of ends
_ORIGINAL = ("original_strategy", "original_snapshot_id", "original_commit_no")

Tell = Callable[[float], None]  # how much of the rows is read, from 0 to 1


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


def check(paths: DatabasePaths, processes: int | None = None, tell: Tell | None = None) -> Report:
    """Check a database and the journals beside it. Changes nothing.

    `processes`: how many read the rows, beside those that check the pages; 1 starts none at all; None is one for each processor when
    that is worth it. `tell` hears how far it is, and nothing when one process does it all.
    Raises: StoreError when it cannot be read at all, or when one of the processes did not come to its end.
    """
    found = _Findings()
    with closing(open_reader(paths.database)) as connection, translated(paths.database):
        version = connection.pragma("user_version")
        start = _start(connection) if version == NEWEST_VERSION else None
        if processes is None:
            processes = 1 if start is None or start.last.fill + start.last.order_event < _SMALL_ROWS else processors()
        with Crew(alone=processes == 1) as crew:
            crew.take(whole_check(connection, paths.database, processes))
            if start is not None:
                crew.take(_shares(connection, paths, start, processes))
            seen = _collect(crew, start, found, tell)
        if found.findings:
            found.remarks.append("the rows were not looked at: what a damaged file says about them is worth nothing")
            return found.report(paths)
        if start is None:
            found.remarks.append(f"schema version {version}: more is checked once a writer has upgraded it to {NEWEST_VERSION}")
            return found.report(paths)
        found.counts["runs"] = len(start.cursors)
        accounts = Accounts(start.cursors)
        _add_up(connection, start, seen, accounts, found)
        _tick_rest(connection, start, accounts)
        _check_dead_letters(paths, start, accounts, found)
        accounts.close(found.say("seq"))
        database_id = str(connection.execute(QUERIES["meta"], {"key": "database_id"}).get)
    _check_gaps(start, found)
    _check_journals(paths, database_id, {cursor.run_id: cursor.committed_seq for cursor in start.cursors}, found)
    return found.report(paths)


class _Start(NamedTuple):
    """What is true of the moment at which the check began."""

    last: Last
    cursors: list[Cursor]
    run_seqs: list[Any]  # run_id, seq of its start, seq of its end
    gaps: list[Any]
    open_orders: list[str]
    pointed: list[Stored]  # the newest snapshot of each strategy
    replayed: list[Any]  # run_id, seq, strategy, when
    begun: dict[str, list[tuple[Key, Holding]]]  # what the original left
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


def _start(connection: apsw.Connection) -> _Start:
    with reading(connection):
        last: Any = connection.execute(CHECKS["last_rows"]).fetchone()
        pointers: list[Any] = connection.execute(CHECKS["snapshot_pointers"]).fetchall()
        original: dict[str, Any] = {key: connection.execute(QUERIES["meta"], {"key": key}).get for key in _ORIGINAL}
        begun: dict[str, list[tuple[Key, Holding]]] = {}
        if original["original_strategy"] is not None:
            state = read_original_state(connection, original["original_snapshot_id"], original["original_commit_no"])
            left = Book.restore(state.rows, state.fills)
            begun[original["original_strategy"]] = [
                ((key.exchange, key.market_id, key.side.value), holding) for key, holding in left
            ]
        return _Start(
            last=Last(*last),
            cursors=[Cursor(*row) for row in connection.execute(CHECKS["cursors"])],
            run_seqs=connection.execute(CHECKS["run_seqs"]).fetchall(),
            gaps=connection.execute(CHECKS["gaps"]).fetchall(),
            open_orders=[order_id for (order_id,) in connection.execute(CHECKS["open_order_ids"])],
            pointed=[_pointed(connection, *pointer) for pointer in pointers],
            replayed=connection.execute(CHECKS["replayed"]).fetchall(),
            begun=begun,
            original_commit_no=original["original_commit_no"],
        )


def _pointed(connection: apsw.Connection, strategy: str, commit_no: int, first_id: int | None, last_id: int | None) -> Stored:
    rows: tuple[StoredRow, ...] = ()
    if first_id is not None and last_id is not None:
        bounds = {"after": first_id - 1, "last": last_id, "limit": last_id - first_id + 1}
        rows = tuple(StoredRow(*row) for row in connection.execute(CHECKS["snapshots_page"], bounds))
    return Stored(commit_no, f"newest snapshot of {strategy}", strategy, None, rows)


def _shares(connection: apsw.Connection, paths: DatabasePaths, start: _Start, processes: int) -> list[Share]:
    """Markets dealt out, so that the shares are about as large; whatever has no fill falls to the first."""
    replayed_at: dict[str, float] = {}
    for _, _, strategy, at in start.replayed:
        replayed_at[strategy] = max(at, replayed_at.get(strategy, 0.0))
    dealt: list[set[str]] = [set()]
    if processes > 1:
        markets: list[Any] = connection.execute(CHECKS["fills_by_market"]).fetchall()
        dealt = [set() for _ in range(min(len(markets), processes) or 1)]
        sizes = [0] * len(dealt)
        for market, count in markets:
            least = sizes.index(min(sizes))
            dealt[least].add(market)
            sizes[least] += count
    return [
        Share(
            number=number,
            database=paths.database,
            markets=frozenset().union(*dealt[1:]) if number == 0 else frozenset(markets_of_one),
            others=number == 0,
            last=start.last,
            cursors=start.cursors,
            pointed=start.pointed,
            begun=start.begun,
            replayed_at=replayed_at,
            open_orders=start.open_orders,
            original_commit_no=start.original_commit_no,
        )
        for number, markets_of_one in enumerate(dealt)
    ]


def _collect(crew: Crew, start: _Start | None, found: _Findings, tell: Tell | None) -> list[Seen]:
    """What the shares have seen, in their order. Raises: StoreError."""
    seen: list[Seen] = []
    failed: HorizonError | None = None
    rows, of = 0, 1 if start is None else max(1, start.last.fill + start.last.order_event)
    for news in crew.news():
        if isinstance(news, int):
            rows += news
            if tell is not None:
                tell(min(1.0, rows / of))
        elif isinstance(news, Seen):
            seen.append(news)
        elif isinstance(news, HorizonError):
            failed = failed or news
        elif news:
            for line in news:
                found.say("integrity")(line)
            return seen
    # Rows on a damaged page fail, and it is the pages that say why.
    if failed is not None:
        raise failed
    return sorted(seen, key=lambda one: one.number)


def _add_up(connection: apsw.Connection, start: _Start, seen: list[Seen], accounts: Accounts, found: _Findings) -> None:
    """Put together what the shares have seen."""
    for one in seen:
        accounts.add(one.accounts)
        found.counts["fills"] += one.fills
        found.counts["order_events"] += one.order_events
        for kind, text in one.findings:
            found.say(kind)(text)
    if any(one.is_renumbered for one in seen):
        _check_places(connection, start, found.say("fill"))
    late_fills = judge((one.unsettled for one in seen), start.open_orders, found.say("order"))
    snapshots = add_up(one.snapshots for one in seen)
    for _, difference in sorted(snapshots.differences.items()):
        found.say("snapshot")(difference.text)
    _tick_snapshots(connection, start, accounts)
    found.counts["snapshots"] = len(snapshots.compared)
    if snapshots.outdated:
        found.remarks.append(f"snapshots from before a dead letter was replayed, not compared: {len(snapshots.outdated)}")
    if late_fills:
        found.remarks.append(f"orders with fills that came after, or without, an event of theirs: {late_fills}")


def _check_places(connection: apsw.Connection, start: _Start, say: Say) -> None:
    before = 0
    for _, place, fill_id in _rows(connection, "fill_places_page", start.last.fill):
        if place < before:
            say(f"fill {fill_id!r} has the number {place} in the commit order, and lies behind number {before}")
        before = max(before, place)


def _tick_snapshots(connection: apsw.Connection, start: _Start, accounts: Accounts) -> None:
    """Each snapshot is ticked off once, however many rows it has."""
    before: tuple[str, int] | None = None
    for _, run_id, seq in _rows(connection, "snapshot_seqs_page", start.last.snapshot_row):
        if run_id is not None and seq is not None and (run_id, seq) != before:
            before = run_id, seq
            accounts.tick("snapshot", run_id, seq)


def _rows(connection: apsw.Connection, query: str, last: int) -> Iterator[tuple[Any, ...]]:
    return (row for page in pages(connection, query, last) for row in page)


def _tick_rest(connection: apsw.Connection, start: _Start, accounts: Accounts) -> None:
    """Tick off what is neither a fill nor an order event nor a snapshot."""
    for what, query, last in (
        ("risk event", "risk_events_page", start.last.risk_event),
        ("duplicate", "duplicates_page", start.last.duplicate),
    ):
        for _, run_id, seq in _rows(connection, query, last):
            if run_id is not None and seq is not None:
                accounts.tick(what, run_id, seq)
    for run_id, started, ended in start.run_seqs:
        for what, seq in (("run start", started), ("run end", ended)):
            if seq is not None:
                accounts.tick(what, run_id, seq)
    for run_id, from_seq, to_seq, *_ in start.gaps:
        accounts.tick_range("missing record", run_id, from_seq, to_seq)


def _check_dead_letters(paths: DatabasePaths, start: _Start, accounts: Accounts, found: _Findings) -> None:
    expected = sum(cursor.dead_letters for cursor in start.cursors)
    if not paths.dead_letters.exists():
        if expected:
            found.say("dead letter")(f"{paths.dead_letters} is missing, and {expected} records should lie in it")
        return
    replayed = {(run_id, seq) for run_id, seq, *_ in start.replayed}
    try:
        with closing(reader_of_letters(paths.dead_letters)) as connection, translated(paths.dead_letters):
            for line in wrong_pages(connection):
                found.say("integrity")(line)
            last: Any = connection.execute(CHECKS["last_letter"]).get
            for _, run_id, seq in _rows(connection, "letters_page", last):
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
