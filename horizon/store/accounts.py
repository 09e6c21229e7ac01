"""Whether every seq of every run ended as exactly one thing (P2): a row, a dead letter, a duplicate, or part of a gap.

Snapshots that store no rows leave only a count (R2, R6): as many seqs may be without a trace as that count says, and no more.
One byte is kept for each seq, so a run of ten million records takes ten megabytes. Several processes tick off one part of the rows
each; their accounts are added up, and what two of them have ticked off is there twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

_SEQ_MAX = 1 << 31  # beyond that a cursor is damage, and no memory is given for it
_SHOWN = 5

# What a seq is ticked off as. All have a bit in common, so that the AND of two accounts shows what both have.
_OTHER, _FILL, _EVENT = 1, 3, 5
_NAMES = {_OTHER: "other", _FILL: "fill", _EVENT: "order event"}

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

    def tick_fills(self, rows: Sequence[Any]) -> None:
        """The regular rows of `fills_share`, in their order."""
        accounts = self._accounts
        for row in rows:
            if row[1] is None:
                continue
            account = accounts.get(row[3])
            if account is None:
                self._strangers["fill", row[3]] += 1
                continue
            seq, ticks = row[4], account.ticks
            if seq < len(ticks) and not ticks[seq]:
                ticks[seq] = _FILL
            else:
                account.tick("fill", seq)
            if row[0] > account.last_commit_no:
                account.last_commit_no = row[0]

    def tick_events(self, rows: Sequence[Any]) -> None:
        """Rows of `order_events_share`; those of the original have no run."""
        accounts = self._accounts
        for row in rows:
            run_id, seq = row[1], row[2]
            if run_id is None or seq is None:
                continue
            account = accounts.get(run_id)
            if account is None:
                self._strangers["order event", run_id] += 1
                continue
            ticks = account.ticks
            if 0 < seq < len(ticks) and not ticks[seq]:
                ticks[seq] = _EVENT
            else:
                account.tick("order event", seq)
            if row[4] == "new":
                account.orders += 1

    def add(self, other: Accounts) -> None:
        """What another process has found of the same runs."""
        self._strangers.update(other._strangers)
        for run_id, account in self._accounts.items():
            account.add(other._accounts[run_id])

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
        self.last_commit_no = 0
        self.orders = 0
        self._is_sane = 0 <= cursor.committed_seq < _SEQ_MAX
        self.ticks = bytearray(cursor.committed_seq + 1 if self._is_sane else 1)
        self._found: Counter[str] = Counter()  # what the ticks do not say
        self._twice: list[int] = []
        self._beyond: list[int] = []

    def tick(self, what: str, seq: int) -> None:
        self._found[what] += 1
        if not 0 < seq < len(self.ticks):
            self._beyond.append(seq)
        elif self.ticks[seq]:
            self._twice.append(seq)
        else:
            self.ticks[seq] = _OTHER

    def is_ticked(self, seq: int) -> bool:
        return 0 < seq < len(self.ticks) and bool(self.ticks[seq])

    def add(self, other: _Account) -> None:
        self._found.update(other._found)
        self._twice += other._twice
        self._beyond += other._beyond
        self.orders += other.orders
        self.last_commit_no = max(self.last_commit_no, other.last_commit_no)
        mine, theirs = int.from_bytes(self.ticks), int.from_bytes(other.ticks)
        if mine & theirs:
            for seq, (one, another) in enumerate(zip(self.ticks, other.ticks, strict=True)):
                if one and another:
                    self._twice.append(seq)
                    self._found[_NAMES[another]] += 1
                elif another:
                    self.ticks[seq] = another
        else:
            self.ticks = bytearray((mine | theirs).to_bytes(len(self.ticks)))

    def faults(self) -> Iterator[str]:
        cursor = self.cursor
        if not self._is_sane:
            yield f"its cursor says seq {cursor.committed_seq}, which no run reaches"
            return
        if self._twice:
            yield f"seq {_some(self._twice)} is there more than once"
        if self._beyond:
            yield f"seq {_some(self._beyond)} is stored, and the run is committed up to {cursor.committed_seq}"
        traceless = cursor.snapshots_without_rows + cursor.snapshots_refused
        missing = self.ticks.count(0, 1)
        if missing > traceless:
            yield (
                f"{missing - traceless} of its records are committed and nowhere to be found"
                f" (without a trace is seq {_some(self._without_trace())}; {traceless} of them may be snapshots without rows)"
            )
        elif missing < traceless:
            yield f"its cursor counts {traceless} snapshots without rows, and only {missing} seqs are without a trace"
        for what, told, count in (
            ("fill", cursor.fills, self._found["fill"] + self.ticks.count(_FILL)),
            ("order event", cursor.order_events, self._found["order event"] + self.ticks.count(_EVENT)),
            ("order", cursor.orders, self.orders),
            ("duplicate", cursor.duplicates, self._found["duplicate"]),
            ("dead letter", cursor.dead_letters, self._found["dead letter"]),
        ):
            if told != count:
                yield f"its cursor counts {told} x {what}, and there are {count}"
        if cursor.last_commit_no != self.last_commit_no:
            yield f"its cursor says that its newest fill is number {cursor.last_commit_no}, and that is {self.last_commit_no}"

    def _without_trace(self) -> list[int]:
        seqs: list[int] = []
        seq = self.ticks.find(0, 1)
        while seq != -1 and len(seqs) <= _SHOWN:
            seqs.append(seq)
            seq = self.ticks.find(0, seq + 1)
        return seqs


def _some(seqs: list[int]) -> str:
    return ", ".join(map(str, seqs[:_SHOWN])) + (", …" if len(seqs) > _SHOWN else "")
