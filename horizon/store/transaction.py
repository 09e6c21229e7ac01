"""What one transaction writes: rows for records, in order, and what became of each.

Fills and order events, nearly everything, go together by executemany; the rare kinds one by one. Nothing of a Transaction is
changed before the statements of a step have succeeded, so a step that raises can be rolled back and its records tried singly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apsw
import msgspec
from msgspec.structs import astuple

from horizon.errors import DecodeError, StoreRefused
from horizon.records import (
    OPEN_STATUSES,
    Fill,
    FillConflict,
    OrderEvent,
    OrderStatus,
    PositionSnapshot,
    Record,
    RiskEvent,
    RunEnded,
    RunStarted,
)
from horizon.store.controls import latch
from horizon.store.dead_letters import DeadLetter, Kind
from horizon.store.fills import Difference, difference, stored_fill
from horizon.store.snapshots import Author, knows_all_fills, store_snapshot
from horizon.store.sql import QUERIES
from horizon.wire import FillValues, OrderEventValues, decode_record

_STATUS = OrderEvent.__struct_fields__.index("status")
_NEW = OrderStatus.New  # looked up once: the members of an enum are slow to reach
_TOGETHER = frozenset({Fill, FillValues, OrderEvent, OrderEventValues})


class Entry(NamedTuple):
    """One record of one run, as the writer read it."""

    run_id: str
    strategy: str
    seq: int  # rises by 1 within a run
    payload: bytes
    record: Record | None  # None: it could not be decoded
    problem: str | None  # why it shall become a dead letter


class Stretch(NamedTuple):
    """Consecutive records of one run, as the writer read them: what nearly all work is done on, because one by one costs twice as much."""

    run_id: str
    strategy: str
    first_seq: int
    payloads: Sequence[bytes]
    records: Sequence[Any]  # Record, FillValues, OrderEventValues; None: it could not be decoded
    problems: Mapping[int, str] = {}  # seq -> why it shall become a dead letter

    @classmethod
    def of(cls, entry: Entry) -> Stretch:
        problems = {} if entry.problem is None else {entry.seq: entry.problem}
        return cls(entry.run_id, entry.strategy, entry.seq, (entry.payload,), (entry.record,), problems)

    @property
    def last_seq(self) -> int:
        return self.first_seq + len(self.records) - 1

    @property
    def seqs(self) -> range:
        return range(self.first_seq, self.last_seq + 1)

    def behind(self, seq: int) -> Stretch:
        """The part behind a seq."""
        known = max(0, seq + 1 - self.first_seq)
        if not known:
            return self
        return self._replace(first_seq=self.first_seq + known, payloads=self.payloads[known:], records=self.records[known:])

    def entries(self) -> Iterator[Entry]:
        """One by one, with every record as its own type."""
        for seq, payload, record in zip(self.seqs, self.payloads, self.records, strict=True):
            problem = self.problems.get(seq)
            if type(record) in (FillValues, OrderEventValues):
                try:
                    record = decode_record(payload)
                except DecodeError as error:  # only together with its neighbours did it look like a record
                    record, problem = None, f"not a record: {error}"
            yield Entry(self.run_id, self.strategy, seq, payload, record, problem)


class FillKnown(Exception):
    """At least one fill of a step has an id that is stored already."""


class Transaction:
    """The rows and counts of one transaction. Raises: StoreRefused and apsw's errors, with the step's statements not undone."""

    def __init__(self, connection: apsw.Connection, now: float) -> None:
        self._connection = connection
        self._now = now
        self._first_commit_no = self._commit_no = newest_commit_no(connection)
        self.dead_letters: list[DeadLetter] = []
        self.recover: set[str] = set()
        self.counts: Counter[str] = Counter()

    def write(self, stretches: Iterable[Stretch]) -> None:
        """Write records in order. Raises: FillKnown."""
        step = _Step(self._commit_no)
        for stretch in stretches:
            if not stretch.problems and _TOGETHER.issuperset(map(type, stretch.records)):
                step.take(stretch, self._now)
                continue
            for entry in stretch.entries():
                if entry.problem is not None or entry.record is None:
                    step.bury(entry)
                elif type(entry.record) in _TOGETHER:
                    step.take(Stretch.of(entry), self._now)
                else:
                    self._write_step(step)
                    self._write_alone(entry)
                    step = _Step(self._commit_no)
        self._write_step(step)

    def write_known_fill(self, entry: Entry) -> None:
        """A fill whose id is stored: a duplicate when it is the same, else a dead letter (R4)."""
        assert isinstance(entry.record, Fill)
        stored = stored_fill(self._connection, entry.record.fill_id)
        assert stored is not None
        found = difference(stored, entry.strategy, entry.record)
        if found is not None:
            self.bury(entry, found.kind, found.reason)
            return
        self._connection.execute(QUERIES["insert_duplicate"], (entry.run_id, entry.seq, entry.record.fill_id))
        self._advance(entry, duplicates=1)
        self.counts["duplicate"] += 1

    def bury(self, entry: Entry, kind: Kind, reason: str) -> None:
        """Make a record a dead letter; its seq counts as committed and blocks nobody."""
        self._advance(entry, dead_letters=1)
        self._note_dead_letter(entry, kind, reason)

    def finish(self) -> None:
        """The last step before the commit."""
        if self._commit_no != self._first_commit_no:
            self._connection.execute(QUERIES["set_meta"], {"key": "commit_no", "value": self._commit_no})

    def _write_step(self, step: _Step) -> None:
        if not step.runs:
            return
        # Also for no rows a statement is prepared, which a commit of one record feels.
        if step.fills:
            self._insert_fills(step.fills)
        if step.events:
            self._connection.executemany(QUERIES["insert_order_event"], step.events)
        step.write_orders(self._connection)
        self._connection.executemany(QUERIES["advance_run"], map(astuple, step.runs.values()))
        self._commit_no = step.commit_no
        self.counts["fill"] += len(step.fills)
        self.counts["order_event"] += len(step.events)
        for entry in step.dead:
            kind: Kind = "undecodable" if entry.record is None else "unstorable"
            self._note_dead_letter(entry, kind, entry.problem or "the bytes are not a record")

    def _insert_fills(self, rows: list[tuple[Any, ...]]) -> None:
        before = self._connection.total_changes()
        self._connection.executemany(QUERIES["insert_fill"], rows)
        if self._connection.total_changes() - before != len(rows):
            raise FillKnown

    def _write_alone(self, entry: Entry) -> None:
        record = entry.record
        if isinstance(record, PositionSnapshot):
            self._write_snapshot(entry, record)
        elif isinstance(record, FillConflict):
            found = self._conflict(entry, record.fill)
            self.bury(entry, found.kind, found.reason)
        elif isinstance(record, RiskEvent):
            row = (record.event_type, record.details, record.timestamp, entry.strategy, entry.run_id, entry.seq)
            self._connection.execute(QUERIES["insert_risk_event"], row)
            latch(self._connection, entry.strategy, record, f"run {entry.run_id}")
            self._advance(entry)
            self.counts["risk_event"] += 1
        elif isinstance(record, RunStarted):
            self._start_run(entry, record)
        elif isinstance(record, RunEnded):
            self._end_run(entry, record)

    def _write_snapshot(self, entry: Entry, snapshot: PositionSnapshot) -> None:
        author = Author(entry.strategy, entry.run_id, entry.seq, self._commit_no)
        if not knows_all_fills(self._connection, author):
            self._advance(entry, snapshots_refused=1)
            self.recover.add(entry.run_id)
            self.counts["snapshot_refused"] += 1
        elif store_snapshot(self._connection, author, snapshot):
            self._advance(entry)
            self.counts["snapshot"] += 1
        else:
            self._advance(entry, snapshots_without_rows=1)
            self.counts["snapshot_without_rows"] += 1

    def _conflict(self, entry: Entry, fill: Fill) -> Difference:
        """The engine saw a known id with other content: say how it differs from what is stored."""
        stored = stored_fill(self._connection, fill.fill_id)
        if stored is None:
            return Difference("conflict", f"fill {fill.fill_id!r} differs from one of the same id that is not stored")
        same = Difference("conflict", f"fill {fill.fill_id!r} equals the stored one; the run knew it with other content")
        return difference(stored, entry.strategy, fill) or same

    def _start_run(self, entry: Entry, record: RunStarted) -> None:
        values = {
            "run_id": entry.run_id,
            "strategy_name": record.strategy,
            "exchange": record.exchange,
            "started_at": record.started_at,
            "config": record.config,
            "strategy": entry.strategy,
            "seq": entry.seq,
            "pid": record.pid,
            # No later place than there is: the run may have recovered from a database that was restored since to an older state.
            "recovered_commit_no": min(record.recovered_commit_no, self._commit_no),
        }
        self._connection.execute(QUERIES["start_run"], values)
        self._advance(entry)
        self.counts["run"] += 1

    def _end_run(self, entry: Entry, record: RunEnded) -> None:
        values = {"run_id": entry.run_id, "seq": entry.seq, "ended_at": record.ended_at, "reason": record.reason}
        self._connection.execute(QUERIES["end_run"], values)
        if self._connection.changes() != 1:
            raise StoreRefused(f"run {entry.run_id} cannot end: it has no start, or it has ended already")
        self._advance(entry)
        self.counts["run"] += 1

    def _advance(self, entry: Entry, **counts: int) -> None:
        advance = Advance(entry.run_id, entry.strategy, entry.seq, **counts)
        self._connection.execute(QUERIES["advance_run"], astuple(advance))

    def _note_dead_letter(self, entry: Entry, kind: Kind, reason: str) -> None:
        record = entry.record.fill if isinstance(entry.record, FillConflict) else entry.record
        fill_id = record.fill_id if isinstance(record, Fill) else None
        letter = DeadLetter(entry.run_id, entry.seq, entry.strategy, kind, reason, entry.payload, fill_id, self._now)
        self.dead_letters.append(letter)
        self.counts[kind] += 1


def newest_commit_no(connection: apsw.Connection) -> int:
    """The place of the newest fill in the commit order; places are never given twice (R7)."""
    value = connection.execute(QUERIES["newest_commit_no"]).get
    assert isinstance(value, int)
    return value


class Advance(msgspec.Struct):
    """How far a step brings one run; the parameters of `advance_run`, in order."""

    run_id: str
    strategy: str
    committed_seq: int
    last_commit_no: int = 0
    fills: int = 0
    order_events: int = 0
    orders: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    snapshots_without_rows: int = 0
    snapshots_refused: int = 0


class _Step:
    """Fills and order events that are written together, by executemany, and what they do to the table of open orders.

    `new` opens an order, a terminal status closes it for good; only the last event of each order is written there.
    """

    def __init__(self, commit_no: int) -> None:
        self.commit_no = commit_no
        self.fills: list[tuple[Any, ...]] = []
        self.events: list[tuple[Any, ...]] = []
        self.opened: dict[str, tuple[Any, ...]] = {}
        self.changed: dict[str, tuple[Any, ...]] = {}
        self.closed: list[tuple[str]] = []
        self.dead: list[Entry] = []
        self.runs: dict[str, Advance] = {}

    def take(self, stretch: Stretch, now: float) -> None:
        """Take fills and order events."""
        run_id, strategy, first_seq, _, records, _ = stretch
        fills, events, opened = self.fills, self.events, self.opened
        run = self._run(run_id, strategy, stretch.last_seq)
        fills_before, events_before = len(fills), len(events)
        for seq, record in enumerate(records, first_seq):
            kind = type(record)
            if kind is FillValues or kind is Fill:
                self.commit_no += 1
                fills.append((*astuple(record), now, strategy, run_id, seq, self.commit_no))
                continue
            row = (*astuple(record), strategy, run_id, seq)
            events.append(row)
            order_id, status = row[0], row[_STATUS]
            if status is _NEW:
                # Told as new twice, it was opened by the first: its fills may lie between the two.
                opened[order_id] = (*row, opened[order_id][-1] if order_id in opened else self.commit_no)
                run.orders += 1
            elif status not in OPEN_STATUSES:
                opened.pop(order_id, None)
                self.changed.pop(order_id, None)
                self.closed.append((order_id,))
            elif order_id in opened:
                opened[order_id] = (*row, opened[order_id][-1])
            else:
                self.changed[order_id] = row
        run.order_events += len(events) - events_before
        if len(fills) > fills_before:
            run.fills += len(fills) - fills_before
            run.last_commit_no = self.commit_no

    def bury(self, entry: Entry) -> None:
        self.dead.append(entry)
        self._run(entry.run_id, entry.strategy, entry.seq).dead_letters += 1

    def write_orders(self, connection: apsw.Connection) -> None:
        # In this order a late change of an order that was closed in the same step finds no row.
        if self.opened:
            connection.executemany(QUERIES["open_order"], self.opened.values())
        if self.closed:
            connection.executemany(QUERIES["close_order"], self.closed)
        if self.changed:
            connection.executemany(QUERIES["change_open_order"], self.changed.values())

    def _run(self, run_id: str, strategy: str, seq: int) -> Advance:
        """What this step does to a run, which now is at `seq`."""
        run = self.runs.get(run_id)
        if run is None:
            run = self.runs[run_id] = Advance(run_id, strategy, seq)
        run.committed_seq = seq
        return run
