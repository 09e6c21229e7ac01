"""Compares what the witness saw with what the database holds: every record of every run, row by row, and every position bit by bit.

It trusts nothing that it judges: it reads tables with statements of its own, makes each row the JSON of the record that it stands for and
compares bytes, and folds positions from all rows of `fills`, with snapshots as defendants and not as a starting point.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import msgspec

from horizon.chaos import exchange, witness
from horizon.chaos.witness import Testimony, held
from horizon.paths import DatabasePaths
from horizon.positions import Book
from horizon.records import Fill, FillConflict, PositionRow, PositionSnapshot
from horizon.store.connection import open_reader
from horizon.store.recovery import recover
from horizon.wire import decode_record

_EXAMPLES = 20
# The tags of the records, which begin their JSON.
_FILL, _ORDER_EVENT, _RISK_EVENT, _STARTED, _ENDED, _SNAPSHOT, _CONFLICT = "f", "o", "k", "a", "z", "s", "c"

_FILLS = """SELECT strategy, run_id, seq, fill_id, order_id, market_id, side, order_side, price, size, fee, timestamp, token_id,
    exchange, is_maker, multiplier, fee_currency FROM fills ORDER BY commit_no"""
_ORDER_EVENTS = """SELECT strategy, run_id, seq, order_id, market_id, side, order_side, price, size, filled_size, remaining_size,
    order_type, time_in_force, status, status_reason, exchange, created_at, recorded_at FROM order_events ORDER BY id"""
_RISK_EVENTS = (
    "SELECT strategy, run_id, seq, event_type, details, timestamp FROM risk_events WHERE run_id IS NOT NULL ORDER BY id"
)
_STARTS = """SELECT strategy, run_id, seq, strategy_name, exchange, started_at, config, pid, recovered_commit_no FROM strategy_runs
    WHERE seq IS NOT NULL ORDER BY rowid"""
_ENDS = "SELECT strategy, run_id, ended_seq, ended_at, end_reason FROM strategy_runs WHERE ended_seq IS NOT NULL ORDER BY rowid"
_SNAPSHOT_ROWS = """SELECT run_id, seq, market_id, side, exchange, token_id, exact_size, exact_cost, exact_realized_pnl, exact_fees,
    exact_base_fees, multiplier, mark FROM position_snapshots WHERE run_id IS NOT NULL ORDER BY id"""
_CURSORS = "SELECT run_id, committed_seq, snapshots_without_rows, snapshots_refused FROM run_cursors"
_DUPLICATES = "SELECT run_id, seq FROM duplicates"
_GAPS = "SELECT run_id, from_seq, to_seq FROM run_gaps"
_DEAD_LETTERS = "SELECT run_id, seq, payload FROM dead_letters"


class Verdict(msgspec.Struct):
    """What the comparison found. The trial is won when everything but the first block is 0."""

    runs: int = 0
    events: int = 0  # `record` returned
    in_flight: int = 0  # `record` had not returned when the kill came: they may be there or not, but whole and once
    executions: int = 0  # of the exchange
    dead_letters: int = 0  # conflicts that the exchange made up
    recognised: int = 0  # fills that the writer knew already and counted instead of storing
    states: int = 0  # positions compared, each against the fold of all rows up to its moment

    lost: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    altered: int = 0  # there, with other content
    invented: int = 0  # without a "before" line
    missed: int = 0  # executed by the exchange, recorded by nobody
    dead_lettered: int = 0  # in dlq.db, with every right to be a row, or as a conflict that is none
    positions_off: int = 0
    journals_left: int = 0  # after a clean end nothing may wait
    examples: list[str] = []

    @property
    def is_clean(self) -> bool:
        return not any(getattr(self, name) for name in _FAULTS)

    def fault(self, name: str, sentence: str, count: int = 1) -> None:
        setattr(self, name, getattr(self, name) + count)
        if len(self.examples) < _EXAMPLES:
            self.examples.append(sentence)


_FAULTS = (
    *("lost", "duplicated", "out_of_order", "altered", "invented", "missed", "dead_lettered"),
    *("positions_off", "journals_left"),
)


def judge(database: Path, witnesses: Path, accounts: Path) -> Verdict:
    """Compare a database that nobody writes any more with the files of the witness and of the exchange. Raises: StoreError."""
    verdict = Verdict()
    seen = {testimony.about.run_id: testimony for testimony in _testimonies(witnesses)}
    paths = DatabasePaths.of(database)
    left = paths.journals()
    if left:
        verdict.fault("journals_left", f"after the end {left[0]} still waits for a writer", len(left))
    with closing(open_reader(paths.database)) as reader:
        _judge_rows(verdict, seen, _rows_of(verdict, reader, paths, seen))
        fills = _fills_by_strategy(reader)
        _judge_positions(verdict, seen, fills)
        _judge_recovery(verdict, reader, fills)
        _judge_executions(verdict, accounts, seen)
    return verdict


class _Rows:
    """What the database holds of one run: the JSON of each row by seq, and how often each seq is there."""

    def __init__(self) -> None:
        self.json: dict[int, bytes] = {}
        self.times: Counter[int] = Counter()
        self.committed_seq = 0
        self.snapshots_without_rows = 0

    def add(self, seq: int, encoded: bytes) -> None:
        self.json[seq] = encoded
        self.times[seq] += 1


def _testimonies(folder: Path) -> Iterator[Testimony]:
    for path in sorted(folder.glob(f"*{witness.SUFFIX}")):
        testimony = witness.read(path)
        if testimony is not None:
            yield testimony


# ---- rows


def _rows_of(verdict: Verdict, reader: apsw.Connection, paths: DatabasePaths, seen: dict[str, Testimony]) -> dict[str, _Rows]:
    rows: dict[str, _Rows] = defaultdict(_Rows)
    for tag, statement, ordered in (
        *((_FILL, _FILLS, True), (_ORDER_EVENT, _ORDER_EVENTS, True), (_RISK_EVENT, _RISK_EVENTS, True)),
        *((_STARTED, _STARTS, False), (_ENDED, _ENDS, False)),
    ):
        newest: dict[str, tuple[str, int]] = {}
        for strategy, run_id, seq, *values in reader.execute(statement):
            if ordered:
                # Run ids rise with time, and a run begins when every older one of its strategy is stored: so this pair only rises.
                if (run_id, seq) < newest.get(strategy, ("", 0)):
                    verdict.fault("out_of_order", f"{strategy}: seq {seq} of run {run_id} comes after {newest[strategy]}")
                newest[strategy] = run_id, seq
            rows[run_id].add(seq, _encoded(tag, values))
    _add_snapshots(rows, reader, seen)
    for run_id, seq in reader.execute(_DUPLICATES):
        # Not a doubled row: the writer recognised the fill and wrote down that it came again.
        rows[run_id].add(seq, _witnessed(seen, run_id, seq))
        verdict.recognised += 1
    for run_id, committed_seq, without_rows, refused in reader.execute(_CURSORS):
        rows[run_id].committed_seq = committed_seq
        rows[run_id].snapshots_without_rows = without_rows + refused
    for run_id, first, last in reader.execute(_GAPS):
        verdict.fault("lost", f"run {run_id}: the writer itself says that seq {first} to {last} are missing", last - first + 1)
        for seq in range(first, last + 1):
            rows[run_id].add(seq, _witnessed(seen, run_id, seq))
    _add_dead_letters(verdict, rows, paths)
    return rows


def _encoded(tag: str, values: list[Any]) -> bytes:
    """A row as the JSON of the record that it stands for: its columns are the record's fields, in their order."""
    if tag == _FILL:
        values[-3] = bool(values[-3])  # is_maker
    return msgspec.json.encode([tag, *values])


def _is(encoded: bytes, tag: str) -> bool:
    return encoded.startswith(b'["%s"' % tag.encode())


def _witnessed(seen: dict[str, Testimony], run_id: str, seq: int) -> bytes:
    testimony = seen.get(run_id)
    return testimony.records[seq - 1] if testimony is not None and 0 < seq <= len(testimony.records) else b""


def _add_snapshots(rows: dict[str, _Rows], reader: apsw.Connection, seen: dict[str, Testimony]) -> None:
    batches: dict[tuple[str, int], list[Any]] = defaultdict(list)
    for run_id, seq, *columns in reader.execute(_SNAPSHOT_ROWS):
        batches[run_id, seq].append(columns)
    for (run_id, seq), batch in batches.items():
        # The positions are the rows; when they were taken stands nowhere else, so that is not compared.
        told = _witnessed(seen, run_id, seq)
        same = _is(told, _SNAPSHOT) and msgspec.json.encode(batch) == msgspec.json.encode(_snapshot(told).rows)
        rows[run_id].add(seq, told if same else _encoded(_SNAPSHOT, batch))


def _snapshot(told: bytes) -> PositionSnapshot:
    return msgspec.json.decode(told, type=PositionSnapshot)


def _add_dead_letters(verdict: Verdict, rows: dict[str, _Rows], paths: DatabasePaths) -> None:
    with closing(apsw.Connection(str(paths.dead_letters), flags=apsw.SQLITE_OPEN_READONLY)) as letters:
        for run_id, seq, payload in letters.execute(_DEAD_LETTERS):
            encoded = msgspec.json.encode(decode_record(payload))
            if _is(encoded, _CONFLICT):
                verdict.dead_letters += 1
            else:
                verdict.fault("dead_lettered", f"seq {seq} of run {run_id} became a dead letter: {_short(encoded)}")
            rows[run_id].add(seq, encoded)


def _judge_rows(verdict: Verdict, seen: dict[str, Testimony], rows: dict[str, _Rows]) -> None:
    for run_id in sorted(seen.keys() | rows.keys()):
        testimony, stored = seen.get(run_id), rows.get(run_id, _Rows())
        records = testimony.records if testimony is not None else []
        promised = testimony.promised if testimony is not None else 0
        verdict.runs += 1
        verdict.events += promised
        verdict.in_flight += len(records) - promised
        absent = []
        for seq, told in enumerate(records, 1):
            found = stored.json.get(seq)
            if found is None:
                if seq <= promised or seq <= stored.committed_seq:
                    absent.append(seq)
            elif found != told:
                verdict.fault("altered", f"seq {seq} of run {run_id}: recorded {_short(told)}, stored {_short(found)}")
        # A snapshot that says nothing new has no rows; the run's cursor counts those, and says that they arrived.
        quiet = [seq for seq in absent if _is(records[seq - 1], _SNAPSHOT) and seq <= stored.committed_seq]
        quiet = quiet[: stored.snapshots_without_rows]
        for seq in sorted(set(absent) - set(quiet)):
            verdict.fault("lost", f"seq {seq} of run {run_id} is nowhere: {_short(records[seq - 1])}")
        for seq, times in stored.times.items():
            if times > 1:
                verdict.fault("duplicated", f"seq {seq} of run {run_id} is there {times} times", times - 1)
            if not 0 < seq <= len(records):
                verdict.fault("invented", f"seq {seq} of run {run_id} was never recorded: {_short(stored.json[seq])}")


# ---- positions


def _fills_by_strategy(reader: apsw.Connection) -> dict[str, list[tuple[str, int, bytes]]]:
    """(run, seq, JSON) of every fill, in commit order."""
    fills: dict[str, list[tuple[str, int, bytes]]] = defaultdict(list)
    for strategy, run_id, seq, *values in reader.execute(_FILLS):
        fills[strategy].append((run_id, seq, _encoded(_FILL, values)))
    return fills


def _judge_positions(verdict: Verdict, seen: dict[str, Testimony], fills: dict[str, list[tuple[str, int, bytes]]]) -> None:
    """Each state that a victim showed, and each snapshot that it recorded, against the fold of all rows up to that moment."""
    runs: dict[str, list[Testimony]] = defaultdict(list)
    for run_id in sorted(seen):
        runs[seen[run_id].about.strategy].append(seen[run_id])
    for strategy, testimonies in runs.items():
        book, rest = Book(), iter(fills.get(strategy, ()))
        ahead = next(rest, None)
        for testimony in testimonies:
            run_id = testimony.about.run_id
            for seq, told in _claims(testimony):
                while ahead is not None and ahead[:2] <= (run_id, seq):
                    book.apply(msgspec.json.decode(ahead[2], type=Fill))
                    ahead = next(rest, None)
                verdict.states += 1
                folded = held(book.all_positions()) if isinstance(told, frozenset) else _exact(book.snapshot())
                if told != folded:
                    _position_off(verdict, f"{strategy} after seq {seq} of run {run_id}", folded, told)


def _claims(testimony: Testimony) -> Iterator[tuple[int, Any]]:
    """(seq, what the victim held then), in its order: floats as it showed them, decimals as it recorded them."""
    snapshots = ((seq, _exact(_snapshot(told).rows)) for seq, told in enumerate(testimony.records, 1) if _is(told, _SNAPSHOT))
    return iter(sorted([*testimony.states, *snapshots], key=lambda claim: claim[0]))


def _exact(rows: Iterable[PositionRow]) -> set[tuple[str, ...]]:
    """The state of every position as decimal text. Marks are left out: fills say nothing of them."""
    return {
        (*(row.exchange, row.market_id, row.side.value), *(row.size, row.cost, row.realized_pnl, row.fees, row.base_fees))
        for row in rows
    }


def _judge_recovery(verdict: Verdict, reader: apsw.Connection, fills: dict[str, list[tuple[str, int, bytes]]]) -> None:
    """What the next run would start from: newest snapshot and the fills after it, against the fold of all rows."""
    for strategy, rows in fills.items():
        whole = Book.restore((), (msgspec.json.decode(encoded, type=Fill) for _, _, encoded in rows))
        found = recover(reader, strategy)
        verdict.states += 1
        folded, recovered = _exact(whole.snapshot()), _exact(Book.restore(found.rows, found.fills).snapshot())
        if recovered != folded:
            _position_off(verdict, f"{strategy} recovered from its newest snapshot", folded, recovered)


def _position_off(verdict: Verdict, where: str, folded: Any, told: Any) -> None:
    verdict.fault("positions_off", f"{where}: the rows give {sorted(folded - told)[:2]}, not {sorted(told - folded)[:2]}")


# ---- executions


def _judge_executions(verdict: Verdict, accounts: Path, seen: dict[str, Testimony]) -> None:
    """What the exchange executed was recorded by some run, also where a kill came before the news; the rows are judged above."""
    recorded = {_fill_id(told): told for told in _told(seen, _FILL)}
    executed = [fill for path in sorted(accounts.glob(f"*/*{exchange.SUFFIX}")) for fill in exchange.read_fills(path)]
    verdict.executions = len(executed)
    for fill in executed:
        told = recorded.get(_fill_id(fill))
        if told is None:
            verdict.fault("missed", f"an execution was never recorded: {_short(fill)}")
        elif told != fill:
            verdict.fault("altered", f"the exchange executed {_short(fill)}, recorded is {_short(told)}")
    true = set(executed)
    for conflict in _told(seen, _CONFLICT):
        if msgspec.json.encode(msgspec.json.decode(conflict, type=FillConflict).fill) in true:
            verdict.fault("dead_lettered", f"a true execution was taken for a conflict: {_short(conflict)}")


def _told(seen: dict[str, Testimony], tag: str) -> Iterator[bytes]:
    """Every record of a kind, of all runs."""
    return (told for one in seen.values() for told in one.records if _is(told, tag))


def _fill_id(encoded: bytes) -> str:
    return msgspec.json.decode(encoded, type=Fill).fill_id


def _short(encoded: bytes) -> str:
    text = encoded.decode(errors="replace")
    return text if len(text) <= 200 else text[:200] + "…"
