"""Whether every seq of every run ended as exactly one thing (P2): a row, a dead letter, a duplicate, or part of a gap.

Snapshots that store no rows leave only a count (R2, R6): as many seqs may be without a trace as that count says, and no more.
One byte is kept for each seq, so a run of ten million records takes ten megabytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

_SEQ_MAX = 1 << 31  # beyond that a cursor is damage, and no memory is given for it
_SHOWN = 5

Say = Callable[[str], None]


class Cursor(NamedTuple):
    """A row of `run_cursors`."""

    run_id: str
    strategy: str
    committed_seq: int
    last_commit_no: int
    fills: int
    order_events: int
    orders: int
    duplicates: int
    dead_letters: int
    snapshots_without_rows: int
    snapshots_refused: int


class Accounts:
    """The seqs of all runs, ticked off one by one."""

    def __init__(self, cursors: Iterable[Cursor]) -> None:
        self._accounts = {cursor.run_id: _Account(cursor) for cursor in cursors}
        self._strangers: Counter[tuple[str, str]] = Counter()  # what, run_id

    def tick(self, what: str, run_id: str, seq: int) -> None:
        """One seq of a run is found as `what`."""
        account = self._accounts.get(run_id)
        if account is None:
            self._strangers[what, run_id] += 1
        else:
            account.tick(what, seq)

    def tick_range(self, what: str, run_id: str, from_seq: int, to_seq: int) -> None:
        """Every seq of a range that the run has passed; one that ends beyond it is as long as damage made it."""
        account = self._accounts.get(run_id)
        passed = 0 if account is None else account.cursor.committed_seq
        for seq in range(max(1, from_seq), min(to_seq, passed) + 1):
            self.tick(what, run_id, seq)
        if to_seq > passed:
            self.tick(what, run_id, to_seq)

    def is_ticked(self, run_id: str, seq: int) -> bool:
        account = self._accounts.get(run_id)
        return account is not None and account.is_ticked(seq)

    def has_passed(self, run_id: str, seq: int) -> bool:
        """Whether a seq counts as committed: a dead letter may lie in dlq.db before that (R27)."""
        account = self._accounts.get(run_id)
        return account is not None and seq <= account.cursor.committed_seq

    def note_commit_no(self, run_id: str, commit_no: int) -> None:
        account = self._accounts.get(run_id)
        if account is not None and commit_no > account.last_commit_no:
            account.last_commit_no = commit_no

    def note_order(self, run_id: str) -> None:
        account = self._accounts.get(run_id)
        if account is not None:
            account.found["order"] += 1

    def close(self, say: Say) -> None:
        """Say what does not add up."""
        for (what, run_id), count in self._strangers.items():
            say(f"{count} x {what} of run {run_id}, which has no cursor")
        for account in self._accounts.values():
            for sentence in account.faults():
                say(f"run {account.cursor.run_id} of {account.cursor.strategy}: {sentence}")


class _Account:
    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.found: Counter[str] = Counter()
        self.last_commit_no = 0
        self._is_sane = 0 <= cursor.committed_seq < _SEQ_MAX
        self._ticks = bytearray(cursor.committed_seq + 1 if self._is_sane else 1)
        self._twice: list[int] = []
        self._beyond: list[int] = []

    def tick(self, what: str, seq: int) -> None:
        self.found[what] += 1
        if not 0 < seq < len(self._ticks):
            self._beyond.append(seq)
        elif self._ticks[seq]:
            self._twice.append(seq)
        else:
            self._ticks[seq] = 1

    def is_ticked(self, seq: int) -> bool:
        return 0 < seq < len(self._ticks) and bool(self._ticks[seq])

    def faults(self) -> Iterator[str]:
        cursor, found = self.cursor, self.found
        if not self._is_sane:
            yield f"its cursor says seq {cursor.committed_seq}, which no run reaches"
            return
        if self._twice:
            yield f"seq {_some(self._twice)} is there more than once"
        if self._beyond:
            yield f"seq {_some(self._beyond)} is stored, and the run is committed up to {cursor.committed_seq}"
        traceless = cursor.snapshots_without_rows + cursor.snapshots_refused
        missing = self._ticks.count(0, 1)
        if missing > traceless:
            yield (
                f"{missing - traceless} of its records are committed and nowhere to be found"
                f" (without a trace is seq {_some(self._without_trace())}; {traceless} of them may be snapshots without rows)"
            )
        elif missing < traceless:
            yield f"its cursor counts {traceless} snapshots without rows, and only {missing} seqs are without a trace"
        for what, told, count in (
            ("fill", cursor.fills, found["fill"]),
            ("order event", cursor.order_events, found["order event"]),
            ("order", cursor.orders, found["order"]),
            ("duplicate", cursor.duplicates, found["duplicate"]),
            ("dead letter", cursor.dead_letters, found["dead letter"]),
        ):
            if told != count:
                yield f"its cursor counts {told} x {what}, and there are {count}"
        if cursor.last_commit_no != self.last_commit_no:
            yield f"its cursor says that its newest fill is number {cursor.last_commit_no}, and that is {self.last_commit_no}"

    def _without_trace(self) -> list[int]:
        seqs: list[int] = []
        seq = self._ticks.find(0, 1)
        while seq != -1 and len(seqs) <= _SHOWN:
            seqs.append(seq)
            seq = self._ticks.find(0, seq + 1)
        return seqs


def _some(seqs: list[int]) -> str:
    return ", ".join(map(str, seqs[:_SHOWN])) + (", …" if len(seqs) > _SHOWN else "")
