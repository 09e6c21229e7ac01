"""What the writer knows of each run, and the records it has taken and not yet committed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from horizon.errors import DecodeError
from horizon.journal import JournalReader
from horizon.records import Record
from horizon.store.append import Stretch
from horizon.wire import Control, Frames, decode_record, decode_records

MAX_RECORDS = 1000  # per transaction: larger ones only add latency
MAX_BYTES = 1 << 20


class Gap(NamedTuple):
    """Records that no journal holds any more (R13): they are written down as missing, and reading goes on behind them."""

    from_seq: int
    to_seq: int
    next_offset: int
    reason: str


@dataclass(slots=True)
class Run:
    """One run, live or left behind: how far it is committed, and how far it is taken into the batch at hand."""

    run_id: str
    strategy: str
    journal: JournalReader
    committed: int  # the run's cursor
    taken: int  # the newest seq read; frames up to the cursor are read over
    offset: int  # where the journal goes on behind it
    safe: tuple[int, int] = (0, 0)  # taken and offset as they were when everything taken was committed
    behind: bool = False  # its journal holds more than the last batch had room for
    dead: bool = False  # its process is gone: the journal is read past its head, then removed
    gap: Gap | None = None
    damaged: bool = False  # a part of the journal could not be read
    dead_letters: list[int] = field(default_factory=list)  # its seqs that lie in dlq.db
    recover: bool = False  # a snapshot of it was refused (R2)
    owed: bool = False  # a message of it was not answered yet
    told: Control | None = None  # what it was last told that its strategy may do
    seen_seq: int = 0  # what the journal's head was at the last look

    def rewind(self) -> None:
        """Forget what was taken and not committed (R19): it is read from the journal again, with a gap that lies behind it."""
        self.taken, self.offset = self.safe
        if self.gap is not None and self.gap.from_seq > self.committed + 1:
            self.gap = None

    def advance(self) -> None:
        """Everything taken is committed."""
        self.committed, self.safe = max(self.committed, self.taken), (self.taken, self.offset)

    def step_over(self, gap: Gap) -> None:
        """The gap is stored: what is missing counts as committed, and reading goes on behind it."""
        self.taken, self.offset, self.gap, self.damaged = gap.to_seq, gap.next_offset, None, True
        self.advance()


class Batch:
    """Records of several runs in the order they were taken; one transaction."""

    def __init__(self) -> None:
        self.stretches: list[Stretch] = []
        self.runs: set[str] = set()
        self.records = 0
        self._bytes = 0

    @property
    def full(self) -> bool:
        return self.records >= MAX_RECORDS or self._bytes >= MAX_BYTES

    def take(self, run: Run, frames: Frames, next_offset: int, *, from_journal: bool) -> bool:
        """Take the next frames of a run. Returns False, and takes nothing, when a message brought bytes that are no record.

        Only bytes read from the journal become dead letters: the same seq is then read from there (R17).
        """
        first_seq, payloads, size = frames
        if first_seq <= run.committed:
            payloads = payloads[run.committed + 1 - first_seq :]
            first_seq = run.committed + 1
        if payloads:
            try:
                stretch = Stretch(run.run_id, run.strategy, first_seq, payloads, decode_records(payloads))
            except DecodeError:
                if not from_journal:
                    return False
                stretch = _singly(run, first_seq, payloads)
            self.stretches.append(stretch)
            self.records += len(payloads)
            self._bytes += size
            self.runs.add(run.run_id)
        run.taken, run.offset = frames.last_seq, next_offset
        return True


def _singly(run: Run, first_seq: int, payloads: list[bytes]) -> Stretch:
    """Records of which at least one is none: that one shall become a dead letter, and none of its neighbours."""
    records: list[Record | None] = []
    problems: dict[int, str] = {}
    for seq, payload in enumerate(payloads, first_seq):
        try:
            records.append(decode_record(payload))
        except DecodeError as error:
            records.append(None)
            problems[seq] = f"not a record: {error}"
    return Stretch(run.run_id, run.strategy, first_seq, payloads, records, problems)
